"""``seqprune bench``: networks and exported files side by side."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
import torch
from rich.console import Console
from torch import nn

from seqprune.cli.measuring import show
from seqprune.measure.side_by_side import bench
from seqprune.runtimes.export import to_onnx

QUICK = ("--runs", "1", "--threads", "1")


@pytest.fixture
def file(tmp_path: Path) -> Path:
    return to_onnx(nn.Conv2d(3, 4, 3), torch.rand(1, 3, 32, 32), tmp_path / "net.onnx")


@pytest.mark.slow
def test_weights_and_files_are_timed_in_turns_wherever_they_run(run: Any, file: Path) -> None:
    pytest.importorskip("onnxruntime")
    code, out, err = run(
        *("bench", "yolov8n.yaml", file, "--runtime", "torch,onnxruntime", "--imgsz", "32", *QUICK, "--json")
    )
    assert code == 0, err
    found = json.loads(out)
    rows = found["rows"]
    assert [(row["runtime"], Path(row["model"]).name) for row in rows] == [
        ("torch", "yolov8n.yaml"),
        ("onnxruntime", "yolov8n.yaml"),
        ("onnxruntime", "net.onnx"),
    ]
    for row in rows:
        assert row["ms"]["low"] <= row["ms"]["median"] <= row["ms"]["high"]
        assert row["shape"] == [1, 3, 32, 32]
        assert not row["reason"]
    assert rows[1]["share"] == 1
    assert rows[2]["share"] == pytest.approx(rows[2]["ms"]["median"] / rows[1]["ms"]["median"])
    assert rows[2]["file_bytes"] == file.stat().st_size
    assert rows[1]["file_bytes"] > 4 * rows[1]["params"]  # float32, and the program around it
    assert found["places"]["torch"] | {"threads": 1, "device": "cpu"} == found["places"]["torch"]


def test_a_module_is_timed_with_what_it_takes() -> None:
    found = bench([nn.Linear(4, 2)], runtimes=["torch"], runs=2, example_inputs=torch.rand(3, 4))
    (row,) = found.rows
    assert (row.model, row.shape, row.params) == ("Linear", (3, 4), 10)
    assert row.ms is not None
    assert row.ms.runs == 2
    assert found.cells()[1][0][:2] == ["Linear", "torch"]


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        (("nothing.onnx",), "nothing.onnx: no such file or folder"),
        (("nothing.pt",), "nothing.pt: no such file"),
        (("net.torchscript",), "may run code: give --trust"),
        (("yolov8n.yaml", "--runtime", "tflite"), "runtime='tflite' is not known"),
        (("yolov8n.yaml", "--precision", "f16"), "choose auto or f32"),
        (("yolov8n.yaml", "--runs", "0"), "at least one image and one run"),
    ],
)
def test_what_cannot_be_timed_is_said(
    run: Any, arguments: tuple[str, ...], said: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    (tmp_path / "net.torchscript").touch()
    code, _, err = run("bench", *arguments)
    assert code == 2
    assert said in " ".join(err.split())


def test_a_runtime_that_does_not_run_a_network_is_a_row_with_its_reason(file: Path) -> None:
    pytest.importorskip("onnxruntime")
    file.write_bytes(file.read_bytes()[:40])
    (row,) = bench([file], runtimes=["onnxruntime"], runs=1).rows
    assert row.ms is None
    assert "does not run it" in row.reason
    assert row.reason in bench([file], runtimes=["onnxruntime"], runs=1).cells()[1][0][0]


def test_a_table_wider_than_the_console_keeps_every_column() -> None:
    """Long paths took the column of the times away where nobody watched: a pipe is 80 wide."""
    head = ["model", "runtime", "ms", "quartiles", "file, MB", "parameters", "input", "computed in"]
    row = ["runs/prune/yolov8n/weights/pruned.pt", "ncnn", "4.71", "4.65–4.86", "9.80", "2,449,104", "1×3×160×160"]
    console = Console(width=80, soft_wrap=True, highlight=False)
    with console.capture() as shown:
        show(console, "5 runs in turns", head, [[*row, "float16 where it is faster"]])
    first, second, caption = shown.get().splitlines()
    assert first.split() == " ".join(head).split()
    assert second.split()[:4] == row[:4]
    assert caption.strip() == "5 runs in turns"
