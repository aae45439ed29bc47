"""Production's shape: PostgreSQL and Redis elsewhere, reached by TLS alone, and restored there."""

import os
import re
import time
from collections.abc import Iterator
from pathlib import Path
from secrets import token_hex
from typing import Final
from urllib.request import Request, urlopen

import managed
import pytest
import small
from cluster import ROOT, Cluster, run, wait
from managed import PASSWORD, POSTGRES, PROVIDER, REDIS, Authority

from conftest import Measured

HOME: Final = "credenza-drill-tls"
TOKEN: Final = token_hex(16)
DOCUMENTS: Final = 500
SHORT: Final = POSTGRES.removesuffix(".cluster.local")

OVERLAY: Final = """
apiVersion: kustomize.config.k8s.io/v1beta1
kind: Kustomization
namespace: {home}
resources: [namespace.yaml, {k8s}/base/network, {k8s}/base/app]
components:
  - {k8s}/components/managed-services
  - {k8s}/components/backup
  - {k8s}/components/provider-ca
images:
  - {{name: credenza, newName: {image[0]}, newTag: {image[1]}}}
  - {{name: postgres, newTag: "15"}} # of the backups: not older than the server, and with TLS
configMapGenerator:
  - {{name: credenza-config, behavior: merge, literals: [ENVIRONMENT=prod]}}
"""

REFUSED: Final = {
    "PGSSLROOTCERT=/etc/ssl/certs/ca-certificates.crt": "certificate verify failed",
    f'DATABASE_URL=$(echo "$DATABASE_URL" | sed s/{POSTGRES}/{SHORT}/)': "Hostname mismatch",
    'DATABASE_URL="${DATABASE_URL%=*}=disable"': "no pg_hba.conf entry",
}
"""What is changed for a migration, and what it says: the authorities of the public, a name that the
certificate does not have, no TLS."""


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Where the authorities are, and what is applied."""
    return tmp_path_factory.mktemp("managed")


@pytest.fixture(scope="module")
def authority(folder: Path) -> Authority:
    """The authority of the provider."""
    return Authority(folder, "provider")


@pytest.fixture(scope="module")
def service(cluster: Cluster, folder: Path, authority: Authority) -> Iterator[Cluster]:
    """The service with its databases at a provider that speaks TLS alone."""
    small.bring_image()
    for name in ("provider", "overlay"):
        (folder / name).mkdir()
    with managed.provider(folder / "provider", authority), small.namespace(HOME) as home:
        _trust(home, authority)
        _secret(home)
        k8s = os.path.relpath(ROOT / "k8s", folder / "overlay")
        text = OVERLAY.format(home=HOME, k8s=k8s, image=small.IMAGE.split(":"))
        (folder / "overlay/kustomization.yaml").write_text(text)
        (folder / "overlay/namespace.yaml").write_text(small.NAMESPACE.format(name=HOME))
        home.kubectl("apply", "--kustomize", str(folder / "overlay"))
        home.rolled_out()
        yield home


def test_tls(service: Cluster, folder: Path, authority: Authority, measured: Measured) -> None:
    """TLS to PostgreSQL and Redis, with certificate and name verified; else nothing rolls out."""
    with service.forwarded("service/credenza", 8000) as url:
        run("env", f"AUTH_TOKEN={TOKEN}", "scripts/smoke.sh", url)
    addresses = {pod["status"]["podIP"] for pod in service.pods("credenza")}
    sessions = _sessions(addresses)
    assert sessions["t"] >= len(addresses)
    assert "f" not in sessions
    assert addresses <= _clients_of_redis()
    for change, reason in REFUSED.items():
        assert reason in _migrate(service, change), change
    _trust(service, Authority(folder, "another"))
    _not_rolled_out(service)
    _trust(service, authority)
    measured(
        f"{sessions['t']} sessions of {len(addresses)} replicas with PostgreSQL, encrypted, and "
        f"theirs with Redis; {', '.join(REFUSED.values())}: refused; the old pods served on"
    )


def test_restore(service: Cluster, measured: Measured) -> None:
    """A backup of the managed PostgreSQL comes back, once its managed Redis is said to be empty."""
    with service.forwarded("service/credenza", 8000) as url:
        _write(url, "before")
        before = _read(url)
    assert before.count("\n") == DOCUMENTS
    service.kubectl("create", "job", "backup-drill", "--from=cronjob/backup")
    service.kubectl("wait", "job/backup-drill", "--for=condition=complete", "--timeout=180s")
    with service.forwarded("service/credenza", 8000) as url:
        _write(url, "after")
        assert _read(url) != before
    with pytest.raises(AssertionError, match="EMPTY_CACHE"):
        run("scripts/restore.sh", HOME)
    begun = time.monotonic()
    flush = "kubectl --namespace {} exec deployment/redis -- redis-cli --tls --insecure flushdb"
    run("env", f"EMPTY_CACHE={flush.format(PROVIDER.namespace)}", "scripts/restore.sh", HOME)
    took = time.monotonic() - begun
    with service.forwarded("service/credenza", 8000) as url:
        assert _read(url) == before
    measured(
        f"{DOCUMENTS} documents equal after {took:.0f} s; refused without a way to empty Redis"
    )


def _trust(home: Cluster, authority: Authority) -> None:
    """Have the service trust an authority, at the next start of its pods."""
    home.kubectl("delete", "configmap", "provider-ca", "--ignore-not-found")
    home.kubectl(
        "create", "configmap", "provider-ca", f"--from-file=ca.crt={authority.certificate}"
    )


def _secret(home: Cluster) -> None:
    """Tell the service where its databases are."""
    values = {
        "DATABASE_URL": f"postgresql://credenza:{PASSWORD}@{POSTGRES}:5432/credenza?sslmode=verify-full",
        "REDIS_URL": f"rediss://:{PASSWORD}@{REDIS}:6379/0",
        "AUTH_TOKEN": TOKEN,
    }
    home.kubectl("apply", "--filename=-", input_=small.manifest({"app-secret": values}))


def _migrate(service: Cluster, change: str) -> str:
    """Return what the migration says in a pod where a variable is another one."""
    script = f"{change} credenza migrate 2>&1 && echo it has worked"
    command = ("exec", "deployment/credenza", "--container=credenza", "--", "sh", "-c", script)
    return service.kubectl(*command, check=False)


def _not_rolled_out(service: Cluster) -> None:
    """See that new pods do not come up where the service trusts another authority."""
    before = set(service.ready("credenza"))
    service.kubectl("rollout", "restart", "deployment/credenza")
    wait("a new pod fails", lambda: _failed(service), seconds=90)
    assert set(service.ready("credenza")) == before
    with service.forwarded("service/credenza", 8000) as url:
        assert small.status(url, TOKEN) == 200
    service.kubectl("rollout", "undo", "deployment/credenza")
    service.rolled_out()


def _failed(service: Cluster) -> list[str]:
    """Return the pods whose migration has failed."""
    return [
        pod["metadata"]["name"]
        for pod in service.pods("credenza")
        for status in pod["status"].get("initContainerStatuses", [])
        if status["restartCount"] > 0 and not status["ready"]
    ]


def _sessions(addresses: set[str]) -> dict[str, int]:
    """Return how many sessions of these clients PostgreSQL has, with TLS (t) and without (f)."""
    query = (
        "SELECT ssl, count(*) FROM pg_stat_ssl JOIN pg_stat_activity USING (pid) WHERE client_addr "
        f"IN ({', '.join(map(repr, sorted(addresses)))}) GROUP BY ssl"
    )
    psql = ("psql", "--username=credenza", "--no-align", "--tuples-only", "--command", query)
    said = PROVIDER.kubectl("exec", "postgres-0", "--", *psql)
    return {ssl: int(number) for ssl, number in (line.split("|") for line in said.split())}


def _clients_of_redis() -> set[str]:
    """Return the addresses of Redis's clients; it listens by TLS alone."""
    listed = ("redis-cli", "--tls", "--insecure", "client", "list")
    said = PROVIDER.kubectl("exec", "deployment/redis", "--", *listed)
    return set(re.findall(r" addr=([\d.]+):", said))


def _write(url: str, text: str) -> None:
    lines = "".join(f'{{"id": "d{n}", "data": "{text}"}}\n' for n in range(DOCUMENTS))
    address = f"{url}/v1/data/managed/_import?view=document&on_conflict=replace"
    with urlopen(_request(address, lines.encode()), timeout=120) as answer:
        assert answer.status == 200, answer.read()


def _read(url: str) -> str:
    with urlopen(_request(f"{url}/v1/data/managed/_export?view=document"), timeout=120) as answer:
        text: str = answer.read().decode()
    return text


def _request(address: str, body: bytes | None = None) -> Request:
    headers = {"Authorization": f"Bearer {TOKEN}", "Content-Type": "application/x-ndjson"}
    return Request(address, body, headers)
