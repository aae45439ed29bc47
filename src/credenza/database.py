"""The connections to PostgreSQL: the pool, what statements cost, what their failures are called.

Must not know any statement but those it sends itself. Statements are sent with `fetch()` alone,
because routers miscount what `fetchrow()` and cursors send. The driver's errors end here: a failure
leaves as one of `credenza.errors`.
"""

import asyncio
from collections.abc import AsyncIterator
from contextlib import AbstractAsyncContextManager, asynccontextmanager, suppress
from time import perf_counter
from typing import Any, Final

import asyncpg
import structlog

from credenza import errors, sql, tracing
from credenza.settings import Settings
from credenza.telemetry import Metrics, count_statement

CONNECT_SECONDS: Final = 5.0
CLOSE_SECONDS: Final = 5.0
CANCEL_SECONDS: Final = 1.0
GRACE_SECONDS: Final = 2.0
"""How much longer than the server's own time-out the driver waits for an answer."""

EXPORTS: Final = 2
"""Exports that a process has under way at once; each has a connection beside the pool."""

DATABASE_AWAY: Final = (
    OSError,
    TimeoutError,
    asyncpg.InterfaceError,
    asyncpg.InternalClientError,
    asyncpg.PostgresConnectionError,  # class 08
    asyncpg.OperatorInterventionError,  # class 57: shutting down, starting up
    asyncpg.InsufficientResourcesError,  # class 53: too many connections, disk full
    asyncpg.ReadOnlySQLTransactionError,  # 25006: a former primary during a failover
    asyncpg.TransactionRollbackError,  # class 40
    asyncpg.ObjectNotInPrerequisiteStateError,  # class 55: a lock is not to be had
    asyncpg.PostgresSystemError,  # class 58: the disk fails
    asyncpg.UndefinedTableError,  # 42P01, 42703: the schema is not there yet, or not any more
    asyncpg.UndefinedColumnError,
    asyncpg.InsufficientPrivilegeError,  # 42501: the role has no right to it
)
CLIENT_FAULTS: Final = (
    asyncpg.DataError,  # class 22: jsonb or jsonpath that the text check let through
    asyncpg.ProgramLimitExceededError,  # class 54: too deep, too long
    asyncpg.FeatureNotSupportedError,  # class 0A
    asyncpg.PostgresSyntaxError,  # 42601: jsonpath
)

POSTGRESQL: Final = {"db.system.name": "postgresql"}

log = structlog.get_logger()


class UnsafeDurabilityError(Exception):
    """The database is configured to lose acknowledged writes."""


class Connection:
    """A connection held by one unit of work; each method sends one named statement."""

    def __init__(
        self, raw: asyncpg.pool.PoolConnectionProxy, queries: dict[str, str], metrics: Metrics
    ) -> None:
        self.raw = raw
        self._queries = queries
        self._series = metrics.statement

    async def fetch(self, name: str, *arguments: object) -> list[asyncpg.Record]:
        """Send the statement of that name and return its rows."""
        return await self.send(name, self._queries[name], *arguments)

    async def send(self, name: str, text: str, *arguments: object) -> list[asyncpg.Record]:
        """Send a statement that was put together from fragments, counted under `name`."""
        count_statement()
        began = perf_counter()
        try:
            with tracing.within(name, POSTGRESQL):
                rows: list[asyncpg.Record] = await self.raw.fetch(text, *arguments)
        finally:
            self._series(name).observe(perf_counter() - began)
        return rows


class Database:
    """One database: lends connections, knows how they are made and how they fail."""

    def __init__(self, settings: Settings, *, url: str, metrics: Metrics) -> None:
        self._settings = settings
        self._url = url
        self._metrics = metrics
        self._queries = sql.load()
        self._is_up: bool | None = None
        self._warned = False
        self._accepted: str | None = None
        """The password that the server has last taken."""
        self._pool = self._new_pool(url, settings.database_pool_size)
        metrics.pool_size.set(settings.database_pool_size)
        self._probing = self._new_pool(url, 1)
        self._exporting = self._new_pool(url, EXPORTS)
        self._pools = (self._pool, self._probing, self._exporting)

    def _new_pool(self, url: str, size: int) -> asyncpg.Pool:
        settings = self._settings
        return asyncpg.create_pool(
            url,
            min_size=0,
            max_size=size,
            statement_cache_size=settings.database_statement_cache,
            command_timeout=settings.query_timeout + GRACE_SECONDS,
            timeout=CONNECT_SECONDS,
            connect=self._log_in if settings.database_password_file else None,
            server_settings=self._server_settings(),
            init=self._refuse_unsafe,
            reset=_keep,
        )

    async def _log_in(self, *arguments: Any, **options: Any) -> asyncpg.Connection:
        """Connect with the file's password, or the last one while the server has only that.

        A new password is in all files before the server has it, so that none is without one.
        """
        password = self._settings.database_password()
        try:
            connection = await asyncpg.connect(*arguments, **options | {"password": password})
        except asyncpg.InvalidPasswordError:
            if self._accepted in {None, password}:
                raise
            return await asyncpg.connect(*arguments, **options | {"password": self._accepted})
        if self._accepted not in {None, password}:
            for pool in (self._pool, self._exporting):
                await pool.expire_connections()  # each of them at its next use
        self._accepted = password
        return connection

    async def follow_password(self) -> None:
        """Log in anew where the file has another password; a server that refuses it is asked again.

        So a change needs no connection cut, and loses no request.
        """
        if self._accepted not in {None, self._settings.database_password()}:
            await self._probing.expire_connections()
            await self.ping()

    def _server_settings(self) -> dict[str, str]:
        """Return start-up parameters; a pooler without prepared statements takes only the name."""
        named = {"application_name": "credenza"}
        if self._settings.database_statement_cache == 0:
            return named
        return named | {"statement_timeout": str(int(self._settings.query_timeout * 1000))}

    async def open(self) -> None:
        """Make the pool; connections are made when they are needed."""
        for pool in self._pools:
            await pool

    async def close(self) -> None:
        """Close the connections; what does not end within some seconds is cut off."""
        try:
            async with asyncio.timeout(CLOSE_SECONDS):
                for pool in self._pools:
                    await pool.close()
        except TimeoutError:
            for pool in self._pools:
                pool.terminate()

    def query(self, name: str) -> str:
        """Return the text of the statement of that name."""
        return self._queries[name]

    def connections(self) -> dict[str, int]:
        """Return the number of connections by state: idle, busy."""
        idle: int = self._pool.get_idle_size()
        return {"idle": idle, "busy": self._pool.get_size() - idle}

    async def _refuse_unsafe(self, raw: asyncpg.Connection) -> None:
        """Refuse a database that may lose acknowledged writes (PostgreSQL 19.5, 30.3)."""
        found = dict((await raw.fetch(self._queries["get_durability"]))[0])
        if found.pop("statement_timeout") == "0" and not self._warned:
            self._warned = True
            log.warning(
                "statements have no time-out at the server, which goes on with what was given up: "
                "set statement_timeout for the role"
            )
        off = [name for name, value in found.items() if value == "off"]
        if off and not self._settings.unsafe_durability:
            raise UnsafeDurabilityError(
                f"the database runs with {', '.join(off)} off and would lose acknowledged writes; "
                "switch it on, or say UNSAFE_DURABILITY=true"
            )

    def connection(
        self, *, blames: type[errors.Problem], writes: bool = False
    ) -> AbstractAsyncContextManager[Connection]:
        """Lend a connection and turn what goes wrong into a problem.

        `blames` is what a client's fault is called. A write whose connection is lost may have been
        committed: its problem says `outcome: unknown`.
        """
        return self._lent(self._pool, blames=blames, writes=writes)

    def export_connection(
        self, *, blames: type[errors.Problem]
    ) -> AbstractAsyncContextManager[Connection]:
        """Lend one of the EXPORTS connections that may be held for as long as a client reads."""
        return self._lent(self._exporting, blames=blames, writes=False)

    @asynccontextmanager
    async def _lent(
        self, pool: asyncpg.Pool, *, blames: type[errors.Problem], writes: bool
    ) -> AsyncIterator[Connection]:
        raw = await self._acquired(pool)
        failures = self._metrics.database_errors
        try:
            yield Connection(raw, self._queries, self._metrics)
            self._note(is_up=True)
        except asyncpg.QueryCanceledError as error:
            failures["timeout"].inc()
            raise self._gave_up(writes=writes) from error
        except CLIENT_FAULTS as error:
            failures["refused"].inc()
            raise blames(_explain(error)) from error
        except DATABASE_AWAY as error:
            has_answered = _is_answer(error)
            failures["failed" if has_answered else "away"].inc()
            self._note(is_up=has_answered)
            if not has_answered and not isinstance(error, TimeoutError):
                with suppress(asyncpg.InterfaceError):  # the pool may have seen its end first
                    raw.terminate()
            raise _away(error, writes=writes) from error
        except asyncio.CancelledError:
            # Given back whole, it would first wait for a server that may hang to take the cancel.
            with suppress(asyncpg.InterfaceError):
                raw.terminate()
            raise
        finally:
            await _give_back(pool, raw)

    async def _acquired(self, pool: asyncpg.Pool) -> asyncpg.pool.PoolConnectionProxy:
        """Return a connection of a pool, or the problem that there is none."""
        failures, began = self._metrics.database_errors, perf_counter()
        try:
            return await pool.acquire(timeout=self._settings.query_timeout)
        except (*DATABASE_AWAY, asyncpg.PostgresError) as error:  # any refusal, also of a password
            if isinstance(error, TimeoutError) and pool.get_size() == pool.get_max_size():
                failures["busy"].inc()
                raise errors.Unavailable("The database gave no connection in time.") from error
            failures["away"].inc()
            self._note(is_up=False)
            raise errors.Unavailable("The database cannot be reached.") from error
        except UnsafeDurabilityError as error:
            failures["failed"].inc()
            self._note(is_up=False)
            raise errors.Unavailable(str(error)) from error
        finally:
            if pool is self._pool:
                self._metrics.database_wait.observe(perf_counter() - began)

    def _note(self, *, is_up: bool) -> None:
        """Show whether the database answers, as was seen just now."""
        if is_up != self._is_up:
            self._is_up = is_up
            self._metrics.database_up.set(is_up)

    def _gave_up(self, *, writes: bool) -> errors.Problem:
        """Name a statement that took too long: a query costs that much, a write waited for a lock.

        What was given up is rolled back.
        """
        took = f"It took longer than {self._settings.query_timeout:g} s."
        if writes:
            return errors.Unavailable(f"{took} Another write may hold what it waited for.")
        return errors.QueryTooExpensive(took)

    async def ping(self) -> None:
        """Ask for a sign of life by the simple protocol, which every router answers.

        A connection of its own asks: a busy pool is not to look like a dead database.
        """
        lent = self._lent(self._probing, blames=errors.Unavailable, writes=False)
        try:
            async with asyncio.timeout(CONNECT_SECONDS), lent as own:
                await own.raw.execute("select 1")
        except (TimeoutError, asyncpg.PostgresError) as error:
            self._metrics.database_errors["away"].inc()
            self._note(is_up=False)
            raise errors.Unavailable("The database does not answer.") from error

    @asynccontextmanager
    async def owner(self) -> AsyncIterator[asyncpg.Connection]:
        """Connect past a pooler, as who owns the schema and without a time-out, to change it."""
        settings = self._settings
        try:
            raw = await asyncpg.connect(
                settings.migration_url() or self._url,
                password=settings.database_password() if settings.database_password_file else None,
                timeout=CONNECT_SECONDS,
                server_settings={"application_name": "credenza", "statement_timeout": "0"},
            )
            try:
                yield raw
            finally:
                await raw.close(timeout=CLOSE_SECONDS)
        except (*DATABASE_AWAY, asyncpg.PostgresError) as error:
            raise errors.Unavailable(f"The schema cannot be changed: {error}") from error

    async def revision(self) -> str | None:
        """Return the schema's revision; None where there is no schema."""
        async with self.connection(blames=errors.Unavailable) as connection:
            try:
                rows = await connection.fetch("get_revision")
            except asyncpg.UndefinedTableError:
                return None
        return str(rows[0]["version_num"]) if rows else None


async def _give_back(pool: asyncpg.Pool, raw: asyncpg.pool.PoolConnectionProxy) -> None:
    """Release a connection; one whose statement was given up is closed unless that ends soon."""
    with suppress(OSError, TimeoutError, asyncpg.InterfaceError, asyncpg.PostgresError):
        await pool.release(raw, timeout=CANCEL_SECONDS)


async def _keep(_: asyncpg.Connection) -> None:
    """Leave the session as it is: nothing here changes it, and a reset is four statements."""


def _explain(error: asyncpg.PostgresError) -> str:
    detail = f": {error.detail}" if getattr(error, "detail", None) else ""
    return f"PostgreSQL refuses it: {error.message}{detail}"


def _is_answer(error: BaseException) -> bool:
    """Return whether the database itself has said so, on a connection that goes on."""
    return isinstance(error, asyncpg.PostgresError) and not isinstance(
        error,
        asyncpg.PostgresConnectionError | asyncpg.AdminShutdownError | asyncpg.CrashShutdownError,
    )


def _away(error: BaseException, *, writes: bool) -> errors.Unavailable:
    """Name a lost connection; an error that the database answered with means a rollback."""
    if writes and not _is_answer(error):
        return errors.Unavailable(
            "The connection to the database was lost; the write may have been committed.",
            outcome="unknown",
        )
    return errors.Unavailable("The database cannot answer now.")
