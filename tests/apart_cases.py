"""Cases of two objects in one namespace, and of equal names in two: none is taken for the other.

tests/platform_cases.py has them among its own. The namespace `others` has no service.
"""

from collections.abc import Mapping

from platform_series import (
    AGAIN,
    HERE,
    STEPS,
    case,
    job,
    migrating,
    replica,
    restarts,
    schedule,
    stateful,
    volume,
)
from rule_cases import POD, STAGING, Case, Firing, Series, alert, healthy, level

STARTS = {"process_start_time_seconds": level((1, 20), (600, 4), (720, 4), (840, 92))}
THRICE = level((0, 20), (1, 4), (2, 4), (3, 92))
LOKI = alert("CredenzaStatefulSetReplicasMissing", "ticket", HERE, statefulset="loki")


def with_others(
    name: str, expected: Mapping[int, tuple[Firing, ...]], here: Series, there: Series
) -> Case:
    """Return a case of series of two namespaces."""
    return case(name, expected, {}, others={"cluster": here, "others": there})


def begun(pod: str, *, ready: bool) -> dict[str, str]:
    """Return the series of a pod that is pending and began at minute 50."""
    return migrating(pod, level((float(ready), STEPS))) | {
        f'kube_pod_start_time{{pod="{pod}",uid="u"}}': level((3000, STEPS))
    }


APART = (
    case(
        "Loki and the database are missing",
        {26: (LOKI,)},
        stateful("loki", level((1, 20), (0, 100))) | stateful("postgres", level((0, STEPS))),
    ),
    case(
        "the service and the database start anew three times",
        {
            20: (
                alert("CredenzaRestarts", "ticket", POD),
                AGAIN,
            )
        },
        restarts("credenza-1", "credenza", THRICE) | restarts("postgres-0", "postgres", THRICE),
        changed=STARTS,
    ),
    case(
        "a replica starts anew, and one of its name in staging shows that it does",
        {20: (alert("CredenzaRestarts", "ticket", STAGING), replica("credenza-1"))},
        {},
        others={
            "cluster": restarts("credenza-1", "credenza", THRICE),
            "staging": {**healthy(STEPS), **STARTS},
        },
    ),
    with_others(
        "a pod was evicted while it migrated, one has just begun, and one of its name is pending",
        {58: ()},
        migrating("a", level((0, STEPS)), level((0, STEPS))) | begun("b", ready=False),
        migrating("a", level((0, STEPS))),
    ),
    with_others(
        "a pod has migrated and is pending still, and one of its name has not",
        {58: ()},
        migrating("a", level((1, STEPS))),
        migrating("a", level((0, STEPS))),
    ),
    with_others(
        "a volume is low, and one of its name fills",
        {58: ()},
        volume("a", level((19, STEPS))),
        volume("a", f"19-{19 / 8640:.7f}x{STEPS - 1}"),
    ),
    with_others(
        "a backup succeeds, and a Job of its name failed",
        {10: ()},
        {**schedule(level((100, STEPS))), **job(200)},
        {**schedule(level((100, STEPS))), **job(200, failed="true")},
    ),
    with_others(
        "another schedule's Job failed, and a backup has its name",
        {10: ()},
        {**schedule(level((100, STEPS))), **job(200, failed="true", owner="another")},
        {
            name.replace('owner_name="another"', 'owner_name="backup"'): values
            for name, values in job(200, owner="another").items()
        },
    ),
)
