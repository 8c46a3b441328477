"""A factored network is plain Ultralytics: files, prediction, fusing, half precision, export, training."""

from __future__ import annotations

import subprocess
import sys
from collections import OrderedDict
from dataclasses import replace
from pathlib import Path

import pytest
import torch
from torch import nn
from ultralytics import YOLO
from ultralytics.nn.modules import Conv

from seqprune.engine.moves import pairs
from seqprune.graph.factor import Factor, factored, factors_of
from seqprune.plan import PrunePlan
from seqprune.surgery import compact, verify
from seqprune.yolo.files.load import load
from seqprune.yolo.files.save import save_pt
from seqprune.yolo.files.tensors import save_pair
from seqprune.yolo.task.tracing import trace_detector
from seqprune.yolo.train.tuning import finetune

NAMES = {0: "green", 1: "red"}
FACTORS = (
    Factor("model.1", "row", 6),  # of two strides, read by number
    Factor("model.2.m.0.cv2", "column", 8),  # within a residual
    Factor("model.22.cv2.0.0", "column", 9),
    Factor("model.22.cv3.1.1", "row", 5),
)


@pytest.fixture
def plan(tiny: nn.Module) -> PrunePlan:
    graph = trace_detector(factored(tiny, FACTORS))
    keep = {"model.1.0": [0, 2, 3, 5], "model.4.m.0.cv1.conv": range(3), "model.22.cv2.0.0.0": range(7)}
    return replace(PrunePlan.from_keep(graph, keep), factors=FACTORS, imgsz=96)


@pytest.fixture
def small(tiny: nn.Module, plan: PrunePlan) -> nn.Module:
    return compact(tiny, plan)


def test_both_kinds_of_file_bring_it_back_to_the_bit(small: nn.Module, plan: PrunePlan, tmp_path: Path) -> None:
    about = {"names": NAMES, "plan_json": plan.to_json(), "train_args": {"imgsz": plan.imgsz}}
    save_pt(small, tmp_path / "m.pt", **about, half=False)
    save_pair(small, tmp_path / "m.safetensors", names=NAMES, plan_json=plan.to_json())
    for name in ("m.pt", "m.safetensors"):
        found = load(tmp_path / name)
        assert found.plan == plan
        assert verify(small, found.model, torch.rand(1, 3, 64, 64), tolerance=0.0)


def test_nothing_of_ours_is_needed(small: nn.Module, plan: PrunePlan, tmp_path: Path, data_yaml: Path) -> None:
    """Loads, fuses and predicts where seqprune cannot be imported, at the size that was chosen."""
    path = save_pt(small, tmp_path / "m.pt", names=NAMES, plan_json=plan.to_json(), train_args={"imgsz": plan.imgsz})
    script = f"""
import sys
sys.modules["seqprune"] = None
from ultralytics import YOLO
from ultralytics.nn.modules import Conv
model = YOLO({str(path)!r})
result = model.predict({str(next((data_yaml.parent / "images" / "val").glob("*.jpg")))!r}, verbose=False, save=False)
norms = sum("BatchNorm" in type(module).__name__ for module in model.predictor.model.modules())
print(model.overrides["imgsz"], model.predictor.imgsz, norms)
"""
    done = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True, check=True, cwd=tmp_path)  # noqa: S603
    assert done.stdout.strip().endswith("96 [96, 96] 0")


def test_fused_and_in_half_precision_it_computes_the_same(small: nn.Module) -> None:
    image = torch.rand(1, 3, 64, 64)
    with torch.no_grad():
        expected = small(image)[0]
        fused = load(small).model.fuse(verbose=False)(image)[0]  # type: ignore[operator]
        halved = load(small).model.half().float()(image)[0]
    assert (fused - expected).abs().max() < 1e-3 * expected.abs().max()
    assert (halved - expected).abs().max() < 2e-2 * expected.abs().max()


@pytest.mark.slow
def test_training_keeps_the_shape(small: nn.Module, plan: PrunePlan, data_yaml: Path, tmp_path: Path) -> None:
    path = save_pt(small, tmp_path / "m.pt", names=NAMES, plan_json=plan.to_json())
    tuned = finetune(load(path).model, data_yaml, epochs=1, imgsz=64, batch=4)
    assert {n: t.shape for n, t in tuned.state_dict().items()} == {n: t.shape for n, t in small.state_dict().items()}
    assert factors_of(load(small).model, tuned) == ()  # both are factored alike
    assert any(not torch.equal(t, small.state_dict()[n]) for n, t in tuned.state_dict().items())


@pytest.mark.slow
def test_it_is_exported(small: nn.Module, tmp_path: Path) -> None:
    pytest.importorskip("onnx")
    path = save_pt(small, tmp_path / "m.pt", names=NAMES)
    assert Path(YOLO(path).export(format="onnx", imgsz=64, simplify=False)).is_file()


def test_a_pair_says_what_its_channels_are() -> None:
    """``original channels 192 keep 16`` of a layer that no network has read like a loss of nine tenths."""
    model = nn.Sequential(OrderedDict(body=Conv(16, 16, 3)))
    [step] = pairs(model, [Factor("body", "column", 4)], PrunePlan((), ()))
    assert (step.active_after, "channels between" in step.reason) == (4, True)
