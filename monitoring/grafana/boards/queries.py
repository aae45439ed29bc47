"""PromQL of the dashboards. Must not know how a panel shows it.

Selectors hold the variables that each dashboard has. `namespace` and `pod` are labels of targets in
a cluster alone, and `.*`, which stands for All, matches targets without them.
"""

from typing import Final

SERVICE: Final = 'job="$job", namespace=~"$namespace"'
REPLICAS: Final = f'{SERVICE}, pod=~"$pod", instance=~"$instance"'
USERS: Final = 'handler!~"/health.*|/metrics"'
"""Requests of users: no probes, no scrapes."""

SERVED: Final = "on (namespace) credenza:namespaces:count7d"
"""Namespaces that have had the service, as alerts ask."""

REPLICA: Final = "pod, instance"
NAMED: Final = "{{pod}} {{instance}}"
"""A replica's name in a legend; under Compose there is no pod."""


def of(name: str, *more: str) -> str:
    """Return the series of the replicas that are chosen."""
    return f"{name}{{{', '.join((REPLICAS, *more))}}}"


def recorded(name: str, *more: str) -> str:
    """Return what a rule has recorded of the services that are chosen."""
    return f"{name}{{{', '.join((SERVICE, *more))}}}"


def objects(by: str, name: str, *more: str, grown: str = "") -> str:
    """Return what Kubernetes says of objects of the namespaces that are chosen.

    `grown` is for how long a counter's growth is asked. A Prometheus of the whole cluster knows
    other namespaces, and each series as often as kube-state-metrics runs.
    """
    chosen = ", ".join(('namespace=~"$namespace"', *more))
    series = f"{name}{{{chosen}}}"
    series = f"increase({series}[{grown}])" if grown else series
    return f"max by ({by}) ({series} and {SERVED})"


def rate(name: str, *more: str) -> str:
    """Return how much a counter grows in a second."""
    return f"rate({of(name, *more)}[$__rate_interval])"


def per_second(name: str, *more: str, by: str = "") -> str:
    """Return the growth of a counter, added up by labels."""
    return f"{_sum(by)} ({rate(name, *more)})"


def share(name: str, part: str, *more: str, by: str = "") -> str:
    """Return which share of a counter's growth a part has; 0 where the part has no series yet."""
    whole = per_second(name, *more, by=by)
    return f"({per_second(name, part, *more, by=by)} or 0 * {whole}) / {whole}"


def mean(name: str, by: str = "") -> str:
    """Return the mean of what a histogram has observed."""
    return f"{per_second(f'{name}_sum', by=by)} / {per_second(f'{name}_count', by=by)}"


def quantile(rank: float, name: str, *more: str, by: str = "") -> str:
    """Return a quantile of a histogram."""
    labels = ", ".join(filter(None, ("le", by)))
    return f"histogram_quantile({rank}, sum by ({labels}) ({rate(f'{name}_bucket', *more)}))"


def _sum(by: str) -> str:
    return f"sum by ({by})" if by else "sum"
