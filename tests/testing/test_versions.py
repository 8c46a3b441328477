"""The table of versions is what tox left behind."""

from __future__ import annotations

import importlib.util
import sys
from pathlib import Path
from types import ModuleType

import pytest

ROOT = Path(__file__).parents[2]
JUNIT = """<?xml version="1.0"?><testsuites><testsuite name="pytest" errors="{errors}" failures="{failures}" skipped="2"
tests="1903" time="1830.5" timestamp="2026-11-28T20:00:00.1+00:00"/></testsuites>"""


@pytest.fixture(scope="module")
def script() -> ModuleType:
    spec = importlib.util.spec_from_file_location("versions_script", ROOT / "scripts" / "versions.py")
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


def left_behind(folder: Path, name: str, failures: int = 0, errors: int = 0) -> None:
    (folder / name / "tmp").mkdir(parents=True)
    (folder / name / "tmp" / "junit.xml").write_text(JUNIT.format(failures=failures, errors=errors))


def test_counts_and_dates_come_from_the_files(script: ModuleType, tmp_path: Path) -> None:
    left_behind(tmp_path, "torch2.4", failures=3, errors=1)
    left_behind(tmp_path, "torch2.15")
    lines = script.table(tmp_path, ["torch2.4", "torch2.15"]).splitlines()
    assert lines[0] == "| environment | date | seen | took | with |"
    assert lines[2:] == [
        "| `torch2.4` | 2026-11-28 | 1,897 passed, **4 failed**, 2 skipped | 31 min |  |",
        "| `torch2.15` | 2026-11-28 | 1,901 passed, 2 skipped | 31 min |  |",
    ]


def test_what_was_not_run_again_keeps_its_row_and_what_tox_does_not_know_goes(
    script: ModuleType, tmp_path: Path
) -> None:
    row = "| `a` | 2026-01-02 | 3 passed | 1 min | x 1 |"
    page = f"<!-- versions -->\n{row}\n| `gone` | | | | |\n<!-- end of versions -->"
    left_behind(tmp_path, "b")
    lines = script.table(tmp_path, ["a", "b", "c"], page).splitlines()[2:]
    assert lines[0] == row
    assert lines[1].startswith("| `b` | 2026-11-28 | 1,901 passed")
    assert lines[2] == "| `c` |  | not run |  |  |"


def test_environments_are_those_of_tox_that_leave_a_file(script: ModuleType) -> None:
    found = script.environments(ROOT / "tox.ini")
    assert {"py310-torch2.4", "py313-torch2.15", "regression", "architectures"} <= {*found}
    assert not {"lint", "types", "benchmark"} & {*found}


def test_versions_are_those_of_the_environment(script: ModuleType, tmp_path: Path) -> None:
    (tmp_path / "e" / "bin").mkdir(parents=True)
    (tmp_path / "e" / "bin" / "python").symlink_to(sys.executable)
    assert script.versions(tmp_path / "e")["python"] == ".".join(map(str, sys.version_info[:3]))
    assert script.versions(tmp_path / "none") == {}


def test_only_what_stands_between_the_marks_is_written(script: ModuleType, tmp_path: Path) -> None:
    page = tmp_path / "page.md"
    page.write_text("before\n<!-- versions -->\nold\n<!-- end of versions -->\nafter\n")
    left_behind(tmp_path, "regression")
    script.main(tmp_path, page)
    text = page.read_text()
    assert text.startswith("before\n<!-- versions -->\n| environment")
    assert text.endswith("|\n<!-- end of versions -->\nafter\n")
    assert "old" not in text


def test_nothing_to_read_is_said(script: ModuleType, tmp_path: Path) -> None:
    with pytest.raises(ValueError, match="run tox"):
        script.table(tmp_path, ["lint"])


def test_the_page_has_the_marks(script: ModuleType) -> None:
    assert f"<!-- {script.NAME} -->" in script.PAGE.read_text()
    assert "--junitxml={envtmpdir}/junit.xml" in (ROOT / "tox.ini").read_text()
