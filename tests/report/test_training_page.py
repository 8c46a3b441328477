"""The page of a training: what was measured, epoch by epoch, and nothing that was not."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
import report_samples as samples

from seqprune.engine.record import Trained
from seqprune.errors import InputError
from seqprune.report import training
from seqprune.report.html import page_of, page_of_folder

TABLE = """epoch, time, train/box_loss, metrics/mAP50-95(B), val/box_loss
1, 9.5, 1.25, 0.25, nan
2, 19.1, 1.5, 0.5, 2
"""


def trained(folder: Path, table: str = TABLE) -> Trained:
    (folder / "weights").mkdir()
    best = folder / "weights" / "best.pt"
    best.write_bytes(b"x" * 1000)
    (folder / "results.csv").write_text(table)
    return Trained(folder, best, None, {"metrics/mAP50-95(B)": 0.5, "fitness": float("nan")})


def test_it_says_what_was_measured_and_escapes_the_rest() -> None:
    text = training.page(samples.training())
    for said in (
        "trained for 3 epochs",
        "0.4321",
        "3.20 MB",
        "epoch 2: 0.3333",
        "train images, epoch 3: 0.5000",
        "2.15",
    ):
        assert said in text
    assert "epoch 1: 0.5000" not in text.split("Losses over epochs")[0]  # no accuracy was measured there
    assert "validation images, epoch 3" not in text
    assert "<img src=x" not in text
    assert "&lt;img src=x" in text


def test_a_run_without_validation_has_no_picture_of_it() -> None:
    report = samples.training()
    report |= {"metrics": {}, "epochs": [{"epoch": 1, "train/box_loss": 2.0}]}
    text = training.page(report)
    assert "trained for 1 epoch" in text
    assert 'id="losses"' in text
    assert 'id="accuracy"' not in text
    assert 'id="figures"' not in text


def test_what_a_run_writes_is_read_again(tmp_path: Path) -> None:
    report = training.plain(trained(tmp_path), "model.pt", "data.yaml")
    assert [row["epoch"] for row in report["epochs"]] == [1, 2]
    assert "val/box_loss" not in report["epochs"][0]  # JSON has no NaN
    assert report["metrics"] == {"metrics/mAP50-95(B)": 0.5, "fitness": None}
    (tmp_path / "report.json").write_text(json.dumps(report))
    page_of_folder(tmp_path, tmp_path / "again.html")
    assert (tmp_path / "again.html").read_text() == training.page(report)


@pytest.mark.parametrize("table", ["epoch\n1, 2\nx", "epoch\nmany\n"])
def test_a_damaged_table_is_one_line(tmp_path: Path, table: str) -> None:
    with pytest.raises(InputError, match=r"results\.csv.*a row of numbers an epoch"):
        training.plain(trained(tmp_path, table), "model.pt", "data.yaml")


@pytest.mark.parametrize("key", ["epochs", "metrics", "versions", "best", "bytes"])
def test_a_report_that_lacks_something_is_no_report(key: str) -> None:
    report = samples.training()
    del report[key]
    with pytest.raises(InputError, match="no report of a run"):
        page_of(report, {})
