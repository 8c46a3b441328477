"""What a page about a run shows beside its figures: the network before and after, what is pinned, how it was made."""

from __future__ import annotations

import os
import platform
import shlex
import sys
from collections.abc import Mapping
from datetime import datetime, timezone
from pathlib import Path
from typing import Any

import torch
from torch import nn

from seqprune.graph.channels import ChannelGraph
from seqprune.graph.leaving import placed
from seqprune.graph.modes import inference
from seqprune.observe.inputs import Inputs, call, mapped
from seqprune.observe.watching import watching
from seqprune.plan import PrunePlan
from seqprune.runtimes.where import processor_name
from seqprune.select.layers import block_of

Plain = dict[str, Any]
PER_CLASS = "class:"
"""What names of accuracies of one class begin with."""


def portrait(
    graph: ChannelGraph, before: nn.Module, after: nn.Module, plan: PrunePlan, inputs: tuple[Inputs, Inputs]
) -> tuple[Plain, ...]:
    """Every layer of the unpruned network, front to back.

    Args:
        graph: of the unpruned network.
        before: that network.
        after: the compact one.
        plan: what it was pruned by.
        inputs: of both, on which operations are counted.

    Returns:
        Of each: ``name``, ``kind``, ``block`` and the ``block_kind`` of its top-level module, output channels
        ``before`` and ``after``, 10⁹ operations of one pass ``gflops_before`` and ``gflops_after``, the channels
        between the two convolutions that it was made into (``rank``, else null), why channels of it are ``pinned``
        (else empty), and whether it lies in a block that was ``left_out``.
    """
    was, now = operations(before, inputs[0]), operations(after, inputs[1])
    ranks = {factor.block: len(plan.keep.get(f"{factor.block}.0", range(factor.rank))) for factor in plan.factors}
    found = []
    for layer in graph.all_layers:
        pair = next((block for block in ranks if layer.name == block or layer.name.startswith(f"{block}.")), None)
        here = placed(after, plan.blocks, layer.name if pair is None else pair)
        kept = plan.keep.get(layer.name if pair is None else f"{pair}.1", range(layer.channels if here else 0))
        found.append(
            {
                **{"name": layer.name, "kind": layer.kind, "block": block_of(layer.name)},
                "block_kind": _block_kind(before, layer.name),
                **{"before": layer.channels, "after": len(kept)},
                "gflops_before": was.get(layer.name, 0.0),
                "gflops_after": sum(value for name, value in now.items() if _within(name, here, pair is not None)),
                "rank": None if pair is None else ranks[pair],
                "pinned": layer.reason if not layer.free.any() else "",
                "left_out": here is None,
            }
        )
    return tuple(found)


def operations(model: nn.Module, inputs: Inputs) -> dict[str, float]:
    """10⁹ operations of each convolution and linear layer for some inputs, two for each multiply-accumulate."""
    found: dict[str, float] = {}

    def count(name: str, layer: nn.Module, x: torch.Tensor, output: torch.Tensor) -> None:
        weight: Any = layer.weight
        backwards = isinstance(layer, nn.modules.conv._ConvTransposeNd)
        places = (x if backwards else output).numel() / weight.shape[0]
        found[name] = found.get(name, 0.0) + 2e-9 * weight.numel() * places

    layers = [name for name, m in model.named_modules() if isinstance(m, nn.modules.conv._ConvNd | nn.Linear)]
    with watching(model, layers, count), inference(model):
        call(model, mapped(torch.clone, inputs))
    return found


def per_class(measured: Mapping[str, float]) -> dict[str, float]:
    """Accuracy of each class, by its name."""
    return {name.removeprefix(PER_CLASS): value for name, value in measured.items() if name.startswith(PER_CLASS)}


def overall(measured: Mapping[str, float]) -> dict[str, float]:
    """Accuracy of all classes together."""
    return {name: value for name, value in measured.items() if not name.startswith(PER_CLASS)}


def circumstances() -> Plain:
    """The command, the day, the processor: what a figure depends on beside the settings."""
    program = Path(sys.argv[0])
    called = f"python -m {program.parent.name}" if program.name == "__main__.py" else program.name
    return {
        "command": " ".join([called, *map(shlex.quote, sys.argv[1:])]).strip(),
        "date": datetime.now(timezone.utc).isoformat(timespec="seconds"),
        "processor": processor_name(),
        "cores": os.cpu_count(),
        "threads": torch.get_num_threads(),
        "gpu": torch.cuda.get_device_name() if torch.cuda.is_available() else None,
        "system": f"{platform.system()} {platform.machine()}",
    }


def _within(name: str, path: str | None, is_pair: bool) -> bool:
    return name == path or (path is not None and is_pair and name.startswith(f"{path}."))


def _block_kind(model: nn.Module, layer: str) -> str:
    """Class of the top-level module that a layer lies in: of ``model.4.cv1.conv`` that of ``model.4``."""
    parts = layer.split(".")
    depth = 2 if block_of(layer) is not None and not parts[0].isdigit() else 1
    return type(model.get_submodule(".".join(parts[:depth]))).__name__
