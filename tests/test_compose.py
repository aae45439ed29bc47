"""The Compose file: it starts nothing without secrets, opens nothing, and is what the cluster runs.

No engine is needed here; `drills/test_compose.py` runs it.
"""

import re
import shutil
import subprocess
from collections.abc import Iterator
from itertools import pairwise
from pathlib import Path
from typing import Any

import pytest
import yaml

ROOT = Path(__file__).parent.parent
TEXT = (ROOT / "docker-compose.yml").read_text()
COMPOSE: dict[str, Any] = yaml.safe_load(TEXT)
SERVICES: dict[str, dict[str, Any]] = COMPOSE["services"]
SECRETS = re.findall(r"^([A-Z_]+)=$", (ROOT / ".env.example").read_text(), re.MULTILINE)
MANIFESTS = {
    "app": "k8s/base/app/deployment.yaml",
    "postgres": "k8s/base/postgres/stateful-set.yaml",
    "redis": "k8s/base/redis/deployment.yaml",
    "prometheus": "monitoring/prometheus/stateful-set.yaml",
    "alertmanager": "monitoring/alertmanager/stateful-set.yaml",
    "grafana": "monitoring/grafana/deployment.yaml",
}


def pod(name: str) -> dict[str, Any]:
    """Return what the cluster runs for a service: the specification of its pod."""
    found: dict[str, Any] = yaml.safe_load((ROOT / MANIFESTS[name]).read_text())
    spec: dict[str, Any] = found["spec"]["template"]["spec"]
    return spec


def container(name: str) -> dict[str, Any]:
    """Return the one container of that pod."""
    (found,) = pod(name)["containers"]
    return dict(found)


def literals(name: str) -> dict[str, str]:
    """Return the variables of that container that stand in the manifest."""
    variables = container(name).get("env", [])
    return {item["name"]: item["value"] for item in variables if "value" in item}


def plain(name: str) -> dict[str, str]:
    """Return the variables of a service that the cluster does not take from a Secret."""
    variables = container(name).get("env", [])
    secret = {item["name"] for item in variables if "valueFrom" in item}
    found: dict[str, str] = SERVICES[name].get("environment", {})
    return {key: text for key, text in found.items() if key not in secret}


def test_all_are_there_without_a_profile() -> None:
    """`docker compose up` starts all that the manifests have."""
    assert SERVICES.keys() == MANIFESTS.keys()
    assert not [name for name, service in SERVICES.items() if "profiles" in service]


def test_nothing_is_rendered_without_secrets() -> None:
    """Each variable either has a default, which is a port, or stops Compose where it is not set."""
    references = re.findall(r"\$\{(\w+)(:[-?])([^}]*)\}", TEXT)
    assert len(references) == TEXT.count("$")
    required = {name for name, kind, _ in references if kind == ":?"}
    assert required == set(SECRETS)
    optional = {name: value for name, kind, value in references if kind == ":-"}
    assert all(name.endswith("_PORT") and value.isdigit() for name, value in optional.items())


@pytest.mark.parametrize("name", SERVICES)
def test_no_secret_stands_in_the_file(name: str) -> None:
    """A password, token or URL is a reference, in variables and arguments alike."""
    service = SERVICES[name]
    pairs = [*service.get("environment", {}).items(), *pairwise(service.get("command", []))]
    for key, value in pairs:
        if re.fullmatch(r"--requirepass|\w+(PASSWORD|TOKEN|AUTH|URL)", key):
            assert re.search(r"\$\{\w+:\?", value), key


@pytest.mark.parametrize("name", SERVICES)
def test_ports_are_on_loopback(name: str) -> None:
    """Only this machine reaches what is published; database and cache publish nothing."""
    ports = SERVICES[name].get("ports", [])
    assert bool(ports) == (name in {"app", "prometheus", "alertmanager", "grafana"})
    for port in ports:
        assert re.fullmatch(r"127\.0\.0\.1:\$\{\w+:-\d+\}:\d+", port)


@pytest.mark.parametrize("name", SERVICES)
def test_containers_are_confined(name: str) -> None:
    """Read-only, without capabilities; what is written is in memory or in a volume."""
    service = SERVICES[name]
    assert service["read_only"] is True
    assert service["cap_drop"] == ["ALL"]
    assert service["security_opt"] == ["no-new-privileges:true"]
    assert not {"privileged", "cap_add", "network_mode", "pid"} & service.keys()
    for mount in service.get("volumes", []):
        of_the_repository = mount.startswith("./")
        assert of_the_repository == mount.endswith(":ro")
        assert of_the_repository or mount.split(":")[0] in COMPOSE["volumes"]


@pytest.mark.parametrize("name", SERVICES)
def test_each_has_a_health_check(name: str) -> None:
    """Compose knows when each is ready; the service's own check is in its image."""
    check = SERVICES[name]["healthcheck"]
    has_test = "test" in check
    assert has_test != (name == "app")
    assert has_test or "HEALTHCHECK" in (ROOT / "Dockerfile").read_text()
    assert {"interval", "timeout", "start_period", "retries"} <= check.keys()
    assert SERVICES[name]["restart"] == "unless-stopped"


def test_who_needs_whom_waits() -> None:
    """What a service needs is healthy before it starts."""
    needs = {name: service.get("depends_on", {}) for name, service in SERVICES.items()}
    assert needs["app"].keys() == {"postgres", "redis"}
    conditions = [need["condition"] for found in needs.values() for need in found.values()]
    assert set(conditions) == {"service_healthy"}


def test_only_the_service_reaches_database_and_cache() -> None:
    """PostgreSQL and Redis share a network with the service alone, which leads nowhere."""
    for name in ("postgres", "redis"):
        (network,) = SERVICES[name]["networks"]
        members = {name for name, service in SERVICES.items() if network in service["networks"]}
        assert members == {"app", name}
        assert COMPOSE["networks"][network] == {"internal": True}
    for name in ("grafana", "alertmanager"):
        assert not set(SERVICES[name]["networks"]) & set(SERVICES["app"]["networks"])


@pytest.mark.parametrize("name", SERVICES)
def test_images_and_limits_are_those_of_the_cluster(name: str) -> None:
    """The same image with the same share of the machine; only the service's own is `latest`."""
    service, found = SERVICES[name], container(name)
    assert service["image"] == found["image"]
    assert ("build" in service) == service["image"].endswith(":latest") == (name == "app")
    limits = found["resources"]["limits"]
    assert service["deploy"]["resources"]["limits"] == {
        "cpus": f"{int(limits['cpu'].removesuffix('m')) / 1000:g}",
        "memory": limits["memory"].replace("Mi", "M"),
    }


@pytest.mark.parametrize("name", SERVICES)
def test_programs_start_as_in_the_cluster(name: str) -> None:
    """Arguments, variables, user and time to stop are the manifest's, secrets apart."""
    service, found, specification = SERVICES[name], container(name), pod(name)
    assert name == "app" or plain(name) == literals(name)  # its settings: the test below
    assert service.get("entrypoint") == found.get("command")
    if "command" in service:
        assert [re.sub(r"\$[{(](\w+).*", r"\1", part) for part in service["command"]] == [
            re.sub(r"\$[{(](\w+).*", r"\1", part) for part in found["args"]
        ]
    if "user" in service:
        context = specification["securityContext"]
        assert service["user"] == f"{context['runAsUser']}:{context['runAsGroup']}"
    grace = specification.get("terminationGracePeriodSeconds", 30)
    assert service.get("stop_grace_period", f"{grace}s") == f"{grace}s"


def test_the_service_has_the_settings_of_the_cluster() -> None:
    """Settings that are no secret come from the manifests' file; a token is asked for."""
    app = SERVICES["app"]
    assert app["env_file"] == "k8s/base/app/config.env"
    assert app["environment"]["AUTH"] == "token"
    assert app["environment"]["ENVIRONMENT"] == "compose"
    assert app["init"] is False
    config = (ROOT / app["env_file"]).read_text()
    (port,) = re.findall(r"^METRICS_PORT=(\d+)$", config, re.MULTILINE)
    assert f"app:{port}" in (ROOT / "monitoring/prometheus/compose.yml").read_text()


def mounts(name: str) -> dict[str, Path]:
    """Return what of the repository a service sees, by its place in the container."""
    pairs = (mount.split(":") for mount in SERVICES[name]["volumes"])
    return {pair[1]: ROOT / pair[0] for pair in pairs if pair[0].startswith(".")}


def cluster_mounts(name: str) -> Iterator[tuple[dict[str, Any], str, list[Path]]]:
    """Yield each ConfigMap of a container with its place and the files that it is made from."""
    folder = ROOT / "monitoring" / name
    generators = yaml.safe_load((folder / "kustomization.yaml").read_text())["configMapGenerator"]
    files = {item["name"]: [folder / path for path in item["files"]] for item in generators}
    maps = {item["name"]: item.get("configMap", {}) for item in pod(name)["volumes"]}
    for mount in container(name)["volumeMounts"]:
        if found := maps.get(mount["name"]):
            yield found, mount["mountPath"], files[found["name"]]


def test_grafana_sees_the_files_of_the_cluster() -> None:
    """Data sources, providers and dashboards are the same files in the same places."""
    found: dict[str, list[Path]] = {}
    for place, path in mounts("grafana").items():
        of_one = path.is_file()
        files = found.setdefault(str(Path(place).parent) if of_one else place, [])
        files += [path] if of_one else sorted(path.iterdir())
    assert found == {place: sorted(files) for _, place, files in cluster_mounts("grafana")}


def test_alertmanager_sees_the_files_of_the_cluster() -> None:
    """Configuration, script and templates are the same files in the same places; secrets too."""
    ((volume, place, files),) = cluster_mounts("alertmanager")
    there = mounts("alertmanager")
    keys = {path.name: path for path in files}
    assert {there[place] / item["path"]: item["key"] for item in volume["items"]} == {
        path: key for key, path in keys.items()
    }
    secrets = {
        item["name"]: item["mountPath"] for item in container("alertmanager")["volumeMounts"]
    }
    assert there[secrets["secrets"]] == ROOT / "secrets/alertmanager"


def test_secrets_of_alerts_are_not_in_git() -> None:
    """The folder is there for Compose to mount, and all in it is ignored."""
    folder = ROOT / "secrets/alertmanager"
    rules = (folder / ".gitignore").read_text().splitlines()
    assert [rule for rule in rules if not rule.startswith("#")] == ["*", "!.gitignore"]


def make_env(folder: Path) -> dict[str, str]:
    """Run `make .env` in a folder and return what stands in the file."""
    for name in ("Makefile", ".env.example"):
        shutil.copy(ROOT / name, folder)
    subprocess.run(["make", "-C", folder, ".env"], check=True, capture_output=True, timeout=60)
    lines = (folder / ".env").read_text().splitlines()
    return dict(line.split("=", 1) for line in lines)


def test_make_fills_what_is_missing_and_nothing_else(tmp_path: Path) -> None:
    """`make .env` makes each secret once; it keeps what is there, readable by its owner alone."""
    if shutil.which("make") is None or shutil.which("openssl") is None:
        pytest.skip("needs make and openssl: apt-get install make openssl")
    made = make_env(tmp_path)
    assert made.keys() == set(SECRETS)
    assert all(re.fullmatch(r"[0-9a-f]{48}", value) for value in made.values())
    assert len(set(made.values())) == len(made)
    assert (tmp_path / ".env").stat().st_mode & 0o077 == 0
    assert make_env(tmp_path) == made
    kept = {name: value for name, value in made.items() if name != "AUTH_TOKEN"} | {"MORE": "1"}
    (tmp_path / ".env").write_text("\n".join(f"{name}={value}" for name, value in kept.items()))
    again = make_env(tmp_path)
    assert again.items() >= kept.items()
    assert again["AUTH_TOKEN"] not in {"", made["AUTH_TOKEN"]}


def test_secrets_are_not_in_git() -> None:
    """`.env` is ignored, and its example has names with a line about each, and no value."""
    assert ".env" in (ROOT / ".gitignore").read_text().split()
    lines = (ROOT / ".env.example").read_text().splitlines()
    for number, line in enumerate(lines):
        assert line == "" or line[0] == "#" or line.removesuffix("=") in SECRETS
        if line.endswith("="):
            assert lines[number - 1].startswith("# ")
            assert "openssl rand -hex 24" in lines[number - 1]
