"""Alertmanager's files: start.sh leaves out what has no secret, and each packaging has the same."""

import re
import signal
from pathlib import Path

import pytest
import yaml

from alerting import (
    CONFIG,
    SECRETS,
    Alertmanager,
    Place,
    alertmanager,
    amtool,
    integrations,
    open_folder,
    shipped,
)
from charts import ENVIRONMENTS, template
from manifests import ROOT, Object, one, pod, render
from servers import accepts, free_port, until
from test_compose import SERVICES

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


def test_without_secrets_it_starts_and_says_where(folder: Path) -> None:
    """A fresh install sends nothing, fails at nothing, and shows each alert on its page."""
    place = Place(open_folder(folder), {}).put(shipped())
    server = Alertmanager(place)
    server.port = free_port()
    started = place.start_with(alertmanager(), *server.options())
    try:
        until(lambda: started.poll() is None and _is_ready(server), "Alertmanager")
        server.post({"alertname": "Fresh", "severity": "page"})
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


def test_a_hangup_has_it_read_anew(folder: Path) -> None:
    """A new secret and a new route count; a wrong file is refused, seen, and made up for."""
    place = Place(open_folder(folder), {}).put(shipped())
    server = Alertmanager(place)
    server.port = free_port()
    started = place.start_with(alertmanager(), *server.options())

    def loaded(*parts: str) -> bool:
        config = yaml.safe_load(server.get("/api/v2/status").json()["config"]["original"])
        return [part in str(config) for part in ("slack_configs", "repeat_interval': '23h'")] == [
            part in parts for part in ("secret", "route")
        ]

    def accepted() -> bool:
        text = server.get("/metrics").text
        (value,) = re.findall(r"(?m)^alertmanager_config_last_reload_successful (\d)$", text)
        return bool(value == "1")

    try:
        until(lambda: started.poll() is None and _is_ready(server), "Alertmanager")
        assert loaded()
        (folder / "secrets/SLACK_API_URL").write_text("http://127.0.0.1/")
        started.send_signal(signal.SIGHUP)
        until(lambda: loaded("secret"), "the secret")
        place.put({"alertmanager.yml": CONFIG.replace("receiver: page", "receiver: nobody")})
        started.send_signal(signal.SIGHUP)
        until(lambda: not accepted(), "the fault is seen")
        assert loaded("secret"), "it goes on as before"
        place.put({"alertmanager.yml": CONFIG.replace("interval: 24h", "interval: 23h")})
        started.send_signal(signal.SIGHUP)
        until(accepted, "it is right again")
        assert loaded("secret", "route")
    finally:
        started.terminate()
        started.communicate(timeout=60)
        server.stop()
    assert started.returncode == 0
    assert not accepts(server.port)


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
