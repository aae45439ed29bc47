"""`python -m bench.transfer`: imports and exports beside COPY, which knows no better.

Each round empties the table and has PostgreSQL's COPY, an import of bare values and one of whole
documents store the same documents in it, with the same indexes; then they are exported. Rounds
alternate, and what counts is the ratio of medians within one run.
"""

import argparse
import asyncio
import http.client
import json
import sys
import time
from collections.abc import AsyncIterator, Callable, Iterator
from contextlib import contextmanager
from datetime import UTC, datetime
from pathlib import Path
from random import Random
from statistics import median
from tempfile import TemporaryDirectory
from typing import Final
from urllib.parse import urlsplit

import asyncpg
import uuid_utils

from bench.processes import served
from credenza.serving import free_port

NDJSON: Final = {"Content-Type": "application/x-ndjson"}
PART_BYTES: Final = 64 * 1024
IMPORT: Final = "/v1/data/bench/_import"
EXPORT: Final = "/v1/data/bench/_export"
NOW: Final = datetime(2026, 1, 1, tzinfo=UTC)


def documents(number: int) -> list[str]:
    """Return documents of about 300 bytes that differ, so that their index entries do."""
    random = Random(1)
    return [
        json.dumps(
            {
                "name": f"{random.getrandbits(160):040x}",
                "tags": [f"t{random.randrange(50)}" for _ in range(3)],
                "text": f"{random.getrandbits(720):0180x}",
                "n": place,
            }
        )
        for place in range(number)
    ]


def copied(texts: list[str]) -> bytes:
    """Return the rows of `documents` as COPY's text format has them; the texts need no escape."""
    return "".join(
        f"bench\t{uuid_utils.uuid7()}\t1\t{place}\t{NOW}\t{NOW}\t{text}\n"
        for place, text in enumerate(texts)
    ).encode()


async def copy(url: str, rows: bytes) -> None:
    """Store rows as PostgreSQL does it fastest."""
    connection = await asyncpg.connect(url)

    async def source() -> AsyncIterator[bytes]:
        for at in range(0, len(rows), PART_BYTES):
            yield rows[at : at + PART_BYTES]

    await connection.copy_to_table("documents", source=source())
    await connection.close()


async def empty(url: str) -> None:
    """Empty the table and have what was written on disk."""
    connection = await asyncpg.connect(url)
    await connection.execute("TRUNCATE documents")
    await connection.execute("CHECKPOINT")
    await connection.close()


def ask(address: str, method: str, path: str, body: bytes = b"") -> int:
    """Send a request, read its answer as it comes, and return how many bytes that were."""
    connection = http.client.HTTPConnection(urlsplit(address).netloc, timeout=600)
    connection.request(method, path, body or None, NDJSON)
    answer = connection.getresponse()
    size = 0
    while part := answer.read1(PART_BYTES):
        size += len(part)
    assert answer.status == 200, answer.status
    return size


@contextmanager
def contenders(number: int) -> Iterator[tuple[str, dict[str, Callable[[], object]]]]:
    """Start a service; give its database's address, and what is measured by name."""
    texts = documents(number)
    rows = copied(texts)
    bare = "".join(text + "\n" for text in texts).encode()
    whole = "".join(f'{{"id":"{uuid_utils.uuid7()}","data":{text}}}\n' for text in texts).encode()
    with TemporaryDirectory(prefix="credenza-bench-") as name:
        folder = Path(name)
        folder.chmod(0o755)
        port = free_port("127.0.0.1", 0)
        with served(
            *(str(Path(sys.executable).parent / "credenza"), "serve"),
            port=port,
            path="/health/startup",
            log=folder / "log",
            CREDENZA_HOME=str(folder / "home"),
            PORT=str(port),
        ) as address:
            url = f"postgresql://credenza@/credenza?host={folder}/home/socket"
            ask(address, "POST", IMPORT, b"1\n")  # makes the collection
            yield (
                url,
                {
                    "COPY": lambda: asyncio.run(copy(url, rows)),
                    "import": lambda: ask(address, "POST", IMPORT, bare),
                    "import, whole": lambda: ask(address, "POST", f"{IMPORT}?view=document", whole),
                    "export": lambda: ask(address, "GET", EXPORT),
                    "export, whole": lambda: ask(address, "GET", f"{EXPORT}?view=document"),
                    "export, sorted": lambda: ask(address, "GET", f"{EXPORT}?order=name"),
                },
            )


def main() -> None:
    """Run the benchmark."""
    parser = argparse.ArgumentParser(prog="bench.transfer", description=__doc__)
    parser.add_argument("--documents", type=int, default=100_000)
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--only", default="", help="names that have this in them, beside two")
    given = parser.parse_args()
    found: dict[str, list[float]] = {}
    with contenders(given.documents) as (url, runs):
        kept = {"COPY", "import, whole"}  # whose documents are exported
        chosen = {name: run for name, run in runs.items() if name in kept or given.only in name}
        for _ in range(given.rounds):
            for name, run in chosen.items():
                if not name.startswith("export"):
                    asyncio.run(empty(url))
                began = time.perf_counter()
                run()
                rate = given.documents / (time.perf_counter() - began)
                found.setdefault(name, []).append(rate)
    first = median(found["COPY"])
    for name, rates in found.items():
        each = " ".join(f"{rate:,.0f}" for rate in rates)
        print(
            f"{name:15} {median(rates):10,.0f} documents/s  {median(rates) / first:5.2f}  ({each})"
        )


if __name__ == "__main__":
    main()
