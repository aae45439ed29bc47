"""Stand-ins for what Kubernetes shows: tests/exposed on a port, and the jobs that scrape it."""

import threading
from collections.abc import Iterable, Iterator
from contextlib import contextmanager, suppress
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any

import yaml

from manifests import ROOT, Object
from scraping import Prometheus
from shown import EXPOSED

COMPONENTS = ROOT / "k8s/components"
SCRAPED = {
    "kube-state-metrics": COMPONENTS / "cluster-metrics/scrape-cluster.yml",
    "cert-manager": COMPONENTS / "cluster-metrics/scrape-cluster.yml",
    "kubelet": COMPONENTS / "kubelet-metrics/scrape-kubelet.yml",
}
NAMESPACE = "credenza-staging"
"""Where what is recorded was."""


class Shown(BaseHTTPRequestHandler):
    """Shows tests/exposed, a job at a path."""

    def text(self, job: str) -> bytes:
        """Return what a job shows."""
        return (EXPOSED / f"{job}.prom").read_bytes()

    def do_GET(self) -> None:
        """Show it."""
        text = self.text(self.path[1:])
        self.send_response(200)
        self.send_header("Content-Type", "text/plain; version=0.0.4")
        self.end_headers()
        with suppress(ConnectionError):  # a scrape that is given up
            self.wfile.write(text)

    def log_message(self, format: str, *args: Any) -> None:  # noqa: A002 - the library's name
        """Say nothing."""


@contextmanager
def showing(handler: type[Shown]) -> Iterator[int]:
    """Have a port on which all of it is shown."""
    server = ThreadingHTTPServer(("127.0.0.1", 0), handler)
    threading.Thread(target=server.serve_forever, daemon=True).start()
    yield server.server_port
    server.shutdown()
    server.server_close()


def pod_target(port: int, **meta: str) -> Object:
    """Return a static target with the labels that the discovery of a pod would give it."""
    own = {f"__meta_kubernetes_{name}": value for name, value in meta.items()}
    labels = {"__meta_kubernetes_namespace": NAMESPACE, **own}
    return {"targets": [f"127.0.0.1:{port}"], "labels": labels}


def platform_jobs(port: int) -> list[Object]:
    """Return the shipped jobs, with targets of this machine in place of the discovery."""
    running = {"pod_phase": "Running", "pod_host_ip": "127.0.0.1", "pod_node_name": "a"}
    targets = {
        "kube-state-metrics": [
            pod_target(at, pod_container_port_name=name, pod_name="kube-state-metrics-1")
            for at, name in ((port, "http-metrics"), (1, "telemetry"))
        ],
        "cert-manager": [{"targets": [f"127.0.0.1:{port}"]}],
        "kubelet": [
            *(pod_target(1, **running, pod_name=name) for name in ("postgres-0", "credenza-1")),
            pod_target(1, **running | {"pod_phase": "Pending", "pod_host_ip": "127.0.0.2"}),
        ],
    }
    found = []
    for path in dict.fromkeys(SCRAPED.values()):
        for job in yaml.safe_load(path.read_text().replace(":10250", f":{port}"))["scrape_configs"]:
            for key in ("kubernetes_sd_configs", "dns_sd_configs", "authorization", "tls_config"):
                job.pop(key, None)
            name = job["job_name"]
            plain = {"scheme": "http", "metrics_path": f"/{name}", "scrape_interval": "500ms"}
            found.append(job | plain | {"static_configs": targets.pop(name)})
    assert not targets
    return found


def add_jobs(server: Prometheus, jobs: Iterable[Object]) -> Prometheus:
    """Have a Prometheus that is not started yet scrape these jobs besides its own."""
    path = server.folder / "prometheus.yml"
    config = yaml.safe_load(path.read_text())
    config["scrape_configs"] += jobs
    path.write_text(yaml.safe_dump(config))
    return server
