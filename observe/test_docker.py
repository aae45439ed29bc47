"""Log lines under Docker, whose files tell of a container by labels in each line."""

import json
import time
from datetime import UTC, datetime

from observe.conftest import Say, Stack
from observe.looking import OF_SERVICE, Mark
from observe.processes import Collector
from servers import until
from test_traces_and_logs import BESIDE

DOCKERS = "/var/lib/docker/containers/"
OTHER = "a line of another project's"
ALONE = 3.0
"""Seconds in which lines would be sent: files are looked at each 0.2 s, batches go each 1 s."""


def kept(text: str, **labels: str) -> str:
    """Return a line as Docker's driver json-file keeps it, with the labels it is told to add."""
    attributes = {f"com.docker.compose.{name}": value for name, value in labels.items()}
    now = datetime.now(UTC).isoformat().replace("+00:00", "Z")
    line = {"log": f"{text}\n", "stream": "stderr", "time": now}
    return json.dumps(line | ({"attrs": attributes} if attributes else {})) + "\n"


def test_lines_of_compose_are_found(stack: Stack, say: Say) -> None:
    """The service has its name and its lines their ids; what is another project's stays out."""
    mark = Mark.new()
    line = {"request_id": mark.request_id, "trace_id": mark.trace_id, "level": "warning"}
    containers = {
        "a": kept(OTHER),
        "b": kept(OTHER, project="another", service="app"),
        "c": kept(json.dumps(line), project="ours", service="app"),
        "d": kept(f"LOG: {mark.request_id}", project="ours", service="postgres"),
    }
    folder = stack.folder / "containers"
    for name, text in containers.items():
        (folder / name).mkdir(parents=True)
        (folder / name / f"{name}-json.log").write_text(text)
    earlier = kept(f"LOG: earlier than {mark.request_id}", project="ours", service="postgres")
    (folder / "d/d-json.log.1").write_text(earlier)
    collector = Collector(
        stack.folder / "docker",
        "logs/daemon-set.yaml",
        FILES=folder
        / BESIDE["services"]["node-logs"]["environment"]["FILES"].removeprefix(DOCKERS),
        PODS="false",
        PROJECT="ours",
        LOKI=f"{stack.loki.url}/otlp",
    ).start()
    try:
        ours = f'{OF_SERVICE} | request_id="{mark.request_id}"'
        theirs = f'{{service_name="postgres"}} |= "{mark.request_id}"'
        until(lambda: len(stack.loki.lines(ours)) == 1, "the service's line in Loki")
        until(
            lambda: len(stack.loki.lines(theirs)) == 2, "PostgreSQL's line in Loki, and the earlier"
        )
        with (folder / "b/b-json.log").open("a") as file:
            file.write(containers["b"])
        time.sleep(ALONE)
    finally:
        collector.stop()
    ((labels, text),) = stack.loki.lines(ours)
    assert text == json.dumps(line)
    assert (labels["trace_id"], labels["detected_level"]) == (mark.trace_id, "warning")
    assert stack.loki.lines(f'{{service_name=~".+"}} |= "{OTHER}"') == []
    assert "Exporting failed" not in collector.log()
    say("lines of Docker's files are in Loki, and no others")
