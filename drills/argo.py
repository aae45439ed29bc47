"""Argo CD under drill: a repository of the drill's own that it reads, and what it makes of it.

`DRILLS_ARGOCD` installs Argo CD or starts it; without it the pinned official manifests are applied.
The repository is served by `git daemon` on loopback. Where the cluster cannot reach that (k3d),
`DRILLS_GIT_URL` names an empty repository that both can reach, and that the drill may push to.
"""

import json
import os
import re
import subprocess
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final

import yaml
from cluster import ROOT, Cluster, run, wait

from servers import free_port

VERSION: Final = "v3.1.9"
INSTALL: Final = f"""
kubectl create namespace argocd --dry-run=client --output=yaml | kubectl apply --filename=-
kubectl apply --server-side --namespace=argocd --filename=\
https://raw.githubusercontent.com/argoproj/argo-cd/{VERSION}/manifests/install.yaml
kubectl --namespace=argocd wait deployment --all --for=condition=Available --timeout=300s
"""
BRANCH: Final = "drill"
PREFIX: Final = "credenza-drill"
"""What the drill's namespaces, Applications and project are called in the place of credenza."""

IMAGE: Final = "credenza:drill-argocd"
DEV: Final = "k8s/overlays/dev/kustomization.yaml"
ARGOCD: Final = Cluster("argocd")


def install() -> None:
    """Bring Argo CD up."""
    run("bash", "-euo", "pipefail", "-c", os.environ.get("DRILLS_ARGOCD", INSTALL), timeout=900)


@dataclass(frozen=True)
class Repository:
    """A clone that the drill commits to, and the address where Argo CD finds it."""

    folder: Path
    url: str

    def git(self, *arguments: str) -> str:
        """Run git in the clone, as nobody in particular."""
        who = ("-c", "user.name=drill", "-c", "user.email=drill@example.com")
        return run("git", "-C", self.folder, *who, *arguments).strip()

    def change(self, path: str, old: str, new: str) -> None:
        """Change what is there once in a file of the clone, by a regular expression."""
        file = self.folder / path
        text, number = re.subn(old, new, file.read_text(), flags=re.MULTILINE)
        assert number == 1, f"{path}: {number} of {old!r}"
        file.write_text(text)

    def push(self, message: str, branch: str = BRANCH) -> str:
        """Commit all that has changed, push it, and return the commit."""
        self.git("add", "--all")
        self.git("commit", "--quiet", "--message", message)
        return self.publish(branch)

    def revert(self, commit: str) -> str:
        """Push the commit that takes another one back, and return it."""
        self.git("revert", "--no-edit", commit)
        return self.publish()

    def publish(self, branch: str = BRANCH) -> str:
        """Push where the clone is, and return the commit."""
        self.git("push", "--quiet", "--force", "drill", f"HEAD:refs/heads/{branch}")
        return self.git("rev-parse", "HEAD")


@contextmanager
def served(folder: Path) -> Iterator[Repository]:
    """Serve a clone of this repository as it is committed."""
    clone = folder / "clone"
    run("git", "clone", "--quiet", ROOT, clone)
    if url := os.environ.get("DRILLS_GIT_URL"):
        run("git", "-C", clone, "remote", "add", "drill", url)
        yield Repository(clone, url)
        return
    bare = folder / "served" / "credenza.git"
    run("git", "clone", "--quiet", "--bare", ROOT, bare)
    run("git", "-C", clone, "remote", "add", "drill", bare)
    with _daemon(bare.parent) as port:
        yield Repository(clone, f"git://127.0.0.1:{port}/{bare.name}")


@contextmanager
def _daemon(folder: Path) -> Iterator[int]:
    program, port = Path(run("git", "--exec-path").strip(), "git-daemon"), free_port()
    where = ("--listen=127.0.0.1", f"--port={port}", f"--base-path={folder}", "--export-all")
    with subprocess.Popen([program, "--reuseaddr", *where, folder]) as process:
        try:
            address = f"git://127.0.0.1:{port}/credenza.git"
            wait("git daemon", lambda: run("git", "ls-remote", address, check=False), seconds=20)
            yield port
        finally:
            process.terminate()


def manifest(name: str, repository: Repository) -> dict[str, Any]:
    """Return a file of argocd/ with the drill's repository, names and namespaces."""
    project = yaml.safe_load((ROOT / "argocd/project.yaml").read_text())
    text = (ROOT / "argocd" / f"{name}.yaml").read_text()
    text = text.replace(project["spec"]["sourceRepos"][0], repository.url)
    text = re.sub("(?<=evision: ).*", BRANCH, text).replace("credenza-", f"{PREFIX}-")
    found: dict[str, Any] = yaml.safe_load(text.replace("project: credenza", f"project: {PREFIX}"))
    if found["metadata"]["name"] == "credenza":
        found["metadata"]["name"] = PREFIX
    return found


def apply(found: dict[str, Any]) -> None:
    """Give an object to Argo CD."""
    ARGOCD.kubectl("apply", "--filename=-", input_=json.dumps(found))


@dataclass(frozen=True)
class Application:
    """An Application of Argo CD: one environment."""

    environment: str

    @property
    def name(self) -> str:
        """What it is called; its namespace has the same name."""
        return f"{PREFIX}-{self.environment}"

    @property
    def cluster(self) -> Cluster:
        """The namespace that it fills."""
        return Cluster(self.name)

    def status(self) -> dict[str, Any]:
        """Return what Argo CD says of it; nothing where it does not know it yet."""
        found = ARGOCD.kubectl("get", "application", self.name, "--output=json", check=False)
        status: dict[str, Any] = json.loads(found).get("status", {}) if found else {}
        return status

    def synced(self, commit: str, *, seconds: float = 420) -> float:
        """Ask Argo CD to look, as a webhook does; return the seconds until a commit is running."""
        start = time.monotonic()
        wait(f"{self.name} is there", self._refreshed, seconds=60)
        wait(f"{commit} in {self.name}", lambda: self._runs(commit), seconds=seconds)
        self.cluster.rolled_out()
        return time.monotonic() - start

    def _refreshed(self) -> str:
        asked = ("annotate", "--overwrite", "application", self.name)
        return ARGOCD.kubectl(*asked, "argocd.argoproj.io/refresh=normal", check=False)

    def _runs(self, commit: str) -> bool:
        status = self.status()
        sync, health = status.get("sync", {}), status.get("health", {})
        is_synced = (sync.get("status"), sync.get("revision")) == ("Synced", commit)
        return is_synced and health.get("status") == "Healthy"

    def automated(self, *, enabled: bool) -> None:
        """Pause the environment, or let it go on."""
        policy = {"spec": {"syncPolicy": {"automated": {"enabled": enabled}}}}
        patch = f"--patch={json.dumps(policy)}"
        ARGOCD.kubectl("patch", "application", self.name, "--type=merge", patch)

    def says(self) -> str:
        """Return why it is not synced."""
        status = self.status()
        operation = status.get("operationState", {})
        results = operation.get("syncResult", {}).get("resources", [])
        conditions = [known["message"] for known in status.get("conditions", [])]
        return "\n".join([*conditions, *(known.get("message", "") for known in results)])


def timed(act: Callable[[], object], what: str, condition: Callable[[], object]) -> float:
    """Do something and return the seconds until a condition holds."""
    start = time.monotonic()
    act()
    wait(what, condition)
    return time.monotonic() - start


WIPE: Final = """
apiVersion: v1
kind: Pod
metadata: {name: wipe}
spec:
  restartPolicy: Never
  automountServiceAccountToken: false
  securityContext: {runAsNonRoot: true, runAsUser: 999, seccompProfile: {type: RuntimeDefault}}
  containers:
    - name: wipe
      image: postgres:18
      imagePullPolicy: IfNotPresent
      command: [find, /data, -mindepth, "1", -delete]
      securityContext: {allowPrivilegeEscalation: false, capabilities: {drop: [ALL]}}
      volumeMounts: [{name: data, mountPath: /data}]
  volumes:
    - {name: data, persistentVolumeClaim: {claimName: data-postgres-0}}
"""


def remove(cluster: Cluster) -> None:
    """Remove a namespace; its volumes are empty then, and free for the next who asks for one."""
    if cluster.kubectl("get", "pvc", "data-postgres-0", "--ignore-not-found", check=False):
        cluster.kubectl("scale", "statefulset/postgres", "--replicas=0")
        cluster.kubectl("wait", "--for=delete", "pod/postgres-0", "--timeout=120s")
        cluster.kubectl("apply", "--filename=-", input_=WIPE)
        done = "--for=jsonpath={.status.phase}=Succeeded"
        cluster.kubectl("wait", done, "pod/wipe", "--timeout=120s")
    cluster.kubectl("delete", "namespace", cluster.namespace, "--ignore-not-found")
    _free(cluster)


def _free(cluster: Cluster) -> None:
    """Free volumes that stay when their claim goes; others go with it."""
    for volume in cluster.get("pv")["items"]:
        claim = volume["spec"].get("claimRef", {})
        if claim.get("namespace") == cluster.namespace:
            name = volume["metadata"]["name"]
            forget = '{"spec": {"claimRef": null}}'
            cluster.kubectl("patch", "pv", name, "--type=merge", f"--patch={forget}", check=False)
