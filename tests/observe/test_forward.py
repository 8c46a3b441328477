"""Batches go through the network whole, in halves where memory runs out, in mixed precision where asked for."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest
import torch
from detectors import CLASSES, Detector, Images, find_all
from torch import nn

from seqprune import mask, trace
from seqprune.errors import InputError
from seqprune.observe.extract import match_objects, observe
from seqprune.observe.forward import Forward
from seqprune.observe.patches import POSITIONS, Sampler
from seqprune.observe.relevance import relevance_of
from seqprune.observe.sources import second_moments
from seqprune.observe.streaming import Blocks, BlockStream
from seqprune.repair.recover import _statistics
from seqprune.repair.refit import refit
from seqprune.testing.networks import random_plan

CHAIN = Blocks("model", tuple((i - 1,) for i in range(6)), (False,) * 6)
LAYERS = ["model.1.conv", "model.3.conv"]


class SmallMemory(Detector):
    """A detector that has room for a few images at a time."""

    def __init__(self, room: int) -> None:
        super().__init__()
        self.sizes: list[int] = []
        self.room = room
        self.model[0].register_forward_pre_hook(self.check)

    def check(self, _module: nn.Module, inputs: tuple[torch.Tensor, ...]) -> None:
        self.sizes.append(len(inputs[0]))
        if len(inputs[0]) > self.room:
            raise torch.cuda.OutOfMemoryError("CUDA out of memory. Tried to allocate 2.00 GiB")


@pytest.mark.parametrize("streamed", [False, True])
def test_running_out_of_memory_halves_the_batch_and_says_so(streamed: bool) -> None:
    told: list[str] = []
    model, forward = SmallMemory(room=3), Forward(warn=told.append)
    stream = BlockStream(CHAIN) if streamed else None
    for layers in ([LAYERS[0]], [LAYERS[1]]):
        halved = observe(model, layers, Images(), CLASSES, stream=stream, forward=forward)
        whole = observe(Detector(), layers, Images(), CLASSES)
        assert halved.objects == whole.objects
        np.testing.assert_array_equal(halved.moments[layers[0]].count, whole.moments[layers[0]].count)
        np.testing.assert_allclose(halved.moments[layers[0]].mean, whole.moments[layers[0]].mean, rtol=1e-5, atol=1e-6)
        np.testing.assert_allclose(halved.moments[layers[0]].m2, whole.moments[layers[0]].m2, rtol=1e-5, atol=1e-5)
    assert model.sizes[:3] == [8, 4, 2]
    assert set(model.sizes[3:]) == {2}  # remembered from then on
    assert told == [
        "CUDA ran out of memory with 8 images at a time: 4 from now on",
        "CUDA ran out of memory with 4 images at a time: 2 from now on",
    ]


def test_matching_is_halved_as_well() -> None:
    def short(model: nn.Module, images: torch.Tensor) -> list[torch.Tensor]:
        if len(images) > 3:
            raise torch.cuda.OutOfMemoryError("CUDA out of memory")
        return find_all(model, images)

    halved = match_objects(Detector(), short, Images(), forward=Forward())
    for some, others in zip(halved, match_objects(Detector(), find_all, Images()), strict=True):
        assert torch.equal(some, others)


def test_one_image_that_does_not_fit_is_an_error() -> None:
    with pytest.raises(InputError, match="one image at a time"):
        observe(SmallMemory(room=0), LAYERS, Images(), CLASSES)


def test_mixed_precision_is_close_and_keeps_the_model_as_it_is() -> None:
    model = Detector()
    mixed = observe(model, LAYERS, Images(), CLASSES, forward=Forward(amp=True)).moments
    full = observe(model, LAYERS, Images(), CLASSES).moments
    assert {p.dtype for p in model.parameters()} == {torch.float32}
    for name in LAYERS:
        apart = np.abs(mixed[name].mean - full[name].mean).max() / np.abs(full[name].mean).max()
        assert 0 < apart < 0.02


class Halfway(Detector):
    """A detector that runs out of memory behind its second convolution, when the first has been looked at."""

    def __init__(self, room: int = 8) -> None:
        super().__init__()
        self.room = room
        self.model[2].register_forward_pre_hook(self.check)

    def check(self, _module: nn.Module, inputs: tuple[torch.Tensor, ...]) -> None:
        if len(inputs[0]) > self.room:
            raise torch.cuda.OutOfMemoryError("CUDA out of memory")


NAMES = ["model.0.conv", "model.1.conv", "model.4.cv2.conv", "model.5.0"]


@pytest.mark.parametrize("room", [3, 5])
def test_what_was_seen_before_memory_ran_out_counts_once(room: int) -> None:
    halved, _ = second_moments(Halfway(room), NAMES, Images(), Sampler(), forward=Forward())
    whole, _ = second_moments(Detector(), NAMES, Images(), Sampler())
    for name, seen in whole.items():
        assert halved[name].count == seen.count
        torch.testing.assert_close(halved[name].mean, seen.mean, rtol=1e-4, atol=1e-6)
        torch.testing.assert_close(halved[name].products, seen.products, rtol=1e-4, atol=1e-2)


def test_a_convolution_that_runs_twice_is_counted_twice_in_halves_too() -> None:
    class Twice(Halfway):
        def forward(self, x: torch.Tensor) -> torch.Tensor:
            x = self.model[0](x)
            return self.model[2](self.model[1](x)) + self.model[2](self.model[1](x))

    counts = [
        second_moments(Twice(room), ["model.1.conv"], Images(), Sampler(), forward=Forward())[0]["model.1.conv"].count
        for room in (8, 3)
    ]
    assert counts[0] == counts[1] == 2 * 24 * POSITIONS


def test_statistics_are_those_of_the_halves_alone() -> None:
    """What a batch that did not fit left in the first BatchNorms is taken back."""
    fours = Images(count=0)
    fours.batches = [
        replace(batch, images=batch.images[at : at + 4]) for batch in Images() for at in range(0, len(batch.images), 4)
    ]
    halved, whole = _statistics(Halfway(4), Images(), Forward()), _statistics(Detector(), fours, Forward())
    for name, pair in whole.items():
        torch.testing.assert_close(halved[name], pair)


def test_errors_are_asked_with_the_same_draws_in_halves() -> None:
    def probe(model: nn.Module, x: torch.Tensor, random: torch.Generator) -> torch.Tensor:
        signs = torch.rand(len(x), generator=random)
        y = model(x)
        return (y.square().sum((1, 2, 3)) * signs).sum()

    whole, halved = (
        relevance_of(model, NAMES, Images(), probe, forward=Forward()) for model in (Detector(), Halfway(1))
    )
    for name in NAMES:
        torch.testing.assert_close(halved.curvature[name], whole.curvature[name], rtol=1e-4, atol=0.0)


def test_a_fit_in_halves_is_the_fit() -> None:
    fitted = []
    for room in (8, 3):
        model = Halfway(room)
        graph = trace(Detector(), torch.zeros(1, 3, 32, 32))
        plan = random_plan(graph, 1, 0.4)
        masked = mask(model, plan, graph)
        refit(model, masked, graph, plan.removed_groups(graph), Images(), [[name] for name in NAMES], forward=Forward())
        fitted.append(masked.state_dict())
    for name, tensor in fitted[0].items():
        # Sums in another order move a sample across the kink of a ReLU here and there.
        torch.testing.assert_close(tensor, fitted[1][name], rtol=1e-3, atol=5e-4)
