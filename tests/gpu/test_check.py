"""The script for a GPU runs to its end, on a CPU too: no GPU is at hand to find a typing error on."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest

SCRIPT = Path(__file__).parents[2] / "scripts" / "gpu_check.py"


@pytest.mark.long
def test_it_runs_on_a_cpu_and_writes_what_it_saw(tmp_path: Path) -> None:
    command = [sys.executable, str(SCRIPT), "--device", "cpu", "--images", "8", "--imgsz", "64", "--seconds", "1500"]
    done = subprocess.run(  # noqa: S603
        [*command, "--benchmarks", "--out", str(tmp_path)], capture_output=True, text=True, timeout=1500, check=False
    )
    logs = {path.name: path.read_text() for path in tmp_path.glob("*.log")}
    assert done.returncode == 0, (done.stderr, logs)
    summary = (tmp_path / "summary.md").read_text()
    assert "| tests | done |" in summary
    assert "8 images of 64 px" in summary
    assert "refit" in (tmp_path / "profile-python.txt").read_text()


def test_a_step_that_takes_too_long_is_ended_and_said(tmp_path: Path) -> None:
    sys.path.insert(0, str(SCRIPT.parent))
    try:
        import gpu_check
    finally:
        sys.path.pop(0)
    late = gpu_check.step("late", ["-c", "import time; time.sleep(60)"], 1, tmp_path)
    assert late.code is None
    assert "not finished in time" in late.line()
    wrong = gpu_check.step("wrong", ["-c", "raise SystemExit(3)"], 60, tmp_path)
    assert (wrong.code, wrong.fine) == (3, False)
