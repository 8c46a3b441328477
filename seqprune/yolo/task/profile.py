"""What a network of Ultralytics' costs on one square image."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import torch
from torch import nn

from seqprune.budget import cost
from seqprune.budget.cost import parameters
from seqprune.errors import InputError
from seqprune.yolo.task.tracing import grey_image


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


def gflops(model: nn.Module, imgsz: int = 640) -> float:
    """Billions of operations, counted as Ultralytics does (yolov8n at 640: 8.7); see :mod:`seqprune.budget.cost`."""
    return cost.gflops(model, _image(model, imgsz))


def latency_ms(model: nn.Module, imgsz: int = 640, device: str | torch.device = "cpu", runs: int = 20) -> float:
    """Median milliseconds of one forward pass on one square image; see :func:`latencies_ms`."""
    return latencies_ms([model], imgsz, device, runs)[0]


def latencies_ms(
    models: Sequence[nn.Module], imgsz: int | Sequence[int] = 640, device: str | torch.device = "cpu", runs: int = 20
) -> list[float]:
    """Of each model, in turns, on one square image of one size or each of its own; see :mod:`seqprune.budget.cost`."""
    sizes = [imgsz] * len(models) if isinstance(imgsz, int) else imgsz
    images = [_image(model, size) for model, size in zip(models, sizes, strict=True)]
    return cost.latencies_ms(models, images, device, runs)


def profile(model: nn.Module, imgsz: int = 640, device: str | torch.device = "cpu", runs: int = 20) -> Profile:
    """Parameters, operations and latency together; see the functions of those names."""
    return Profile(parameters(model), gflops(model, imgsz), latency_ms(model, imgsz, device, runs))


def _image(model: nn.Module, imgsz: int) -> torch.Tensor:
    if imgsz < 1:
        raise InputError(f"imgsz={imgsz} must be at least 1")
    return grey_image(model, imgsz)


__all__ = ["Profile", "gflops", "latencies_ms", "latency_ms", "parameters", "profile"]
