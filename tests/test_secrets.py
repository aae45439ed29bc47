"""No password in Git in plain text but development's, and the ways to bring others fit the pods."""

import re
import subprocess
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import yaml

from alerting import CONFIG, SECRETS
from manifests import ROOT, Object, container, containers, kind, one, pod, render, render_with
from test_platform import references

PARTS = ("k8s", "charts", "argocd", "monitoring")
DEV = ROOT / "k8s/overlays/dev"
PAGE = (ROOT / "docs/how-to/secrets.md").read_text()
ROW = re.compile(r"^\| `(?P<name>[\w-]+)` \| (?P<keys>[^|]*`[^|]*) \|", re.MULTILINE)
LISTED = {found["name"]: set(re.findall(r"`(\w+)`", found["keys"])) for found in ROW.finditer(PAGE)}
STORES = sorted(path.name for path in ROOT.glob("k8s/components/external-secrets/stores/*"))
FILES = ("DATABASE_PASSWORD", "REDIS_PASSWORD", "AUTH_TOKEN")


def plain(text: str) -> list[str]:
    """Return the Secrets of a text that anyone can read; SOPS marks what it has encrypted."""
    found = [each for each in yaml.safe_load_all(text) if isinstance(each, dict)]
    return [
        each["metadata"]["name"]
        for each in found
        if each.get("kind") == "Secret"
        for value in [*(each.get("data") or {}).values(), *(each.get("stringData") or {}).values()]
        if not str(value).startswith("ENC[")
    ]


def manifests_in_git() -> Iterator[Path]:
    """Yield the YAML files that are plain ones, and not templates of Helm."""
    for part in PARTS:
        for path in sorted((ROOT / part).rglob("*.y*ml")):
            if "templates" not in path.parts and DEV not in path.parents:
                yield path


SECRET = "kind: Secret\nmetadata: {name: found}\n"


@pytest.mark.parametrize(
    ("text", "found"),
    [
        (SECRET + "stringData: {A: secret}", ["found"]),
        (SECRET + "data: {A: c2VjcmV0}", ["found"]),
        (SECRET + "stringData: {A: 'ENC[AES256_GCM,data:x]'}", []),
        ("kind: SealedSecret\nmetadata: {name: found}\nspec: {encryptedData: {A: x}}", []),
        ("kind: ConfigMap\n---\n" + SECRET + "stringData: {A: secret}", ["found"]),
    ],
)
def test_plain_secrets_are_found(text: str, found: list[str]) -> None:
    """What has a readable value is found, and what is encrypted is not."""
    assert plain(text) == found


def test_no_plain_secret_is_in_git() -> None:
    """Outside of development there is no Secret with a value that anyone can read."""
    paths = list(manifests_in_git())
    assert len(paths) > 50
    assert {str(path): plain(path.read_text()) for path in paths if plain(path.read_text())} == {}


def test_sops_has_no_key_of_anybody() -> None:
    """`.sops.yaml` has a rule for each shared environment, for values, and names no real key."""
    rules = yaml.safe_load((ROOT / ".sops.yaml").read_text())["creation_rules"]
    for environment, rule in zip(("staging", "prod"), rules, strict=True):
        assert re.search(rule["path_regex"], f"k8s/overlays/{environment}/secrets.sops.yaml")
        assert rule["age"] == f"put-the-public-key-of-{environment}-here"
        assert [re.match(rule["encrypted_regex"], key) for key in ("data", "stringData")]
        assert not re.match(rule["encrypted_regex"], "metadata")


def test_the_plugin_of_argocd_renders_and_decrypts() -> None:
    """It takes environments with the file that deploy.sh takes, and is mounted as it is named."""
    folder = ROOT / "k8s/components/sops/argocd"
    plugin = yaml.safe_load((folder / "plugin.yaml").read_text())
    assert plugin["kind"] == "ConfigManagementPlugin"
    name = plugin["spec"]["discover"]["fileName"].removeprefix("./")
    assert f"/{name}" in (ROOT / "scripts/deploy.sh").read_text()
    assert f"sops decrypt {name}" in plugin["spec"]["generate"]["args"][-1]
    spec = yaml.safe_load((folder / "repo-server.yaml").read_text())["spec"]["template"]["spec"]
    names = [each["name"] for each in containers(spec)]
    assert len(names) == len(set(names)), "a pod's containers have names of their own"
    assert spec["containers"][0]["securityContext"]["runAsUser"] == 999, "Argo CD asks for it"


@pytest.mark.parametrize("overlay", ["staging", "prod"])
def test_passwords_come_as_files(overlay: str) -> None:
    """The service reads each password from a file of credenza-passwords, which can change."""
    objects = render_with("secret-files", overlay)
    spec = pod(objects, "credenza")
    volume = next(each for each in spec["volumes"] if each["name"] == "passwords")
    assert volume["secret"]["secretName"] == "credenza-passwords"
    for each in containers(spec):
        mount = next(found for found in each["volumeMounts"] if found["name"] == "passwords")
        assert mount["readOnly"] is True
        assert "subPath" not in mount, "such a file never changes"
        paths = {env["name"]: env["value"] for env in each["env"] if env["name"].endswith("_FILE")}
        names = FILES if each["name"] == "credenza" else ("DATABASE_PASSWORD", "AUTH_TOKEN")
        assert paths == {f"{name}_FILE": f"{mount['mountPath']}/{name}" for name in names}
    assert LISTED["credenza-passwords"] == set(FILES)


def test_alertmanager_reads_files_of_one_secret() -> None:
    """Each secret of alerts is a key of one Secret, which may be missing; none is a variable."""
    spec = pod(render("prod"), "alertmanager")
    volume = next(each["secret"] for each in spec["volumes"] if "secret" in each)
    assert volume["optional"] is True
    assert LISTED[volume["secretName"]] == set(SECRETS)
    (mount,) = (each for each in spec["containers"][0]["volumeMounts"] if each["name"] == "secrets")
    assert "subPath" not in mount, "such a file never changes"
    assert set(re.findall(rf"_file: {mount['mountPath']}/(\w+)\n", CONFIG)) == set(SECRETS)
    assert "env" not in spec["containers"][0]


def test_probes_of_redis_know_the_new_password() -> None:
    """With files, Redis is asked with the password as it is, not as it was at its start."""
    redis = container(render_with("secret-files", "staging"), "redis")
    mount = next(each for each in redis["volumeMounts"] if each["name"] == "passwords")
    for probe in ("readinessProbe", "livenessProbe"):
        assert f"cat {mount['mountPath']}/REDIS_PASSWORD" in redis[probe]["exec"]["command"][-1]


@pytest.mark.parametrize("overlay", ["dev", "staging", "prod"])
def test_the_page_lists_what_pods_read(overlay: str) -> None:
    """Each Secret and key that a pod reads, also if it may be missing, is in the page's table."""
    objects = render(overlay)
    read = {found for found in _read(objects) if found[0] != "credenza-tls"}
    assert {name for name, _ in references(objects, "Secret")} <= set(LISTED) | {"credenza-tls"}
    assert {(name, key) for name, key in read if key not in LISTED.get(name, set())} == set()


def _read(objects: list[Object]) -> Iterator[tuple[str, str]]:
    for name in ("credenza", "postgres", "redis", "grafana"):
        if not [
            found for found in objects if found["metadata"]["name"] == name and "spec" in found
        ]:
            continue
        for each in _pods_named(objects, name):
            for env in each.get("env", []):
                if "secretKeyRef" in env.get("valueFrom", {}):
                    found = env["valueFrom"]["secretKeyRef"]
                    yield found["name"], found["key"]


def _pods_named(objects: list[Object], name: str) -> list[Object]:
    found = [
        each
        for each in kind(objects, "Deployment", "StatefulSet")
        if each["metadata"]["name"] == name
    ]
    return [each for owner in found for each in containers(owner["spec"]["template"]["spec"])]


def _external(part: str) -> list[Object]:
    return render_with(f"external-secrets/{part}" if part else "external-secrets", "staging")


@pytest.mark.parametrize("store", STORES)
def test_stores_log_in_by_their_service_account(store: str) -> None:
    """Each store is the one that the ExternalSecrets name, and no key of it lies in the cluster."""
    objects = _external(f"stores/{store}")
    made = one(objects, "SecretStore")
    assert (
        one(objects, "ServiceAccount", "credenza-secrets")["automountServiceAccountToken"] is False
    )
    assert "secretRef" not in yaml.safe_dump(made)
    assert "credenza-secrets" in yaml.safe_dump(made["spec"])


def test_external_secrets_make_what_the_page_lists() -> None:
    """Together the components make each Secret of the table, and keep what the store loses."""
    made: dict[str, Any] = {}
    for part in ("", "databases", "passwords", "alerts"):
        made |= {
            each["metadata"]["name"]: each["spec"]
            for each in kind(_external(part), "ExternalSecret")
        }
    assert set(made) == set(LISTED)
    for name, spec in made.items():
        assert spec["target"] == {
            "name": name,
            "creationPolicy": "Owner",
            "deletionPolicy": "Retain",
        }
        assert spec["secretStoreRef"] == {"kind": "SecretStore", "name": "credenza"}
        entry = f"credenza-{name.removeprefix('credenza-')}"
        assert spec["dataFrom"] == [{"extract": {"key": entry}}]


def test_vault_makes_the_same_passwords() -> None:
    """Vault's ExternalSecret makes the keys of credenza-passwords, from what its policy allows."""
    objects = render_with("vault", "staging")
    spec = one(objects, "ExternalSecret", "credenza-passwords")["spec"]
    assert set(spec["target"]["template"]["data"]) == LISTED["credenza-passwords"]
    path = one(objects, "VaultDynamicSecret", "credenza-database")["spec"]["path"]
    policy = (ROOT / "k8s/components/vault/policy.hcl").read_text()
    assert f'path "{path.removeprefix("/")}"' in policy


def test_sealing_needs_an_environment(tmp_path: Path) -> None:
    """The script refuses an environment that is not there by its name, before it reads."""
    done = subprocess.run(
        [ROOT / "scripts/seal.sh", "nowhere"],
        capture_output=True,
        text=True,
        check=False,
        cwd=tmp_path,
    )
    assert done.returncode == 1
    assert done.stderr == "seal: there is no environment nowhere\n"


def test_controller_may_open_here_alone() -> None:
    """The controller's rights in an environment are a Role's, bound to its one account."""
    objects = render_with("sealed-secrets", "staging")
    binding = one(objects, "RoleBinding", "sealed-secrets")
    assert binding["roleRef"]["kind"] == "Role"
    account = {
        "kind": "ServiceAccount",
        "name": "sealed-secrets-controller",
        "namespace": "kube-system",
    }
    assert binding["subjects"] == [account]
    assert not kind(objects, "ClusterRole", "ClusterRoleBinding")
