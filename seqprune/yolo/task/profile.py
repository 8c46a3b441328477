"""What a model costs: parameters, operations, time."""

from __future__ import annotations

import statistics
import time
from collections.abc import Sequence
from copy import deepcopy
from dataclasses import dataclass

import torch
from torch import nn
from torch.utils.flop_counter import FlopCounterMode

from seqprune.errors import InputError
from seqprune.observe.device import as_device
from seqprune.yolo.task.tracing import grey_image

_WARM_UP = 5


@dataclass(frozen=True)
class Profile:
    """Cost of one model.

    Attributes:
        params: Number of parameters.
        gflops: 10⁹ floating-point operations for one image, two for each multiply-accumulate.
        latency_ms: Median milliseconds for one image.
    """

    params: int
    gflops: float
    latency_ms: float


def parameters(model: nn.Module) -> int:
    """Number of parameters, frozen ones included."""
    return sum(parameter.numel() for parameter in model.parameters())


def gflops(model: nn.Module, imgsz: int = 640) -> float:
    """Billions of operations for one square image: convolutions and matrix products as they are run.

    Two operations for each multiply-accumulate, as Ultralytics reports (yolov8n at 640: 8.7). BatchNorm,
    activations and resizing are not counted. Counted while a copy of the model runs, so it is right
    whatever was pruned.
    """
    copy = deepcopy(model).eval()
    with torch.no_grad(), FlopCounterMode(display=False) as counter:
        copy(_image(copy, imgsz))
    return float(counter.get_total_flops()) / 1e9


def latency_ms(model: nn.Module, imgsz: int = 640, device: str | torch.device = "cpu", runs: int = 20) -> float:
    """Median milliseconds of one forward pass on one square image; see :func:`latencies_ms`."""
    return latencies_ms([model], imgsz, device, runs)[0]


def latencies_ms(
    models: Sequence[nn.Module], imgsz: int = 640, device: str | torch.device = "cpu", runs: int = 20
) -> list[float]:
    """Median milliseconds of one forward pass of each model on one square image.

    The models take turns, so that a machine that slows down meanwhile slows all of them. Copies as they are:
    eager, not fused, in their own precision, without decoding the image or suppressing boxes. Five passes of
    each to warm up are not counted.
    """
    if runs < 1:
        raise InputError(f"runs={runs} must be at least 1")
    where = as_device(device)
    copies = [deepcopy(model).eval().to(where) for model in models]
    image = _image(copies[0], imgsz)
    seconds: list[list[float]] = [[] for _ in copies]
    with torch.inference_mode():
        for run in range(_WARM_UP + runs):
            for copy, taken in zip(copies, seconds, strict=True):
                _wait(where)
                start = time.perf_counter()
                copy(image)
                _wait(where)
                if run >= _WARM_UP:
                    taken.append(time.perf_counter() - start)
    return [1e3 * statistics.median(taken) for taken in seconds]


def profile(model: nn.Module, imgsz: int = 640, device: str | torch.device = "cpu", runs: int = 20) -> Profile:
    """Parameters, operations and latency together; see the functions of those names."""
    return Profile(parameters(model), gflops(model, imgsz), latency_ms(model, imgsz, device, runs))


def _image(model: nn.Module, imgsz: int) -> torch.Tensor:
    if imgsz < 1:
        raise InputError(f"imgsz={imgsz} must be at least 1")
    return grey_image(model, imgsz)


def _wait(device: torch.device) -> None:
    """Wait for what was queued on an accelerator."""
    if device.type == "cuda":
        torch.cuda.synchronize(device)
