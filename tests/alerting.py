"""A real Alertmanager with the shipped configuration, and an inbox in the place of who is told."""

import json
import os
import re
import shutil
import signal
import subprocess
import tempfile
import threading
from collections.abc import Mapping
from functools import cache
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any, Self

import httpx2
import pytest
import yaml

from manifests import ROOT
from servers import Process, until

SOURCE = ROOT / "monitoring/alertmanager"
CONFIG = (SOURCE / "alertmanager.yml").read_text()
SECRETS = ("PAGERDUTY_ROUTING_KEY", "SLACK_API_URL", "WEBHOOK_URL", "WATCHDOG_URL")

Labels = Mapping[str, str]
Config = dict[str, Any]


def program(*names: str) -> str:
    """Return the path of the first program that is there."""
    found = next(filter(None, map(shutil.which, names)), None)
    if found is None:
        command = "apt-get install --no-install-recommends prometheus-alertmanager"
        pytest.skip(f"needs Debian's Alertmanager: {command}")
    return found


def alertmanager() -> str:
    """Return where Alertmanager is."""
    return program("alertmanager", "prometheus-alertmanager")


@cache
def reads_url_files() -> bool:
    """Tell whether a webhook may have `url_file`: from 0.26 on; Debian 12's is older."""
    webhook = "receivers: [{name: a, webhook_configs: [{url_file: /a}]}]"
    with tempfile.NamedTemporaryFile("w", suffix=".yml") as file:
        file.write(f"route: {{receiver: a}}\n{webhook}\n")
        file.flush()
        command = [program("amtool"), "check-config", file.name]
        done = subprocess.run(command, capture_output=True, text=True, check=False, timeout=60)
    assert done.returncode == 0 or "field url_file not found" in done.stdout + done.stderr
    return done.returncode == 0


def amtool(*arguments: str | Path) -> str:
    """Return what amtool says; fail with its complaint where it refuses."""
    command = [program("amtool"), *map(str, arguments)]
    done = subprocess.run(command, capture_output=True, text=True, check=False, timeout=60)
    assert done.returncode == 0, done.stdout + done.stderr
    return done.stdout


def open_folder(folder: Path) -> Path:
    """Hand a folder to the user whom root starts servers as."""
    for parent in (folder, *folder.parents[:3]):
        if parent.is_relative_to("/tmp") and parent != Path("/tmp"):
            parent.chmod(0o755)
    if os.geteuid() == 0:
        shutil.chown(folder, "nobody", "nogroup")
    return folder


class Place:
    """A folder with the files that a container has, and a secret in each of some files."""

    def __init__(self, folder: Path, secrets: Mapping[str, str]) -> None:
        self.folder = folder
        self.path = folder / "alertmanager.yml"
        self._secrets = secrets
        for part in ("etc", "etc/templates", "secrets", "bin"):
            (folder / part).mkdir()
        for name, value in secrets.items():
            (folder / "secrets" / name).write_text(f"{value}\n" if value else "")

    def put(self, files: Mapping[str, str]) -> Self:
        """Put the files of a packaging where they belong, with the paths of this place."""
        for name, text in files.items():
            (self.folder / "etc" / name).write_text(self.here(text))
        return self

    def here(self, text: str) -> str:
        """Return a text with the paths of this place."""
        places = {"/etc/alertmanager-secrets/": "secrets", "/etc/alertmanager/": "etc"}
        for path, part in places.items():
            text = text.replace(path, f"{self.folder / part}/")
        return text

    def start_with(self, executable: str, *options: str) -> subprocess.Popen[str]:
        """Run start.sh as a container does; this program is its Alertmanager."""
        link = self.folder / "bin/alertmanager"
        link.unlink(missing_ok=True)
        link.symlink_to(executable)
        return subprocess.Popen(
            # Not what `nohup make test` hands down: a shell cannot trap what was ignored before it.
            ["env", "--default-signal=HUP", "sh", self.folder / "etc/start.sh", *options],
            env={"TMPDIR": str(self.folder), "PATH": f"{link.parent}:/usr/bin:/bin"},
            stderr=subprocess.PIPE,
            text=True,
        )

    def render(self) -> str:
        """Let start.sh write what Alertmanager is started with; return what it says meanwhile."""
        started = self.start_with("/bin/true")
        _, said = started.communicate(timeout=60)
        assert started.returncode == 0, said
        if not reads_url_files():
            self.path.write_text(self._without_url_files(self.path.read_text()))
        return said

    def _without_url_files(self, text: str) -> str:
        """Write the URLs themselves, for a version that does not know files of them."""
        return re.sub(
            r"url_file: (\S*/(\w+_URL))(?=\n)",
            lambda found: (
                found[0] if found[2] == "SLACK_API_URL" else f"url: {self._secrets[found[2]]}"
            ),
            text,
        )

    def config(self) -> Config:
        """Return what Alertmanager is started with."""
        found: Config = yaml.safe_load(self.path.read_text())
        return found

    def write(self, config: Config) -> None:
        """Let Alertmanager have another configuration."""
        self.path.write_text(yaml.safe_dump(config))


def shipped() -> dict[str, str]:
    """Return the files as they are in the repository."""
    return {
        str(path.relative_to(SOURCE)): path.read_text()
        for path in (
            SOURCE / "alertmanager.yml",
            SOURCE / "start.sh",
            *sorted(SOURCE.glob("templates/*.tmpl")),
        )
    }


def integrations(config: Config) -> dict[str, set[str]]:
    """Return the kinds of integrations that each receiver has."""
    return {receiver["name"]: set(receiver) - {"name"} for receiver in config["receivers"]}


class Inbox:
    """An HTTP server that takes whatever is posted to it, by the name of the path."""

    def __init__(self) -> None:
        self._posted: list[tuple[str, Any]] = []
        posted = self._posted

        class Handler(BaseHTTPRequestHandler):
            def do_POST(self) -> None:
                body = self.rfile.read(int(self.headers["Content-Length"]))
                posted.append((self.path.strip("/"), json.loads(body)))
                said = b"ok"
                self.send_response(202 if "pagerduty" in self.path else 200)
                self.send_header("Content-Length", str(len(said)))
                self.end_headers()
                self.wfile.write(said)

            def log_message(self, format: str, *args: Any) -> None:  # noqa: A002 - its name there
                """Say nothing."""

        self._server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
        threading.Thread(target=self._server.serve_forever, daemon=True).start()

    def url(self, name: str) -> str:
        """Return the address of a path."""
        return f"http://127.0.0.1:{self._server.server_port}/{name}"

    def of(self, name: str, mark: str) -> list[Any]:
        """Return what has come under a name and has a mark in it, oldest first."""
        return [body for path, body in self._posted if path == name and mark in json.dumps(body)]

    def names(self, mark: str) -> set[str]:
        """Return under which names something with a mark in it has come."""
        return {path for path, body in self._posted if mark in json.dumps(body)}

    def close(self) -> None:
        """End it."""
        self._server.shutdown()
        self._server.server_close()


class Alertmanager(Process):
    """Alertmanager on what is at a place."""

    def __init__(self, place: Place) -> None:
        super().__init__(place.folder)
        self.place = place
        self._client = httpx2.Client(timeout=60)

    @property
    def url(self) -> str:
        """Its address."""
        return f"http://127.0.0.1:{self.port}"

    def stop(self, signal_number: int = signal.SIGTERM) -> None:
        """End it and wait for its end."""
        self._client.close()
        super().stop(signal_number)

    def command(self) -> list[str]:
        """Return the command line."""
        return [alertmanager(), f"--config.file={self.place.path}", *self.options()]

    def options(self) -> list[str]:
        """Return what differs from the shipped options: where it is."""
        return [
            f"--storage.path={self.folder}/data",
            f"--web.listen-address=127.0.0.1:{self.port}",
            "--cluster.listen-address=",
        ]

    def is_up(self) -> bool:
        """Return whether it is ready."""
        return super().is_up() and self.get("/-/ready").status_code == 200

    def get(self, path: str) -> httpx2.Response:
        """Return an answer."""
        return self._client.get(f"{self.url}{path}")

    def post(self, *alerts: Labels, end: str = "", **annotations: str) -> None:
        """Raise alerts, or end them, as Prometheus does."""
        ends = {"endsAt": end} if end else {}
        body = [{"labels": labels, "annotations": annotations} | ends for labels in alerts]
        self._client.post(f"{self.url}/api/v2/alerts", json=body).raise_for_status()

    def alerts(self) -> list[dict[str, Any]]:
        """Return the alerts that fire, silent or not."""
        found: list[dict[str, Any]] = self.get("/api/v2/alerts").raise_for_status().json()
        return found

    def suppressed(self, by: str) -> set[tuple[tuple[str, str], ...]]:
        """Return the labels of the alerts that are `inhibitedBy` or `silencedBy` something."""
        return {
            tuple(sorted(alert["labels"].items())) for alert in self.alerts() if alert["status"][by]
        }

    def reload(self, config: Config) -> None:
        """Go on with another configuration."""
        self.place.write(config)
        self._client.post(f"{self.url}/-/reload").raise_for_status()

    def failures(self) -> float:
        """Return how many notifications could not be sent."""
        found = re.findall(
            r"^alertmanager_notifications_failed_total\{.*\} (\S+)$",
            self.get("/metrics").text,
            re.MULTILINE,
        )
        return sum(map(float, found))

    def wait(self, inbox: Inbox, name: str, mark: str, count: int = 1) -> list[Any]:
        """Wait until so many have come with a mark; return them."""
        until(
            lambda: len(inbox.of(name, mark)) >= count,
            f"{name} has not got {mark}: {self.log()[-2000:]}",
        )
        return inbox.of(name, mark)
