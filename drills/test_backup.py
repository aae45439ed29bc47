"""A backup is worth what its restore brings back."""

import json
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any
from urllib.request import Request, urlopen

import pytest
from cluster import Cluster, run, wait

from conftest import API, Measured

DOCUMENTS = 2_000
COLLECTION = f"{API}/v1/data/backup-drill"
EXACT = "9007199254740993"
"""An integer that a double cannot hold."""


@pytest.fixture
def backed_up(cluster: Cluster, tmp_path: Path) -> Iterator[Cluster]:
    """The environment with the backup component; without it again afterwards."""
    cluster.apply_with(tmp_path, "backup")
    yield cluster
    cluster.kubectl("delete", "cronjobs,jobs", "--selector=app.kubernetes.io/name=backup")
    cluster.kubectl("delete", "jobs", "--all")
    cluster.kubectl("delete", "persistentvolumeclaim/backups", "--wait=false")
    cluster.apply_with(tmp_path)


def test_restore(backed_up: Cluster, measured: Measured) -> None:
    """Back up, destroy PostgreSQL's volume, restore: each document, version and time is back.

    And once more by name, over a database that has gone on, with a table that the backup lacks.
    """
    _fill()
    before = _export()
    assert before.count("\n") == DOCUMENTS
    assert EXACT in before
    took = _back_up(backed_up)
    _import([{"id": "later", "data": "written after the backup"}])
    _destroy(backed_up)
    begun = time.monotonic()
    run("scripts/restore.sh", backed_up.namespace)
    restored = time.monotonic() - begun
    wait("two replicas are ready", lambda: len(backed_up.ready("credenza")) == 2)
    assert _export() == before
    name = _newest(backed_up)
    backed_up.sql("CREATE TABLE later AS SELECT 1")
    _import([{"id": "d00000", "data": "overwritten"}])
    run("scripts/restore.sh", backed_up.namespace, name)
    assert backed_up.sql("SELECT to_regclass('later') IS NULL") == "t", "a newer table has stayed"
    assert _export() == before
    measured(
        f"{DOCUMENTS} documents equal, versions and times included; backup {took:.0f} s, "
        f"from the empty volume to serving again {restored:.0f} s"
    )


def _fill() -> None:
    _import(
        [{"id": f"d{n:05}", "data": {"n": n, "exact": int(EXACT) + n}} for n in range(DOCUMENTS)]
    )


def _import(documents: list[dict[str, Any]]) -> None:
    lines = "".join(json.dumps(document) + "\n" for document in documents)
    address = f"{COLLECTION}/_import?view=document&on_conflict=replace"
    headers = {"Content-Type": "application/x-ndjson"}
    with urlopen(Request(address, lines.encode(), headers), timeout=120) as answer:
        assert answer.status == 200, answer.read()


def _export() -> str:
    with urlopen(f"{COLLECTION}/_export?view=document", timeout=120) as answer:
        text: str = answer.read().decode()
    return text


def _newest(cluster: Cluster) -> str:
    pods = cluster.get("pods", "--selector=job-name=backup-drill")["items"]
    ended = [pod["status"]["containerStatuses"][0]["state"]["terminated"] for pod in pods]
    return next(str(state["message"]).strip() for state in ended if state["exitCode"] == 0)


def _back_up(cluster: Cluster) -> float:
    begun = time.monotonic()
    cluster.kubectl("create", "job", "backup-drill", "--from=cronjob/backup")
    cluster.kubectl("wait", "job/backup-drill", "--for=condition=complete", "--timeout=180s")
    return time.monotonic() - begun


def _destroy(cluster: Cluster) -> None:
    """Delete PostgreSQL's pod and volume; a new, empty one takes its place."""
    cluster.kubectl("scale", "statefulset/postgres", "--replicas=0")
    cluster.kubectl("wait", "pod/postgres-0", "--for=delete", "--timeout=120s")
    cluster.kubectl("delete", "persistentvolumeclaim/data-postgres-0")
    cluster.kubectl("scale", "statefulset/postgres", "--replicas=1")
    cluster.rolled_out("statefulset/postgres")
    assert cluster.sql("SELECT to_regclass('documents') IS NULL") == "t"
