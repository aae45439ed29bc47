"""Two writers of one document, decided while its row's lock is held; and what deletion leaves.

Another session holds the row's lock with a version far ahead of any clock, so that the service's
write waits behind it with an older clock.
"""

import asyncio
from collections.abc import AsyncIterator, Iterator
from datetime import UTC, datetime, timedelta
from typing import Any

import asyncpg
import httpx2
import pytest

from credenza import upkeep
from credenza.app import Service
from credenza.settings import Settings
from databases import blocked, connected, create_migrated, statements
from servers import PATIENCE, Postgres
from service import Running

AHEAD = 4_000_000_000_000_000
"""A version that a clock reaches in 2096."""

PUT = "UPDATE documents SET version = $2, data = '\"theirs\"' WHERE collection = $1 AND id = 'a'"
DELETE = "UPDATE documents SET version = $2, data = NULL WHERE collection = $1 AND id = 'a'"
INSERT = """
    INSERT INTO documents
    SELECT $1, 'a', incarnation, $2, created_at, created_at, '"theirs"' FROM collections
    WHERE collection = $1
"""
PUT_ANEW = f"""
    WITH again AS (
        UPDATE collections SET incarnation = $2, version = $2 WHERE collection = $1
    ) {PUT.replace("SET", "SET incarnation = $2,")}
"""
"""As if the collection had been deleted and made again, and then the document."""


class Rival:
    """A second writer, straight to the database; and a client of the service."""

    def __init__(self, raw: asyncpg.Connection, client: httpx2.AsyncClient) -> None:
        self.raw = raw
        self.client = client

    async def ahead(
        self, collection: str, statement: str, method: str, path: str = "a", **options: Any
    ) -> httpx2.Response:
        """Write first and commit when the service's request waits for it; return the answer."""
        async with self.raw.transaction():
            await self.raw.execute(statement, collection, AHEAD)
            url = f"/v1/data/{collection}/{path}"
            request = asyncio.create_task(self.client.request(method, url, **options))
            await blocked(self.raw, unless=request.done)
        return await request

    async def stored(self, collection: str) -> tuple[int, str | None]:
        """Return the version and the data of the row, also of a tombstone."""
        row = await self.raw.fetchrow(
            "SELECT version, data::text FROM documents WHERE collection = $1 AND id = 'a'",
            collection,
        )
        return row["version"], row["data"]


@pytest.fixture(scope="module")
def running(
    postgres: Postgres, tmp_path_factory: pytest.TempPathFactory
) -> Iterator[tuple[Running, str]]:
    """Serve a database of its own."""
    name = asyncio.run(create_migrated(postgres))
    service = Running(tmp_path_factory.mktemp("service"), database_url=postgres.database(name))
    yield service.start(), name
    service.stop()


@pytest.fixture
async def rival(running: tuple[Running, str], postgres: Postgres) -> AsyncIterator[Rival]:
    """Connect to both."""
    service, name = running
    async with connected(postgres, name) as raw, service.async_client() as client:
        yield Rival(raw, client)


async def test_put_behind_put(rival: Rival, collection: str) -> None:
    """The later write wins with a version above the one it waited for."""
    await rival.client.put(f"/v1/data/{collection}/a", json="first")
    answer = await rival.ahead(collection, PUT, "PUT", json="ours")
    assert (answer.status_code, answer.json()["version"]) == (200, AHEAD + 1)
    assert await rival.stored(collection) == (AHEAD + 1, '"ours"')


async def test_put_behind_delete(rival: Rival, collection: str) -> None:
    """It creates the document anew, above the tombstone's version."""
    before = (await rival.client.put(f"/v1/data/{collection}/a", json="first")).json()
    answer = await rival.ahead(collection, DELETE, "PUT", json="ours")
    assert (answer.status_code, answer.json()["version"]) == (201, AHEAD + 1)
    assert answer.json()["created_at"] > before["created_at"]


async def test_delete_behind_put(rival: Rival, collection: str) -> None:
    """It deletes what it waited for, and its tombstone is above that."""
    await rival.client.put(f"/v1/data/{collection}/a", json="first")
    answer = await rival.ahead(collection, PUT, "DELETE")
    assert answer.status_code == 204
    assert await rival.stored(collection) == (AHEAD + 1, None)


async def test_delete_behind_delete(rival: Rival, collection: str) -> None:
    """The second finds nothing, and leaves the tombstone as it is."""
    await rival.client.put(f"/v1/data/{collection}/a", json="first")
    answer = await rival.ahead(collection, DELETE, "DELETE")
    assert answer.status_code == 404
    assert await rival.stored(collection) == (AHEAD, None)


async def test_put_behind_an_insert(rival: Rival, collection: str) -> None:
    """Two that create the same document: the later one replaces it."""
    await rival.client.post(f"/v1/data/{collection}", json=0)
    answer = await rival.ahead(collection, INSERT, "PUT", json="ours")
    assert (answer.status_code, answer.json()["version"]) == (200, AHEAD + 1)


async def test_patch_behind_put(rival: Rival, collection: str) -> None:
    """It changes what it waited for, not what it would have read before."""
    await rival.client.put(f"/v1/data/{collection}/a", json={"first": 1})
    theirs = PUT.replace('"theirs"', '{"theirs": 1}')
    answer = await rival.ahead(collection, theirs, "PATCH", json={"ours": 1})
    assert (answer.status_code, answer.json()["version"]) == (200, AHEAD + 1)
    assert answer.json()["data"] == {"theirs": 1, "ours": 1}


@pytest.mark.parametrize("method", ["PUT", "PATCH", "DELETE"])
async def test_if_match_is_decided_under_the_lock(
    rival: Rival, collection: str, method: str
) -> None:
    """A tag that held when the request began is 412 when another write came first."""
    first = await rival.client.put(f"/v1/data/{collection}/a", json={})
    body: dict[str, Any] = {} if method == "DELETE" else {"json": {"ours": 1}}
    answer = await rival.ahead(
        collection, PUT, method, headers={"If-Match": first.headers["etag"]}, **body
    )
    assert answer.status_code == 412
    assert answer.json()["current"]["version"] == AHEAD
    assert await rival.stored(collection) == (AHEAD, '"theirs"')


async def test_if_none_match_is_decided_under_the_lock(rival: Rival, collection: str) -> None:
    """`If-None-Match: *` is 412 behind an insert that was not to be seen when it began."""
    await rival.client.post(f"/v1/data/{collection}", json=0)
    answer = await rival.ahead(
        collection, INSERT, "PUT", json="ours", headers={"If-None-Match": "*"}
    )
    assert answer.status_code == 412
    assert await rival.stored(collection) == (AHEAD, '"theirs"')


async def test_a_put_that_waited_through_a_re_creation_is_kept(
    rival: Rival, collection: str
) -> None:
    """Its collection is deleted and made again meanwhile: what is acknowledged is there."""
    await rival.client.put(f"/v1/data/{collection}/a", json="first")
    answer = await rival.ahead(collection, PUT_ANEW, "PUT", json="ours")
    assert (answer.status_code, answer.json()["version"]) == (200, AHEAD + 1)
    found = await rival.client.get(f"/v1/data/{collection}/a")
    assert (found.status_code, found.json()["data"]) == (200, "ours")


async def test_an_import_that_waited_through_a_re_creation_replaces_nothing(
    rival: Rival, collection: str
) -> None:
    """Its chunk belongs to the collection that is gone: it says so and the new document stays."""
    await rival.client.put(f"/v1/data/{collection}/a", json="first")
    answer = await rival.ahead(
        *(collection, PUT_ANEW, "POST", "_import?view=document&on_conflict=replace"),
        content=b'{"id":"a","data":"ours"}',
        headers={"Content-Type": "application/x-ndjson"},
    )
    assert answer.json()["written"] == 0
    found = await rival.client.get(f"/v1/data/{collection}/a")
    assert (found.status_code, found.json()["data"]) == (200, "theirs")


async def test_a_clock_that_went_back_takes_no_version_again(rival: Rival, collection: str) -> None:
    """A document written and deleted under a clock far ahead comes back above its tombstone."""
    path = f"/v1/data/{collection}/a"
    await rival.client.put(path, json=1)
    await rival.raw.execute(PUT, collection, AHEAD)
    assert (await rival.client.delete(path)).status_code == 204
    again = await rival.client.put(path, json=2)
    assert (again.status_code, again.json()["version"]) == (201, AHEAD + 2)
    assert (await rival.client.put(path, json=2)).json()["version"] == AHEAD + 3


@pytest.mark.parametrize("how", ["PUT", "PUT if-match", "PATCH", "import"])
async def test_times_of_change_do_not_go_back(rival: Rival, collection: str, how: str) -> None:
    """After a writer whose clock is ahead, another one's change is not older than what it changes.

    A client that has the former one's date would be told that nothing has changed since.
    """
    base, method, _, condition = f"/v1/data/{collection}", *how.partition(" ")
    first = await rival.client.put(f"{base}/a", json={})
    ahead = "UPDATE documents SET updated_at = updated_at + interval '1 hour' WHERE collection = $1"
    await rival.raw.execute(ahead, collection)
    seen = (await rival.client.get(f"{base}/a")).json()["updated_at"]
    if how == "import":
        changed = await rival.client.post(
            f"{base}/_import?view=document&on_conflict=replace",
            content=b'{"id":"a","data":{"n":1}}',
            headers={"Content-Type": "application/x-ndjson"},
        )
    else:
        headers = {"If-Match": first.headers["ETag"]} if condition else {}
        changed = await rival.client.request(method, f"{base}/a", json={"n": 1}, headers=headers)
    assert changed.status_code == 200
    found = (await rival.client.get(f"{base}/a")).json()
    assert (found["data"], found["updated_at"]) == ({"n": 1}, seen)


async def test_settings_do_not_go_back_either(rival: Rival, collection: str) -> None:
    """A collection's time of change is not older than the one before."""
    path = f"/v1/collections/{collection}"
    await rival.client.put(path, json={})
    ahead = "UPDATE collections SET updated_at = 'infinity' WHERE collection = $1"
    await rival.raw.execute(ahead.replace("infinity", "2100-01-01T00:00:00Z"), collection)
    changed = await rival.client.put(path, json={"cache_ttl": 1})
    assert changed.json()["updated_at"].startswith("2100-01-01")


async def test_a_collection_made_again_shows_nothing_of_before(
    rival: Rival, collection: str
) -> None:
    """Rows that a deletion has not come to yet are absent in every way, and only count upwards."""
    base = f"/v1/data/{collection}"
    await rival.client.put(f"{base}/a", json="old")
    await leave_behind(rival.raw, collection)
    assert (await rival.client.get(base)).json()["items"] == []
    for method in ("GET", "HEAD", "DELETE", "PATCH"):
        body = b"{}" if method == "PATCH" else None
        answer = await rival.client.request(method, f"{base}/a", content=body)
        assert answer.status_code == 404, method
    tagged = {"If-Match": f'"{AHEAD}"'}
    assert (await rival.client.put(f"{base}/a", json=1, headers=tagged)).status_code == 412
    created = await rival.client.put(f"{base}/a", json=1, headers={"If-None-Match": "*"})
    assert (created.status_code, created.json()["version"]) == (201, AHEAD + 1)
    assert created.json()["created_at"] == created.json()["updated_at"]
    assert [item["data"] for item in (await rival.client.get(base)).json()["items"]] == [1]


async def leave_behind(raw: asyncpg.Connection, collection: str) -> None:
    """Delete and make the collection again as if the deletion of its rows had been interrupted."""
    await raw.execute("UPDATE documents SET version = $2 WHERE collection = $1", collection, AHEAD)
    await raw.execute(
        "UPDATE collections SET incarnation = incarnation + 1, version = version + 1,"
        " purged = false WHERE collection = $1",
        collection,
    )


async def test_deleting_a_collection_deletes_its_rows(rival: Rival, collection: str) -> None:
    """Soon no row is left, and a collection of the same name starts empty at once."""
    base, settings = f"/v1/data/{collection}", f"/v1/collections/{collection}"
    for number in range(5):
        await rival.client.put(f"{base}/{number}", json=number)
    tag = (await rival.client.get(settings)).headers["etag"]
    assert (await rival.client.delete(settings, headers={"If-Match": tag})).status_code == 204
    async with asyncio.timeout(20):
        while await count_rows(rival.raw, collection):  # noqa: ASYNC110 - in another process
            await asyncio.sleep(0.01)
    assert (await rival.client.get(f"{base}/0")).status_code == 404
    new = (await rival.client.post(base, json="new")).json()
    assert (await rival.client.get(base)).json()["items"] == [new]
    assert (await rival.client.get(settings)).headers["etag"] > tag


async def count_rows(raw: asyncpg.Connection, collection: str) -> int:
    """Return how many rows a collection has, seen or not."""
    number: int = await raw.fetchval(
        "SELECT count(*) FROM documents WHERE collection = $1", collection
    )
    return number


FILL = """
    INSERT INTO documents
    SELECT $1, $2 || n, incarnation + $3, 1, $4::timestamptz, $4::timestamptz, $5::jsonb
    FROM collections, generate_series(1, $6::int) AS n WHERE collection = $1
"""


async def test_what_nobody_can_see_goes_by_itself_in_batches(
    rival: Rival, collection: str, postgres: Postgres, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Tombstones of over a day and rows of deleted collections go, younger ones and others stay."""
    await rival.client.put(f"/v1/data/{collection}/a", json="alive")
    day, now = timedelta(hours=24), datetime.now(UTC)
    for prefix, incarnation, time, data, number in (
        ("old-tombstone", 0, now - day - timedelta(seconds=1), None, 2500),
        ("young-tombstone", 0, now - day + timedelta(minutes=5), None, 10),
        ("old", 0, now - 2 * day, "1", 10),
        ("former", -1, now, "1", 1500),
    ):
        await rival.raw.execute(FILL, collection, prefix, incarnation, time, data, number)
    await rival.raw.execute(
        "UPDATE collections SET purged = false WHERE collection = $1", collection
    )
    name = await rival.raw.fetchval("SELECT current_database()")
    before = len(statements(postgres, name))
    monkeypatch.setattr(upkeep, "REAP_SECONDS", 0.1)
    async with Service(Settings(), url=postgres.database(name)).running():
        async with asyncio.timeout(PATIENCE):
            while await count_rows(rival.raw, collection) > 21:  # noqa: ASYNC110 - no event
                await asyncio.sleep(0.05)
    left = await rival.raw.fetch("SELECT id FROM documents WHERE collection = $1", collection)
    assert {row["id"].rstrip("0123456789") for row in left} == {"a", "young-tombstone", "old"}
    assert len(left) == 21
    deletions = [text for text in statements(postgres, name)[before:] if text.startswith("DELETE")]
    assert len([text for text in deletions if "updated_at" in text]) >= 3
    assert len([text for text in deletions if "incarnation" in text]) >= 2
    assert not await rival.raw.fetchval(
        "SELECT count(*) FROM collections WHERE collection = $1 AND NOT purged", collection
    )


async def test_a_collection_that_is_held_keeps_no_other_from_being_cleaned(
    rival: Rival, collection: str, postgres: Postgres, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Somebody holds a row of a deleted collection; the rows of one whose name comes later go."""
    later = f"{collection}-later"
    for name in (collection, later):
        await rival.client.put(f"/v1/data/{name}/a", json=1)
    monkeypatch.setattr(upkeep, "REAP_SECONDS", 0.1)
    url = postgres.database(await rival.raw.fetchval("SELECT current_database()"))
    async with rival.raw.transaction():
        await rival.raw.execute(
            "SELECT FROM documents WHERE collection = $1 FOR UPDATE", collection
        )
        for name in (collection, later):
            await rival.client.delete(f"/v1/collections/{name}", headers={"If-Match": "*"})
        async with Service(Settings(query_timeout=0.5), url=url).running():
            async with asyncio.timeout(PATIENCE):
                while await count_rows(rival.raw, later):  # noqa: ASYNC110 - no event
                    await asyncio.sleep(0.05)
        assert await count_rows(rival.raw, collection) == 1
