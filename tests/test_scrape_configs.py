"""What is scraped as it is shipped: which addresses, and of which names the samples are kept.

A real Prometheus has the shipped jobs; static targets with a pod's labels stand for the discovery.
tests/exposed and a name that nobody asks for stand for what is shown.
"""

import re
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import yaml

from grafana import DASHBOARDS, queries
from manifests import ROOT, Object
from promtool import EVERY
from scraping import Prometheus
from servers import until
from shown import EXPOSED, exposed
from sources import COMPONENTS, Shown, add_jobs, pod_target, showing
from test_observer_metrics import NAME as OF_OBSERVERS
from test_platform_metrics import NAME as OF_PLATFORM

CLUSTER = (
    ROOT / "monitoring/prometheus/prometheus.yml",
    COMPONENTS / "cluster-metrics/scrape-cluster.yml",
    COMPONENTS / "kubelet-metrics/scrape-kubelet.yml",
    COMPONENTS / "logs/scrape-node-logs.yml",
)
COMPOSE = (ROOT / "monitoring/prometheus/compose-observe.yml",)
LOCAL = ("kubernetes_sd_configs", "dns_sd_configs", "authorization", "tls_config")
OBSERVERS = {"collector", "jaeger", "loki", "node-logs"}
REDUCED = OBSERVERS | {"kube-state-metrics", "cert-manager", "kubelet"}
WHOLE = {"credenza", "alertmanager", "another"}
UNUSED = "go_goroutines"
RUNNING = {"pod_phase": "Running", "pod_node_name": "a"}


class _More(Shown):
    """Shows what a job shows, and one name more; at an unknown path that one alone."""

    def text(self, job: str) -> bytes:
        path = EXPOSED / f"{job}.prom"
        return (path.read_bytes() if path.exists() else b"") + f"{UNUSED} 1\n".encode()


@pytest.fixture
def port() -> Iterator[int]:
    """Where everything is shown, a job at a path."""
    with showing(_More) as port:
        yield port


def pods(port: int) -> list[Object]:
    """Return targets of the job `pods`, each with the annotations that it has."""
    found = []
    for job in sorted((OBSERVERS - {"node-logs"}) | WHOLE):
        meta = {
            "pod_annotation_prometheus_io_scrape": "true",
            "pod_annotation_prometheus_io_port": str(port),
            "pod_annotation_prometheus_io_path": f"/{job}",
            "pod_container_port_number": str(port),
            "pod_label_app_kubernetes_io_name": job,
        }
        found.append(pod_target(port, **RUNNING, **meta))
    return found


def job_configs(files: tuple[Path, ...], port: int) -> list[Object]:
    """Return the jobs of these files, but for Prometheus's own, with targets of this machine."""
    special = {
        "pods": pods(port),
        "kube-state-metrics": [pod_target(port, pod_container_port_name="http-metrics")],
        "kubelet": [
            pod_target(1, **RUNNING, pod_host_ip=ip) for ip in ("127.0.0.1", "fd00::1", "127.0.0.1")
        ],
    }
    found = []
    for path in files:
        text = path.read_text().replace("NAMESPACE", "x").replace(":10250", f":{port}")
        for job in yaml.safe_load(text)["scrape_configs"]:
            name = job["job_name"]
            if name != "prometheus":
                plain: Any = {key: job[key] for key in job.keys() - set(LOCAL)}
                plain |= {"scheme": "http", "scrape_interval": "500ms", "scrape_timeout": "400ms"}
                if name != "pods":
                    plain["metrics_path"] = f"/{name}"
                targets = special.get(name, [{"targets": [f"127.0.0.1:{port}"]}])
                found.append(plain | {"static_configs": targets})
    return found


def used(job: str) -> set[str]:
    """Return the names that a job shows and that a rule, a runbook or a dashboard asks for."""
    texts = [rule["expr"] for rule in EVERY]
    texts += [target["expr"] for board in DASHBOARDS.values() for _, target in queries(board)]
    texts += [path.read_text() for path in (ROOT / "docs/runbooks").glob("*.md")]
    asked = {
        name
        for text in texts
        for pattern in (OF_OBSERVERS, OF_PLATFORM)
        for name in re.findall(pattern, text)
    }
    return asked & exposed(job).keys()


@pytest.mark.timeout(120)
@pytest.mark.parametrize("files", [CLUSTER, COMPOSE], ids=["cluster", "compose"])
def test_what_is_used_is_kept(files: tuple[Path, ...], folder: Path, port: int) -> None:
    """Of those that show much, all that is asked for and nothing else; of other pods all."""
    jobs = REDUCED | WHOLE if files == CLUSTER else OBSERVERS
    server = add_jobs(Prometheus(folder, {}), job_configs(files, port)).start()
    try:

        def by_job() -> dict[str, set[str]]:
            found: dict[str, set[str]] = {}
            for name, series in server.seen().items():
                for labels in series:
                    found.setdefault(labels.get("job", ""), set()).add(name)
            return found

        until(
            lambda: (
                all("up" in by_job().get(job, ()) for job in jobs)
                and (files == COMPOSE or UNUSED in by_job()["another"])
            ),
            f"each job is scraped: {server.log()[-500:]}",
        )
        seen = by_job()
        for job in jobs & REDUCED:
            assert used(job) <= seen[job], job
            assert used(job)
            assert UNUSED not in seen[job], job
        for job in jobs & WHOLE:
            assert UNUSED in seen[job], job
        assert not [labels for each in server.seen().values() for labels in each if "__" in labels]
    finally:
        server.stop()


def asked(server: Prometheus) -> list[str]:
    """Return where kubelets are asked."""
    targets = server.get("targets", state="active")["activeTargets"]
    return sorted(each["scrapeUrl"] for each in targets if each["labels"]["job"] == "kubelet")


@pytest.mark.timeout(120)
def test_addresses_of_nodes(folder: Path, port: int) -> None:
    """A kubelet is asked once, at its node's address of either family; no target is told as 0."""
    jobs = [job for job in job_configs(CLUSTER, port) if job["job_name"] == "kubelet"]
    jobs.append(
        {
            "job_name": "kube-state-metrics",
            "relabel_configs": [{"action": "drop", "source_labels": ["job"]}],
            "static_configs": [{"targets": ["127.0.0.1:1"]}],
        }
    )
    server = add_jobs(Prometheus(folder, {}), jobs).start()
    try:
        until(lambda: len(asked(server)) > 1, "kubelets are asked")
        assert asked(server) == [
            f"http://127.0.0.1:{port}/kubelet",
            f"http://[fd00::1]:{port}/kubelet",
        ]
        pools = "prometheus_target_scrape_pool_targets"
        until(lambda: pools in server.seen(), "Prometheus scrapes itself")
        told = {
            each["metric"]["scrape_job"]: each["value"][1]
            for each in server.get("query", query=pools)["result"]
        }
        assert (told["kubelet"], told["kube-state-metrics"]) == ("2", "0")
    finally:
        server.stop()


def test_names_are_resolved_in_both_families() -> None:
    """What is found by name is asked for addresses of version 4 and of version 6."""
    found = {}
    for path in CLUSTER:
        for job in yaml.safe_load(path.read_text())["scrape_configs"]:
            if "dns_sd_configs" in job:
                found[job["job_name"]] = {each["type"] for each in job["dns_sd_configs"]}
    assert found == {name: {"A", "AAAA"} for name in ("cert-manager", "node-logs")}


def test_prometheus_scrapes_itself() -> None:
    """The alerts about it have their series: at its own address, under the name of the rules."""
    for name in ("prometheus.yml", "compose.yml"):
        configs = yaml.safe_load((ROOT / "monitoring/prometheus" / name).read_text())
        (own,) = [job for job in configs["scrape_configs"] if job["job_name"] == "prometheus"]
        assert own["static_configs"] == [{"targets": ["localhost:9090"]}]
        assert own.keys() == {"job_name", "static_configs"}
