"""Imports and exports: real files go in and come out equal, in chunks that are all or nothing."""

import gzip
import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import httpx2
import psutil
import pytest
import vega_datasets

from answers import exact
from conftest import Serve
from service import Running, lines_of, through

NODE_MODULES = Path(__file__).parent / "node_modules"
NDJSON = {"Content-Type": "application/x-ndjson"}


def npm(*parts: str) -> Path:
    """Return a file of an npm package."""
    path = NODE_MODULES.joinpath(*parts)
    if not path.exists():
        pytest.skip("needs `npm install --prefix tests`")
    return path


PACKAGED = sorted((Path(vega_datasets.__file__).parent / "_data").glob("*.json"))
assert len(PACKAGED) == 9


@pytest.mark.parametrize("source", PACKAGED, ids=lambda path: path.stem)
def test_the_packaged_vega_datasets_come_back_equal(
    service: Running, collection: str, source: Path
) -> None:
    """Each JSON set of PyPI's vega_datasets goes in and comes out equal, in the same order."""
    through(service, "import", str(source), "-c", collection)
    found = [exact(line) for line in through(service, "export", "-c", collection).splitlines()]
    assert found == exact(source.read_bytes())


def test_movies_come_back_equal(service: Running, collection: str, tmp_path: Path) -> None:
    """The 3,201 movies of npm's vega-datasets, compressed on the way in and on the way out."""
    movies = exact(npm("vega-datasets", "data", "movies.json").read_bytes())
    source, target = tmp_path / "movies.json.gz", tmp_path / "movies.ndjson.gz"
    source.write_bytes(gzip.compress(json.dumps(movies, default=float, indent=2).encode()))
    through(service, "import", str(source), "-c", collection)
    through(service, "export", str(target), "-c", collection)
    found = [json.loads(line) for line in gzip.decompress(target.read_bytes()).splitlines()]
    assert len(found) == 3201
    assert found == json.loads(gzip.decompress(source.read_bytes()))


@pytest.mark.parametrize("options", [(), ("--whole",)])
def test_what_is_longer_when_it_comes_out_goes_in_again(
    service: Running,
    client: httpx2.Client,
    collection: str,
    tmp_path: Path,
    options: tuple[str, ...],
) -> None:
    """A body of 800 kB is 1.2 MB with the spaces of jsonb, which is more than a body may have."""
    body = b"[" + b",".join([b"1"] * 400_000) + b"]"
    client.put(f"/v1/data/{collection}/a", content=body).raise_for_status()
    path = tmp_path / "backup.ndjson"
    through(service, "export", str(path), "-c", collection, *options)
    through(service, "import", str(path), "-c", f"{collection}-again", *options)
    (found,) = through(service, "export", "-c", f"{collection}-again").splitlines()
    assert json.loads(found) == json.loads(body)


def test_browser_compat_data_comes_back_equal(service: Running, collection: str) -> None:
    """The 15 MB of @mdn/browser-compat-data, a document an entry, by standard input and output."""
    entries = list(features(json.loads(npm("@mdn/browser-compat-data", "data.json").read_bytes())))
    lines = b"".join(json.dumps(entry).encode() + b"\n" for entry in entries)
    assert len(entries) > 15_000
    assert len(lines) > 15_000_000
    through(service, "import", "-", "-c", collection, stdin=lines)
    found = through(service, "export", "-", "-c", collection).splitlines()
    assert [json.loads(line) for line in found] == entries


def features(node: dict[str, Any], *path: str) -> Iterator[dict[str, Any]]:
    """Yield each feature of the compatibility data with the names that lead to it."""
    if "__compat" in node:
        yield {"path": list(path), "compat": node["__compat"]}
    for name, child in node.items():
        if isinstance(child, dict) and not name.startswith("__") and path[:1] != ("browsers",):
            yield from features(child, *path, name)


def test_whole_documents_keep_ids_and_creation(client: httpx2.Client, collection: str) -> None:
    """`view=document` both ways keeps ids and created_at; versions and updated_at are new."""
    path = f"/v1/data/{collection}"
    client.put(f"{path}/a", json={"n": 1})
    client.put(f"{path}/b", json=[None])
    exported = client.get(f"{path}/_export?view=document").content
    copy = f"{path}-copy"
    answer = client.post(f"{copy}/_import?view=document", content=exported, headers=NDJSON)
    assert answer.json() == {"taken": 2, "written": 2}
    for id_ in ("a", "b"):
        before, after = client.get(f"{path}/{id_}").json(), client.get(f"{copy}/{id_}").json()
        for name in ("id", "created_at", "data"):
            assert after[name] == before[name]
        assert after["version"] > before["version"]
        assert after["updated_at"] > before["updated_at"]


@pytest.mark.parametrize(
    ("on_conflict", "status", "expected"),
    [("error", 422, "old"), ("skip", 200, "old"), ("replace", 200, "new")],
)
def test_existing_ids(
    client: httpx2.Client, collection: str, on_conflict: str, status: int, expected: str
) -> None:
    """An id that exists refuses its whole chunk, is skipped, or is replaced."""
    path = f"/v1/data/{collection}"
    old = client.put(f"{path}/b", json="old").json()
    body = lines_of({"id": "a", "data": "new"}, {"id": "b", "data": "new"})
    answer = client.post(
        f"{path}/_import?view=document&on_conflict={on_conflict}", content=body, headers=NDJSON
    )
    assert answer.status_code == status
    now = client.get(f"{path}/b").json()
    assert now["data"] == expected
    assert (now["version"] > old["version"]) == (expected == "new")
    assert client.get(f"{path}/a").status_code == (404 if status == 422 else 200)


@pytest.mark.parametrize("on_conflict", ["error", "skip", "replace"])
def test_an_id_twice_in_one_import(
    client: httpx2.Client, collection: str, on_conflict: str
) -> None:
    """The same id twice is an error, or the first or the last one stays."""
    path = f"/v1/data/{collection}"
    answer = client.post(
        f"{path}/_import?view=document&on_conflict={on_conflict}",
        content=lines_of({"id": "a", "data": 1}, {"id": "a", "data": 2}),
        headers=NDJSON,
    )
    expected = {"error": None, "skip": 1, "replace": 2}[on_conflict]
    assert (answer.status_code == 422) == (expected is None)
    assert client.get(f"{path}/a").json().get("data") == expected


def test_the_first_bad_chunk_ends_an_import(client: httpx2.Client, collection: str) -> None:
    """Chunks before the bad one are stored, it is not; the answer says where to resume."""
    path = f"/v1/data/{collection}"
    good = [{"n": number} for number in range(700)]
    body = lines_of(*good) + b'\n{"n":\n"\\u0000"\n' + lines_of(*good)
    answer = client.post(f"{path}/_import", content=body, headers=NDJSON)
    said = answer.json()
    assert (answer.status_code, said["code"]) == (422, "import-failed")
    assert said["taken"] == said["written"] == 500
    assert said["line"] == 501
    assert [(fault["line"], fault["code"]) for fault in said["errors"]] == [
        (702, "malformed-json"),
        (703, "unrepresentable-json"),
    ]
    assert len(client.get(f"{path}?limit=1000").json()["items"]) == 500


@pytest.mark.parametrize(
    "line",
    [
        *(b"1", b"{}", b'{"id":"a"}', b'{"data":1}', b'{"id":"_a","data":1}', b'{"id":1,"data":1}'),
        *(b'{"id":"a","data":1,"created_at":"yesterday"}', b'{"id":"a","data":1}x'),
        b'{"id":"a","data":1,"created_at":"2024-01-01T00:00:00"}',
    ],
)
def test_what_is_not_a_whole_document(client: httpx2.Client, collection: str, line: bytes) -> None:
    """A line that is not a whole document with a good id is refused."""
    path = f"/v1/data/{collection}"
    answer = client.post(f"{path}/_import?view=document", content=line, headers=NDJSON)
    assert (answer.status_code, answer.json()["line"]) == (422, 1), answer.text
    assert client.get(path).json()["items"] == []


def test_exports_filter_and_order(client: httpx2.Client, collection: str) -> None:
    """An export takes the same query as a list, but has no pages."""
    path = f"/v1/data/{collection}"
    client.post(f"{path}/_import", content=lines_of(*({"n": n} for n in range(9))), headers=NDJSON)
    found = client.get(f"{path}/_export?n=gt.5&order=n.desc").text
    assert found == '{"n": 8}\n{"n": 7}\n{"n": 6}\n'
    assert client.get(f"{path}/_export?limit=1").status_code == 400
    assert client.get(f"{path}/_export?n=foo.1").status_code == 400


def test_memory_stays_bounded(serve: Serve) -> None:
    """100 MB in and out again leave the service's memory as it was, give or take 60 MB."""
    running = serve()
    line = b'{"text":"' + b"x" * 10_000 + b'"}\n'
    with running.client() as client:
        client.post("/data/_import", content=line * 100, headers=NDJSON)
        before = resident(running)
        peak = before

        def body() -> Iterator[bytes]:
            nonlocal peak
            for _ in range(100):
                yield line * 100
                peak = max(peak, resident(running))

        assert client.post("/data/_import", content=body(), headers=NDJSON).status_code == 200
        size = 0
        with client.stream("GET", "/data/_export") as answer:
            for part in answer.iter_bytes():
                size += len(part)
                peak = max(peak, resident(running))
    assert size > 100_000_000
    assert peak - before < 60_000_000


def resident(running: Running) -> int:
    """Return the bytes of memory that the service's process holds."""
    return psutil.Process(running.process.pid).memory_info().rss
