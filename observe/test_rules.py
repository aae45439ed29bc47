"""The shipped rules in Prometheus 3."""

import itertools
import shutil
import subprocess
from concurrent.futures import ThreadPoolExecutor
from contextlib import suppress
from datetime import UTC, datetime
from typing import Any

import pytest

from expressions import unknown
from observe import tools
from observe.conftest import Say, Stack
from promtool import EVERY, RULE_FILES, RULES, promtool
from rule_mutants import KINDS, WORKERS
from scraping import use, use_in_vain
from servers import Valkey, until
from test_rules_contract import RECORDED, bounds, told


def rules(stack: Stack) -> list[dict[str, Any]]:
    """Return all rules that are loaded, with their state."""
    groups = stack.prometheus.data("rules")["groups"]
    return [rule for group in groups for rule in group["rules"]]


def test_rules_are_valid() -> None:
    """The promtool of Prometheus 3 takes each file, and warns of nothing."""
    files = map(str, sorted(RULES.glob("*.yml")))
    command = [str(tools.path("promtool")), "check", "rules", "--lint-fatal", *files]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stdout + done.stderr


@pytest.mark.timeout(300)
def test_what_happens_and_what_fires(say: Say) -> None:
    """In each case of the test suite, which has Debian's, this promtool says that the same fires.

    To Prometheus 3 a sample at the very beginning of a window is no part of it.
    """
    assert shutil.which("promtool") == str(tools.path("promtool"))
    cases = tuple(itertools.chain(*KINDS.values()))
    parts = [cases[at : at + 12] for at in range(0, len(cases), 12)]
    with ThreadPoolExecutor(WORKERS) as pool:
        assert "".join(pool.map(promtool, parts)) == ""
    say(f"{len(cases)} cases are the same in Prometheus 3")


def test_rules_load_and_evaluate(stack: Stack, say: Say) -> None:
    """Each shipped rule is loaded, and evaluates without an error over the series of all routes."""
    with stack.service.client() as client:
        use(client, itertools.count(1000))
    until(lambda: "http_requests_total" in stack.prometheus.seen(), "series of requests")
    now = datetime.now(UTC).isoformat()
    until(lambda: min(rule["lastEvaluation"] for rule in rules(stack)) > now, "an evaluation")
    assert [rule for rule in rules(stack) if rule["health"] != "ok"] == []
    loaded = [rule["name"] for rule in rules(stack)]
    assert sorted(loaded) == sorted(rule.get("record", rule.get("alert")) for rule in EVERY)
    say(f"{len(loaded)} rules of {len(RULE_FILES)} files are in good health")


def test_rules_ask_for_what_there_is(stack: Stack, valkey: Valkey) -> None:
    """Each name, label, value and bound that a rule or a runbook asks for is there."""
    names, asked = itertools.count(1), [*told(), *bounds()]
    with stack.service.client() as client:
        use_in_vain(client, names, stack.postgres, valkey)

        def known() -> bool:
            use(client, names)
            return not unknown(asked, stack.prometheus.seen())

        with suppress(TimeoutError):
            until(known, "something that rules ask for")
    assert unknown(asked, stack.prometheus.seen()) == set()
    assert stack.prometheus.seen().keys() >= RECORDED
