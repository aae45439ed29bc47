"""A failure reaches a person: from what breaks to the message, and to its end."""

from typing import Any

from manifests import ROOT
from observe.conftest import Say, Stack
from observe.looking import load, page_of
from servers import until

ALERT = "CredenzaDatabaseUnreachable"


def messages(stack: Stack, status: str) -> list[dict[str, Any]]:
    """Return the alerts of the messages about it that have come."""
    return [
        alert
        for message in stack.told.inbox.of("webhook", ALERT)
        if message["status"] == status and message["receiver"] == "page"
        for alert in message["alerts"]
        if alert["labels"]["alertname"] == ALERT
    ]


def test_a_dead_database_is_a_page(stack: Stack, say: Say) -> None:
    """PostgreSQL stops under load: a page with its runbook comes, and after its return the end."""
    with load(stack.service, clients=2, pause=0.1) as working:
        until(lambda: len(working.answered) > 20, "answers")
        stack.postgres.stop()
        say("PostgreSQL has stopped")
        try:
            until(lambda: bool(messages(stack, "firing")), "a page")
        finally:
            stack.postgres.start()
        say("a page has come, and PostgreSQL is started again")
        until(lambda: bool(messages(stack, "resolved")), "the end of the page")
        say("the end was told")
    (alert,) = messages(stack, "firing")
    assert alert["labels"]["severity"] == "page"
    assert "credenza_database_up is 0" in alert["annotations"]["summary"]
    assert alert["labels"]["instance"] in alert["annotations"]["summary"]
    runbook = ROOT / "docs/runbooks" / page_of(alert["annotations"]["runbook_url"])
    assert runbook.name == f"{ALERT}.md"
    assert "## How to fix it" in runbook.read_text()
    assert 503 in working.statuses()
    assert working.lost == []
