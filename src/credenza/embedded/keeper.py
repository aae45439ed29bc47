"""Keeps the embedded PostgreSQL running while a block of code needs it."""

import asyncio
import contextlib
from collections.abc import AsyncIterator, Callable
from pathlib import Path
from typing import Final

from credenza.embedded.binaries import installed
from credenza.embedded.home import EmbeddedError, Home
from credenza.embedded.server import Server, start

AGAIN_SECONDS: Final = 1.0
"""Pause before a server that does not come up is tried again."""


@contextlib.asynccontextmanager
async def running(
    path: Path, progress: Callable[[str], None], *, announce: str = ""
) -> AsyncIterator[str]:
    """Hold the home and give the URL of its server, which is started again whenever it dies.

    `announce` is the URL that others find under `Home.holder`. Raises `EmbeddedError` where the
    server does not come up the first time.
    """
    installed()  # where it is not, that is the thing to say, whatever the home is like
    home = Home(path)
    try:
        home.announce(announce)
        keeper = _Keeper(home, progress)
        url = await keeper.begin()
        try:
            yield url
        finally:
            await keeper.end()
    finally:
        home.release()


class _Keeper:
    def __init__(self, home: Home, progress: Callable[[str], None]) -> None:
        self._home = home
        self._progress = progress
        self._watching: asyncio.Task[None] | None = None
        self._server: Server | None = None

    async def begin(self) -> str:
        self._server = await start(self._home, self._progress)
        self._watching = asyncio.create_task(self._watch(self._server))
        return self._server.url

    async def end(self) -> None:
        if self._watching is not None:
            self._watching.cancel()
            await asyncio.gather(self._watching, return_exceptions=True)
        if self._server is not None:
            await self._server.stop()

    async def _watch(self, server: Server) -> None:
        while True:
            status = await server.wait()
            self._progress(f"PostgreSQL has ended with status {status}; it is started again")
            server = self._server = await self._start_again()

    async def _start_again(self) -> Server:
        while True:
            try:
                return await start(self._home, self._progress)
            except EmbeddedError as error:
                self._progress(str(error))
                await asyncio.sleep(AGAIN_SECONDS)
