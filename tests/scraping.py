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

from servers import Postgres, Process, Valkey, free_port, until

ROOT = Path(__file__).parent.parent
PROMETHEUS = ROOT / "monitoring/prometheus"
LINES = {"Content-Type": "application/x-ndjson"}
PROBES = ("/health", "/health/live", "/health/ready", "/health/startup")
SHOWN = ("/v1", *PROBES, "/metrics", "/openapi.json")
PAGES = ("/docs", "/redoc")
"""They have no HEAD."""

REDIS_ERRORS = re.compile(
    r'^credenza_cache_total\{layer="redis",outcome="error"\} (\S+)$', re.MULTILINE
)

Labels = Mapping[str, str]
Request = tuple[str, str, dict[str, Any]]
"""Method, path, and what else is sent."""


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
    """Send each route requests: one that succeeds and, where it can fail, one that fails."""
    name = f"n{next(names)}"
    for method, path, options in requests(name):
        client.request(method, path, **options).raise_for_status()
    for method, path, _ in requests(name):
        # No JSON, a limit and an order that cannot be, or something that has been deleted.
        body = b"{" if method in {"POST", "PUT", "PATCH"} else None
        wrong = {"limit": "0", "order": "$none"}
        assert client.request(method, path, params=wrong, content=body).is_client_error
    for family in ("/data", f"/v1/data/{name}"):
        use_a_document(client, f"{family}/{name}")
    client.get("/v1/collections/nothing")
    for path in (*SHOWN, *PAGES):
        client.get(path).raise_for_status()
    for path in SHOWN:
        client.head(path).raise_for_status()
    client.get("/nowhere")


def requests(name: str) -> list[Request]:
    """Return a request for each route that needs the database; they succeed in this order.

    What has that name is made and is gone in the end: other collections stay as they are.
    """
    families = ("/data", f"/v1/data/{name}")
    one, settings = {"json": {"n": 1}}, f"/v1/collections/{name}-settings"
    return [
        *(
            request
            for family in families
            for request in (
                ("POST", family, one),
                ("POST", f"{family}/_import", {"content": b"1\n2\n", "headers": LINES}),
                ("GET", f"{family}/_export", {}),
                ("GET", family, {}),
                ("HEAD", family, {}),
                ("PUT", f"{family}/{name}", one),
                ("GET", f"{family}/{name}", {}),
                ("HEAD", f"{family}/{name}", {}),
                ("PATCH", f"{family}/{name}", one),
                ("DELETE", f"{family}/{name}", {}),
            )
        ),
        ("PUT", settings, {"json": {}}),
        ("GET", settings, {}),
        ("HEAD", settings, {}),
        ("PATCH", settings, {"json": {"http_max_age": 1}}),
        ("GET", "/v1/collections", {}),
        ("HEAD", "/v1/collections", {}),
        ("DELETE", settings, {"headers": {"If-Match": "*"}}),
    ]


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


def use_in_vain(
    client: httpx2.Client, names: Iterator[int], postgres: Postgres, valkey: Valkey
) -> None:
    """Read while Redis is away, then send each request while the database is; both come back."""
    valkey.stop()
    try:
        until(lambda: _has_missed_redis(client, f"n{next(names)}"), "no error of Redis is counted")
    finally:
        valkey.start()
    postgres.stop()
    try:
        for method, path, options in requests(f"n{next(names)}"):
            assert client.request(method, path, **options).status_code == 503, (method, path)
        for ask in (client.get, client.head):
            assert ask("/health/ready").status_code == 503
    finally:
        postgres.start()
    until(lambda: client.get("/health").json()["status"] == "ok", "all is well again")


def _has_missed_redis(client: httpx2.Client, name: str) -> bool:
    """Read a document that is not there, and return whether an error of Redis is counted."""
    assert client.get(f"/data/{name}").status_code == 404
    (errors,) = REDIS_ERRORS.findall(client.get("/metrics").text)
    return float(errors) > 0
