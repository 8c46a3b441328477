"""Pruners with one fault each, planted to be found."""

from __future__ import annotations

import os
import signal
import time
from collections.abc import Mapping, Sequence
from typing import Any

import torch
from torch import nn

from seqprune.testing.networks import SplitBlock
from seqprune.testing.ours import exact

Inputs = tuple[torch.Tensor, ...]
Keep = Mapping[str, Sequence[int]]


def loses_a_channel(module: nn.Module, inputs: Inputs, keep: Keep) -> nn.Module:
    """In the last convolution of one split block (a C2f) one channel more is gone; its reader gets zeros."""
    small = exact(module, inputs, keep)
    block = next(m for m in small.modules() if isinstance(m, SplitBlock) or type(m).__name__ == "C2f")
    unit: Any = block.cv2
    unit.conv.weight = nn.Parameter(unit.conv.weight.detach()[:-1])
    unit.conv.out_channels -= 1
    for name in ("weight", "bias"):
        setattr(unit.bn, name, nn.Parameter(getattr(unit.bn, name).detach()[:-1]))
    unit.bn.running_mean, unit.bn.running_var = unit.bn.running_mean[:-1], unit.bn.running_var[:-1]
    unit.register_forward_hook(lambda _m, _i, out: torch.cat([out, torch.zeros_like(out[:, :1])], 1))
    return small


def forgets_a_batchnorm(module: nn.Module, inputs: Inputs, keep: Keep) -> nn.Module:
    """One BatchNorm has the right width, but the numbers of the first channels, whichever stayed."""
    small = exact(module, inputs, keep)
    for name, norm in small.named_modules():
        if isinstance(norm, nn.BatchNorm2d):
            whole: Any = module.get_submodule(name)
            if norm.num_features < whole.num_features:
                norm.running_mean, norm.running_var = (
                    statistics[: norm.num_features].clone() for statistics in (whole.running_mean, whole.running_var)
                )
                return small
    raise AssertionError("no BatchNorm was pruned")


def reorders(module: nn.Module, inputs: Inputs, keep: Keep) -> nn.Module:
    """The rows of one pruned layer are turned round, and nothing else is."""
    small = exact(module, inputs, keep)
    name = next(iter(keep))
    layer: Any = small.get_submodule(name)
    layer.weight = nn.Parameter(layer.weight.detach().flip(0))
    return small


def ends_its_process(module: nn.Module, inputs: Inputs, keep: Keep) -> nn.Module:
    os.abort()


def takes_for_ever(module: nn.Module, inputs: Inputs, keep: Keep) -> nn.Module:
    while True:
        pass


def sleeps(module: nn.Module, inputs: Inputs, keep: Keep) -> nn.Module:
    time.sleep(600)
    return module


def takes_all_memory(module: nn.Module, inputs: Inputs, keep: Keep) -> nn.Module:
    module.register_buffer("hoard", torch.zeros(4 * 2**30, dtype=torch.uint8))
    return module


def ends_the_suite(module: nn.Module, inputs: Inputs, keep: Keep) -> nn.Module:
    """The process that it was forked from, and itself."""
    os.killpg(0, signal.SIGKILL)
    raise AssertionError("it goes on")


def overwrites_the_network(module: nn.Module, inputs: Inputs, keep: Keep) -> nn.Module:
    """What it is given and what lies about: the images are the suite's own."""
    for image in inputs:
        image.zero_()
    for parameter in module.parameters():
        parameter.data.zero_()
    return exact(module, inputs, keep)


def exits(module: nn.Module, inputs: Inputs, keep: Keep) -> nn.Module:
    raise SystemExit("enough")


def tiny() -> tuple[nn.Module, Inputs]:
    """A network in the way of ``--model package.module:function``."""
    from seqprune.testing.networks import SIDE, Unit, randomise

    net = nn.Sequential(
        Unit(3, 8, act=1), SplitBlock(8, 10, 4, 1, shortcut=True), Unit(10, 6, act=1), nn.Conv2d(6, 2, 1)
    )
    randomise(net, 0)
    image = torch.rand(1, 3, SIDE, SIDE, dtype=torch.float64, generator=torch.Generator().manual_seed(0))
    return net.double().eval(), (image,)
