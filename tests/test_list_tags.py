"""The entity-tags of lists: when they change, when not, and what an unchanged list costs."""

import asyncio
from collections.abc import Callable, Iterator
from typing import Any

import asyncpg
import httpx2
import pytest

from databases import blocked, connected, create_migrated, statements
from servers import Postgres
from service import Address, Running
from test_groups import under_way

NDJSON = {"Content-Type": "application/x-ndjson"}
WHOLE = "_import?view=document&on_conflict="


@pytest.fixture(scope="module")
def uncached(
    postgres: Postgres, tmp_path_factory: pytest.TempPathFactory
) -> Iterator[tuple[Running, str]]:
    """Serve a database of its own without any cache; with the database's name."""
    name = asyncio.run(create_migrated(postgres))
    running = Running(tmp_path_factory.mktemp("service"), database_url=postgres.database(name))
    yield running.start(), name
    running.stop()


@pytest.fixture(params=["held", "read"])
def lists(request: pytest.FixtureRequest, collection: str) -> Iterator["List"]:
    """A list of three documents: of a service that holds pages itself, and of one that reads."""
    service: Address = (
        request.getfixturevalue("service")
        if request.param == "held"
        else request.getfixturevalue("uncached")[0]
    )
    with service.client() as client:
        found = List(client, f"/v1/data/{collection}")
        for id_ in "abc":
            client.put(f"{found.path}/{id_}", json={"n": 1}).raise_for_status()
        yield found


class List:
    """A list as a client sees it."""

    def __init__(self, client: httpx2.Client, path: str) -> None:
        self.client = client
        self.path = path

    def get(self, query: str = "", **headers: str) -> httpx2.Response:
        """Ask for it; underscores in names of headers are hyphens."""
        named = {name.replace("_", "-"): value for name, value in headers.items()}
        return self.client.get(self.path + query, headers=named)

    def tag(self, query: str = "") -> str:
        """Return its tag, which a second reading confirms."""
        found: str = self.get(query).headers["etag"]
        assert self.get(query).headers["etag"] == found
        return found

    def write(self, method: str, name: str, **options: Any) -> int:
        """Write something below it and return the status."""
        return self.client.request(method, f"{self.path}{name}", **options).status_code

    def again(self) -> None:
        """Delete its collection, and make the same documents in another one of that name."""
        settings = self.path.replace("/data/", "/collections/")
        etag = self.client.get(settings).headers["etag"]
        assert self.client.delete(settings, headers={"If-Match": etag}).status_code == 204


def test_an_unchanged_list_is_not_sent_again(lists: List) -> None:
    """304 without a body, by the weak tag alone, beside others, or any; HEAD has the same one."""
    first = lists.get("?limit=2")
    etag = first.headers["etag"]
    assert etag.startswith('W/"')
    for known in (etag, etag.removeprefix("W/"), f'"1", {etag}, W/"x"', "*"):
        answer = lists.get("?limit=2", If_None_Match=known)
        assert (answer.status_code, answer.content) == (304, b""), known
        assert answer.headers["etag"] == etag
        assert answer.headers["cache-control"] == first.headers["cache-control"]
    head = lists.client.head(f"{lists.path}?limit=2")
    assert (head.status_code, head.headers["etag"]) == (200, etag)
    again = lists.client.head(f"{lists.path}?limit=2", headers={"If-None-Match": etag})
    assert again.status_code == 304
    for unknown in ('W/"AAAAAAAAAAAAAAAAAAAAAA"', '"1"', 'W/"x"'):
        answer = lists.get("?limit=2", If_None_Match=unknown)
        assert (answer.status_code, answer.content) == (200, first.content)


WRITES: dict[str, Callable[[List], Any]] = {
    "POST": lambda lists: lists.write("POST", "", json=1),
    "PUT of a new one": lambda lists: lists.write("PUT", "/d", json=1),
    "PUT of the same": lambda lists: lists.write("PUT", "/a", json={"n": 1}),
    "PUT, If-Match": lambda lists: lists.write("PUT", "/a", json=2, headers={"If-Match": "*"}),
    "PATCH": lambda lists: lists.write("PATCH", "/a", json={"n": 2}),
    "DELETE": lambda lists: lists.write("DELETE", "/a"),
    "import": lambda lists: lists.write("POST", "/_import", content=b"1", headers=NDJSON),
    "import of whole ones": lambda lists: lists.write(
        "POST", f"/{WHOLE}replace", content=b'{"id":"a","data":2}', headers=NDJSON
    ),
    "DELETE of all": List.again,
}


@pytest.mark.parametrize("kind", WRITES)
def test_each_write_changes_the_tag(lists: List, kind: str) -> None:
    """What was acknowledged is in the next list, under another tag; whatever its query is."""
    queries = ("", "?limit=1", "?n=eq.5", "?select=n&view=data")
    tags = {query: lists.tag(query) for query in queries}
    status = WRITES[kind](lists)
    assert status in {200, 201, 204, None}
    for query, tag in tags.items():
        answer = lists.get(query, If_None_Match=tag)
        assert (answer.status_code, answer.headers["etag"] != tag) == (200, True), query


def test_no_tag_comes_again(lists: List) -> None:
    """Not for the same documents written anew, nor in a collection that was made again."""
    tags = [lists.tag()]
    for _ in range(3):
        assert lists.write("DELETE", "/c") == 204
        tags.append(lists.tag())
        assert lists.write("PUT", "/c", json={"n": 1}) == 201
        tags.append(lists.tag())
    lists.again()
    tags.append(lists.tag())
    for id_ in "abc":
        assert lists.write("PUT", f"/{id_}", json={"n": 1}) == 201
    tags.append(lists.tag())
    assert len(set(tags)) == len(tags)


STALE = {"headers": {"If-Match": '"1"'}}
REFUSED: list[tuple[str, str, dict[str, Any], int]] = [
    ("PUT", "/a", {"json": 2} | STALE, 412),
    ("PUT", "/a", {"json": 2, "headers": {"If-None-Match": "*"}}, 412),
    ("PUT", "/a", {"content": b"{"}, 400),
    ("PATCH", "/a", {"json": {"n": 2}} | STALE, 412),
    ("PATCH", "/absent", {"json": {}}, 404),
    ("DELETE", "/a", STALE, 412),
    ("DELETE", "/absent", {}, 404),
    ("POST", f"/{WHOLE}skip", {"content": b'{"id":"a","data":2}', "headers": NDJSON}, 200),
    (
        *("POST", f"/{WHOLE}error"),
        {"content": b'{"id":"d","data":2}\n{"id":"a","data":2}', "headers": NDJSON},
        422,
    ),
]


def test_what_writes_nothing_changes_no_tag(lists: List) -> None:
    """Neither refused writes, nor ones that skip everything, nor those of other collections."""
    tag = lists.tag()
    for method, name, options, status in REFUSED:
        assert lists.write(method, name, **options) == status, (method, name)
        assert lists.get(If_None_Match=tag).status_code == 304, (method, name, options)
    other = f"{lists.path}x"
    for method, path in (("PUT", f"{other}/a"), ("POST", other), ("DELETE", f"{other}/a")):
        assert lists.client.request(method, path, json=1).status_code < 300
        assert lists.get(If_None_Match=tag).status_code == 304, (method, path)


def test_another_list_has_another_tag(lists: List) -> None:
    """Parameters, the page and the family of paths are part of it; a tag holds at its own alone."""
    following = lists.get("?limit=1").json()["next"].partition("?")[2]
    queries = ("", "?limit=1", "?view=data", "?order=$id.desc", "?n=eq.1", f"?{following}")
    tags = {query: lists.tag(query) for query in queries}
    assert len(set(tags.values())) == len(tags)
    for query, tag in tags.items():
        for other in queries:
            status = lists.get(other, If_None_Match=tag).status_code
            assert status == (304 if other == query else 200), (query, other)
    for path in ("/data", "/v1/data/default"):
        lists.client.put(f"{path}/x", json=1)
    roots = [lists.client.get(path).headers["etag"] for path in ("/data", "/v1/data/default")]
    assert roots[0] != roots[1]


def test_a_collection_that_does_not_exist_has_a_tag_too(lists: List) -> None:
    """It lists as empty until something is made in it."""
    absent = List(lists.client, f"{lists.path}absent")
    tag = absent.tag()
    assert absent.get(If_None_Match=tag).status_code == 304
    assert absent.write("POST", "", json=1) == 201
    assert absent.get(If_None_Match=tag).status_code == 200


def test_what_is_wrong_with_the_request_comes_first(lists: List) -> None:
    """No condition hides a bad query or a foreign cursor; If-Match never matches a weak tag."""
    foreign = lists.get("?limit=1").json()["next"].partition("cursor=")[2]
    for query, known, status in (
        ("?limit=0", "*", 400),
        (f"?cursor={foreign}&n=eq.1", "*", 400),
        ("", "abc", 400),
    ):
        assert lists.get(query, If_None_Match=known).status_code == status, query
    assert lists.get(If_Match=lists.tag()).status_code == 412
    assert lists.get(If_Match="*").status_code == 200


# In one snapshot


@pytest.mark.parametrize("table", ["documents", "changes"])
async def test_the_tag_is_of_the_documents_that_are_shown(
    uncached: tuple[Running, str], postgres: Postgres, collection: str, table: str
) -> None:
    """A write that commits while a list is read is in the documents and in the tag, or in neither.

    The list waits for one of the tables that it reads, while both are written.
    """
    service, name = uncached
    path = f"/v1/data/{collection}"
    async with service.async_client() as client, connected(postgres, name) as raw:
        await client.put(f"{path}/a", json=1)
        seen = [shown(await client.get(path))]
        async with raw.transaction():
            await raw.execute(f"LOCK TABLE {table} IN ACCESS EXCLUSIVE MODE")
            reading = asyncio.create_task(client.get(path))
            await blocked(raw, unless=reading.done)
            await behind_the_back(raw, collection)
        between = shown(await reading)
        seen.append(shown(await client.get(path)))
    assert seen[0][0] != seen[1][0]
    assert seen[0][1] != seen[1][1]
    assert between in seen


def shown(answer: httpx2.Response) -> tuple[bytes, str]:
    """Return what a list shows, and its tag."""
    return answer.content, answer.headers["etag"]


async def behind_the_back(raw: asyncpg.Connection, collection: str) -> None:
    """Write a document as another process does."""
    await raw.execute(
        "INSERT INTO documents SELECT $1, 'b', incarnation, 1, created_at, created_at, '1'"
        " FROM collections WHERE collection = $1",
        collection,
    )
    await raw.execute(
        "INSERT INTO changes VALUES ($1, 0, 1)"
        " ON CONFLICT (collection, slot) DO UPDATE SET n = changes.n + 1",
        collection,
    )


# Cost


async def test_those_who_poll_at_once_share_a_statement(
    uncached: tuple[Running, str], postgres: Postgres, collection: str
) -> None:
    """An unchanged list costs one reading of the state at the most, and no list is read."""
    service, name = uncached
    path = f"/v1/data/{collection}"
    async with service.async_client(60) as client, connected(postgres, name) as raw:
        await client.put(f"{path}/a", json=1)
        known = {"If-None-Match": (await client.get(path)).headers["etag"]}
        before = len(statements(postgres, name))
        async with raw.transaction():
            await raw.execute("LOCK TABLE changes IN ACCESS EXCLUSIVE MODE")
            polls = [asyncio.create_task(client.get(path, headers=known)) for _ in range(50)]
            await under_way(client, len(polls))
        answers = await asyncio.gather(*polls)
        sent = statements(postgres, name)[before:]
    assert {answer.status_code for answer in answers} == {304}
    assert sum("AS state" in text for text in sent) <= 4
    assert not any("page.place" in text for text in sent)
