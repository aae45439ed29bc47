"""Cases of the alerts of what keeps traces and lines, and of who sends alerts on.

Each one gives series of collectors, Jaeger, Loki or Alertmanager. They run without slo.yml.
"""

from dataclasses import replace

from loss_cases import FAILS, JAEGER_FAILS, LOSES, LOSSES, OLD, OLD_LINES, STORES
from observer_series import (
    ALWAYS,
    DISK,
    EVER,
    FLUSHES,
    LOST,
    NEVER,
    NOT_STORED,
    QUEUES,
    REFUSED,
    RELOADED,
    SENT,
    STEPS,
    answered,
    case,
    failed,
    more,
    of,
    queue,
    some,
)
from rule_cases import Case, Firing, Series, growing, level

DOWN = level((1, 20), (0, 16), (1, 84))
GONE = f"{level((1, 20))} stale _x{STEPS - 21}"
KEPT = ("collector", "jaeger", "loki", "node-logs")

_DOWN = (
    *(
        case(f"{job} is down for 8 minutes", {9: (), 14: (), 16: (down,), 20: ()}, **{key: series})
        for job in KEPT
        for key, series, down in [
            (job.replace("-", "_"), {"up": DOWN}, of("ObserverDown", job)),
        ]
    ),
    *(
        case(f"{job} is gone", {14: (), 16: (down,), 58: (down,)}, **{key: {"up": GONE}})
        for job in KEPT
        for key, down in [(job.replace("-", "_"), of("ObserverDown", job, "instance"))]
    ),
    replace(
        case("Loki has been gone for 30 hours", {1860: (of("ObserverDown", "loki", "instance"),)}),
        steps=190,
        step="10m",
        every="10m",
        others={"loki": {"up": f"{level((1, 6))} stale _x183"}},
    ),
    case(
        "a node is gone, and another one is there",
        {58: ()},
        node_logs={"up": GONE},
        second_node_logs={"up": EVER},
    ),
    case(
        "one node's collector is down, and another one's is not",
        {16: (of("ObserverDown", "node-logs"),)},
        node_logs={"up": DOWN},
        second_node_logs={"up": EVER},
    ),
    case(
        "Loki is gone, and Jaeger is down",
        {16: (of("ObserverDown", "jaeger"), of("ObserverDown", "loki", "instance"))},
        jaeger={"up": DOWN},
        loki={"up": GONE},
    ),
    case(
        "Loki is gone, and one of another namespace is not",
        {16: (of("ObserverDown", "loki", "instance"),)},
        loki={"up": GONE},
        others_loki={"up": EVER},
    ),
    case("another job is gone", {16: (), 58: ()}, stranger={"up": GONE}),
    case("all are there", {58: ()}, **{job.replace("-", "_"): {"up": EVER} for job in KEPT}),
    case(
        "Alertmanager is down: it could not tell", {58: ()}, alertmanager={"up": level((0, STEPS))}
    ),
)

STOPPED = growing((50, 20), (0, 100))
WAITS = level((0, 20), (1, 100))

_QUEUES = tuple(
    each
    for job in ("collector", "node-logs")
    for key in [job.replace("-", "_")]
    for each in (
        case(
            f"{job} sends nothing any more, and one waits",
            {
                19: (),
                21: (of("CollectorSendsNothing", job, **QUEUES[job]),),
                58: (of("CollectorSendsNothing", job, **QUEUES[job]),),
            },
            **{key: queue(job, WAITS, STOPPED)},
        ),
        replace(
            case(
                f"{job} sends nothing, and others send: of its job, address and another namespace",
                {21: (of("CollectorSendsNothing", job, **QUEUES[job]),)},
            ),
            others={
                job: queue(job, WAITS, STOPPED),
                **{
                    f"{place}{job}": {"up": EVER, SENT[job]: ALWAYS}
                    for place in ("second-", "twin-", "others-")
                },
            },
        ),
        case(
            f"{job} has never sent anything, and one waits",
            {4: (), 6: (of("CollectorSendsNothing", job, **QUEUES[job]),)},
            **{key: {**queue(job, EVER), SENT[job]: None}},
        ),
        case(
            f"{job} has just begun to send, and something waits",
            {6: (), 58: ()},
            **{key: queue(job, EVER, f"_x9 {growing((50, STEPS - 9))}")},
        ),
        case(
            f"{job} sends again after 20 minutes",
            {29: (of("CollectorSendsNothing", job, **QUEUES[job]),), 33: (), 58: ()},
            **{
                key: queue(
                    job, level((0, 20), (1, 40), (0, 60)), growing((50, 20), (0, 40), (50, 60))
                )
            },
        ),
        case(f"{job} sends, and something waits", {58: ()}, **{key: queue(job, WAITS)}),
        case(f"{job} has nothing to send", {58: ()}, **{key: queue(job, NEVER, STOPPED)}),
        case(
            f"{job} sends nothing for 9 minutes",
            {16: (), 19: (), 58: ()},
            **{
                key: queue(
                    job, level((0, 20), (1, 18), (0, 82)), growing((50, 20), (0, 18), (50, 82))
                )
            },
        ),
        case(
            f"the queue of {job} is nearly full for 8 minutes",
            {14: (), 16: (of("CollectorQueueFills", job, **QUEUES[job]),), 19: ()},
            **{key: queue(job, level((0, 20), (810, 16), (0, 84)))},
        ),
        case(
            f"the queue of {job} is half full", {58: ()}, **{key: queue(job, level((700, STEPS)))}
        ),
    )
)


def untold(integration: str) -> Firing:
    """Return the alert of an integration that fails."""
    name = "AlertmanagerNotificationsFail"
    return of(name, "alertmanager", "instance", severity="page", integration=integration)


_ALERTMANAGER = (
    case(
        "PagerDuty fails three times",
        {19: (), 35: (untold("pagerduty"),), 52: ()},
        alertmanager={failed("pagerduty"): more(3, 5)},
    ),
    case(
        "PagerDuty fails four times in two ways, Slack twice",
        {21: (untold("pagerduty"),)},
        alertmanager={
            failed("pagerduty"): some(2),
            failed("pagerduty", "serverError"): some(2),
            failed("slack"): some(2),
        },
    ),
    case(
        "PagerDuty fails twice, and Slack too",
        {21: (), 35: ()},
        alertmanager={failed("pagerduty"): more(2, 5), failed("slack"): some(2)},
    ),
    case(
        "a webhook fails each 20 minutes",
        {58: ()},
        alertmanager={
            failed("webhook"): growing((0, 20), (1, 1), (0, 39), (1, 1), (0, 39), (1, 1), (0, 19))
        },
    ),
    case(
        "Alertmanager refuses its configuration for 8 minutes",
        {14: (), 16: (of("AlertmanagerConfigurationRefused", "alertmanager"),), 20: ()},
        alertmanager={RELOADED: DOWN},
    ),
    case("Alertmanager has its configuration", {58: ()}, alertmanager={RELOADED: EVER}),
)

SICK: dict[str, Series] = {
    "collector": {
        **queue("collector", level((900, STEPS)), NEVER),
        LOST["collector"]: ALWAYS,
        REFUSED: ALWAYS,
    },
    "node-logs": {
        **queue("node-logs", level((900, STEPS)), NEVER),
        LOST["node-logs"]: ALWAYS,
        "up": level((0, STEPS)),
    },
    "jaeger": {NOT_STORED: ALWAYS, "up": level((0, STEPS))},
    "loki": {
        DISK: ALWAYS,
        FLUSHES: ALWAYS,
        answered("500"): ALWAYS,
        OLD_LINES: ALWAYS,
        "up": level((0, STEPS)),
    },
    "alertmanager": {failed("pagerduty"): ALWAYS, RELOADED: level((0, STEPS))},
}
"""Everything is wrong."""

ALL = (
    *(of("ObserverDown", job) for job in ("jaeger", "loki", "node-logs")),
    *(of("CollectorSendsNothing", job, **QUEUES[job]) for job in SENT),
    *(of("CollectorQueueFills", job, **QUEUES[job]) for job in SENT),
    *(LOSES, OLD, FAILS, JAEGER_FAILS),
    untold("pagerduty"),
    of("AlertmanagerConfigurationRefused", "alertmanager"),
)

_EACH = (
    Case("all that watches is sick", STEPS, {58: ALL}, others=SICK),
    Case(
        "all that watches is sick in a namespace without the service",
        STEPS,
        {58: ()},
        others={f"others-{job}": series for job, series in SICK.items()},
    ),
    Case(
        "another job shows the same, and is as sick",
        STEPS,
        {58: ()},
        others={
            "stranger": {name: one for series in SICK.values() for name, one in series.items()}
        },
    ),
    *(_DOWN + _QUEUES + LOSSES + STORES + _ALERTMANAGER),
)

OBSERVERS = tuple(
    replace(each, without=("slo",), hidden="Watchdog|CredenzaSLOWithoutData") for each in _EACH
)
