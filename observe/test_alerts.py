"""A failure reaches a person: from what breaks to the message, and to its end."""

from manifests import ROOT
from observe.conftest import Say, Stack
from observe.looking import load, messages, page_of
from servers import until

ALERT = "CredenzaDatabaseUnreachable"


def test_a_dead_database_is_a_page(stack: Stack, say: Say) -> None:
    """PostgreSQL stops under load: a page with its runbook comes, and after its return the end."""
    with load(stack.service, clients=2, pause=0.1) as working:
        until(lambda: len(working.answered) > 20, "answers")
        stack.postgres.stop()
        say("PostgreSQL has stopped")
        try:
            until(lambda: bool(messages(stack, ALERT, "page", "firing")), "a page")
        finally:
            stack.postgres.start()
        say("a page has come, and PostgreSQL is started again")
        until(lambda: bool(messages(stack, ALERT, "page", "resolved")), "the end of the page")
        say("the end was told")
    (alert,) = messages(stack, ALERT, "page", "firing")
    assert alert["labels"]["severity"] == "page"
    assert "credenza_database_up is 0" in alert["annotations"]["summary"]
    assert "instance" not in alert["labels"]
    runbook = ROOT / "docs/runbooks" / page_of(alert["annotations"]["runbook_url"])
    assert runbook.name == f"{ALERT}.md"
    assert "## How to fix it" in runbook.read_text()
    assert 503 in working.statuses()
    assert working.lost == []


def test_a_database_that_hangs_is_a_page(stack: Stack, say: Say) -> None:
    """PostgreSQL hangs while nobody asks: the page comes all the same, and its end."""

    def count(state: str) -> int:
        return len(messages(stack, ALERT, "page", state))

    pages, ends = count("firing"), count("resolved")
    stack.postgres.pause()
    say("PostgreSQL hangs")
    try:
        until(lambda: count("firing") > pages, "a page")
    finally:
        stack.postgres.resume()
    say("a page has come, and PostgreSQL goes on")
    until(lambda: count("resolved") > ends, "the end of the page")
    say("the end was told")
