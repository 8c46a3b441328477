"""The table, the log and the folder of a run."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import pytest

from seqprune.engine.record import Measurements, Record
from seqprune.engine.steps import StepReport
from seqprune.errors import InputError
from seqprune.report.console import step_block
from seqprune.report.folder import claimed, free_folder
from seqprune.report.record import compare
from seqprune.surgery import Difference

PRUNED = StepReport("model.5.conv", 5, 256, 256, 118, 512, (0, 2), 118, "pruned", "", ("model.5.conv",), 1.5)
WHY = 'only <2 classes> & "few" objects'
SKIPPED = StepReport("model.7.conv", 7, 512, 512, 512, status="skipped", reason=WHY)
BEFORE = Measurements(1_000_000, 8.0, 50.0, 0.5, 0.7, 0.6, 0.4)
AFTER = Measurements(750_000, 6.0, 40.0, 0.25, 0.4, 0.5, 0.4)
RECORD = Record(
    model="weights/a&b.pt",
    data="d.yaml",
    preset="activation",
    seed=0,
    mode="compact",
    finetune=0,
    settings={"keep": "knee"},
    versions={"torch": "2.15"},
    steps=(PRUNED, SKIPPED),
    verify=Difference(1e-5, 3e-7),
    before=BEFORE,
    after=AFTER,
    unreadable=("broken<1>.jpg",),
)


def test_sizes_change_by_a_share_and_accuracies_by_a_difference() -> None:
    changes = {line.what: line.change for line in compare(BEFORE, AFTER)}
    assert changes == {
        "parameters": "-25.0 %", "GFLOPs": "-25.0 %", "latency, ms": "-20.0 %", "mAP50-95": "-0.2500",
        "mAP50": "-0.3000", "precision": "-0.1000", "recall": "+0.0000",
    }  # fmt: skip
    assert len(compare(BEFORE, Measurements(1, 1.0, 1.0))) == 3


def test_a_change_is_the_difference_of_the_numbers_beside_it() -> None:
    """0.1439 and 0.1408 stood beside -0.0032, and two equal numbers beside -0.0000."""
    before, after = (replace(BEFORE, map50_95=a, map50=b) for a, b in ((0.14394, 0.22772), (0.14076, 0.22768)))
    changes = {line.what: line.change for line in compare(before, after)}
    assert (changes["mAP50-95"], changes["mAP50"]) == ("-0.0031", "+0.0000")


def test_a_step_reads_like_a_pruning_log() -> None:
    assert step_block(PRUNED, 2).plain.splitlines() == [
        "step 2  block 5  model.5.conv",
        "  original channels 256  keep 118  remove 138  kept 0.461  active/total 118/256",
        "  objects 512  classes 2  k 118  1.5 s",
    ]
    assert f"  skipped: {WHY}\n" in step_block(SKIPPED, 3).plain


def test_folders_are_numbered_and_named_ones_must_be_new(tmp_path: Path) -> None:
    assert free_folder(tmp_path / "runs" / "prune", None, "n") == tmp_path / "runs" / "prune" / "n"
    for expected in ("n", "n-2", "n-3"):
        folder = free_folder(tmp_path, None, "n")
        assert folder.name == expected
        folder.mkdir()
    with pytest.raises(InputError, match="exists and is left as it is"):
        free_folder(tmp_path, "n-2", "n")
    (tmp_path / "link").symlink_to(tmp_path / "nowhere")
    with pytest.raises(InputError, match="exists"):
        free_folder(tmp_path, "link", "n")
    assert sorted(p.name for p in tmp_path.iterdir()) == ["link", "n", "n-2", "n-3"]


def test_a_name_taken_meanwhile_is_not_overwritten(tmp_path: Path) -> None:
    target = free_folder(tmp_path / "runs", None, "mine")
    target.mkdir(parents=True)
    (target / "theirs").write_text("theirs")
    assert claimed(target) == tmp_path / "runs" / "mine-2"
    assert [path.name for path in target.iterdir()] == ["theirs"]
    (tmp_path / "file").write_text("")
    with pytest.raises(InputError, match="cannot be made"):
        claimed(tmp_path / "file" / "mine")
