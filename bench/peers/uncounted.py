"""The service without the HTTP series: what they cost a cached read is the difference.

A request leaves its record, of which the log line is made, and is not counted. Run as
`python -m bench.peers.uncounted serve`.
"""

from credenza.cli import main
from credenza.tallies import Tally


def _nothing(*_: object) -> None:
    """Do not count."""


if __name__ == "__main__":
    Tally.add = _nothing  # type: ignore[assignment,method-assign]
    main()
