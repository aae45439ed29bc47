"""What a pod has to be: the Pod Security Standards' level "restricted", and rules of our own.

The standard's rules have its names: https://kubernetes.io/docs/concepts/security/pod-security-standards/.
"restricted" contains "baseline". Rules for Windows do not apply: no pod asks for it.
"""

from collections.abc import Callable, Iterator
from copy import deepcopy
from dataclasses import dataclass
from enum import Enum
from typing import Any

from manifests import Object, containers


class Scope(Enum):
    """What a rule's path begins at."""

    POD = "the pod"
    EACH = "each container"
    EFFECTIVE = "each container, where it says nothing the pod"
    BOTH = "the pod and each container"
    SERVING = "each container that is to run on"


@dataclass(frozen=True)
class Rule:
    """Every value at the path is allowed; each of `bad` is one that is not (None: no value)."""

    name: str
    source: str
    scope: Scope
    path: str
    allowed: Callable[[Any], bool]
    bad: tuple[Any, ...]

    def __str__(self) -> str:
        """Return what a message calls it."""
        return f"{self.source}: {self.name} ({self.path})"


def is_in(*values: object) -> Callable[[Any], bool]:
    """Allow these values, with their types: 0 is not False."""
    return lambda value: any(value == each and type(value) is type(each) for each in values)


def within(*values: str) -> Callable[[Any], bool]:
    """Allow a list, or none, of nothing but these."""
    return lambda value: set(value or ()) <= set(values)


def has(wanted: str) -> Callable[[Any], bool]:
    """Allow a list that has this."""
    return lambda value: wanted in (value or ())


def given(value: object) -> bool:
    """Allow whatever is there."""
    return value not in (None, "", {}, [])


def number(value: object) -> bool:
    """Allow a user that the kubelet can tell from root."""
    return isinstance(value, int) and value > 0


def volume(value: Object | None) -> bool:
    """Allow the kinds of volume of the standard."""
    return value is None or set(value) - {"name"} <= {
        "configMap",
        "csi",
        "downwardAPI",
        "emptyDir",
        "ephemeral",
        "persistentVolumeClaim",
        "projected",
        "secret",
    }


UNSET = is_in(None, "")
NO = is_in(None, False)
CONTEXT = "securityContext"
PROBES = (
    "livenessProbe",
    "readinessProbe",
    "startupProbe",
    "lifecycle.postStart",
    "lifecycle.preStop",
)
SYSCTLS = (
    "kernel.shm_rmid_forced",
    "net.ipv4.ip_local_port_range",
    "net.ipv4.ip_local_reserved_ports",
    "net.ipv4.ip_unprivileged_port_start",
    "net.ipv4.ping_group_range",
    "net.ipv4.tcp_fin_timeout",
    "net.ipv4.tcp_keepalive_intvl",
    "net.ipv4.tcp_keepalive_probes",
    "net.ipv4.tcp_keepalive_time",
    "net.ipv4.tcp_rmem",
    "net.ipv4.tcp_syncookies",
    "net.ipv4.tcp_wmem",
)
SELINUX = is_in(
    None, "", "container_t", "container_init_t", "container_kvm_t", "container_engine_t"
)

BASELINE = (
    *(
        Rule("Host Namespaces", "baseline", Scope.POD, path, NO, (True,))
        for path in ("hostNetwork", "hostPID", "hostIPC")
    ),
    Rule("Privileged Containers", "baseline", Scope.EACH, f"{CONTEXT}.privileged", NO, (True,)),
    Rule(
        "HostProcess", "baseline", Scope.BOTH, f"{CONTEXT}.windowsOptions.hostProcess", NO, (True,)
    ),
    Rule("Host Ports", "baseline", Scope.EACH, "ports[].hostPort", is_in(None, 0), (80,)),
    *(
        Rule(
            "Host Probes / Lifecycle Hooks",
            "baseline",
            Scope.EACH,
            f"{place}.{how}.host",
            UNSET,
            ("10.0.0.1",),
        )
        for place in PROBES
        for how in ("httpGet", "tcpSocket")
    ),
    Rule(
        "AppArmor",
        "baseline",
        Scope.BOTH,
        f"{CONTEXT}.appArmorProfile.type",
        is_in(None, "RuntimeDefault", "Localhost"),
        ("Unconfined",),
    ),
    Rule("SELinux", "baseline", Scope.BOTH, f"{CONTEXT}.seLinuxOptions.type", SELINUX, ("spc_t",)),
    Rule("SELinux", "baseline", Scope.BOTH, f"{CONTEXT}.seLinuxOptions.user", UNSET, ("root",)),
    Rule("SELinux", "baseline", Scope.BOTH, f"{CONTEXT}.seLinuxOptions.role", UNSET, ("sysadm_r",)),
    Rule(
        "/proc Mount Type",
        "baseline",
        Scope.EACH,
        f"{CONTEXT}.procMount",
        is_in(None, "Default"),
        ("Unmasked",),
    ),
    Rule(
        "Sysctls",
        "baseline",
        Scope.POD,
        f"{CONTEXT}.sysctls[].name",
        is_in(None, *SYSCTLS),
        ("kernel.msgmax",),
    ),
)

RESTRICTED = (
    Rule(
        "Volume Types",
        "restricted",
        Scope.POD,
        "volumes[]",
        volume,
        ({"name": "x", "hostPath": {"path": "/"}},),
    ),
    Rule(
        "Privilege Escalation",
        "restricted",
        Scope.EACH,
        f"{CONTEXT}.allowPrivilegeEscalation",
        is_in(False),
        (True, None),
    ),
    Rule(
        "Running as Non-root",
        "restricted",
        Scope.EFFECTIVE,
        f"{CONTEXT}.runAsNonRoot",
        is_in(True),
        (False, None),
    ),
    Rule(
        "Running as Non-root user",
        "restricted",
        Scope.BOTH,
        f"{CONTEXT}.runAsUser",
        lambda user: user != 0,
        (0,),
    ),
    Rule(
        "Seccomp",
        "restricted",
        Scope.EFFECTIVE,
        f"{CONTEXT}.seccompProfile.type",
        is_in("RuntimeDefault", "Localhost"),
        ("Unconfined", None),
    ),
    Rule(
        "Capabilities",
        "restricted",
        Scope.EACH,
        f"{CONTEXT}.capabilities.drop",
        has("ALL"),
        (["KILL"], None),
    ),
    Rule(
        "Capabilities",
        "restricted",
        Scope.EACH,
        f"{CONTEXT}.capabilities.add",
        within("NET_BIND_SERVICE"),
        (["SYS_TIME"],),
    ),
)

TOKEN = Rule(
    "no token of the Kubernetes API",
    "ours",
    Scope.POD,
    "automountServiceAccountToken",
    is_in(False),
    (True, None),
)

OURS = (
    TOKEN,
    Rule(
        "the kubelet can check the user",
        "ours",
        Scope.EFFECTIVE,
        f"{CONTEXT}.runAsUser",
        number,
        (0, None),
    ),
    Rule(
        "seccomp as the runtime has it",
        "ours",
        Scope.EFFECTIVE,
        f"{CONTEXT}.seccompProfile.type",
        is_in("RuntimeDefault"),
        ("Localhost",),
    ),
    Rule(
        "read-only root",
        "ours",
        Scope.EACH,
        f"{CONTEXT}.readOnlyRootFilesystem",
        is_in(True),
        (False, None),
    ),
    Rule(
        "no variables of other services",
        "ours",
        Scope.POD,
        "enableServiceLinks",
        is_in(False),
        (True, None),
    ),
    Rule(
        "images that are there are not pulled",
        "ours",
        Scope.EACH,
        "imagePullPolicy",
        is_in("IfNotPresent"),
        ("Always", None),
    ),
    *(
        Rule("resources", "ours", Scope.EACH, f"resources.{path}", given, (None,))
        for path in ("requests.cpu", "requests.memory", "limits.cpu", "limits.memory")
    ),
    *(
        Rule("probes", "ours", Scope.SERVING, path, given, (None,))
        for path in ("readinessProbe", "livenessProbe")
    ),
)

RULES = (*BASELINE, *RESTRICTED, *OURS)


def faults(spec: Object, *, serving: bool) -> Iterator[tuple[Rule, str]]:
    """Yield each rule that a pod breaks, and where."""
    for rule in RULES:
        for where, value in _values(rule, spec, serving=serving):
            if not rule.allowed(value):
                yield rule, f"{where}: {value!r} breaks {rule}"


def _values(rule: Rule, spec: Object, *, serving: bool) -> Iterator[tuple[str, Any]]:
    if rule.scope in {Scope.POD, Scope.BOTH}:
        yield from (("the pod", value) for value in _at(spec, rule.path))
    if rule.scope in {Scope.EACH, Scope.BOTH}:
        for each in containers(spec):
            yield from ((each["name"], value) for value in _at(each, rule.path))
    if rule.scope is Scope.SERVING and serving:
        for each in spec["containers"]:
            yield from ((each["name"], value) for value in _at(each, rule.path))
    if rule.scope is Scope.EFFECTIVE:
        for each in containers(spec):
            own = next(_at(each, rule.path))
            yield each["name"], next(_at(spec, rule.path)) if own is None else own


def _at(place: Any, path: str) -> Iterator[Any]:
    """Yield what is at a path such as `ports[].hostPort`: None where nothing is."""
    step, _, rest = path.partition(".")
    found = (place or {}).get(step.removesuffix("[]"))
    for each in (found or ()) if step.endswith("[]") else (found,):
        yield from _at(each, rest) if rest else (each,)


def broken(spec: Object, rule: Rule, value: Any) -> Object:
    """Return a copy of a pod with a value, or none, where a rule looks."""
    changed = deepcopy(spec)
    places = [changed] if rule.scope is Scope.POD else [changed["containers"][0]]
    for place in [*places, changed] if value is None else places:
        _put(place, rule.path, value)
    return changed


def _put(place: Object, path: str, value: Any) -> None:
    step, _, rest = path.partition(".")
    name = step.removesuffix("[]")
    if not rest:
        place[name] = [value] if step.endswith("[]") else value
    elif step.endswith("[]"):
        inner = place.setdefault(name, [{}])
        _put(inner[0], rest, value)
    else:
        _put(place.setdefault(name, {}), rest, value)
