"""What is changed in a rule to see whether a case notices, for tests/rule_mutants.py."""

from collections.abc import Callable, Iterator
from math import ceil, floor

Others = Callable[[str], Iterator[str]]

WINDOWS = {
    "2m": ("10m",),
    "5m": ("1h",),
    "6m": ("5m", "1h"),
    "10m": ("5m", "1h"),
    "12m": ("10m", "1h"),
    "30m": ("6h",),
    "1h": ("5m",),
    "2h": ("1d",),
    "6h": ("30m",),
    "1d": ("2h",),
    "3d": ("6h",),
    "7d": ("1d",),
    "30d": ("1d",),
}
"""A window, and what takes its place."""


def _other_numbers(text: str) -> Iterator[str]:
    """Yield a bound a fifth lower, and one a quarter higher.

    Of a ratio near 1, of what is left to it. Of a whole number, the next whole ones: counts do not
    tell 2 from 2.5.
    """
    value = float(text)
    if value == 0:
        yield from ("-0.5", "1")
    elif 0.9 < value < 1:
        yield from (f"{1 - (1 - value) * factor:g}" for factor in (0.8, 1.25))
    elif value > 1 and value == int(value):
        yield from (f"{floor(value * 0.8)}", f"{ceil(value * 1.25)}")
    else:
        yield from (f"{value * factor:g}" for factor in (0.8, 1.25))


def _other_waits(text: str) -> Iterator[str]:
    """Yield no waiting at all, half of it, and twice as long."""
    before, _, wait = text.rpartition(" ")
    seconds = int(wait[:-1]) * {"m": 60, "h": 3600}[wait[-1]]
    yield from ("", f"{before} {seconds // 2}s", f"{before} {seconds * 2}s")


def _waits(text: str) -> Iterator[str]:
    yield f"{text}        for: 5m\n"


def _keeps_firing(text: str) -> Iterator[str]:
    yield f"{text}        keep_firing_for: 1h\n"


def _other_severity(text: str) -> Iterator[str]:
    yield "ticket" if text == "page" else "page"


def _misspelt(text: str) -> Iterator[str]:
    yield text[:-1]


def _other_windows(text: str) -> Iterator[str]:
    yield from WINDOWS.get(text, ())


def _fewer_labels(text: str) -> Iterator[str]:
    labels = text.split(", ")
    for label in labels:
        yield ", ".join(each for each in labels if each != label)


def _nothing(text: str) -> Iterator[str]:
    yield ""


def _or(text: str) -> Iterator[str]:
    yield text.replace("and", "or")


def _other_bound(text: str) -> Iterator[str]:
    yield "0.05" if text == "0.1" else "0.1"


MATCHED = (
    "job|status|handler|method|kind|state|slo"
    "|container|cronjob|condition|owner_name|phase|persistentvolumeclaim|statefulset"
    "|route|status_code|scrape_job"
)
"""Labels that a rule chooses series by."""

CHANGES: dict[str, Others] = {
    r"\n +and (?!on)": _or,
    r"\band(?= on \()": _or,
    r"\n +(?:and|or|unless) [^\n]+(?<!\()(?=\n)": _nothing,
    r"(?<=[<>=] )-?[\d.]+(?=\s|$)": _other_numbers,
    r"(?<=vector\()[\d.]+(?=\)\n)": _other_numbers,
    r"(?<=expr: )30(?= )": _other_numbers,
    r"\b0\.99(?=, )": _other_numbers,
    r"\b0\.9(?= \* )": _other_numbers,
    r"(?<=time\(\) - )\d+|(?<=\) / )\d+": _other_numbers,
    r"(?<=or )0(?= \* (?:count|absent))": _other_numbers,
    r"(?<=ratio_rate)\w+(?=\{| >)": _other_windows,
    r"(?<=\[)\w+(?=\])": _other_windows,
    r" offset \d+m": _nothing,
    r" == 1(?=\n)": _nothing,
    r"(?<=\b(?:by|on) \()[\w, ]+(?=\))": _fewer_labels,
    r"(?<=\bignoring \()[\w, ]+(?=\))": _fewer_labels,
    rf'(?<=[{{,])\s*(?:{MATCHED})[=!~]+"[^"]+",?': _nothing,
    r"\n        for: \w+": _other_waits,
    r"(?m)^(?!        for:).*\n(?=        labels: \{severity)": _waits,
    r"(?m)^.*\n(?=        labels: \{severity)": _keeps_firing,
    r"(?<=severity: )\w+": _other_severity,
    r"(?<=labels: \{slo: )[\w-]+": _misspelt,
    r'(?<=le: ")[\d.]+(?=")': _other_bound,
    r" > 0(?=\))": _nothing,
}
"""What is looked for in what a rule computes, and what is tried in its place."""

TOLD: dict[str, Others] = {
    r"\{\{[^}]+\}\}": _nothing,
    r"\s+\| (?:printf \S+|\w+)(?=\s+\}\})": _nothing,
    r"(?<=/runbooks/)\w+(?=\.md)": _misspelt,
}
"""The same of its annotations."""

JOB = r'(job="credenza",?)'
SAME: dict[str, str] = {
    # A count has no number between 1 and 2.
    r"version\) \(credenza_build_info.*\n +\) > (1)\n": "1.25",
    # The job is matched with that of the other side, which is chosen there.
    rf"by \(job, namespace\) \(credenza_build_info{{{JOB}": "",
    rf"le\) \(rate\(credenza_cache_invalidation_seconds_bucket{{{JOB}": "",
    rf"increase\(credenza_cache_invalidation_seconds_count{{{JOB}": "",
    rf"_seconds_bucket{{{JOB}[^}}]*}}\[5m\]\)\n +and on \(le\)": "",
    rf"{{slo=.*\n +\)\n +or 0 \* count by \(job, namespace\) \(up{{{JOB}": "",
    rf"min_over_time\(http_requests_total{{{JOB}": "",
    rf"\(up{{{JOB}}} offset 5m\)": "",
    rf"process_start_time_seconds{{{JOB}}} > time": "",
    rf"credenza_cache_heartbeat_timestamp_seconds{{{JOB}": "",
    rf"min_over_time\(credenza_cache_breaker_open{{{JOB}}}\[5m\]\) == 1\n        for: 5m": "",
    r'send_failed_log_records_total{(job="node-logs",?)': "",
    # The other one is chosen by the line before, with or without what Loki refused.
    r'collector_lost:count10m{(job="node-logs",?)': "",
    # It is 0 as long as there is a target. When that is gone, no alert is about how long it stays.
    r"or 0 \* sum_over_time\(credenza:slo_requests:rate5m\[(\w+)": r"\w+",
}
"""Changes that make no difference: the place, what would stand there, and why it is the same."""
