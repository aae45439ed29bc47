"""The tools as processes, each with its shipped configuration, at the addresses of this run."""

import os
import random
import re
import signal
from collections.abc import Mapping
from pathlib import Path
from typing import Any, Final

import httpx2
import yaml

from alerting import Alertmanager, Inbox, Place, shipped
from manifests import ROOT
from observe import tools
from servers import Process, accepts

MONITORING: Final = ROOT / "monitoring"
HASTE: Final = 10
"""By how much waiting is shortened: `for` of rules, `group_wait` and `group_interval` of routes.

Windows of rates, and all else, are as shipped.
"""

DURATION: Final = re.compile(r"(\d+)(ms|[smhd])")
SECONDS: Final = {"ms": 0.001, "s": 1, "m": 60, "h": 3600, "d": 86400}


def steady_port() -> int:
    """Return a port that nothing listens on, and that no connection is given meanwhile.

    Those that the kernel gives away are above: who starts again later may find them taken.
    """
    while accepts(port := random.randint(20_000, 29_999)):
        pass
    return port


def hastened(duration: str) -> str:
    """Return a duration of Prometheus, this much shorter, in milliseconds."""
    seconds = sum(int(number) * SECONDS[unit] for number, unit in DURATION.findall(duration))
    return f"{round(seconds * 1000 / HASTE)}ms"


def shipped_arguments(manifest: str) -> list[str]:
    """Return the arguments of a part's container, with the files of the repository."""
    path = MONITORING / manifest
    found = yaml.safe_load(path.read_text())["spec"]["template"]["spec"]["containers"][0]["args"]
    return [re.sub(r"/etc/\w+/", f"{path.parent}/", each) for each in found]


def compose(service: str) -> dict[str, Any]:
    """Return a service of docker-compose.yml."""
    found: dict[str, Any] = yaml.safe_load((ROOT / "docker-compose.yml").read_text())["services"]
    service_: dict[str, Any] = found[service]
    return service_


class Tool(Process):
    """A tool that answers 200 at a path once it is ready; it runs as whoever runs the tests."""

    program: str
    ready: str

    def __init__(self, folder: Path) -> None:
        super().__init__(folder)
        folder.mkdir()
        self.port = self.ready_port = steady_port()

    def user(self) -> dict[str, Any]:
        """Return whom it runs as: none of them minds root, and the cache may be root's own."""
        return {}

    @property
    def url(self) -> str:
        """Its address."""
        return f"http://127.0.0.1:{self.port}"

    def variables(self) -> dict[str, object]:
        """Return what the shipped configuration reads from the environment."""
        return {}

    def options(self) -> list[str]:
        """Return the options."""
        raise NotImplementedError

    def command(self) -> list[str]:
        """Return the command line."""
        # Containers have a read-only root, and no folder for temporary files.
        given = {"TMPDIR": "/nonexistent"} | self.variables()
        variables = [f"{name}={value}" for name, value in given.items()]
        return ["env", *variables, str(tools.path(self.program)), *self.options()]

    def is_up(self) -> bool:
        """Return whether it says that it is ready."""
        if not super().is_up():
            return False
        try:
            answer = httpx2.get(f"http://127.0.0.1:{self.ready_port}{self.ready}", timeout=5)
        except httpx2.HTTPError:
            return False
        return answer.status_code == 200

    def ask(self, path: str, **parameters: object) -> Any:
        """Return an answer's JSON; None where there is none yet."""
        given = {name: str(value) for name, value in parameters.items()}
        answer = httpx2.get(f"{self.url}{path}", params=given, timeout=10)
        if answer.status_code == 404:
            return None
        assert answer.status_code == 200, f"{path} {parameters}: {answer.text}"
        return answer.json()


class Loki(Tool):
    """Loki with monitoring/loki/loki.yaml."""

    program, ready = "loki", "/ready"

    def __init__(self, folder: Path) -> None:
        super().__init__(folder)
        self._internal = steady_port()

    def variables(self) -> dict[str, object]:
        """Return where it listens, and its folder."""
        return {
            "ADDRESS": "127.0.0.1",
            "PORT": self.port,
            "GRPC_PORT": self._internal,
            "DATA": self.folder / "data",
        }

    def options(self) -> list[str]:
        """Return the options of its container."""
        return shipped_arguments("loki/stateful-set.yaml")

    def lines(self, query: str, since: str = "1h") -> list[tuple[dict[str, str], str]]:
        """Return labels (with structured metadata) and text of each line since then."""
        found = self.ask("/loki/api/v1/query_range", query=query, since=since, limit=5000)
        streams = found["data"]["result"]
        return [(each["stream"], value[1]) for each in streams for value in each["values"]]


class Jaeger(Tool):
    """Jaeger with monitoring/jaeger/jaeger.yaml."""

    program, ready = "jaeger", "/status"

    def __init__(self, folder: Path) -> None:
        super().__init__(folder)
        self.otlp, self.ready_port = steady_port(), steady_port()
        self._internal, self.metrics = steady_port(), steady_port()

    def variables(self) -> dict[str, object]:
        """Return where it listens, and its folder."""
        return {
            "QUERY": f"127.0.0.1:{self.port}",
            "QUERY_GRPC": f"127.0.0.1:{self._internal}",
            "OTLP": f"127.0.0.1:{self.otlp}",
            "HEALTH": f"127.0.0.1:{self.ready_port}",
            "METRICS_HOST": "127.0.0.1",
            "METRICS_PORT": self.metrics,
            "DATA": self.folder / "data",
        }

    def options(self) -> list[str]:
        """Return the options of its container."""
        return shipped_arguments("jaeger/stateful-set.yaml")

    def spans(self, trace: str) -> list[dict[str, Any]]:
        """Return the spans of a trace, in the order in which they began; empty: it has none."""
        found = self.ask(f"/api/traces/{trace}")
        spans: list[dict[str, Any]] = found["data"][0]["spans"] if found else []
        return sorted(spans, key=lambda span: int(span["startTime"]))


class Collector(Tool):
    """A collector as one of the manifests in monitoring/collector has it."""

    program, ready = "collector", "/"

    def __init__(self, folder: Path, manifest: str, **variables: object) -> None:
        super().__init__(folder)
        self._manifest, self.given = manifest, dict(variables)
        self.metrics = steady_port()
        (folder / "queue").mkdir()

    def variables(self) -> dict[str, object]:
        """Return where it listens, and its folder."""
        own = {
            "HEALTH": f"127.0.0.1:{self.port}",
            "METRICS_HOST": "127.0.0.1",
            "METRICS_PORT": self.metrics,
            "QUEUE": self.folder / "queue",
        }
        return own | self.given

    def options(self) -> list[str]:
        """Return the options of its container."""
        return shipped_arguments(f"collector/{self._manifest}")

    def metric(self, name: str) -> float:
        """Return the sum of one of its own metrics; 0 where it does not have it yet."""
        shown = httpx2.get(f"http://127.0.0.1:{self.metrics}/metrics", timeout=10).text
        found = re.findall(rf"^{name}\{{.*\}} (\S+)$", shown, re.MULTILINE)
        return sum(map(float, found))


class Told(Alertmanager):
    """Alertmanager with the shipped routes and templates, and an inbox behind WEBHOOK_URL."""

    def __init__(self, folder: Path) -> None:
        folder.mkdir()
        self.inbox = Inbox()
        secrets = {"WEBHOOK_URL": self.inbox.url("webhook")}
        place = Place(folder, secrets).put(shipped())
        place.render()
        config = place.config()
        for route in (config["route"], *config["route"]["routes"]):
            for name in {"group_wait", "group_interval"} & route.keys():
                route[name] = hastened(route[name])
        place.write(config)
        super().__init__(place)
        self.port = steady_port()

    def user(self) -> dict[str, Any]:
        """Return whom it runs as."""
        return {}

    def stop(self, signal_number: int = signal.SIGTERM) -> None:
        """End it, and the inbox."""
        super().stop(signal_number)
        self.inbox.close()


def placed(text: str, places: Mapping[str, str]) -> str:
    """Return a text with the places of this run; each must be in it."""
    for shipped_, own in places.items():
        assert shipped_ in text
        text = text.replace(shipped_, own)
    return text


class Prometheus(Tool):
    """Prometheus 3 with the shipped options, configuration and rules, each second.

    `ports` are those of the parts that it scrapes, by the address that each has under Compose.
    """

    program, ready = "prometheus", "/-/ready"

    def __init__(self, folder: Path, ports: Mapping[str, int], alertmanager: Alertmanager) -> None:
        super().__init__(folder)
        here = {name: f"127.0.0.1:{port}" for name, port in ports.items()}
        service = {"app:8001": here.pop("app:8001")}
        beside = placed((MONITORING / "prometheus/compose-observe.yml").read_text(), here)
        (folder / "scrape-observe.yml").write_text(beside)
        text = placed(
            (MONITORING / "prometheus/compose.yml").read_text(),
            service
            | {
                "alertmanager:9093": f"127.0.0.1:{alertmanager.port}",
                "localhost:9090": f"127.0.0.1:{self.port}",
                "/etc/prometheus-rules": f"{folder}/rules",
                "/etc/prometheus/": f"{folder}/",
            },
        )
        configuration = yaml.safe_load(text)
        often = {"scrape_interval": "1s", "scrape_timeout": "1s", "evaluation_interval": "1s"}
        configuration["global"] |= often
        (folder / "prometheus.yml").write_text(yaml.safe_dump(configuration))
        (folder / "rules").mkdir()
        for source in (MONITORING / "prometheus/rules").glob("*.yml"):
            rules = yaml.safe_load(source.read_text())
            for group in rules["groups"]:
                group["interval"] = "1s"
                for rule in group["rules"]:
                    if "for" in rule:
                        rule["for"] = hastened(rule["for"])
            (folder / "rules" / source.name).write_text(yaml.safe_dump(rules))

    def options(self) -> list[str]:
        """Return the options of its container, with the paths of this run."""
        own = {
            "--config.file": self.folder / "prometheus.yml",
            "--storage.tsdb.path": self.folder / "data",
        }
        kept = [each for each in compose("prometheus")["command"] if each.split("=")[0] not in own]
        here = [f"{name}={value}" for name, value in own.items()]
        return [*kept, *here, f"--web.listen-address=127.0.0.1:{self.port}"]

    def data(self, path: str, **parameters: object) -> Any:
        """Return the data of an answer of its API."""
        return self.ask(f"/api/v1/{path}", **parameters)["data"]

    def seen(self) -> Mapping[str, list[Mapping[str, str]]]:
        """Return the labels of all series, by name."""
        found: dict[str, list[Mapping[str, str]]] = {}
        for labels in self.data("series", **{"match[]": '{__name__=~".+"}'}):
            found.setdefault(labels.pop("__name__"), []).append(labels)
        return found


def use_own_tools() -> None:
    """Let the tests' tools find these programs first."""
    folders = [str(tools.path(program).parent) for program in tools.PROGRAMS]
    os.environ["PATH"] = os.pathsep.join([*folders, os.environ["PATH"]])
