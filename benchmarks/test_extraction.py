"""Observing a layer: images a second, beside the bare forward pass and beside the predecessor's way.

The floor is the forward pass of the blocks before the layer and of its convolution, nothing else, on images that are
floating point and on the device already; ours is given what the data room gives, unsigned bytes in memory.
"""

from __future__ import annotations

from functools import cache, partial
from typing import Any

import numpy as np
import pytest
import torch
from torch import nn

from benchmarks import predecessor
from benchmarks.timing import in_turns, timed
from seqprune.observe.batch import Batch
from seqprune.observe.extract import observe
from seqprune.select.moments import ClassMoments
from seqprune.yolo.files.load import load

CLASSES = 80
OBJECTS = 7  # in an image, as COCO has them
LAYERS = ("model.1.conv", "model.5.conv", "model.9.cv1.conv")

layers = pytest.mark.parametrize("layer", LAYERS)
batches = pytest.mark.parametrize(
    "batch",
    [pytest.param(b, id=f"batch {b}") for b in (1, 8)]
    + [pytest.param(b, id=f"batch {b}", marks=pytest.mark.full) for b in (16, 32, 64)],
)


@cache
def network(device: torch.device) -> nn.Module:
    torch.manual_seed(0)
    return load("yolov8n.yaml").model.to(device)


def labelled(batch: int, device: torch.device, full: bool) -> list[Batch]:
    """Noise with random boxes; two batches, or as many as make 16 images."""
    count = max(2, 16 // batch)
    side = 640 if full else 320
    draw = torch.Generator().manual_seed(0)

    def one() -> Batch:
        images = torch.randint(0, 256, (batch, 3, side, side), dtype=torch.uint8, generator=draw)
        corner = torch.rand(batch * OBJECTS, 2, generator=draw) * side * 0.8
        boxes = torch.cat([corner, corner + torch.rand(batch * OBJECTS, 2, generator=draw) * side * 0.2], 1)
        return Batch(
            images.pin_memory() if device.type == "cuda" else images,
            torch.arange(batch).repeat_interleave(OBJECTS),
            torch.randint(0, CLASSES, (batch * OBJECTS,), generator=draw),
            boxes,
        )

    return [one() for _ in range(count)]


def bare_forward(model: nn.Module, layer: str) -> nn.Module:
    """The blocks before the layer and the way to its convolution, as one module; right for these layers only."""
    block = int(layer.split(".")[1])
    return nn.Sequential(*model.model[:block], model.get_submodule(layer))


def run_all(prefix: nn.Module, inputs: list[torch.Tensor]) -> None:
    with torch.no_grad():
        for images in inputs:
            prefix(images)


@layers
@batches
class TestExtraction:
    def test_of_object_vectors(self, benchmark: Any, layer: str, batch: int, device: torch.device, full: bool) -> None:
        model, images = network(device), labelled(batch, device, full)
        inputs = [(b.images.to(device) / 255).float() for b in images]
        benchmark.group = f"extraction up to {layer}, batch {batch}"
        turns = in_turns(
            benchmark,
            partial(observe, model, [layer], images, CLASSES),
            beside={"floor": partial(run_all, bare_forward(model, layer), inputs)},
            device=device,
            rounds=9,
            warm_up=2,
        )
        slow = timed(partial(predecessor.observe, model, layer, images, CLASSES), device)
        benchmark.extra_info["predecessor_seconds"] = slow.seconds
        benchmark.extra_info["ratio_to_predecessor"] = turns.best("ours") / slow.seconds
        benchmark.extra_info["images_per_second"] = batch * len(images) / turns.best("ours")
        benchmark.extra_info["objects"] = turns.results["ours"].objects
        benchmark.extra_info["largest_difference"] = _difference(turns.results["ours"].moments[layer], slow.result)
        assert benchmark.extra_info["largest_difference"] < 1e-3

    def test_the_bare_forward_pass(
        self, benchmark: Any, layer: str, batch: int, device: torch.device, full: bool
    ) -> None:
        prefix = bare_forward(network(device), layer)
        inputs = [(b.images.to(device) / 255).float() for b in labelled(batch, device, full)]
        benchmark.group = f"extraction up to {layer}, batch {batch}"
        in_turns(benchmark, partial(run_all, prefix, inputs), beside={}, device=device, rounds=3)


@layers
def test_the_predecessors_way_one_image_at_a_time(benchmark: Any, layer: str, device: torch.device, full: bool) -> None:
    model, images = network(device), labelled(8, device, full)
    benchmark.group = f"extraction up to {layer}, batch 8"
    in_turns(benchmark, partial(predecessor.observe, model, layer, images, CLASSES), beside={}, device=device, rounds=2)


def _difference(ours: ClassMoments, theirs: predecessor.Samples) -> float:
    """Of the means, relative to the spread of the channel; the order of sums differs, so never quite 0."""
    kinds = sorted(theirs)
    mean = np.array([np.mean(theirs[kind], 0, dtype=np.float64) for kind in kinds])
    assert ours.classes == tuple(kinds)
    assert ours.count.tolist() == [len(theirs[kind]) for kind in kinds]
    return float((np.abs(ours.mean - mean) / mean.std(0).clip(min=1e-12)).max())
