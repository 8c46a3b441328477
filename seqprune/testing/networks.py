"""Small networks of the blocks that real ones are made of, weights under which a wrong channel shows, random plans."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import cast

import numpy as np
import torch
from torch import nn
from torch.nn import functional as F  # noqa: N812 - its usual name

from seqprune.graph.channels import BoolArray, ChannelGraph
from seqprune.plan import PrunePlan

SIDE = 6
ACTIVATIONS: tuple[Callable[[], nn.Module], ...] = (nn.ReLU, nn.SiLU, nn.Hardswish, nn.Tanh, nn.Identity)


class Unit(nn.Module):
    """Convolution, BatchNorm and an activation, as most networks have them."""

    def __init__(self, inputs: int, outputs: int, groups: int = 1, kernel: int = 3, act: int = 0, bias: bool = False):
        super().__init__()
        self.conv = nn.Conv2d(inputs, outputs, kernel, padding=kernel // 2, groups=groups, bias=bias)
        self.bn = nn.BatchNorm2d(outputs)
        self.act = ACTIVATIONS[act]()

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        out: torch.Tensor = self.act(self.bn(self.conv(x)))
        return out


class SplitBlock(nn.Module):
    """C2f-like: halves of one convolution, residual branches on the second, everything concatenated."""

    def __init__(self, inputs: int, outputs: int, half: int, depth: int, shortcut: bool):
        super().__init__()
        self.cv1 = Unit(inputs, 2 * half, kernel=1)
        self.cv2 = Unit((2 + depth) * half, outputs, kernel=1)
        self.m = nn.ModuleList(nn.Sequential(Unit(half, half), Unit(half, half)) for _ in range(depth))
        self.shortcut = shortcut

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        parts = list(self.cv1(x).chunk(2, 1))
        for branch in self.m:
            inner = branch(parts[-1])
            parts.append(parts[-1] + inner if self.shortcut else inner)
        out: torch.Tensor = self.cv2(torch.cat(parts, 1))
        return out


class Gate(nn.Module):
    """Squeeze and excitation: a sigmoid, not zero at zero, multiplied with what it gates."""

    def __init__(self, channels: int, hidden: int):
        super().__init__()
        self.down = nn.Conv2d(channels, hidden, 1)
        self.up = nn.Conv2d(hidden, channels, 1)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return x * torch.sigmoid(self.up(F.relu(self.down(x.mean((2, 3), keepdim=True)))))


@dataclass(frozen=True)
class Step:
    """One line of a network's programme: which module reads which earlier results."""

    op: str
    reads: tuple[int, ...]
    module: str = ""


class Network(nn.Module):
    """Runs a programme over a growing list of feature maps; heads make its outputs."""

    def __init__(self, inputs: int = 3):
        super().__init__()
        self.blocks = nn.ModuleDict()
        self.steps: list[Step] = []
        self.widths: list[int] = [inputs]
        self.heads: list[int] = []

    def add(self, op: str, reads: tuple[int, ...], widths: tuple[int, ...], module: nn.Module | None = None) -> None:
        name = ""
        if module is not None:
            name = next((k for k, m in self.blocks.items() if m is module), str(len(self.blocks)))
            self.blocks[name] = module
        self.steps.append(Step(op, reads, name))
        self.widths += widths

    def finish(self) -> None:
        """A head on every result that nothing reads, so that no part of the network is idle."""
        read = {r for step in self.steps for r in step.reads}
        self.heads = [i for i in range(1, len(self.widths)) if i not in read]
        for i in self.heads:
            self.blocks[f"head{i}"] = nn.Conv2d(self.widths[i], 2, 1)

    def forward(self, x: torch.Tensor) -> list[torch.Tensor]:
        maps = [x]
        for step in self.steps:
            given = [maps[r] for r in step.reads]
            if step.op == "module":
                maps.append(self.blocks[step.module](*given))
            elif step.op == "add":
                maps.append(given[0] + given[1])
            elif step.op == "cat":
                maps.append(torch.cat(given, 1))
            elif step.op == "chunk":
                maps += given[0].chunk(2, 1)
        return [self.blocks[f"head{i}"](maps[i]) for i in self.heads]


def randomise(model: nn.Module, seed: int) -> None:
    """Weights and statistics under which a wrong channel shows in the output."""
    generator = torch.Generator().manual_seed(seed)
    with torch.no_grad():
        for module in model.modules():
            if isinstance(module, nn.BatchNorm2d):
                module.weight.uniform_(0.5, 1.5, generator=generator)
                module.bias.normal_(0, 0.5, generator=generator)
                cast(torch.Tensor, module.running_mean).normal_(0, 0.5, generator=generator)
                cast(torch.Tensor, module.running_var).uniform_(0.5, 1.5, generator=generator)
            elif isinstance(module, nn.Conv2d | nn.Linear):
                fan_in = module.weight[0].numel()
                module.weight.normal_(0, fan_in**-0.5, generator=generator)
                if module.bias is not None:
                    module.bias.normal_(0, 0.5, generator=generator)


def example(seed: int = 0, batch: int = 2) -> torch.Tensor:
    return torch.randn(batch, 3, SIDE, SIDE, dtype=torch.float64, generator=torch.Generator().manual_seed(seed))


def random_removal(graph: ChannelGraph, seed: int, share: float = 0.5) -> BoolArray:
    """Groups to remove, made legal by giving channels back."""
    rng = np.random.default_rng(seed)
    removed = (rng.random(graph.group_count) < share) & ~graph.pinned
    return graph.legalise(removed, rng.random(graph.group_count), ~graph.pinned)


def random_plan(graph: ChannelGraph, seed: int, share: float = 0.5) -> PrunePlan:
    return PrunePlan.from_removed(graph, random_removal(graph, seed, share))
