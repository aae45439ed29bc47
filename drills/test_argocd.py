"""GitOps by Argo CD: commits arrive, manual changes go, a revert rolls back, no request is lost.

The drill has namespaces, a project and a repository of its own. What it does not need (Prometheus,
Grafana, room to scale) it takes out by a commit; it gives prod PostgreSQL and Redis in the cluster,
as that overlay's first lines offer. `DRILLS_HOST` is where the nodes' ports are reached.
"""

import json
import os
import time
from collections.abc import Iterator
from functools import partial

import pytest
from argo import (
    ARGOCD,
    DEV,
    IMAGE,
    PREFIX,
    Application,
    Repository,
    apply,
    install,
    manifest,
    remove,
    served,
    timed,
)
from cluster import ROOT, Cluster, load_image, run, wait
from load import Load

from conftest import Measured

pytestmark = pytest.mark.timeout(1800)

HOST = os.environ.get("DRILLS_HOST", "127.0.0.1")
ENVIRONMENTS = {name: Application(name) for name in ("dev", "staging", "prod")}
REACHED = """patches:
  - target: {kind: Service, name: credenza}
    patch: |
      - {op: replace, path: /spec/type, value: NodePort}
"""

LABEL = "{.metadata.labels.app\\.kubernetes\\.io/part-of}"
BY_HAND = [  # what someone does past Git, and where it is seen
    ("label --overwrite service/credenza app.kubernetes.io/part-of=other", "service", LABEL),
    ("delete poddisruptionbudget/credenza", "poddisruptionbudget", LABEL),
]

REFUSED = Application("refused")
REFUSALS = [  # a part of an Application, what is other than allowed in it, and what Argo CD says
    ("destination", {"namespace": "default"}, "do not match any of the allowed destinations"),
    ("source", {"repoURL": "https://git.example.com/other.git"}, "other.git is not permitted"),
    ("source", {"path": "refused", "targetRevision": "refused"}, "ClusterRole is not permitted"),
]
ROLE = f"""
apiVersion: rbac.authorization.k8s.io/v1
kind: ClusterRole
metadata: {{name: {REFUSED.name}}}
rules: [{{apiGroups: [""], resources: [secrets], verbs: [get]}}]
"""


@pytest.fixture(scope="module")
def cluster() -> Cluster:
    """The development environment of the drill, on a cluster with Argo CD and this image."""
    run("docker", "build", "--quiet", "--tag", IMAGE, ROOT, timeout=1200)
    load_image(IMAGE)
    install()
    return ENVIRONMENTS["dev"].cluster


@pytest.fixture(scope="module")
def repository(cluster: Cluster, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Repository]:
    """A clone, changed to what a drill needs, that Argo CD reads; afterwards all of it is gone."""
    with served(tmp_path_factory.mktemp("gitops")) as found:
        _slim(found)
        apply(manifest("project", found))
        try:
            yield found
        finally:
            _clean_up()


def _slim(repository: Repository) -> None:
    """Commit what makes three environments small enough for one machine, under other names."""
    for name in ENVIRONMENTS:
        folder = f"k8s/overlays/{name}"
        file = f"{folder}/kustomization.yaml"
        repository.change(f"{folder}/namespace.yaml", "name: credenza-", f"name: {PREFIX}-")
        repository.change(file, "^namespace: credenza-", f"namespace: {PREFIX}-")
        repository.change(file, "(?<=newTag: ).*", IMAGE.partition(":")[2])
        if name != "dev":
            repository.change(file, "^    newName: .*\n", "")
            repository.change(file, "(?<=/maxReplicas, value: ).*(?=})", "2")
    prod = "k8s/overlays/prod/kustomization.yaml"
    repository.change(prod, "^    digest: .*\n", "")
    repository.change(prod, "^  - .*/monitoring$", "  - ../../base/postgres\n  - ../../base/redis")
    repository.change(prod, "^  - .*/managed-services\n", "")
    repository.change("k8s/base/kustomization.yaml", "^  - .*/monitoring\n", "")
    repository.change(DEV, "^components:\n  - .*/nodeport\n", REACHED)
    repository.push("Only what the drill needs")


def _clean_up() -> None:
    ARGOCD.kubectl("delete", "applicationset", PREFIX, "--ignore-not-found")
    for environment in (*ENVIRONMENTS.values(), REFUSED):
        ARGOCD.kubectl("delete", "application", environment.name, "--ignore-not-found")
    for environment in ENVIRONMENTS.values():
        remove(environment.cluster)
    ARGOCD.kubectl("delete", "appproject", PREFIX, "--ignore-not-found")


@pytest.fixture
def dev(repository: Repository) -> Iterator[Application]:
    """The development environment by application.yaml, as it is in Git."""
    found = ENVIRONMENTS["dev"]
    apply(manifest("application", repository))
    found.synced(repository.git("rev-parse", "HEAD"))
    yield found
    ARGOCD.kubectl("delete", "application", found.name)
    assert len(found.cluster.ready("credenza")) >= 2, "what it has deployed runs on without it"


def test_gitops(
    cluster: Cluster, repository: Repository, dev: Application, measured: Measured
) -> None:
    """A commit arrives, manual changes are healed, a revert rolls back; no request is lost."""
    with Load(_url(cluster), clients=4) as load:
        load.until(200)
        repository.change(DEV, "LOG_LEVEL=debug", "LOG_LEVEL=info")
        commit = repository.push("Log less")
        took = dev.synced(commit)
        assert _log_levels(cluster) == ["info"], "the new setting is there, the old one pruned"
        healed = [_healed(cluster, *change) for change in BY_HAND]
        cluster.kubectl("scale", "deployment/credenza", "--replicas=3")
        back = dev.synced(repository.revert(commit))
        assert _log_levels(cluster) == ["debug"]
        assert cluster.get("deployment/credenza")["spec"]["replicas"] == 3, "an HPA's number stays"
        load.until(len(load.requests) + 200)
    measured(
        f"{load.told()}; running {took:.0f} s after the push, {back:.0f} s after the revert; "
        f"healed in {max(healed):.1f} s; replicas that were scaled stay"
    )
    assert load.lost == [], load.outcomes()


def test_application_set(cluster: Cluster, repository: Repository, measured: Measured) -> None:
    """The ApplicationSet makes the three environments, and each of them works."""
    for name in ("staging", "prod"):
        _secrets(ENVIRONMENTS[name].cluster)
    commit, start = repository.git("rev-parse", "HEAD"), time.monotonic()
    apply(manifest("applicationset", repository))
    for name in ("staging", "prod"):
        _give_address(ENVIRONMENTS[name].cluster)
    for environment in ENVIRONMENTS.values():
        environment.synced(commit)
    took = time.monotonic() - start
    for environment in ENVIRONMENTS.values():
        _smoke(environment.cluster)
    _pause(ENVIRONMENTS["staging"])
    measured(f"three synced and healthy in {took:.0f} s, smoke-tested; one paused and resumed")


def test_project(cluster: Cluster, repository: Repository, measured: Measured) -> None:
    """The project refuses other kinds, other namespaces and other repositories."""
    _commit_refused(repository)
    took = [_refused(repository, *each) for each in REFUSALS]
    assert cluster.kubectl("get", "clusterrole", REFUSED.name, "--ignore-not-found") == ""
    measured(f"each of {len(took)} refused, and said so, in {max(took):.1f} s or less")


def _commit_refused(repository: Repository) -> None:
    """Push a branch with a ClusterRole, which no environment has."""
    folder = repository.folder / "refused"
    folder.mkdir()
    (folder / "kustomization.yaml").write_text("resources: [role.yaml]\n")
    (folder / "role.yaml").write_text(ROLE)
    repository.git("switch", "--quiet", "--create", "refused")
    repository.push("A right for the whole cluster", "refused")
    repository.git("switch", "--quiet", "-")


def _refused(repository: Repository, part: str, change: dict[str, str], reason: str) -> float:
    """Return the seconds until Argo CD refuses an Application that was changed."""
    found = manifest("application", repository)
    found["metadata"]["name"] = REFUSED.name
    found["spec"][part] |= change
    took = timed(partial(apply, found), reason, lambda: reason in REFUSED.says())
    ARGOCD.kubectl("delete", "application", REFUSED.name)
    return took


def _pause(staging: Application) -> None:
    """What is changed by hand while an environment is paused stays; afterwards it goes."""
    command, kind, path = BY_HAND[0]
    look = ("get", kind, "credenza", f"--output=jsonpath={path}")
    staging.automated(enabled=False)
    staging.cluster.kubectl(*command.split())
    wait("Argo CD sees the change", lambda: staging.status()["sync"]["status"] == "OutOfSync")
    assert staging.cluster.kubectl(*look) == "other"
    staging.automated(enabled=True)
    wait("the change is gone", lambda: staging.cluster.kubectl(*look) == "credenza")


def _url(cluster: Cluster) -> str:
    port = cluster.get("service/credenza")["spec"]["ports"][0]["nodePort"]
    return f"http://{HOST}:{port}"


def _log_levels(cluster: Cluster) -> list[str]:
    """Return the log level of each ConfigMap of the service that there is."""
    found = cluster.get("configmaps")["items"]
    return [each["data"]["LOG_LEVEL"] for each in found if "LOG_LEVEL" in each["data"]]


def _healed(cluster: Cluster, change: str, kind: str, path: str) -> float:
    """Change something by hand; return the seconds until Argo CD has set it back."""
    look = ("get", kind, "credenza", f"--output=jsonpath={path}")
    return timed(
        partial(cluster.kubectl, *change.split()),
        f"{change} is healed",
        lambda: cluster.kubectl(*look, check=False) == "credenza",
    )


def _secrets(cluster: Cluster) -> None:
    """Make the Secrets that are not in Git, before the first sync: random passwords."""
    cluster.kubectl("create", "namespace", cluster.namespace)
    run("scripts/make-secrets.sh", cluster.namespace, "staging")


def _give_address(cluster: Cluster) -> None:
    """Do what an Ingress controller does, where there is none: tell the Ingress its address."""
    if "traefik" in cluster.kubectl("get", "ingressclass", "--output=name"):
        return
    wait("the Ingress", lambda: cluster.kubectl("get", "ingress", "credenza", check=False))
    status = {"status": {"loadBalancer": {"ingress": [{"ip": "192.0.2.1"}]}}}
    patch = ("--subresource=status", "--type=merge", f"--patch={json.dumps(status)}")
    cluster.kubectl("patch", "ingress", "credenza", *patch)


def _smoke(cluster: Cluster) -> None:
    with cluster.forwarded("service/credenza", 8000) as url:
        token = cluster.secret("app-secret", "AUTH_TOKEN")
        run("env", f"AUTH_TOKEN={token}", "scripts/smoke.sh", url)
