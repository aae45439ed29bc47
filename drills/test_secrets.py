"""The ways to bring passwords to the cluster, and to change them while it works.

Each drill has a namespace of its own. What is said of Vault and the clouds is as far as it can be
shown without them: the cluster takes their stores.
"""

import re
import shutil
import time
from collections.abc import Iterator
from email.utils import formatdate
from functools import partial
from pathlib import Path
from typing import Any

import pytest
import yaml
from cluster import ROOT, Cluster, run, wait
from load import Load
from operators import EXTERNAL, PLACE, SEALED, need
from small import IMAGE, Small, bring_image, manifest, namespace, passwords, status

from conftest import Measured

REQUESTS = 2_000
CONTROLLER = ("--controller-name", SEALED.name, "--controller-namespace", PLACE.namespace)
CLOUDS = ("aws", "azure", "gcp", "vault")


@pytest.fixture(scope="module", autouse=True)
def _image() -> None:
    """This commit's image on the nodes."""
    bring_image()


@pytest.fixture
def cluster(request: pytest.FixtureRequest) -> Iterator[Cluster]:
    """A namespace of the drill's own."""
    name = request.node.name.removeprefix("test_").replace("_", "-")
    with namespace(f"credenza-drill-{name}") as own:
        yield own


@pytest.fixture
def operators(cluster: Cluster) -> Iterator[Cluster]:
    """The namespace of the operators; it and their rights end with the drill."""
    with namespace(PLACE.namespace) as place:
        yield place
        # While the operator is there, which alone takes its finalizers away.
        cluster.kubectl("delete", "externalsecrets", "--all", check=False)
        EXTERNAL.remove()


def _tree(folder: Path, environment: str) -> tuple[Path, Path]:
    """Return a copy of what is delivered, and the folder of an environment in it."""
    for part in ("k8s", "scripts", "monitoring"):
        shutil.copytree(ROOT / part, folder / part)
    overlay = folder / "k8s/overlays" / environment
    shutil.rmtree(overlay, ignore_errors=True)
    return folder, overlay


def _condition(cluster: Cluster, what: str, kind: str) -> dict[str, str]:
    found = cluster.get(what).get("status", {}).get("conditions", [])
    return next((each for each in found if each["type"] == kind), {})


def _answers(cluster: Cluster, token: str) -> int:
    with cluster.forwarded("service/credenza", 8000) as url:
        return status(url, token)


def _with_token(secrets: dict[str, dict[str, str]], token: str) -> dict[str, dict[str, str]]:
    return secrets | {"app-secret": secrets["app-secret"] | {"AUTH_TOKEN": token}}


CONTROLLER_IS_HERE = f"""
  - target: {{kind: RoleBinding, name: sealed-secrets}}
    patch: |
      - {{op: replace, path: /subjects/0/namespace, value: {PLACE.namespace}}}
"""


def test_sealed_secrets(
    cluster: Cluster, operators: Cluster, tmp_path: Path, measured: Measured
) -> None:
    """Sealed, committed, opened; a new key opens old and new; elsewhere nothing is opened."""
    need("kubeseal")
    root, overlay = _tree(tmp_path, cluster.namespace.removeprefix("credenza-"))
    secrets = passwords()
    small = Small(cluster, overlay)
    small.write("sealed-secrets", patches=CONTROLLER_IS_HERE)
    small.apply()  # the controller ends where it has no rights
    small.write("sealed-secrets", more="sealed-secrets.yaml", patches=CONTROLLER_IS_HERE)
    arguments = ("--all-namespaces=false", f"--additional-namespaces={cluster.namespace}")
    SEALED.start(*arguments, "--key-renew-period=0")
    first = _seal(root, overlay, manifest(secrets))
    assert _values(secrets) & set(re.findall(r"[0-9a-f]{32}", _sealed(overlay))) == set()
    small.apply()
    begin = time.monotonic()
    for name, values in secrets.items():
        wait(name, partial(_is_there, cluster, name))
        assert {key: cluster.secret(name, key) for key in values} == values
    opened = time.monotonic() - begin
    small.ready()
    assert _answers(cluster, secrets["app-secret"]["AUTH_TOKEN"]) == 200

    SEALED.start(*arguments, f"--key-cutoff-time={formatdate(time.time() + 60)}")
    cluster.kubectl("delete", "secret", "redis-secret")
    wait("what the old key sealed is opened again", lambda: _is_there(cluster, "redis-secret"))
    second = _seal(root, overlay, manifest(_with_token(secrets, "by-the-new-key")))
    assert second != first, "the key was not changed"
    small.apply()
    wait("the new one is opened", lambda: cluster.secret("app-secret", "AUTH_TOKEN")[:2] == "by")
    before = _sealed(overlay)
    run(root / "scripts/seal.sh", overlay.name, "--renew", *CONTROLLER)
    assert _sealed(overlay) != before
    small.apply()

    _refused_elsewhere(operators, _sealed(overlay), cluster.namespace)
    measured(f"{len(secrets)} opened after {opened:.1f} s, by old and new key; moved: refused")


def _sealed(overlay: Path) -> str:
    return (overlay / "sealed-secrets.yaml").read_text()


def _values(secrets: dict[str, dict[str, str]]) -> set[str]:
    return {value for values in secrets.values() for value in values.values()}


def _is_there(cluster: Cluster, name: str) -> str:
    return cluster.kubectl("get", "secret", name, "--ignore-not-found", "--output=name")


def _seal(root: Path, overlay: Path, text: str) -> str:
    """Seal for the cluster's key as it is now, and return its certificate."""
    certificate = wait(
        "a certificate", lambda: run("kubeseal", "--fetch-cert", *CONTROLLER, check=False)
    )
    (root / "cluster.pem").write_text(certificate)
    command = (root / "scripts/seal.sh", overlay.name, "--cert", root / "cluster.pem")
    run(*command, input_=text)
    return str(certificate)


def _refused_elsewhere(other: Cluster, text: str, home: str) -> None:
    """Show that what was sealed for one namespace is not opened in another."""
    found = next(
        each for each in yaml.safe_load_all(text) if each["metadata"]["name"] == "app-secret"
    )
    moved = yaml.safe_dump(found).replace(home, other.namespace)
    other.kubectl("apply", "--filename=-", input_=moved)
    synced = wait("it is looked at", lambda: _condition(other, "sealedsecret/app-secret", "Synced"))
    assert synced["status"] == "False"
    assert "no key could decrypt secret" in synced["message"]
    assert not _is_there(other, "app-secret")


@pytest.fixture
def staging() -> Iterator[Cluster]:
    """The namespace that deploy.sh gives to staging; it must not be there yet."""
    with namespace("credenza-staging") as own:
        yield own


def test_sops(
    staging: Cluster,
    cluster: Cluster,
    tmp_path: Path,
    measured: Measured,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """Encrypted values lie in Git; deploy.sh opens them with the key, and stops without."""
    need("sops")
    root, overlay = _tree(tmp_path / "tree", "staging")
    Small(staging, overlay).write()
    secrets, key = passwords(), tmp_path / "keys.txt"
    run(need("age-keygen"), "--output", key)
    rules = (ROOT / ".sops.yaml").read_text()
    public = run("age-keygen", "-y", key).strip()
    (root / ".sops.yaml").write_text(rules.replace("put-the-public-key-of-staging-here", public))
    file = overlay / "secrets.sops.yaml"
    file.write_text(manifest(secrets))
    run("sops", "--config", root / ".sops.yaml", "encrypt", "--in-place", file)
    assert not [value for value in _values(secrets) if len(value) > 8 and value in file.read_text()]
    assert "name: app-secret" in file.read_text(), "names can be read"

    command = ("scripts/deploy.sh", "--kubeconfig", "--env", "staging", "--image", IMAGE)
    monkeypatch.setenv("HOME", str(tmp_path))  # no key of whoever runs this
    refused = run("bash", "-c", f'cd "$0"; ! {" ".join(command)} 2>&1', root)
    assert "Failed to get the data key" in refused
    assert not _is_there(staging, "app-secret")
    monkeypatch.setenv("SOPS_AGE_KEY_FILE", str(key))
    said = run("bash", "-c", f'cd "$0"; {" ".join(command)}', root)
    for name, values in secrets.items():
        assert {each: staging.secret(name, each) for each in values} == values
    assert not [value for value in _values(secrets) if len(value) > 8 and value in said]
    measured("refused without the key; deployed with it, smoke test passed")


OFTEN = """
  - target: {{kind: ExternalSecret, name: credenza-passwords}}
    patch: |
      - {{op: replace, path: /spec/refreshInterval, value: 5s}}
  - target: {{kind: SecretStore}}
    patch: |
      - {{op: replace, path: /spec/provider/kubernetes/remoteNamespace, value: {0}}}
"""


def test_external_secrets(
    cluster: Cluster, operators: Cluster, tmp_path: Path, measured: Measured
) -> None:
    """Synced from a store and refreshed after a change; what the store loses stays."""
    secrets = passwords()
    EXTERNAL.start("--enable-leader-election=false")
    operators.kubectl("apply", "--filename=-", input_=_source(operators, cluster))
    operators.kubectl("apply", "--filename=-", input_=manifest(_entries(secrets)))
    patches = OFTEN.format(operators.namespace)
    parts = ("", "/databases", "/passwords", "/stores/kubernetes")
    small = Small(cluster, tmp_path / "overlay")
    small.write("secret-files", *(f"external-secrets{part}" for part in parts), patches=patches)
    small.apply()
    small.ready()
    token = secrets["credenza-passwords"]["AUTH_TOKEN"]
    assert _answers(cluster, token) == 200

    begin = time.monotonic()
    changed = secrets["credenza-passwords"] | {"AUTH_TOKEN": "changed-in-the-store"}
    operators.kubectl("apply", "--filename=-", input_=manifest({"credenza-passwords": changed}))
    wait("it is synced", lambda: cluster.secret("credenza-passwords", "AUTH_TOKEN") != token)
    synced = time.monotonic() - begin
    wait(
        "the service takes it",
        lambda: _answers(cluster, "changed-in-the-store") == 200,
        seconds=180,
    )
    served = time.monotonic() - begin
    assert _answers(cluster, token) == 401

    operators.kubectl("delete", "secret", "credenza-passwords")
    what = "externalsecret/credenza-passwords"
    wait("the loss is told", lambda: _condition(cluster, what, "Ready")["status"] == "False")
    assert cluster.secret("credenza-passwords", "AUTH_TOKEN") == "changed-in-the-store"
    measured(f"synced after {synced:.0f} s (asked each 5 s), in use after {served:.0f} s")


def _entries(secrets: dict[str, dict[str, str]]) -> dict[str, dict[str, str]]:
    """Return what a store calls them."""
    return {f"credenza-{name.removeprefix('credenza-')}": each for name, each in secrets.items()}


def _source(operators: Cluster, reader: Cluster) -> str:
    """Return what the owner of the source applies, for the namespaces of the drill."""
    text = (ROOT / "k8s/components/external-secrets/stores/kubernetes/source.yaml").read_text()
    text = text.replace("credenza-staging", reader.namespace)
    return text.replace("credenza-vault", operators.namespace)


def test_other_stores(cluster: Cluster, operators: Cluster, tmp_path: Path) -> None:
    """The operator's definitions take the stores of Vault, AWS, Google and Azure."""
    EXTERNAL.start("--enable-leader-election=false")
    for cloud in CLOUDS:
        small = Small(cluster, tmp_path / cloud)
        small.write("external-secrets", f"external-secrets/stores/{cloud}")
        cluster.kubectl("apply", "--dry-run=server", "--kustomize", str(small.folder))


def test_rotation(cluster: Cluster, tmp_path: Path, measured: Measured) -> None:
    """New passwords of PostgreSQL and Redis under load: no request lost, no restart."""
    cluster.kubectl("apply", "--filename=-", input_=manifest(passwords()))
    small = Small(cluster, tmp_path / "overlay")
    small.write("secret-files", auth="off")
    small.apply()
    small.ready()
    old = {
        name: cluster.get("secret", name)["data"] for name in ("redis-secret", "credenza-passwords")
    }
    pods = _containers(cluster)
    first, second = cluster.ready("credenza")
    with (
        cluster.forwarded(f"pod/{first}", 8000) as one,
        cluster.forwarded(f"pod/{second}", 8000) as two,
    ):
        with Load(one, clients=6) as left, Load(two, clients=6) as right:
            left.until(200)
            right.until(200)
            before, begin = cluster.sql("SELECT clock_timestamp()"), time.monotonic()
            assert _used(cluster, "infinity") > 0
            run("scripts/rotate-passwords.sh", cluster.namespace)
            took = time.monotonic() - begin
            wait("what was logged in before is out of use", lambda: _used(cluster, before) == 0)
            left.until(REQUESTS // 2)
            right.until(REQUESTS // 2)
        kept = left.settle() + right.settle()
    for name, values in old.items():
        assert cluster.get("secret", name)["data"] != values
    assert _containers(cluster) == pods, "a container was restarted"
    lost, requests = left.lost + right.lost, left.requests + right.requests
    measured(
        f"{len(lost)} of {len(requests)} requests lost; both in use after {took:.0f} s; "
        f"{kept} acknowledged writes all there"
    )
    assert lost == [], left.outcomes() + "; " + right.outcomes()


def _used(cluster: Cluster, before: str) -> int:
    """Return how many connections of the service are in use that were made before a time."""
    return int(
        cluster.sql(
            "SELECT count(*) FROM pg_stat_activity WHERE application_name = 'credenza' "
            f"AND backend_start < '{before}' AND query_start > now() - interval '1 s'"
        )
    )


def _containers(cluster: Cluster) -> dict[str, Any]:
    """Return each container that runs, with how often it was restarted."""
    return {
        container["containerID"]: container["restartCount"]
        for pod in cluster.get("pods")["items"]
        for container in pod["status"]["containerStatuses"]
    }


def test_published_passwords(cluster: Cluster, tmp_path: Path) -> None:
    """Staging does not start with a password of development; prod's is nobody's to make up."""
    secrets = passwords()
    published = secrets["app-secret"] | {"AUTH_TOKEN": "dev-only-token"}
    cluster.kubectl("apply", "--filename=-", input_=manifest(secrets | {"app-secret": published}))
    small = Small(cluster, tmp_path / "overlay")
    small.write()
    small.apply()
    logs = ("logs", "deployment/credenza", "--container=migrate")
    said = wait(
        "it stops",
        lambda: "with a password" in (told := cluster.kubectl(*logs, check=False)) and told,
    )
    assert "ENVIRONMENT=staging with a password that is published, in AUTH_TOKEN" in said
    assert "dev-only-token" not in said
    assert cluster.ready("credenza") == []
    cluster.kubectl("delete", "secret", "app-secret")
    made = run("bash", "-c", f"! scripts/make-secrets.sh {cluster.namespace} prod 2>&1")
    assert "has no app-secret" in made
