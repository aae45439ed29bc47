"""Alertmanager: the shipped configuration tells whom it should, on a real Alertmanager.

tests/test_alert_routes.py changes the configuration and sees that it no longer does;
tests/test_alert_files.py looks at what is switched on by secrets, and at each packaging.
"""

import os
import shutil
import subprocess
from collections.abc import Iterator
from pathlib import Path

import pytest
import yaml

from alerting import (
    SECRETS,
    Alertmanager,
    Config,
    Inbox,
    Place,
    amtool,
    open_folder,
    program,
    shipped,
)
from examples import blocks
from manifests import ROOT
from servers import Process, until

RUNBOOK = "https://example.com/runbooks/"
PAST = "2020-01-01T00:00:00Z"


@pytest.fixture(scope="module")
def inbox() -> Iterator[Inbox]:
    """Who is told, whatever they are."""
    found = Inbox()
    yield found
    found.close()


@pytest.fixture(scope="module")
def live(tmp_path_factory: pytest.TempPathFactory, inbox: Inbox) -> Iterator[Alertmanager]:
    """The shipped configuration with each secret, faster, and told where PagerDuty is."""
    secrets = {name: inbox.url(name) for name in SECRETS} | {"PAGERDUTY_ROUTING_KEY": "a-key"}
    place = Place(open_folder(tmp_path_factory.mktemp("live")), secrets).put(shipped())
    place.render()
    place.write(_faster(place.config(), inbox))
    server = Alertmanager(place).start()
    yield server
    assert server.failures() == 0
    server.stop()


class Prometheus(Process):
    """Debian's Prometheus as in a cluster, with one rule, and no pods to look for."""

    def __init__(self, folder: Path, told: Alertmanager) -> None:
        super().__init__(folder)
        text = (ROOT / "monitoring/prometheus/prometheus.yml").read_text()
        config = yaml.safe_load(text.replace("alertmanager:9093", told.url.removeprefix("http://")))
        config["global"]["evaluation_interval"] = "200ms"
        rule = {"alert": "Bare", "expr": "vector(1)", "labels": {"severity": "page"}}
        rules = {"groups": [{"name": "one", "rules": [rule]}]}
        (folder / "rules.yml").write_text(yaml.safe_dump(rules))
        del config["scrape_config_files"]  # Debian's does not know them yet
        config |= {"scrape_configs": [], "rule_files": [str(folder / "rules.yml")]}
        (folder / "prometheus.yml").write_text(yaml.safe_dump(config))

    def command(self) -> list[str]:
        """Return the command line; from version 3 on it needs no feature for variables."""
        return [
            *("env", "NAMESPACE=credenza-staging", "prometheus"),
            f"--config.file={self.folder}/prometheus.yml",
            f"--storage.tsdb.path={self.folder}/data",
            f"--web.listen-address=127.0.0.1:{self.port}",
            "--enable-feature=expand-external-labels",
            "--rules.alert.resend-delay=200ms",
        ]


def _faster(config: Config, inbox: Inbox) -> Config:
    """Make seconds of minutes, and name PagerDuty's address; all else stays."""
    config["global"]["pagerduty_url"] = inbox.url("PAGERDUTY_ROUTING_KEY")
    for route in (config["route"], *config["route"]["routes"]):
        route.update(group_wait="300ms", group_interval="600ms")
    config["route"]["routes"][0]["repeat_interval"] = "1s"
    return config


def _alert(name: str, namespace: str = "credenza-prod", **more: str) -> dict[str, str]:
    return {"alertname": name, "job": "credenza", "namespace": namespace, **more}


def _said(name: str) -> dict[str, str]:
    return {
        "summary": f"Summary of {name}.",
        "description": f"Description of {name}.",
        "runbook_url": f"{RUNBOOK}{name}.md",
    }


def test_a_page_goes_to_pagerduty_and_a_copy_to_slack(live: Alertmanager, inbox: Inbox) -> None:
    """Alerts of one kind are one notification; each says what it is and what to do."""
    name = "PageOfProduction"
    live.post(
        *(_alert(name, severity="page", instance=each) for each in ("a:8001", "b:8001")),
        **_said(name),
    )
    (event,) = live.wait(inbox, "PAGERDUTY_ROUTING_KEY", name)
    (message,) = live.wait(inbox, "SLACK_API_URL", name)
    (posted,) = live.wait(inbox, "WEBHOOK_URL", name)
    assert {alert["labels"]["instance"] for alert in posted["alerts"]} == {"a:8001", "b:8001"}
    assert posted["groupLabels"] == {"alertname": name, "namespace": "credenza-prod"}
    assert event["routing_key"] == "a-key"
    assert event["event_action"] == "trigger"
    assert event["payload"]["severity"] == "critical"
    assert event["client_url"] == f"{RUNBOOK}{name}.md"
    (attachment,) = message["attachments"]
    title = f"[PAGE] {name} in credenza-prod, 2 firing"
    assert attachment["title"] == attachment["fallback"] == event["payload"]["summary"] == title
    assert attachment["title_link"] == f"{RUNBOOK}{name}.md"
    assert attachment["color"] == "danger"
    for text in (attachment["text"], event["payload"]["custom_details"]["alerts"]):
        assert text.split("\n\n")[0].splitlines() == [
            f"Summary of {name}.",
            f"Description of {name}.",
            "Instance: a:8001",
            f"Runbook: {RUNBOOK}{name}.md",
        ]
        assert "Instance: b:8001" in text


@pytest.mark.parametrize(
    ("name", "labels"),
    [
        ("TicketOfProduction", {"severity": "ticket"}),
        ("PageOfStaging", {"severity": "page", "namespace": "credenza-staging"}),
        ("PageOfDevelopment", {"severity": "page", "namespace": "credenza-dev"}),
        ("NoSeverity", {}),
    ],
)
def test_what_can_wait_goes_to_slack_alone(
    name: str, labels: dict[str, str], live: Alertmanager, inbox: Inbox
) -> None:
    """A ticket, and whatever is not production, wakes nobody, and is not lost."""
    live.post({**_alert(name), **labels}, **_said(name))
    (message,) = live.wait(inbox, "SLACK_API_URL", name)
    live.wait(inbox, "WEBHOOK_URL", name)
    kind = labels.get("severity", "alert").upper()
    assert message["attachments"][0]["title"].startswith(f"[{kind}] {name} in credenza-")
    assert inbox.names(name) == {"SLACK_API_URL", "WEBHOOK_URL"}


def test_groups_are_of_one_alert_one_environment_and_one_slo(
    live: Alertmanager, inbox: Inbox
) -> None:
    """What somebody has to look at apart comes apart."""
    name, both = "Grouped", ("credenza-prod", "credenza-staging")
    live.post(
        *(
            _alert(name, namespace, severity="ticket", slo=slo, instance=instance)
            for namespace in both
            for slo in ("reads", "writes")
            for instance in ("a", "b")
        )
    )
    posted = live.wait(inbox, "WEBHOOK_URL", name, count=4)
    assert [len(each["alerts"]) for each in posted] == [2, 2, 2, 2]
    groups = {(each["groupLabels"]["namespace"], each["groupLabels"]["slo"]) for each in posted}
    assert groups == {(namespace, slo) for namespace in both for slo in ("reads", "writes")}


def test_what_is_over_is_told(live: Alertmanager, inbox: Inbox) -> None:
    """Whoever was told that it fires is told when it is over; PagerDuty closes its incident."""
    name = "SoonOver"
    alert = _alert(name, severity="page")
    live.post(alert, **_said(name))
    live.wait(inbox, "PAGERDUTY_ROUTING_KEY", name)
    live.post(alert, end=PAST, **_said(name))
    trigger, resolve = live.wait(inbox, "PAGERDUTY_ROUTING_KEY", name, count=2)[:2]
    assert (trigger["event_action"], resolve["event_action"]) == ("trigger", "resolve")
    assert trigger["dedup_key"] == resolve["dedup_key"]
    _, message = live.wait(inbox, "SLACK_API_URL", name, count=2)
    (attachment,) = message["attachments"]
    assert attachment["title"] == f"[RESOLVED] {name} in credenza-prod, 1 resolved"
    assert attachment["color"] == "good"
    assert attachment["text"].startswith(f"Resolved: Summary of {name}.")
    _, posted = live.wait(inbox, "WEBHOOK_URL", name, count=2)
    assert posted["status"] == "resolved"


def test_the_watchdog_goes_to_who_waits_for_it(live: Alertmanager, inbox: Inbox) -> None:
    """It is sent again and again, from each environment, but not its end, and to nobody else."""
    for namespace in ("credenza-prod", "credenza-dev"):
        live.post(_alert("Watchdog", namespace, severity="none"))
        live.wait(inbox, "WATCHDOG_URL", f'"{namespace}"', count=2)
    for namespace in ("credenza-prod", "credenza-dev"):
        live.post(_alert("Watchdog", namespace, severity="none"), end=PAST)
    live.post(_alert("Watchdog", "another"))
    live.wait(inbox, "WATCHDOG_URL", '"another"', count=2)
    assert inbox.names("Watchdog") == {"WATCHDOG_URL"}
    told = inbox.of("WATCHDOG_URL", "Watchdog")
    assert {each["status"] for each in told} == {"firing"}, "an end would be taken for a sign"


def test_a_silence_holds_and_ends(live: Alertmanager, inbox: Inbox) -> None:
    """The silence of docs/how-to/alerts.md holds for its namespace, watchdog apart, and ends."""
    url = f"--alertmanager.url={live.url}"
    matchers = ('namespace="silent"', 'alertname!="Watchdog"')
    silence = amtool(url, "silence", "add", *matchers, "-d1h", "-aada", "-croll-out").strip()
    silent, watchdog = _alert("Silenced", "silent", severity="page"), _alert("Watchdog", "silent")
    live.post(silent)
    live.post(watchdog)
    live.post(_alert("Afterwards", severity="page"))
    live.wait(inbox, "PAGERDUTY_ROUTING_KEY", "Afterwards")
    live.wait(inbox, "WATCHDOG_URL", '"silent"')
    assert live.suppressed("silencedBy") == {tuple(sorted(silent.items()))}
    assert inbox.names("Silenced") == set()
    amtool(url, "silence", "expire", silence)
    live.wait(inbox, "PAGERDUTY_ROUTING_KEY", "Silenced")


def test_what_is_inhibited_is_not_sent(live: Alertmanager, inbox: Inbox) -> None:
    """While the database is unreachable, that alone is told; the rest follows where it stays."""
    cause = _alert("CredenzaDatabaseUnreachable", "inhibited", severity="page")
    effects = [
        _alert("CredenzaAvailabilityBurnsFast", "inhibited", severity="page", slo="reads"),
        _alert("CredenzaPoolExhausted", "inhibited", severity="ticket", instance="a"),
    ]
    live.post(cause)
    live.wait(inbox, "WEBHOOK_URL", '"inhibited"')
    live.post(*effects)
    live.post(_alert("AfterInhibition", severity="ticket"))
    live.wait(inbox, "WEBHOOK_URL", "AfterInhibition")
    told = [each["groupLabels"]["alertname"] for each in inbox.of("WEBHOOK_URL", '"inhibited"')]
    assert set(told) == {"CredenzaDatabaseUnreachable"}
    live.post(cause, end=PAST)
    for effect in effects:
        live.wait(inbox, "WEBHOOK_URL", f'{effect["alertname"]}", "namespace": "inhibited"')


KUBECTL = """#!/bin/sh
while [ "$1" != -- ]; do shift; done
shift
exec "$@"
"""


def test_how_to_page(live: Alertmanager, inbox: Inbox, tmp_path: Path) -> None:
    """What docs/how-to/alerts.md shows sends a test alert, and silences as the page says."""
    page = (ROOT / "docs/how-to/alerts.md").read_text()
    word, send, who, *silences, end = [
        block.text for block in blocks(page) if "tests/test_alertmanager.py" in block.reason
    ]
    program("amtool")
    (tmp_path / "kubectl").write_text(KUBECTL)
    (tmp_path / "kubectl").chmod(0o755)

    def run(script: str) -> str:
        script = f"{word}\n{script}".replace("http://127.0.0.1:9093", live.url)
        done = subprocess.run(
            ["bash", "-euo", "pipefail", "-c", script],
            env={"PATH": f"{tmp_path}:{os.environ['PATH']}", "HOME": str(tmp_path)},
            capture_output=True,
            text=True,
            check=False,
            timeout=60,
        )
        assert done.returncode == 0, done.stderr
        return done.stdout

    run(send)
    assert "TestOfAlerts" in run("amtool alert")
    (event,) = live.wait(inbox, "PAGERDUTY_ROUTING_KEY", "TestOfAlerts")
    assert "This is a test." in event["payload"]["custom_details"]["alerts"]
    assert run(who).split() == ["page"]
    kinds = [
        _alert("DuringIt", severity="page"),
        _alert("DuringIt", severity="ticket"),
        _alert("Watchdog", severity="none"),
        _alert("DuringIt", "credenza-staging", severity="ticket"),
    ]
    live.post(*kinds)
    for count, silence in enumerate(silences, 1):
        run(silence)
        silent = live.suppressed("silencedBy")
        found = [tuple(sorted(each.items())) in silent for each in kinds]
        assert found == [count == 2, True, False, False]
    run(end)
    assert live.suppressed("silencedBy") == set()


def test_prometheus_sends_with_the_namespace(live: Alertmanager, folder: Path) -> None:
    """In a cluster an alert without a namespace gets that of its Prometheus, by its variable."""
    if shutil.which("prometheus") is None:
        pytest.skip("needs Debian's Prometheus: apt-get install prometheus")
    prometheus = Prometheus(open_folder(folder), live)
    try:
        prometheus.start()
        until(
            lambda: any(alert["labels"]["alertname"] == "Bare" for alert in live.alerts()),
            f"the alert has not come: {prometheus.log()[-2000:]}",
        )
    finally:
        prometheus.stop()
    (alert,) = (each for each in live.alerts() if each["labels"]["alertname"] == "Bare")
    assert alert["labels"]["namespace"] == "credenza-staging"
    assert alert["receivers"] == [{"name": "ticket"}]
