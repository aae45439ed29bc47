"""The rules of Prometheus: what they say, that they are seen everywhere, and that they fire.

tests/slo_cases.py and tests/service_cases.py have what happens; promtool tells what fires then.
"""

import itertools
import json
import re
import shutil
import subprocess
import sys
from pathlib import Path

import pytest
import yaml

from alert_texts import TEXTS
from manifests import ROOT, one, render
from promtool import ALERTS, EVERY, RULE_FILES, RULES, promtool
from rule_cases import Case
from rule_mutants import KINDS, killer, mutants
from test_compose import mounts

MONITORING = ROOT / "monitoring/prometheus"
SECTIONS = ["What it means", "First look", "How to fix it", "How to test it"]
RUNBOOKS = "https://git.example.com/credenza/blob/main/docs/runbooks/"
PARTS = {
    f"{name}-{at}": cases[at : at + 12]
    for name, cases in KINDS.items()
    for at in range(0, len(cases), 12)
}
CASES: tuple[Case, ...] = tuple(itertools.chain(*KINDS.values()))


@pytest.fixture(autouse=True)
def debian() -> None:
    """Debian's package has both Prometheus and promtool."""
    for program in ("promtool", "prometheus"):
        if shutil.which(program) is None:
            pytest.skip(f"needs {program}: apt-get install prometheus")


def seconds(text: str) -> int:
    """Return how long a duration of Prometheus is."""
    return int(text[:-1]) * {"s": 1, "m": 60, "h": 3600, "d": 86400}[text[-1]]


def test_rules_are_valid() -> None:
    """Promtool takes each file, and warns of nothing."""
    files = map(str, sorted(RULES.glob("*.yml")))
    command = ["promtool", "check", "rules", "--lint-fatal", *files]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stdout + done.stderr


@pytest.mark.parametrize(
    ("name", "more"),
    [
        ("prometheus.yml", sorted((ROOT / "k8s/components").glob("*/scrape-*.yml"))),
        ("compose.yml", [MONITORING / "compose-observe.yml"]),
    ],
)
def test_configurations_are_valid(name: str, more: list[Path], tmp_path: Path) -> None:
    """Promtool takes what Prometheus is started with, and what components add.

    Debian's does not know files of scrapes yet, nor how pods are discovered, which the drills try.
    """
    config = yaml.safe_load((MONITORING / name).read_text())
    del config["scrape_config_files"]
    assert more
    for path in more:
        config["scrape_configs"] += yaml.safe_load(path.read_text())["scrape_configs"]
    for job in config["scrape_configs"]:
        job.pop("kubernetes_sd_configs", None)
    (tmp_path / name).write_text(yaml.safe_dump(config))
    command = ["promtool", "check", "config", "--syntax-only", str(tmp_path / name)]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stdout + done.stderr


@pytest.mark.parametrize("part", PARTS)
def test_what_happens_and_what_fires(part: str) -> None:
    """In each case exactly the alerts fire that are expected, at the minutes that are given."""
    assert promtool(PARTS[part]) == ""


TRIED_AGAIN = {"LokiFails": "2m", "JaegerFails": "2m"}
"""What a collector sends again every 5 s: failures that matter are in each window."""


def test_no_window_is_shorter_than_an_alert_waits() -> None:
    """What happens over and over leaves no gap in which `for` would begin anew.

    A window as long as `for` sees what is as far apart, but for an interval of scrapes.
    """
    for name, found in ALERTS.items():
        for window in re.findall(r"\[(\d+\w)(?::\w+)?\]", found["expr"]):
            if "for" in found and TRIED_AGAIN.get(name) != window:
                assert seconds(window) >= seconds(found["for"]), name


def test_each_alert_fires_and_is_silent() -> None:
    """Each alert fires in a case, and is silent in another one that has the same series changed."""
    fired = set().union(*(case.alerts() for case in CASES))
    assert fired == set(ALERTS) - {"Watchdog"}
    assert TEXTS.keys() == fired
    assert {case for case, *_ in TEXTS.values()} <= {case.name for case in CASES}
    silent = {case.name for case in CASES if not case.alerts()}
    assert len(silent) > 20


def test_watchdog_always_fires(tmp_path: Path) -> None:
    """It fires where nothing else is there, with the text that a receiver sees."""
    watchdog = ALERTS["Watchdog"]
    seen = watchdog["annotations"] | {"summary": "Alerts get through: the value is 1."}
    expected = {"exp_labels": watchdog["labels"], "exp_annotations": seen}
    test = {"eval_time": "0m", "alertname": "Watchdog", "exp_alerts": [expected]}
    cases = {
        "rule_files": [str(RULES / "prometheus.yml")],
        "tests": [{"interval": "1m", "alert_rule_test": [test]}],
    }
    path = tmp_path / "watchdog.yml"
    path.write_text(yaml.safe_dump(cases))
    done = subprocess.run(["promtool", "test", "rules", path], capture_output=True, check=False)
    assert done.returncode == 0, done.stdout


@pytest.mark.parametrize("name", ALERTS)
def test_alerts_say_what_to_do(name: str) -> None:
    """Each alert has a severity, its value in its summary, and a runbook with its four parts."""
    found = ALERTS[name]
    severities = {"none"} if name == "Watchdog" else {"page", "ticket"}
    assert found["labels"]["severity"] in severities
    annotations = found["annotations"]
    assert annotations.keys() == {"summary", "description", "runbook_url"}
    assert "$value" in annotations["summary"]
    assert len(annotations["description"].split()) > 5
    assert annotations["runbook_url"] == f"{RUNBOOKS}{name}.md"
    page = (ROOT / f"docs/runbooks/{name}.md").read_text()
    assert page.startswith(f"# {name}\n")
    assert re.findall(r"(?m)^## (.*)$", page) == SECTIONS


def test_each_runbook_is_of_an_alert() -> None:
    """No page is left of an alert that is gone, and the list has each with its severity."""
    pages = {path.stem for path in (ROOT / "docs/runbooks").glob("*.md")}
    assert pages == set(ALERTS)
    listed = (ROOT / "docs/reference/alerts.md").read_text()
    for name, found in ALERTS.items():
        line = (
            rf"(?m)^\| \[`{name}`\]\(\.\./runbooks/{name}\.md\) \| {found['labels']['severity']} \|"
        )
        assert re.search(line, listed), name


def test_a_number_of_requests_counts_each_once() -> None:
    """`30 * sum_over_time` is a number of requests: the rates are recorded each 30 s."""
    (group,) = [each for each in RULE_FILES["slo.yml"]["groups"] if each["name"] == "credenza-sli"]
    assert group["interval"] == "30s"
    counts = [rule for rule in EVERY if ":increase" in rule.get("record", "")]
    assert counts
    assert all(rule["expr"].startswith("30 * sum_over_time(") for rule in counts)


def test_the_same_files_are_seen_everywhere() -> None:
    """Compose, Kustomize and the chart give Prometheus each file of the rules; it reads them."""
    assert mounts("prometheus")["/etc/prometheus-rules"] == RULES
    for name in ("prometheus.yml", "compose.yml"):
        read = yaml.safe_load((MONITORING / name).read_text())["rule_files"]
        assert read == ["/etc/prometheus-rules/*.yml"]
    data = one(render("dev"), "ConfigMap", "prometheus-rules")["data"]
    assert data == {path.name: path.read_text() for path in RULES.glob("*.yml")}
    spec = yaml.safe_load((MONITORING / "stateful-set.yaml").read_text())["spec"]["template"][
        "spec"
    ]
    places = {each["name"]: each["mountPath"] for each in spec["containers"][0]["volumeMounts"]}
    assert places["rules"] == "/etc/prometheus-rules"


def test_the_operators_rules_are_the_same() -> None:
    """The PrometheusRule is made of the same files, but for those about Prometheus itself."""
    made = [sys.executable, str(ROOT / "charts/prometheus_rule.py"), "--check"]
    assert subprocess.run(made, check=False).returncode == 0
    path = ROOT / "k8s/components/prometheus-operator/prometheus-rule.yaml"
    groups = yaml.safe_load(path.read_text())["spec"]["groups"]
    expected = [
        g for name, file in RULE_FILES.items() if name != "prometheus.yml" for g in file["groups"]
    ]
    assert sorted(groups, key=json.dumps) == sorted(expected, key=json.dumps)


FAULTS = {
    "a condition is an alternative": (
        *("CredenzaAvailabilityBurnsFast", "'and' is"),
        "2 % fail for half an hour: that is no page",
    ),
    "a factor is lower": (
        *("CredenzaAvailabilityBurnsFast", "'14.4' is '11.52'"),
        "14.4 over an hour, and over 5 minutes",
    ),
    "a factor is higher": (
        *("CredenzaFreshnessBurnsFast", "'14.4' is '18'"),
        "14.4 over an hour, and over 5 minutes",
    ),
    "the other factor is higher": (
        *("CredenzaLatencyBurnsFast", "'6' is '8'"),
        "6 over six hours, and over half an hour",
    ),
    "a long window is short": (
        *("CredenzaAvailabilityBurnsFast", "'1h' is '5m'"),
        "2 % fail for half an hour: that is no page",
    ),
    "a short window is long": (
        *("CredenzaAvailabilityBurnsFast", "'5m' is '1h'"),
        "a fifth of the reads fails for 5 minutes",
    ),
    "few failures are a ratio": (
        *("CredenzaAvailabilityBurnsFast", "'and credenza:slo_failures:increase1h"),
        "four reads of 240 an hour are no ratio",
    ),
    "no traffic gives no number": (
        *("credenza:slo_errors:ratio_rate1h", "'> 0' is ''"),
        "no traffic",
    ),
    "no series gives no number": (
        *("credenza:slo_failures:rate5m", "'or 0 * count by (job, namespace)"),
        "nobody has asked yet",
    ),
    "namespaces are mixed": (
        *("credenza:slo_failures:rate5m", "'job, namespace' is 'job'"),
        "staging fails, and production does not",
    ),
    "the first failures are not seen": (
        *("credenza:http_requests:rate5m", "'or process_start_time_seconds"),
        "a process has just begun, and fails at once",
    ),
    "probes are users": (
        *("credenza:http_requests:rate5m", "'handler!~"),
        "probes and scrapes are no users",
    ),
    "a target is lower": (
        *("credenza:slo_objective:ratio", "'0.999' is '0.99875'"),
        "a little more than the budgets allow",
    ),
    "a target is higher": (
        *("credenza:slo_objective:ratio", "'0.99' is '0.992'"),
        "a little less than they allow",
    ),
    "another bucket": (
        *("credenza:slo_bound:seconds", "'0.1' is '0.05'"),
        "reads may take longer than 0.05 s",
    ),
    "little traffic is any traffic": (
        *("CredenzaFewRequestsFail", "'and credenza:slo_requests"),
        "eight reads of 240 an hour neither",
    ),
    "it does not wait": (
        *("CredenzaDatabaseUnreachable", "'for: 1m' is ''"),
        "the database is away for half a minute",
    ),
    "a kind is lost": (
        *("CredenzaDatabaseErrors", "'job, namespace, kind' is 'job, namespace'"),
        "10 failures: away",
    ),
    "few requests are fewer": (
        *("credenza:slo_few_requests:count", "'200' is '160'"),
        "four of 180 requests fail, then five, then there are 230",
    ),
    "it waits longer": (
        *("CredenzaDatabaseUnreachable", "for: 120s"),
        "the database cannot be reached",
    ),
    "it waits at all": (
        *("CredenzaRestarts", "for: 5m"),
        "a process starts anew three times",
    ),
    "it stays when it is over": (
        *("CredenzaDatabaseUnreachable", "keep_firing_for"),
        "the database cannot be reached",
    ),
    "a page is a ticket": (
        *("CredenzaDatabaseUnreachable", "'page' is 'ticket'"),
        "the database cannot be reached",
    ),
    "a time is a bare number": (
        *("CredenzaPoolWaits", "'| humanizeDuration' is ''"),
        "99 of 100 statements wait more than 0.25 s",
    ),
    "nobody knows which": (
        *("TargetDown", "'{{ $labels.instance }}' is ''"),
        "the only target is down",
    ),
    "another runbook": (
        *("TargetDown", "'TargetDown' is"),
        "the only target is down",
    ),
    "another service is ours": (
        *("TargetDown", "'job=\"credenza\"' is ''"),
        "everything is wrong with a target of another job",
    ),
    "what is gone is not missed": (
        *("CredenzaDown", "'or 0 * absent_over_time"),
        "there was never one",
    ),
    "old failures are new ones": (
        *("credenza:loki_discarded:count10m", "'and on (job, namespace, instance) (up"),
        "Prometheus has just begun, and Loki refused lines long ago",
    ),
    "what was down then began then": (
        *("credenza:loki_discarded:count10m", "'== 1' is ''"),
        "Loki was down for three minutes, and refused lines long ago",
    ),
    "reasons are mixed": (
        *("credenza:loki_discarded:count10m", "'job, namespace, reason' is 'job, namespace'"),
        "a few lines are refused for each of two reasons",
    ),
    "a replica silences the database": (
        *("CredenzaContainerRestarts", "'namespace, pod' is 'namespace'"),
        "the service and the database start anew three times",
    ),
    "a condition of the namespace is an alternative": (
        *("CredenzaMigrationStuck", "'and' is 'or'"),
        "a migration takes 20 minutes",
    ),
    "lines that are sent are not seen": (
        *("CollectorSendsNothing", "'or otelcol_exporter_sent_log_records_total' is"),
        "node-logs sends, and something waits",
    ),
}
"""What is wrong; the rule that it is wrong in, what it is, and the case that sees it."""


@pytest.mark.parametrize("wrong", FAULTS)
def test_faults_are_seen(wrong: str) -> None:
    """A fault in a rule is seen by a case; `python tests/rule_mutants.py` tries all of them."""
    rule, change, name = FAULTS[wrong]
    found = next(each for each in mutants() if each.rule == rule and change in each.name())
    (case,) = (each for each in CASES if each.name == name)
    assert killer(found, [case]) == case
