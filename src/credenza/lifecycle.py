"""Where the process stands; written by who runs it, read by who answers for it."""

import asyncio


class Lifecycle:
    """The stages of one process: starting, serving, draining; and the requests under way."""

    def __init__(self) -> None:
        self.started = False
        self.draining = False
        self.in_flight = 0
        self._none_in_flight = asyncio.Event()
        self._none_in_flight.set()

    def enter(self) -> None:
        """Count a request that begins."""
        self.in_flight += 1
        self._none_in_flight.clear()

    def leave(self) -> None:
        """Count a request that has ended."""
        self.in_flight -= 1
        if not self.in_flight:
            self._none_in_flight.set()

    async def idle(self) -> None:
        """Wait until no request is under way."""
        await self._none_in_flight.wait()
