"""Traces and logs on their way: who may send what to whom, and that all packagings say the same.

`make observe` runs the same configuration; tests/test_parity.py holds the chart against k8s/.
"""

import re
from collections.abc import Iterator
from typing import Any

import pytest
import yaml

import manifests
import pod_rules
from charts import ENVIRONMENTS, template
from credenza.tallies import Tally
from credenza.tracing import Traced
from manifests import ROOT, Object, admitted, kustomize, load, one, pod, title
from test_compose import COMPOSE
from test_platform import OF_NODES, valid

MONITORING = ROOT / "monitoring"
BESIDE: dict[str, Any] = yaml.safe_load((ROOT / "docker-compose.observe.yml").read_text())
ADDED = {
    name: service for name, service in BESIDE["services"].items() if name not in COMPOSE["services"]
}
MANIFESTS = {
    "collector": "collector/traces/stateful-set.yaml",
    "node-logs": "collector/logs/daemon-set.yaml",
    "jaeger": "jaeger/stateful-set.yaml",
    "loki": "loki/stateful-set.yaml",
}
ON = ("tracing.enabled=true", "logs.enabled=true")


def of(name: str) -> Object:
    """Return a selector of the pods of a part."""
    labels = {"app.kubernetes.io/name": name, "app.kubernetes.io/part-of": "credenza"}
    return {"podSelector": {"matchLabels": labels}}


def datasource(path: str) -> Any:
    """Return the one data source of a file."""
    (found,) = yaml.safe_load((MONITORING / path).read_text())["datasources"]
    return found


def container(name: str) -> Object:
    """Return the container that the cluster has of a part."""
    found: Object = yaml.safe_load((MONITORING / MANIFESTS[name]).read_text())
    (one_,) = found["spec"]["template"]["spec"]["containers"]
    return dict(one_)


def test_each_edge_is_allowed_and_no_other() -> None:
    """The service reaches the collector, that Jaeger, the nodes' collectors Loki; Grafana both."""
    objects = template("prod", *ON)
    nodes = of("node-logs") | {
        "namespaceSelector": {"matchLabels": {"app.kubernetes.io/part-of": "credenza"}}
    }
    assert admitted(objects, "collector") == [of("credenza"), of("prometheus")]
    assert admitted(objects, "jaeger") == [of("collector"), of("grafana"), of("prometheus")]
    assert admitted(objects, "loki") == [nodes, of("grafana"), of("prometheus")]
    assert reached(objects, "jaeger") == reached(objects, "loki") == []
    assert reached(objects, "collector") == [("jaeger", 4318)]
    assert ("collector", 4318) in reached(objects, "credenza")
    assert set(reached(objects, "grafana")) == {
        ("prometheus", 9090),
        ("jaeger", 16686),
        ("loki", 3100),
    }


def reached(objects: list[Object], name: str) -> list[tuple[str, int]]:
    """Return which part's pods the pods of another may reach, and at which ports."""
    return [
        (peer["podSelector"]["matchLabels"]["app.kubernetes.io/name"], port["port"])
        for policy in manifests.kind(objects, "NetworkPolicy")
        if policy["spec"]["podSelector"] == of(name)["podSelector"]
        for rule in policy["spec"].get("egress", [])
        for peer in rule.get("to", [])
        if "podSelector" in peer
        for port in rule["ports"]
    ]


@pytest.mark.parametrize("environment", ENVIRONMENTS)
def test_who_sees_a_node_is_apart(environment: str) -> None:
    """It breaks "restricted" where it must and nowhere else, alone in a namespace that lets it."""
    objects = load(kustomize(ROOT / "k8s/node-logs" / environment))
    for found in objects:
        valid(found)
    (namespace,) = manifests.kind(objects, "Namespace")
    assert namespace["metadata"]["name"] == f"credenza-{environment}-logs"
    labels = namespace["metadata"]["labels"]
    assert labels["pod-security.kubernetes.io/enforce"] == "privileged"
    assert labels["app.kubernetes.io/part-of"] == "credenza", "Loki lets it in by that"
    ((owner, made),) = manifests.pods(objects)
    assert owner["kind"] == "DaemonSet"
    broken = {rule.name for rule, _ in pod_rules.faults(made["spec"], serving=True)}
    assert broken == OF_NODES
    assert one(objects, "NetworkPolicy", "default-deny")["spec"]["podSelector"] == {}
    assert reached(objects, "node-logs") == [("loki", 3100)]
    said = one(objects, "ConfigMap", "node-logs-settings")["data"]
    assert said == {
        "FILES": f"/var/log/pods/credenza-{environment}_*/*/*.log*",
        "LOKI": f"http://loki.credenza-{environment}:3100/otlp",
    }


def test_who_sees_a_node_writes_one_folder() -> None:
    """Of the node's two folders it writes its own alone."""
    spec = pod(load(kustomize(ROOT / "k8s/node-logs/prod")), "node-logs")
    paths = {
        each["name"]: each["hostPath"]["path"] for each in spec["volumes"] if "hostPath" in each
    }
    written = {
        paths[mount["name"]]
        for mount in spec["containers"][0]["volumeMounts"]
        if mount["name"] in paths and not mount.get("readOnly")
    }
    assert set(paths.values()) == {"/var/log/pods", "/var/lib/credenza-logs"}
    assert written == {"/var/lib/credenza-logs"}


def test_data_sources_lead_to_each_other() -> None:
    """Exemplar → trace, line → trace, trace → lines: all that each data source is told, whole.

    Names of options and variables are those of https://grafana.com/docs/grafana/v12.3/datasources/.
    """
    prometheus = datasource("grafana/provisioning/datasources/prometheus.yaml")
    jaeger, loki = datasource("jaeger/datasource.yaml"), datasource("loki/datasource.yaml")
    in_line, in_exemplar = trace_of_a_line(), trace_of_an_exemplar()
    assert "service_name" in labels_of_lines()
    assert [each["uid"] for each in (prometheus, jaeger, loki)] == ["prometheus", "jaeger", "loki"]
    assert prometheus["jsonData"] == {
        "httpMethod": "POST",
        "timeInterval": scrape_interval(),
        "exemplarTraceIdDestinations": [{"name": in_exemplar, "datasourceUid": "jaeger"}],
    }
    # A variable of Grafana's has a second $ in such a file, or it would be one of the environment.
    assert loki["jsonData"] == {
        "derivedFields": [
            {
                "name": in_line,
                "matcherType": "label",
                "matcherRegex": in_line,
                "datasourceUid": "jaeger",
                "url": "$${__value.raw}",
                "urlDisplayLabel": "Trace",
            }
        ]
    }
    assert jaeger["jsonData"] == {
        "tracesToLogsV2": {
            "datasourceUid": "loki",
            "customQuery": True,
            "query": f'{{service_name=~".+"}} | {in_line}="$${{__trace.traceId}}"',
            # A line may be written before the span that is asked from, and after it.
            "spanStartTimeShift": "-5m",
            "spanEndTimeShift": "5m",
        }
    }


def trace_of_a_line() -> str:
    """Return what a line of the service calls its trace, and so Loki where it came by OTLP."""
    (name,) = Traced("0" * 32, None).ids
    return name


def trace_of_an_exemplar() -> str:
    """Return what an exemplar of the service calls its trace."""
    tally = Tally((1.0,))
    tally.add(0, 0, 0.5, "0" * 32)
    ((name, *_),) = (exemplar.labels for exemplar in tally.exemplars.values())
    return str(name)


def labels_of_lines() -> set[str]:
    """Return what Loki finds lines by: it writes a dot as `_`."""
    limits = yaml.safe_load((MONITORING / "loki/loki.yaml").read_text())["limits_config"]
    (indexed,) = limits["otlp_config"]["resource_attributes"]["attributes_config"]
    assert indexed["action"] == "index_label"
    return {name.replace(".", "_") for name in indexed["attributes"]}


def scrape_interval() -> str:
    """Return how often Prometheus scrapes: Grafana takes the shortest range of a rate from it."""
    (found,) = {
        yaml.safe_load((MONITORING / "prometheus" / name).read_text())["global"]["scrape_interval"]
        for name in ("prometheus.yml", "compose.yml")
    }
    return str(found)


@pytest.mark.parametrize("environment", ENVIRONMENTS)
def test_data_sources_are_there_with_their_parts(environment: str) -> None:
    """Grafana has the data source of Jaeger, or of Loki, where that is deployed, and only there."""
    for value, name in (("tracing", "jaeger"), ("logs", "loki")):
        objects = template(environment, f"{value}.enabled=true")
        data = one(objects, "ConfigMap", "grafana-datasources")["data"]
        assert data.keys() == {"prometheus.yaml", f"{name}.yaml"}
        (found,) = yaml.safe_load(data[f"{name}.yaml"])["datasources"]
        service = one(objects, "Service", name)
        ports = {port["port"] for port in service["spec"]["ports"]}
        assert found["url"].removeprefix(f"http://{name}:") in map(str, ports)
    assert one(template(environment), "ConfigMap", "grafana-datasources")["data"].keys() == {
        "prometheus.yaml"
    }


def test_the_service_knows_the_collector_where_there_is_one() -> None:
    """With `tracing` it is told where to send traces, and without it nowhere."""
    name = "OTEL_EXPORTER_OTLP_ENDPOINT"
    on, off = (manifests.settings(template("prod", *values)) for values in (ON, ()))
    assert (on[name], name in off) == ("http://collector:4318", False)
    assert BESIDE["services"]["app"]["environment"] == {name: on[name]}


def ports_of(value: Any) -> Iterator[str]:
    """Yield the port of each address that a configuration listens on, or sends to."""
    yield from re.findall(r":-(?:http://)?[\w.]+:(\d+)[/}]", value)


def test_addresses_are_those_of_the_services() -> None:
    """What a configuration says without any variable is what the Services and ports are."""
    traces = (MONITORING / "collector/traces/traces.yaml").read_text()
    jaeger = (MONITORING / "jaeger/jaeger.yaml").read_text()
    lines = (MONITORING / "collector/logs/logs.yaml").read_text()
    assert set(ports_of(traces)) == {"13133", "4318"}
    assert "http://jaeger:4318" in traces
    assert set(ports_of(jaeger)) == {"13133", "16686", "16685", "4318"}
    assert "http://loki:3100/otlp" in lines
    objects = template("prod", *ON)
    assert one(objects, "Service", "jaeger")["spec"]["ports"] == [
        {"name": "http", "port": 16686, "targetPort": "http"},
        {"name": "otlp", "port": 4318, "targetPort": "otlp"},
    ]
    for found in manifests.kind(objects, "StatefulSet"):
        notes = found["spec"]["template"]["metadata"].get("annotations", {})
        port = notes.get("prometheus.io/port")
        assert port is None or int(port) in manifests.ports(found["spec"]["template"]), title(found)


def test_compose_has_the_same_parts() -> None:
    """Each part of the manifests is one of the file that is added to docker-compose.yml."""
    assert ADDED.keys() == MANIFESTS.keys()
    assert BESIDE["x-service"] == COMPOSE["x-service"]


@pytest.mark.parametrize("name", MANIFESTS)
def test_compose_runs_what_the_cluster_runs(name: str) -> None:
    """The same image, arguments, configuration and share of the machine, as confined."""
    service, found = ADDED[name], container(name)
    assert (service["image"], service["command"]) == (found["image"], found["args"])
    limits = found["resources"]["limits"]
    assert service["deploy"]["resources"]["limits"] == {
        "cpus": f"{int(limits['cpu'].removesuffix('m')) / 1000:g}",
        "memory": limits["memory"].replace("Mi", "M"),
    }
    assert (service["read_only"], service["cap_drop"]) == (True, ["ALL"])
    assert not {"privileged", "cap_add", "network_mode", "pid"} & service.keys()
    places = [mount["mountPath"] for mount in found["volumeMounts"]]
    own = [mount.split(":") for mount in service["volumes"]]
    assert {place for _, place, *_ in own} - set(places) <= {"/var/lib/docker/containers"}
    for source, _, *options in own:
        is_written = source in BESIDE["volumes"]
        assert is_written != (options == ["ro"])
    folder = (MONITORING / MANIFESTS[name]).parent
    assert own[0][0] == f"./{folder.relative_to(ROOT)}"
    for port in service.get("ports", []):
        assert re.fullmatch(r"127\.0\.0\.1:\$\{\w+:-\d+\}:\d+", port)


def test_compose_mounts_the_data_sources() -> None:
    """Grafana has the files of both data sources under the names that the cluster gives them."""
    mounts = dict(mount.split(":")[:2] for mount in BESIDE["services"]["grafana"]["volumes"])
    place = "/etc/grafana/provisioning/datasources"
    assert mounts == {
        f"./monitoring/{name}/datasource.yaml": f"{place}/{name}.yaml"
        for name in ("jaeger", "loki")
    }
