"""Cases of what is lost on the way to Jaeger and Loki, and of what these do not keep.

tests/observer_cases.py has them among its own.
"""

from dataclasses import replace

from observer_series import (
    DISK,
    EVER,
    FLUSHES,
    LOST,
    NEVER,
    NOT_STORED,
    REFUSED,
    STEPS,
    answered,
    case,
    discarded,
    first,
    lasting,
    more,
    of,
    some,
)
from rule_cases import Case, growing, healthy, level

AWAY = level((1, 40), (0, 6), (1, STEPS - 46))
BEFORE = f"{level((500, 40))} stale _x5 {level((500, STEPS - 46))}"
LOSES = of("CollectorLosesData", "collector")
LOSES_LINES = of("CollectorLosesData", "node-logs")


def new(job: str, counter: str) -> Case:
    """Return a case of a target that is new, unlike three others, and that failed long ago.

    The others are of its job, of its address, and of both in another namespace.
    """
    late = {"up": level((None, 40), (1, STEPS - 40)), counter: first(100)}
    others = {f"{place}{job}": {"up": EVER} for place in ("second-", "twin-", "others-")}
    found = case(f"{job} is new, and failures are long ago", dict.fromkeys(range(19, 36), ()))
    return replace(found, others={job: late, **others})


LOSSES = (
    case(
        "spans are refused",
        {19: (), 25: (LOSES,), 32: ()},
        collector={"up": EVER, REFUSED: some(10)},
    ),
    case("a few spans are refused", {25: ()}, collector={"up": EVER, REFUSED: some(8)}),
    case(
        "some spans are refused, and as many were not sent",
        {25: (LOSES,)},
        collector={"up": EVER, REFUSED: more(8, 15), LOST["collector"]: more(8, 15)},
    ),
    *(
        each
        for job, told in (("collector", LOSES), ("node-logs", LOSES_LINES))
        for key in [job.replace("-", "_")]
        for each in (
            case(
                f"{job}: the first failures",
                {19: (), 21: (told,), 28: (told,), 32: ()},
                **{key: {"up": EVER, LOST[job]: first(10)}},
            ),
            case(
                f"{job}: the first few failures",
                {21: (), 32: ()},
                **{key: {"up": EVER, LOST[job]: first(8)}},
            ),
            case(
                f"{job}: more failures",
                {19: (), 22: (told,), 32: ()},
                **{key: {"up": EVER, LOST[job]: some(10)}},
            ),
            case(
                f"{job}: a few more failures", {22: ()}, **{key: {"up": EVER, LOST[job]: some(8)}}
            ),
            case(
                f"{job}: Prometheus has just begun, and failures are long ago",
                {2: (), 8: (), 58: ()},
                **{key: {"up": EVER, LOST[job]: level((100, STEPS))}},
            ),
            case(
                f"{job}: twelve failures in ten minutes, one after the other",
                {24: (), 35: (told,)},
                **{key: {"up": EVER, LOST[job]: lasting(0.6)}},
            ),
            new(job, LOST[job]),
            case(
                f"{job} was down for three minutes, and failures are long ago",
                dict.fromkeys(range(29, 36), ()),
                **{key: {"up": AWAY, LOST[job]: BEFORE}},
            ),
        )
    ),
    case(
        "Loki refuses lines, and so the collector cannot send them: one ticket",
        {21: (of("LokiRefusesLines", "loki", "instance", reason="line_too_long"),)},
        loki={"up": EVER, discarded("line_too_long"): some(10)},
        node_logs={"up": EVER, LOST["node-logs"]: some(10)},
    ),
    case(
        "the same, and Prometheus hears of it from the collector a minute before",
        {21: (), 22: (of("LokiRefusesLines", "loki", "instance", reason="line_too_long"),)},
        loki={"up": EVER, discarded("line_too_long"): some(10, 21)},
        node_logs={"up": EVER, LOST["node-logs"]: some(10)},
    ),
    case(
        "Loki refuses a few lines, and the collector loses more",
        {22: (LOSES_LINES,)},
        loki={"up": EVER, discarded("line_too_long"): some(8)},
        node_logs={"up": EVER, LOST["node-logs"]: some(10)},
    ),
    case(
        "Loki of staging refuses lines, and production's collector loses some",
        {
            22: (
                LOSES_LINES,
                of("LokiRefusesLines", "staging-loki", "instance", reason="line_too_long"),
            )
        },
        staging=healthy(STEPS),
        staging_loki={"up": EVER, discarded("line_too_long"): some(10)},
        node_logs={"up": EVER, LOST["node-logs"]: some(10)},
    ),
    case(
        "Loki refuses lines, and spans are lost too",
        {22: (LOSES, of("LokiRefusesLines", "loki", "instance", reason="line_too_long"))},
        loki={"up": EVER, discarded("line_too_long"): some(10)},
        collector={"up": EVER, LOST["collector"]: some(10)},
    ),
)

OLD = of("LokiRefusesLines", "loki", "instance", reason="greater_than_max_sample_age")
OLD_LINES = discarded("greater_than_max_sample_age")
FAILS = of("LokiFails", "loki", "instance")
JAEGER_FAILS = of("JaegerFails", "jaeger", "instance")

STORES = (
    case(
        "another job: its first lines are refused",
        {25: ()},
        stranger={"up": EVER, OLD_LINES: first(10)},
    ),
    case(
        "the first lines that are too old",
        {19: (), 21: (OLD,), 32: ()},
        loki={"up": EVER, OLD_LINES: first(10)},
    ),
    case(
        "more lines are too old",
        {19: (), 21: (OLD,), 32: ()},
        loki={"up": EVER, OLD_LINES: more(10, 11)},
    ),
    case(
        "a few lines are refused for each of two reasons",
        {21: (), 32: ()},
        loki={"up": EVER, OLD_LINES: first(8), discarded("line_too_long"): some(8)},
    ),
    case(
        "Prometheus has just begun, and Loki refused lines long ago",
        {2: (), 8: ()},
        loki={"up": EVER, OLD_LINES: level((100, STEPS))},
    ),
    new("loki", OLD_LINES),
    case(
        "Loki was down for three minutes, and refused lines long ago",
        dict.fromkeys(range(29, 36), ()),
        loki={"up": AWAY, OLD_LINES: BEFORE},
    ),
    case(
        "Loki answers 503 on and on",
        {26: (), 28: (FAILS,), 58: (FAILS,)},
        loki={"up": EVER, answered("503"): lasting(1.3)},
    ),
    case(
        "Loki answers 503 each half a minute",
        {28: (), 58: ()},
        loki={"up": EVER, answered("503"): lasting(1)},
    ),
    case(
        "Loki answers 503 many times at once",
        {21: (), 26: (), 29: ()},
        loki={"up": EVER, answered("503"): some(100)},
    ),
    case(
        "Loki is not ready, and clients ask in vain for what is wrong",
        {28: ()},
        loki={
            "up": EVER,
            answered("503", "ready", "GET"): lasting(50),
            answered("400"): lasting(3),
        },
    ),
    *(
        each
        for name in (DISK, FLUSHES)
        for each in (
            case(
                f"{name} grows", {24: (), 26: (FAILS,), 32: ()}, loki={"up": EVER, name: some(0.5)}
            ),
            case(f"{name} is what it was", {26: ()}, loki={"up": EVER, name: NEVER}),
        )
    ),
    *(
        replace(
            each,
            values={'count(credenza:collector_lost:count10m{job="jaeger"}) or vector(0)': 0},
        )
        for each in (
            case(
                "Jaeger does not store what it is given, again and again",
                {24: (), 26: (JAEGER_FAILS,), 38: (JAEGER_FAILS,), 58: ()},
                jaeger={
                    "up": EVER,
                    NOT_STORED: growing((0, 40), (0.2, 40), (0, STEPS - 80)),
                    REFUSED: lasting(12),
                },
            ),
            case(
                "Jaeger does not store many spans at once",
                {21: (), 26: (), 29: ()},
                jaeger={"up": EVER, NOT_STORED: some(100)},
            ),
            case(
                "Jaeger's count of what it does not store begins",
                {26: ()},
                jaeger={"up": EVER, NOT_STORED: first(10)},
            ),
        )
    ),
)
