"""One document over HTTP: what is written is what is read, and conditions decide."""

import re
from datetime import datetime
from email.utils import parsedate_to_datetime

import httpx2
import pytest

from answers import exact, problem

MISSING = "/v1/data/{}/nothing"


def test_create_answers_with_the_document_and_where_it_is(client: httpx2.Client) -> None:
    """The seed's POST /data: 201, Location, ETag and the representation, field by field."""
    answer = client.post("/data", json={"name": "x"})
    body = answer.json()
    assert answer.status_code == 201
    assert list(body) == ["id", "version", "created_at", "updated_at", "data"]
    assert body["data"] == {"name": "x"}
    assert answer.headers["location"] == f"/data/{body['id']}"
    assert answer.headers["etag"] == f'"{body["version"]}"'
    assert re.fullmatch(r"\d{4}-\d\d-\d\dT\d\d:\d\d:\d\d\.\d{6}Z", body["created_at"])
    assert body["created_at"] == body["updated_at"]
    assert re.fullmatch(r"[0-9a-f]{8}-[0-9a-f]{4}-7[0-9a-f]{3}-[89ab][0-9a-f]{3}-.{12}", body["id"])


def test_data_is_the_collection_default(client: httpx2.Client) -> None:
    """What is stored below /data is found below /v1/data/default, and the other way round."""
    created = client.post("/data", json=[1]).json()
    assert client.get(f"/v1/data/default/{created['id']}").json() == created
    other = client.post("/v1/data/default", json=[2])
    assert other.headers["location"].startswith("/v1/data/default/")
    assert client.get(f"/data/{other.json()['id']}").json() == other.json()


@pytest.mark.parametrize(
    "text",
    [
        *("null", "true", '""', '"x"', "0", "-0.0", "[]", "{}", '{"":{"":[]}}', "[[],[[]]]"),
        *("9007199254740993", "0.1", "1e400", "-1E-400", "123456789.123456789123456789"),
        *('"\\ud83d\\ude00 \\u0001 \\" \\\\"', '"\u00e9\U0001f600"', '{"a":1,"b":null}'),
    ],
)
def test_any_value_comes_back_equal(client: httpx2.Client, collection: str, text: str) -> None:
    """Numbers are exact, strings whole, structure kept."""
    answer = client.post(f"/v1/data/{collection}", content=text.encode())
    assert answer.status_code == 201
    found = client.get(answer.headers["location"], params={"view": "data"}).text
    assert exact(found) == exact(text)


def test_put_creates_then_replaces(client: httpx2.Client, collection: str) -> None:
    """PUT answers 201 with Location the first time and 200 later; created_at stays."""
    path = f"/v1/data/{collection}/a"
    first = client.put(path, json=1)
    second = client.put(path, json=2)
    assert (first.status_code, second.status_code) == (201, 200)
    assert first.headers["location"] == path
    assert "location" not in second.headers
    assert second.json()["version"] > first.json()["version"]
    assert second.json()["created_at"] == first.json()["created_at"]
    assert second.json()["updated_at"] > first.json()["updated_at"]
    assert client.get(path).json() == second.json()


def test_patch_merges(client: httpx2.Client, collection: str) -> None:
    """A merge patch changes, adds and removes members (RFC 7396)."""
    path = f"/v1/data/{collection}/a"
    client.put(path, json={"a": 1, "b": {"c": 2, "d": 3}})
    answer = client.patch(
        path,
        content=b'{"a":null,"b":{"c":9007199254740993}}',
        headers={"Content-Type": "application/merge-patch+json"},
    )
    assert answer.status_code == 200
    assert answer.json()["data"] == {"b": {"c": 9007199254740993, "d": 3}}
    assert client.patch(path, json=[1]).json()["data"] == [1]


def test_delete_then_absent_then_again(client: httpx2.Client, collection: str) -> None:
    """DELETE is 204, a second one 404; a re-created document has a higher version."""
    path = f"/v1/data/{collection}/a"
    before = client.put(path, json=1).json()
    assert client.delete(path).status_code == 204
    problem(client.get(path), 404, "not-found")
    problem(client.delete(path), 404, "not-found")
    problem(client.patch(path, json={}), 404, "not-found")
    after = client.put(path, json=1)
    assert after.status_code == 201
    assert after.json()["version"] > before["version"]
    assert after.json()["created_at"] > before["created_at"]


def test_head_is_get_without_the_body(client: httpx2.Client, collection: str) -> None:
    """HEAD gives the same headers, on documents and on lists."""
    path = f"/v1/data/{collection}/a"
    client.put(path, json={"a": "b"})
    for target in (path, f"/v1/data/{collection}"):
        whole, head = client.get(target), client.head(target)
        assert head.status_code == 200
        assert head.content == b""
        for name in ("content-length", "content-type", "etag", "cache-control", "last-modified"):
            assert head.headers.get(name) == whole.headers.get(name)
    assert client.head(MISSING.format(collection)).status_code == 404


@pytest.mark.parametrize(
    ("prefer", "is_minimal"),
    [
        ('return="minimal"', True),
        ("return=minimal; wait=1", True),
        ("Return = minimal", True),
        ("return=minimal, return=representation", True),
        ('x="a, b", respond-async, return=minimal', True),
        ("return=representation, return=minimal", False),
        ("return, return=minimal", False),
        ('x="a, return=minimal"', False),
        ('x="\\", return=minimal"', False),
        ("wait=1; return=minimal", False),
        ("return=minimalist", False),
        ("no-return=minimal", False),
    ],
)
def test_preferences_are_parsed(
    client: httpx2.Client, collection: str, prefer: str, *, is_minimal: bool
) -> None:
    """The header is a list of preferences of which the first of a name counts (RFC 7240 §2)."""
    path = f"/v1/data/{collection}/a"
    client.put(path, json=1)
    answer = client.put(path, json=2, headers={"Prefer": prefer})
    assert answer.status_code == (204 if is_minimal else 200)
    assert ("preference-applied" in answer.headers) == is_minimal


def test_bare_values_and_minimal_answers(client: httpx2.Client, collection: str) -> None:
    """`view=data` leaves the metadata out, `Prefer: return=minimal` the whole document."""
    path = f"/v1/data/{collection}/a"
    assert client.put(path, params={"view": "data"}, json={"a": 1}).json() == {"a": 1}
    assert client.get(path, params={"view": "data"}).json() == {"a": 1}
    minimal = client.put(path, json=2, headers={"Prefer": "return=minimal"})
    assert (minimal.status_code, minimal.content) == (204, b"")
    assert minimal.headers["preference-applied"] == "return=minimal"
    assert minimal.headers["etag"] == client.get(path).headers["etag"]
    created = client.post(f"/v1/data/{collection}", json=1, headers={"Prefer": "return=minimal"})
    assert (created.status_code, created.content) == (201, b"")
    problem(client.get(path, params={"view": "x"}), 400, "invalid-query")


class TestConditions:
    """Conditional requests (RFC 9110 §13)."""

    def test_unchanged_is_304(self, client: httpx2.Client, collection: str) -> None:
        """If-None-Match with the current tag, strong or weak, in a list or `*`, is 304."""
        path = f"/v1/data/{collection}/a"
        tag = client.put(path, json=1).headers["etag"]
        for header in (tag, f"W/{tag}", f'"x", {tag}', "*"):
            answer = client.get(path, headers={"If-None-Match": header})
            assert answer.status_code == 304
            assert answer.content == b""
            assert answer.headers["etag"] == tag
        assert client.get(path, headers={"If-None-Match": '"1"'}).status_code == 200
        late = {"If-Modified-Since": client.get(path).headers["last-modified"]}
        assert client.get(path, headers=late).status_code == 304

    def test_if_match_decides_writes(self, client: httpx2.Client, collection: str) -> None:
        """A stale If-Match is 412 with what is stored; a current one passes once."""
        path = f"/v1/data/{collection}/a"
        old = client.put(path, json=1).headers["etag"]
        new = client.put(path, json=2, headers={"If-Match": old}).headers["etag"]
        for method in ("PUT", "PATCH", "DELETE"):
            answer = client.request(method, path, json={}, headers={"If-Match": old})
            body = problem(answer, 412, "precondition-failed")
            assert body["current"] == client.get(path).json()
        weak = client.put(path, json=3, headers={"If-Match": f"W/{new}"})
        problem(weak, 412, "precondition-failed")
        assert client.put(path, json=3, headers={"If-Match": f'"7", {new}'}).status_code == 200
        assert client.delete(path, headers={"If-Match": "*"}).status_code == 204

    def test_missing_documents(self, client: httpx2.Client, collection: str) -> None:
        """With If-Match a missing document is 412 for PUT and 404 for all others."""
        client.put(f"/v1/data/{collection}/other", json=1)
        path = MISSING.format(collection)
        given = {"If-Match": '"1"'}
        problem(client.put(path, json=1, headers=given), 412, "precondition-failed")
        for method in ("GET", "PATCH", "DELETE"):
            problem(client.request(method, path, json={}, headers=given), 404, "not-found")
        problem(client.get(path), 404, "not-found")

    def test_create_only(self, client: httpx2.Client, collection: str) -> None:
        """If-None-Match: * writes only where nothing is."""
        path = f"/v1/data/{collection}/a"
        given = {"If-None-Match": "*"}
        assert client.put(path, json=1, headers=given).status_code == 201
        problem(client.put(path, json=2, headers=given), 412, "precondition-failed")
        client.delete(path)
        assert client.put(path, json=3, headers=given).status_code == 201

    def test_unmodified_since(self, client: httpx2.Client, collection: str) -> None:
        """If-Unmodified-Since before the last change is 412; If-Match wins over it."""
        path = f"/v1/data/{collection}/a"
        current = client.put(path, json=1)
        long_ago = {"If-Unmodified-Since": "Mon, 01 Jan 2024 00:00:00 GMT"}
        problem(client.put(path, json=2, headers=long_ago), 412, "precondition-failed")
        problem(client.delete(path, headers=long_ago), 412, "precondition-failed")
        problem(client.get(path, headers=long_ago), 412, "precondition-failed")
        both = long_ago | {"If-Match": current.headers["etag"]}
        assert client.put(path, json=2, headers=both).status_code == 200

    @pytest.mark.parametrize(
        "date",
        [
            *("Fri, 31 Dec 9999 23:59:59 GMT", "Fri, 31 Dec 9999 23:59:58 -1400", "yesterday"),
            "Mon, 01 Jan 2024 00:00:00 +99999999999999999999",
        ],
    )
    def test_odd_dates_say_nothing(self, client: httpx2.Client, collection: str, date: str) -> None:
        """A date that cannot be counted with is as good as none (RFC 9110 §13.1.3)."""
        path, given = f"/v1/data/{collection}/a", {"If-Unmodified-Since": date}
        client.put(path, json=1)
        assert client.get(path, headers={"If-Modified-Since": date}).status_code == 200
        assert client.get(path, headers=given).status_code == 200
        assert client.put(path, json=2, headers=given).status_code == 200
        assert client.patch(path, json=3, headers=given).status_code == 200
        assert client.delete(path, headers=given).status_code == 204

    def test_both_lists_decide(self, client: httpx2.Client, collection: str) -> None:
        """If-Match and If-None-Match have both to hold; empty elements mean nothing."""
        path = f"/v1/data/{collection}/a"
        tag = client.put(path, json=1).headers["etag"]
        for given in (
            {"If-Match": "*", "If-None-Match": tag},
            {"If-Match": tag, "If-None-Match": f'"1", {tag}'},
            {"If-Match": tag, "If-None-Match": "*"},
        ):
            problem(client.put(path, json=2, headers=given), 412, "precondition-failed")
            problem(client.patch(path, json=2, headers=given), 412, "precondition-failed")
            problem(client.delete(path, headers=given), 412, "precondition-failed")
        assert client.get(path, headers={"If-None-Match": f', "1",, {tag} ,'}).status_code == 304
        given = {"If-Match": f'"1",,{tag},', "If-None-Match": '"1"'}
        assert client.put(path, json=2, headers=given).status_code == 200

    @pytest.mark.parametrize("header", ['"a', "a", '"1" "2"', '"1";'])
    def test_broken_lists_are_refused(
        self, client: httpx2.Client, collection: str, header: str
    ) -> None:
        """A list of tags that cannot be parsed decides nothing: 400, and nothing is written."""
        path = f"/v1/data/{collection}/a"
        answer = client.put(path, json=1, headers={"If-Match": header})
        problem(answer, 400, "invalid-header")
        problem(client.get(path), 404, "not-found")


@pytest.mark.parametrize(
    "id_", ["_a", "%00", "a b", "a%2F..%2Fb", "é", "a" * 129, "a%0A", "%FF", "+", "a;b", "*"]
)
def test_odd_ids_are_refused(client: httpx2.Client, collection: str, id_: str) -> None:
    """Ids that clients, proxies or shells would change are 400 or lead nowhere, and never 500."""
    answer = client.put(f"/v1/data/{collection}/{id_}", json=1)
    assert answer.status_code in {400, 404}
    assert client.get(f"/v1/data/{collection}").json()["items"] == []


@pytest.mark.parametrize("id_", ["a", ".a", "..a", "-", "~", "a" * 128, "A.b-c_d~e", "0"])
def test_fine_ids_are_taken(client: httpx2.Client, collection: str, id_: str) -> None:
    """All ids of the documented form can be used."""
    assert client.put(f"/v1/data/{collection}/{id_}", json=1).status_code == 201
    assert client.get(f"/v1/data/{collection}/{id_}").json()["id"] == id_


@pytest.mark.parametrize("name", ["_x", "A", "a.b", "a" * 64, "-a", "a%20b"])
def test_odd_collections_are_refused(client: httpx2.Client, name: str) -> None:
    """Names of another form than the documented one are 400."""
    problem(client.put(f"/v1/data/{name}/a", json=1), 400, "invalid-id")
    problem(client.get(f"/v1/data/{name}"), 400, "invalid-id")


def test_refusals_of_the_router_are_problems_too(client: httpx2.Client) -> None:
    """Unknown paths are 404; unknown methods 405 with all that are allowed."""
    problem(client.get("/nowhere"), 404, "not-found")
    refused = client.request("POST", "/data/a", json=1)
    problem(refused, 405, "method-not-allowed")
    assert refused.headers["allow"] == "DELETE, GET, HEAD, PATCH, PUT"
    assert client.delete("/data").headers["allow"] == "GET, HEAD, POST"


def test_media_types(client: httpx2.Client, collection: str) -> None:
    """A body of another type is 415, for PATCH with the types that are taken."""
    path = f"/v1/data/{collection}/a"
    client.put(path, json=1)
    odd = {"Content-Type": "application/xml"}
    problem(client.put(path, content=b"1", headers=odd), 415, "unsupported-media-type")
    refused = client.patch(path, content=b"1", headers=odd)
    problem(refused, 415, "unsupported-media-type")
    assert "application/merge-patch+json" in refused.headers["accept-patch"]


def test_versions_order_the_writes_of_a_document(client: httpx2.Client, collection: str) -> None:
    """Each write has a higher version than the one before, also after a deletion."""
    path = f"/v1/data/{collection}/a"
    versions = []
    for number in range(20):
        versions.append(client.put(path, json=number).json()["version"])
        if number % 5 == 0:
            client.delete(path)
    assert versions == sorted(set(versions))
    assert max(versions) < 2**53


def test_times_are_of_now(client: httpx2.Client, collection: str) -> None:
    """Last-Modified is updated_at in whole seconds."""
    answer = client.post(f"/v1/data/{collection}", json=1)
    updated = datetime.fromisoformat(answer.json()["updated_at"])
    assert parsedate_to_datetime(answer.headers["last-modified"]) == updated.replace(microsecond=0)


def test_the_cache_says_what_it_did(client: httpx2.Client, collection: str) -> None:
    """Cache-Status (RFC 9211) tells a miss from a hit, which has at most a minute to live."""
    path = f"/v1/data/{collection}/a"
    client.put(path, json=1)
    assert client.get(path).headers["cache-status"] == "credenza; fwd=uri-miss"
    hit = re.fullmatch(r"credenza; hit; ttl=(\d+)", client.get(path).headers["cache-status"])
    assert hit is not None
    assert 0 < int(hit[1]) < 60
    client.put(path, json=2)
    again = client.get(path)
    assert (again.json()["data"], again.headers["cache-status"][:13]) == (2, "credenza; hit")
