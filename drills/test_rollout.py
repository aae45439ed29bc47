"""Promise 7: changes of the version lose no request."""

from pathlib import Path

import pytest
from cluster import IMAGE, Cluster, load_image, run, wait
from load import Load

from conftest import API, Measured

REQUESTS = 20_000
ROLLOUTS = 3


def test_rolling_update(cluster: Cluster, measured: Measured) -> None:
    """Three rolling updates under load lose no request."""
    with Load(API) as load:
        load.until(500)
        for _ in range(ROLLOUTS):
            cluster.kubectl("rollout", "restart", "deployment/credenza")
            cluster.rolled_out()
        load.until(REQUESTS)
    measured(f"{load.told()}; p99 {load.percentile(99):.2f} s")
    assert load.lost == [], load.outcomes()


def test_bad_rollout(cluster: Cluster, measured: Measured) -> None:
    """A version that never becomes ready is stopped; the old one serves on and is brought back."""
    before = set(cluster.ready("credenza"))
    with Load(API, clients=4) as load:
        cluster.kubectl("patch", "deployment/credenza", "--patch", _never_ready(seconds=30))
        wait("the roll-out gives up", lambda: _has_stopped(cluster), seconds=180)
        assert before <= set(cluster.ready("credenza"))
        cluster.kubectl("rollout", "undo", "deployment/credenza")
        cluster.kubectl("patch", "deployment/credenza", "--patch", _patience(seconds=300))
        cluster.rolled_out()
    assert set(cluster.ready("credenza")) == before, "the good pods were never replaced"
    assert load.lost == [], load.outcomes()
    measured(f"stopped by its deadline; {load.told()}; the same pods serve on")


def _never_ready(*, seconds: int) -> str:
    """Return a patch to an image that cannot be had, and so never becomes ready."""
    container = """{"name": "credenza", "image": "credenza:not-there"}"""
    template = f"""{{"spec": {{"containers": [{container}]}}}}"""
    return f"""{{"spec": {{"progressDeadlineSeconds": {seconds}, "template": {template}}}}}"""


def _patience(*, seconds: int) -> str:
    return f"""{{"spec": {{"progressDeadlineSeconds": {seconds}}}}}"""


def _has_stopped(cluster: Cluster) -> bool:
    conditions = cluster.get("deployment/credenza")["status"]["conditions"]
    reasons = [known["reason"] for known in conditions if known["type"] == "Progressing"]
    return "ProgressDeadlineExceeded" in reasons


NEXT = "credenza:drill-next"
REVISION = '''"""Another column, as a later version would add."""

from alembic import op

revision = "0003"
down_revision = "0002"


def upgrade() -> None:
    """Add what the version before does not know."""
    op.execute("ALTER TABLE documents ADD COLUMN drill text")


def downgrade() -> None:
    """Take it away again."""
    op.execute("ALTER TABLE documents DROP COLUMN drill")
'''


@pytest.fixture
def next_version(tmp_path: Path) -> str:
    """An image of this commit with one more migration."""
    (tmp_path / "0003_drill.py").write_text(REVISION)
    versions = "/opt/service/credenza/sql/migrations/versions/"
    (tmp_path / "Dockerfile").write_text(f"FROM {IMAGE}\nCOPY 0003_drill.py {versions}\n")
    run("docker", "build", "--tag", NEXT, tmp_path)
    load_image(NEXT)
    return NEXT


def test_migration(cluster: Cluster, next_version: str, measured: Measured) -> None:
    """A new version migrates once, under load, and the old one runs on the new schema."""
    with Load(API) as load:
        load.until(200)
        pair = (f"migrate={next_version}", f"credenza={next_version}")
        cluster.kubectl("set", "image", "deployment/credenza", *pair)
        cluster.rolled_out()
        migrated = _migrations(cluster)
        assert cluster.sql("SELECT version_num FROM alembic_version") == "0003"
        cluster.kubectl("rollout", "undo", "deployment/credenza")
        cluster.rolled_out()
        back = _migrations(cluster)
        load.until(len(load.requests) + 200)
    told = load.told()
    cluster.sql("ALTER TABLE documents DROP COLUMN drill")
    cluster.sql("UPDATE alembic_version SET version_num = '0002'")
    # A second run of the revision would have failed: the column was there.
    assert migrated == back == 0, "a migration has failed, so it ran twice"
    measured(f"{told}; migrated once by two replicas, then two of the old version on its schema")
    assert load.lost == [], load.outcomes()


def _migrations(cluster: Cluster) -> int:
    """Return how often the migrations of all replicas had to be tried again."""
    pods = cluster.pods("credenza")
    assert len(pods) == 2
    found = [status for pod in pods for status in pod["status"]["initContainerStatuses"]]
    assert all(status["state"]["terminated"]["exitCode"] == 0 for status in found)
    return sum(status["restartCount"] for status in found)
