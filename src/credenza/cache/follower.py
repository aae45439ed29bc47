"""Follows the channel of changes and knows how far behind it can be.

A heartbeat travels on the same connection as the messages: its answer proves that every message
before it has arrived. What is held locally may be served only while that proof is young, which
covers a process that was stopped and a connection that died in silence. Must not know what is held.
"""

import asyncio
import contextlib
import time
from collections.abc import Awaitable, Callable
from typing import Final

import structlog
from prometheus_client import Counter, Gauge
from redis.asyncio.connection import AbstractConnection
from redis.exceptions import RedisError

from credenza.cache.entries import CHANNEL
from credenza.cache.shared import GONE, Away, Change

FRESH_SECONDS: Final = 1.0
"""How old the last answered heartbeat may be where local entries are served."""

BEAT_SECONDS: Final = 0.2
SILENT_SECONDS: Final = 3.0
"""After so long without an answer the connection is given up."""

AGAIN_SECONDS: Final = 0.5

log = structlog.get_logger()


class Follower:
    """One subscription, made anew whenever it ends.

    `on_up` is awaited when it is confirmed, before it counts; `on_beat` at each heartbeat;
    `on_change` gets each message; `on_down` is called at its end. `heartbeat` shows what `fresh` is
    decided by, and `failures` counts connections that cannot be made or are lost, each
    attempt.
    """

    def __init__(
        self,
        connect: Callable[[], AbstractConnection],
        *,
        on_up: Callable[[], Awaitable[None]],
        on_beat: Callable[[], Awaitable[None]],
        on_change: Callable[[Change], None],
        on_down: Callable[[], Awaitable[None]],
        heartbeat: Gauge,
        failures: Counter,
    ) -> None:
        self._connect = connect
        self._on_up = on_up
        self._on_beat = on_beat
        self._on_change = on_change
        self._on_down = on_down
        self._heartbeat = heartbeat
        self._failures = failures
        self._proven = float("-inf")
        self._up = asyncio.Event()
        self._reported = False
        self._work: asyncio.Task[None] | None = None
        self._following: asyncio.Task[None] | None = None

    @property
    def fresh(self) -> bool:
        """Whether everything that was sent until a second ago has arrived."""
        return time.monotonic() - self._proven < FRESH_SECONDS

    async def start(self, within: float) -> None:
        """Begin, and wait a little for the first heartbeat's answer."""
        self._heartbeat.set(time.time())
        self._work = asyncio.create_task(self._keep_following())
        with contextlib.suppress(TimeoutError):
            await asyncio.wait_for(self._up.wait(), within)

    async def stop(self) -> None:
        """End."""
        if self._work is not None:
            self._work.cancel()
            await asyncio.gather(self._work, return_exceptions=True)

    def drop(self) -> None:
        """Give the connection up, because Redis does not answer elsewhere."""
        self._proven = float("-inf")
        if self._following is not None:
            self._following.cancel()

    async def _keep_following(self) -> None:
        while True:
            self._following = asyncio.create_task(self._follow())
            try:
                await asyncio.wait({self._following})
            finally:
                self._following.cancel()
                self._proven = float("-inf")
                self._up.clear()
                await self._on_down()
            self._report(self._following)
            await asyncio.sleep(AGAIN_SECONDS)

    def _report(self, following: asyncio.Task[None]) -> None:
        """Write one line an outage; a command that failed (`Away`) was counted where it did."""
        error = None if following.cancelled() else following.exception()
        if error is not None and not isinstance(error, Away):
            self._failures.inc()
        if not self._reported:
            log.warning("no connection to Redis", reason=str(error or "commands fail"))
        self._reported = True

    async def _follow(self) -> None:
        connection = self._connect()
        beating: asyncio.Task[None] | None = None
        try:
            await connection.connect()  # type: ignore[no-untyped-call]  # it has no types
            await connection.send_command("SUBSCRIBE", CHANNEL)
            await connection.read_response()
            await self._on_up()
            beating = asyncio.create_task(self._beat(connection))
            while True:
                self._take(await connection.read_response(timeout=SILENT_SECONDS))
        finally:
            if beating is not None:
                beating.cancel()
                await asyncio.gather(beating, return_exceptions=True)
            await connection.disconnect(nowait=True)

    def _take(self, answer: list[bytes] | None) -> None:
        if answer is None:
            raise TimeoutError(f"no heartbeat was answered for {SILENT_SECONDS:g} s")
        if answer[0] == b"message":
            self._on_change(Change.parse(answer[2]))
        elif answer[0] == b"pong":
            if not self._up.is_set():
                log.info("following Redis")
                self._reported = False
                self._up.set()
            self._proven = float(answer[1])
            self._heartbeat.set(time.time() - (time.monotonic() - self._proven))

    async def _beat(self, connection: AbstractConnection) -> None:
        with contextlib.suppress(RedisError, *GONE):  # the reading side ends for the same reason
            while connection.is_connected:
                sent = repr(time.monotonic())
                await connection.send_command("PING", sent, check_health=False)
                with contextlib.suppress(Away):  # it comes again
                    await self._on_beat()
                await asyncio.sleep(BEAT_SECONDS)
