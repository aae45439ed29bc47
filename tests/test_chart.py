"""The Helm chart, without a cluster: it renders what is valid and safe, or says what is wrong.

tests/test_parity.py holds it against k8s/; tests/test_chart_values.py looks at its values.
"""

import json
import os
import subprocess
import sys
import tarfile
from pathlib import Path
from typing import Any

import pytest
import yaml

import credenza
import manifests
from charts import CHART, ENVIRONMENTS, Refused, helm, is_hook, rendered, template
from examples import blocks
from manifests import ANYONE, ROOT, Object, admitted, one, title
from service import Running
from test_platform import faults, references, valid

TOGGLES = {
    "alertmanager.enabled": True,
    "autoscaling.enabled": False,
    "backup.enabled": False,
    "cloudnativepg.enabled": False,
    "clusterMetrics.enabled": False,
    "grafana.enabled": True,
    "ingress.enabled": False,
    "kubeletMetrics.enabled": False,
    "logs.enabled": False,
    "managedServices.enabled": False,
    "networkPolicy.enabled": True,
    "nodeLogs.enabled": False,
    "pdb.enabled": True,
    "pgbouncer.enabled": False,
    "postgres.enabled": True,
    "prometheus.enabled": True,
    "prometheusOperator.enabled": False,
    "redis.enabled": True,
    "tracing.enabled": False,
}
"""What can be turned on and off, and how it is."""

INTERACTING = (
    ("alertmanager.enabled", "networkPolicy.enabled"),
    ("alertmanager.enabled", "prometheus.enabled"),
    ("autoscaling.enabled", "pdb.enabled"),
    ("autoscaling.enabled", "prometheus.enabled"),
    ("backup.enabled", "managedServices.enabled"),
    ("backup.enabled", "networkPolicy.enabled"),
    ("backup.enabled", "pgbouncer.enabled"),
    ("cloudnativepg.enabled", "networkPolicy.enabled"),
    ("cloudnativepg.enabled", "postgres.enabled"),
    ("clusterMetrics.enabled", "networkPolicy.enabled"),
    ("clusterMetrics.enabled", "prometheus.enabled"),
    ("grafana.enabled", "prometheus.enabled"),
    ("grafana.enabled", "logs.enabled"),
    ("grafana.enabled", "tracing.enabled"),
    ("ingress.enabled", "networkPolicy.enabled"),
    ("kubeletMetrics.enabled", "networkPolicy.enabled"),
    ("kubeletMetrics.enabled", "prometheus.enabled"),
    ("logs.enabled", "networkPolicy.enabled"),
    ("logs.enabled", "nodeLogs.enabled"),
    ("logs.enabled", "prometheus.enabled"),
    ("logs.enabled", "tracing.enabled"),
    ("managedServices.enabled", "networkPolicy.enabled"),
    ("managedServices.enabled", "pgbouncer.enabled"),
    ("managedServices.enabled", "postgres.enabled"),
    ("managedServices.enabled", "redis.enabled"),
    ("networkPolicy.enabled", "pgbouncer.enabled"),
    ("networkPolicy.enabled", "postgres.enabled"),
    ("networkPolicy.enabled", "prometheusOperator.enabled"),
    ("networkPolicy.enabled", "redis.enabled"),
    ("networkPolicy.enabled", "tracing.enabled"),
    ("pgbouncer.enabled", "tracing.enabled"),
    ("postgres.enabled", "redis.enabled"),
    ("prometheus.enabled", "tracing.enabled"),
)
REFUSED = {
    ("cloudnativepg.enabled",): "cloudnativepg.enabled and postgres.enabled are two databases",
    ("nodeLogs.enabled",): "nodeLogs.enabled needs logs.enabled",
    ("postgres.enabled",): "no policy lets the service reach a database",
    ("redis.enabled",): "no policy lets the service reach Redis",
    ("postgres.enabled", "redis.enabled"): "no policy lets the service reach a database",
    ("cloudnativepg.enabled", "networkPolicy.enabled"): "are two databases",
}
"""Toggles that are turned over together, and the refusal."""

PUBLISHED = "has a password that is published"
SECRETS = {
    "secrets.app.DATABASE_URL": "postgresql://devops:{}@postgres:5432/credenza",
    "secrets.app.MIGRATION_DATABASE_URL": "postgresql://devops:{}@postgres:5432/credenza",
    "secrets.app.REDIS_URL": "redis://:{}@redis:6379/0",
    "secrets.app.AUTH_TOKEN": "{}",
    "secrets.app.SECRET_KEY": "{}",
    "secrets.postgres.POSTGRES_PASSWORD": "{}",
    "secrets.redis.REDIS_PASSWORD": "{}",
    "secrets.grafana.GF_SECURITY_ADMIN_PASSWORD": "{}",
}
OPTIONAL = frozenset({"secrets.app.MIGRATION_DATABASE_URL", "secrets.app.SECRET_KEY"})
FILES = 'secrets.files="credenza-passwords"'
CONTRADICTIONS = {
    "pgbouncer.enabled contradict": ("cloudnativepg.enabled=true", "pgbouncer.enabled=true"),
    "backup.enabled contradict": ("cloudnativepg.enabled=true", "backup.enabled=true"),
    "secrets.files and pgbouncer.enabled contradict": (FILES, "pgbouncer.enabled=true"),
    "secrets.files and cloudnativepg.enabled contradict": (FILES, "cloudnativepg.enabled=true"),
    "pgbouncer.host is postgres": ("pgbouncer.enabled=true",),
    "no policy lets the service reach Redis": (
        "cloudnativepg.enabled=true",
        "managedServices.enabled=false",
    ),
    "autoscaling.maxReplicas is less": ("autoscaling.maxReplicas=1",),
    "needs resources.requests.cpu": ("resources.requests.cpu=null",),
    "autoscaling.requestsPerSecond says nothing": (
        "autoscaling.enabled=false",
        "autoscaling.requestsPerSecond=100",
    ),
    "pdb.minAvailable (2) is not less than the replicas (2)": ("pdb.minAvailable=2",),
    "pdb.minAvailable (1) is not less than the replicas (1)": (
        "autoscaling.enabled=false",
        "replicaCount=1",
    ),
    "config.METRICS_PORT is the same as config.PORT": ("config.METRICS_PORT=8000",),
    "secrets.app.AUTH_TOKEN says nothing": ('secrets.app.AUTH_TOKEN="x"',),
}
"""What production's chart says of values that cannot be meant together."""

_valid: set[str] = set()


def check(objects: list[Object]) -> None:
    """Hold objects, and the pods they make, against the rules; each different one once."""
    assert faults(objects) == []
    for found in objects:
        text = json.dumps(found, sort_keys=True)
        if text not in _valid:
            valid(found)
            _valid.add(text)


def _turned(*names: str) -> list[str]:
    return [f"{name}={json.dumps(not TOGGLES[name])}" for name in names]


def test_version_is_the_code_s() -> None:
    """The chart and what it installs have the version of the code."""
    chart = yaml.safe_load((CHART / "Chart.yaml").read_text())
    assert {chart["version"], chart["appVersion"]} == {credenza.__version__}
    assert "dependencies" not in chart


@pytest.mark.parametrize("environment", ENVIRONMENTS)
def test_lint_finds_nothing(environment: str) -> None:
    """`helm lint --strict` passes with the values of each environment."""
    said = helm("lint", "--strict", CHART, f"--values={CHART}/values-{environment}.yaml")
    assert "0 chart(s) failed" in said


@pytest.mark.parametrize("names", [(), *((name,) for name in TOGGLES), *INTERACTING], ids="+".join)
def test_toggles(names: tuple[str, ...]) -> None:
    """Toggles turned over, alone or where they interact, render what is valid, or are refused."""
    if names in REFUSED:
        with pytest.raises(Refused, match=REFUSED[names]):
            rendered("", *_turned(*names))
        return
    objects = template("", *_turned(*names))
    assert not names or objects != template("")
    check(objects)


@pytest.mark.parametrize(
    "values",
    [
        ('service.type="NodePort"', 'grafana.service.type="LoadBalancer"'),
        ('service.type="LoadBalancer"', 'service.annotations={"a.example.com/b": "c"}'),
        ("config.PORT=9000", "config.METRICS_PORT=9001", "config.DRAIN_SECONDS=30"),
        ('image.pullSecrets=[{"name": "registry"}]', "backup.enabled=true"),
        (
            'extraEnv=[{"name": "DATABASE_PASSWORD_FILE", "value": "/secrets/password"}]',
            'extraVolumes=[{"name": "secrets", "secret": {"secretName": "rotated"}}]',
            'extraVolumeMounts=[{"name": "secrets", "mountPath": "/secrets"}]',
        ),
        ('nodeSelector={"a": "b"}', "affinity={}", "tolerations=[]"),
        ('podAnnotations={"a.example.com/b": "c"}', "topologySpreadConstraints=[]"),
    ],
)
def test_other_values(values: tuple[str, ...]) -> None:
    """Values that are passed on render what is valid, in each container that they are for."""
    check(template("", *values))


@pytest.mark.parametrize("said", CONTRADICTIONS)
def test_contradictions_are_refused(said: str) -> None:
    """What cannot be meant is refused with the names of the values."""
    with pytest.raises(Refused) as refused:
        rendered("prod", *CONTRADICTIONS[said])
    assert said in str(refused.value)


@pytest.mark.parametrize("name", SECRETS)
def test_published_passwords_are_refused(name: str) -> None:
    """A password of the development manifests is refused in production, in each Secret."""
    given = {other: form.format("a-good-one") for other, form in SECRETS.items()}
    good = [f"{other}={json.dumps(value)}" for other, value in given.items()]
    assert len(manifests.kind(template("", "secrets.create=true", *good), "Secret")) == 4
    bad = f"{name}={json.dumps(SECRETS[name].format('dev-only-x'))}"
    with pytest.raises(Refused, match=f"{name} {PUBLISHED}.*ENVIRONMENT is production"):
        rendered("", "secrets.create=true", *good, bad)


@pytest.mark.parametrize("name", [name for name in SECRETS if name not in OPTIONAL])
def test_missing_secrets_are_refused(name: str) -> None:
    """A Secret that the chart would make without a password that something needs is refused."""
    given = [f"{other}={json.dumps(form.format('good'))}" for other, form in SECRETS.items()]
    with pytest.raises(Refused, match=f"{name} is needed where secrets.create is on"):
        rendered("", "secrets.create=true", *given, f'{name}=""')


def test_files_are_of_the_secret_that_is_named() -> None:
    """Whatever takes a password from `secrets.files` takes it from the Secret of that name."""
    objects = template("staging", "backup.enabled=true", 'secrets.files="ours"')
    users = {
        title(each): {key for name, key in references([each], "Secret") if name == "ours"}
        for each in objects
    }
    assert {name: keys for name, keys in users.items() if keys} == {
        "Deployment/credenza": {None},
        "CronJob/backup": {"DATABASE_PASSWORD"},
        "CronJob/restore": {"DATABASE_PASSWORD"},
        "Pod/credenza-test": {"AUTH_TOKEN"},
    }


def test_token_may_come_as_a_file() -> None:
    """With `secrets.files` the token is not asked for twice, and `helm test` takes that one."""
    given = [f"{other}={json.dumps(form.format('good'))}" for other, form in SECRETS.items()]
    objects = template("", "secrets.create=true", *given, 'secrets.app.AUTH_TOKEN=""', FILES)
    check(objects)
    pod = one(objects, "Pod", "credenza-test")
    assert set(references([pod], "Secret")) == {("credenza-passwords", "AUTH_TOKEN")}


@pytest.mark.parametrize("environment", ["staging", "prod", "Dev"])
def test_published_passwords_are_for_development(environment: str) -> None:
    """Any other environment refuses them, also in a variable; development takes them."""
    elsewhere = f'config.ENVIRONMENT="{environment}"'
    with pytest.raises(Refused, match=PUBLISHED):
        rendered("dev", elsewhere)
    extra = 'extraEnv=[{"name": "AUTH_TOKEN", "value": "dev-only-token"}]'
    with pytest.raises(Refused, match=f"AUTH_TOKEN {PUBLISHED}"):
        rendered("", elsewhere, extra)
    assert template("dev", 'config.ENVIRONMENT="development"', extra)


@pytest.mark.parametrize(
    ("workload", "value"),
    [
        ("Deployment/credenza", "config.QUERY_TIMEOUT=7"),
        ("Deployment/credenza", 'secrets.app.AUTH_TOKEN="another"'),
        ("Deployment/pgbouncer", 'pgbouncer.host="db.example.com"'),
    ],
)
def test_changed_settings_make_new_pods(workload: str, value: str) -> None:
    """The pods of what reads a changed setting are other ones, and no others are."""
    before, after = (
        {
            title(owner): made["metadata"].get("annotations")
            for owner, made in manifests.pods(template("dev", "pgbouncer.enabled=true", *values))
        }
        for values in ((), (value,))
    )
    assert [name for name in before if before[name] != after[name]] == [workload]


@pytest.mark.parametrize("service", ["NodePort", "LoadBalancer"])
@pytest.mark.parametrize(("part", "other"), [("prometheus", "grafana"), ("grafana", "prometheus")])
def test_policies_open_what_a_service_opens(part: str, other: str, service: str) -> None:
    """Prometheus or Grafana takes any source where its own Service is open to the outside."""
    closed, opened = template(), template("", f'{part}.service.type="{service}"')
    assert ANYONE not in admitted(closed, part)
    assert admitted(opened, part) == [ANYONE]
    assert admitted(opened, other) == admitted(closed, other)


def test_test_hooks_keep_the_rules() -> None:
    """`helm test` is one restricted pod, with a way to the service and the token, made by hooks."""
    hooks = {title(each): each for each in template("staging") if is_hook(each)}
    assert set(hooks) == {"Pod/credenza-test", "NetworkPolicy/credenza-test"}
    pod, policy = hooks["Pod/credenza-test"], hooks["NetworkPolicy/credenza-test"]
    check([pod, policy])
    assert set(references([pod], "Secret")) == {("app-secret", "AUTH_TOKEN")}
    assert manifests.selected([pod], policy["spec"]["podSelector"])
    (rule,) = policy["spec"]["egress"]
    (peer,) = rule["to"]
    (service,) = manifests.selected(template("staging"), peer["podSelector"])
    assert {port["port"] for port in rule["ports"]} <= manifests.ports(service)
    weights = [
        int(each["metadata"]["annotations"]["helm.sh/hook-weight"]) for each in (policy, pod)
    ]
    assert weights == sorted(set(weights)), "the way has to be there before the pod"


def test_what_helm_test_runs(service: Running) -> None:
    """The pod's script passes on a real service, and fails where a document cannot be stored."""
    container: Any = one(template("dev"), "Pod", "credenza-test")["spec"]["containers"][0]
    command = [sys.executable, *container["command"][1:]]

    def run(url: str) -> subprocess.CompletedProcess[str]:
        environment = {"URL": url}
        return subprocess.run(
            command, env=environment, capture_output=True, text=True, check=False, timeout=60
        )

    done = run(service.url)
    assert done.returncode == 0, done.stderr
    assert [line.split()[0] for line in done.stdout.splitlines()] == [
        "POST",
        "GET",
        "DELETE",
        "GET",
    ]
    failed = run(f"{service.url}/nothing")
    assert failed.returncode == 1
    assert "201 was expected" in failed.stderr


def test_package_is_the_folder(tmp_path: Path) -> None:
    """A package, in which links are files, makes what the folder makes."""
    helm("package", CHART, f"--destination={tmp_path}")
    (package,) = tmp_path.iterdir()
    with tarfile.open(package) as files:
        assert all(member.isfile() for member in files)
        assert not [name for name in files.getnames() if "grafana" in name and name[-3:] == ".py"]
        files.extractall(tmp_path, filter="data")
    everything = tuple(
        f"{name}.enabled=true"
        for name in ("backup", "clusterMetrics", "kubeletMetrics", "pgbouncer")
    )
    packed = template("staging", *everything, chart=tmp_path / "credenza")
    assert packed == template("staging", *everything)


@pytest.mark.parametrize("number", [0, 1])
def test_how_to_page(number: int, tmp_path: Path) -> None:
    """What docs/how-to/helm.md shows without a cluster runs from the repository's folder."""
    page = (ROOT / "docs/how-to/helm.md").read_text()
    found = [block for block in blocks(page) if "tests/test_chart.py" in block.reason]
    assert len(found) == 2
    done = subprocess.run(
        ["bash", "-euo", "pipefail", "-c", found[number].text],
        cwd=ROOT,
        env={
            "HOME": str(tmp_path),
            "TMPDIR": str(tmp_path),
            "PATH": f"{Path(manifests.program('helm')).parent}:{os.environ['PATH']}",
        },
        capture_output=True,
        text=True,
        check=False,
        timeout=60,
    )
    assert done.returncode == 0, done.stderr
    assert "kind: Deployment" in done.stdout


def test_files_are_those_of_the_manifests() -> None:
    """The chart has no copy of a file that k8s/ uses: a link leads to it."""
    links = {
        "files/monitoring": "monitoring",
        "files/backup/backup.sh": "k8s/components/backup/backup.sh",
        "files/backup/restore.sh": "k8s/components/backup/restore.sh",
        "files/pgbouncer/pgbouncer.ini": "k8s/components/pgbouncer/pgbouncer.ini",
        "files/scrape/scrape-cluster.yml": "k8s/components/cluster-metrics/scrape-cluster.yml",
        "files/scrape/scrape-kubelet.yml": "k8s/components/kubelet-metrics/scrape-kubelet.yml",
        "files/scrape/scrape-node-logs.yml": "k8s/components/logs/scrape-node-logs.yml",
    }
    found = {
        str(path.relative_to(CHART)): str(path.resolve().relative_to(ROOT))
        for path in CHART.rglob("*")
        if path.is_symlink()
    }
    assert found == links


def test_prometheus_knows_alertmanager_where_it_is() -> None:
    """Without Alertmanager Prometheus has no policy and no address for it, and all else stays."""
    on, off = (
        one(template("", f"alertmanager.enabled={value}"), "ConfigMap", "prometheus-config")
        for value in ("true", "false")
    )
    ours, theirs = (yaml.safe_load(each["data"]["prometheus.yml"]) for each in (on, off))
    assert ours.pop("alerting")["alertmanagers"] == [
        {"static_configs": [{"targets": ["alertmanager:9093"]}]}
    ]
    assert ours == theirs
    names = {title(each) for each in template("", "alertmanager.enabled=false")}
    assert not [name for name in names if "alertmanager" in name]


@pytest.mark.parametrize(
    ("environment", "values", "said"),
    [
        ("prod", (), "https://credenza.example.com"),
        ("prod", (), "image.digest is all zeros"),
        ("prod", (), "must exist, or no pod starts: app-secret, grafana-secret\n"),
        ("prod", (), "get secret app-secret --output jsonpath='{.data.AUTH_TOKEN}'"),
        ("prod", (FILES,), "app-secret, grafana-secret, credenza-passwords\n"),
        ("prod", (FILES,), "get secret credenza-passwords --output jsonpath='{.data.AUTH_TOKEN}'"),
        ("dev", (FILES,), "must exist, or no pod starts: credenza-passwords\n"),
        ("prod", (), "port-forward service/grafana 3000"),
        ("prod", (), "port-forward service/prometheus 9090"),
        ("prod", (), "port-forward service/alertmanager 9093"),
        ("prod", (), "they are sent nowhere without the Secret alertmanager-secret"),
        ("prod", ("tracing.enabled=true",), "port-forward service/jaeger 16686"),
        (
            "prod",
            ("logs.enabled=true", "nodeLogs.enabled=true"),
            "the namespace default-logs must let pods see folders of the node",
        ),
        ("dev", (), "http://NODE:30080"),
        ("dev", (), "None: who reaches the service may read and write."),
        ("dev", ("service.nodePort=0",), "{.spec.ports[0].nodePort}"),
        ("dev", ('service.type="LoadBalancer"',), "{.status.loadBalancer.ingress[0]}"),
        ("dev", ('service.type="ClusterIP"',), "port-forward service/credenza 8000"),
    ],
)
def test_notes(environment: str, values: tuple[str, ...], said: str) -> None:
    """After the installation it says where the service is, what the token is, what is missing."""
    files = f"--values={CHART}/values-{environment}.yaml"
    over = [f"--set-json={value}" for value in values]
    notes = helm("install", "credenza", CHART, "--dry-run=client", files, *over)
    assert said in notes.partition("NOTES:")[2]
