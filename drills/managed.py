"""PostgreSQL and Redis as a provider has them: in a namespace beside, with passwords.

With an authority they speak TLS, and nothing else; PostgreSQL is then an older one.
"""

import os
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Final

from cluster import ROOT, Cluster, run

PROVIDER: Final = Cluster("credenza-drill-managed")
PASSWORD: Final = "managed"
POSTGRES: Final = f"postgres.{PROVIDER.namespace}.svc.cluster.local"
REDIS: Final = f"redis.{PROVIDER.namespace}.svc.cluster.local"
SECRETS: Final = {
    "postgres-secret": {
        "POSTGRES_USER": "credenza",
        "POSTGRES_PASSWORD": PASSWORD,
        "POSTGRES_DB": "credenza",
    },
    "redis-secret": {"REDIS_PASSWORD": PASSWORD},
}

HBA: Final = "local all all trust\nhostssl all all all scram-sha-256\n"
"""Who may log in to PostgreSQL: by TCP only who speaks TLS."""

POSTGRES_TLS: Final = """
apiVersion: apps/v1
kind: StatefulSet
metadata: {name: postgres}
spec:
  template:
    spec:
      containers:
        - name: postgres
          image: postgres:15
          env: [{name: POSTGRES_INITDB_ARGS, value: --locale=C.UTF-8 --data-checksums}]
          args:
            - postgres
            - --ssl=on
            - --ssl_cert_file=/tls/tls.crt
            - --ssl_key_file=/tls/tls.key
            - --hba_file=/tls/pg_hba.conf
          volumeMounts: [{name: tls, mountPath: /tls}]
      volumes: [{name: tls, secret: {secretName: tls, defaultMode: 0440}}]
"""
REDIS_TLS: Final = """
apiVersion: apps/v1
kind: Deployment
metadata: {name: redis}
spec:
  template:
    spec:
      containers:
        - name: redis
          args:
            - redis-server
            - --requirepass
            - $(REDIS_PASSWORD)
            - --port 0
            - --tls-port 6379
            - --tls-cert-file /tls/tls.crt
            - --tls-key-file /tls/tls.key
            - --tls-auth-clients no
          readinessProbe: {exec: {command: [redis-cli, --tls, --insecure, ping]}}
          livenessProbe: {exec: {command: [redis-cli, --tls, --insecure, ping]}}
          volumeMounts: [{name: tls, mountPath: /tls}]
      volumes: [{name: tls, secret: {secretName: tls, defaultMode: 0440}}]
"""


class Authority:
    """A certificate authority in a folder."""

    def __init__(self, folder: Path, name: str) -> None:
        self.certificate = folder / f"{name}.crt"
        self._key = folder / f"{name}.key"
        self._made(f"/CN={name}", self.certificate, self._key)

    def issue(self, folder: Path, *hosts: str) -> tuple[Path, Path]:
        """Make a certificate for servers of these names; return it and its key."""
        certificate, key = folder / "tls.crt", folder / "tls.key"
        names = ",".join(f"DNS:{host}" for host in hosts)
        signed = ("-CA", self.certificate, "-CAkey", self._key)
        self._made(
            f"/CN={hosts[0][:64]}", certificate, key, *signed, "-addext", f"subjectAltName={names}"
        )
        return certificate, key

    def _made(self, subject: str, certificate: Path, key: Path, *options: str | Path) -> None:
        asked = ("-subj", subject, "-days", "2", "-nodes", "-newkey", "rsa:2048")
        run("openssl", "req", "-x509", *asked, "-keyout", key, "-out", certificate, *options)


@contextmanager
def provider(folder: Path, authority: Authority | None = None) -> Iterator[Cluster]:
    """Run both for as long as they are needed."""
    base = os.path.relpath(ROOT / "k8s/base", folder)
    lines = [f"namespace: {PROVIDER.namespace}", f"resources: [{base}/postgres, {base}/redis]"]
    PROVIDER.kubectl("create", "namespace", PROVIDER.namespace)
    try:
        for name, values in SECRETS.items():
            literals = [f"--from-literal={key}={value}" for key, value in values.items()]
            PROVIDER.kubectl("create", "secret", "generic", name, *literals)
        if authority:
            certificate, key = authority.issue(folder, POSTGRES, REDIS)
            files = (f"--from-file={certificate}", f"--from-file={key}")
            rules = f"--from-literal=pg_hba.conf={HBA}"
            PROVIDER.kubectl("create", "secret", "generic", "tls", *files, rules)
            (folder / "postgres.yaml").write_text(POSTGRES_TLS)
            (folder / "redis.yaml").write_text(REDIS_TLS)
            lines.append("patches: [{path: postgres.yaml}, {path: redis.yaml}]")
        (folder / "kustomization.yaml").write_text("\n".join(lines))
        PROVIDER.kubectl("apply", "--kustomize", str(folder))
        PROVIDER.kubectl("delete", "networkpolicies", "--all")
        PROVIDER.rolled_out("statefulset/postgres")
        PROVIDER.rolled_out("deployment/redis")
        yield PROVIDER
    finally:
        PROVIDER.kubectl("delete", "namespace", PROVIDER.namespace)
