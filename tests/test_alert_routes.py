"""Routes and inhibition: who is told of what, and that each line of them is needed.

Each part of the configuration is taken out or exchanged in its turn, and something has to be amiss.
"""

import copy
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest
import yaml

from alerting import CONFIG, SECRETS, Alertmanager, Config, Place, amtool, open_folder, shipped
from manifests import ROOT
from servers import until
from service_cases import SERVICE

Labels = dict[str, str]
SHIPPED: Config = yaml.safe_load(CONFIG)

ROUTES: list[tuple[str, Labels]] = [
    ("page", {"severity": "page", "namespace": "credenza-prod"}),
    ("page", {"severity": "page", "namespace": "another"}),
    ("page", {"severity": "page", "namespace": "not-credenza-dev"}),
    ("page", {"severity": "page"}),
    ("ticket", {"severity": "page", "namespace": "credenza-staging"}),
    ("ticket", {"severity": "page", "namespace": "credenza-dev"}),
    ("ticket", {"severity": "ticket", "namespace": "credenza-prod"}),
    ("ticket", {"severity": "ticket", "namespace": "credenza-dev"}),
    ("ticket", {"severity": "ticket"}),
    ("ticket", {"namespace": "credenza-prod"}),
    ("ticket", {}),
    ("watchdog", {"alertname": "Watchdog", "severity": "page", "namespace": "credenza-prod"}),
    ("watchdog", {"alertname": "Watchdog", "severity": "none", "namespace": "credenza-dev"}),
    ("watchdog", {"alertname": "Watchdog"}),
]
"""Who is told of alerts with such labels."""


@dataclass(frozen=True)
class Case:
    """An alert that fires, another one, and whether that is silent then."""

    silent: bool
    cause: Labels
    effect: Labels
    same_namespace: bool = True


def _page(name: str = "", **labels: str) -> Labels:
    return {"alertname": name or "P", "severity": "page", "job": "credenza", **labels}


def _ticket(name: str = "", **labels: str) -> Labels:
    return {"alertname": name or "T", "severity": "ticket", "job": "credenza", **labels}


DATABASE, DOWN, TARGET = "CredenzaDatabaseUnreachable", "CredenzaDown", "TargetDown"
REPLICAS = "CredenzaStatefulSetReplicasMissing"
FOLLOWING = (
    *("DatabaseErrors", "GroupsWait", "PoolExhausted", "PoolWaits", "RefusesRequests"),
    "ReplicaWithoutDatabase",
)
CASES = [
    Case(True, _page(slo="reads"), _ticket(slo="reads")),
    Case(False, _page(slo="reads"), _ticket(slo="writes")),
    Case(False, _page(slo="reads"), _ticket(slo="reads"), same_namespace=False),
    Case(False, _page(slo="reads"), _page("Q", slo="reads")),
    Case(False, _ticket(slo="reads"), _ticket("U", slo="reads")),
    Case(False, _page(), _ticket()),
    Case(False, {**_ticket(slo="reads"), "severity": "none"}, _ticket("U", slo="reads")),
    Case(False, _page(slo="reads"), {**_ticket(slo="reads"), "severity": "none"}),
    Case(True, _page(DATABASE), _page(slo="reads")),
    Case(True, _page(DATABASE), _ticket(slo="reads")),
    *(Case(True, _page(DATABASE), _ticket(f"Credenza{name}", instance="a")) for name in FOLLOWING),
    Case(False, _page(DATABASE), _page(slo="reads"), same_namespace=False),
    Case(False, _page(DATABASE), _ticket("CredenzaPoolWaits"), same_namespace=False),
    Case(False, _page(DATABASE), _ticket("CredenzaRedisBreakerOpen")),
    Case(False, _page(DATABASE), _page()),
    Case(False, _ticket(DATABASE), _page(slo="reads")),
    Case(False, _ticket(DATABASE), _ticket("CredenzaPoolWaits")),
    Case(False, _page("Another"), _ticket("CredenzaPoolWaits")),
    Case(True, _page(DOWN), _page(slo="reads")),
    Case(True, _page(DOWN), _ticket(slo="reads")),
    Case(True, _page(DOWN), _ticket("CredenzaRestarts", instance="a")),
    Case(True, _page(DOWN), _ticket(TARGET, instance="a")),
    Case(False, _page(DOWN), _page(slo="reads"), same_namespace=False),
    Case(False, _page(DOWN), _ticket(), same_namespace=False),
    Case(False, _page(DOWN), _page()),
    Case(False, _page(DOWN), {**_ticket(), "job": "prometheus"}),
    Case(False, _ticket(DOWN), _page(slo="reads")),
    Case(False, _ticket(DOWN), _ticket()),
    Case(False, _page("Another"), _page(slo="reads")),
    Case(True, _ticket(TARGET, instance="a"), _ticket("CredenzaMemoryHigh", instance="a")),
    Case(False, _ticket(TARGET, instance="a"), _ticket("CredenzaMemoryHigh", instance="b")),
    Case(False, _ticket(TARGET, instance="a"), _page(instance="a")),
    Case(False, _ticket(TARGET, instance="a"), {**_ticket(instance="a"), "job": "prometheus"}),
    Case(False, _ticket(TARGET, instance="a"), _ticket(instance="a"), same_namespace=False),
    Case(False, _ticket("Another", instance="a"), _ticket(instance="a")),
    Case(False, _ticket(TARGET), _ticket()),
    *(
        case
        for store, collector, others in (
            ("jaeger", "collector", "node-logs"),
            ("loki", "node-logs", "collector"),
        )
        for waits in [_ticket("CollectorSendsNothing") | {"job": collector}]
        for down in [_ticket("ObserverDown") | {"job": store}]
        for case in (
            Case(True, down, waits),
            Case(True, _ticket(f"{store.title()}Fails") | {"job": store}, waits),
            Case(False, down, waits, same_namespace=False),
            Case(False, down | {"job": "alertmanager"}, waits),
            Case(False, _ticket("Another") | {"job": store}, waits),
            Case(False, down, waits | {"job": others}),
            Case(False, down, _ticket("CollectorQueueFills") | {"job": collector}),
        )
    ),
    *(
        case
        for job, another in (("jaeger", "loki"), ("loki", "collector"), ("collector", "jaeger"))
        for down in [_ticket("ObserverDown") | {"job": job}]
        for missing in [{"alertname": REPLICAS, "severity": "ticket", "statefulset": job}]
        for case in (
            Case(True, down, missing),
            Case(False, down, missing, same_namespace=False),
            Case(False, down, missing | {"statefulset": another}),
            Case(False, down, missing | {"statefulset": "prometheus"}),
            Case(False, down, missing | {"alertname": "CredenzaVolumeFills"}),
            Case(False, down | {"alertname": "CollectorQueueFills"}, missing),
        )
    ),
]
"""What is silent while what fires."""


@pytest.fixture
def place(tmp_path: Path) -> Place:
    """The shipped configuration with all secrets."""
    found = Place(tmp_path, dict.fromkeys(SECRETS, "http://127.0.0.1/")).put(shipped())
    found.render()
    return found


def _misrouted(place: Place) -> list[tuple[str, Labels]]:
    """Return the first alert that somebody else is told of than should be."""
    for receiver, labels in ROUTES:
        pairs = [f"{name}={value}" for name, value in labels.items()]
        said = amtool("config", "routes", "test", f"--config.file={place.path}", *pairs)
        if said.split() != [receiver]:
            return [(said, labels)]
    return []


def test_routes(place: Place) -> None:
    """Severity and environment say who is told: production pages, and nothing else does."""
    assert _misrouted(place) == []


def _changed(change: Callable[[Any], object], config: Config) -> Config:
    changed = copy.deepcopy(config)
    change(changed["route"]["routes"])
    return changed


def _exchange(index: int) -> Callable[[Any], object]:
    def change(routes: list[Any]) -> None:
        routes[index], routes[index + 1] = routes[index + 1], routes[index]

    return change


def _receiver(index: int, receiver: str) -> Callable[[Any], object]:
    return lambda routes: routes[index].update(receiver=receiver)


ROUTE_CHANGES: dict[str, Callable[[Any], object]] = {
    "watchdog removed": lambda routes: routes.pop(0),
    "environments removed": lambda routes: routes.pop(1),
    "page removed": lambda routes: routes.pop(2),
    "watchdog after environments": _exchange(0),
    "page before environments": _exchange(1),
    "watchdog without matcher": lambda routes: routes[0].pop("matchers"),
    "environments without matcher": lambda routes: routes[1].pop("matchers"),
    "page without matcher": lambda routes: routes[2].pop("matchers"),
    "development pages": lambda routes: routes[1].update(matchers=['namespace="credenza-staging"']),
    "staging pages": lambda routes: routes[1].update(matchers=['namespace="credenza-dev"']),
    "watchdog goes on": lambda routes: routes[0].update({"continue": True}),
    "watchdog to slack": _receiver(0, "ticket"),
    "environments page": _receiver(1, "page"),
    "page to slack": _receiver(2, "ticket"),
}


@pytest.mark.parametrize("name", ROUTE_CHANGES)
def test_each_part_of_the_routes_is_needed(name: str, place: Place) -> None:
    """A route that is missing, elsewhere, or takes or tells others is seen."""
    place.write(_changed(ROUTE_CHANGES[name], place.config()))
    assert _misrouted(place) != []


def test_the_last_resort_is_needed(place: Place) -> None:
    """Who is told where no route takes an alert is seen too."""
    config = place.config()
    config["route"]["receiver"] = "watchdog"
    place.write(config)
    assert _misrouted(place) != []


@pytest.fixture(scope="module")
def server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Alertmanager]:
    """An Alertmanager that tells nobody, but knows what is inhibited."""
    folder = tmp_path_factory.mktemp("inhibition")
    place = Place(open_folder(folder), {}).put(shipped())
    place.render()
    running = Alertmanager(place).start()
    yield running
    running.stop()


def _namespaces(index: int, case: Case) -> tuple[str, str]:
    cause = f"case-{index}"
    return cause, cause if case.same_namespace else f"{cause}-other"


def _surprises(server: Alertmanager, rules: list[Any], round_: str) -> list[Case]:
    """Return the cases that these rules do not decide as they should.

    A pair with a rule of its own is raised last: when that holds, Alertmanager has seen them all.
    """
    mark = {
        "source_matchers": ['alertname="MarkCause"'],
        "target_matchers": ['alertname="MarkEffect"'],
        "equal": ["round"],
    }
    config = server.place.config()
    config["inhibit_rules"] = [*copy.deepcopy(rules), mark]
    server.reload(config)
    causes, effects = [], []
    for index, case in enumerate(CASES):
        cause, effect = _namespaces(index, case)
        causes.append({**case.cause, "namespace": cause})
        effects.append({**case.effect, "namespace": effect, "case": str(index)})
    last = {"alertname": "MarkEffect", "round": round_}
    server.post(*causes, *effects, last, {"alertname": "MarkCause", "round": round_})
    until(
        lambda: tuple(sorted(last.items())) in server.suppressed("inhibitedBy"),
        "Alertmanager has not seen the last alert",
    )
    silent = server.suppressed("inhibitedBy")
    return [
        case
        for case, effect in zip(CASES, effects, strict=True)
        if (tuple(sorted(effect.items())) in silent) != case.silent
    ]


def test_inhibition(server: Alertmanager) -> None:
    """What follows from an alert that fires is silent, and nothing else is."""
    assert _surprises(server, SHIPPED["inhibit_rules"], "shipped") == []


def _happens(name: str, namespace: str) -> list[Labels]:
    """Return what fires last in a case for promtool, as of another namespace."""
    (case,) = (each for each in SERVICE if each.name == name)
    firing = [each for each in case.expected.values() if each][-1]
    return [dict(each) | {"namespace": namespace} for each in firing]


def test_a_replica_without_the_database_silences_no_page(server: Alertmanager) -> None:
    """A bad node is known and silenced; a bad release pages, and so does the database itself."""
    server.reload(
        server.place.config() | {"inhibit_rules": copy.deepcopy(SHIPPED["inhibit_rules"])}
    )
    one, every = "one-replica", "every-replica"
    add = (f"--alertmanager.url={server.url}", "silence", "add", "-d8h", "-aada", "-cnode")
    replica = _happens("one of two replicas cannot reach the database for seven minutes", one)
    database = _happens("the database cannot be reached", every)
    for instance in {each["instance"] for each in (*replica, *database) if "instance" in each}:
        amtool(*add, f"instance={instance}")
    burns = [_page("Burns", slo="writes", namespace=each) for each in (one, every)]
    server.post(*replica, *database, *burns)
    until(
        lambda: tuple(sorted(burns[1].items())) in server.suppressed("inhibitedBy"),
        "the page of the SLO is not silent while no replica has the database",
    )
    states = {
        (each["labels"]["namespace"], each["labels"]["alertname"]): each["status"]["state"]
        for each in server.alerts()
        if each["labels"].get("namespace") in {one, every}
    }
    assert {key for key, state in states.items() if state == "active"} == {
        (one, "Burns"),
        (every, DATABASE),
    }


def _rule_changes() -> dict[str, list[Any]]:
    """Return the rules without each of their parts in turn."""
    rules = SHIPPED["inhibit_rules"]
    found = {f"{index}": [*rules[:index], *rules[index + 1 :]] for index in range(len(rules))}
    for index, rule in enumerate(rules):
        for part in ("source_matchers", "target_matchers", "equal"):
            for number, item in enumerate(rule[part]):
                changed = copy.deepcopy(rules)
                kept = [each for each in rule[part] if each != item]
                changed[index][part] = kept or (['alertname=~".*"'] if part != "equal" else [])
                found[f"{index} {part} {number}"] = changed
    return found


RULE_CHANGES = _rule_changes()


@pytest.mark.parametrize("name", RULE_CHANGES)
def test_each_part_of_the_inhibition_is_needed(name: str, server: Alertmanager) -> None:
    """A rule, a matcher or a label less silences too much or too little, and is seen."""
    assert _surprises(server, RULE_CHANGES[name], name) != []


def test_alerts_that_inhibition_names_exist() -> None:
    """Each alert that a rule here names is one that Prometheus has."""
    texts = [path.read_text() for path in (ROOT / "monitoring/prometheus/rules").glob("*.y*ml")]
    groups = [group for text in texts for group in yaml.safe_load(text)["groups"]]
    names = {rule["alert"] for group in groups for rule in group["rules"] if "alert" in rule}
    named = {
        DATABASE,
        DOWN,
        TARGET,
        REPLICAS,
        "Watchdog",
        *(f"Credenza{name}" for name in FOLLOWING),
    }
    assert named - names == set()
