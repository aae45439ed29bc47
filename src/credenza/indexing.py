"""The indexes that collections' settings ask for: made, and dropped, beside all that goes on.

Must not know what they are of. Lists are right without them, only slower, so that nobody waits for
one. One process at a time works at them; what was left half made by one that ended is dropped.
"""

import asyncio
from contextlib import suppress
from time import perf_counter
from typing import Final

import structlog

from credenza import errors, query, wire
from credenza.collections import Collections
from credenza.database import Database
from credenza.telemetry import Metrics

LOCK: Final = 0x6372_6564_656E_7A69
"""Key of the advisory lock, "credenzi" in ASCII; it is held until the connection ends."""

TRY_LOCK: Final = "SELECT pg_try_advisory_lock($1) AS is_mine"
"""It does not wait: whoever makes an index waits for every statement, also for one that waits."""

CHECK_SECONDS: Final = 600.0
"""How often they are compared with settings that another process may have changed."""

RETRY_SECONDS: Final = 5.0
"""When to look again while another process works at them, or the database is away."""

log = structlog.get_logger()


class Indexing:
    """Keeps the indexes of one database as the settings of its collections ask for."""

    def __init__(self, database: Database, collections: Collections, metrics: Metrics) -> None:
        self._database = database
        self._collections = collections
        self._missing = metrics.indexes_missing

    async def follow(self) -> None:
        """Bring them to where they must be, now and whenever settings have changed."""
        changed = self._collections.resettled
        while True:
            changed.clear()
            try:
                is_done = await self._bring()
            except errors.Problem as problem:
                cause = repr(problem.__cause__)
                log.warning("indexes cannot be made", detail=problem.detail, cause=cause)
                is_done = False
            except Exception:
                log.exception("indexes cannot be made")
                is_done = False
            with suppress(TimeoutError):
                await asyncio.wait_for(changed.wait(), CHECK_SECONDS if is_done else RETRY_SECONDS)

    async def _bring(self) -> bool:
        """Make what is missing and drop what nobody asks for; False: another process is at it."""
        if not self._is_different(await self._wanted(), await self._found()):
            return True
        async with self._database.owner() as owner:
            (lock,) = await owner.fetch(TRY_LOCK, LOCK)
            if not lock["is_mine"]:
                return False
            wanted, found = await self._wanted(), await self._found()
            for name, is_whole in found.items():
                if name not in wanted or not is_whole:
                    await owner.execute(self._database.query("drop_index").format(name=name))
                    log.info("index dropped", index=name)
            for name in wanted.keys() - {name for name, is_whole in found.items() if is_whole}:
                began = perf_counter()
                columns, condition = wanted[name]
                create = self._database.query("create_index")
                await owner.execute(create.format(name=name, columns=columns, condition=condition))
                log.info("index made", index=name, seconds=round(perf_counter() - began, 3))
        self._is_different(wanted, await self._found())
        return True

    async def _wanted(self) -> dict[str, tuple[str, str]]:
        """Return those that settings ask for, as `query.definitions`."""
        async with self._database.connection(blames=errors.Internal) as connection:
            rows = await connection.fetch("list_indexed")
        wanted: dict[str, tuple[str, str]] = {}
        for row in rows:
            settings = wire.CollectionSettings.model_validate_json(row["settings"])
            wanted |= query.definitions(query.indexes(row["collection"], settings.indexes))
        return wanted

    async def _found(self) -> dict[str, bool]:
        """Return those that there are, and whether each is whole."""
        async with self._database.connection(blames=errors.Internal) as connection:
            rows = await connection.fetch("list_indexes")
        return {row["name"]: row["is_whole"] for row in rows}

    def _is_different(self, wanted: dict[str, tuple[str, str]], found: dict[str, bool]) -> bool:
        """Show how many are missing, and tell whether there is anything to do."""
        whole = {name for name, is_whole in found.items() if is_whole}
        self._missing.set(len(wanted.keys() - whole))
        return wanted.keys() != found.keys() or whole != found.keys()
