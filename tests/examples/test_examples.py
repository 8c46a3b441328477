"""Examples run as they stand, on what the package ships."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest

EXAMPLES = Path(__file__).parents[2] / "examples"
SCRIPTS = sorted(EXAMPLES.glob("*.py"))
NOTEBOOKS = sorted(EXAMPLES.glob("*.ipynb"))
LIGHT = {"any_network.py", "step_by_step.py"}
"""Those that take seconds; the others prune a detector."""


def test_there_are_five_scripts_and_two_notebooks() -> None:
    assert len(SCRIPTS) == 5
    assert len(NOTEBOOKS) == 2


@pytest.mark.parametrize(
    "script", [pytest.param(s, id=s.name, marks=() if s.name in LIGHT else pytest.mark.pages) for s in SCRIPTS]
)
def test_a_script_runs(script: Path, tmp_path: Path) -> None:
    environment = os.environ | {"YOLO_OFFLINE": "true", "YOLO_CONFIG_DIR": str(tmp_path)}
    done = subprocess.run(  # noqa: S603
        [sys.executable, str(script)],
        cwd=tmp_path,
        env=environment,
        capture_output=True,
        text=True,
        timeout=900,
        check=False,
    )
    assert done.returncode == 0, done.stderr[-2000:]
    assert done.stdout.strip()


@pytest.mark.pages
@pytest.mark.parametrize("notebook", NOTEBOOKS, ids=lambda path: path.name)
def test_a_notebook_runs(notebook: Path, tmp_path: Path) -> None:
    nbformat = pytest.importorskip("nbformat")
    nbclient = pytest.importorskip("nbclient")
    pytest.importorskip("ipykernel")
    content = nbformat.read(notebook, as_version=4)
    assert all(not cell.get("outputs") for cell in content.cells), "outputs are not committed"
    nbclient.NotebookClient(content, timeout=900, resources={"metadata": {"path": str(tmp_path)}}).execute()
    assert any(cell.get("outputs") for cell in content.cells)
