"""What a receiver reads of each alert."""

GROUP = "/etc/prometheus-rules/slo.yml;credenza-sli"
OF_GROUP = f'_total{{rule_group="{GROUP}"}}'
RECEIVER = '{alertmanager="http://alertmanager:9093/api/v2/alerts"}'
BURNT = "burns its error budget 20.6 times as fast as it may."
FROM_THE_BEGINNING = "everything burns 20.57 times as fast as it may, from the beginning"
BEGAN = "The backup that began at"
LACKS = "Rules have no data for"
DOWN = (
    "jaeger jaeger-0:1 is not there: up is 0.",
    "loki is not there: up is 0.",
)

TEXTS: dict[str, tuple[str, ...]] = {
    "CredenzaAvailabilityBurnsFast": (
        FROM_THE_BEGINNING,
        f"read-availability {BURNT}",
        f"write-availability {BURNT}",
    ),
    "CredenzaAvailabilityBurnsSlowly": (
        FROM_THE_BEGINNING,
        f"read-availability {BURNT}",
        f"write-availability {BURNT}",
    ),
    "CredenzaLatencyBurnsFast": (
        FROM_THE_BEGINNING,
        f"read-latency {BURNT}",
        f"write-latency {BURNT}",
    ),
    "CredenzaLatencyBurnsSlowly": (
        FROM_THE_BEGINNING,
        f"read-latency {BURNT}",
        f"write-latency {BURNT}",
    ),
    "CredenzaFreshnessBurnsFast": (FROM_THE_BEGINNING, f"freshness {BURNT}"),
    "CredenzaFreshnessBurnsSlowly": (FROM_THE_BEGINNING, f"freshness {BURNT}"),
    "CredenzaFewRequestsFail": (
        "a process has just begun, and fails at once",
        "29 requests of read-availability failed in an hour of little traffic.",
    ),
    "CredenzaErrorBudgetSpent": (
        "the budget is spent, and requests that succeed make it whole again",
        "read-availability has -0.10 of its error budget left.",
    ),
    "CredenzaSLOWithoutData": (
        "the rules of the SLOs are not there, and the service goes too",
        f"{LACKS} read-availability (value 0.999).",
        f"{LACKS} write-availability (value 0.999).",
        f"{LACKS} read-latency (value 0.99).",
        f"{LACKS} write-latency (value 0.99).",
        f"{LACKS} freshness (value 0.99).",
    ),
    "CredenzaDown": (
        "there was never one",
        "No target shows the metrics of Credenza; within 7 days 0 had been there.",
    ),
    "TargetDown": ("the only target is down", "10.0.0.1:8001 cannot be scraped: up is 0."),
    "CredenzaDatabaseUnreachable": (
        "the database cannot be reached",
        "No replica has an answer from the database: credenza_database_up is 0.",
    ),
    "CredenzaReplicaWithoutDatabase": (
        "the database cannot be reached",
        "10.0.0.1:8001 has no answer from the database: credenza_database_up is 0.",
    ),
    "CredenzaPoolExhausted": (
        "all connections are busy",
        "All 10 database connections of 10.0.0.1:8001 are busy.",
    ),
    "CredenzaPoolWaits": (
        "99 of 100 statements wait more than 0.25 s",
        "Of 100 statements of 10.0.0.1:8001 one waits 291.7ms for a connection.",
    ),
    "CredenzaDatabaseErrors": (
        "10 failures: away",
        "10 database failures of the kind away in 10 minutes.",
    ),
    "CredenzaRedisBreakerOpen": (
        "Redis is not asked",
        "10.0.0.1:8001 does not ask Redis: credenza_cache_breaker_open is 1.",
    ),
    "CredenzaInvalidationsLate": (
        "99 of 100 invalidations take more than a second",
        "Of 100 invalidations one takes 1.071s to arrive.",
    ),
    "CredenzaRefusesRequests": (
        "requests are refused",
        "10 requests were refused for overload in 6 minutes.",
    ),
    "CredenzaGroupsWait": (
        "requests wait for groups",
        "101 requests wait for a group of the kind create to begin.",
    ),
    "CredenzaRestarts": (
        "a process starts anew three times",
        "10.0.0.1:8001 has started anew 3 times within an hour.",
    ),
    "CredenzaMemoryHigh": (
        "memory comes near its limit",
        "10.0.0.1:8001 holds 233.7MiB of memory, more than 90 % of its limit.",
    ),
    "CredenzaSeveralVersions": (
        "two versions run side by side",
        "2 versions have been running side by side for an hour.",
    ),
    "CredenzaVolumeFull": (
        "a database's volume is full for six minutes, and one of another kind",
        "The database's volume data-postgres-0 has 4% left.",
    ),
    "CredenzaVolumeFills": (
        "a volume has 19 % left, and is full in three days",
        "The volume data-prometheus-0 has 18.74% left.",
    ),
    "CredenzaContainerRestarts": (
        "PostgreSQL starts anew three times",
        "postgres of postgres-0 was started again 3 times within an hour.",
    ),
    "CredenzaMigrationStuck": (
        "a migration takes 20 minutes",
        "a has not migrated within 16m 0s.",
    ),
    "CredenzaReplicasMissing": (
        "a replica has been missing for 20 minutes",
        "credenza lacks 1 of its replicas.",
    ),
    "CredenzaStatefulSetReplicasMissing": (
        "Loki has been missing for 20 minutes, and Jaeger is there",
        "loki lacks 1 of its replicas.",
    ),
    "CredenzaAutoscalerAtMaximum": (
        "the autoscaler is at its maximum for 35 minutes",
        "credenza has wanted 6 replicas, its maximum, for half an hour.",
    ),
    "CredenzaBackupOld": (
        "no backup has succeeded for a day and a half",
        "The last good backup is 1d 12h 29m 0s old.",
    ),
    "CredenzaBackupFailed": (
        "a backup failed after one that succeeded",
        f"{BEGAN} 1970-01-01 00:03:20 +0000 UTC failed, and none has succeeded since.",
    ),
    "CredenzaCertificateExpires": (
        "a certificate expires in 14 days, and is renewed at last",
        "The certificate credenza-tls expires in 13d 23h 43m 0s.",
    ),
    "PrometheusRuleFailures": (
        f"Prometheus: prometheus_rule_evaluation_failures{OF_GROUP}",
        f"1 evaluations of {GROUP} failed in 6 minutes.",
    ),
    "PrometheusMissesEvaluations": (
        f"Prometheus: prometheus_rule_group_iterations_missed{OF_GROUP}",
        f"{GROUP} was left out 1 times in 12 minutes.",
    ),
    "PrometheusNotificationsFail": (
        f"Prometheus: prometheus_notifications_errors_total{RECEIVER}",
        "1 notifications did not reach Alertmanager in 6 minutes.",
    ),
    "PrometheusStorageFails": (
        "Prometheus: each part of its storage fails once, one after the other",
        "The storage of localhost:9090 failed 1 times in an hour.",
    ),
    "PrometheusDeletesSamples": (
        "Prometheus: its samples do not fit",
        "localhost:9090 deleted samples 2 times within a day for want of space.",
    ),
    "PlatformSourceDown": (
        "kube-state-metrics is down for 18 minutes",
        "kube-state-metrics 10.0.0.9:8080 is not there: up is 0.",
    ),
    "PrometheusConfigurationRefused": (
        "Prometheus: prometheus_config_last_reload_successful",
        "localhost:9090 refuses its configuration (value 0) and keeps the one before.",
    ),
    "CredenzaHeartbeatLate": (
        "heartbeats are answered late, and the near cache is not used",
        "10.0.0.1:8001 has its last sign from Redis 1.5s ago, most of the time.",
    ),
    "ObserverDown": ("Loki is gone, and Jaeger is down", *DOWN),
    "CollectorSendsNothing": (
        "collector sends nothing any more, and one waits",
        "1 spans or lines wait in collector collector-0:1, and none was sent within 10 minutes.",
    ),
    "CollectorQueueFills": (
        "the queue of node-logs is nearly full for 8 minutes",
        "The queue of node-logs node-logs-0:1 is 81% full.",
    ),
    "CollectorLosesData": (
        "some spans are refused, and as many were not sent",
        "collector collector-0:1 lost 17 spans or lines in 10 minutes.",
    ),
    "LokiRefusesLines": (
        "more lines are too old",
        "Loki refused 11 lines in 10 minutes: greater_than_max_sample_age.",
    ),
    "LokiFails": (
        "Loki answers 503 on and on",
        "Loki failed 5 times: in 2 minutes to answer, or in 10 minutes to write to its disk.",
    ),
    "JaegerFails": (
        "Jaeger does not store what it is given, again and again",
        "Jaeger failed to store 1 spans in 2 minutes.",
    ),
    "AlertmanagerNotificationsFail": (
        "PagerDuty fails three times",
        "3 notifications by pagerduty failed in half an hour.",
    ),
    "AlertmanagerConfigurationRefused": (
        "Alertmanager refuses its configuration for 8 minutes",
        "alertmanager-0:1 refuses its configuration (value 0) and keeps the one before.",
    ),
}
"""By alert: a case that it fires in, and the summary of each one when it fires there last."""
