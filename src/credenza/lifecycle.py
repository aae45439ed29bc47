"""Where the process stands; written by who runs it, read by who answers for it."""

import asyncio


class Lifecycle:
    """The stages of one process: starting, serving, draining; and the requests under way."""

    def __init__(self) -> None:
        self.started = False
        self.draining = False
        self.in_flight = 0
        self._idle: asyncio.Event | None = None

    def enter(self) -> None:
        """Count a request that begins."""
        self.in_flight += 1

    def leave(self) -> None:
        """Count a request that has ended."""
        self.in_flight -= 1
        if self._idle is not None and not self.in_flight:
            self._idle.set()

    async def idle(self) -> None:
        """Wait until no request is under way."""
        while self.in_flight:
            self._idle = asyncio.Event()
            await self._idle.wait()
