"""`credenza import` and `export`: what files are to them, and what they say of faults."""

import asyncio
import gzip
import json
import os
import random
import socket
import subprocess
import sys
from pathlib import Path

import pytest

from conftest import Serve
from credenza.cli import app
from databases import create_migrated
from servers import Postgres
from service import Running, environment, lines_of, run, through


def test_without_a_service_the_home_is_used(folder: Path) -> None:
    """Import and export start the home's database themselves and leave it stopped."""
    home, source = folder / "home", folder / "in.json"
    source.write_text('[1,\n {"a":\n"b"}, "x"]')
    done = run("import", str(source), credenza_home=home)
    assert done.returncode == 0, done.stderr.decode()
    assert b"3 documents written from 3 lines" in done.stderr
    found = run("export", credenza_home=home).stdout.splitlines()
    assert [json.loads(line) for line in found] == [1, {"a": "b"}, "x"]


def test_a_bad_line_is_named_and_an_import_resumed(
    service: Running, collection: str, tmp_path: Path
) -> None:
    """The message names line and place; --from-line takes up where it stopped."""
    source = tmp_path / "in.ndjson"
    source.write_bytes(lines_of(*range(500)) + b"[1\n" + lines_of(*range(3)))
    home = service.settings["credenza_home"]
    done = run("import", str(source), "-c", collection, credenza_home=home)
    assert done.returncode == 1
    assert b"line 501:" in done.stderr
    assert b"resume with --from-line 501" in done.stderr
    source.write_bytes(lines_of(*range(500)) + b"[1]\n" + lines_of(*range(3)))
    arguments = ("import", str(source), "-c", collection, "--from-line", "501")
    assert run(*arguments, credenza_home=home).returncode == 0
    with service.client() as client:
        assert len(client.get(f"/v1/data/{collection}?limit=1000").json()["items"]) == 504


@pytest.mark.parametrize("text", ["[1,", "[1,]", "[1] 2", '{"a":', "[1 2]"])
def test_broken_files_are_refused(
    service: Running, collection: str, tmp_path: Path, text: str
) -> None:
    """A file that is neither NDJSON nor one array is an error, on one line."""
    source = tmp_path / "in.json"
    source.write_text(text)
    home = service.settings["credenza_home"]
    done = run("import", str(source), "-c", collection, credenza_home=home)
    assert done.returncode == 1
    assert b"credenza: " in done.stderr
    assert b"Traceback" not in done.stderr


def test_other_mistakes_are_one_line(service: Running, tmp_path: Path) -> None:
    """A missing file, a bad name and a service that is not there say so."""
    home = service.settings["credenza_home"]
    for arguments in (
        ("import", str(tmp_path / "nothing")),
        ("import", os.devnull, "-c", "_x"),
        ("export", "--url", "http://127.0.0.1:9"),
        ("export", str(tmp_path / "no" / "folder")),
    ):
        done = run(*arguments, credenza_home=home)
        assert done.returncode != 0, arguments
        assert b"Traceback" not in done.stderr, done.stderr.decode()
    assert list(tmp_path.iterdir()) == []


def test_seed_can_be_repeated(service: Running) -> None:
    """The sample set is there after the first time and the same after the second."""
    through(service, "seed")
    with service.client() as client:
        first = client.get("/v1/data/mountains").json()
        through(service, "seed")
        assert client.get("/v1/data/mountains").json() == first
        assert len(first["items"]) == 12


ARRAYS = b'[1, 2]\n[]\n[{"a": [null]}]\n"x"\n[3]\n'


@pytest.mark.parametrize("name", ["out.ndjson", "out.jsonl.gz", "-"])
def test_documents_that_are_arrays_come_back(
    service: Running, collection: str, tmp_path: Path, name: str
) -> None:
    """Lines that are arrays are a document each: an export goes in again and comes out the same."""
    with service.client() as client:
        path = f"/v1/data/{collection}/_import"
        headers = {"Content-Type": "application/x-ndjson"}
        assert client.post(path, content=ARRAYS, headers=headers).json()["written"] == 5
    file = name if name == "-" else str(tmp_path / name)
    exported = through(service, "export", file, "-c", collection)
    through(service, "import", file, "-c", f"{collection}-copy", stdin=exported)
    assert through(service, "export", "-c", f"{collection}-copy") == ARRAYS


@pytest.mark.parametrize(
    ("name", "options", "expected"),
    [
        ("in.json", (), [1, [2]]),
        ("in.JSON.gz", (), [1, [2]]),
        ("in.json", ("--format", "lines"), [[1, [2]]]),
        ("in.ndjson", ("--format", "array"), [1, [2]]),
        ("in.ndjson", (), [[1, [2]]]),
        ("-", (), [[1, [2]]]),
        ("-", ("--format", "array"), [1, [2]]),
    ],
)
def test_the_name_or_an_option_says_what_an_array_is(
    service: Running,
    collection: str,
    tmp_path: Path,
    name: str,
    options: tuple[str, ...],
    expected: list[object],
) -> None:
    """A `.json` that begins with a bracket is one array of documents, anything else is lines."""
    text = b" [1, [2]]"
    file = tmp_path / name
    if name != "-":
        file.write_bytes(gzip.compress(text) if name.endswith(".gz") else text)
    source = name if name == "-" else str(file)
    through(service, "import", source, "-c", collection, *options, stdin=text)
    found = through(service, "export", "-c", collection).splitlines()
    assert [json.loads(line) for line in found] == expected


def test_a_json_file_may_be_lines(service: Running, collection: str, tmp_path: Path) -> None:
    """A `.json` that does not begin with a bracket is lines, unless it is said to be an array."""
    source = tmp_path / "in.json"
    source.write_text('{"a": 1}\n[2]\n')
    through(service, "import", str(source), "-c", collection)
    assert through(service, "export", "-c", collection) == b'{"a": 1}\n[2]\n'
    arguments = ("import", str(source), "--format", "array", "-c", collection)
    done = run(*arguments, credenza_home=service.settings["credenza_home"])
    assert done.returncode == 1
    assert b"Expected an array" in done.stderr


@pytest.mark.parametrize("line", ["0", "-2"])
def test_lines_are_counted_from_1(
    service: Running, collection: str, tmp_path: Path, line: str
) -> None:
    """No import begins before the first line: nothing is stored, and the refusal says why."""
    source = tmp_path / "in.ndjson"
    source.write_bytes(lines_of(*range(9)))
    arguments = ("import", str(source), "-c", collection, "--from-line", line)
    done = run(*arguments, credenza_home=service.settings["credenza_home"])
    assert done.returncode != 0
    assert b"Must be >= 1." in done.stderr
    with service.client() as client:
        assert client.get(f"/v1/data/{collection}").json()["items"] == []


WHOLE = lines_of(*(random.Random(line).random() for line in range(700)))
PACKED = gzip.compress(WHOLE)
BROKEN = {
    "long.ndjson": (WHOLE + b'"%s"\n1\n' % (b"x" * 2_200_000), b"more than 2,097,413 bytes"),
    "comma.json": (b"[%s,,1]" % WHOLE.strip().replace(b"\n", b","), b"Item 701 is missing"),
    "cut.ndjson.gz": (PACKED[: len(PACKED) // 2], b"ended before the end-of-stream marker"),
    "damaged.ndjson.gz": (PACKED + PACKED[:10] + b"\xff" * 9, b"invalid block type"),
    "checksum.ndjson.gz": (PACKED[:-8] + b"\0" * 8, b"CRC check failed"),
    "plain.ndjson.gz": (WHOLE, b"Not a gzipped file"),
}
"""Files with a fault that the command finds itself, and what is said of it."""

TAKEN = {"cut.ndjson.gz": (100, 600), "plain.ndjson.gz": (0, 1)}
"""How many lines of them are stored, where it is not each of the 700; after that, too many."""


@pytest.mark.parametrize("name", BROKEN)
def test_what_comes_before_a_fault_of_the_file_is_stored(
    service: Running, collection: str, tmp_path: Path, name: str
) -> None:
    """Where reading ends the command says why, how many lines are stored, and where to resume."""
    source = tmp_path / name
    content, said = BROKEN[name]
    source.write_bytes(content)
    home = service.settings["credenza_home"]
    done = run("import", str(source), "-c", collection, credenza_home=home)
    assert done.returncode == 1
    *_, fault, resume = done.stderr.splitlines()
    assert fault.startswith(b"credenza: %s: " % str(source).encode())
    assert said in fault
    with service.client() as client:
        stored = client.get(f"/v1/data/{collection}/_export").content
    taken = stored.count(b"\n")
    assert resume == b"%d lines were taken; resume with --from-line %d" % (taken, taken + 1)
    assert WHOLE.startswith(stored)
    assert taken in range(*TAKEN.get(name, (700, 701)))


@pytest.mark.parametrize(
    "url", ["http://x:y", "http://[::1", "http://127.0.0.1:65536", "http://127.0.0.1:99999999"]
)
def test_what_is_no_url_is_one_line(url: str) -> None:
    """An address that cannot be one is named, with what is wrong about it."""
    done = run("export", "--url", url)
    assert done.returncode == 1
    assert done.stderr.startswith(b"credenza: %s: " % url.encode())
    assert done.stderr.count(b"\n") == 1


def test_a_service_on_an_address_of_ipv6_is_found(postgres: Postgres, serve: Serve) -> None:
    """HOST=::1 is where the service is asked, as its banner shows it: in brackets."""
    try:
        socket.create_server(("::1", 0), family=socket.AF_INET6).close()
    except OSError:
        pytest.skip("needs a loopback of IPv6")
    url = postgres.database(asyncio.run(create_migrated(postgres)))
    running = serve(host="::1", database_url=url)
    port = int(running.url.rpartition(":")[2])
    assert running.url == f"http://[::1]:{port}"
    done = run("export", "-c", "six", host="::1", port=port, database_url=url)
    assert done.returncode == 0, done.stderr.decode()


@pytest.mark.parametrize("source", ["-", "in"])
def test_what_is_compressed_needs_no_name(
    service: Running, collection: str, tmp_path: Path, source: str
) -> None:
    """Data that gzip has compressed is known by its beginning, from standard input too."""
    packed = gzip.compress(ARRAYS)
    (tmp_path / "in").write_bytes(packed)
    file = source if source == "-" else str(tmp_path / source)
    through(service, "import", file, "-c", collection, stdin=packed)
    assert through(service, "export", "-c", collection) == ARRAYS


@pytest.mark.parametrize("token", ["", "wrong"])
def test_a_refused_token_is_told_whatever_the_size(
    serve: Serve, tmp_path: Path, token: str
) -> None:
    """The service refuses before it has read the body; the command says that, not what broke."""
    source = tmp_path / "in.ndjson"
    source.write_bytes(b'"%s"\n' % (b"x" * 10_000) * 3_000)
    running = serve(auth_token="right")
    done = run("import", str(source), "--url", running.url, auth_token=token)
    assert done.returncode == 1
    assert done.stderr.splitlines()[-1].startswith(b"credenza: Authentication is required")


def test_an_export_of_no_collection_warns(service: Running, folder: Path) -> None:
    """A name that nothing is stored under is told, through a service and without one."""
    missing = b"credenza: there is no collection 'typo'"
    home = service.settings["credenza_home"]
    for place in (home, folder / "home"):
        done = run("export", "-c", "typo", credenza_home=place)
        assert (done.returncode, done.stdout) == (0, b"")
        assert done.stderr.splitlines()[-1] == missing
    with service.client() as client:
        assert client.put("/v1/collections/typo", json={}).status_code == 201
        assert missing not in run("export", "-c", "typo", credenza_home=home).stderr
        client.delete("/v1/collections/typo", headers={"If-Match": "*"})


def test_help_lists_commands_without_loading_them() -> None:
    """What `--help` says of each command is the first line of what the command says of itself."""
    script = (
        "import sys, credenza.cli\n"
        "try: credenza.cli.app(['--help'])\n"
        "finally: print([name for name in sys.modules if 'credenza.commands' in name])"
    )
    done = subprocess.run(
        [sys.executable, "-c", script],
        env=environment(columns=200),
        capture_output=True,
        check=False,
        timeout=100,
    )
    *listed, loaded = done.stdout.decode().splitlines()
    assert loaded == "[]"
    for name in ("export", "import", "migrate", "seed", "serve"):
        first = str(app[name].default_command.__doc__).splitlines()[0].replace("`", "")
        assert any(first in line and f" {name} " in line for line in listed), name


def test_a_bad_line_is_named_whatever_the_size(
    service: Running, collection: str, tmp_path: Path
) -> None:
    """The service ends an import in the middle of its body; what it says of it is told."""
    source = tmp_path / "in.ndjson"
    line = b'"%s"\n' % (b"x" * 10_000)
    source.write_bytes(line * 600 + b"[1\n" + line * 3_000)
    home = service.settings["credenza_home"]
    done = run("import", str(source), "-c", collection, credenza_home=home)
    assert done.returncode == 1
    assert b"  line 601: " in done.stderr
    with service.client() as client:
        stored = client.get(f"/v1/data/{collection}/_export").content
    taken = stored.count(b"\n")
    assert b"%d lines were taken; resume with --from-line %d\n" % (taken, taken + 1) in done.stderr
