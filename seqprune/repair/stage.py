"""Convolutions that are fitted together: what is seen of them in both networks, and what they are given."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass, field
from functools import cached_property, partial
from typing import cast

import numpy as np
import torch
from torch import nn

from seqprune.graph.channels import BoolArray
from seqprune.observe.forward import Forward, Once
from seqprune.observe.maps import TRANSPOSED, Positions, as_weight, map_size, taps, values_at, weight_rows
from seqprune.observe.patches import Drawn, SecondMoments, enough, patches
from seqprune.observe.ranks import ALONE, Pieces, Ranks
from seqprune.observe.reading import Reading
from seqprune.observe.sources import Places
from seqprune.observe.streaming import Pass
from seqprune.observe.watching import entering, idle, watching
from seqprune.repair.curve import Samples, bend
from seqprune.repair.solve import solve

FLAT = 1e-3
"""Of the greatest factor of a BatchNorm: where it is less, nothing is made up for in front of it."""
ENOUGH = 128
"""Samples for every weight of a row of a convolution in groups: each of them has few weights, all together read much,
and of more samples they would gain less than one percent."""


class _Reached(Exception):
    pass


@dataclass
class Stage:
    """Convolutions that are fitted together, and what was seen of them.

    What they read hangs neither on what they give themselves nor on what the ``later`` ones do: in the pruned network
    these need not be computed.
    """

    original: nn.Module
    pruned: nn.Module
    names: Sequence[str]
    samples: dict[str, Samples]
    reading: Reading
    batches: int
    later: Sequence[str] = ()
    ranks: Ranks = ALONE
    moments: dict[str, SecondMoments] = field(default_factory=dict)
    drift: dict[str, bool | torch.Tensor] = field(default_factory=dict)

    @cached_property
    def pieces(self) -> Pieces:
        """What is seen of the batches, by all processes; each gets what the layers need that it fits."""
        return Pieces(self.ranks, self.put, {name: number for number, name in enumerate(self.names)})

    def put(
        self,
        name: str,
        drifted: bool | torch.Tensor,
        seen: torch.Tensor,
        wanted: torch.Tensor,
        weight: torch.Tensor | None,
    ) -> None:
        """One batch's part of one layer."""
        self.drift[name] = self.drift.get(name, False) | drifted
        device = next(self.pruned.parameters()).device
        seen, wanted = seen.to(device), wanted.to(device)
        self.moments.setdefault(name, SecondMoments()).update(seen, wanted, weight)
        if name in self.samples:
            self.samples[name].add(seen[0], wanted[0], weight)

    @cached_property
    def shortcuts(self) -> dict[str, str]:
        """By layer, what reads the tensor that is added to its outputs."""
        paths = {name: self.reading.unit(name).shortcut for name in self.names}
        there = dict(self.pruned.named_modules())
        return {name: path for name, path in paths.items() if path is not None and path in there}

    def look(self, whole: Pass, part: Pass, places: Places, forward: Forward) -> None:
        """Runs one batch through both networks."""
        device = next(self.pruned.parameters()).device
        run_whole, run_part, once = whole.ready(), part.ready(), Once()
        drawn_for = partial(self.drawn, places, self.batches * whole.images)

        def run(images: slice) -> None:
            before: dict[str, tuple[torch.Tensor | None, torch.Tensor]] = {}
            beside: tuple[dict[str, torch.Tensor], dict[str, torch.Tensor]] = ({}, {})
            idling: dict[str, torch.Tensor] = {}
            again: set[str] = set()  # what a layer gives in its second run may be read by those of this stage
            mine = set(self.names)

            def target(name: str, layer: nn.Module, x: torch.Tensor, output: torch.Tensor) -> None:
                again.update({name} & idling.keys())
                idling[name] = output.new_empty(()).expand(output.shape)
                if name in before or name not in mine:
                    return  # a layer that runs twice is fitted to its first run
                where = drawn_for(name, layer, output, images).where
                wanted = values_at(layer, output, where)
                if (added := self.added(name, layer, output, beside[0], where)) is not None:
                    wanted = wanted + added
                known = self.drift.get(name) is True  # it is not compared again
                before[name] = None if known else patches(layer, x, where, output), wanted
                if len(before) == len(self.names):
                    raise _Reached

            def source(name: str, layer: nn.Module, x: torch.Tensor, output: torch.Tensor) -> None:
                if name not in before:
                    return
                drawn = drawn_for(name, layer, output, images)
                seen = patches(layer, x, drawn.where, output)
                unpruned, wanted = before.pop(name)
                drifted = unpruned is None or differ(unpruned, seen)
                if (added := self.added(name, layer, output, beside[1], drawn.where)) is not None:
                    wanted = wanted - added
                wanted = wanted.reshape(len(wanted), len(seen), -1).transpose(0, 1)

                once(name, images, lambda: self.pieces.add(name, drifted, seen, wanted, drawn.weight))
                if not before:
                    raise _Reached

            paths = set(self.shortcuts.values())
            with (
                entering(self.original, paths, beside[0].__setitem__),
                watching(self.original, [*self.names, *self.later], target),
                suppress(_Reached),
            ):
                run_whole(images)
            with (
                entering(self.pruned, paths, beside[1].__setitem__),
                watching(self.pruned, self.names, source),
                idle(self.pruned, {name: made for name, made in idling.items() if name not in again}),
                suppress(_Reached),
            ):
                run_part(images)

        forward(whole.images, device, run)

    @staticmethod
    def drawn(places: Places, all_: int, name: str, layer: nn.Module, output: torch.Tensor, images: slice) -> Drawn:
        """Where to look at a layer's output for some images, of ``all_`` that there are."""
        drawn = places.of(name, map_size(layer, output), images)
        if getattr(layer, "groups", 1) == 1:
            return drawn
        return drawn.thinned(images.stop - images.start, enough(layer, all_, ENOUGH))

    def added(
        self, name: str, layer: nn.Module, output: torch.Tensor, beside: Mapping[str, torch.Tensor], where: Positions
    ) -> torch.Tensor | None:
        """What is added to a layer's outputs behind its BatchNorm, as if it were in front of that: ``[N, outputs]``."""
        found = beside.get(self.shortcuts.get(name, ""))
        if found is None or found.shape != output.shape:
            return None
        scale = self.reading.unit(name).affine(self.original, name)[0].float()
        flat = scale.abs() <= FLAT * scale.abs().max()  # what an output does there is next to nothing
        return values_at(layer, found, where).float() / scale.masked_fill(flat, torch.inf)

    def fit(
        self, name: str, inputs: BoolArray | None, outputs: BoolArray | None, ridge: float | None
    ) -> tuple[torch.Tensor, torch.Tensor]:
        """Weights and offsets of one convolution."""
        conv = cast(nn.Conv2d, self.pruned.get_submodule(name))
        offset = conv.bias is not None or self.reading.unit(name).norm is not None
        whole = cast(nn.Conv2d, self.original.get_submodule(name))
        weight = weight_rows(conv if is_other(conv, whole) else whole).double()
        weight = weight * weight_rows(conv).any(0)  # nothing is kept of what a block made that left
        moments = self.moments[name].finite(name)
        found = solve(weight, moments, inputs, ridge, offset)
        if ridge is None or name not in self.samples:
            return found
        return bend(weight, *found, moments, self.samples.pop(name), inputs, ridge, outputs)


def differ(one: torch.Tensor, other: torch.Tensor) -> bool | torch.Tensor:
    """Whether they do; a GPU is not asked for the answer before it is needed."""
    return (one != other).any() if one.is_cuda else not torch.equal(one, other)


def is_other(conv: nn.Module, whole: nn.Module) -> bool:
    """Whether a convolution is a factor of the one that it is fitted to."""
    return getattr(conv, "kernel_size", None) != getattr(whole, "kernel_size", None)


def write(
    original: nn.Module,
    masked: nn.Module,
    name: str,
    norm: str | None,
    fit: tuple[torch.Tensor, torch.Tensor],
    outputs: BoolArray | None,
) -> None:
    """Gives one convolution the fitted weights, and its bias or BatchNorm the fitted offset."""
    conv = cast(nn.Conv2d, masked.get_submodule(name))
    fitted, offset = fit
    offset = offset.reshape(-1, taps(conv)).mean(1)  # a channel has one
    live = torch.from_numpy(np.ones(len(offset), bool) if outputs is None else outputs).to(fitted.device)
    with torch.no_grad():
        its = (slice(None), live) if isinstance(conv, TRANSPOSED) else live
        conv.weight[its] = as_weight(conv, fitted)[its].to(conv.weight.dtype)
        if conv.bias is not None:
            conv.bias[live] = offset[live].to(conv.bias.dtype)
        elif norm is not None:
            before = cast(torch.Tensor, cast(nn.BatchNorm2d, original.get_submodule(norm)).running_mean)
            mean = cast(torch.Tensor, cast(nn.BatchNorm2d, masked.get_submodule(norm)).running_mean)
            mean[live] = (before.double() - offset)[live].to(mean.dtype)
