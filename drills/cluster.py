"""The cluster under drill: kubectl, what runs in it, and the commands that a drill may need.

`DRILLS_UP` brings the cluster up or back, `DRILLS_KILL_NODE` cuts a worker's power, `DRILLS_LOAD`
brings an image to the nodes. Without them the drills use a k3d cluster named credenza.
"""

import json
import os
import shlex
import signal
import subprocess
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final

ROOT: Final = Path(__file__).parent.parent
K3D: Final = "credenza"
IMAGE: Final = "credenza:latest"
LABEL: Final = "app.kubernetes.io/name"


def run(
    *command: str | Path, input_: str | None = None, timeout: float = 600, check: bool = True
) -> str:
    """Run a command and return what it writes; a failure tells the end of it."""
    done = subprocess.run(
        [str(part) for part in command],
        cwd=ROOT,
        input=input_,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT if check else subprocess.DEVNULL,
        text=True,
        timeout=timeout,
        check=False,
    )
    assert not check or done.returncode == 0, (
        f"{shlex.join(map(str, command))}\n{done.stdout[-4000:]}"
    )
    return done.stdout


def wait(what: str, condition: Callable[[], Any], *, seconds: float = 120) -> Any:
    """Wait until a condition holds and return its value."""
    end = time.monotonic() + seconds
    while not (value := condition()):
        assert time.monotonic() < end, f"{what}: not within {seconds:g} s"
        time.sleep(0.2)
    return value


@dataclass(frozen=True)
class Cluster:
    """One namespace of the cluster of KUBECONFIG."""

    namespace: str = "credenza-dev"

    def kubectl(
        self, *arguments: str, input_: str | None = None, timeout: float = 600, check: bool = True
    ) -> str:
        """Run kubectl in the namespace."""
        command = ("kubectl", "--namespace", self.namespace, *arguments)
        return run(*command, input_=input_, timeout=timeout, check=check)

    def get(self, *arguments: str) -> Any:
        """Return objects as kubectl gets them."""
        return json.loads(self.kubectl("get", *arguments, "--output", "json"))

    def exists(self) -> bool:
        """Return whether the namespace is there."""
        return bool(run("kubectl", "get", "namespace", self.namespace, "--ignore-not-found"))

    def nodes(self) -> list[str]:
        """Return the names of the nodes; the last one is a worker."""
        found = [node["metadata"]["name"] for node in self.get("nodes")["items"]]
        return sorted(found, key=lambda name: ("agent" in name, name))

    def pods(self, name: str) -> list[dict[str, Any]]:
        """Return the pods of a part of the system, without those that are ending."""
        found = self.get("pods", "--selector", f"{LABEL}={name}")["items"]
        return [pod for pod in found if "deletionTimestamp" not in pod["metadata"]]

    def ready(self, name: str) -> list[str]:
        """Return the names of the pods of a part that are ready."""
        return [pod["metadata"]["name"] for pod in self.pods(name) if _is_ready(pod)]

    def node_of(self, pod: str) -> str:
        """Return where a pod runs."""
        node: str = self.get("pod", pod)["spec"]["nodeName"]
        return node

    def restarts(self, pod: str) -> int:
        """Return how often the containers of a pod were started again."""
        statuses = self.get("pod", pod)["status"]["containerStatuses"]
        return sum(status["restartCount"] for status in statuses)

    def kill(self, pod: str) -> float:
        """Kill a pod's process from the machine that runs the node, with SIGKILL; return when."""
        status = self.get("pod", pod)["status"]["containerStatuses"][0]
        container = status["containerID"].rpartition("/")[2]
        found = [
            int(path.parent.name)
            for path in Path("/proc").glob("[0-9]*/cgroup")
            if container in _text(path)
        ]
        assert found, f"no process of {pod} here: the nodes must run on this machine"
        at = time.monotonic()
        os.kill(min(found), signal.SIGKILL)
        return at

    def move(self, *, away_from: str) -> None:
        """Move the pods that there is only one of to another node."""
        self.kubectl("cordon", away_from)
        try:
            for kind in ("deployments", "statefulsets"):
                for owner in self.get(kind)["items"]:
                    if owner["spec"].get("replicas", 1) == 1:
                        self._move(f"{kind}/{owner['metadata']['name']}", owner, away_from)
        finally:
            self.kubectl("uncordon", away_from)

    def _move(self, name: str, owner: dict[str, Any], away_from: str) -> None:
        labels = owner["spec"]["selector"]["matchLabels"]
        selector = ",".join(f"{key}={value}" for key, value in labels.items())
        field = f"spec.nodeName={away_from}"
        self.kubectl("delete", "pod", f"--selector={selector}", f"--field-selector={field}")
        self.rolled_out(name)

    def rolled_out(self, what: str = "deployment/credenza", *, seconds: int = 300) -> None:
        """Wait until a roll-out has ended well."""
        self.kubectl("rollout", "status", what, f"--timeout={seconds}s", timeout=seconds + 30)

    def apply_with(self, folder: Path, *components: str, patches: str = "") -> None:
        """Apply the development environment with components and patches, and wait for it."""
        k8s = os.path.relpath(ROOT / "k8s", folder)
        lines = ["apiVersion: kustomize.config.k8s.io/v1beta1", "kind: Kustomization"]
        lines += [f"resources: [{k8s}/overlays/dev]", "components:"]
        lines += [f"  - {k8s}/components/{component}" for component in components]
        (folder / "kustomization.yaml").write_text("\n".join([*lines, patches, ""]))
        self.kubectl("apply", "--kustomize", str(folder))
        for kind in ("deployments", "statefulsets"):
            for item in self.get(kind)["items"]:
                self.rolled_out(f"{kind}/{item['metadata']['name']}")

    def sql(self, statement: str) -> str:
        """Run SQL in the PostgreSQL of the cluster and return its rows as text."""
        psql = (
            "psql",
            "--host=/var/run/postgresql",
            "--username=devops",
            "--dbname=credenza",
            "--no-align",
            "--tuples-only",
        )
        options = ("--set=ON_ERROR_STOP=1", "--command", statement)
        return self.kubectl("exec", "postgres-0", "--", *psql, *options).strip()

    def secret(self, name: str, key: str) -> str:
        """Return a value of a Secret; empty where it has none."""
        template = f"{{{{with .data.{key}}}}}{{{{. | base64decode}}}}{{{{end}}}}"
        return self.kubectl("get", "secret", name, "--output", f"go-template={template}")

    @contextmanager
    def forwarded(self, what: str, port: int) -> Iterator[str]:
        """Give an address on loopback that leads to a port in the cluster."""
        command = ["kubectl", "--namespace", self.namespace, "port-forward", what, f":{port}"]
        with subprocess.Popen(command, stdout=subprocess.PIPE, text=True) as process:
            try:
                line = process.stdout.readline() if process.stdout else ""
                assert line.startswith("Forwarding from 127.0.0.1:"), f"no way to {what}: {line}"
                yield "http://" + line.split()[2]
            finally:
                process.terminate()


def _ending(pods: list[dict[str, Any]]) -> bool:
    return any("deletionTimestamp" in pod["metadata"] for pod in pods)


def _text(path: Path) -> str:
    try:
        return path.read_text()
    except OSError:  # it has ended meanwhile
        return ""


def _is_ready(pod: dict[str, Any]) -> bool:
    conditions = pod["status"].get("conditions", [])
    return any(known["type"] == "Ready" and known["status"] == "True" for known in conditions)


def bring_up() -> None:
    """Start the cluster, or bring a lost node back and wait until what it had run is gone."""
    if command := os.environ.get("DRILLS_UP"):
        run(*shlex.split(command), timeout=1800)
    else:
        run("k3d", "node", "start", f"k3d-{K3D}-agent-0")
    for node in Cluster().nodes():
        Cluster().kubectl("wait", "--for=condition=Ready", f"node/{node}", "--timeout=120s")
    wait("no pod is ending any more", lambda: not _ending(Cluster().get("pods")["items"]))


def kill_worker() -> None:
    """Cut the power of the worker node."""
    if command := os.environ.get("DRILLS_KILL_NODE"):
        run(*shlex.split(command))
    else:
        run("k3d", "node", "stop", f"k3d-{K3D}-agent-0")


def worker() -> str:
    """Return the name of the node that drills drain and kill."""
    return Cluster().nodes()[-1]


def load_image(name: str) -> None:
    """Bring an image of the local Docker to the nodes."""
    command = os.environ.get("DRILLS_LOAD", f"k3d image import --cluster {K3D}")
    run(*shlex.split(command), name)


def deploy(*options: str) -> str:
    """Run scripts/deploy.sh on the cluster of KUBECONFIG, or on k3d."""
    given = ["--kubeconfig"] if "KUBECONFIG" in os.environ else []
    if load := os.environ.get("DRILLS_LOAD"):
        given += ["--load", load]
    return run("scripts/deploy.sh", *given, *options, timeout=1200)
