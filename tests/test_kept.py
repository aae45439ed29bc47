"""What docs/how-to/observe.md promises of spans and lines, and the settings that keep it.

`make observe` shows that it is so; three days and a week are too long to wait for there.
"""

import re
from collections.abc import Callable
from functools import reduce
from typing import Any, Final

import pytest
import yaml

from manifests import ROOT
from test_traces_and_logs import MONITORING

PAGE: Final = " ".join((ROOT / "docs/how-to/observe.md").read_text().split())
TRACES, LINES = "collector/traces/traces.yaml", "collector/logs/logs.yaml"
JAEGER, LOKI = "jaeger/jaeger.yaml", "loki/loki.yaml"

KEPT: Final = r"Jaeger keeps (?P<jaeger>\d+) days, Loki (?P<loki>\d+):"
LATE: Final = r"come in any order, and up to (?P<late>\d+) days late"
SPANS: Final = r"nothing: (?P<spans>[\d,]+) spans wait on the collector's volume"
QUEUE: Final = r"nothing: (?P<lines>[\d,]+) lines wait on each node"
SPANS_FOR_EVER: Final = r"spans wait on the collector's volume and are tried again without end"
LINES_FOR_EVER: Final = r"lines wait on each node and are tried again without end"
BEGINNING: Final = (
    r"a node's collector \| as ever \| nothing: what is there is read from its beginning"
)
NOT_READ: Final = r"a compressed file \(`(?P<suffix>\.\w+)`\) is not read"

Value = Callable[[dict[str, str]], Any]


def hours(name: str) -> Value:
    """Return how a number of days of the page is written."""
    return lambda said: f"{int(said[name]) * 24}h"


def number(name: str) -> Value:
    """Return a number of the page."""
    return lambda said: int(said[name].replace(",", ""))


def always(value: Any) -> Value:
    """Return a value that the page has in words."""
    return lambda _: value


def queue(exporter: str, setting: str) -> str:
    """Return the path of a setting of an exporter's queue."""
    return f"exporters {exporter} sending_queue {setting}"


TO_JAEGER, TO_LOKI = "otlp_http/jaeger", "otlp_http/loki"
LIMITS: Final = "limits_config"
MESSAGE: Final = 4 * 2**20
"""Bytes that Loki sends itself at once: `grpc_server_max_recv_msg_size`, unless set."""

PROMISES: Final[tuple[tuple[str, str, str, Value], ...]] = (
    (KEPT, LOKI, f"{LIMITS} retention_period", hours("loki")),
    (KEPT, LOKI, "compactor retention_enabled", always(True)),
    (KEPT, JAEGER, "extensions jaeger_storage backends disk badger ttl spans", hours("jaeger")),
    (KEPT, JAEGER, "extensions jaeger_storage backends disk badger ephemeral", always(False)),
    (LATE, LOKI, f"{LIMITS} reject_old_samples_max_age", hours("late")),
    (LATE, LOKI, f"{LIMITS} shard_streams time_sharding_enabled", always(True)),
    (LATE, LOKI, "ingester query_store_max_look_back_period", hours("late")),
    (SPANS, TRACES, queue(TO_JAEGER, "queue_size"), number("spans")),
    (SPANS, TRACES, queue(TO_JAEGER, "sizer"), always("items")),
    (SPANS, TRACES, queue(TO_JAEGER, "storage"), always("file_storage")),
    (QUEUE, LINES, queue(TO_LOKI, "queue_size"), number("lines")),
    (QUEUE, LINES, queue(TO_LOKI, "sizer"), always("items")),
    (QUEUE, LINES, queue(TO_LOKI, "storage"), always("file_storage")),
    (
        SPANS_FOR_EVER,
        TRACES,
        f"exporters {TO_JAEGER} retry_on_failure max_elapsed_time",
        always("0s"),
    ),
    (LINES_FOR_EVER, LINES, f"exporters {TO_LOKI} retry_on_failure max_elapsed_time", always("0s")),
    (LINES_FOR_EVER, LINES, "receivers file_log retry_on_failure enabled", always(True)),
    (LINES_FOR_EVER, LINES, "receivers file_log retry_on_failure max_elapsed_time", always("0s")),
    (BEGINNING, LINES, "receivers file_log start_at", always("beginning")),
    (BEGINNING, LINES, "receivers file_log storage", always("file_storage")),
    (
        NOT_READ,
        LINES,
        "receivers file_log exclude",
        lambda said: [f"**/*{said['suffix']}", "**/*.tmp"],
    ),
)


@pytest.mark.parametrize(
    ("sentence", "file", "path", "value"), PROMISES, ids=[f"{row[1]} {row[2]}" for row in PROMISES]
)
def test_promises_are_kept_by_settings(sentence: str, file: str, path: str, value: Value) -> None:
    """The page says it, once, and the shipped file has the value that it says."""
    (said,) = re.finditer(sentence, PAGE)
    shipped = yaml.safe_load((MONITORING / file).read_text())
    assert reduce(lambda inside, name: inside[name], path.split(), shipped) == value(
        said.groupdict()
    )


@pytest.mark.parametrize(("file", "pipeline"), [(TRACES, "traces"), (LINES, "logs")])
def test_memory_is_limited_first(file: str, pipeline: str) -> None:
    """What is refused for lack of memory is refused before anything was done with it."""
    shipped = yaml.safe_load((MONITORING / file).read_text())
    assert shipped["service"]["pipelines"].keys() == {pipeline}
    assert shipped["service"]["pipelines"][pipeline]["processors"][0] == "memory_limiter"


def test_labels_are_few() -> None:
    """A stream is made of each value of a label: pods, ids and levels are none."""
    shipped = yaml.safe_load((MONITORING / LOKI).read_text())
    resource = shipped[LIMITS]["otlp_config"]["resource_attributes"]
    assert resource["ignore_defaults"] is True
    assert resource["attributes_config"] == [
        {"action": "index_label", "attributes": ["service.name", "k8s.namespace.name"]}
    ]


def test_batches_fit_into_a_message() -> None:
    """Their bytes are counted, and leave room for what Loki adds to each line within 4 MiB."""
    shipped = yaml.safe_load((MONITORING / LINES).read_text())
    batch = shipped["exporters"][TO_LOKI]["sending_queue"]["batch"]
    assert batch["sizer"] == "bytes"
    assert batch["min_size"] <= batch["max_size"] <= MESSAGE / 4
