"""The manifests, without a cluster: every overlay is valid, holds together, and is safe to run.

That a cluster takes them and they do what they say is shown by the drills.
"""

import re
from collections.abc import Iterator
from typing import Any

import kubernetes_validate
import pytest

import manifests
import pod_rules
from credenza.database import CLOSE_SECONDS
from credenza.serving import FINISH_SECONDS
from credenza.settings import Settings
from credenza.spans import FLUSH_SECONDS
from credenza.writes import SETTLE_SECONDS
from manifests import COMPONENTS, LONG_RUNNING, OVERLAYS, Object, one, render, title
from pod_rules import RULES, TOKEN, Rule

KUBERNETES = "1.34"

OWN_GROUPS = frozenset(
    {
        "bitnami.com",
        "external-secrets.io",
        "generators.external-secrets.io",
        "monitoring.coreos.com",
        "postgresql.cnpg.io",
    }
)
"""Whose kinds are not Kubernetes' own: their definitions come with their operators."""

MADE_BY_OPERATORS = frozenset({"credenza-tls"})
"""Secrets that appear in the cluster by themselves: cert-manager's certificate."""

ADDED = [name for name in COMPONENTS if name not in {"hpa", "ingress-tls"}]
"""Components that staging does not have yet; each is looked at in its place."""


def valid(found: Object) -> None:
    """Hold an object against Kubernetes' schema; a field that is not in it is a fault."""
    group = found["apiVersion"].rpartition("/")[0]
    if group in OWN_GROUPS:
        assert found["metadata"]["name"]
        return
    try:
        kubernetes_validate.validate(found, KUBERNETES, strict=True)
    except kubernetes_validate.ValidationError as error:
        where = ".".join(map(str, error.path))
        raise AssertionError(f"{title(found)}: {where}: {error.message}") from None


OF_NODES = frozenset(
    {
        "Volume Types",
        "Running as Non-root",
        "Running as Non-root user",
        "the kubelet can check the user",
    }
)
"""Rules that who reads root's files on a node cannot keep; it has a namespace of its own."""


def exempt(rule: Rule, owner: Object) -> bool:
    """Monitoring alone asks the Kubernetes API; the nodes' collectors alone see their folders."""
    name = owner["metadata"]["name"]
    return (rule is TOKEN and name in {"prometheus", "kube-state-metrics"}) or (
        rule.name in OF_NODES and name == "node-logs"
    )


def faults(objects: list[Object]) -> list[str]:
    """Return what is wrong with any pod that these objects make."""
    return [
        f"{title(owner)}: {message}"
        for owner, template in manifests.pods(objects)
        for rule, message in pod_rules.faults(
            template["spec"], serving=owner["kind"] in LONG_RUNNING
        )
        if not exempt(rule, owner)
    ]


GOOD: Object = {
    "automountServiceAccountToken": False,
    "enableServiceLinks": False,
    "securityContext": {
        "runAsNonRoot": True,
        "runAsUser": 10001,
        "seccompProfile": {"type": "RuntimeDefault"},
    },
    "containers": [
        {
            "name": "app",
            "imagePullPolicy": "IfNotPresent",
            "resources": {
                "requests": {"cpu": "1", "memory": "1Mi"},
                "limits": {"cpu": "1", "memory": "1Mi"},
            },
            "readinessProbe": {"exec": {"command": ["true"]}},
            "livenessProbe": {"exec": {"command": ["true"]}},
            "securityContext": {
                "allowPrivilegeEscalation": False,
                "readOnlyRootFilesystem": True,
                "capabilities": {"drop": ["ALL"]},
            },
        }
    ],
    "volumes": [{"name": "tmp", "emptyDir": {}}],
}


@pytest.mark.parametrize(
    ("rule", "bad"),
    [pytest.param(rule, bad, id=f"{rule.path}={bad}") for rule in RULES for bad in rule.bad],
)
def test_each_rule_finds_what_breaks_it(rule: Rule, bad: Any) -> None:
    """A pod that keeps all rules but one is found by that one."""
    assert list(pod_rules.faults(GOOD, serving=True)) == []
    spec = pod_rules.broken(GOOD, rule, bad)
    assert rule in [found for found, _ in pod_rules.faults(spec, serving=True)]


@pytest.mark.parametrize("overlay", OVERLAYS)
def test_objects_are_valid(overlay: str) -> None:
    """Each object is what the schemas of Kubernetes allow, without a field unknown to them."""
    objects = render(overlay)
    assert len({title(found) for found in objects}) == len(objects) > 20
    for found in objects:
        valid(found)


@pytest.mark.parametrize("overlay", OVERLAYS)
def test_pods_are_restricted(overlay: str) -> None:
    """Each pod keeps the Pod Security Standards' level "restricted", and our own rules."""
    assert faults(render(overlay)) == []


@pytest.mark.parametrize("component", ADDED)
def test_components_are_valid_and_restricted(component: str) -> None:
    """Staging with any one component more is still valid, and its pods keep the rules."""
    objects = manifests.render_with(component, "staging")
    assert objects != render("staging")
    for found in objects:
        valid(found)
    assert faults(objects) == []


@pytest.mark.parametrize("overlay", OVERLAYS)
def test_namespaces_enforce_it(overlay: str) -> None:
    """All is in the environment's one namespace, which refuses pods that are not restricted."""
    objects = render(overlay)
    (namespace,) = manifests.kind(objects, "Namespace")
    assert namespace["metadata"]["name"] == f"credenza-{overlay}"
    for mode in ("enforce", "audit", "warn"):
        assert namespace["metadata"]["labels"][f"pod-security.kubernetes.io/{mode}"] == "restricted"
    inside = {found["metadata"].get("namespace") for found in objects if found is not namespace}
    assert inside == {f"credenza-{overlay}"}


@pytest.mark.parametrize("overlay", OVERLAYS)
def test_only_prometheus_has_rights(overlay: str) -> None:
    """Each kind of pod has an account of its own; only that of Prometheus may look at pods."""
    objects = render(overlay)
    accounts = {found["metadata"]["name"] for found in manifests.kind(objects, "ServiceAccount")}
    used = {made["spec"].get("serviceAccountName") for _, made in manifests.pods(objects)}
    assert used == accounts
    for account in manifests.kind(objects, "ServiceAccount"):
        assert account["automountServiceAccountToken"] is False, title(account)
    assert manifests.kind(objects, "ClusterRole", "ClusterRoleBinding") == []
    (binding,) = manifests.kind(objects, "RoleBinding")
    assert [subject["name"] for subject in binding["subjects"]] == ["prometheus"]
    verbs = {"apiGroups": [""], "resources": ["pods"], "verbs": ["get", "list", "watch"]}
    assert one(objects, "Role", binding["roleRef"]["name"])["rules"] == [verbs]


@pytest.mark.parametrize("overlay", OVERLAYS)
def test_services_lead_to_ports(overlay: str) -> None:
    """Each Service selects the pods of something, and its ports are theirs."""
    objects = render(overlay)
    for service in manifests.kind(objects, "Service"):
        chosen = manifests.selected(objects, {"matchLabels": service["spec"]["selector"]})
        assert len(chosen) == 1, f"{title(service)} selects {len(chosen)} kinds of pods"
        for port in service["spec"]["ports"]:
            assert port["targetPort"] in manifests.ports(chosen[0]), title(service)
    for ingress in manifests.kind(objects, "Ingress"):
        for rule in ingress["spec"]["rules"]:
            for path in rule["http"]["paths"]:
                backend = path["backend"]["service"]
                names = {
                    port["name"]
                    for port in one(objects, "Service", backend["name"])["spec"]["ports"]
                }
                assert backend["port"]["name"] in names


PODS_OF_OTHERS = {
    "acme-solver-from-anywhere": "cert-manager makes the pod, and removes it with the challenge",
}
"""Policies for pods that no manifest of ours has, and whose pods those are."""


@pytest.mark.parametrize("overlay", OVERLAYS)
def test_network_policies_select_pods(overlay: str) -> None:
    """Each end of each allowed connection is a pod of the same environment, and listens there."""
    objects = render(overlay)
    for policy in manifests.kind(objects, "NetworkPolicy"):
        spec = policy["spec"]
        own = manifests.selected(objects, spec["podSelector"])
        if policy["metadata"]["name"] in PODS_OF_OTHERS:
            assert not own, title(policy)
            continue
        assert own, title(policy)
        for rule in spec.get("ingress", []):
            assert _listens(own, rule), title(policy)
        for rule in [*spec.get("ingress", []), *spec.get("egress", [])]:
            for peer in _peers(rule):
                assert manifests.selected(objects, peer), f"{title(policy)}: {peer}"
        for rule in spec.get("egress", []):
            for peer in _peers(rule):
                assert _listens(manifests.selected(objects, peer), rule), f"{title(policy)}: {peer}"


def _peers(rule: Object) -> Iterator[Object]:
    """Yield the selectors of pods of the same namespace."""
    for peer in [*rule.get("from", []), *rule.get("to", [])]:
        if "podSelector" in peer and "namespaceSelector" not in peer:
            yield peer["podSelector"]


def _listens(templates: list[Object], rule: Object) -> bool:
    """Tell whether each port of a rule is one of each of these pods."""
    wanted = {port["port"] for port in rule.get("ports", [])}
    return bool(wanted) and all(wanted <= manifests.ports(template) for template in templates)


@pytest.mark.parametrize("overlay", OVERLAYS)
def test_nothing_is_allowed_by_default(overlay: str) -> None:
    """One policy takes all pods in both directions and allows nothing."""
    spec = one(render(overlay), "NetworkPolicy", "default-deny")["spec"]
    assert spec == {"podSelector": {}, "policyTypes": ["Ingress", "Egress"]}


def references(objects: list[Object], kind: str) -> Iterator[tuple[str, str | None]]:
    """Yield the name and key of each Secret or ConfigMap that a pod cannot start without."""
    field = {"Secret": "secret", "ConfigMap": "configMap"}[kind]
    for _, made in manifests.pods(objects):
        for container in manifests.containers(made["spec"]):
            sources = [
                each[f"{field}Ref"]
                for each in container.get("envFrom", [])
                if f"{field}Ref" in each
            ]
            sources += [
                each["valueFrom"][f"{field}KeyRef"]
                for each in container.get("env", [])
                if f"{field}KeyRef" in each.get("valueFrom", {})
            ]
            yield from (
                (each["name"], each.get("key")) for each in sources if not each.get("optional")
            )
        for volume in made["spec"].get("volumes", []):
            if field in volume and not volume[field].get("optional"):
                yield volume[field].get("secretName" if kind == "Secret" else "name"), None


@pytest.mark.parametrize("overlay", OVERLAYS)
def test_config_maps_are_there(overlay: str) -> None:
    """Each ConfigMap that a pod needs is one of the environment's."""
    objects = render(overlay)
    there = {found["metadata"]["name"] for found in manifests.kind(objects, "ConfigMap")}
    needed = {name for name, _ in references(objects, "ConfigMap")}
    assert needed <= there
    assert there <= needed, "a ConfigMap that no pod uses"


@pytest.mark.parametrize("overlay", OVERLAYS)
def test_secrets_are_known(overlay: str) -> None:
    """Each Secret and key that a pod needs is one that development has: there is no other list."""
    known = {
        (found["metadata"]["name"], key)
        for found in manifests.kind(render("dev"), "Secret")
        for key in (None, *found["stringData"])
    }
    needed = {
        found
        for found in references(render(overlay), "Secret")
        if found[0] not in MADE_BY_OPERATORS
    }
    assert needed
    assert needed <= known


@pytest.mark.parametrize("overlay", OVERLAYS)
def test_settings_exist_and_are_no_secrets(overlay: str) -> None:
    """The service's ConfigMap has only settings that there are, and none that is a secret."""
    found = manifests.settings(render(overlay))
    assert {name for name in found if name.lower() not in Settings.model_fields} == set()
    secret = re.compile(r"PASSWORD|SECRET|TOKEN|_URL$")
    assert [name for name in found if secret.search(name)] == []
    assert found["ENVIRONMENT"] == overlay


@pytest.mark.parametrize("overlay", OVERLAYS)
def test_updates_lose_no_replica(overlay: str) -> None:
    """A rollout adds before it takes away, a drain waits, a lost node is given up after 10 s."""
    objects = render(overlay)
    spec = one(objects, "Deployment")["spec"]
    assert spec["strategy"]["rollingUpdate"] == {"maxUnavailable": 0, "maxSurge": 1}
    budget = one(objects, "PodDisruptionBudget")["spec"]
    assert budget["minAvailable"] == 1
    assert manifests.selected(objects, budget["selector"]) == [spec["template"]]
    made = spec["template"]["spec"]
    drain = int(manifests.settings(objects)["DRAIN_SECONDS"])
    ending = FINISH_SECONDS + SETTLE_SECONDS + 2 * CLOSE_SECONDS + FLUSH_SECONDS
    assert made["terminationGracePeriodSeconds"] >= drain + ending
    assert {each["key"]: each["tolerationSeconds"] for each in made["tolerations"]} == {
        "node.kubernetes.io/not-ready": 10,
        "node.kubernetes.io/unreachable": 10,
    }
    (spread,) = made["topologySpreadConstraints"]
    assert spread["whenUnsatisfiable"] == "ScheduleAnyway"
    assert [init["args"] for init in made["initContainers"]] == [["migrate"]]
