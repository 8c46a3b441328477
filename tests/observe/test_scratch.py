"""What a killed run kept on disk is removed by the next one, and nobody else's."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
from pathlib import Path

import pytest
import torch
from detectors import Detector

from seqprune.engine.batches import Batches
from seqprune.engine.engine import streams_for
from seqprune.engine.modules import ModuleTask
from seqprune.observe.scratch import PREFIX, Scratch, remove_leftovers

pytestmark = pytest.mark.skipif(os.name != "posix", reason="folders are locked on POSIX alone")
KEEPS = """
import sys, time, torch
from seqprune.observe.batch import Batch
from seqprune.observe.shelf import Shelf
none = torch.zeros(0, dtype=torch.int64)
shelf = Shelf(0, False, lambda text: None)
kept = shelf.put({0: torch.rand(1000)}, Batch(torch.zeros(1, 0, 2, 2), none, none))
print(kept.file, flush=True)
time.sleep(300)
"""


@pytest.fixture(autouse=True)
def temporary(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setattr("tempfile.tempdir", str(tmp_path))
    return tmp_path


def test_block_outputs_of_a_killed_process_are_removed_and_of_a_live_one_are_not(temporary: Path) -> None:
    """Half of the free space stayed taken for good."""
    command = [sys.executable, "-c", KEEPS]
    owner = subprocess.Popen(command, stdout=subprocess.PIPE, text=True, env=os.environ | {"TMPDIR": str(temporary)})  # noqa: S603
    assert owner.stdout is not None
    with owner, owner.stdout:
        try:
            file = Path(owner.stdout.readline().strip())
            told: list[str] = []
            remove_leftovers(told.append)
            assert file.is_file()
            assert file.parent.name.startswith(f"{PREFIX}{owner.pid}-")
            assert told == []
        finally:
            owner.send_signal(signal.SIGKILL)
        owner.wait()
    assert file.is_file()
    streams_for(ModuleTask(Detector(), Batches(lambda: [torch.zeros(1, 3, 32, 32)])), Detector(), warn=told.append)
    assert not any(temporary.iterdir())
    assert len(told) == 1
    assert str(file.parent) in told[0]


def test_a_folder_in_use_here_stays(temporary: Path) -> None:
    mine = Scratch()
    remove_leftovers(pytest.fail)
    assert mine.path.is_dir()
    mine.remove()
    assert not any(temporary.iterdir())


def test_what_is_not_ours_stays(temporary: Path) -> None:
    """A link of that name, or a folder that nobody has locked, was made by something else."""
    (temporary / "precious").mkdir()
    (temporary / "precious" / "in-use").write_text("")
    (temporary / f"{PREFIX}1-link").symlink_to(temporary / "precious")
    (temporary / f"{PREFIX}2-empty").mkdir()
    (temporary / f"{PREFIX}3-file").write_text("")
    (temporary / f"{PREFIX}4-linked").mkdir()
    (temporary / f"{PREFIX}4-linked" / "in-use").symlink_to(temporary / "precious" / "in-use")
    before = sorted(temporary.rglob("*"))
    remove_leftovers(pytest.fail)
    assert sorted(temporary.rglob("*")) == before


def test_the_lock_goes_with_the_folder(temporary: Path) -> None:
    for _ in range(3):
        scratch = Scratch()
        torch.save(torch.zeros(1), scratch.path / "0.pt")
        scratch.remove()
    assert not any(temporary.iterdir())
