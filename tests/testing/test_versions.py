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
    lines = script.table(tmp_path).splitlines()
    assert lines[0] == "| environment | date | seen | took | with |"
    assert lines[2:] == [
        "| `torch2.15` | 2026-11-28 | 1,901 passed, 2 skipped | 31 min |  |",
        "| `torch2.4` | 2026-11-28 | 1,897 passed, **4 failed**, 2 skipped | 31 min |  |",
    ]


def test_versions_are_those_of_the_environment(script: ModuleType, tmp_path: Path) -> None:
    (tmp_path / "e" / "bin").mkdir(parents=True)
    (tmp_path / "e" / "bin" / "python").symlink_to(sys.executable)
    assert script.versions(tmp_path / "e")["python"] == ".".join(map(str, sys.version_info[:3]))
    assert script.versions(tmp_path / "none") == {}


def test_only_what_stands_between_the_marks_is_written(script: ModuleType, tmp_path: Path) -> None:
    page = tmp_path / "page.md"
    page.write_text("before\n<!-- versions -->\nold\n<!-- end of versions -->\nafter\n")
    left_behind(tmp_path, "types")
    script.main(tmp_path, page)
    text = page.read_text()
    assert text.startswith("before\n<!-- versions -->\n| environment")
    assert text.endswith("|\n<!-- end of versions -->\nafter\n")
    assert "old" not in text


def test_nothing_to_read_is_said(script: ModuleType, tmp_path: Path) -> None:
    with pytest.raises(ValueError, match="run tox"):
        script.table(tmp_path)


def test_the_page_has_the_marks(script: ModuleType) -> None:
    assert f"<!-- {script.NAME} -->" in script.PAGE.read_text()
    assert "--junitxml={envtmpdir}/junit.xml" in (ROOT / "tox.ini").read_text()
