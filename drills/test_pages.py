"""The how-to pages for Kubernetes, followed from top to bottom as a reader would."""

import os
import re
import shutil
import subprocess
from collections.abc import Iterator
from pathlib import Path

import managed
import pytest
from cluster import IMAGE, ROOT, Cluster, load_image, run, wait
from managed import PASSWORD

from conftest import Measured
from examples import Block, Seen, blocks, commands

HOW_TO = ROOT / "docs/how-to"
MARK = "it needs a cluster; `make drills` runs it"
PAGES = (
    *("k3d", "upgrade-and-roll-back", "backup-and-restore", "existing-cluster", "helm"),
    "production",
)
PARTS = ("argocd", "charts", "k8s", "monitoring", "scripts", "src")
FILES = ("Dockerfile", ".dockerignore", "pyproject.toml", "uv.lock", "README.md", "LICENSE")

RELEASE = "credenza:drill-page"
PLACES = {
    "registry.example.com/credenza:v0.1.0": RELEASE,
    "registry: registry.example.com": 'registry: ""',
    "tag: v0.1.0": "tag: " + RELEASE.partition(":")[2],
    "db.example.com": managed.POSTGRES,
    "redis.example.com": managed.REDIS,
}
DEPLOY = re.compile(r"scripts/deploy\.sh(?! --kubeconfig)")
"""The command that makes a k3d cluster; where the drills have another one, it uses that."""


class Reader:
    """Someone who does what a page says, in a copy of the repository."""

    def __init__(self, folder: Path) -> None:
        self._folder = folder
        self._seen = Seen()
        for part in PARTS:
            shutil.copytree(ROOT / part, folder / part, symlinks=True)
        for file in FILES:
            shutil.copy(ROOT / file, folder)
        subject = ("-subj", "/CN=credenza.example.com", "-days", "2", "-nodes")
        files = ("-keyout", str(folder / "tls.key"), "-out", str(folder / "tls.crt"))
        run("openssl", "req", "-x509", "-newkey", "rsa:2048", *subject, *files)

    def follow(self, block: Block) -> None:
        """Do what a block says and compare what it shows."""
        if block.language == "console":
            for command, shown in commands(block.text):
                self._seen.compare(shown, self._run(command))
        else:
            self._run(block.text)

    def _run(self, script: str) -> str:
        done = subprocess.run(
            ["bash", "-euo", "pipefail", "-c", self._here(script)],
            cwd=self._folder,
            env=os.environ | {"DATABASE_PASSWORD": PASSWORD, "REDIS_PASSWORD": PASSWORD},
            stdin=subprocess.DEVNULL,
            capture_output=True,
            text=True,
            timeout=900,
            check=False,
        )
        told = f"{script}\n{done.stdout[-2000:]}{done.stderr[-4000:]}"
        assert done.returncode == 0, told
        return "".join(f"{line.rstrip()}\n" for line in done.stdout.splitlines())

    def _here(self, script: str) -> str:
        script = self._seen.replaced(script)
        for written, here in PLACES.items():
            script = script.replace(written, here)
        if "KUBECONFIG" in os.environ:
            load = f"--load '{os.environ['DRILLS_LOAD']}'"
            script = DEPLOY.sub(lambda found: f"{found[0]} --kubeconfig {load}", script)
        return script


@pytest.fixture(scope="module")
def release(cluster: Cluster) -> None:
    """The image under the name of a release, on the nodes."""
    run("docker", "tag", IMAGE, RELEASE)
    load_image(RELEASE)


@pytest.fixture
def databases(request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[None]:
    """PostgreSQL and Redis outside of the environment's namespace, for the page that needs them."""
    if "production" not in request.node.name:
        yield
        return
    assert not Cluster("credenza-prod").exists(), "credenza-prod is there, and not this drill's"
    with managed.provider(tmp_path):
        yield
    run("kubectl", "delete", "namespace", "credenza-prod", "--ignore-not-found")


@pytest.mark.usefixtures("release", "databases")
@pytest.mark.parametrize("page", PAGES)
def test_page(
    cluster: Cluster, page: str, tmp_path_factory: pytest.TempPathFactory, measured: Measured
) -> None:
    """Each command of a page does what the page says."""
    found = [block for block in blocks((HOW_TO / f"{page}.md").read_text()) if block.reason == MARK]
    assert found, "the page has nothing to follow"
    reader = Reader(tmp_path_factory.mktemp("reader"))
    for block in found:
        reader.follow(block)
    cluster.rolled_out()
    wait("two replicas are ready", lambda: len(cluster.ready("credenza")) == 2)
    measured(f"{len(found)} blocks of docs/how-to/{page}.md")
