"""Cases of the alerts of the platform: volumes, pods, backups, certificates.

Each one gives series of kube-state-metrics, the kubelet or cert-manager. They run without slo.yml.
"""

from dataclasses import replace

from apart_cases import APART
from platform_series import (
    AGAIN,
    DAY,
    HERE,
    SICK,
    STEPS,
    case,
    certificate,
    full,
    job,
    migrating,
    replica,
    replicas,
    restarts,
    scaled,
    schedule,
    stateful,
)
from rule_cases import POD, Case, alert, growing, level, nothing
from volume_cases import VOLUMES

ALMOST = -129000
"""A backup of then is too old in ten minutes."""

RESTARTS = growing((0, 20), (0.5, 6), (0, 94))
FAILED = (alert("CredenzaBackupFailed", "ticket", HERE),)
OLD = (alert("CredenzaBackupOld", "ticket", HERE, cronjob="backup"),)
STUCK = (alert("CredenzaMigrationStuck", "ticket", HERE, pod="a"),)

LACKS = alert("CredenzaReplicasMissing", "ticket", HERE, deployment="credenza")
ABSENT = alert("CredenzaStatefulSetReplicasMissing", "ticket", HERE, statefulset="loki")
MOST = alert("CredenzaAutoscalerAtMaximum", "ticket", HERE, horizontalpodautoscaler="credenza")
EXPIRES = alert("CredenzaCertificateExpires", "ticket", {**HERE, "name": "credenza-tls"})
ALL = (
    full("page", "data-postgres-0"),
    full("ticket", "data-postgres-0"),
    alert("CredenzaContainerRestarts", "ticket", HERE, pod="a", container="b"),
    *STUCK,
    LACKS,
    ABSENT,
    MOST,
    *FAILED,
    *OLD,
    EXPIRES,
)

_EACH = (
    Case(
        "everything is wrong in a namespace without the service",
        STEPS,
        {58: ()},
        others={"others": {**SICK, "up": level((1, STEPS))}},
    ),
    case("everything is wrong in the service's", {58: ALL}, SICK),
    case(
        "the service has been gone for 30 hours, and all else is wrong too",
        {1860: (alert("CredenzaDown", "page"), *ALL)},
        {name: f"{values.partition('x')[0]}x400" for name, values in SICK.items()},
        steps=190,
        step="10m",
        every="10m",
        changed={**nothing(190), "up": f"{level((1, 6))} stale _x183"},
    ),
    *VOLUMES,
    *APART,
    case(
        "PostgreSQL starts anew three times",
        {12: (), 14: (AGAIN,), 58: (AGAIN,), 76: ()},
        restarts("postgres-0", "postgres", f"{RESTARTS} 3x40"),
        steps=160,
    ),
    case(
        "it starts anew twice, and another container of the pod twice",
        {20: (), 58: ()},
        restarts("postgres-0", "postgres", level((0, 20), (1, 6), (2, 94)))
        | restarts("postgres-0", "other", level((0, 20), (1, 6), (2, 94))),
    ),
    case(
        "three pods start anew once each",
        {20: ()},
        restarts("a", "credenza", level((0, 20), (1, 100)))
        | restarts("b", "credenza", level((0, 20), (1, 100)))
        | restarts("c", "credenza", level((0, 20), (1, 100))),
    ),
    case(
        "the service starts anew three times: one ticket, not two",
        {20: (alert("CredenzaRestarts", "ticket", POD),)},
        restarts("credenza-1", "credenza", RESTARTS),
        changed={"process_start_time_seconds": level((1, 20), (600, 4), (720, 4), (840, 92))},
    ),
    case(
        "it starts anew three times, and has shown two of them",
        {20: (replica("credenza-1"),)},
        restarts("credenza-1", "credenza", RESTARTS),
        changed={"process_start_time_seconds": level((1, 20), (600, 4), (720, 96))},
    ),
    Case(
        "a container starts anew three times, and its process is of another job",
        STEPS,
        {20: (alert("CredenzaContainerRestarts", "ticket", HERE, pod="a", container="b"),)},
        others={
            "cluster": restarts("a", "b", RESTARTS),
            "stranger": {
                "process_start_time_seconds": level((1, 20), (600, 4), (720, 4), (840, 92))
            },
        },
    ),
    case(
        "a replica of the service starts anew before it shows metrics, another one is well",
        {
            20: (
                alert(
                    "CredenzaContainerRestarts",
                    "ticket",
                    HERE,
                    pod="credenza-9",
                    container="credenza",
                ),
            )
        },
        restarts("credenza-9", "credenza", RESTARTS),
    ),
    case(
        "a migration takes 20 minutes",
        {14: (), 16: STUCK, 22: ()},
        migrating("a", level((0, 40), (1, 80))),
    ),
    case(
        "a migration fails over and over: it is never ready",
        {14: (), 16: STUCK, 58: STUCK},
        migrating("a", level((0, STEPS))),
    ),
    case("it takes 14 minutes", {13: (), 16: ()}, migrating("a", level((0, 27), (1, 93)))),
    case(
        "a pod was evicted while it migrated",
        {58: ()},
        migrating("a", level((0, STEPS)), level((0, STEPS))),
    ),
    case(
        "another init container takes long",
        {58: ()},
        migrating("a", level((0, STEPS)), container="fetch")
        | {
            'kube_pod_init_container_status_ready{container="migrate",pod="b",uid="v"}': level(
                (0, 20), (1, 100)
            )
        },
    ),
    case(
        "a pod has migrated long ago and is pending still, one has just begun to migrate",
        {58: ()},
        migrating("a", level((1, STEPS)))
        | {
            'kube_pod_start_time{pod="b",uid="v"}': level((3000, STEPS)),
            'kube_pod_init_container_status_ready{container="migrate",pod="b",uid="v"}': level(
                (0, STEPS)
            ),
            'kube_pod_status_phase{phase="Pending",pod="b",uid="v"}': level((1, STEPS)),
        },
    ),
    case(
        "a replica has been missing for 20 minutes",
        {24: (), 26: (LACKS,), 31: ()},
        replicas("credenza", level((2, STEPS)), level((2, 20), (1, 40), (2, 60)))
        | replicas("grafana", level((1, STEPS)), level((1, STEPS)))
        | replicas("pgbouncer", level((3, STEPS)), level((3, STEPS))),
    ),
    case(
        "a new version does not start, and the old one serves on",
        {24: (), 26: (LACKS,)},
        replicas("credenza", level((2, STEPS)), level((2, STEPS)), level((2, 20), (1, 100))),
    ),
    case(
        "a roll-out takes ten minutes, then a node is lost for ten",
        {18: (), 30: (), 44: ()},
        replicas(
            "credenza",
            level((2, STEPS)),
            level((2, 60), (1, 20), (2, 40)),
            level((2, 20), (1, 20), (2, 80)),
        ),
    ),
    case(
        "Loki has been missing for 20 minutes, and Jaeger is there",
        {24: (), 26: (ABSENT,), 31: ()},
        stateful("loki", level((1, 20), (0, 40), (1, 60))) | stateful("jaeger", level((1, STEPS))),
    ),
    case(
        "the database is missing: that is another alert",
        {58: ()},
        stateful("postgres", level((0, STEPS))),
    ),
    case(
        "the autoscaler is at its maximum for 35 minutes",
        {39: (), 41: (MOST,), 46: ()},
        scaled("credenza", level((3, 20), (6, 70), (5, 30)), 6)
        | scaled("another", level((3, STEPS)), 4),
    ),
    case("it wants one less than it may", {58: ()}, scaled("credenza", level((5, STEPS)), 6)),
    case(
        "no backup has succeeded for a day and a half",
        {9: (), 11: OLD, 39: OLD, 41: ()},
        schedule(level((ALMOST, 80), (2400, 40))),
    ),
    case("there was never a backup", {9: (), 11: OLD}, schedule(None, made=ALMOST)),
    case(
        "another schedule is old, and the backup is not",
        {58: ()},
        {**schedule(None, "another", -3 * DAY), **schedule(level((0, STEPS)))},
    ),
    case(
        "another schedule's last success is old, and the backup's is not",
        {58: ()},
        {**schedule(level((-3 * DAY, STEPS)), "another"), **schedule(level((0, STEPS)))},
    ),
    case(
        "a Job's condition is false",
        {10: ()},
        {**schedule(level((100, STEPS))), **job(200, failed="false")},
    ),
    case(
        "the schedule is gone, and a Job that failed is left",
        {10: ()},
        {**schedule(None, "another"), **job(200, failed="true")},
    ),
    case(
        "a backup failed after one that succeeded",
        {9: (), 11: FAILED, 21: ()},
        {
            **schedule(level((100, 40), (1200, 80))),
            **job(200, failed="true"),
            'kube_job_failed{condition="true",job_name="backup-200"}': level((0, 20), (1, 100)),
        },
    ),
    case("the first backup failed", {10: FAILED}, {**schedule(None), **job(200, failed="true")}),
    case(
        "a backup failed, and a later one succeeded",
        {10: ()},
        {**schedule(level((300, STEPS))), **job(200, failed="true")},
    ),
    case(
        "a backup runs, and an older one had failed",
        {10: ()},
        {**schedule(level((300, STEPS))), **job(200, failed="true"), **job(400)},
    ),
    case(
        "another schedule's Job failed",
        {10: ()},
        {
            **schedule(level((100, STEPS))),
            **schedule(level((100, STEPS)), "another"),
            **job(200, failed="true", owner="another"),
            **job(300),
        },
    ),
    case(
        "another schedule succeeded after a backup had failed",
        {10: FAILED},
        {
            **schedule(level((100, STEPS))),
            **schedule(level((300, STEPS)), "another"),
            **job(200, failed="true"),
        },
    ),
    case(
        "a certificate expires in 14 days, and is renewed at last",
        {9: (), 24: (), 27: (EXPIRES,), 31: ()},
        certificate("credenza-tls", 14 * DAY + 600, 90 * DAY) | certificate("another", 90 * DAY),
    ),
    case(
        "a certificate is renewed with an hour to spare",
        {58: ()},
        certificate("credenza-tls", 14 * DAY + 3600 * 1.5),
    ),
    Case(
        "it expires, and cert-manager is scraped without honor_labels",
        STEPS,
        {27: (EXPIRES,)},
        others={
            "others": {
                name.replace("}", ',exported_namespace="credenza-prod"}'): values
                for name, values in certificate("credenza-tls", DAY).items()
            }
        },
    ),
)

PLATFORM = tuple(
    replace(each, without=("slo",), hidden="Watchdog|CredenzaSLOWithoutData") for each in _EACH
)
