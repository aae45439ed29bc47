"""`python -m credenza` is `credenza`."""

from credenza.cli import main

main()
