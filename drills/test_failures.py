"""Promises 1, 3 and 7 when a part of the cluster fails: pods, a node, Redis, PostgreSQL."""

import time
from collections.abc import Iterator

import pytest
from cluster import Cluster, bring_up, kill_worker, wait, worker
from load import Load

from conftest import API, Measured, Metrics

SERVICE_BACK = 30.0
"""Seconds within which clients on new connections are served again after a node was lost."""

NOTICED = 15.0
"""Seconds until the kubelet has told of a process's end and the nodes' proxies know it."""

REPLICAS_BACK = 60.0
"""Seconds within which the lost node's replicas run elsewhere."""


def test_pod_deleted(cluster: Cluster, measured: Measured) -> None:
    """A pod that is deleted under load loses no request."""
    with Load(API) as load:
        load.until(500)
        cluster.kubectl("delete", "pod", cluster.ready("credenza")[0])
        cluster.rolled_out()
        load.until(len(load.requests) + 500)
    measured(load.told())
    assert load.lost == [], load.outcomes()


def test_app_killed(cluster: Cluster, measured: Measured) -> None:
    """A process that is killed with SIGKILL loses what was on its way to it, for some seconds.

    Until the kubelet has told of its end, its address is still the Service's.
    """
    victim = cluster.ready("credenza")[0]
    restarts = cluster.restarts(victim)
    with Load(API) as load:
        load.until(500)
        at = cluster.kill(victim)
        wait("the container is restarted", lambda: cluster.restarts(victim) > restarts)
        wait("both are ready", lambda: len(cluster.ready("credenza")) == 2)
        load.until(len(load.requests) + 500)
    under_way = [request for request in load.lost if request.at < at]
    unknown = [request for request in load.lost if request.at >= at]
    measured(
        f"{load.told()}: {len(under_way)} under way, {len(unknown)} sent to its address before "
        f"Kubernetes had noticed, the last {max((r.at - at for r in unknown), default=0):.1f} s on"
    )
    assert {request.outcome for request in unknown} <= _REFUSED | _CUT, load.outcomes()
    assert all(request.at < at + NOTICED for request in unknown)


def test_node_drained(cluster: Cluster, measured: Measured) -> None:
    """A drain of the node that has all replicas waits for the disruption budget, and loses none."""
    first, node = cluster.nodes()
    cluster.kubectl("cordon", first)
    cluster.kubectl("rollout", "restart", "deployment/credenza")
    cluster.rolled_out()
    cluster.kubectl("uncordon", first)
    Cluster("kube-system").move(away_from=node)
    cluster.move(away_from=node)
    try:
        with Load(API) as load:
            load.until(500)
            begun = time.monotonic()
            options = ("--ignore-daemonsets", "--delete-emptydir-data", "--timeout=300s")
            said = cluster.kubectl("drain", node, *options)
            took = time.monotonic() - begun
            cluster.rolled_out()
            load.until(len(load.requests) + 300)
    finally:
        cluster.kubectl("uncordon", node)
    assert "would violate the pod's disruption budget" in said
    measured(f"{load.told()}; the drain waited for the budget and took {took:.0f} s")
    assert load.lost == [], load.outcomes()


@pytest.fixture
def node_back() -> Iterator[None]:
    """Bring the lost node back."""
    yield
    bring_up()


@pytest.mark.usefixtures("node_back")
def test_node_killed(cluster: Cluster, measured: Measured) -> None:
    """A node without power: new connections are served within 30 s, replicas are back in 60 s."""
    node = worker()
    for namespace in (cluster.namespace, "kube-system"):
        Cluster(namespace).move(away_from=node)
    _spread(cluster)
    with Load(API) as load:
        load.until(500)
        kill_worker()
        at = time.monotonic()
        wait("two replicas elsewhere", lambda: len(_elsewhere(cluster, node)) >= 2, seconds=180)
        back = time.monotonic() - at
        load.until(len(load.requests) + 500)
    served = max((request.at - at for request in load.lost if not request.keeps), default=0.0)
    measured(
        f"new connections all served after {served:.0f} s, two replicas ready after {back:.0f} s, "
        f"{load.told()}"
    )
    late = [request for request in load.lost if request.at > at + SERVICE_BACK / 2]
    assert served <= SERVICE_BACK, "\n".join(f"{r.at - at:.1f} s: {r}" for r in late)
    assert back <= REPLICAS_BACK


def test_redis_deleted(cluster: Cluster, metrics: Metrics, measured: Measured) -> None:
    """Redis is deleted under load: no error, right answers, and metrics tell of its return."""
    failures, answers = metrics(_FAILURES), metrics(_ANSWERS)
    with Load(API) as load:
        load.until(500)
        cluster.kubectl("delete", "pod", "--selector=app.kubernetes.io/name=redis", "--now")
        wait("metrics tell of it", lambda: metrics(_FAILURES) > failures, seconds=90)
        cluster.rolled_out("deployment/redis")
        wait("the breaker is closed", lambda: metrics(_BREAKERS) == 0, seconds=90)
        wait("Redis is asked again", lambda: metrics(_ANSWERS) > answers, seconds=90)
        load.until(len(load.requests) + 300)
    measured(f"{load.told()}; metrics show it fail and come back")
    assert load.lost == [], load.outcomes()


_FAILURES = 'credenza_cache_total{layer="redis",outcome="error"}'
_ANSWERS = 'credenza_cache_total{layer="redis",outcome=~"hit|miss"}'
_BREAKERS = "credenza_cache_breaker_open"


def test_postgres_restarted(cluster: Cluster, measured: Measured) -> None:
    """PostgreSQL is down for a while: 503 with Retry-After, then all is as it was, no write lost.

    It stays down until no replica is ready: a quick restart would be over before that.
    """
    before = {pod: cluster.restarts(pod) for pod in cluster.ready("credenza")}
    with Load(API) as load:
        load.until(500)
        at = time.monotonic()
        cluster.kubectl("scale", "statefulset/postgres", "--replicas=0")
        try:
            wait("no replica is ready", lambda: cluster.ready("credenza") == [], seconds=60)
            off = time.monotonic() - at
        finally:
            cluster.kubectl("scale", "statefulset/postgres", "--replicas=1")
        cluster.rolled_out("statefulset/postgres")
        wait("the replicas are ready", lambda: set(cluster.ready("credenza")) == set(before))
        on = time.monotonic() - at
        load.until(len(load.requests) + 500)
    measured(
        f"{load.told()} (each 503 with Retry-After, or refused while no replica was ready); "
        f"readiness off after {off:.0f} s, on after {on:.0f} s"
    )
    assert {request.outcome for request in load.lost} <= {503, *_REFUSED}, load.outcomes()
    assert all(request.retry_after for request in load.lost if request.outcome == 503)
    assert {pod: cluster.restarts(pod) for pod in before} == before, "the service was restarted"


_CUT = {"IncompleteReadError"}
"""What a request gets on a connection whose other end has just gone."""

_REFUSED = {"ConnectionRefusedError", "ConnectionResetError"}
"""What a new connection gets where nothing listens, or while a Service has no ready pod."""


def _spread(cluster: Cluster) -> None:
    """Have one replica on each node."""
    if worker() not in {cluster.node_of(pod) for pod in cluster.ready("credenza")}:
        cluster.kubectl("rollout", "restart", "deployment/credenza")
        cluster.rolled_out()
    assert worker() in {cluster.node_of(pod) for pod in cluster.ready("credenza")}


def _elsewhere(cluster: Cluster, node: str) -> list[str]:
    return [pod for pod in cluster.ready("credenza") if cluster.node_of(pod) != node]
