"""Which addresses can be reached: a script that tries them, and a pod to run it in."""

from typing import Any

PROBE = """
import socket, sys
from concurrent.futures import ThreadPoolExecutor

def try_it(target):
    host, _, port = target.rpartition(":")
    try:
        socket.create_connection((host, int(port)), timeout=3).close()
    except OSError:
        return f"{target} closed"
    return f"{target} open"

print("dns", socket.gethostbyname(sys.argv[1]))
with ThreadPoolExecutor() as threads:
    print(*threads.map(try_it, sys.argv[2:]), sep="\\n")
"""
"""Looks a name up, then tries each address. A network drops or rejects what it denies; that each
target does listen is shown by those that may reach it."""


def answers(said: str) -> dict[str, bool]:
    """Return whether each address is open, from what PROBE wrote."""
    found = dict(line.split(maxsplit=1) for line in said.splitlines())
    assert found.pop("dns"), "no name is answered"
    return {place: state == "open" for place, state in found.items()}


SECURITY = {
    "allowPrivilegeEscalation": False,
    "readOnlyRootFilesystem": True,
    "capabilities": {"drop": ["ALL"]},
}


def probe_pod(name: str) -> dict[str, Any]:
    """Return a pod with a part's labels; it has no named port, so that no Service takes it in."""
    container = {
        "name": "probe",
        "image": "credenza:latest",
        "imagePullPolicy": "IfNotPresent",
        "command": ["python3", "-c", "import time; time.sleep(3600)"],
        "securityContext": SECURITY,
    }
    spec = {
        "automountServiceAccountToken": False,
        "terminationGracePeriodSeconds": 0,
        "securityContext": {
            "runAsNonRoot": True,
            "runAsUser": 10001,
            "seccompProfile": {"type": "RuntimeDefault"},
        },
        "containers": [container],
    }
    labels = {"app.kubernetes.io/name": name, "app.kubernetes.io/part-of": "credenza"}
    metadata = {"name": f"probe-{name}", "labels": labels}
    return {"apiVersion": "v1", "kind": "Pod", "metadata": metadata, "spec": spec}
