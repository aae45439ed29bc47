"""The values of the Helm chart: each is described and used, and a schema refuses any other."""

import importlib.util
import json
import re
import shutil
import subprocess
import sys
from collections.abc import Iterator
from functools import cache
from pathlib import Path
from typing import Any

import pytest
import yaml

from charts import CHART, ENVIRONMENTS, Refused, leaves, rendered
from credenza.settings import Settings
from manifests import ROOT, load
from test_chart import TOGGLES

TEXT = (CHART / "values.yaml").read_text()
VALUES: dict[str, Any] = yaml.safe_load(TEXT)
SCHEMA: dict[str, Any] = json.loads((CHART / "values.schema.json").read_text())
LEAVES = leaves(VALUES)
TEMPLATES = [*CHART.rglob("templates/**/*.yaml"), *CHART.rglob("templates/*.t*")]

Path_ = tuple[str, ...]

_spec = importlib.util.spec_from_file_location("readme", ROOT / "charts/readme.py")
assert _spec is not None
assert _spec.loader is not None
readme = importlib.util.module_from_spec(_spec)
_spec.loader.exec_module(readme)

SECRET = frozenset(
    {"AUTH_TOKEN", "DATABASE_URL", "MIGRATION_DATABASE_URL", "REDIS_URL", "SECRET_KEY"}
)
"""Settings that belong into a Secret."""

OPEN = frozenset(
    {
        *("global", "extraObjects.items", "named", "valueFrom", "labelSelector"),
        *("nodeAffinity", "podAffinity", "podAntiAffinity"),
    }
)
"""What Kubernetes, or a chart above this one, gives its meaning to; `named` is a volume."""

MANAGED: dict[str, Any] = {"managedServices": {"enabled": True}, "replicaCount": 4}
CONTEXTS: dict[str, dict[str, Any]] = {
    "secrets made": {
        **MANAGED,
        **{
            name: {"enabled": True}
            for name in (
                *("backup", "clusterMetrics", "ingress", "logs", "nodeLogs", "pgbouncer"),
                *("prometheusOperator", "tracing"),
            )
        },
        "autoscaling": {"enabled": True, "minReplicas": 4, "requestsPerSecond": 1},
        "secrets": {
            "create": True,
            "app": {"DATABASE_URL": "postgresql://x", "REDIS_URL": "redis://x", "AUTH_TOKEN": "x"},
            "postgres": {"POSTGRES_PASSWORD": "x"},
            "redis": {"REDIS_PASSWORD": "x"},
            "grafana": {"GF_SECURITY_ADMIN_PASSWORD": "x"},
        },
    },
    "on nodes' ports": {
        **MANAGED,
        **{name: {"service": {"type": "NodePort"}} for name in ("prometheus", "grafana")},
        "cloudnativepg": {"enabled": True},
        "postgres": {"enabled": False},
        "service": {"type": "NodePort"},
    },
    "on a load balancer": {"service": {"type": "LoadBalancer"}, "replicaCount": 4},
}
"""Between them, everything is on."""

ONE_BY_ONE: dict[Path_, Any] = {
    ("config", "DRAIN_SECONDS"): 9,
    ("config", "WORKERS"): 2,
    ("pdb", "minAvailable"): 2,
}
"""Values that have a limit; those with few choices are tried one by one, too."""

SWITCHED = (("secrets", "create", "app"), ("autoscaling", "enabled", "requestsPerSecond"))
"""What is refused, not overlooked, where its switch is off."""

OWNERS_OF_PASSWORDS = ("pgbouncer", "cloudnativepg")
"""Where one of them is on, `secrets.files` is refused."""

LISTS: dict[str, str] = {
    "cidrs": '["10.{0}.0.0/16"]',
    "extraEnv": '[{{"name": "X{0}", "value": "y"}}]',
    "extraObjects": '[{{"apiVersion": "v1", "kind": "Secret", "metadata": {{"name": "x{0}"}}}}]',
    "extraVolumeMounts": '[{{"name": "x{0}", "mountPath": "/x"}}]',
    "extraVolumes": '[{{"name": "x{0}", "emptyDir": {{}}}}]',
    "policies": '[{{"type": "Pods", "value": {0}, "periodSeconds": 1}}]',
    "ports": "[{0}]",
    "pullSecrets": '[{{"name": "x{0}"}}]',
    "tolerations": '[{{"key": "x{0}"}}]',
    "topologySpreadConstraints": (
        '[{{"maxSkew": 1, "topologyKey": "x{0}", "whenUnsatisfiable": "ScheduleAnyway"}}]'
    ),
}
"""Lists that the schema takes, with a number to find them by."""

FORMS = (
    "x{}",
    "{}Mi",
    "sha256:{:064}",
    "postgresql://x{}",
    "redis://x{}",
    "{}w",
    "{}h",
    "{}MB",
    "{}mb",
    "{} * * * *",
)
"""Texts of which the schema takes one or the other, with a number to find them by."""


def schema_of(path: Path_) -> dict[str, Any]:
    """Return the schema of a value."""
    found = SCHEMA
    for step in path:
        properties = found.get("properties", {})
        found = properties[step] if step in properties else found["additionalProperties"]
        if "$ref" in found:
            found = SCHEMA["definitions"][found["$ref"].rpartition("/")[2]]
    return found


def other(path: Path_) -> Any:
    """Return another value where there are only a few, else None."""
    return next((each for each in schema_of(path).get("enum", ()) if each != LEAVES[path]), None)


def marked(path: Path_, number: int) -> Any:
    """Return a value that the schema takes, in which a number can be found."""
    schema = schema_of(path)
    if path[-1] in LISTS:
        return json.loads(LISTS[path[-1]].format(number))
    if schema.get("type") == "object":
        name = next(iter(schema.get("properties", ())), None)
        return {name: {f"x{number}": "y"}} if name else {f"x{number}": "y"}
    if "integer" in (schema.get("type"), *(each.get("type") for each in schema.get("anyOf", ()))):
        return 30_000 + number if path[-1] == "nodePort" else number
    pattern = schema.get("pattern", "")
    return next(text for form in FORMS if re.search(pattern, text := form.format(number)))


def nested(path: Path_, value: Any) -> dict[str, Any]:
    """Return a map in which a value stands at a path."""
    return {path[0]: nested(path[1:], value) if path[1:] else value}


def merged(first: Any, second: Any) -> Any:
    """Return nested maps as one; the second wins."""
    if not (isinstance(first, dict) and isinstance(second, dict)):
        return second
    return {
        key: merged(first[key], second[key]) if key in first and key in second else either[key]
        for either in (first, second)
        for key in either
    }


@cache
def made_of(context: str, values: str = "{}") -> str:
    """Return what the chart makes of values, as JSON, in a context."""
    every = merged(CONTEXTS[context], json.loads(values))
    for part, switch, needs_it in SWITCHED:
        if not every.get(part, {}).get(switch):
            every.get(part, {}).pop(needs_it, None)
    if any(every.get(owner, {}).get("enabled") for owner in OWNERS_OF_PASSWORDS):
        every.get("secrets", {}).pop("files", None)
    return rendered("", *(f"{key}={json.dumps(value)}" for key, value in every.items()))


FEW = {path: ONE_BY_ONE.get(path, other(path)) for path in LEAVES}
MANY = [path for path in LEAVES if FEW[path] is None and schema_of(path).get("type") != "boolean"]


@pytest.mark.parametrize("path", [path for path in LEAVES if FEW[path] is not None], ids=".".join)
def test_each_choice_is_used(path: Path_) -> None:
    """Another value of few, alone, changes what the chart makes, where what it is for is on."""
    values = json.dumps(nested(path, FEW[path]))
    assert any(made_of(context, values) != made_of(context) for context in CONTEXTS)


def test_each_toggle_is_used() -> None:
    """What is on or off is turned over by the tests of toggles, but for what needs another one.

    That is the making of Secrets, and the operator's rules, which test_parity.py turns off.
    """
    toggles = {".".join(path) for path in LEAVES if schema_of(path).get("type") == "boolean"}
    assert toggles == {*TOGGLES, "secrets.create", "prometheusOperator.rules"}
    assert "kind: Secret" in made_of("secrets made")
    assert "kind: Secret" not in made_of("on nodes' ports")


def test_each_value_is_used() -> None:
    """Whatever else is given, numbers and texts and lists, is found in what the chart makes."""
    marks = {path: marked(path, 611 + index) for index, path in enumerate(MANY)}
    values: dict[str, Any] = {}
    for path, mark in marks.items():
        values = merged(values, nested(path, mark))
    after = "".join(_searched(made_of(context, json.dumps(values))) for context in CONTEXTS)
    before = "".join(_searched(made_of(context)) for context in CONTEXTS)
    for index, (path, mark) in enumerate(marks.items()):
        form = re.escape(mark) if isinstance(mark, str) else rf"(?<!\d)(30)?{611 + index}(?!\d)"
        assert not re.search(form, before), f"{form} says nothing: begin at another number"
        assert re.search(form, after), path


def _searched(text: str) -> str:
    """Return what the chart makes, but for the dashboard and checksums: they have any number."""
    objects = [each for each in load(text) if each["metadata"]["name"] != "grafana-dashboards"]
    return re.sub(r'"checksum/config": "\w+"', "", json.dumps(objects))


def test_templates_use_values_that_there_are() -> None:
    """A template names no value that values.yaml or the schema does not have."""
    named = {
        tuple(found.split("."))
        for path in TEMPLATES
        for found in re.findall(r"\.Values\.([\w.]+\w)", path.read_text())
    }
    assert len(named) > 50
    for path in named:
        assert schema_of(path), path


@pytest.mark.parametrize("environment", ENVIRONMENTS)
def test_environments_give_values_that_there_are(environment: str) -> None:
    """What an environment changes is in values.yaml."""
    given = leaves(yaml.safe_load((CHART / f"values-{environment}.yaml").read_text()))
    assert {path for path in given if path not in LEAVES} == set()


def test_values_are_described() -> None:
    """Each value has a comment, which begins as a sentence does, and its line in the table."""
    described = {value.path: value for value in readme.values(TEXT)}
    for path in LEAVES:
        above = [".".join(path[: length + 1]) for length in range(len(path))]
        found = [described[name] for name in above if name in described]
        assert found, path
        assert re.match(r"[A-Z`].*[.:*]$", found[-1].comment), path
    assert {value.path for value in described.values() if not value.comment} == set()


def test_schema_leaves_nothing_open() -> None:
    """Every map of the schema names what it may have, but those that are Kubernetes' to know."""
    open_maps = {
        ".".join(path[-2:] if path[-1] == "items" else path[-1:])
        for path, schema in _schemas(SCHEMA)
        if _is_open(schema)
    }
    assert open_maps == OPEN
    assert SCHEMA["$schema"] == "http://json-schema.org/draft-07/schema#"


def _schemas(schema: Any, path: Path_ = ()) -> Iterator[tuple[Path_, dict[str, Any]]]:
    if isinstance(schema, dict):
        yield path, schema
        for key, below in schema.items():
            yield from _schemas(below, (*path, key))


def _is_open(schema: dict[str, Any]) -> bool:
    return schema.get("type") == "object" and schema.get("additionalProperties", True) is True


def test_schema_knows_every_setting() -> None:
    """Each setting that is no secret can be given under `config`, within its bounds."""
    known = SCHEMA["properties"]["config"]["properties"]
    assert set(known) == {name.upper() for name in Settings.model_fields} - SECRET
    for name, setting in Settings.model_json_schema()["properties"].items():
        kinds = [kind for kind in setting.get("anyOf", [setting]) if kind.get("type") != "null"]
        for bound in ("minimum", "maximum", "exclusiveMinimum"):
            if name.upper() not in SECRET and "type" in kinds[0]:
                assert known[name.upper()].get(bound) == kinds[0].get(bound), name


@pytest.mark.parametrize(
    "value",
    [
        "replicaCont=3",
        "image.tga=1",
        "postgres.image.tga=1",
        "config.LOG_LEVLE=1",
        'config.DATABASE_URL="postgresql://x"',
        "resources.requests.cpus=1",
        'replicaCount="3"',
        "replicaCount=0",
        "config.AUTH=false",
        'config.LOG_LEVEL="loud"',
        "config.DATABASE_POOL_SIZE=0",
        'image.digest="sha256:1"',
        'service.type="Nodeport"',
        "service.nodePort=80",
        "managedServices.cidrs=[]",
        'ingress.host=""',
        'extraEnv={"A": "b"}',
        'tolerations=[{"keys": "a"}]',
        "pdb=true",
    ],
)
def test_schema_refuses(value: str) -> None:
    """A typo, a wrong type or a value out of range is refused by the name that it has."""
    with pytest.raises(Refused) as refused:
        rendered("", value)
    said = str(refused.value)
    assert "values don't meet the specifications of the schema" in said
    assert value.partition("=")[0].split(".")[-1] in said


def test_a_chart_above_can_have_this_one() -> None:
    """Helm gives each dependency the map `global`, which is no typo."""
    assert rendered("", 'global={"a": "b"}') == rendered("")


def test_readme_is_what_the_values_say() -> None:
    """What charts/readme.py makes is what is there."""
    assert _generate("--check") == (0, "")


def test_generator_says_what_differs(tmp_path: Path) -> None:
    """A README that was changed by hand, or whose values were, is named."""
    for name in ("README.md", "README.in.md", "values.yaml"):
        shutil.copy(CHART / name, tmp_path)
    values = tmp_path / "values.yaml"
    values.write_text(values.read_text().replace("replicaCount: 2", "replicaCount: 3", 1))
    said = f"{tmp_path}/README.md is not what values.yaml says: run `make docs`\n"
    assert _generate("--check", "--chart", str(tmp_path)) == (1, said)
    assert _generate("--chart", str(tmp_path)) == (0, "")
    assert _generate("--check", "--chart", str(tmp_path)) == (0, "")


def _generate(*arguments: str) -> tuple[int, str]:
    command = [sys.executable, str(ROOT / "charts/readme.py"), *arguments]
    done = subprocess.run(command, capture_output=True, check=False, text=True)
    return done.returncode, done.stderr
