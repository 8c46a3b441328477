"""One image through a pruned network, beside the unpruned one.

Random channels, about the same share of every layer, counts rounded up to a multiple of 8. ``ratio_to_unpruned`` below
1 is faster; a masked network has no reason to be. ``keep 0.65`` is close to half of the operations.
"""

from __future__ import annotations

import io
import warnings
from collections.abc import Callable
from copy import deepcopy
from functools import cache, partial
from typing import Any

import pytest
import torch
from torch import nn

from benchmarks.networks import detector, graph_of, random_plan
from benchmarks.timing import in_turns
from seqprune.surgery import compact, mask
from seqprune.yolo.task.profile import gflops, parameters

Runner = Callable[[], Any]
Engine = Callable[[nn.Module, torch.Tensor], Runner]

models = pytest.mark.parametrize(
    "scale", [pytest.param("n", id="yolov8n"), pytest.param("s", id="yolov8s", marks=pytest.mark.full)]
)
ratios = pytest.mark.parametrize("keep", [pytest.param(k, id=f"keep {k}") for k in (0.9, 0.65, 0.5)])


@cache
def pruned(way: str, scale: str, keep: float) -> nn.Module:
    surgery = {"masked": mask, "compact": compact}[way]
    return surgery(detector(scale), random_plan(graph_of(scale), keep), graph_of(scale)).eval()


def eager(model: nn.Module, image: torch.Tensor) -> Runner:
    model = deepcopy(model).to(image.device)
    return torch.inference_mode()(partial(model, image))


def compiled(model: nn.Module, image: torch.Tensor) -> Runner:
    torch.compiler.reset()
    return torch.inference_mode()(partial(torch.compile(deepcopy(model).to(image.device)), image))


def onnx_runtime(model: nn.Module, image: torch.Tensor) -> Runner:
    device = image.device.type
    return _onnx(model, image, {"cuda": "CUDAExecutionProvider", "cpu": "CPUExecutionProvider"}[device])


def tensorrt(model: nn.Module, image: torch.Tensor) -> Runner:
    return _onnx(model, image, "TensorrtExecutionProvider")


def _onnx(model: nn.Module, image: torch.Tensor, provider: str) -> Runner:
    runtime = pytest.importorskip("onnxruntime", reason="ONNX Runtime is not installed")
    if provider not in runtime.get_available_providers():
        pytest.skip(f"this ONNX Runtime has no {provider}")
    options = runtime.SessionOptions()
    options.intra_op_num_threads = torch.get_num_threads()
    session = runtime.InferenceSession(_exported(model, image.shape), options, providers=[provider])
    return partial(session.run, None, {"images": image.cpu().numpy()})


@cache
def _exported(model: nn.Module, shape: torch.Size) -> bytes:
    model = deepcopy(model).cpu()
    head: Any = model.model[-1]
    head.export, head.format = True, "onnx"
    file = io.BytesIO()
    with warnings.catch_warnings():
        # The exporter that follows the TorchScript one needs a package more.
        warnings.simplefilter("ignore")
        torch.onnx.export(model, (torch.zeros(shape),), file, input_names=["images"], opset_version=17, dynamo=False)
    return file.getvalue()


ENGINES = [
    pytest.param(eager, id="eager"),
    pytest.param(onnx_runtime, id="ONNX Runtime"),
    pytest.param(compiled, id="torch.compile", marks=pytest.mark.full),
    pytest.param(tensorrt, id="TensorRT", marks=pytest.mark.full),
]


@models
@pytest.mark.parametrize("engine", ENGINES)
class TestLatency:
    def test_of_the_unpruned_network(
        self, benchmark: Any, scale: str, engine: Engine, device: torch.device, full: bool
    ) -> None:
        benchmark.group = f"latency, yolov8{scale}, {engine.__name__}"
        run = engine(detector(scale), _image(device, full))
        in_turns(benchmark, run, beside={}, device=device, rounds=15, warm_up=3)
        benchmark.extra_info["gflops"] = gflops(detector(scale), 320)

    @ratios
    @pytest.mark.parametrize("way", ["masked", "compact"])
    def test_of_the_pruned_network(
        self,
        benchmark: Any,
        scale: str,
        engine: Engine,
        way: str,
        keep: float,
        device: torch.device,
        full: bool,
    ) -> None:
        benchmark.group = f"latency, yolov8{scale}, {engine.__name__}"
        whole, part = detector(scale), pruned(way, scale, keep)
        image = _image(device, full)
        in_turns(
            benchmark,
            engine(part, image),
            beside={"unpruned": engine(whole, image)},
            device=device,
            rounds=15,
            warm_up=3,
        )
        benchmark.extra_info["kept_parameters"] = parameters(part) / parameters(whole)
        benchmark.extra_info["kept_operations"] = gflops(part, 320) / gflops(whole, 320)


def _image(device: torch.device, full: bool) -> torch.Tensor:
    side = 640 if full else 320
    return torch.full((1, 3, side, side), 0.5, device=device)
