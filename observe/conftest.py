"""Fixtures: the service and all that watches it, on free ports of the loopback address."""

import asyncio
import time
from collections.abc import Callable, Iterator
from contextlib import ExitStack
from dataclasses import dataclass, field
from pathlib import Path

import pytest

from conftest import postgres, valkey
from databases import create_migrated
from manifests import ROOT
from observe import tools
from observe.nodes import Node
from observe.processes import (
    Collector,
    Jaeger,
    Loki,
    Prometheus,
    Told,
    steady_port,
    use_own_tools,
)
from servers import Postgres, Process, Valkey, until
from service import Running

__all__ = ["postgres", "valkey"]

NAMESPACE = "credenza-observe"
SHIPPED = dict(
    line.split("=", 1) for line in (ROOT / "k8s/base/app/config.env").read_text().splitlines()
)
"""The service's settings in the cluster."""

Say = Callable[[str], None]

_began = time.monotonic()


def pytest_sessionstart() -> None:
    """Refuse to begin without the tools."""
    if absent := tools.missing():
        pytest.exit(f"{', '.join(absent)}: not built yet, run make observe-tools", returncode=2)
    use_own_tools()


@pytest.fixture(scope="session")
def say() -> Say:
    """Tell whoever watches what goes on, and when."""

    def tell(text: str) -> None:
        print(f"\n[{time.monotonic() - _began:5.1f} s] {text}", end="", flush=True)

    return tell


@dataclass
class Stack:
    """All that runs."""

    folder: Path
    settings: dict[str, object]
    node: Node
    postgres: Postgres
    loki: Loki
    jaeger: Jaeger
    traces: Collector
    logs: Collector
    told: Told
    prometheus: Prometheus
    services: list[Running] = field(default_factory=list)

    @property
    def service(self) -> Running:
        """The service that Prometheus watches."""
        return self.services[0]

    def serve(self, **settings: object) -> Running:
        """Start a service on the same database, whose lines and spans are collected."""
        folder = self.folder / f"service-{len(self.services)}"
        folder.mkdir()
        service = Running(folder, **(self.settings | settings))
        self.services.append(service)
        service.errors.touch()
        self.node.follow(service)
        return service.start()

    def close(self) -> None:
        """End the services."""
        for service in self.services:
            if service.process.poll() is None:
                service.stop()


@pytest.fixture(scope="session")
def stack(
    tmp_path_factory: pytest.TempPathFactory, postgres: Postgres, valkey: Valkey, say: Say
) -> Iterator[Stack]:
    """The service, its database and cache, and all that watches them; it ends with the tests."""
    folder = tmp_path_factory.mktemp("observe")
    with ExitStack() as ending:

        def start(process: Process) -> None:
            ending.callback(process.stop)
            process.start()

        node = Node(folder / "pods", NAMESPACE)
        ending.callback(node.close)
        loki, jaeger = Loki(folder / "loki"), Jaeger(folder / "jaeger")
        otlp, metrics = steady_port(), steady_port()
        traces = Collector(
            folder / "traces",
            "traces/stateful-set.yaml",
            OTLP=f"127.0.0.1:{otlp}",
            JAEGER=f"http://127.0.0.1:{jaeger.otlp}",
        )
        logs = Collector(
            folder / "logs", "logs/daemon-set.yaml", FILES=node.files, LOKI=f"{loki.url}/otlp"
        )
        told = Told(folder / "alertmanager")
        ports = {
            "app:8001": metrics,
            "collector:8888": traces.metrics,
            "node-logs:8888": logs.metrics,
            "jaeger:8888": jaeger.metrics,
            "loki:3100": loki.port,
        }
        prometheus = Prometheus(folder / "prometheus", ports, told)
        say("Loki, Jaeger, two collectors, Alertmanager and Prometheus are started")
        for process in (loki, jaeger, traces, logs, told, prometheus):
            start(process)
        name = asyncio.run(create_migrated(postgres))
        settings: dict[str, object] = {
            "database_url": postgres.database(name),
            "redis_url": valkey.url,
            "log_format": SHIPPED["LOG_FORMAT"],
            "log_level": SHIPPED["LOG_LEVEL"],
            "otel_exporter_otlp_endpoint": f"http://127.0.0.1:{otlp}",
        }
        found = Stack(
            folder, settings, node, postgres, loki, jaeger, traces, logs, told, prometheus
        )
        ending.callback(found.close)
        service = found.serve(metrics_port=metrics)
        with service.client() as client:
            until(lambda: client.get("/health").json()["status"] == "ok", "the cache is not used")
        say("the service is started")
        yield found
        say("all is to end")


@pytest.fixture(autouse=True)
def timed(request: pytest.FixtureRequest, stack: Stack, say: Say) -> Iterator[None]:
    """Tell when each test begins and ends."""
    say(str(request.node.obj.__doc__).splitlines()[0])
    began = time.monotonic()
    yield
    say(f"that took {time.monotonic() - began:.1f} s")
