"""Batches go through the network whole, in halves where memory runs out, in mixed precision where asked for."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from detectors import CLASSES, Detector, Images, find_all
from torch import nn

from seqprune.errors import InputError
from seqprune.observe.extract import match_objects, observe
from seqprune.observe.forward import Forward
from seqprune.observe.streaming import Blocks, BlockStream

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
