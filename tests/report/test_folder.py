"""What is said where a run's folder takes no files."""

from __future__ import annotations

from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
from torch import nn

from seqprune.errors import InputError, SeqPruneError
from seqprune.report.result import RunFolder


def test_a_full_disk_is_told_once(tmp_path: Path) -> None:
    """It was wrapped: "cannot be written (…: cannot be written (…); check the folder); check its disk"."""

    def save(*_given: object) -> None:
        raise InputError("pruned.pt: cannot be written; check the folder") from OSError(28, "No space left on device")

    task: Any = SimpleNamespace(suffix=".pt", save=save)
    plan: Any = None  # it does not come to that
    said = rf"^the results cannot be written to {tmp_path} \(\[Errno 28\] No space left on device\); check its disk$"
    with pytest.raises(SeqPruneError, match=said):
        RunFolder(tmp_path).save_weights(task, nn.Conv2d(3, 4, 1), plan)
