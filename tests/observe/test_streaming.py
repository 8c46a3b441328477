"""Streaming observes what whole passes observe, in about one pass."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from detectors import CLASSES, Detector, Images
from torch import nn

from seqprune import trace
from seqprune.engine.sequential import prune_sequentially
from seqprune.engine.steps import Settings
from seqprune.observe.extract import observe
from seqprune.observe.streaming import Blocks, BlockStream

CHAIN = Blocks("model", tuple((i - 1,) for i in range(6)), (False,) * 6)
LAYERS = ["model.1.conv", "model.2.cv1.conv", "model.2.m.0.0.conv", "model.3.conv", "model.4.cv2.conv"]
SETTINGS = Settings(keep=0.5, match="all")


class Counted(Detector):
    """Counts how often each block runs."""

    def __init__(self) -> None:
        super().__init__()
        self.runs = [0] * len(self.model)
        for at, block in enumerate(self.model):
            block.register_forward_pre_hook(lambda _m, _a, at=at: self.count(at))

    def count(self, at: int) -> None:
        self.runs[at] += 1


def test_moments_are_identical_to_those_of_whole_passes() -> None:
    model, images = Detector(), Images()
    stream = BlockStream(CHAIN)
    for name in LAYERS:
        streamed = observe(model, [name], images, CLASSES, stream=stream).moments[name]
        whole = observe(model, [name], images, CLASSES).moments[name]
        np.testing.assert_array_equal(streamed.mean, whole.mean)
        np.testing.assert_array_equal(streamed.m2, whole.m2)


@pytest.mark.parametrize("cache_bytes", [1 << 30, 100_000, 0])
def test_plans_are_identical_whatever_is_kept(cache_bytes: int) -> None:
    graph = trace(Detector(), torch.zeros(1, 3, 32, 32))
    told: list[str] = []
    stream = BlockStream(CHAIN, cache_bytes, warn=told.append)
    streamed = prune_sequentially(Detector(), graph, LAYERS, Images(), CLASSES, settings=SETTINGS, stream=stream)
    whole = prune_sequentially(Detector(), graph, LAYERS, Images(), CLASSES, settings=SETTINGS)
    assert streamed[0] == whole[0]
    assert len(told) == (cache_bytes < 1 << 30)  # said once, not once a step


def test_every_block_runs_once_to_pass_and_once_for_each_of_its_layers() -> None:
    model = Counted()
    graph = trace(Detector(), torch.zeros(1, 3, 32, 32))
    stream = BlockStream(CHAIN)
    prune_sequentially(model, graph, LAYERS, Images(), CLASSES, settings=SETTINGS, stream=stream)
    batches = len(Images())
    # Block 2 is run for its two layers and once more to pass it; nothing passes block 4.
    assert model.runs == [batches, 2 * batches, 3 * batches, 2 * batches, batches, 0]


def test_images_are_decoded_once() -> None:
    class Decoded(Images):
        passes = 0

        def __iter__(self):  # type: ignore[no-untyped-def]
            self.passes += 1
            return super().__iter__()

    images = Decoded()
    stream = BlockStream(CHAIN)
    for name in LAYERS:
        observe(Detector(), [name], images, CLASSES, stream=stream)
    assert images.passes == 1


def test_only_outputs_that_will_be_read_are_kept() -> None:
    skip = Blocks("model", ((-1,), (0,), (1,), (2,), (3,), (4, 1)), (False,) * 5 + (True,))
    stream = BlockStream(skip)
    observe(Detector(), ["model.4.cv2.conv"], Images(), CLASSES, stream=stream)
    assert stream._positions is not None
    assert set(stream.shelf.read(stream._positions[0].kept, torch.device("cpu"))) == {1, 3}


def test_going_back_starts_again() -> None:
    model, images = Detector(), Images()
    stream = BlockStream(CHAIN)
    observe(model, ["model.4.cv2.conv"], images, CLASSES, stream=stream)
    again = observe(model, ["model.1.conv"], images, CLASSES, stream=stream).moments["model.1.conv"]
    np.testing.assert_array_equal(
        again.mean, observe(model, ["model.1.conv"], images, CLASSES).moments["model.1.conv"].mean
    )


def test_fine_tuning_between_steps_is_seen() -> None:
    """Kept outputs are those of weights that have changed since."""
    graph = trace(Detector(), torch.zeros(1, 3, 32, 32))

    def retrained(model: nn.Module, _plan: object) -> nn.Module:
        with torch.no_grad():
            model.get_submodule("model.0.conv").weight.mul_(1.5)
        return model

    def plan(stream: BlockStream | None) -> object:
        return prune_sequentially(
            Detector(), graph, LAYERS, Images(), CLASSES, settings=SETTINGS, stream=stream, after_step=retrained
        )[0]

    assert plan(BlockStream(CHAIN)) == plan(None)
