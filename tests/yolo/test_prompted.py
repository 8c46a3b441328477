"""Networks with prompts run otherwise than block after block: all that is observed of them is seen in whole passes."""

from __future__ import annotations

from copy import deepcopy
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import nn
from ultralytics.nn import tasks

from seqprune.run import prune
from seqprune.testing.networks import randomise
from seqprune.yolo.task.blocks import blocks_of

KINDS = {"yolov8-world": "WorldModel", "yoloe-v8": "YOLOEModel"}


@pytest.fixture(params=KINDS)
def prompted(request: pytest.FixtureRequest) -> nn.Module:
    """Of an eighth of the width, two classes, random weights."""
    kind = getattr(tasks, KINDS[request.param])
    cfg = deepcopy(tasks.yaml_model_load(f"{request.param}.yaml"))
    cfg["scales"], cfg["scale"], cfg["nc"] = {"n": [0.33, 0.125, 512]}, "n", 2
    torch.manual_seed(0)
    model: nn.Module = kind(cfg, nc=2, verbose=False).eval()
    randomise(model, 0)
    model.pe = torch.rand(1, 2, 512)  # what YOLOE's classes were set to; older versions take 80 without it
    model.names, model.task, model.args = {0: "green", 1: "red"}, "detect", {"imgsz": 64, "task": "detect"}  # type: ignore[assignment]
    return model


def test_only_what_runs_block_after_block_is_streamed(prompted: nn.Module, tiny: nn.Module) -> None:
    assert blocks_of(prompted) is None
    assert blocks_of(tiny) is not None


@pytest.mark.parametrize(
    "way",
    [
        pytest.param({"preset": "accurate", "target": "params=0.8"}, id="accurate"),
        pytest.param(
            {"preset": "seed", "match": "all", "keep": 0.5, "recover": "ls"}, id="seed", marks=pytest.mark.long
        ),
    ],
)
def test_the_whole_job(prompted: nn.Module, data_yaml: Path, way: dict[str, Any]) -> None:
    result = prune(prompted, data_yaml, imgsz=64, batch=4, val=False, **way)
    assert [repair.step for repair in result.record.repairs] == ["ls"]
    assert result.record.after.params < result.record.before.params  # most of YOLOE are its prompts
    if "target" in way:
        assert result.record.after.params / result.record.before.params == pytest.approx(0.8, abs=0.02)
    with torch.no_grad():
        result.model(torch.rand(1, 3, 64, 64))


@pytest.mark.parametrize("preset", ["fast", pytest.param("accurate", marks=pytest.mark.long)])
def test_operations_that_multiply_no_weight_count_too(prompted: nn.Module, data_yaml: Path, preset: str) -> None:
    """Products of images with texts, and of attention: a target of 0.8 ended at 0.83."""
    given: dict[str, Any] = {"imgsz": 64, "batch": 4, "val": False, "recover": "none", "round_to": 1}
    record = prune(prompted, data_yaml, preset=preset, target="flops=0.8", **given).record
    assert record.after.gflops / record.before.gflops == pytest.approx(0.8, rel=0.02)
    assert record.after.gflops <= 0.8 * record.before.gflops
