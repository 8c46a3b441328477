"""Any network on any data: what the engine is told of both, and the whole job in one call."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Sequence
from copy import deepcopy
from dataclasses import dataclass
from typing import Any

import torch
from torch import nn

from seqprune.engine.presets import settings_of
from seqprune.engine.sequential import StepReport, prune_sequentially
from seqprune.errors import DataError, InputError
from seqprune.graph import trace
from seqprune.observe.batch import Batch
from seqprune.observe.inputs import as_input
from seqprune.plan import PrunePlan
from seqprune.surgery import Difference, compact, verify

Sample = Sequence[torch.Tensor]
"""``(inputs, classes)`` or ``(inputs, classes, places)``, a batch.

``inputs`` are ``[B, ...]`` floating point, as the network takes them. Without places ``classes`` are ``[B]`` whole
numbers, one an input, and the mean over a layer's map is its vector. ``places`` are ``[M, 3]``: index of the input, row
and column in pixels of ``[B, C, H, W]`` inputs; an object is seen at the cell of a layer's map that lies there, and
``classes`` are ``[M]``.
"""
Samples = Callable[[], Iterable[Sample]]
"""Called anew for every pass over the data."""


@dataclass(frozen=True)
class ModulePruning:
    """What came out.

    Attributes:
        model: the compact network, in inference mode.
        masked: the same at its old widths, removed channels zero.
        plan: what stays of every layer that lost channels.
        steps: one report a layer, front to back.
        difference: how far ``model`` and ``masked`` are apart on the first samples.
    """

    model: nn.Module
    masked: nn.Module
    plan: PrunePlan
    steps: tuple[StepReport, ...]
    difference: Difference


def prune_module(
    model: nn.Module,
    samples: Samples,
    layers: Sequence[str],
    *,
    classes: int,
    keep: str | float | None = None,
    represent: str | None = None,
    round_to: int | None = None,
    seed: int = 0,
    on_step: Callable[[StepReport], None] | None = None,
) -> ModulePruning:
    """Prunes layers of any network front to back, by what their channels tell of the classes of some samples.

    Args:
        model: takes one tensor; it is copied, never changed, and the copy runs where its parameters are.
        samples: a function without arguments that returns the batches, see :data:`Sample`.
        layers: module paths in any order; ``seqprune.trace(model, inputs).layers`` lists those there are.
        classes: number of classes; class ids lie in ``[0, classes)``.
        keep, represent, round_to, seed: as for :func:`seqprune.prune`.
        on_step: called with every layer's report.

    Raises:
        InputError: samples, layers or numbers that cannot be used, or no layer could be pruned.
        VerificationError: compact and masked network differ.
    """
    settings = settings_of("seed", keep, represent, "all", round_to, seed)
    data = _Checked(samples, classes)
    first = next(iter(data), None)
    if first is None:
        raise DataError("the function of samples returned none: it is called for every pass, return a new iterator")
    example = as_input(first.images[:2], model)
    graph = trace(model, example)
    plan, masked, steps = prune_sequentially(
        deepcopy(model).eval(), graph, layers, data, classes, settings=settings, on_step=on_step
    )
    if not plan.layers:
        reason = f"{steps[0].layer}: {steps[0].reason or 'all of its channels stay'}" if steps else "none was named"
        raise InputError(f"no layer could be pruned; {reason}")
    small = compact(masked, plan, graph)
    return ModulePruning(small, masked, plan, tuple(steps), verify(masked, small, example))


@dataclass(frozen=True)
class _Checked:
    """Samples as the engine reads them, each looked at before it is used."""

    samples: Samples
    classes: int

    def __post_init__(self) -> None:
        if not callable(self.samples):
            raise InputError(
                f"samples are a {type(self.samples).__name__}, which can end: give a function that returns the batches "
                "anew, such as lambda: loader"
            )

    def __iter__(self) -> Iterator[Batch]:
        for number, sample in enumerate(self.samples()):
            yield _batch(sample, number, self.classes)

    def __len__(self) -> int:
        return sum(1 for _ in self.samples())


def _batch(sample: Any, number: int, classes: int) -> Batch:
    """
    Raises:
        DataError: it is no sample of these classes.
    """
    parts = tuple(sample) if isinstance(sample, Sequence) else ()
    if len(parts) not in (2, 3) or not all(isinstance(part, torch.Tensor) for part in parts):
        raise DataError(f"batch {number} is no (inputs, classes) or (inputs, classes, places): give tensors only")
    inputs, kinds, *rest = parts
    places = rest[0].cpu() if rest else None
    kinds = kinds.cpu()
    if not inputs.is_floating_point():
        raise DataError(f"batch {number} has inputs of {inputs.dtype}: give them as the network takes them, as floats")
    objects = len(inputs) if places is None else len(places)
    if kinds.shape != (objects,) or kinds.is_floating_point():
        raise DataError(
            f"batch {number} has classes of shape {list(kinds.shape)} and {kinds.dtype} for {objects} "
            f"{'inputs' if places is None else 'places'}: give one whole number each"
        )
    if ((kinds < 0) | (kinds >= classes)).any():
        raise DataError(
            f"batch {number} has classes from {int(kinds.min())} to {int(kinds.max())}: with classes={classes} they "
            "lie from 0 up to one less"
        )
    if places is None:
        return Batch(inputs, torch.arange(objects), kinds.long())
    if places.shape[1:] != (3,) or inputs.dim() != 4:
        raise DataError(
            f"batch {number} has places of shape {list(places.shape)} in inputs of shape {list(inputs.shape)}: give "
            "[M, 3], index of the input, row and column, in [B, C, H, W]"
        )
    limit = torch.tensor([len(inputs), *inputs.shape[2:]])
    if not ((places >= 0) & (places < limit)).all():
        raise DataError(f"batch {number} has a place outside its inputs of shape {list(inputs.shape)}: check the order")
    point = places[:, [2, 1]].double()
    return Batch(inputs, places[:, 0].long(), kinds.long(), torch.cat([point, point], 1))
