"""What a node does with what a container writes: a file that collectors read."""

import threading
import time
from datetime import UTC, datetime
from pathlib import Path
from typing import Final

import yaml

from manifests import ROOT
from service import Running

LONGEST: Final = 16 * 1024
"""Bytes of a line that containerd writes at once; a longer one is in parts."""


class Node:
    """Follows the standard error of a service, and keeps it as containerd and the kubelet do.

    https://github.com/kubernetes/design-proposals-archive/blob/main/node/kubelet-cri-logging.md
    """

    def __init__(self, pods: Path, namespace: str) -> None:
        self.files = read_by(pods, namespace)
        folder = pods / f"{namespace}_credenza-0_7d4e8f6a-0000-4000-8000-000000000001" / "credenza"
        folder.mkdir(parents=True)
        self._file = folder / "0.log"
        self._file.touch()
        self._threads: list[threading.Thread] = []
        self._ended = threading.Event()

    def follow(self, service: Running) -> None:
        """Keep what a service writes from now on."""
        thread = threading.Thread(target=self._follow, args=(service.errors,), daemon=True)
        self._threads.append(thread)
        thread.start()

    def _follow(self, path: Path) -> None:
        with path.open("rb") as source, self._file.open("ab", buffering=0) as kept:
            rest = b""
            while True:
                is_last = self._ended.is_set()
                rest += source.read()
                *lines, rest = rest.split(b"\n")
                for line in lines:
                    kept.write(as_kept(line, datetime.now(UTC)))
                if is_last:
                    return
                time.sleep(0.05)

    def close(self) -> None:
        """Keep what is left, and end."""
        self._ended.set()
        for thread in self._threads:
            thread.join()


def read_by(pods: Path, namespace: str) -> Path:
    """Return the pattern by which a collector finds the files of a namespace, below a folder."""
    shipped: str = yaml.safe_load((ROOT / "k8s/node-logs/prod/kustomization.yaml").read_text())[
        "configMapGenerator"
    ][0]["literals"][0]
    own, _, files = shipped.removeprefix("FILES=/var/log/pods/").partition("_")
    assert own == "credenza-prod"
    return pods / f"{namespace}_{files}"


def as_kept(line: bytes, at: datetime) -> bytes:
    """Return a line as it stands in the file: time, stream, whether it is a part, and text."""
    when = at.isoformat().replace("+00:00", "Z").encode()
    starts = range(0, max(len(line), 1), LONGEST)
    return b"".join(
        b"%s stderr %s %s\n"
        % (when, b"F" if start + LONGEST >= len(line) else b"P", line[start : start + LONGEST])
        for start in starts
    )
