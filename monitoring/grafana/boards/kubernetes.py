"""What Kubernetes says: of replicas, pods, the autoscaler, volumes, backups and certificates.

All of it is scraped by the components cluster-metrics and kubelet-metrics. Bounds are those of the
rules: targets.yml.
"""

from typing import Final

from boards.board import row
from boards.panels import Json, graph, now, stat, table
from boards.queries import objects

NO_OBJECTS: Final = "Empty without the component cluster-metrics."
NO_VOLUMES: Final = "Empty without the component kubelet-metrics."
VOLUME_FULL: Final = 0.05
VOLUME_LOW: Final = 0.2
RESTARTS_LIMIT: Final = 3
BACKUP_AGE: Final = 36 * 3600
CERTIFICATE_LOW: Final = 14 * 86400

DEPLOYMENT: Final = "namespace, deployment"
STATEFUL_SET: Final = "namespace, statefulset"
AUTOSCALER: Final = "namespace, horizontalpodautoscaler"
CONTAINER: Final = "namespace, pod, container"
POD: Final = 'pod=~"$pod"'
NOT_RUNNING: Final = 'phase=~"Pending|Failed|Unknown"'

WANTED: Final = objects(DEPLOYMENT, "kube_deployment_spec_replicas")
AVAILABLE: Final = objects(DEPLOYMENT, "kube_deployment_status_replicas_available")
UPDATED: Final = objects(DEPLOYMENT, "kube_deployment_status_replicas_updated")
SET_WANTED: Final = objects(STATEFUL_SET, "kube_statefulset_replicas")
SET_READY: Final = objects(STATEFUL_SET, "kube_statefulset_status_replicas_ready")
MISSING: Final = f"clamp_min({WANTED} - {AVAILABLE}, 0)"
SET_MISSING: Final = f"clamp_min({SET_WANTED} - {SET_READY}, 0)"
DESIRED: Final = objects(AUTOSCALER, "kube_horizontalpodautoscaler_status_desired_replicas")
MAXIMUM: Final = objects(AUTOSCALER, "kube_horizontalpodautoscaler_spec_max_replicas")
RESTARTS: Final = objects(CONTAINER, "kube_pod_container_status_restarts_total", POD, grown="1h")
FREE: Final = objects("namespace, persistentvolumeclaim", "credenza:volume_free:ratio")
EXPIRY: Final = objects("namespace, name", "certmanager_certificate_expiration_timestamp_seconds")
BACKUP: Final = objects("namespace", "kube_cronjob_status_last_successful_time", 'cronjob="backup"')


def _phases(*more: str) -> str:
    return objects("namespace, pod, phase", "kube_pod_status_phase", POD, *more)


def _reason(what: str) -> str:
    name = f"kube_pod_container_status_{what}_reason"
    return f"max by (pod, container, reason) ({objects(f'{CONTAINER}, reason', name, POD)})"


def _replicas(title: str, about: str, kind: str, numbers: dict[str, str]) -> Json:
    """Return a row for each object of a kind; `numbers` are queries by their heads."""
    columns = {"namespace": {"name": "namespace"}, kind: {"name": kind}}
    columns |= {f"Value #{head}": {"name": head} for head in numbers}
    return table(
        title,
        f"{about} {NO_OBJECTS}",
        columns,
        [now(head, query) for head, query in numbers.items()],
        first=[{"id": "merge", "options": {}}],
        width=8,
    )


KUBERNETES: Final = row(
    "What Kubernetes says, with the components cluster-metrics and kubelet-metrics",
    stat(
        "Replicas missing",
        "Replicas that are wanted and not available, of Deployments and of StatefulSets. For "
        f"minutes: look below for whose. {NO_OBJECTS}",
        "none",
        (f"sum({MISSING})", "Deployments"),
        (f"sum({SET_MISSING})", "StatefulSets"),
        steps={0: "green", 1: "red"},
    ),
    stat(
        "Pods not running",
        "Pods that are pending, have failed or are not known of. One that has failed may be of a "
        f"backup, whose Job keeps it. {NO_OBJECTS}",
        "none",
        (f"sum({_phases(NOT_RUNNING)})", ""),
        steps={0: "green", 1: "orange"},
    ),
    stat(
        "Restarts in an hour",
        f"How often Kubernetes has started containers anew. {NO_OBJECTS}",
        "none",
        (f"sum({RESTARTS})", ""),
        steps={0: "green", 1: "orange", RESTARTS_LIMIT: "red"},
        decimals=0,
    ),
    stat(
        "Reach of the autoscaler",
        "Share of the replicas it may have that the autoscaler wants. At 100 % more load finds no "
        f"more. Where there is none it is empty. {NO_OBJECTS}",
        "percentunit",
        (f"max({DESIRED} / {MAXIMUM})", ""),
        steps={0: "green", 0.8: "orange", 1: "red"},
    ),
    stat(
        "Least free space",
        "Free share of the volume that has the least. When the database's is full PostgreSQL "
        f"stops. {NO_VOLUMES}",
        "percentunit",
        (f"min({FREE})", ""),
        steps={0: "red", VOLUME_FULL: "orange", VOLUME_LOW: "green"},
    ),
    stat(
        "Last good backup",
        "How old it is; what is written since then would be lost with the database. Over 36 hours "
        f"are an alert. Where the CronJob has made none yet it is empty. {NO_OBJECTS}",
        "s",
        (f"time() - min({BACKUP})", ""),
        steps={0: "green", BACKUP_AGE: "red"},
    ),
    _replicas(
        "Deployments",
        "What is wanted, what is available, and how many are of the newest version.",
        "deployment",
        {"wanted": WANTED, "available": AVAILABLE, "newest": UPDATED},
    ),
    _replicas(
        "StatefulSets",
        "What is wanted, and what is ready: databases in the cluster, and what watches.",
        "statefulset",
        {"wanted": SET_WANTED, "ready": SET_READY},
    ),
    graph(
        "Replicas missing by workload",
        "Since when how many are not available. For a minute it is a roll-out; over 15 minutes "
        f"are an alert. {NO_OBJECTS}",
        "none",
        (f"max by (deployment) ({MISSING})", "{{deployment}}"),
        (f"max by (statefulset) ({SET_MISSING})", "{{statefulset}}"),
    ),
    graph(
        "Pods by phase",
        "Pending for long: no node has room, an image or a volume is missing, or an init container "
        f"is not done. {NO_OBJECTS}",
        "none",
        (f"sum by (phase) ({_phases()})", "{{phase}}"),
        stacked=True,
    ),
    graph(
        "Restarts of containers within an hour",
        "How often Kubernetes has started each container anew, also of a database and of what "
        f"watches. Three are an alert. {NO_OBJECTS}",
        "none",
        (f"max by (pod, container) ({RESTARTS})", "{{pod}} {{container}}"),
        limit=RESTARTS_LIMIT,
    ),
    graph(
        "Autoscaler",
        "Replicas that it wants, and may have. Half an hour at the maximum is an alert. Where "
        f"there is none it is empty. {NO_OBJECTS}",
        "none",
        (f"max by (horizontalpodautoscaler) ({DESIRED})", "{{horizontalpodautoscaler}} wanted"),
        (f"max by (horizontalpodautoscaler) ({MAXIMUM})", "{{horizontalpodautoscaler}} at most"),
    ),
    graph(
        "Why containers wait or have ended",
        "CrashLoopBackOff: it ends over and over. ImagePullBackOff: no such image. "
        "PodInitializing: the init container (migrate) is not done. OOMKilled: it had more memory "
        f"than its limit. While all run and none has ended it is empty. {NO_OBJECTS}",
        "none",
        (_reason("waiting"), "{{pod}} {{container}} waits: {{reason}}"),
        (_reason("last_terminated"), "{{pod}} {{container}} ended: {{reason}}"),
    ),
    graph(
        "Free share of volumes",
        "How much of each claim's volume is free. Below 5 % is an alert, and below 20 % where it "
        f"would be full within four days. {NO_VOLUMES}",
        "percentunit",
        (f"min by (persistentvolumeclaim) ({FREE})", "{{persistentvolumeclaim}}"),
        top=1,
    ),
    graph(
        "Time left of certificates",
        "How long each certificate that cert-manager looks after is still good. Less than 14 days "
        f"are an alert: its renewal has failed. Without cert-manager it is empty. {NO_OBJECTS}",
        "s",
        (f"min by (name) ({EXPIRY} - time())", "{{name}}"),
        limit=CERTIFICATE_LOW,
        below=True,
    ),
)
