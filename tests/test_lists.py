"""Lists over HTTP: pages, order, filters, selection."""

import asyncio
import itertools
import random
from typing import Any

import httpx2
import pytest

from service import Running


def walk(client: httpx2.Client, path: str, **params: Any) -> list[dict[str, Any]]:
    """Follow `next` to the end and return all items."""
    items: list[dict[str, Any]] = []
    page = client.get(path, params=params).json()
    while True:
        items += page["items"]
        if page["next"] is None:
            return items
        page = client.get(page["next"]).json()


def fill(client: httpx2.Client, collection: str, *values: Any) -> list[str]:
    """Store values and return their ids."""
    path = f"/v1/data/{collection}"
    return [client.post(path, json=value).json()["id"] for value in values]


def test_nothing_is_an_empty_page(client: httpx2.Client, collection: str) -> None:
    """A collection that does not exist lists as empty."""
    assert client.get(f"/v1/data/{collection}").json() == {"items": [], "next": None}


def test_pages_end_and_link(client: httpx2.Client, collection: str) -> None:
    """Pages come in order of ids, link to the next one, and end with null."""
    ids = fill(client, collection, *range(7))
    first = client.get(f"/v1/data/{collection}", params={"limit": 3})
    assert [item["id"] for item in first.json()["items"]] == sorted(ids)[:3]
    assert first.headers["link"] == f'<{first.json()["next"]}>; rel="next"'
    assert first.json()["next"].startswith(f"/v1/data/{collection}?limit=3&cursor=")
    assert [item["id"] for item in walk(client, f"/v1/data/{collection}", limit=3)] == sorted(ids)
    exact = client.get(f"/v1/data/{collection}", params={"limit": 7}).json()
    assert (len(exact["items"]), exact["next"]) == (7, None)


def test_links_stay_in_the_family(client: httpx2.Client) -> None:
    """What is listed below /data links to /data."""
    fill(client, "default", 1, 2)
    assert client.get("/data", params={"limit": 1}).json()["next"].startswith("/data?limit=1&")


@pytest.mark.parametrize(
    ("query", "expected"),
    [
        ("n=eq.2", [2]),
        ("n=gt.1&n=lte.3", [2, 3]),
        ("n=neq.2", [1, 3, "2", None]),
        ("n=not.gt.1", [1, "2", None]),
        ('n=eq."2"', ["2"]),
        ("n=eq.null", [None]),
        ("n=has", [1, 2, 3, "2", None]),
        ("in.ner=eq.2", [2]),
        ("tags=eq.[1,2]", [3]),
        ("data.n=eq.2", [2]),
    ],
)
def test_filters(client: httpx2.Client, collection: str, query: str, expected: list[Any]) -> None:
    """Equality and comparison by type and value; absent fields match nothing but negations."""
    fill(
        client,
        collection,
        {"n": 1},
        {"n": 2, "in": {"ner": 2}},
        {"n": 3, "tags": [1, 2]},
        {"n": "2"},
        {"n": None},
    )
    items = client.get(f"/v1/data/{collection}?{query}&view=data").json()["items"]
    assert [item["n"] for item in items] == expected


def test_order_by_fields_and_metadata(client: httpx2.Client, collection: str) -> None:
    """Types come in a fixed order; ties are broken by id; descending is the reverse."""
    values = [{"a": value} for value in ("b", 10, None, True, "a", 2, False, [1])] + [{}]
    fill(client, collection, *values)
    path = f"/v1/data/{collection}"
    ascending = [item.get("a", "absent") for item in walk(client, path, order="a", view="data")]
    assert ascending == [None, "absent", False, True, 2, 10, "a", "b", [1]]
    descending = walk(client, path, order="a.desc,$id.desc", view="data", limit=2)
    assert [item.get("a", "absent") for item in descending] == ascending[::-1]
    newest = walk(client, path, order="$created_at.desc", limit=4)
    assert [item["data"] for item in newest] == values[::-1]


def test_select_keeps_nesting(client: httpx2.Client, collection: str) -> None:
    """`select` answers with parts of the data and nothing else."""
    fill(client, collection, {"name": "x", "address": {"city": "Oslo", "street": "y"}, "z": 1})
    page = client.get(f"/v1/data/{collection}?select=name,address.city,absent").json()
    assert page["items"][0]["data"] == {"name": "x", "address": {"city": "Oslo"}}


@pytest.mark.parametrize(
    "query",
    [
        *("limit=0", "limit=1001", "limit=x", "limit=1&limit=2", "limit=", "view=x"),
        *("a=1", "a=foo.1", "order=", "$x=eq.1", "a=eq.1&order=$x", "select="),
        *("where=$.a", "or=(a.eq.1)", 'a."=eq.1', "a=eq.%00", "%FF=eq.1", "a=eq.%ED%A0%80"),
    ],
)
def test_bad_queries_are_refused(client: httpx2.Client, collection: str, query: str) -> None:
    """A query that is not understood is 400 and says why."""
    answer = client.get(f"/v1/data/{collection}?{query}")
    assert answer.status_code == 400, answer.text
    assert answer.json()["code"] == "invalid-query"
    assert len(answer.json()["detail"]) > 10


def test_foreign_cursors_are_refused(client: httpx2.Client, collection: str) -> None:
    """A cursor works with the query that it came from, unchanged, and with nothing else."""
    fill(client, collection, *range(3))
    path = f"/v1/data/{collection}"
    link = client.get(path, params={"limit": 1, "a": "neq.1"}).json()["next"]
    cursor = link.split("cursor=")[1]
    assert client.get(link).status_code == 200
    for other in (
        f"{path}?cursor={cursor}",
        f"{path}?a=neq.2&cursor={cursor}",
        f"{path}?a=neq.1&order=$version&cursor={cursor}",
        f"/data?a=neq.1&cursor={cursor}",
        f"{path}?a=neq.1&cursor={cursor[:-1]}",
        f"{path}?a=neq.1&cursor=x",
    ):
        answer = client.get(other)
        assert (answer.status_code, answer.json()["code"]) == (400, "cursor-mismatch"), other


def test_large_pages_end_early(serve: Any) -> None:
    """A page stops at MAX_PAGE_BYTES; `next` goes on, and nothing is missing."""
    with serve(max_page_bytes=2000).client() as client:
        for number in range(10):
            client.put(f"/data/{number}", json="x" * 900)
        page = client.get("/data").json()
        assert len(page["items"]) == 3
        assert [item["id"] for item in walk(client, "/data")] == [str(n) for n in range(10)]


async def test_each_document_once_while_others_write(service: Running, collection: str) -> None:
    """Documents that exist throughout appear exactly once, whatever is written meanwhile."""
    path = f"/v1/data/{collection}"
    async with service.async_client() as client:
        stable = [f"s{number:03}" for number in range(200)]
        stored = await asyncio.gather(
            *(client.put(f"{path}/{id_}", json={"rank": int(id_[1:]) % 7}) for id_ in stable)
        )
        assert {answer.status_code for answer in stored} == {201}
        done = asyncio.Event()
        chance = random.Random(4)

        async def write() -> None:
            for number in itertools.count():
                if done.is_set():
                    return
                id_ = f"{chance.choice('aqz')}{chance.randrange(50)}"
                if number % 3:
                    await client.put(f"{path}/{id_}", json={"rank": chance.randrange(7)})
                else:
                    await client.delete(f"{path}/{id_}")

        writers = [asyncio.create_task(write()) for _ in range(4)]
        for order in ("$id", "$id.desc", "rank", "rank.desc,$id.desc", "$created_at"):
            found: list[str] = []
            link: str | None = f"{path}?limit=17&order={order}"
            while link:
                page = (await client.get(link)).json()
                found += [item["id"] for item in page["items"]]
                link = page["next"]
            assert sorted(id_ for id_ in found if id_.startswith("s")) == stable, order
        done.set()
        await asyncio.gather(*writers)
