"""Observing many layers front to back: one streamed pass beside a pass for every layer.

The floor is one forward pass of the whole network over the same images, floating point and on the device already. The
plain engine runs the network from the image to the layer, once for each layer. Nothing is selected in between: masking
changes no shape and so no time.
"""

from __future__ import annotations

from collections.abc import Sequence
from functools import cache, partial
from typing import Any

import numpy as np
import pytest
import torch
from torch import nn

from benchmarks.networks import graph_of
from benchmarks.test_extraction import CLASSES, labelled, network, run_all
from benchmarks.timing import in_turns
from seqprune.observe.batch import Batch
from seqprune.observe.extract import observe
from seqprune.observe.streaming import BlockStream
from seqprune.select.layers import choose_layers
from seqprune.select.moments import ClassMoments
from seqprune.yolo.task.blocks import blocks_of

BLOCKS = (1, 2, 3, 4, 5, 6, 7, 8)
MORE_BLOCKS = (*BLOCKS, 9, 12, 15, 16, 18, 19, 21)  # all of YOLOv8's that have weights, but for the first and the head
BATCH = 8

counts = pytest.mark.parametrize("layers", [pytest.param(n, id=f"{n} layers") for n in (1, 2, 4, 8, 16)])


@cache
def chosen(count: int) -> tuple[str, ...]:
    """The widest layers, each of another block while there are blocks left."""
    candidates = [(layer.name, layer.channels) for layer in graph_of("n").layers]
    return tuple(choose_layers(candidates, BLOCKS if count <= len(BLOCKS) else MORE_BLOCKS, count))


def streamed(model: nn.Module, names: Sequence[str], images: list[Batch], cache_bytes: int) -> list[ClassMoments]:
    structure = blocks_of(model)
    assert structure is not None
    stream = BlockStream(structure, cache_bytes)
    try:
        return [observe(model, [name], images, CLASSES, stream=stream).moments[name] for name in names]
    finally:
        stream.reset()


def layer_by_layer(model: nn.Module, names: Sequence[str], images: list[Batch]) -> list[ClassMoments]:
    return [observe(model, [name], images, CLASSES).moments[name] for name in names]


@counts
class TestObservingFrontToBack:
    def test_in_one_pass(self, benchmark: Any, layers: int, device: torch.device, full: bool) -> None:
        model, images = network(device), labelled(BATCH, device, full)
        inputs = [(b.images.to(device) / 255).float() for b in images]
        benchmark.group = f"front to back, {layers} layers"
        turns = in_turns(
            benchmark,
            partial(streamed, model, chosen(layers), images, 4 << 30),
            beside={
                "floor": partial(run_all, model, inputs),
                "plain_engine": partial(layer_by_layer, model, chosen(layers), images),
            },
            device=device,
            rounds=5,
        )
        benchmark.extra_info["layers"] = list(chosen(layers))
        benchmark.extra_info["largest_difference"] = _difference(turns.results["ours"], turns.results["plain_engine"])
        # On a GPU another batch may be added up in another order, and TF32 keeps three digits.
        assert benchmark.extra_info["largest_difference"] <= (0 if device.type == "cpu" else 1e-2)

    def test_in_one_pass_with_outputs_on_disk(
        self, benchmark: Any, layers: int, device: torch.device, full: bool
    ) -> None:
        model, images = network(device), labelled(BATCH, device, full)
        inputs = [(b.images.to(device) / 255).float() for b in images]
        benchmark.group = f"front to back, {layers} layers"
        in_turns(
            benchmark,
            partial(streamed, model, chosen(layers), images, 1),
            beside={"floor": partial(run_all, model, inputs)},
            device=device,
            rounds=3,
        )


def _difference(ours: Sequence[ClassMoments], theirs: Sequence[ClassMoments]) -> float:
    return max(float(np.abs(a.mean - b.mean).max()) for a, b in zip(ours, theirs, strict=True))
