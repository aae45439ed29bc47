"""The Compose project of the drills, on a real engine.

`DRILLS_COMPOSE` is the command in the place of `docker compose`. The service's image must be there:
a drill does not build it.
"""

import json
import os
import re
import shlex
import shutil
import subprocess
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import httpx2
import pytest

from servers import free_port

ROOT = Path(__file__).parent.parent
COMMAND = os.environ.get("DRILLS_COMPOSE", "docker compose")
PROJECT = "credenza-compose-drill"
PARTS = (
    *("docker-compose.yml", "docker-compose.observe.yml", "Makefile", ".env.example"),
    *("monitoring", "secrets/alertmanager", "k8s/base/app/config.env"),
)
PORTS = ("CREDENZA", "PROMETHEUS", "ALERTMANAGER", "GRAFANA")
OURS = f"label=com.docker.compose.project={PROJECT}"
PATIENCE = 300.0


class Stack:
    """The Compose project, in a copy of what a user has of the repository."""

    def __init__(self, folder: Path, *more: str) -> None:
        self.folder = folder
        self.ports = {name: free_port() for name in (*PORTS, *more)}
        """The port that each `<name>_PORT` of the files sets; `more` are those of other files."""
        for part in PARTS:
            (folder / part).parent.mkdir(parents=True, exist_ok=True)
            copy = shutil.copytree if (ROOT / part).is_dir() else shutil.copy
            copy(ROOT / part, folder / part)

    def url(self, name: str = "CREDENZA") -> str:
        """Return where a part is served."""
        return f"http://127.0.0.1:{self.ports[name]}"

    def run(self, script: str, *, status: int = 0) -> str:
        """Run a script of the page, here, and return what it writes."""
        ports = {f"{name}_PORT": str(port) for name, port in self.ports.items()}
        names = {"PATH", "HOME", "DOCKER_HOST", "DOCKER_CONFIG", "DOCKER_CONTEXT"}
        kept = {name: value for name, value in os.environ.items() if name in names}
        done = subprocess.run(
            ["bash", "-euo", "pipefail", "-c", self._here(script)],
            cwd=self.folder,
            env=kept | ports | {"COMPOSE_PROJECT_NAME": PROJECT},
            stdin=subprocess.DEVNULL,
            capture_output=True,
            text=True,
            timeout=600,
            check=False,
        )
        assert done.returncode == status, f"{script}\n{done.stdout}{done.stderr}"
        return done.stdout if status == 0 else done.stdout + done.stderr

    def compose(self, *arguments: str) -> str:
        """Run a command of Compose."""
        return self.run(f"docker compose {shlex.join(arguments)}")

    def _here(self, text: str) -> str:
        places = {
            "docker compose": COMMAND,
            " --build": "",
            "http://127.0.0.1:8000": self.url(),
            "curl ": "curl --silent --show-error ",
        }
        for name, value in places.items():
            text = text.replace(name, value)
        return text

    def secret(self, name: str) -> str:
        """Return a secret of `.env`."""
        (value,) = re.findall(rf"^{name}=(.*)$", (self.folder / ".env").read_text(), re.MULTILINE)
        return str(value)

    def client(self) -> httpx2.Client:
        """Return a client that has the token."""
        bearer = {"Authorization": f"Bearer {self.secret('AUTH_TOKEN')}"}
        return httpx2.Client(base_url=self.url(), headers=bearer, timeout=60)

    def started(self) -> dict[str, tuple[str, str]]:
        """Return id and time of start of each container by its service."""
        identities = self.compose("ps", "--quiet").split()
        found = json.loads(self.run(f"docker inspect {shlex.join(identities)}"))
        return {
            item["Config"]["Labels"]["com.docker.compose.service"]: (
                item["Id"],
                item["State"]["StartedAt"],
            )
            for item in found
        }

    def is_healthy(self) -> bool:
        """Return whether the service says that all is well."""
        try:
            with self.client() as client:
                return bool(client.get("/health").json()["status"] == "ok")
        except httpx2.HTTPError:
            return False


@contextmanager
def composed(folder: Path, *ports: str) -> Iterator[Stack]:
    """Have a project with ports and a folder of its own; it is gone at the end."""
    if shutil.which(shlex.split(COMMAND)[0]) is None or shutil.which("docker") is None:
        pytest.skip("needs Docker with Compose v2: https://docs.docker.com/engine/install")
    stack = Stack(folder, *ports)
    try:
        yield stack
    finally:
        stack.compose("down", "--volumes", "--timeout", "5")
        assert stack.run(f"docker volume ls --quiet --filter {OURS}") == ""
