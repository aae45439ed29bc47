"""The seed's contract: what /data has answered from the first day, byte for byte where it matters.

A change here breaks clients.
"""

import asyncio
import json
import re
from collections.abc import Iterator
from datetime import datetime
from typing import Any

import httpx2
import pytest

from conftest import Serve
from databases import create_database
from servers import Postgres, Valkey, until

ID = r"[0-9a-f]{8}-[0-9a-f]{4}-7[0-9a-f]{3}-[89ab][0-9a-f]{3}-[0-9a-f]{12}"
TIME = r"\d{4}-\d\d-\d\dT\d\d:\d\d:\d\d\.\d{6}Z"
DOCUMENT = rf'\{{"id":"{ID}","version":\d+,"created_at":"{TIME}","updated_at":"{TIME}","data":'


@pytest.fixture
def seeded(serve: Serve, postgres: Postgres, valkey: Valkey) -> Iterator[httpx2.Client]:
    """The service as the seed describes it: PostgreSQL, and Redis in front of it."""
    name = asyncio.run(create_database(postgres))
    running = serve(database_url=postgres.database(name), redis_url=valkey.url)
    with running.client() as client:
        until(lambda: client.get("/health").json()["status"] == "ok", "the cache is not used")
        yield client


def test_the_first_hour(seeded: httpx2.Client) -> None:
    """An empty list, a document made, found in the list and by its path, exactly as written."""
    assert seeded.get("/data").content == b'{"items":[],"next":null}'
    created = seeded.post("/data", content=b'{"name": "x", "n": [1, 2.50]}')
    assert created.status_code == 201
    assert re.fullmatch(DOCUMENT + r'\{"n":\s?\[1,\s?2\.50\],\s?"name":\s?"x"\}\}', created.text)
    body = created.json()
    assert created.headers["content-type"] == "application/json"
    assert created.headers["location"] == f"/data/{body['id']}"
    assert created.headers["etag"] == f'"{body["version"]}"'
    assert datetime.fromisoformat(body["created_at"]).tzinfo is not None
    listed = seeded.get("/data")
    assert listed.content == b'{"items":[' + created.content + b'],"next":null}'
    assert seeded.get(created.headers["location"]).content == created.content


def test_paths_stay_in_the_family_of_the_request(client: httpx2.Client) -> None:
    """Location and next lead on below /data for who came by /data, and below /v1/data otherwise."""
    for family in ("/data", "/v1/data/default"):
        for _ in range(2):
            location = client.post(family, json=1).headers["location"]
            assert re.fullmatch(f"{family}/{ID}", location)
        page = client.get(family, params={"limit": 1})
        following = page.json()["next"]
        assert following.startswith(f"{family}?limit=1&cursor=")
        assert page.headers["link"] == f'<{following}>; rel="next"'
        assert client.get(following).json()["items"][0]["id"] > page.json()["items"][0]["id"]
        put = client.put(f"{family}/family", json=1)
        if put.status_code == 201:
            assert put.headers["location"] == f"{family}/family"
        refused = client.get(f"{family}/no-such")
        assert refused.json()["instance"] == f"{family}/no-such"
        client.delete(f"{family}/family")


def test_the_list_is_of_items_and_next(client: httpx2.Client) -> None:
    """A list has these two members and no other, and HEAD has its headers without a body."""
    client.post("/data", json={"a": 1})
    page = client.get("/data")
    assert list(page.json()) == ["items", "next"]
    assert all(
        list(item) == ["id", "version", "created_at", "updated_at", "data"]
        for item in page.json()["items"]
    )
    head = client.head("/data")
    assert (head.status_code, head.content) == (200, b"")
    assert head.headers["content-length"] == page.headers["content-length"]


def test_every_resource_of_the_default_collection_is_below_data(client: httpx2.Client) -> None:
    """The document has the same operations at /data and at /v1/data/{collection}."""
    paths = client.get("/openapi.json").json()["paths"]
    short = {
        path.removeprefix("/data"): set(item)
        for path, item in paths.items()
        if path.startswith("/data")
    }
    long = {
        path.removeprefix("/v1/data/{collection}"): set(item)
        for path, item in paths.items()
        if path.startswith("/v1/data/")
    }
    assert short == long
    assert {"", "/{id}", "/_import", "/_export"} <= set(short)


def test_any_json_is_the_data(client: httpx2.Client) -> None:
    """The body is the data itself, of whatever kind; what is no JSON is told apart."""
    values: tuple[Any, ...] = ({"data": 1}, [], "x", 0, None, False, {})
    for value in values:
        answer = client.post("/data", content=json.dumps(value))
        assert answer.json()["data"] == value
    refused = client.post("/data", content=b"{name: 'x'}")
    assert refused.status_code == 400
    assert refused.headers["content-type"] == "application/problem+json"


def test_cache_aside_with_invalidation(seeded: httpx2.Client) -> None:
    """The first read is a miss, the next a hit, and a write is seen by the very next read."""
    location = seeded.post("/data", json={"n": 0}).headers["location"]
    first = seeded.get(location)
    second = seeded.get(location)
    assert first.headers["cache-status"] == "credenza; fwd=uri-miss"
    assert second.headers["cache-status"].startswith("credenza; hit")
    assert second.content == first.content
    for number, write in enumerate((seeded.put, seeded.patch), start=1):
        write(location, json={"n": number}).raise_for_status()
        assert seeded.get(location).json()["data"] == {"n": number}
    seeded.delete(location).raise_for_status()
    assert seeded.get(location).status_code == 404


def test_a_post_is_seen_by_the_next_list(seeded: httpx2.Client) -> None:
    """POST makes every list that was read before it old."""
    for number in range(3):
        assert len(seeded.get("/data").json()["items"]) == number
        seeded.post("/data", json=number).raise_for_status()


def test_what_redis_keeps_ends_within_a_minute(seeded: httpx2.Client, valkey: Valkey) -> None:
    """An entry in Redis lives for 60 s at the most, under a name of ours."""
    location = seeded.post("/data", content=json.dumps("kept")).headers["location"]
    seeded.get(location).raise_for_status()
    id_ = location.rpartition("/")[2].encode()
    with valkey.client() as redis:
        found = [key for key in redis.scan_iter() if id_ in key]
        assert found
        assert all(key.startswith(b"credenza:") for key in found)
        assert all(0 < redis.pttl(key) <= 60_000 for key in found)
