"""PgBouncer in between, in transaction mode: nothing of the API is different."""

import sys
from collections.abc import Iterator
from pathlib import Path

import pytest
from cluster import Cluster, run

from conftest import API, Measured

TESTS = ("documents", "lists", "collections", "seed_contract", "bad_input")
SECRET = "pgbouncer-secret"


@pytest.fixture
def pooled(cluster: Cluster, tmp_path: Path) -> Iterator[Cluster]:
    """The environment with PgBouncer between the service and PostgreSQL; without it afterwards."""
    password = cluster.secret("postgres-secret", "POSTGRES_PASSWORD")
    cluster.kubectl(
        *("create", "secret", "generic", SECRET),
        f'--from-literal=userlist.txt="devops" "{password}"',
        f"--from-literal=DATABASE_URL=postgresql://devops:{password}@pgbouncer:6432/credenza",
    )
    cluster.apply_with(tmp_path, "pgbouncer")
    yield cluster
    cluster.apply_with(tmp_path)
    parts = "deployments,services,serviceaccounts"
    cluster.kubectl("delete", parts, "--selector=app.kubernetes.io/name=pgbouncer")
    cluster.kubectl("delete", f"secret/{SECRET}")


def test_api_through_pgbouncer(pooled: Cluster, measured: Measured) -> None:
    """The tests of the API pass through PgBouncer in transaction mode."""
    files = [f"tests/test_{name}.py" for name in TESTS]
    command = (sys.executable, "-m", "pytest", "--quiet", "-p", "no:cacheprovider", *files)
    said = run("env", f"CREDENZA_URL={API}", *command, timeout=1200)
    seen = "SELECT count(*) FROM pg_stat_activity WHERE usename = 'devops' AND client_addr IN (%s)"
    addresses = ", ".join(f"'{pod['status']['podIP']}'" for pod in pooled.pods("pgbouncer"))
    assert int(pooled.sql(seen % addresses)) > 0, "nothing went through PgBouncer"
    service = ", ".join(f"'{pod['status']['podIP']}'" for pod in pooled.pods("credenza"))
    assert pooled.sql(seen % service) == "0", "the service has gone past PgBouncer"
    measured(said.strip().splitlines()[-1])
