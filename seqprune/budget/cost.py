"""What a network costs: parameters, operations, time."""

from __future__ import annotations

import statistics
import time
from collections.abc import Sequence

import torch
from torch import nn
from torch.utils.flop_counter import FlopCounterMode

from seqprune.errors import InputError
from seqprune.graph.copying import copied
from seqprune.observe.device import as_device
from seqprune.observe.inputs import Inputs, call, mapped

_WARM_UP = 5


def parameters(model: nn.Module) -> int:
    """Number of parameters, frozen ones included."""
    return sum(parameter.numel() for parameter in model.parameters())


def gflops(model: nn.Module, inputs: Inputs) -> float:
    """Billions of operations for some inputs: convolutions and matrix products as they are run.

    Two operations for each multiply-accumulate. Normalisation, activations and resizing are not counted. Counted while
    a copy of the model runs in inference mode, so it is right whatever was pruned.
    """
    copy = copied(model).eval().requires_grad_(False)  # torch's counter follows gradients, of views of parameters none
    with torch.no_grad(), FlopCounterMode(display=False) as counter:
        call(copy, mapped(torch.clone, inputs))
    return float(counter.get_total_flops()) / 1e9


def latencies_ms(
    models: Sequence[nn.Module], inputs: Sequence[Inputs], device: str | torch.device = "cpu", runs: int = 20
) -> list[float]:
    """Median milliseconds of one forward pass of each model on inputs of its own.

    The models take turns, so that a machine that slows down meanwhile slows all of them. Copies as they are:
    eager, not fused, in their own precision. Five passes of each to warm up are not counted.

    Raises:
        InputError: no run, or no such device.
    """
    if runs < 1:
        raise InputError(f"runs={runs} must be at least 1")
    where = as_device(device)
    copies = [copied(model).eval().to(where) for model in models]
    given = [mapped(lambda each: each.to(where, copy=True), each) for each in inputs]
    seconds: list[list[float]] = [[] for _ in copies]
    with torch.inference_mode():
        for run in range(_WARM_UP + runs):
            for copy, each, taken in zip(copies, given, seconds, strict=True):
                _wait(where)
                start = time.perf_counter()
                call(copy, each)
                _wait(where)
                if run >= _WARM_UP:
                    taken.append(time.perf_counter() - start)
    return [1e3 * statistics.median(taken) for taken in seconds]


def _wait(device: torch.device) -> None:
    """Wait for what was queued on an accelerator."""
    if device.type == "cuda":
        torch.cuda.synchronize(device)
