"""The errors the predecessor's half-applied pruning ended in, word for word, and their absence from ours.

It narrowed the next layer's input and left the producer wide, and it flattened blocks into a sequence to look
inside them. Neither may be possible here.
"""

from __future__ import annotations

import pytest
import torch
from torch import nn

from seqprune.measure import reproduce
from seqprune.yolo.files.load import load

pytestmark = pytest.mark.regression


@pytest.fixture(scope="module")
def network() -> nn.Module:
    with torch.random.fork_rng():
        torch.manual_seed(0)
        return load(reproduce.MODEL).model


@pytest.fixture(scope="module")
def image() -> torch.Tensor:
    return torch.full((1, 3, reproduce.HEIGHT, reproduce.WIDTH), 0.5)


def test_a_consumer_narrowed_before_its_producer(network: nn.Module, image: torch.Tensor) -> None:
    """RuntimeError: ... expected input[1, 256, 22, 32] to have 118 channels, but got 256 channels instead."""
    with torch.no_grad(), pytest.raises(RuntimeError) as caught:
        reproduce.half_prune(network)(image)
    assert str(caught.value) == (
        "Given groups=1, weight of size [256, 118, 1, 1], expected input[1, 256, 22, 32] to have 118 "
        "channels, but got 256 channels instead"
    )


def test_a_block_flattened_into_a_sequence(network: nn.Module, image: torch.Tensor) -> None:
    """RuntimeError: ... expected input[1, 128, 44, 64] to have 256 channels, but got 128 channels instead."""
    with torch.no_grad(), pytest.raises(RuntimeError) as caught:
        reproduce.mini_net(network, 4)(image)
    assert str(caught.value) == (
        "Given groups=1, weight of size [128, 256, 1, 1], expected input[1, 128, 44, 64] to have 256 "
        "channels, but got 128 channels instead"
    )


def test_a_neck_flattened_into_a_sequence(network: nn.Module, image: torch.Tensor) -> None:
    """TypeError: cat(): argument 'tensors' ... for every block from 12 on."""
    with torch.no_grad(), pytest.raises(TypeError) as caught:
        reproduce.mini_net(network, 12)(image)
    worded = str(caught.value)
    if "invalid combination of arguments" not in worded:  # older releases of torch list the overloads instead
        assert worded == "cat(): argument 'tensors' (position 1) must be tuple of Tensors, not Tensor"
    assert worded.startswith("cat()")
    finding = reproduce.flattened_neck(network, image)
    assert "model.12 to model.22" in finding.title
    assert finding.ok, finding.seen


def test_the_same_layers_through_seqprune(network: nn.Module, image: torch.Tensor) -> None:
    """Five layers in five blocks, given back to front: no error, and both sides of the first one agree."""
    finding = reproduce.front_to_back(network, image)
    assert finding.ok, finding.seen
    assert "model.5.conv makes 118 channels, model.6.cv1.conv takes 118" in finding.seen


def test_layers_inside_those_blocks_are_observed(network: nn.Module, image: torch.Tensor) -> None:
    """What flattening was for works on the network as it is, in C2f blocks and behind ``Concat``."""
    finding = reproduce.observed(network, image)
    assert finding.ok, finding.seen


def test_a_failure_that_stays_away_is_told(network: nn.Module, image: torch.Tensor) -> None:
    """The findings can fail: an intact network does not give the error."""
    finding = reproduce.Finding("run it whole", reproduce.HALF_APPLIED, reproduce.outcome(lambda: network(image)))
    assert finding.seen == "no error"
    assert not finding.ok
