"""The cache as its users see it: near and shared layers, kept coherent by one rule.

Must not know what is cached. Reads call `read()`; a write calls `wrote()` after
its commit and before its answer, or `uncertain()` where nobody knows whether it was committed.
"""

import asyncio
import contextlib
import time
from collections.abc import Awaitable, Callable, Hashable, Mapping
from typing import Any, Final

from credenza.cache.debts import Debts
from credenza.cache.entries import GENERATION, Entry, Key, whole
from credenza.cache.flights import Flight, Flights, Found
from credenza.cache.follower import Follower
from credenza.cache.near import Near
from credenza.cache.shared import ANY_VERSION, Away, Change, Shared, jittered
from credenza.cache.shelves import Shelf, Shelves
from credenza.settings import Settings
from credenza.telemetry import Metrics

START_SECONDS: Final = 1.0
"""How long a start waits for Redis; it goes on without."""

SETTLE_SECONDS: Final = 3.0
"""How much longer than a statement's time-out a lost commit may take to be decided."""

SHELVES_PART: Final = 8
"""One part in so many of the process's bytes is for what was made of whole collections."""

Load = Callable[[], Awaitable[Entry | None]]


class Cache:
    """Entries by key, in this process and, where Redis is configured, in all.

    Without Redis it is only used by the one process of an embedded home, because nobody would tell
    it of the writes of others.
    """

    def __init__(self, settings: Settings, metrics: Metrics) -> None:
        self._ttl = settings.cache_ttl
        self._doubt = settings.query_timeout + SETTLE_SECONDS
        shelves = settings.near_cache_bytes // SHELVES_PART
        self._near = Near(settings.near_cache_bytes - shelves, metrics.near_bytes)
        self._shelves = Shelves(shelves, metrics.shelf_bytes)
        self._flights = Flights()
        self._debts = Debts()
        self._shared: Shared | None = None
        self._follower: Follower | None = None
        if settings.redis_url is not None:
            self._shared = Shared(settings, metrics, on_away=self._away)
            self._follower = Follower(
                self._shared.connection,
                on_up=self._up,
                on_beat=self._pay,
                on_change=self._change,
                on_down=self._down,
                heartbeat=metrics.heartbeat,
                failures=metrics.cache.labels("redis", "error"),
            )
        alone = settings.is_embedded and settings.workers == 1
        self.enabled = self._shared is not None or (alone and settings.near_cache_bytes > 0)
        """Whether there is a cache at all, which must hear of each write."""
        self._hits = metrics.near_hits
        self._misses = metrics.near_misses
        self._shared_hits = metrics.cache.labels("redis", "hit")
        self._shared_misses = metrics.cache.labels("redis", "miss")
        self._breaker = metrics.breaker
        self._delay = metrics.invalidation

    @property
    def answers(self) -> bool:
        """Whether it may be asked now; where not, ask the store."""
        if self._debts.overflowed:
            self._forgive()
            if self._debts.overflowed:
                return False
        return self.enabled and (self._follower is None or self._follower.fresh)

    async def start(self) -> None:
        """Connect to Redis, if it is there; later if it comes later."""
        if self._follower is not None:
            self._breaker.set(1)
            await self._follower.start(START_SECONDS)

    async def close(self) -> None:
        """Let go of Redis, which hears first of what it has missed."""
        if self._follower is None or self._shared is None:
            return
        await self._follower.stop()
        with contextlib.suppress(Away):  # what it has missed stays there for CACHE_TTL at the most
            await self._pay()
        await self._shared.close()

    async def check(self) -> tuple[str, str | None]:
        """Return the state (ok, degraded, off) and what is wrong."""
        if not self.enabled:
            return "off", None
        if self._follower is None or self._follower.fresh:
            return "ok", None
        return "degraded", "Redis does not answer; reads go to the database"

    # Reads

    async def read(self, key: Key, load: Load, ttl: float | None = None) -> Found:
        """Return what this process holds, else what Redis has, else what `load` brings."""
        held = self.near(key)
        if held is not None:
            return Found(held, "hit-near", held.until - time.monotonic())
        return await self.through(key, load, ttl)

    def near(self, key: Key) -> Entry | None:
        """Return what this process holds, if it may be served."""
        if not self.answers or self._is_owed(key):
            return None
        held = self._near.get(key)
        if held is not None:
            self._hits.number += 1
        return held

    def again(self, entry: Entry) -> None:
        """Count an entry that `near` has returned as served once more, while it is held."""
        self._hits.number += 1
        entry.asked = True

    async def through(self, key: Key, load: Load, ttl: float | None = None) -> Found:
        """Return what Redis has or `load` brings.

        All who ask for a key at once share one look-up.
        """
        if not self.answers or self._is_owed(key):
            return Found(await load(), "bypass")
        self._misses.number += 1
        return await self._flights.join(key, lambda flight: self._look(flight, key, load, ttl))

    async def _look(self, flight: Flight, key: Key, load: Load, ttl: float | None) -> Found:
        lease, generation = None, ""
        if self._shared is not None:
            generation = self._shared.generation
            try:
                looked = await self._shared.look(key)
            except Away:
                return Found(await load(), "bypass")
            if looked.entry is not None:
                self._shared_hits.inc()
                self._keep(flight, key, looked.entry, looked.ttl)
                return Found(looked.entry, "hit-redis", looked.ttl)
            self._shared_misses.inc()
            lease = looked.lease
        entry = await load()
        if entry is not None:
            life = self._life(ttl)
            if lease is None or await self._filled(flight, key, lease, entry, life, generation):
                self._keep(flight, key, entry, life)
        return Found(entry, "miss")

    async def _filled(
        self, flight: Flight, key: Key, lease: str, entry: Entry, ttl: float, generation: str
    ) -> bool:
        if self._shared is None or not flight.stands:
            return False
        try:
            return await self._shared.fill(key, lease, entry, ttl, generation)
        except Away:
            return False

    def _keep(self, flight: Flight, key: Key, entry: Entry, ttl: float) -> None:
        if flight.stands:
            self._near.fill(key, entry, ttl)

    def _life(self, ttl: float | None) -> float:
        return jittered(self._ttl if ttl is None else ttl)

    # What is made of whole collections

    def shelf(self, collection: str) -> Shelf | None:
        """Return where this process keeps what it makes of the collection as it is from now on.

        None: what is kept may not be served, and nothing may be kept.
        """
        if not self.answers or self._is_owed(whole(collection)):
            return None
        return self._shelves.take(collection)

    def kept(self, shelf: Shelf, name: Hashable) -> tuple[Any, float] | None:
        """Return the thing of that name and its seconds to live; None where there is none."""
        found = self._shelves.get(shelf, name)
        count = self._misses if found is None else self._hits
        count.number += 1
        return found

    def keep(
        self, shelf: Shelf, name: Hashable, thing: Any, size: int, ttl: float | None = None
    ) -> None:
        """Keep a thing of `size` bytes unless something has changed since its shelf was taken."""
        self._shelves.keep(shelf, name, thing, size, self._life(ttl))

    async def touched(self, collection: str) -> None:
        """Tell all of committed writes under keys that nobody can know yet."""
        await self.forget(whole(collection))

    # Writes

    async def wrote(self, key: Key, entry: Entry, ttl: float | None = None) -> None:
        """Tell all of a committed write; Redis that does not hear of it is told later.

        The process's own entries come last: until then a look-up may still find the older one in
        Redis and keep it.
        """
        if not self.enabled:
            return
        self._shelves.drop(key.collection)
        life = self._life(ttl)
        if await self._told(lambda shared: shared.wrote(key, entry, life)):
            self._near.replace(key, entry, life)
            self._flights.detach(key)
        else:
            self._owe(key)

    async def wrote_all(self, entries: Mapping[Key, Entry], ttl: float | None = None) -> None:
        """Tell all of writes that were committed together."""
        if self._shared is None:
            for key, entry in entries.items():
                await self.wrote(key, entry, ttl)
        else:
            await asyncio.gather(*(self.wrote(key, entry, ttl) for key, entry in entries.items()))

    async def _told(self, tell: Callable[[Shared], Awaitable[None]]) -> bool:
        """Tell Redis, if there is one; one that is away costs no time-out."""
        if self._shared is None or self._follower is None:
            return True
        if not self._follower.fresh:
            return False
        try:
            await tell(self._shared)
        except Away:
            return False
        return True

    async def forget(self, key: Key) -> None:
        """Drop a key everywhere, whatever its version."""
        if not self.enabled:
            return
        self._shelves.drop(key.collection)
        if await self._told(lambda shared: shared.drop(key)):
            self._near.drop(key)
            self._flights.detach(key)
        else:
            self._owe(key)

    def uncertain(self, key: Key) -> None:
        """Read a key past the cache until its lost write is committed or rolled back for sure."""
        if self.enabled:
            self._owe(key, for_seconds=self._doubt)
            self._owe(whole(key.collection), for_seconds=self._doubt)

    def _owe(self, key: Key, *, for_seconds: float = 0.0) -> None:
        self._debts.add(key, for_seconds=for_seconds)
        self._near.drop(key)
        self._shelves.drop(key.collection)
        self._flights.detach(key)
        if self._debts.overflowed:
            self._empty()

    def _is_owed(self, key: Key) -> bool:
        if not self._debts or key not in self._debts:
            return False
        if self._shared is None:  # nobody to pay: it is enough that its time is over
            self._debts.paid(key, time.monotonic())
        return key in self._debts

    def _forgive(self) -> None:
        if self._shared is None and self._debts.all_due():
            self._debts.all_paid(time.monotonic())

    async def _pay(self) -> None:
        """Tell Redis of what it has missed."""
        if self._shared is None or not self._debts:
            return
        if self._debts.all_due():
            began = time.monotonic()
            await self._shared.begin(anew=True)
            self._debts.all_paid(began)
            self._empty()
        for key in self._debts.due():
            began = time.monotonic()
            await self._shared.drop(key)
            self._debts.paid(key, began)

    # The channel

    async def _up(self) -> None:
        """Pay debts before anything is read."""
        if self._shared is not None:
            await self._shared.begin(anew=False)
            await self._pay()
            self._breaker.set(0)

    async def _down(self) -> None:
        """Drop what is held, because messages are missed from now on."""
        self._empty()
        self._breaker.set(1)
        if self._shared is not None:
            await self._shared.reset()

    def _away(self) -> None:
        if self._follower is not None:
            self._follower.drop()

    def _change(self, change: Change) -> None:
        """Let go of what another process has changed."""
        if self._shared is None:
            return
        if change.key == GENERATION:
            self._shared.renamed(change.version)
            self._empty()
            return
        if change.sender == self._shared.sender:
            return
        self._delay.observe(max(0.0, time.time() - change.microseconds / 1e6))
        key = Key.parse(change.key)
        self._shelves.drop(key.collection)
        self._flights.detach(key)
        if change.version == ANY_VERSION:
            self._near.drop(key)
        else:
            self._near.drop_older(key, int(change.version))

    def _empty(self) -> None:
        self._near.clear()
        self._shelves.clear()
        self._flights.detach_all()
