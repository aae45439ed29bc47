"""Development, staging and production: each differs where it must, and keeps its promises."""

import re
from collections.abc import Callable
from typing import Any

import pytest
import yaml

from manifests import (
    ANYONE,
    OVERLAYS,
    Object,
    admitted,
    container,
    containers,
    kind,
    one,
    pod,
    pods,
    render,
    render_with,
    settings,
)

SHARED = [name for name in OVERLAYS if name != "dev"]
"""The environments that others use: nothing in them may be what anyone can read in Git."""

HOUSE = "credenza"

TAGS = {
    "dev": re.compile(r"credenza:latest"),
    "staging": re.compile(r"registry\.example\.com/credenza:sha-[0-9a-f]{7,40}"),
    "prod": re.compile(r"registry\.example\.com/credenza:v\d+\.\d+\.\d+@sha256:[0-9a-f]{64}"),
}


def images(objects: list[Object]) -> set[str]:
    """Return the images that the pods of an environment run."""
    return {each["image"] for _, made in pods(objects) for each in containers(made["spec"])}


def scale(objects: list[Object]) -> tuple[int | None, int | None]:
    """Return how many replicas the service has, and how many it may have."""
    found = kind(objects, "HorizontalPodAutoscaler")
    most = found[0]["spec"]["maxReplicas"] if found else None
    return one(objects, "Deployment")["spec"].get("replicas"), most


def hosts(objects: list[Object]) -> list[str]:
    """Return the names by which the Ingress is reached; none in development."""
    found = kind(objects, "Ingress")
    return [rule["host"] for ingress in found for rule in ingress["spec"]["rules"]]


DIFFERENT: dict[str, Callable[[list[Object]], Any]] = {
    "scale": scale,
    "resources": lambda objects: container(objects, HOUSE)["resources"],
    "log level": lambda objects: settings(objects)["LOG_LEVEL"],
    "namespace": lambda objects: one(objects, "Deployment")["metadata"]["namespace"],
    "image": lambda objects: container(objects, HOUSE)["image"],
    "host": hosts,
}


def test_the_three_environments_are_there() -> None:
    """There are development, staging and production, and no other that these tests do not know."""
    assert set(OVERLAYS) == {"dev", "staging", "prod"}


@pytest.mark.parametrize("what", DIFFERENT)
def test_environments_differ(what: str) -> None:
    """No two environments have the same of what has to differ."""
    values = [DIFFERENT[what](render(overlay)) for overlay in OVERLAYS]
    assert all(value not in values[:place] for place, value in enumerate(values)), values


@pytest.mark.parametrize("overlay", OVERLAYS)
def test_images_are_named_as_they_should(overlay: str) -> None:
    """Development runs `latest`, staging a commit, production a release with its digest."""
    found = images(render(overlay))
    own = {image for image in found if HOUSE in image}
    assert len(own) == 1, "all containers of the service run one image"
    assert TAGS[overlay].fullmatch(own.pop())
    for image in found - {"credenza:latest"}:
        assert re.search(r":(?!latest\b)[\w.-]+(@sha256:[0-9a-f]{64})?$", image), image


@pytest.mark.parametrize("overlay", SHARED)
def test_autoscaling_owns_the_replicas(overlay: str) -> None:
    """Where the autoscaler is, it alone says how many replicas there are: two at least."""
    objects = render(overlay)
    spec = one(objects, "HorizontalPodAutoscaler")["spec"]
    assert spec["minReplicas"] == 2
    assert spec["maxReplicas"] > 2
    assert spec["scaleTargetRef"] == {"apiVersion": "apps/v1", "kind": "Deployment", "name": HOUSE}
    assert {metric["resource"]["name"] for metric in spec["metrics"]} == {"cpu", "memory"}
    assert "replicas" not in one(objects, "Deployment")["spec"]


@pytest.mark.parametrize("overlay", SHARED)
def test_nothing_secret_is_in_git(overlay: str) -> None:
    """Outside of development there is no Secret in the manifests, and no published password."""
    objects = render(overlay)
    assert kind(objects, "Secret") == []
    assert "dev-only" not in yaml.safe_dump_all(objects)
    assert settings(objects)["AUTH"] == "token"


@pytest.mark.parametrize("overlay", SHARED)
def test_shared_environments_are_reached_by_https(overlay: str) -> None:
    """The Ingress has a certificate for each of its hosts; no port is open on the nodes."""
    objects = render(overlay)
    spec = one(objects, "Ingress")["spec"]
    assert spec["ingressClassName"] == "traefik"
    assert {host for tls in spec["tls"] for host in tls["hosts"]} == set(hosts(objects))
    assert {found["spec"]["type"] for found in kind(objects, "Service")} == {"ClusterIP"}


GRAFANA, PROMETHEUS = (
    {
        "podSelector": {
            "matchLabels": {
                "app.kubernetes.io/name": name,
                "app.kubernetes.io/part-of": "credenza",
            }
        }
    }
    for name in ("grafana", "prometheus")
)
ADAPTER = {
    "namespaceSelector": {"matchLabels": {"kubernetes.io/metadata.name": "monitoring"}},
    "podSelector": {"matchLabels": {"app.kubernetes.io/name": "prometheus-adapter"}},
}


@pytest.mark.parametrize("overlay", SHARED)
def test_monitoring_is_closed(overlay: str) -> None:
    """Grafana alone may reach Prometheus, Prometheus alone Alertmanager, and nobody Grafana."""
    objects = render(overlay)
    assert admitted(objects, "prometheus") == [GRAFANA]
    assert admitted(objects, "alertmanager") == [PROMETHEUS]
    assert admitted(objects, "grafana") == []


def test_monitoring_is_open_on_ports_of_nodes() -> None:
    """With `nodeport`, as in development, any source may reach Prometheus and Grafana."""
    for objects in (render("dev"), render_with("nodeport", "staging")):
        assert admitted(objects, "prometheus") == [ANYONE]
        assert admitted(objects, "alertmanager") == [PROMETHEUS]
        assert admitted(objects, "grafana") == [ANYONE]


@pytest.mark.parametrize("overlay", SHARED)
def test_adapter_may_ask_prometheus(overlay: str) -> None:
    """With `custom-metrics-hpa` the adapter may ask Prometheus too, and nobody else may."""
    objects = render_with("custom-metrics-hpa", overlay)
    assert admitted(objects, "prometheus") == [GRAFANA, ADAPTER]
    assert admitted(objects, "grafana") == []


def test_production_has_no_database_in_the_cluster() -> None:
    """PostgreSQL and Redis of production are managed elsewhere; staging has its own."""
    assert {"postgres", "redis"} & {found["metadata"]["name"] for found in render("prod")} == set()
    assert one(render("staging"), "StatefulSet", "postgres")
    assert one(render("staging"), "Deployment", "redis")


DEV_RESOURCES = {
    "credenza": (("100m", "128Mi"), ("200m", "256Mi")),
    "postgres": (("100m", "256Mi"), ("500m", "512Mi")),
    "redis": (("50m", "64Mi"), ("100m", "128Mi")),
    "prometheus": (("100m", "256Mi"), ("200m", "512Mi")),
}


@pytest.mark.parametrize("name", DEV_RESOURCES)
def test_development_has_the_promised_resources(name: str) -> None:
    """Each container of the pod requests and is limited to the CPU and memory of the design."""
    (cpu, memory), (most_cpu, most_memory) = DEV_RESOURCES[name]
    for each in containers(pod(render("dev"), name)):
        assert each["resources"] == {
            "requests": {"cpu": cpu, "memory": memory},
            "limits": {"cpu": most_cpu, "memory": most_memory},
        }


@pytest.mark.parametrize("name", [*DEV_RESOURCES, "alertmanager", "grafana"])
def test_development_has_the_promised_probes(name: str) -> None:
    """Readiness is asked after 5 s, liveness after 10 s."""
    found = container(render("dev"), name)
    delays = {"readinessProbe": 5, "livenessProbe": 10}
    assert {probe: found[probe]["initialDelaySeconds"] for probe in delays} == delays


def test_development_asks_in_the_promised_way() -> None:
    """The probes ask each program by its own means."""
    objects = render("dev")
    postgres = container(objects, "postgres")
    for probe in ("startupProbe", "readinessProbe", "livenessProbe"):
        assert postgres[probe]["exec"]["command"][:3] == ["pg_isready", "-U", "devops"]
    assert container(objects, "prometheus")["livenessProbe"]["httpGet"]["path"] == "/-/healthy"
    paths = {
        probe: container(objects, HOUSE)[f"{probe}Probe"]["httpGet"]["path"]
        for probe in ("startup", "readiness", "liveness")
    }
    assert paths == {
        "startup": "/health/startup",
        "readiness": "/health/ready",
        "liveness": "/health/live",
    }


def test_development_is_on_the_promised_ports() -> None:
    """The API, Prometheus and Grafana are on fixed ports of every node, and nothing else is."""
    found = {
        service["metadata"]["name"]: port["nodePort"]
        for service in kind(render("dev"), "Service")
        for port in service["spec"]["ports"]
        if "nodePort" in port
    }
    assert found == {"credenza": 30080, "prometheus": 30090, "grafana": 30030}


def test_development_has_two_replicas_and_a_volume() -> None:
    """Two replicas without an autoscaler, and 1Gi for PostgreSQL in a StatefulSet."""
    objects = render("dev")
    assert scale(objects) == (2, None)
    (claim,) = one(objects, "StatefulSet", "postgres")["spec"]["volumeClaimTemplates"]
    assert claim["spec"]["resources"]["requests"]["storage"] == "1Gi"


def test_development_has_the_promised_secrets() -> None:
    """The Secrets of the design are there with their keys, and their URLs have their passwords."""
    found = {each["metadata"]["name"]: each["stringData"] for each in kind(render("dev"), "Secret")}
    postgres, redis = found["postgres-secret"], found["redis-secret"]
    assert set(postgres) == {"POSTGRES_USER", "POSTGRES_PASSWORD", "POSTGRES_DB"}
    assert postgres["POSTGRES_USER"] == "devops"
    credentials = f"devops:{postgres['POSTGRES_PASSWORD']}"
    assert found["app-secret"] == {
        "DATABASE_URL": f"postgresql://{credentials}@postgres:5432/{postgres['POSTGRES_DB']}",
        "REDIS_URL": f"redis://:{redis['REDIS_PASSWORD']}@redis:6379/0",
    }
