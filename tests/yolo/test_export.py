"""What a compact model becomes: other formats, fused, in half precision, by ``forward_split``, at other sizes."""

from __future__ import annotations

from collections.abc import Callable
from copy import deepcopy
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from torch import nn
from ultralytics import YOLO
from ultralytics.nn.modules import C2f

import seqprune
from seqprune.plan import PrunePlan
from seqprune.surgery import Difference, verify
from seqprune.yolo.files.load import load
from seqprune.yolo.files.save import save_pt
from seqprune.yolo.task.profile import parameters
from seqprune.yolo.task.tracing import trace_detector

DEMO = Path(__file__).parents[2] / "seqprune" / "demo" / "digits.pt"
SIZE = 128


@pytest.fixture(scope="module")
def full() -> nn.Module:
    return load(DEMO).model


@pytest.fixture(scope="module")
def plan(full: nn.Module) -> PrunePlan:
    """Half of every layer that can be halved."""
    graph = trace_detector(full)
    removed = np.zeros(graph.group_count, bool)
    for layer in graph.layers:
        if layer.free.all():
            removed[layer.groups[1::2]] = True
    removed = graph.legalise(removed, np.arange(graph.group_count, dtype=float), np.ones_like(removed), 1)
    return PrunePlan.from_removed(graph, removed)


@pytest.fixture(scope="module")
def small(full: nn.Module, plan: PrunePlan) -> nn.Module:
    return seqprune.compact(full, plan)


def picture(height: int = SIZE, width: int = SIZE, batch: int = 1) -> torch.Tensor:
    return torch.rand(batch, 3, height, width, generator=torch.Generator().manual_seed(0))


def predict(model: nn.Module, image: torch.Tensor) -> torch.Tensor:
    with torch.no_grad():
        out: torch.Tensor = model.eval()(image)[0]
    return out


def relative(seen: Any, expected: torch.Tensor) -> float:
    found = torch.as_tensor(np.asarray(seen)).double()
    assert found.shape == expected.shape
    return float((found - expected.double()).abs().max() / expected.abs().max())


def run_onnx(exported: str, image: torch.Tensor) -> Any:
    session = pytest.importorskip("onnxruntime").InferenceSession(exported, providers=["CPUExecutionProvider"])
    return session.run(None, {session.get_inputs()[0].name: image.numpy()})[0]


def run_torchscript(exported: str, image: torch.Tensor) -> Any:
    out = torch.jit.load(exported)(image)
    return out if isinstance(out, torch.Tensor) else out[0]


def run_openvino(exported: str, image: torch.Tensor) -> Any:
    core = pytest.importorskip("openvino").Core()
    compiled = core.compile_model(next(Path(exported).glob("*.xml")), "CPU", {"INFERENCE_PRECISION_HINT": "f32"})
    return compiled(image.numpy())[0]


def bytes_of(exported: str) -> int:
    path = Path(exported)
    return sum(file.stat().st_size for file in (path.rglob("*") if path.is_dir() else [path]) if file.is_file())


FORMATS: dict[str, tuple[Callable[[str, torch.Tensor], Any], tuple[str, ...]]] = {
    "onnx": (run_onnx, ("onnx", "onnxruntime")),
    "torchscript": (run_torchscript, ()),
    "openvino": (run_openvino, ("openvino",)),
}


@pytest.mark.slow
@pytest.mark.parametrize(
    ("format_", "dynamic"), [("onnx", False), ("onnx", True), ("torchscript", False), ("openvino", True)]
)
def test_an_exported_model_agrees_and_has_the_pruned_size(
    format_: str, dynamic: bool, small: nn.Module, plan: PrunePlan, tmp_path: Path
) -> None:
    run, needed = FORMATS[format_]
    for package in needed:
        pytest.importorskip(package)
    path = save_pt(small, tmp_path / "pruned.pt", names=small.names, plan_json=plan.to_json())  # type: ignore[arg-type]
    options = {"simplify": False, "opset": 17} if format_ == "onnx" else {}
    exported = str(YOLO(path).export(format=format_, imgsz=SIZE, device="cpu", dynamic=dynamic, **options))
    for image in (picture(), picture(96, 160, batch=2)) if dynamic else (picture(),):
        assert relative(run(exported, image), predict(small, image)) <= 1e-3
    assert bytes_of(exported) < 4 * parameters(small) + 600_000  # float32, and the program around it
    assert bytes_of(exported) < 0.6 * 4 * parameters(load(DEMO).model)


def test_a_fused_model_agrees(small: nn.Module) -> None:
    fused = deepcopy(small).fuse(verbose=False)  # type: ignore[operator]
    assert not any(isinstance(module, nn.BatchNorm2d) for module in fused.modules())
    assert parameters(fused) < parameters(small)
    assert verify(small, fused, picture()).max_rel <= 1e-3


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16])
def test_half_precision_agrees(dtype: torch.dtype, small: nn.Module) -> None:
    low = deepcopy(small).to(dtype)
    limit = {torch.float16: 2e-2, torch.bfloat16: 1e-1}[dtype]
    assert relative(predict(low, picture().to(dtype)).float(), predict(small, picture())) <= limit


def test_forward_split_agrees(small: nn.Module) -> None:
    """The exporter puts it in the place of ``forward``; it cuts by a width held in an attribute."""
    split, count = deepcopy(small), 0
    for module in split.modules():
        if isinstance(module, C2f):
            module.forward = module.forward_split
            count += 1
    assert count
    assert verify(small, split, picture()).max_rel <= 1e-6


@pytest.mark.parametrize(("height", "width", "batch"), [(64, 64, 1), (96, 160, 3), (256, 128, 2)])
def test_any_size_is_taken(
    height: int, width: int, batch: int, full: nn.Module, small: nn.Module, plan: PrunePlan
) -> None:
    difference: Difference = verify(seqprune.mask(full, plan), small, picture(height, width, batch))
    assert difference.max_rel <= 1e-4
