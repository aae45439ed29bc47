"""The cache in Redis: one script call an operation, short time-outs, a count of failures.

Must not know the near cache. A failure leaves as `Away`; several in a row call `on_away`.
"""

import asyncio
import contextlib
import random
import secrets
import time
from collections.abc import Awaitable, Callable
from functools import cache
from importlib.resources import files
from time import perf_counter
from typing import Any, Final, NamedTuple

from redis.asyncio import BlockingConnectionPool, Redis
from redis.asyncio.connection import AbstractConnection, Connection, parse_url
from redis.asyncio.retry import Retry
from redis.backoff import NoBackoff
from redis.credentials import CredentialProvider
from redis.exceptions import ConnectionError as RedisConnectionError
from redis.exceptions import ReadOnlyError, RedisError
from redis.exceptions import TimeoutError as RedisTimeoutError

from credenza import tracing
from credenza.cache.entries import CHANNEL, GENERATION, Entry, Key
from credenza.settings import Settings
from credenza.telemetry import Metrics

COMMAND_SECONDS: Final = 0.25
"""How long a command may take, with waiting for a connection and making one."""

FAILURES: Final = 3
"""Failures in a row after which Redis counts as away."""

LEASE_SECONDS: Final = 5.0
CONNECTIONS: Final = 32
JITTER: Final = 0.1
"""The part of a life span that is left to chance, so that entries do not expire together."""

REDIS: Final = {"db.system.name": "redis"}

ANY_VERSION: Final = "*"
"""In a message: the entry is to go, whatever its version."""

GONE: Final = (
    RedisConnectionError,
    RedisTimeoutError,
    ReadOnlyError,
    OSError,
    TimeoutError,
    RuntimeError,
)
"""Failures of the server or of the way to it; others are answers to one command.

RuntimeError is what uvloop says of a connection that was reset before anything is written to it.
"""


class Away(Exception):
    """Redis did not take the command, or nobody knows whether it did."""


class Looked(NamedTuple):
    """What a look-up found: an entry with seconds to live, or else a lease, or nothing."""

    entry: Entry | None = None
    ttl: float = 0.0
    lease: str | None = None


class Change(NamedTuple):
    """A message of the channel: who wrote which key, when, at which version.

    A key that is the generation's name announces another generation, as `version`.
    """

    sender: str
    microseconds: int
    key: str
    version: str

    @classmethod
    def parse(cls, text: bytes) -> "Change":
        """Return the message of that text."""
        sender, microseconds, key, version = text.decode().split(" ")
        return cls(sender, int(microseconds), key, version)


class _Password(CredentialProvider):
    """Reads the password at each connect, so that it can change while the service runs."""

    def __init__(self, username: str, read: Callable[[], str]) -> None:
        self._username = username
        self._read = read

    def get_credentials(self) -> tuple[str] | tuple[str, str]:
        password = self._read()
        return (self._username, password) if self._username else (password,)


class Shared:
    """The entries that all processes share."""

    def __init__(
        self, settings: Settings, metrics: Metrics, *, on_away: Callable[[], None]
    ) -> None:
        self.sender = secrets.token_hex(8)
        """Names this process in messages."""
        self.generation = ""
        """What entries must have been written under to count."""
        self._options = _options(settings)
        self._type: type[AbstractConnection] = self._options.pop("connection_class", Connection)
        self._pool = BlockingConnectionPool(
            max_connections=CONNECTIONS,
            timeout=COMMAND_SECONDS,
            connection_class=self._type,
            **self._options,
        )
        self._client: Redis = Redis(connection_pool=self._pool)
        self._decide = self._client.register_script(
            files(__package__).joinpath("decide.lua").read_text()
        )
        self._failures = 0
        self._on_away = on_away
        self._errors = metrics.cache.labels("redis", "error")
        self._seconds = cache(metrics.redis.labels)

    def connection(self) -> AbstractConnection:
        """Return a connection outside of the pool, to follow the channel."""
        return self._type(**self._options)

    async def look(self, key: Key) -> Looked:
        """Return the entry, or leave a lease where there is none."""
        token = secrets.token_hex(8)
        lease_ms = int(LEASE_SECONDS * 1000)
        answer = await self._call("look", key.text, self.generation, token, lease_ms)
        if len(answer) == 2:  # noqa: PLR2004 - the entry and its life
            return Looked(Entry.unpack(answer[0], key), answer[1] / 1000)
        return Looked(lease=token if answer else None)

    async def fill(self, key: Key, lease: str, entry: Entry, ttl: float, generation: str) -> bool:
        """Put an entry in its lease's place; False: the lease stands no more.

        `generation` is the one under which the lease was taken.
        """
        life = int(ttl * 1000)
        return bool(await self._call("fill", key.text, lease, entry.pack(key, generation), life))

    async def wrote(self, key: Key, entry: Entry, ttl: float) -> None:
        """Tell of a committed write."""
        packed, life = entry.pack(key, self.generation), int(ttl * 1000)
        await self._call(
            *("wrote", key.text, self.generation, entry.version, packed, life),
            *self._message(key.text, str(entry.version)),
        )

    async def drop(self, key: Key) -> None:
        """Tell of a write that may have been committed."""
        await self._call("drop", key.text, *self._message(key.text, ANY_VERSION))

    async def begin(self, *, anew: bool) -> None:
        """Learn the generation, or give all another one (`anew`).

        The server's run id is part of it: a replica that was promoted may lack the last writes.
        """
        now = time.time_ns() // 1000
        stored = await self._call(
            "generation", GENERATION, now, int(anew), CHANNEL, self.sender, now, GENERATION
        )
        server = await self._bounded(lambda: self._client.info("server"))
        self.generation = _joined(stored.decode(), str(server.get("run_id", "")))

    def renamed(self, generation: str) -> None:
        """Take a newer generation of which a message told."""
        current, _, run_id = self.generation.partition("-")
        if int(generation) > int(current):
            self.generation = _joined(generation, run_id)

    async def reset(self) -> None:
        """Close idle connections, which may be dead."""
        self._failures = 0
        with contextlib.suppress(RedisError, OSError, TimeoutError):
            await self._pool.disconnect(inuse_connections=False)

    async def close(self) -> None:
        """Close all connections."""
        await self._client.aclose()
        await self._pool.disconnect()

    def _message(self, key: str, version: str) -> tuple[str, str]:
        text = f"{self.sender} {time.time_ns() // 1000} {key} {version}"
        return CHANNEL, text

    async def _call(self, operation: str, key: str, *arguments: bytes | str | int) -> Any:
        began = perf_counter()
        try:
            with tracing.within(f"redis {operation}", REDIS):
                return await self._bounded(
                    lambda: self._decide(keys=[key], args=[operation, *arguments])
                )
        finally:
            self._seconds(operation).observe(perf_counter() - began)

    async def _bounded(self, send: Callable[[], Awaitable[Any]]) -> Any:
        try:
            async with asyncio.timeout(COMMAND_SECONDS):
                answer = await send()
        except GONE as error:
            self._errors.inc()
            self._failures += 1
            if self._failures == FAILURES:
                self._on_away()
            raise Away(_reason(error)) from error
        except RedisError as error:
            self._errors.inc()
            raise Away(_reason(error)) from error
        self._failures = 0
        return answer


def jittered(ttl: float) -> float:
    """Return a life span that is at most `ttl`, a little shorter by chance."""
    return ttl * (1 - JITTER * random.random())  # noqa: S311 - nothing secret about it


def _reason(error: BaseException) -> str:
    return f"{type(error).__name__}: {error}" if str(error) else type(error).__name__


def _joined(generation: str, run_id: str) -> str:
    return f"{generation}-{run_id}"


def _options(settings: Settings) -> dict[str, Any]:
    """Return how connections are made."""
    url = "" if settings.redis_url is None else settings.redis_url.get_secret_value()
    options: dict[str, Any] = {
        **parse_url(url),
        "socket_timeout": COMMAND_SECONDS,
        "socket_connect_timeout": COMMAND_SECONDS,
        "protocol": 2,
        # A connection that was closed meanwhile is made anew; every operation may be repeated.
        "retry": Retry(NoBackoff(), 1, supported_errors=(RedisConnectionError,)),
    }
    if settings.redis_password_file is not None:
        options.pop("password", None)
        username = options.pop("username", "")
        options["credential_provider"] = _Password(username, settings.redis_password)
    return options
