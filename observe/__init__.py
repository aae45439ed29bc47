"""The proof of observability, from end to end: `make observe`."""
