"""What happens by itself: waiting for the schema, measuring, deleting what nobody can see any more.

Must not know HTTP. Each task survives a database that is away for a while.
"""

import asyncio
import os
import sys
from collections.abc import Coroutine
from contextlib import suppress
from datetime import UTC, datetime
from typing import Any, Final

import structlog

from credenza import errors, sql
from credenza.collections import Collections
from credenza.database import Database
from credenza.indexing import Indexing
from credenza.lifecycle import Lifecycle
from credenza.settings import Settings
from credenza.telemetry import Metrics

RETRY_SECONDS: Final = 1.0
MEASURE_SECONDS: Final = 1.0
WATCH_SECONDS: Final = 5.0
REAP_SECONDS: Final = 600.0

log = structlog.get_logger()


class Upkeep:
    """The background tasks of one process."""

    def __init__(
        self,
        database: Database,
        collections: Collections,
        indexing: Indexing,
        metrics: Metrics,
        lifecycle: Lifecycle,
    ) -> None:
        self._database = database
        self._collections = collections
        self._indexing = indexing
        self._metrics = metrics
        self._lifecycle = lifecycle
        self._tasks: list[asyncio.Task[None]] = []

    def start(self) -> None:
        """Start them all."""
        for task in (
            *(self._prepare(), self._measure(), self._reap()),
            *(self._watch_database(), self._follow_password()),
        ):
            self._tasks.append(asyncio.create_task(_told(task)))

    async def stop(self) -> None:
        """End them all."""
        for task in self._tasks:
            task.cancel()
        await asyncio.gather(*self._tasks, return_exceptions=True)

    async def schema(self) -> str | None:
        """Return what is wrong with the schema; None where it is as new as the code or newer."""
        revision = await self._database.revision()
        if revision is not None and revision >= sql.head():
            return None
        return f"the schema is at {revision or 'nothing'}, it must be at {sql.head()}"

    async def _prepare(self) -> None:
        """Bring the schema to where it must be, and from then on the indexes."""
        await self._migrate()
        await self._indexing.follow()

    async def _migrate(self) -> None:
        """Bring the schema to where it must be, as soon as the database can be reached."""
        while not self._lifecycle.started:
            try:
                wrong = await self.schema()
                self._lifecycle.started = wrong is None
                if wrong is not None and await run_migrations():
                    continue
            except OSError:
                log.exception("migration failed")
            except errors.Problem as problem:
                log.warning(
                    "waiting for the database",
                    detail=problem.detail,
                    cause=repr(problem.__cause__),
                )
            await asyncio.sleep(RETRY_SECONDS)

    async def _measure(self) -> None:
        """Bring the series up to date that nothing else writes."""
        self._metrics.refresh.follow()
        while True:
            self._metrics.flush()
            self._metrics.in_flight.set(self._lifecycle.in_flight)
            for state, number in self._database.connections().items():
                self._metrics.pool.labels(state).set(number)
            await asyncio.sleep(MEASURE_SECONDS)

    async def _watch_database(self) -> None:
        """Tell when the database goes away and comes back, also while nobody else asks it."""
        has_answered = True
        while True:
            try:
                await self._database.ping()
            except errors.Problem as problem:
                if has_answered:
                    cause = repr(problem.__cause__)
                    log.warning("database away", detail=problem.detail, cause=cause)
                has_answered = False
            else:
                if not has_answered:
                    log.warning("database back")
                has_answered = True
            await asyncio.sleep(WATCH_SECONDS)

    async def _follow_password(self) -> None:
        """Take a new password of the database into use as soon as it counts."""
        while True:
            with suppress(errors.Problem, OSError):
                await self._database.follow_password()
            await asyncio.sleep(RETRY_SECONDS)

    async def _reap(self) -> None:
        """Delete old tombstones and the rows of deleted collections, again and again."""
        while True:
            with suppress(TimeoutError):
                await asyncio.wait_for(self._collections.garbage.wait(), REAP_SECONDS)
            self._collections.garbage.clear()
            try:
                if self._lifecycle.started:
                    await self._collections.reap(datetime.now(UTC))
            except errors.Problem as problem:
                log.warning("upkeep failed", detail=problem.detail)
            except Exception:
                log.exception("upkeep failed")


async def _told(task: Coroutine[Any, Any, None]) -> None:
    """Do a task; where it does not survive a failure, that is told."""
    try:
        await task
    except Exception:
        log.exception("upkeep ended")


async def bring_up_to_date(settings: Settings, url: str) -> bool:
    """Migrate a database that is behind the code; tell whether it now is where it must be."""
    database = Database(settings, url=url, metrics=Metrics())
    await database.open()
    try:
        revision = await database.revision()
    finally:
        await database.close()
    if revision is not None and revision >= sql.head():
        return True
    return await run_migrations(url)


async def run_migrations(url: str | None = None) -> bool:
    """Run `credenza migrate` in a process of its own; tell whether it succeeded.

    So the service never holds what only migrations need in memory. `url` replaces the database of
    the environment.
    """
    environment = os.environ | ({"MIGRATION_DATABASE_URL": url} if url else {})
    process = await asyncio.create_subprocess_exec(
        *(sys.executable, "-m", "credenza", "migrate"),
        env=environment,
        stdout=asyncio.subprocess.PIPE,
        stderr=asyncio.subprocess.STDOUT,
    )
    try:
        output, _ = await process.communicate()
    except asyncio.CancelledError:
        process.terminate()
        await process.wait()
        raise
    said = output.decode(errors="replace").strip()
    if process.returncode:
        log.error("migration failed", output=said[-2000:])
        return False
    log.info("migrated", outcome=said)
    return True
