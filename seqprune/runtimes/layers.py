"""Single layers as they might become, to be timed: convolutions in a row with an activation behind."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, replace
from typing import Protocol, cast

import torch
from torch import nn
from torch.nn.utils import skip_init

from seqprune.graph.modes import inference
from seqprune.observe.inputs import Inputs, call, mapped
from seqprune.observe.watching import watching

Pair = tuple[int, int]


@dataclass(frozen=True)
class Convolution:
    """One convolution, as torch makes it."""

    inputs: int
    outputs: int
    kernel: Pair
    stride: Pair = (1, 1)
    padding: Pair = (0, 0)
    dilation: Pair = (1, 1)
    groups: int = 1

    @classmethod
    def of(cls, conv: nn.Conv2d) -> Convolution:
        """Of a module; padding by a word is taken for none."""
        padding = (0, 0) if isinstance(conv.padding, str) else cast(Pair, tuple(conv.padding))
        sizes = (cast(Pair, tuple(each)) for each in (conv.kernel_size, conv.stride))
        kernel, stride = sizes
        return cls(conv.in_channels, conv.out_channels, kernel, stride, padding, cast(Pair, conv.dilation), conv.groups)

    def module(self) -> nn.Conv2d:
        """With weights that are always the same."""
        about = (self.inputs, self.outputs, self.kernel, self.stride, self.padding, self.dilation, self.groups)
        made: nn.Conv2d = skip_init(nn.Conv2d, *about)  # type: ignore[no-untyped-call]
        random = torch.Generator().manual_seed(0)  # of its own: the caller's random numbers stay where they are
        with torch.no_grad():
            for parameter in made.parameters():
                parameter.uniform_(-0.1, 0.1, generator=random)
        return made

    def narrowed(self, inputs: int, outputs: int) -> Convolution:
        """With other widths; one of groups of its own keeps one input a group."""
        if self.groups > 1:
            return replace(self, inputs=outputs, outputs=outputs, groups=outputs)
        return replace(self, inputs=inputs, outputs=outputs)

    def factored(self, column_first: bool, rank: int) -> tuple[Convolution, Convolution]:
        """As two with ``rank`` channels between; see :mod:`seqprune.graph.factor`."""
        at = 0 if column_first else 1

        def along(dim: int, inputs: int, outputs: int) -> Convolution:
            def only(values: Pair, neutral: int) -> Pair:
                return (values[0], neutral) if dim == 0 else (neutral, values[1])

            shape = only(self.kernel, 1), only(self.stride, 1), only(self.padding, 0), only(self.dilation, 1)
            return Convolution(inputs, outputs, *shape)

        return along(at, self.inputs, rank), along(1 - at, rank, self.outputs)


@dataclass(frozen=True)
class Chain:
    """A layer, or what stands in its place.

    Attributes:
        convolutions: one behind the other.
        height, width: of what it reads.
        batch: images at a time.
    """

    convolutions: tuple[Convolution, ...]
    height: int
    width: int
    batch: int = 1

    def module(self) -> nn.Module:
        """With an activation behind it, as most layers have one."""
        return nn.Sequential(*(each.module() for each in self.convolutions), nn.SiLU()).eval()

    def inputs(self) -> torch.Tensor:
        return torch.full((self.batch, self.convolutions[0].inputs, self.height, self.width), 0.5)


@dataclass(frozen=True)
class Place:
    """Where a convolution stands: what it is, the map that it reads, and how often it is run in one pass."""

    convolution: Convolution
    height: int
    width: int
    batch: int
    uses: int = 1

    def chain(self, *convolutions: Convolution) -> Chain:
        """What might stand here; the layer itself where nothing is given."""
        return Chain(convolutions or (self.convolution,), self.height, self.width, self.batch)


class Timing(Protocol):
    """Measured times, found now or before."""

    def share(self, whole: nn.Module, smaller: nn.Module) -> float:
        """Of the time of a network that another takes, both timed in turns."""

    def milliseconds(self, model: nn.Module) -> float:
        """Of one pass of a network."""

    def layers(self, chains: tuple[Chain, ...]) -> list[float]:
        """Milliseconds of layers, those given together in turns."""


def places_of(model: nn.Module, inputs: Inputs) -> Mapping[str, Place]:
    """By module path, the convolutions over maps that run in one pass."""
    found: dict[str, Place] = {}

    def look(path: str, conv: nn.Module, x: torch.Tensor, _output: torch.Tensor) -> None:
        known = found.get(path)
        place = Place(Convolution.of(cast(nn.Conv2d, conv)), int(x.shape[-2]), int(x.shape[-1]), len(x))
        found[path] = place if known is None else replace(known, uses=known.uses + 1)

    layers = [path for path, module in model.named_modules() if isinstance(module, nn.Conv2d)]
    with watching(model, layers, look), inference(model):
        call(model, mapped(torch.clone, inputs))
    return found
