"""Alertmanager: the shipped configuration tells whom it should, on a real Alertmanager.

tests/test_alert_routes.py changes the configuration and sees that it no longer does.
"""

import os
import re
import shutil
from collections.abc import Iterator
from pathlib import Path

import pytest
import yaml

from alerting import (
    CONFIG,
    SECRETS,
    Alertmanager,
    Config,
    Inbox,
    Place,
    alertmanager,
    amtool,
    integrations,
    shipped,
)
from charts import ENVIRONMENTS, template
from manifests import ROOT, Object, one, pod, render
from servers import accepts, free_port, until
from test_compose import SERVICES

RUNBOOK = "https://example.com/runbooks/"
PAST = "2020-01-01T00:00:00Z"
ALL = {"page", "ticket", "watchdog"}
EVERYWHERE = {
    "page": {"pagerduty_configs", "slack_configs", "webhook_configs"},
    "ticket": {"slack_configs", "webhook_configs"},
    "watchdog": {"webhook_configs"},
}
WITH_ONE = {
    "PAGERDUTY_ROUTING_KEY": {"page": {"pagerduty_configs"}},
    "SLACK_API_URL": {"page": {"slack_configs"}, "ticket": {"slack_configs"}},
    "WEBHOOK_URL": {"page": {"webhook_configs"}, "ticket": {"webhook_configs"}},
    "WATCHDOG_URL": {"watchdog": {"webhook_configs"}},
}


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
    place = Place(_open(tmp_path_factory.mktemp("live")), secrets).put(shipped())
    place.render()
    place.write(_faster(place.config(), inbox))
    server = Alertmanager(place).start()
    yield server
    assert server.failures() == 0
    server.stop()


def _open(folder: Path) -> Path:
    """Hand a folder to the user whom root starts servers as."""
    for parent in folder.parents[:3]:
        if parent.is_relative_to("/tmp") and parent != Path("/tmp"):
            parent.chmod(0o755)
    if os.geteuid() == 0:
        shutil.chown(folder, "nobody", "nogroup")
    folder.chmod(0o755)
    return folder


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
        "value": "42",
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
            "Value: 42",
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
    """It is sent again and again, from each environment, and bothers nobody else."""
    for namespace in ("credenza-prod", "credenza-dev"):
        live.post(_alert("Watchdog", namespace, severity="none"))
        live.wait(inbox, "WATCHDOG_URL", f'"{namespace}"', count=2)
    assert inbox.names("Watchdog") == {"WATCHDOG_URL"}


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
    cause = _alert("CredenzaDatabaseUnreachable", "inhibited", severity="page", instance="a")
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


def test_without_secrets_it_starts_and_says_where(folder: Path) -> None:
    """A fresh install sends nothing, fails at nothing, and shows each alert on its page."""
    place = Place(_open(folder), {}).put(shipped())
    server = Alertmanager(place)
    server.port = free_port()
    started = place.start_with(alertmanager(), *server.options())
    try:
        until(lambda: started.poll() is None and _is_ready(server), "Alertmanager")
        server.post(_alert("Fresh", severity="page"))
        until(lambda: bool(server.alerts()), "the alert is not shown")
        (alert,) = server.alerts()
        assert alert["receivers"] == [{"name": "page"}]
        assert server.failures() == 0
    finally:
        server.stop()
        started.terminate()
        _, said = started.communicate(timeout=60)
    assert "all alerts are seen on the page of Alertmanager, port 9093" in said
    for name in SECRETS:
        assert re.search(rf"left out for want of a secret: \w+_configs: \S+/{name}\n", said), name


def _is_ready(server: Alertmanager) -> bool:
    return accepts(server.port) and server.get("/-/ready").status_code == 200


@pytest.mark.parametrize("name", [*SECRETS, "all", "none", "empty"])
def test_secrets_switch_integrations_on(name: str, tmp_path: Path) -> None:
    """Where a secret is there, and not empty, what needs it is in; each receiver stays."""
    secrets = {each: "http://127.0.0.1/" for each in SECRETS if name in {each, "all"}}
    expected = EVERYWHERE if name == "all" else WITH_ONE.get(name, {})
    place = Place(tmp_path, dict.fromkeys(SECRETS, "") if name == "empty" else secrets)
    said = place.put(shipped()).render()
    found = integrations(place.config())
    assert found.keys() == ALL
    assert {receiver: kinds for receiver, kinds in found.items() if kinds} == expected
    assert len(re.findall(r"left out", said)) == 6 - sum(map(len, expected.values()))
    amtool("check-config", place.path)


def test_with_all_secrets_nothing_is_changed(tmp_path: Path) -> None:
    """What start.sh writes is the shipped file, whole."""
    place = Place(tmp_path, dict.fromkeys(SECRETS, "x")).put(shipped())
    started = place.start_with("/bin/true")
    started.communicate(timeout=60)
    assert place.path.read_text() == place.here(CONFIG)


def test_no_secret_is_in_the_configuration() -> None:
    """Keys and addresses are named by files alone."""
    kinds = [
        integration
        for receiver in yaml.safe_load(CONFIG)["receivers"]
        for key, found in receiver.items()
        if key != "name"
        for integration in found
    ]
    assert len(kinds) == 6
    for each in kinds:
        assert {"routing_key_file", "api_url_file", "url_file"} & each.keys()
        assert not {"routing_key", "service_key", "api_url", "url"} & each.keys()


def _of_cluster(objects: list[Object]) -> dict[str, str]:
    """Return the files that a cluster's container has, by their places."""
    data = one(objects, "ConfigMap", "alertmanager-config")["data"]
    (volume,) = (
        each for each in pod(objects, "alertmanager")["volumes"] if each["name"] == "config"
    )
    return {item["path"]: data[item["key"]] for item in volume["configMap"]["items"]}


def _of_compose() -> dict[str, str]:
    """Return the files that Compose mounts."""
    (source,) = (
        each.split(":")[0]
        for each in SERVICES["alertmanager"]["volumes"]
        if each.split(":")[1] == "/etc/alertmanager"
    )
    names = ("alertmanager.yml", "start.sh", "templates/credenza.tmpl")
    return {name: (ROOT / source / name).read_text() for name in names}


@pytest.mark.parametrize(
    "packaging", ["compose", *ENVIRONMENTS, *(f"helm {e}" for e in ENVIRONMENTS)]
)
def test_each_packaging_has_a_good_configuration(packaging: str, tmp_path: Path) -> None:
    """Amtool finds no fault in what each of them has, and that is the one copy of each file."""
    name = packaging.removeprefix("helm ")
    if packaging == "compose":
        files = _of_compose()
    else:
        files = _of_cluster(template(name) if packaging.startswith("helm") else render(name))
    assert files == shipped()
    place = Place(tmp_path, dict.fromkeys(SECRETS, "http://127.0.0.1/")).put(files)
    place.render()
    said = amtool("check-config", place.path)
    assert "3 receivers" in said
    assert "1 templates" in said
    assert said.count("SUCCESS") == 2
