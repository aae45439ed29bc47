"""Draw `docs/reference/dashboards/` from real data, or check that each picture is of its file.

Two services on one PostgreSQL and one Valkey work for some minutes, with failures on purpose; a
real Prometheus with the shipped rules scrapes them and is asked what the panels ask. What
Kubernetes says of pods and volumes was recorded before: tests/exposed.
"""  # noqa: INP001 - a script beside the pages that it makes

import argparse
import asyncio
import hashlib
import json
import random
import re
import shutil
import sys
import tempfile
import threading
import time
from collections.abc import Iterator, Mapping
from contextlib import ExitStack, contextmanager, suppress
from itertools import count
from pathlib import Path
from typing import Any, Final

import httpx2
from PIL import Image

ROOT: Final = Path(__file__).parent.parent
sys.path.insert(0, str(ROOT / "tests"))  # what starts servers, and what Grafana does

from drawing import Answer, Picture, Series  # noqa: E402

from collectors import collecting  # noqa: E402
from conftest import WHEEL  # noqa: E402
from databases import create_migrated  # noqa: E402
from grafana import DASHBOARDS, LABEL, Panel, as_sent, marks  # noqa: E402
from scraping import Prometheus, use  # noqa: E402
from servers import Postgres, Process, Valkey, free_port  # noqa: E402
from service import Running  # noqa: E402
from sources import NAMESPACE, Shown, add_jobs, platform_jobs, showing  # noqa: E402

HERE: Final = ROOT / "docs/reference/dashboards"
INTERVAL: Final = "10s"
SECONDS: Final = 150
WORKERS: Final = 4
DOCUMENTS: Final = 400
REDIS_AWAY: Final = (45, 8)
POSTGRES_AWAY: Final = (80, 5)
RESTART: Final = 115
"""Seconds after the beginning, and for how long."""

NOTE: Final = (
    "Drawn from monitoring/grafana/dashboards/{name}.json with the answers of a real Prometheus; "
    "not a screenshot of Grafana. 2:30 minutes of load on two replicas, scraped each 0.5 s. Redis "
    "hung at 0:45 for 8 s, PostgreSQL was stopped at 1:20 for 5 s, one replica was started anew at "
    "1:55. What Kubernetes says of pods and volumes is a recording, the certificate an example: "
    "tests/exposed."
)

RECORDED: Final = 1.69566e9
"""When tests/exposed was recorded, by the times in it."""
TIME: Final = re.compile(r"(?<= )1\.69\d+e\+09$", re.MULTILINE)

Span = tuple[float, float]
"""Two moments, in seconds since 1970."""


def fingerprint(dashboard: dict[str, Any]) -> str:
    """Return what changes with whatever is drawn of a dashboard."""
    drawn = [
        {name: value for name, value in panel.items() if name != "description"}
        for panel in dashboard["panels"]
    ]
    text = json.dumps([dashboard["title"], dashboard["annotations"], drawn], sort_keys=True)
    return hashlib.sha256(text.encode()).hexdigest()


def old(folder: Path) -> list[str]:
    """Return the dashboards whose picture is missing, or of another state of the file."""
    found = []
    for name, dashboard in DASHBOARDS.items():
        path = folder / f"{name}.png"
        with suppress(FileNotFoundError), Image.open(path) as image:
            if image.info.get("Dashboard") == fingerprint(dashboard):
                continue
        found.append(name)
    return found


class _Recorded(Shown):
    """Shows tests/exposed as if it had been recorded when this began."""

    later = time.time() - RECORDED

    def text(self, job: str) -> bytes:
        text = super().text(job).decode()
        return TIME.sub(lambda at: str(float(at[0]) + self.later), text).encode()


@contextmanager
def running(folder: Path) -> Iterator[tuple[Postgres, Valkey, list[Running], Prometheus]]:
    """Start all that is drawn, and end it."""
    for package in (WHEEL, WHEEL.with_name(f"{WHEEL.name}.libs")):
        shutil.copytree(package, folder / package.name, symlinks=True)
    locale = ("--locale-provider=builtin", "--locale=C.UTF-8")
    binaries = folder / WHEEL.name / "pginstall18/bin"
    with ExitStack() as stack:
        collector = stack.enter_context(collecting())
        postgres = Postgres(_made(folder / "postgres"), binaries, locale=locale).create()
        valkey = Valkey(_made(folder / "valkey"))
        for server in (postgres, valkey):
            stack.callback(server.start().stop)
        url = postgres.database(asyncio.run(create_migrated(postgres)))
        replicas = [
            Running(
                _made(folder / name),
                database_url=url,
                redis_url=valkey.url,
                metrics_port=free_port(),
                otel_exporter_otlp_endpoint=collector.url,
                otel_traces_sampler_arg=0.02,
            )
            for name in ("credenza-7d9f5-k2x8p", "credenza-7d9f5-w6m4t")
        ]
        for replica in replicas:
            replica.start()
            stack.callback(replica.stop)
        targets = {
            f"127.0.0.1:{replica.settings['metrics_port']}": {
                "namespace": NAMESPACE,
                "pod": replica.folder.name,
                "node": f"node-{number}",
            }
            for number, replica in enumerate(replicas, 1)
        }
        port = stack.enter_context(showing(_Recorded))
        prometheus = Prometheus(_made(folder / "prometheus"), targets)
        add_jobs(prometheus, platform_jobs(port))
        stack.callback(prometheus.start().stop)
        yield postgres, valkey, replicas, prometheus


def _made(folder: Path) -> Path:
    folder.mkdir()
    return folder


def work(replica: Running, until: float) -> None:
    """Ask for this and that until the time has come; failures on purpose are no failure."""
    chance, names = random.Random(replica.folder.name), count(1)  # noqa: S311 - no secret
    while time.monotonic() < until:
        with suppress(httpx2.HTTPError, AssertionError), replica.client() as client:
            for _ in range(200):
                if time.monotonic() > until:
                    return
                one(client, chance)
                time.sleep(chance.expovariate(60))
        with suppress(httpx2.HTTPError, AssertionError), replica.client() as client:
            use(client, names)
        time.sleep(0.2)


def one(client: httpx2.Client, chance: random.Random) -> None:
    """Send one request: mostly a read of something that is read often."""
    number = min(int(chance.paretovariate(0.6)), DOCUMENTS)
    path = f"/v1/data/cities/c{number}"
    city = {"name": f"City {number}", "people": chance.randrange(10**6)}
    (verb,) = chance.choices(("read", "put", "list", "patch", "miss"), (70, 15, 10, 3, 2))
    match verb:
        case "read":
            client.get(path)
        case "put":
            client.put(path, json=city)
        case "list":
            client.get("/v1/data/cities", params={"limit": 20, "order": "people"})
        case "patch":
            client.patch(path, json={"seen": True})
        case _:
            client.get("/v1/data/cities/nowhere")


def fail_on_purpose(postgres: Postgres, valkey: Process, replica: Running, begin: float) -> None:
    """Let Redis hang, stop PostgreSQL, and start a replica anew, each at its time."""
    _wait(begin + REDIS_AWAY[0])
    valkey.pause()
    _wait(begin + sum(REDIS_AWAY))
    valkey.resume()
    _wait(begin + POSTGRES_AWAY[0])
    postgres.stop()
    _wait(begin + sum(POSTGRES_AWAY))
    postgres.start()
    _wait(begin + RESTART)
    replica.stop()
    replica.start()


def _wait(until: float) -> None:
    time.sleep(max(until - time.monotonic(), 0))


def ask(prometheus: Prometheus, panel: Panel, dashboard: dict[str, Any], span: Span) -> Answer:
    """Return what the queries of a panel are answered at the end of a time."""
    answer = Answer()
    for target in panel.get("targets", ()):
        if target["datasource"]["uid"] != "prometheus":
            return answer
        query = as_sent(target["expr"], dashboard, {}, INTERVAL)
        begin, end = map(str, span)
        if target.get("instant"):
            found = prometheus.get("query", query=query, time=end)["result"]
            results = [(item["metric"], [item["value"]]) for item in found]
        else:
            found = prometheus.get("query_range", query=query, start=begin, end=end, step="1")
            results = [(item["metric"], item["values"]) for item in found["result"]]
        answer.series[target["refId"]] = [
            Series(
                _legend(target["legendFormat"], labels),
                labels,
                [at - span[0] for at, _ in values],
                [float(value) for _, value in values],
            )
            for labels, values in results
        ]
        if target.get("exemplar") and not answer.exemplars:
            given = prometheus.get("query_exemplars", query=query, start=begin, end=end)
            answer.exemplars = [
                (float(each["timestamp"]) - span[0], float(each["value"]))
                for series in given
                for each in series["exemplars"]
            ]
    return answer


def marked(prometheus: Prometheus, dashboard: dict[str, Any], span: Span) -> list[float]:
    """Return the moments that are marked within a time, in seconds since it began."""
    found = {
        float(item["value"][1]) / 1000 - span[0]
        for query, _ in marks(dashboard)
        for item in prometheus.get(
            "query", query=as_sent(query, dashboard, {}, INTERVAL), time=str(span[1])
        )["result"]
    }
    return [at for at in found if at > 0]


def _legend(text: str, labels: Mapping[str, str]) -> str:
    return LABEL.sub(lambda found: labels.get(found[1], ""), text).strip()


def draw(folder: Path) -> None:
    """Run everything for some time and write all pictures."""
    with tempfile.TemporaryDirectory() as home, running(_open(Path(home))) as parts:
        postgres, valkey, replicas, prometheus = parts
        begin, began = time.monotonic(), time.time()
        threads = [
            threading.Thread(target=work, args=(replica, begin + SECONDS))
            for replica in replicas
            for _ in range(WORKERS)
        ]
        for thread in threads:
            thread.start()
        fail_on_purpose(postgres, valkey, replicas[1], begin)
        for thread in threads:
            thread.join()
        for name, dashboard in DASHBOARDS.items():
            note = NOTE.format(name=name)
            span = began, began + SECONDS
            picture = Picture(dashboard, note, span, marked(prometheus, dashboard, span))
            for panel in dashboard["panels"]:
                picture.add(panel, ask(prometheus, panel, dashboard, span))
            picture.save(folder / f"{name}.png", fingerprint(dashboard))


def _open(folder: Path) -> Path:
    """Let the user whom root hands PostgreSQL to reach a folder."""
    folder.chmod(0o755)
    return folder


def main() -> int:
    """Draw the pictures, or name those that are not of their files; the status is 1 then."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--check", action="store_true", help="draw nothing, name what differs")
    parser.add_argument("--folder", type=Path, default=HERE, help="where the pictures are")
    arguments = parser.parse_args()
    if not arguments.check:
        draw(arguments.folder)
    names = old(arguments.folder)
    for name in names:
        sys.stderr.write(f"{name}.png is not what the dashboard shows: run `make dashboards`\n")
    return min(len(names), 1)


if __name__ == "__main__":
    sys.exit(main())
