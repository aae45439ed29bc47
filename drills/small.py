"""An environment of a drill's own: what staging is, but small, and in another namespace.

It has the service, PostgreSQL without a volume and Redis; no monitoring, autoscaler or NodePort. So
it needs little, and never meets the environment of the other drills.
"""

import os
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from secrets import token_hex
from typing import Final
from urllib.error import HTTPError
from urllib.request import Request, urlopen

import yaml
from cluster import ROOT, Cluster, load_image, run

IMAGE: Final = "credenza:drill-secrets"

NAMESPACE: Final = """
apiVersion: v1
kind: Namespace
metadata:
  name: {name}
  labels: {{pod-security.kubernetes.io/enforce: restricted}}
"""

KUSTOMIZATION: Final = """
apiVersion: kustomize.config.k8s.io/v1beta1
kind: Kustomization
namespace: {namespace}
resources: [{resources}]
components: [{components}]
images: [{{name: credenza, newName: {image[0]}, newTag: {image[1]}}}]
configMapGenerator:
  - {{name: credenza-config, behavior: merge, literals: [{settings}]}}
patches:
  - target: {{kind: StatefulSet, name: postgres}}
    patch: |
      - {{op: remove, path: /spec/volumeClaimTemplates}}
      - {{op: add, path: /spec/template/spec/volumes/-, value: {{name: data, emptyDir: {{}}}}}}
"""


@dataclass(frozen=True)
class Small:
    """One such environment; what stands in its folder is applied with it."""

    cluster: Cluster
    folder: Path

    def write(self, *components: str, more: str = "", patches: str = "", **settings: str) -> None:
        """Write it down as an overlay, with components, one more resource and settings."""
        k8s = os.path.relpath(ROOT / "k8s", self.folder)
        base = [f"{k8s}/base/{part}" for part in ("network", "app", "postgres", "redis")]
        given = {"ENVIRONMENT": "staging"} | {key.upper(): value for key, value in settings.items()}
        text = KUSTOMIZATION.format(
            namespace=self.cluster.namespace,
            resources=", ".join(filter(None, ["namespace.yaml", *base, more])),
            components=", ".join(f"{k8s}/components/{each}" for each in components),
            image=IMAGE.split(":"),
            settings=", ".join(f"{key}={value}" for key, value in given.items()),
        )
        self.folder.mkdir(exist_ok=True, parents=True)
        (self.folder / "kustomization.yaml").write_text(text + patches)
        (self.folder / "namespace.yaml").write_text(NAMESPACE.format(name=self.cluster.namespace))

    def apply(self) -> None:
        """Bring it into the cluster."""
        self.cluster.kubectl("apply", "--kustomize", str(self.folder))

    def ready(self) -> None:
        """Wait until all of it runs."""
        for what in ("statefulset/postgres", "deployment/redis", "deployment/credenza"):
            self.cluster.rolled_out(what)


def passwords() -> dict[str, dict[str, str]]:
    """Return the Secrets that such an environment needs, with passwords that nobody has seen."""
    database, cache, access = (token_hex(16) for _ in range(3))
    return {
        "postgres-secret": {
            "POSTGRES_USER": "devops",
            "POSTGRES_PASSWORD": database,
            "POSTGRES_DB": "credenza",
        },
        "redis-secret": {"REDIS_PASSWORD": cache},
        "app-secret": {
            "DATABASE_URL": f"postgresql://devops:{database}@postgres:5432/credenza",
            "REDIS_URL": f"redis://:{cache}@redis:6379/0",
            "AUTH_TOKEN": access,
        },
        "grafana-secret": {"GF_SECURITY_ADMIN_PASSWORD": token_hex(16)},
        "credenza-passwords": {
            "DATABASE_PASSWORD": database,
            "REDIS_PASSWORD": cache,
            "AUTH_TOKEN": access,
        },
    }


def manifest(secrets: dict[str, dict[str, str]], prefix: str = "") -> str:
    """Return Secrets as YAML."""
    return yaml.safe_dump_all(
        {
            "apiVersion": "v1",
            "kind": "Secret",
            "metadata": {"name": prefix + name},
            "stringData": values,
        }
        for name, values in secrets.items()
    )


def status(url: str, token: str) -> int:
    """Return how the service answers who shows a token."""
    request = Request(f"{url}/v1/collections", headers={"Authorization": f"Bearer {token}"})
    try:
        with urlopen(request, timeout=30) as answer:
            found: int = answer.status
    except HTTPError as error:
        found = error.code
    return found


@contextmanager
def namespace(name: str) -> Iterator[Cluster]:
    """Give a namespace that is there for as long as it is needed."""
    cluster = Cluster(name)
    assert not cluster.exists(), f"{name} is there"
    cluster.kubectl("create", "namespace", name)
    try:
        yield cluster
    finally:
        cluster.kubectl("delete", "namespace", name)


def bring_image() -> None:
    """Build this commit's image and bring it to the nodes, under a name of these drills alone."""
    run("docker", "build", "--tag", IMAGE, ROOT)
    load_image(IMAGE)
