"""A real Prometheus with the shipped rules, and requests that bring all series forth."""

import math
import os
import re
import shutil
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

import httpx2
import pytest
import yaml

from servers import Process, free_port

ROOT = Path(__file__).parent.parent
PROMETHEUS = ROOT / "monitoring/prometheus"
LINES = {"Content-Type": "application/x-ndjson"}

Labels = Mapping[str, str]


class Prometheus(Process):
    """Debian's Prometheus with the shipped configuration and rules, at the addresses of this run.

    It scrapes each half second and evaluates each second. `targets` are addresses with the labels
    that a cluster gives them. Nobody is at the address that it sends alerts to.
    """

    def __init__(self, folder: Path, targets: Mapping[str, Labels]) -> None:
        if shutil.which("prometheus") is None:
            pytest.skip("needs Debian's Prometheus: apt-get install prometheus")
        super().__init__(folder)
        configuration = yaml.safe_load((PROMETHEUS / "compose.yml").read_text())
        configuration["global"] = {"scrape_interval": "500ms", "evaluation_interval": "1s"}
        del configuration["scrape_config_files"]  # Debian's does not know them yet
        configuration["rule_files"] = [f"{folder}/rules/*.yml"]
        nobody = {"static_configs": [{"targets": [f"127.0.0.1:{free_port()}"]}]}
        configuration["alerting"] = {"alertmanagers": [nobody]}
        own: Mapping[str, Labels] = {f"127.0.0.1:{self.port}": {}}
        for job in configuration["scrape_configs"]:
            found = {"credenza": targets, "prometheus": own}.get(job["job_name"], {})
            job["static_configs"] = [
                {"targets": [at], "labels": dict(x)} for at, x in found.items()
            ]
        (folder / "prometheus.yml").write_text(yaml.safe_dump(configuration))
        (folder / "rules").mkdir()
        for source in (PROMETHEUS / "rules").glob("*.yml"):
            text = re.sub(r"(?m)^    interval: \w+", "    interval: 1s", source.read_text())
            (folder / "rules" / source.name).write_text(text)
        if os.geteuid() == 0:
            shutil.chown(folder, "nobody", "nogroup")

    def command(self) -> list[str]:
        """Return the command line."""
        return [
            *("prometheus", "--config.file", str(self.folder / "prometheus.yml")),
            *("--storage.tsdb.path", str(self.folder / "data")),
            *("--web.listen-address", f"127.0.0.1:{self.port}"),
            "--enable-feature=exemplar-storage",
        ]

    def is_up(self) -> bool:
        """Return whether it answers queries; it accepts connections some time before that."""
        address = f"http://127.0.0.1:{self.port}/-/ready"
        return super().is_up() and httpx2.get(address, timeout=10).is_success

    def get(self, path: str, **parameters: str) -> Any:
        """Return the data of an answer; fail with what it says where it refuses."""
        url = f"http://127.0.0.1:{self.port}/api/v1/{path}"
        answer = httpx2.get(url, params=parameters, timeout=10)
        assert answer.status_code == 200, f"{parameters}: {answer.text}"
        return answer.json()["data"]

    def series(self, expression: str) -> list[dict[str, str]]:
        """Return the labels of each series that has a number now."""
        found = self.get("query", query=expression)["result"]
        return [item["metric"] for item in found if math.isfinite(float(item["value"][1]))]

    def rules(self) -> list[dict[str, Any]]:
        """Return all rules with their state."""
        groups = self.get("rules")["groups"]
        return [rule for group in groups for rule in group["rules"]]

    def seen(self) -> Mapping[str, list[Labels]]:
        """Return the labels of all series, by name."""
        found: dict[str, list[Labels]] = {}
        for labels in self.get("series", **{"match[]": '{__name__=~".+"}'}):
            found.setdefault(labels.pop("__name__"), []).append(labels)
        return found


def use(client: httpx2.Client, names: Iterator[int]) -> None:
    """Send each handler requests: one that succeeds and, where it can fail, one that fails."""
    name = f"n{next(names)}"
    for path in ("/data", f"/v1/data/{name}"):
        client.post(path, json={"n": 1}).raise_for_status()
        client.post(path, content=b"{")
        client.get(path).raise_for_status()
        client.get(f"{path}?limit=0")
        client.post(f"{path}/_import", content=b"1\n2\n", headers=LINES).raise_for_status()
        client.post(f"{path}/_import", content=b"{\n", headers=LINES)
        client.get(f"{path}/_export").raise_for_status()
        client.get(f"{path}/_export?order=$none")
        use_a_document(client, f"{path}/{name}")
    for path in ("/v1/collections", f"/v1/collections/{name}"):
        client.get(path).raise_for_status()
        client.get(f"{path}?limit=x")
    client.get("/v1/collections/nothing")
    for path in ("/v1", "/health", "/health/live", "/health/ready", "/health/startup"):
        client.get(path).raise_for_status()
        client.post(path)


def use_a_document(client: httpx2.Client, path: str) -> None:
    """Write, read, change and delete a document, and fail at each."""
    for body in ({"n": 1}, {"n": 2}):
        client.put(path, json=body).raise_for_status()
        for _ in range(3):
            client.get(path).raise_for_status()
        client.patch(path, json={"m": 1}).raise_for_status()
    for method in ("PUT", "PATCH", "DELETE"):
        assert client.request(method, path, headers={"If-Match": '"1"'}, json=1).status_code == 412
    client.delete(path).raise_for_status()
    assert client.get(path).status_code == 404
