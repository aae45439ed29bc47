"""Collections: their list, their settings, what the settings change, and their end."""

import asyncio
import re
from typing import Any

import httpx2
import pytest

from answers import problem
from credenza import __version__
from service import Running

DEFAULTS: dict[str, Any] = {
    "cache_ttl": None,
    "http_max_age": None,
    "require_if_match": False,
    "indexes": [],
}


@pytest.fixture
def path(collection: str) -> str:
    """The path of a collection that does not exist yet."""
    return f"/v1/collections/{collection}"


def test_the_service_document(client: httpx2.Client) -> None:
    """GET /v1 names the version, links that lead somewhere, and the limits."""
    document = client.get("/v1").json()
    assert document["version"] == __version__
    assert document["limits"]["max_limit"] == 1000
    assert {"documents", "collections", "openapi", "docs", "health"} <= set(document["links"])
    for link in document["links"].values():
        assert client.get(link).status_code == 200, link


def test_a_collection_exists_from_its_first_document_on(
    client: httpx2.Client, collection: str, path: str
) -> None:
    """A read makes nothing; a write makes the collection with default settings."""
    assert client.get(f"/v1/data/{collection}").json() == {"items": [], "next": None}
    problem(client.get(path), 404, "not-found")
    client.post(f"/v1/data/{collection}", json=1).raise_for_status()
    found = client.get(path)
    assert list(found.json()) == ["name", "version", "created_at", "updated_at", "settings"]
    assert found.json()["name"] == collection
    assert found.json()["settings"] == DEFAULTS
    assert found.headers["etag"] == f'"{found.json()["version"]}"'
    assert "last-modified" in found.headers


def test_put_makes_and_replaces(client: httpx2.Client, path: str) -> None:
    """PUT answers 201 then 200; what it does not name is the default again."""
    made = client.put(path, json={"http_max_age": 60, "require_if_match": True})
    assert made.status_code == 201
    assert made.json()["settings"] == DEFAULTS | {"http_max_age": 60, "require_if_match": True}
    replaced = client.put(path, json={"cache_ttl": 1.5})
    assert replaced.status_code == 200
    assert replaced.json()["settings"] == DEFAULTS | {"cache_ttl": 1.5}
    assert replaced.json()["version"] > made.json()["version"]
    assert replaced.json()["created_at"] == made.json()["created_at"]
    assert client.get(path).json() == replaced.json()


def test_patch_merges(client: httpx2.Client, path: str) -> None:
    """PATCH changes what it names, and null is the default again."""
    problem(client.patch(path, json={}), 404, "not-found")
    client.put(path, json={"cache_ttl": 5, "http_max_age": 7})
    answer = client.patch(path, json={"http_max_age": 8.0, "cache_ttl": None})
    assert answer.json()["settings"] == DEFAULTS | {"http_max_age": 8}
    assert client.get(path).json() == answer.json()
    merge = {"Content-Type": "application/merge-patch+json"}
    assert client.patch(path, content=b"{}", headers=merge).status_code == 200
    wrong = client.patch(path, content=b"[]", headers={"Content-Type": "text/plain"})
    problem(wrong, 415, "unsupported-media-type")
    assert "application/merge-patch+json" in wrong.headers["accept-patch"]


@pytest.mark.parametrize(
    ("settings", "pointers"),
    [
        ({"colour": 1}, ["/colour"]),
        ({"a/b~c": 1}, ["/a~1b~0c"]),
        ({"cache_ttl": 61, "http_max_age": -1}, ["/cache_ttl", "/http_max_age"]),
        ({"cache_ttl": 0}, ["/cache_ttl"]),
        ({"cache_ttl": "60"}, ["/cache_ttl"]),
        ({"http_max_age": 1.5}, ["/http_max_age"]),
        ({"require_if_match": 1}, ["/require_if_match"]),
        ([], [""]),
    ],
)
def test_settings_that_are_not_acceptable(
    client: httpx2.Client, path: str, settings: Any, pointers: list[str]
) -> None:
    """Unknown names, other types, values out of range: 422, pointed at, and nothing changes."""
    body = problem(client.put(path, json=settings), 422, "unprocessable")
    assert [error["pointer"] for error in body["errors"]] == pointers
    assert all(error["detail"] for error in body["errors"])
    problem(client.get(path), 404, "not-found")
    before = client.put(path, json={}).json()
    problem(client.patch(path, json=settings), 422, "unprocessable")
    stale = {"If-Match": '"1"'}
    problem(client.patch(path, json=settings, headers=stale), 422, "unprocessable")
    assert client.get(path).json() == before


@pytest.mark.parametrize("name", ["_x", "A", "a.b", "a" * 64, "-a", "a%20b"])
def test_names_that_are_not_acceptable(client: httpx2.Client, name: str) -> None:
    """A collection's name has a closed alphabet, and those with `_` are reserved."""
    for method in ("GET", "PUT", "PATCH", "DELETE"):
        answer = client.request(method, f"/v1/collections/{name}", json={})
        problem(answer, 400, "invalid-id")


def test_pages_by_name(client: httpx2.Client, collection: str) -> None:
    """The list is in the order of the names; `next` and Link lead on; each is there once."""
    names = [f"{collection}-{letter}" for letter in "abcde"]
    for name in names:
        client.put(f"/v1/collections/{name}", json={}).raise_for_status()
    found, link = [], f"/v1/collections?limit=2&after={collection}-"
    while link:
        page = client.get(link)
        assert len(page.json()["items"]) <= 2
        found += [item["name"] for item in page.json()["items"]]
        link = page.json()["next"]
        assert page.headers.get("link") == (f'<{link}>; rel="next"' if link else None)
    assert [name for name in found if name.startswith(f"{collection}-")] == names
    assert found == sorted(set(found))


@pytest.mark.parametrize(
    "query", ["limit=0", "limit=1001", "limit=x", "limit=00000000100000", "limit=", "after=A"]
)
def test_pages_that_cannot_be(client: httpx2.Client, query: str) -> None:
    """A limit out of range and what is no name are refused, not bent."""
    problem(client.get(f"/v1/collections?{query}"), 400, "invalid-query")


def test_conditions(client: httpx2.Client, path: str) -> None:
    """If-Match and If-None-Match decide on settings as they do on documents; a GET can be 304."""
    problem(client.put(path, json={}, headers={"If-Match": "*"}), 412, "precondition-failed")
    first = client.put(path, json={}, headers={"If-None-Match": "*"})
    assert first.status_code == 201
    etag = {"If-Match": first.headers["etag"]}
    again = client.put(path, json={}, headers={"If-None-Match": "*"})
    assert problem(again, 412, "precondition-failed")["current"] == first.json()
    second = client.put(path, json={"cache_ttl": 2}, headers=etag)
    assert second.status_code == 200
    for method in ("PUT", "PATCH", "DELETE"):
        refused = client.request(method, path, json={}, headers=etag)
        assert problem(refused, 412, "precondition-failed")["current"] == second.json()
    known = {"If-None-Match": second.headers["etag"]}
    unchanged = client.get(path, headers=known)
    assert (unchanged.status_code, unchanged.content) == (304, b"")
    assert unchanged.headers["etag"] == second.headers["etag"]
    third = client.patch(path, json={}, headers={"If-Match": second.headers["etag"]})
    assert third.status_code == 200
    assert client.get(path, headers=known).status_code == 200


def test_a_head_is_checked_whole(client: httpx2.Client, path: str) -> None:
    """A header that cannot be understood is 400, also beside a condition that does not hold."""
    client.put(path, json={})
    headers = {"If-Match": '"1"', "If-None-Match": "0"}
    problem(client.get(path, headers=headers), 400, "invalid-header")


def test_require_if_match(client: httpx2.Client, collection: str, path: str) -> None:
    """Where the collection asks for If-Match, writes to what exists are 428 without it."""
    client.put(path, json={"require_if_match": True})
    document = f"/v1/data/{collection}/a"
    created = client.put(document, json={"n": 0})
    assert created.status_code == 201
    assert client.post(f"/v1/data/{collection}", json=1).status_code == 201
    for method in ("PUT", "PATCH", "DELETE"):
        answer = client.request(method, document, json={"n": 1})
        problem(answer, 428, "precondition-required")
    assert client.get(document).json() == created.json()
    changed = client.put(document, json=2, headers={"If-Match": created.headers["etag"]})
    assert changed.status_code == 200
    client.patch(path, json={"require_if_match": False})
    assert client.delete(document).status_code == 204


def test_http_max_age(client: httpx2.Client, collection: str, path: str) -> None:
    """Browsers and CDNs may keep a document as long as the collection says; by default they ask."""
    document = f"/v1/data/{collection}/a"
    client.put(document, json=1)
    assert client.get(document).headers["cache-control"] == "private, no-cache"
    client.put(path, json={"http_max_age": 30})
    answer = client.get(document)
    assert answer.headers["cache-control"] == "public, max-age=30, s-maxage=30"
    unchanged = client.get(document, headers={"If-None-Match": answer.headers["etag"]})
    assert unchanged.status_code == 304
    assert unchanged.headers["cache-control"] == answer.headers["cache-control"]
    client.put(path, json={"http_max_age": 0})
    assert client.get(document).headers["cache-control"] == "private, no-cache"


def test_cache_ttl(client: httpx2.Client, collection: str, path: str) -> None:
    """A collection's documents are kept as long as it says, where it says less than the service."""
    document = f"/v1/data/{collection}/a"
    client.put(document, json=1)
    assert 5 < _ttl(client, document) <= 60
    client.put(path, json={"cache_ttl": 5})
    client.put(document, json=2)
    assert 0 <= _ttl(client, document) <= 5


def _ttl(client: httpx2.Client, document: str) -> int:
    """Read twice and return the seconds that the entry has left (RFC 9211 §2.4)."""
    client.get(document)
    found = re.fullmatch(r"credenza; hit; ttl=(\d+)", client.get(document).headers["cache-status"])
    assert found
    return int(found[1])


def test_deletion_needs_a_condition(client: httpx2.Client, path: str) -> None:
    """DELETE without If-Match is 428, with an old one 412, of nothing 404; all delete nothing."""
    problem(client.delete(path), 428, "precondition-required")
    problem(client.delete(path, headers={"If-Match": "*"}), 404, "not-found")
    client.put(path, json={})
    problem(client.delete(path), 428, "precondition-required")
    problem(client.delete(path, headers={"If-Match": '"1"'}), 412, "precondition-failed")
    assert client.get(path).status_code == 200


def test_deletion_takes_the_documents_at_once(
    client: httpx2.Client, collection: str, path: str
) -> None:
    """After DELETE nothing of it is found, cached or not; made again it is empty and new."""
    documents = [f"/v1/data/{collection}/{number}" for number in range(20)]
    for document in documents:
        client.put(document, json=1).raise_for_status()
        client.get(document).raise_for_status()
    before = client.get(path)
    assert client.delete(path, headers={"If-Match": before.headers["etag"]}).status_code == 204
    problem(client.get(path), 404, "not-found")
    for document in documents:
        problem(client.get(document), 404, "not-found")
    assert client.get(f"/v1/data/{collection}").json()["items"] == []
    assert collection not in [
        item["name"] for item in client.get("/v1/collections?limit=1000").json()["items"]
    ]
    again = client.put(path, json={})
    assert again.status_code == 201
    assert again.json()["version"] > before.json()["version"]
    assert client.get(f"/v1/data/{collection}").json()["items"] == []
    for document in documents:
        problem(client.get(document), 404, "not-found")
    client.put(documents[0], json=2)
    assert [item["data"] for item in client.get(f"/v1/data/{collection}").json()["items"]] == [2]


def test_methods(client: httpx2.Client, path: str) -> None:
    """Other methods are 405, and Allow names those that there are."""
    answer = client.post(path, json={})
    problem(answer, 405, "method-not-allowed")
    assert answer.headers["allow"] == "DELETE, GET, HEAD, PATCH, PUT"
    assert client.post("/v1/collections").headers["allow"] == "GET, HEAD"
    for reserved, allowed in (("_export", "GET"), ("_import", "POST")):
        answer = client.put(f"/data/{reserved}", json=1)
        problem(answer, 405, "method-not-allowed")
        assert answer.headers["allow"] == allowed


async def test_if_match_is_required_where_it_is_written(service: Running, collection: str) -> None:
    """Of parallel PUTs without If-Match one creates, and none replaces what that has stored."""
    async with service.async_client() as many:
        await many.put(f"/v1/collections/{collection}", json={"require_if_match": True})
        for id_ in "abcdefgh":
            path = f"/v1/data/{collection}/{id_}"
            answers = await asyncio.gather(*(many.put(path, json=n) for n in range(8)))
            codes = sorted(answer.status_code for answer in answers)
            assert codes == [201] + [428] * 7
            for method in ("DELETE", "PATCH"):
                refused = await many.request(method, path, json={})
                assert (refused.status_code, refused.json()["code"]) == (
                    428,
                    "precondition-required",
                )
                missing = await many.request(method, f"{path}-not", json={})
                assert missing.status_code == 404
