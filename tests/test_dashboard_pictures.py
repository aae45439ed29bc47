"""Pictures of dashboards are of their files, small, and on a page that says what they are."""

import re
import shutil
import subprocess
import sys
from pathlib import Path

import pytest
from PIL import Image

from grafana import DASHBOARDS, panels
from manifests import ROOT
from promtool import RULE_FILES

sys.path.insert(0, str(ROOT / "docs"))  # the script is no package

from units import written

PICTURES = ROOT / "docs/reference/dashboards"
PAGE = (ROOT / "docs/reference/dashboards.md").read_text()


def check(folder: Path) -> str:
    """Return what `make check` says of pictures."""
    command = [sys.executable, str(ROOT / "docs/dashboards.py"), "--check", f"--folder={folder}"]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    assert (done.returncode == 0) == (not done.stderr)
    return done.stderr


def test_pictures_are_of_the_files(tmp_path: Path) -> None:
    """A picture of another dashboard is named, and one that is missing."""
    assert check(PICTURES) == ""
    shutil.copytree(PICTURES, tmp_path, dirs_exist_ok=True)
    shutil.copy(tmp_path / "redis.png", tmp_path / "pods.png")
    (tmp_path / "request.png").unlink()
    assert re.findall(r"(\w+)\.png", check(tmp_path)) == ["pods", "request"]


@pytest.mark.parametrize("name", DASHBOARDS)
def test_pictures_can_be_read(name: str) -> None:
    """Each is less than 200 kB, and wide enough for its text."""
    path = PICTURES / f"{name}.png"
    assert path.stat().st_size < 200_000
    with Image.open(path) as image:
        assert image.width > 1000


@pytest.mark.parametrize("name", DASHBOARDS)
def test_the_page_tells_each_panel(name: str) -> None:
    """It shows the picture, says that it is no screenshot, and has the words of each panel."""
    dashboard = DASHBOARDS[name]
    assert "no screenshots of Grafana" in PAGE
    assert f"](dashboards/{name}.png)" in PAGE
    assert dashboard["description"] in PAGE
    rows = {f"| {panel['title']} | {panel['description']} |" for panel in panels(dashboard)}
    assert {row for row in rows if row not in PAGE} == set()


@pytest.mark.parametrize(
    ("value", "unit", "text"),
    [
        (0.0123, "s", "12.3 ms"),
        (0, "s", "0 s"),
        (75, "s", "1.25 mins"),
        (12.5, "reqps", "12.5 req/s"),
        (1500, "ops", "1.50K ops/s"),
        (0.9993, "percentunit", "99.9%"),
        (1.0, "percentunit", "100%"),
        (2**27, "bytes", "128 MiB"),
        (1234.5, "Bps", "1.23 kB/s"),
        (-2.5, "none", "-2.50"),
        (float("nan"), "s", "nan"),
    ],
)
def test_numbers_are_written_with_their_unit(value: float, unit: str, text: str) -> None:
    """Three digits count, and the step is the largest that the number reaches."""
    assert written(value, unit) == text


def test_units_are_known() -> None:
    """Each unit of a panel can be written."""
    units = {
        panel["fieldConfig"]["defaults"].get("unit")
        for dashboard in DASHBOARDS.values()
        for panel in panels(dashboard)
    } - {None}
    assert all(written(1, unit) for unit in units)


def test_runbooks_lead_to_a_dashboard() -> None:
    """Each runbook about the service and its place names the dashboard to look at first.

    Those about who watches need not: no dashboard shows them.
    """
    observers = RULE_FILES["observers.yml"]["groups"][0]["rules"]
    others = {rule["alert"] for rule in observers if "alert" in rule}
    titles = "|".join(dashboard["title"] for dashboard in DASHBOARDS.values())
    link = re.compile(rf"\[({titles})\]\(\.\./reference/dashboards\.md#[\w-]+\)")
    pages = {
        page.stem: page.read_text()
        for page in (ROOT / "docs/runbooks").glob("*.md")
        if not page.stem.startswith(("Prometheus", "Watchdog")) and page.stem not in others
    }
    assert len(pages) > 20
    assert {name for name, text in pages.items() if not link.search(text)} == set()
