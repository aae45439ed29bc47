"""Series of kube-state-metrics, the kubelet and cert-manager, and alerts that they make."""

from collections.abc import Mapping
from dataclasses import replace

from rule_cases import Case, Firing, Series, alert, growing, level

STEPS = 120
"""An hour."""

DAY = 86400
HERE = {"namespace": "credenza-prod"}
AGAIN = alert("CredenzaContainerRestarts", "ticket", HERE, pod="postgres-0", container="postgres")


def case(
    name: str, expected: Mapping[int, tuple[Firing, ...]], cluster: Series, **more: object
) -> Case:
    """Return a case of series of the cluster."""
    found = Case(name, STEPS, expected, others={"cluster": cluster})
    return replace(found, **more)  # type: ignore[arg-type]


def volume(name: str, left: str, size: float = 100) -> dict[str, str]:
    """Return the series of a volume: what is left of it, and its size."""
    claim = f'{{persistentvolumeclaim="{name}"}}'
    return {
        f"kubelet_volume_stats_available_bytes{claim}": left,
        f"kubelet_volume_stats_capacity_bytes{claim}": level((size, 600)),
    }


def restarts(pod: str, container: str, values: str) -> dict[str, str]:
    """Return the series of restarts of a container."""
    labels = f'{{container="{container}",pod="{pod}",uid="u"}}'
    return {f"kube_pod_container_status_restarts_total{labels}": values}


def migrating(pod: str, ready: str, phase: str = "", container: str = "migrate") -> dict[str, str]:
    """Return the series of a pod that began at 0 and has an init container."""
    own = f'pod="{pod}",uid="u"'
    return {
        f"kube_pod_start_time{{{own}}}": level((0, STEPS)),
        f'kube_pod_init_container_status_ready{{container="{container}",{own}}}': ready,
        f'kube_pod_status_phase{{phase="Pending",{own}}}': phase or level((1, STEPS)),
        f'kube_pod_status_phase{{phase="Failed",{own}}}': level((float(bool(phase)), STEPS)),
    }


def replicas(name: str, wanted: str, available: str, updated: str = "") -> dict[str, str]:
    """Return the series of a Deployment."""
    labels = f'{{deployment="{name}"}}'
    return {
        f"kube_deployment_spec_replicas{labels}": wanted,
        f"kube_deployment_status_replicas_available{labels}": available,
        f"kube_deployment_status_replicas_updated{labels}": updated or wanted,
    }


def stateful(name: str, ready: str) -> dict[str, str]:
    """Return the series of a StatefulSet of one replica."""
    labels = f'{{statefulset="{name}"}}'
    return {
        f"kube_statefulset_replicas{labels}": level((1, STEPS)),
        f"kube_statefulset_status_replicas_ready{labels}": ready,
    }


def scaled(name: str, wanted: str, most: float) -> dict[str, str]:
    """Return the series of an autoscaler."""
    labels = f'{{horizontalpodautoscaler="{name}"}}'
    return {
        f"kube_horizontalpodautoscaler_status_desired_replicas{labels}": wanted,
        f"kube_horizontalpodautoscaler_spec_max_replicas{labels}": level((most, STEPS)),
    }


def schedule(last: str | None, name: str = "backup", made: float = 0) -> Series:
    """Return the series of a CronJob: when it succeeded last, and when it was made."""
    return {
        f'kube_cronjob_created{{cronjob="{name}"}}': level((made, STEPS)),
        f'kube_cronjob_status_last_successful_time{{cronjob="{name}"}}': last,
    }


def job(start: float, *, failed: str = "", owner: str = "backup") -> dict[str, str]:
    """Return the series of a Job that began at this time, and its condition `Failed`, if any."""
    name = f"{owner}-{start:.0f}"
    owned = f'owner_is_controller="true",owner_kind="CronJob",owner_name="{owner}"'
    found = {
        f'kube_job_status_start_time{{job_name="{name}"}}': level((start, STEPS)),
        f'kube_job_owner{{job_name="{name}",{owned}}}': level((1, STEPS)),
    }
    if failed:
        for condition in ("true", "false", "unknown"):
            labels = f'{{condition="{condition}",job_name="{name}"}}'
            found[f"kube_job_failed{labels}"] = level((float(condition == failed), STEPS))
    return found


def certificate(name: str, until: float, renewed: float = 0) -> dict[str, str]:
    """Return the series of a certificate: how long it is good for, and half an hour later."""
    issuer = 'issuer_group="cert-manager.io",issuer_kind="ClusterIssuer",issuer_name="x"'
    metric = "certmanager_certificate_expiration_timestamp_seconds"
    return {f'{metric}{{{issuer},name="{name}"}}': level((until, 60), (renewed or until, 60))}


def full(severity: str, name: str) -> Firing:
    """Return the alert of a volume that is full, or fills."""
    which = "CredenzaVolumeFull" if severity == "page" else "CredenzaVolumeFills"
    return alert(which, severity, HERE, persistentvolumeclaim=name)


def replica(pod: str) -> Firing:
    """Return the alert of a replica of the service that starts anew."""
    return alert("CredenzaContainerRestarts", "ticket", HERE, pod=pod, container="credenza")


SICK: dict[str, str] = {
    **volume("data-postgres-0", level((1, STEPS))),
    **restarts("a", "b", growing((1, STEPS))),
    **migrating("a", level((0, STEPS))),
    **replicas("credenza", level((2, STEPS)), level((0, STEPS))),
    **stateful("loki", level((0, STEPS))),
    **scaled("credenza", level((6, STEPS)), 6),
    **job(100, failed="true"),
    'kube_cronjob_created{cronjob="backup"}': level((-3 * DAY, STEPS)),
    **certificate("credenza-tls", 0),
}
"""Everything is wrong."""
