"""The cache on a real Valkey: each way in which an old version could come back, tried on purpose.

Two caches are two replicas. What is loaded is a dictionary of the test, so that it decides when a
load ends and what it brings.
"""

import asyncio
import socket
import struct
import threading
import time
from collections.abc import AsyncIterator, Awaitable, Callable, Iterator
from contextlib import asynccontextmanager, contextmanager, suppress
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import uvloop
from prometheus_client import CollectorRegistry

from credenza.cache import Cache, Entry, Key, coherent, debts
from credenza.cache.entries import GENERATION
from credenza.cache.follower import BEAT_SECONDS, FRESH_SECONDS
from credenza.cache.shared import Away, Shared
from credenza.settings import Settings
from credenza.telemetry import Metrics
from servers import Valkey

OLD, NEW, NEWER = Entry(1, b"old"), Entry(2, b"new"), Entry(3, b"newer")
GONE = Entry(4, None)


@pytest.fixture
def key(collection: str) -> Key:
    """A key that no other test uses, in any process."""
    return Key(collection, time.time_ns(), "a")


class Replica:
    """A cache and what it measures."""

    def __init__(self, valkey: Valkey, **settings: object) -> None:
        self.metrics = Metrics()
        self.cache = Cache(
            Settings.model_validate({"redis_url": valkey.url} | settings), self.metrics
        )

    async def read(self, key: Key, load: Callable[[], Awaitable[Entry | None]]) -> Entry | None:
        """Read as `documents` does."""
        return (await self.cache.read(key, load)).entry

    def near(self, key: Key) -> Entry | None:
        """Return what the replica holds itself and would serve."""
        return self.cache.near(key)

    async def outcome(self, key: Key, entry: Entry) -> str:
        """Return how a read of what the store has as `entry` is answered."""
        return (await self.cache.read(key, loading(entry))).outcome

    def value(self, name: str, **labels: str) -> float:
        """Return a series' value."""
        registry: CollectorRegistry = self.metrics.registry
        return registry.get_sample_value(name, labels) or 0.0


@asynccontextmanager
async def replicas(valkey: Valkey, number: int, **settings: object) -> AsyncIterator[list[Replica]]:
    """Start replicas that follow the same Valkey."""
    started = [Replica(valkey, **settings) for _ in range(number)]
    for replica in started:
        await replica.cache.start()
    await until(lambda: all(replica.cache.answers for replica in started))
    yield started
    for replica in started:
        await replica.cache.close()


def loading(entry: Entry | None) -> Callable[[], Awaitable[Entry | None]]:
    """Return a load that brings an entry, a new one each time."""

    async def load() -> Entry | None:
        return entry and replace(entry)

    return load


class Slow:
    """A load that has read its value and brings it when it is told to."""

    def __init__(self, entry: Entry) -> None:
        self._entry = entry
        self.begun, self.may_end = asyncio.Event(), asyncio.Event()

    async def __call__(self) -> Entry:
        """Load."""
        self.begun.set()
        await self.may_end.wait()
        return self._entry


async def until(condition: Callable[[], bool]) -> None:
    """Wait until the condition holds."""
    async with asyncio.timeout(20):
        while not condition():  # noqa: ASYNC110 - what is waited for is in another process
            await asyncio.sleep(0.01)


async def never() -> Entry:
    """Fail: the cache has to have it."""
    raise AssertionError("was loaded")


async def test_a_reader_that_raced_a_writer_puts_nothing_old_back(valkey: Valkey, key: Key) -> None:
    """It reads the old version, the writer commits and tells, the reader fills: all see the new."""
    async with replicas(valkey, 2) as (one, two):
        for id_, writer in (("a", two), ("b", one)):
            raced, slow = key._replace(id=id_), Slow(OLD)
            reading = asyncio.create_task(one.read(raced, slow))
            await slow.begun.wait()
            await writer.cache.wrote(raced, NEW)
            slow.may_end.set()
            assert await reading == OLD  # it began before the write was answered
            for replica in (one, two):
                assert await replica.read(raced, loading(NEW)) == NEW


async def test_who_asks_after_the_write_does_not_join_a_look_up_from_before(
    valkey: Valkey, key: Key
) -> None:
    """A look-up that a write has overtaken serves only those who asked before."""
    async with replicas(valkey, 1) as (one,):
        slow = Slow(OLD)
        before = asyncio.create_task(one.read(key, slow))
        await slow.begun.wait()
        await one.cache.wrote(key, NEW)
        assert await one.read(key, loading(NEW)) == NEW
        slow.may_end.set()
        assert await before == OLD
        assert await one.read(key, never) == NEW


async def test_nor_one_from_before_a_message(valkey: Valkey, key: Key) -> None:
    """A look-up that another replica's write has overtaken is not joined either."""
    async with replicas(valkey, 2) as (one, two):
        slow = Slow(OLD)
        before = asyncio.create_task(two.read(key, slow))
        await slow.begun.wait()
        await one.cache.wrote(key, NEW)
        await until(lambda: two.value("credenza_cache_invalidation_seconds_count") >= 1)
        assert await two.read(key, loading(NEW)) == NEW
        slow.may_end.set()
        assert await before == OLD


async def test_the_same_race_without_redis(key: Key) -> None:
    """The one process of an embedded home has its own leases."""
    cache = Cache(Settings(), Metrics())
    slow = Slow(OLD)
    reading = asyncio.create_task(cache.through(key, slow))
    await slow.begun.wait()
    await cache.wrote(key, NEW)
    slow.may_end.set()
    assert await reading == (OLD, "miss", None)
    assert cache.near(key) is None
    assert await cache.through(key, loading(NEW)) == (NEW, "miss", None)
    await cache.wrote(key, OLD)
    assert cache.near(key) == NEW


@pytest.mark.parametrize("fate", ["evicted", "flushed", "filled by another", "restarted"])
async def test_a_stalled_reader_fills_nothing(valkey: Valkey, key: Key, fate: str) -> None:
    """Without its own lease a fill is refused, whatever became of the lease."""
    async with replicas(valkey, 2) as (one, two):
        slow = Slow(OLD)
        stalled = asyncio.create_task(one.read(key, slow))
        await slow.begun.wait()
        if fate == "restarted":
            valkey.kill()
            valkey.start()
            await until(lambda: one.cache.answers and two.cache.answers)
        elif fate == "flushed":
            valkey.client().flushall()
        else:
            valkey.client().delete(key.text)
        if fate == "filled by another":
            assert await two.read(key, loading(NEW)) == NEW
        slow.may_end.set()
        assert await stalled == OLD
        stored = valkey.stored(key.text) or b"nothing"
        assert stored.endswith(b"new" if fate == "filled by another" else b"nothing")


async def test_a_delayed_writer_brings_nothing_older_back(valkey: Valkey, key: Key) -> None:
    """A message that comes late replaces no newer entry, and none that has left."""
    async with replicas(valkey, 2) as (one, two):
        await one.read(key, loading(NEW))
        await two.cache.wrote(key, OLD)
        assert two.near(key) is None
        assert await one.read(key, never) == await two.read(key, never) == NEW
        valkey.client().delete(key.text)
        await two.cache.wrote(key, OLD)
        assert valkey.stored(key.text) is None


async def test_writes_reach_all_that_hold_the_document(valkey: Valkey, key: Key) -> None:
    """A write replaces the entry here and in Redis and drops it elsewhere; a deletion too."""
    async with replicas(valkey, 2) as (one, two):
        await one.read(key, loading(OLD))
        assert await two.outcome(key, OLD) == "hit-redis"
        assert await two.outcome(key, OLD) == "hit-near"
        for entry in (NEW, NEWER, GONE):
            await one.cache.wrote(key, entry)
            assert one.near(key) == entry
            await until(lambda: two.near(key) is None)
            assert await two.read(key, never) == entry
        assert two.value("credenza_cache_invalidation_seconds_count") >= 3


async def test_redis_that_is_away_costs_no_request_a_time_out(valkey: Valkey, key: Key) -> None:
    """Frozen, it is asked a few times; then reads go past it until it answers again."""
    async with replicas(valkey, 1) as (one,):
        await one.read(key, loading(OLD))
        valkey.pause()
        await until(lambda: not one.cache.answers)
        assert (await one.cache.check())[0] == "degraded"
        for number in range(200):
            other = key._replace(id=str(number))
            assert await one.read(other, loading(NEW)) == NEW
            await one.cache.wrote(other, NEWER)
        assert one.value("credenza_cache_total", layer="redis", outcome="error") < 10
        valkey.resume()
        await until(lambda: one.cache.answers)
        assert await one.cache.check() == ("ok", None)


async def test_a_writer_cut_off_reads_its_own_writes_and_tells_all_later(
    valkey: Valkey, key: Key
) -> None:
    """What Redis did not hear of is read past the cache, and told as soon as it listens."""
    async with replicas(valkey, 2) as (one, two):
        await one.read(key, loading(OLD))
        await two.read(key, loading(OLD))
        valkey.pause()
        await one.cache.wrote(key, NEW)
        assert await one.read(key, loading(NEW)) == NEW
        valkey.resume()
        await until(lambda: valkey.stored(key.text) is None)
        await until(lambda: one.cache.answers and two.cache.answers)
        assert await two.read(key, loading(NEW)) == NEW
        assert await one.read(key, loading(NEW)) == NEW


async def test_more_debts_than_can_be_kept_change_the_generation(
    valkey: Valkey, key: Key, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Then all that was kept before counts for nothing, in every replica."""
    monkeypatch.setattr(debts, "MAX_DEBTS", 3)
    others = [key._replace(id=str(number)) for number in range(10)]
    async with replicas(valkey, 2) as (one, two):
        for each in (key, *others):
            await two.read(each, loading(OLD))
        valkey.pause()
        await until(lambda: not one.cache.answers)
        for each in others:
            await one.cache.wrote(each, NEW)
        valkey.resume()
        await until(lambda: one.cache.answers and two.cache.answers)
        await until(lambda: two.near(others[0]) is None)
        for each in others:
            assert await two.read(each, loading(NEW)) == NEW
            assert await one.read(each, loading(NEW)) == NEW
        assert b"old" in (valkey.stored(key.text) or b"")
        assert await two.read(key, loading(NEW)) == NEW


async def test_what_is_owed_while_all_is_paid_stays_owed() -> None:
    """A debt that is made during the payment is not struck out by it."""
    owed = debts.Debts()
    owed.overflowed = True
    began = time.monotonic()
    owed.add(Key("c", 1, "a"))
    owed.all_paid(began)
    assert owed.overflowed
    owed.all_paid(time.monotonic())
    assert not owed.overflowed


async def test_a_lost_subscription_empties_what_is_held(valkey: Valkey, key: Key) -> None:
    """Messages are missed from then on, so that nothing is served from before."""
    async with replicas(valkey, 2) as (one, two):
        await one.read(key, loading(OLD))
        assert one.near(key) == OLD
        valkey.client().client_kill_filter(_type="pubsub")
        await two.cache.wrote(key, NEW)
        await until(lambda: one.near(key) != OLD)
        await until(lambda: one.cache.answers)
        assert await one.read(key, loading(NEW)) == NEW


async def test_entries_are_served_only_while_the_heartbeat_is_young(
    valkey: Valkey, key: Key
) -> None:
    """A connection that dies in silence is noticed within a second: the entry is not served."""
    async with replicas(valkey, 1) as (one,):
        await one.read(key, loading(OLD))
        valkey.pause()
        frozen = time.monotonic()
        await until(lambda: one.near(key) is None)
        assert time.monotonic() - frozen < 1.5
        valkey.resume()


async def test_the_heartbeat_shows_also_while_nobody_writes(valkey: Valkey) -> None:
    """Its time goes on with no message at all, stands still while Redis does, and is no age."""
    name = "credenza_cache_heartbeat_timestamp_seconds"
    async with replicas(valkey, 1) as (one,):
        for _ in range(3):
            shown = one.value(name)
            assert 0 <= time.time() - shown < FRESH_SECONDS
            await until(lambda shown=shown: one.value(name) > shown)  # type: ignore[misc]
        valkey.pause()
        await until(lambda: not one.cache.answers)
        silent = one.value(name)
        assert time.time() - silent >= FRESH_SECONDS
        await asyncio.sleep(BEAT_SECONDS * 2)
        assert one.value(name) == silent
        valkey.resume()
        await until(lambda: one.value(name) > silent)
        assert one.value("credenza_cache_invalidation_seconds_count") == 0


async def test_a_redis_that_goes_is_counted_also_while_nobody_asks(valkey: Valkey) -> None:
    """One that is back before anything is asked has failed too: what was held is gone."""
    async with replicas(valkey, 1) as (one,):
        assert one.value("credenza_cache_total", layer="redis", outcome="error") == 0
        valkey.kill()
        valkey.start()
        await until(lambda: one.value("credenza_cache_total", layer="redis", outcome="error") >= 1)
        await until(lambda: one.cache.answers)


async def test_a_redis_that_refuses_commands_is_counted_once_an_attempt(valkey: Valkey) -> None:
    """A connection that ends because a command has failed is no second failure."""
    admin: Any = valkey.client()
    replica = Replica(valkey)
    admin.execute_command("ACL", "SETUSER", "default", "-@scripting")

    def attempts() -> int:
        found = admin.info("commandstats")
        return int(found.get("cmdstat_subscribe", {"calls": 0})["calls"])

    before = attempts()
    await replica.cache.start()
    try:
        await until(lambda: attempts() >= before + 3)
        counted = replica.value("credenza_cache_total", layer="redis", outcome="error")
        assert 2 <= counted <= attempts() - before
    finally:
        await replica.cache.close()
        admin.execute_command("ACL", "SETUSER", "default", "+@all")


def test_a_connection_that_is_cut_at_once_is_a_redis_that_is_away() -> None:
    """Under uvloop too, which says RuntimeError where the other end was faster than a command."""

    async def look(port: int) -> None:
        settings = Settings(redis_url=f"redis://127.0.0.1:{port}/0")
        shared = Shared(settings, Metrics(), on_away=lambda: None)
        for _ in range(1000):
            with pytest.raises(Away):
                await shared.look(Key("c", 1, "a"))
        await shared.close()

    with (
        cutting() as port,
        asyncio.Runner(loop_factory=uvloop.new_event_loop) as runner,
    ):
        runner.run(look(port))


@contextmanager
def cutting() -> Iterator[int]:
    """Reset each connection as soon as it is made; the port."""
    with socket.create_server(("127.0.0.1", 0)) as server:

        def work() -> None:
            with suppress(OSError):  # the end
                while True:
                    connection, _ = server.accept()
                    at_once = struct.pack("ii", 1, 0)
                    connection.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, at_once)
                    connection.close()

        thread = threading.Thread(target=work)
        thread.start()
        yield server.getsockname()[1]
        server.shutdown(socket.SHUT_RDWR)
        thread.join()


async def test_the_heartbeat_counts_from_the_start(valkey: Valkey) -> None:
    """Redis that was never there looks like one that has gone then; without one there is none."""
    name = "credenza_cache_heartbeat_timestamp_seconds"
    replica = Replica(valkey)
    assert replica.metrics.registry.get_sample_value(name) == 0
    valkey.pause()
    try:
        began = time.time()
        await replica.cache.start()
        assert not replica.cache.answers
        assert began <= replica.value(name) < began + 0.5
    finally:
        valkey.resume()
        await replica.cache.close()


async def test_an_unknown_outcome_is_read_past_the_cache(
    valkey: Valkey, key: Key, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Until the write is committed or rolled back for sure, nothing of the key is kept."""
    monkeypatch.setattr(coherent, "SETTLE_SECONDS", 1.0)
    async with replicas(valkey, 2, query_timeout=0.5) as (one, two):
        await one.read(key, loading(OLD))
        await two.read(key, loading(OLD))
        one.cache.uncertain(key)
        assert await one.outcome(key, OLD) == "bypass"
        await until(lambda: two.near(key) is None)
        assert await two.read(key, loading(OLD)) == OLD  # the commit has not landed yet
        await until(lambda: valkey.stored(key.text) is None)
        assert await two.read(key, loading(NEW)) == NEW
        while await one.outcome(key, NEW) == "bypass":  # noqa: ASYNC110 - no event
            await asyncio.sleep(0.05)
        assert await one.outcome(key, NEW) == "hit-near"


async def test_another_server_s_entries_count_for_nothing(valkey: Valkey, key: Key) -> None:
    """A replica of Redis that was promoted may lack the last writes: its run id is another."""
    async with replicas(valkey, 1) as (one,):
        await one.read(key, loading(OLD))
        kept = {name: valkey.stored(name) or b"" for name in (key.text, GENERATION)}
        assert all(kept.values())
    valkey.kill()
    valkey.start()
    for name, stored in kept.items():
        valkey.client().set(name, stored)
    async with replicas(valkey, 1) as (one,):
        assert await one.read(key, loading(NEW)) == NEW


async def test_the_cost_of_a_read_in_commands(valkey: Valkey, key: Key) -> None:
    """A miss asks Redis twice, a hit there once, a hit in the process never."""
    async with replicas(valkey, 2) as (one, two):

        def calls() -> int:
            stats = valkey.client().info("commandstats")
            return int(stats["cmdstat_evalsha"]["calls"])

        await one.read(key._replace(id="first"), loading(OLD))  # the script is there now
        before = calls()
        assert await one.outcome(key, OLD) == "miss"
        assert calls() - before == 2
        assert await two.outcome(key, OLD) == "hit-redis"
        assert calls() - before == 3
        assert await two.outcome(key, OLD) == "hit-near"
        assert await one.outcome(key, OLD) == "hit-near"
        assert calls() - before == 3


async def test_entries_live_as_long_as_they_may(valkey: Valkey, key: Key) -> None:
    """60 s at the most, a little less by chance, less still where the collection says so."""
    async with replicas(valkey, 2) as (one, two):
        lives = []
        for number in range(20):
            each = key._replace(id=str(number))
            await one.read(each, loading(OLD))
            lives.append(valkey.client().pttl(each.text))
        assert max(lives) <= 60_000
        assert min(lives) > 50_000
        assert max(lives) - min(lives) > 500
        short = key._replace(id="short")
        await one.cache.through(short, loading(OLD), 0.2)
        assert await two.read(short, loading(NEW)) in (OLD, NEW)
        await until(lambda: one.near(short) is None and two.near(short) is None)
        assert await two.read(short, loading(NEW)) == NEW


async def test_the_near_cache_is_bounded(valkey: Valkey, key: Key) -> None:
    """What was not asked for longest leaves first; what is too large is not kept."""
    async with replicas(valkey, 1, near_cache_bytes=100_000) as (one,):
        large = Entry(1, b"x" * 10_000)
        for number in range(30):
            await one.read(key._replace(id=str(number)), loading(large))
            assert one.near(key._replace(id="0")) is not None
        assert 50_000 < one.value("credenza_cache_near_bytes") <= 100_000
        assert one.near(key._replace(id="1")) is None
        assert one.near(key._replace(id="29")) == large
        huge = key._replace(id="huge")
        await one.read(huge, loading(Entry(1, b"x" * 200_000)))
        assert one.near(huge) is None


async def test_a_rotated_password_is_read_at_the_next_connect(
    valkey: Valkey, key: Key, tmp_path: Path
) -> None:
    """REDIS_PASSWORD_FILE needs no restart."""
    client, file = valkey.client(), tmp_path / "password"
    file.write_text("one\n")
    client.config_set("requirepass", "one")
    try:
        async with replicas(valkey, 1, redis_password_file=file) as (replica,):
            assert await replica.outcome(key, OLD) == "miss"
            file.write_text("two")
            client.config_set("requirepass", "two")
            client.client_kill_filter(skipme=True)
            await until(lambda: not replica.cache.answers)
            await until(lambda: replica.cache.answers)
            assert await replica.outcome(key, OLD) == "hit-redis"
    finally:
        client.config_set("requirepass", "")
