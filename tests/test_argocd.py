"""Argo CD's files: what the three environments get, and that the project allows that and no more.

Schemas of Argo CD are in no package that can be had without Go; `drills/test_argocd.py` applies the
files to the real API.
"""

import re
import shutil
import subprocess
from fnmatch import fnmatch
from pathlib import Path
from typing import Any

import pytest
import yaml

from examples import blocks
from manifests import OVERLAYS, ROOT, Object, containers, kind, pods, render

PAGE = ROOT / "docs/how-to/argocd.md"
LOCAL = "https://kubernetes.default.svc"
CLUSTER_WIDE = {("", "Namespace")}
MADE = {("apps", "ReplicaSet"), ("", "Pod")}
"""What a Deployment makes; Argo CD shows it only where the project lists it."""


def read(name: str) -> Object:
    """Return the one object of a file of argocd/."""
    found: Object = yaml.safe_load((ROOT / "argocd" / f"{name}.yaml").read_text())
    assert found["metadata"]["namespace"] == "argocd"
    return found


PROJECT, APPLICATION, SET = (read(name) for name in ("project", "application", "applicationset"))


def generated(applications: Object) -> dict[str, Object]:
    """Return what the ApplicationSet makes of the folders that there are, as Argo CD does."""
    (generator,) = applications["spec"]["generators"]
    patterns = [each["path"] for each in generator["git"]["directories"]]
    paths = [path.relative_to(ROOT) for path in ROOT.glob("k8s/*/*") if path.is_dir()]
    found = [path for path in paths if any(fnmatch(str(path), each) for each in patterns)]
    return {path.name: _filled(applications["spec"]["template"], path) for path in found}


def _filled(template: Object, path: Path) -> Object:
    text = yaml.safe_dump(template)
    text = text.replace("{{.path.basename}}", path.name).replace("{{.path.path}}", str(path))
    assert "{{" not in text, "a variable that the generator of folders does not have"
    filled: Object = yaml.safe_load(text)
    return filled


ENVIRONMENTS = generated(SET)
REVISION = APPLICATION["spec"]["source"]["targetRevision"]


def kinds(objects: list[Object]) -> set[tuple[str, str]]:
    """Return the API groups and kinds of objects."""
    return {(each["apiVersion"].rpartition("/")[0], each["kind"]) for each in objects}


def listed(where: str) -> set[tuple[str, str]]:
    """Return the API groups and kinds of a list of the project."""
    return {(each["group"], each["kind"]) for each in PROJECT["spec"][where]}


def test_application_set_makes_what_there_is() -> None:
    """There is one Application for each overlay: development, staging and production."""
    assert sorted(ENVIRONMENTS) == OVERLAYS == ["dev", "prod", "staging"]


@pytest.mark.parametrize("name", OVERLAYS)
def test_environment_is_its_overlay(name: str) -> None:
    """Each Application puts its own overlay into the namespace that the overlay names."""
    made = ENVIRONMENTS[name]
    spec = made["spec"]
    assert made["metadata"]["name"] == f"credenza-{name}"
    source = {key: value for key, value in spec["source"].items() if key != "repoURL"}
    # A part `kustomize` there would keep Argo CD from asking a plugin, which decrypts Secrets.
    assert source == {"path": f"k8s/overlays/{name}", "targetRevision": REVISION}
    assert spec["destination"] == {"server": LOCAL, "namespace": f"credenza-{name}"}
    places = {each["metadata"].get("namespace") for each in render(name)} - {None}
    assert places == {f"credenza-{name}"}


def test_application_is_what_the_set_makes() -> None:
    """The file for one environment differs in nothing from what the ApplicationSet makes of it."""
    alone = {key: value for key, value in APPLICATION["metadata"].items() if key != "namespace"}
    assert {"metadata": alone, "spec": APPLICATION["spec"]} == ENVIRONMENTS["dev"]


def test_environments_sync_by_themselves() -> None:
    """Commits are applied, what is gone is removed, drift undone, and a failure tried again."""
    policy = APPLICATION["spec"]["syncPolicy"]
    assert policy["automated"] == {"prune": True, "selfHeal": True}
    assert 0 < policy["retry"]["limit"] <= 5, "a newer commit waits until the last one is given up"
    assert policy["retry"]["backoff"]["factor"] > 1
    assert set(policy["syncOptions"]) == {
        "CreateNamespace=false",
        "ServerSideApply=true",
        "RespectIgnoreDifferences=true",
        "PruneLast=true",
    }
    compare = APPLICATION["metadata"]["annotations"]["argocd.argoproj.io/compare-options"]
    assert compare == "ServerSideDiff=true"


def test_replicas_belong_to_the_autoscaler() -> None:
    """Nothing is ignored but the number that an HPA sets, on the Deployment that it names."""
    (ignored,) = APPLICATION["spec"]["ignoreDifferences"]
    assert ignored.pop("jsonPointers") == ["/spec/replicas"]
    targets = [
        each["spec"]["scaleTargetRef"]
        for name in OVERLAYS
        for each in render(name)
        if each["kind"] == "HorizontalPodAutoscaler"
    ]
    assert targets, "no overlay has an HPA"
    for target in targets:
        group = target["apiVersion"].rpartition("/")[0]
        assert ignored == {"group": group, "kind": target["kind"], "name": target["name"]}


def test_no_commit_deletes_a_namespace() -> None:
    """A namespace, and with it each volume, stays whatever happens to Git or the Application."""
    for name in OVERLAYS:
        (found,) = kind(render(name), "Namespace")
        options = found["metadata"]["annotations"]["argocd.argoproj.io/sync-options"]
        assert options == "Prune=false,Delete=false"
    assert "finalizers" not in APPLICATION["metadata"]
    assert SET["spec"]["syncPolicy"]["preserveResourcesOnDeletion"] is True


def test_a_missing_variable_is_an_error() -> None:
    """A variable that is not there makes no Application, and the project is fixed."""
    assert SET["spec"]["goTemplate"] is True
    assert SET["spec"]["goTemplateOptions"] == ["missingkey=error"]
    assert SET["spec"]["template"]["spec"]["project"] == PROJECT["metadata"]["name"]


def test_project_allows_what_the_overlays_have() -> None:
    """The project lists each kind that an overlay has, what a Deployment makes, and no other."""
    rendered = {each for name in OVERLAYS for each in kinds(render(name))}
    assert listed("clusterResourceWhitelist") == CLUSTER_WIDE
    assert listed("namespaceResourceWhitelist") == (rendered - CLUSTER_WIDE) | MADE


def test_project_allows_one_repository_and_three_namespaces() -> None:
    """The project names its repository and namespaces one by one, and gives nothing else."""
    spec = PROJECT["spec"]
    assert spec["destinations"] == [
        {"server": LOCAL, "namespace": f"credenza-{name}"} for name in ("dev", "staging", "prod")
    ]
    assert len(spec["sourceRepos"]) == 1
    assert not re.search(r"[*?\[]", spec["sourceRepos"][0]), "a pattern allows other repositories"
    assert set(spec) == {
        "description",
        "sourceRepos",
        "destinations",
        "clusterResourceWhitelist",
        "namespaceResourceWhitelist",
    }


def test_one_repository_everywhere() -> None:
    """All files name one repository and one revision, the project's."""
    found = [*_values(SET, "repoURL"), *_values(APPLICATION, "repoURL")]
    assert len(found) == 3
    assert set(found) == set(PROJECT["spec"]["sourceRepos"])
    revisions = [*_values(SET, "revision"), *_values(SET, "targetRevision")]
    assert set(revisions) == {REVISION}


def _values(found: Any, key: str) -> list[Any]:
    """Return what stands under a key, at any depth."""
    inner = found.values() if isinstance(found, dict) else found if isinstance(found, list) else ()
    own = [found[key]] if isinstance(found, dict) and key in found else []
    return own + [value for each in inner for value in _values(each, key)]


def test_page_sets_the_repository(tmp_path: Path) -> None:
    """What the page says puts a reader's address wherever a repository is named."""
    shutil.copytree(ROOT / "argocd", tmp_path / "argocd")
    _run("repository=", tmp_path)
    texts = [path.read_text() for path in (tmp_path / "argocd").iterdir()]
    assert sum(text.count("https://git.example.org/platform/credenza.git") for text in texts) == 4
    assert "git.example.com" not in "".join(texts)


def test_page_promotes(tmp_path: Path) -> None:
    """What the page says puts another image into staging and into production, and only there."""
    for part in ("k8s", "monitoring"):
        shutil.copytree(ROOT / part, tmp_path / part)
    before = {name: images(render(name)) for name in OVERLAYS}
    _run("newTag: sha-4f2a91c", tmp_path)
    _run("newTag: v0.2.0", tmp_path)
    after = {name: images(render(name, tmp_path)) for name in OVERLAYS}
    changed = {name: after[name] - before[name] for name in OVERLAYS}
    digest = "9f86d081884c7d659a2feaa0c55ad015a3bf4f1b2b0b822cd15d6c15b0f00a08"
    assert changed == {
        "dev": set(),
        "staging": {"registry.example.com/credenza:sha-4f2a91c"},
        "prod": {f"registry.example.com/credenza:v0.2.0@sha256:{digest}"},
    }


def images(objects: list[Object]) -> set[str]:
    """Return the images that pods run."""
    return {each["image"] for _, made in pods(objects) for each in containers(made["spec"])}


def _run(part: str, folder: Path) -> None:
    """Run the block of the page that has a part, in a folder."""
    (block,) = [each.text for each in blocks(PAGE.read_text()) if part in each.text]
    subprocess.run(["bash", "-euo", "pipefail", "-c", block], cwd=folder, check=True)


def test_one_version_of_argo_cd() -> None:
    """deploy.sh, the drill and the page install the same version."""
    files = ("scripts/deploy.sh", "drills/argo.py", "docs/how-to/argocd.md")
    texts = [(ROOT / name).read_text() for name in files]
    found = [set(re.findall(r"\bv3\.\d+\.\d+\b", text)) for text in texts]
    assert found == [{"v3.1.9"}] * len(files)
