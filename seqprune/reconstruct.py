"""Fits a network's last block as a whole to what it returned, once each convolution in it was fitted by itself.

Which channels stay between two convolutions was settled by removing others; what those compute is free to change. So
all weights of the block move together, to where the least is lost behind them:

    min  Σ_t D_t / D_t⁰ + ν Σ_c E_c / E_c⁰,

``D_t`` how far the block's outputs are from what it returned in the unpruned network, term by term (classes, boxes),
and ``E_c`` the squared errors of its last convolutions and, behind the activation, of those that they read, where the
fit of each by itself looked; all relative to what they were before. No label is asked. The errors ``E`` keep a few
images from being learnt by heart, and detections that hardly count in ``D`` in their order. (Reconstruction of blocks,
there for quantisation: Y. Li et al., "BRECQ", ICLR 2021. The way down: D. Kingma, J. Ba, "Adam", ICLR 2015.)
"""

from __future__ import annotations

from collections.abc import Callable, Collection, Iterator, Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass
from functools import partial
from math import ceil
from typing import Any, cast

import torch
from torch import nn

from seqprune.observe.batch import LabelledImages
from seqprune.observe.extract import Progress
from seqprune.observe.forward import Forward
from seqprune.observe.patches import Drawn, Sampler
from seqprune.observe.relevance import TOGETHER, Relevance
from seqprune.observe.sources import Places
from seqprune.observe.streaming import BlockStream, Pass, in_lockstep
from seqprune.observe.watching import watching
from seqprune.unit import activation_of, batch_norm_of

EPOCHS, RATE, INSIDE = 8, 0.005, 0.7
"""Times that every image is looked at; the first step, relative to the root mean square of each tensor's weights; and
how much the error of one convolution counts against a distance of the outputs: ν above."""
LEAST = 0.01
"""Share of the wanted outputs' variance: an error that was smaller to begin with counts against that. What a branch
loses that was all but left alone would else outweigh what the others gain."""
BYTES = 2 << 30
"""Of inputs and wanted outputs that are kept; more images are thinned out evenly."""


@dataclass(frozen=True)
class Distance:
    """What tells how far a block's outputs are from wanted ones.

    Attributes:
        read: the predictions among what a block returned, images first.
        terms: given predictions found and wanted, numbers that add up over images.
    """

    read: Callable[[Any], torch.Tensor]
    terms: Callable[[torch.Tensor, torch.Tensor], torch.Tensor]


@dataclass(frozen=True)
class _Example:
    """A few images: what the pruned block is given, and what the original returns for them."""

    inputs: Any
    wanted: torch.Tensor
    drawn: Mapping[str, Drawn]
    inside: Mapping[str, torch.Tensor]

    @property
    def bytes(self) -> int:
        tensors = [*_tensors(self.inputs), self.wanted, *self.inside.values()]
        return sum(tensor.numel() * tensor.element_size() for tensor in tensors)


class _Reached(Exception):
    pass


def anchors(producers: Mapping[str, Collection[str]], names: Sequence[str]) -> list[str]:
    """The convolutions of a block whose outputs should stay what they are: the last ones, and those that they read.

    Args:
        producers: by convolution, those that it reads; see :func:`seqprune.observe.stages.producers_of`.
        names: convolutions of the block.
    """
    read = {before for name in names for before in producers[name]}
    last = [name for name in names if name not in read]
    near = {*last, *(before for name in last for before in producers[name])}
    return [name for name in names if name in near]


def reconstruct(
    original: nn.Module,
    pruned: nn.Module,
    block: str,
    names: Sequence[str],
    inside: Sequence[str],
    images: LabelledImages,
    distance: Distance,
    *,
    streams: tuple[BlockStream, BlockStream] | None = None,
    sampler: Sampler | None = None,
    relevance: Relevance | None = None,
    forward: Forward | None = None,
    progress: Progress | None = None,
) -> None:
    """Fits the convolutions of a block that changed, in place. What is zero stays zero: removed channels stay dead.
    Nothing changes where no weights are found that are better on these images.

    Args:
        original: the unpruned network, in inference mode.
        pruned: the same with channels zero, on the same device.
        block: path of the block, whose outputs ``distance`` reads.
        names: its convolutions. Fitted are the weights of those that are not as they were, and their biases or those of
            the BatchNorms behind.
        inside: those of them whose outputs are held to what they were; see :func:`anchors`.
        images: calibration images.
        distance: of the block's outputs.
        streams: spare the passes up to the block, for each of the networks; whole passes without them.
        sampler: which positions are looked at inside; its seed orders the images.
        relevance: draws the positions instead of the sampler, from the same images.
        forward: precision, and how many images at a time, until the block.
        progress: told the number of images of every batch.
    """
    sampler, forward = sampler or Sampler(), forward or Forward()
    changed = [name for name in names if not torch.equal(_weight(original, name), _weight(pruned, name))]
    if not changed:
        return
    examples: list[_Example] = []
    look = partial(_look, original, pruned, block, inside, distance)
    for whole, part in in_lockstep((original, pruned), names, images, streams, forward):
        found = look(whole, part, Places(sampler, whole.batch, relevance), forward)
        step = ceil(sum(each.bytes for each in found) * len(images) / BYTES)
        examples += found[::step]
        if progress is not None:
            progress(whole.images)
    losses = partial(_losses, pruned, block, inside, distance)
    with torch.no_grad():
        before = torch.stack([losses(example) for example in examples]).sum(0)
    counts = torch.full_like(before, INSIDE)
    counts[: len(before) - len(inside)] = 1
    counts = torch.where(before > 0, counts / before, 0.0)

    def loss(example: _Example) -> torch.Tensor:
        return (losses(example) * counts).sum()

    parameters = list(_parameters(pruned, changed))
    old = [parameter.detach().clone() for parameter in parameters]
    _descend(parameters, [partial(loss, example) for example in examples], sampler.seed)
    with torch.no_grad():
        if not sum(loss(example) for example in examples) < (before * counts).sum():  # nor where it is nan
            for parameter, value in zip(parameters, old, strict=True):
                parameter.copy_(value)


def _look(
    original: nn.Module,
    pruned: nn.Module,
    block: str,
    inside: Sequence[str],
    distance: Distance,
    whole: Pass,
    part: Pass,
    places: Places,
    forward: Forward,
) -> list[_Example]:
    """Runs one batch through both networks."""
    weight = next(pruned.parameters())
    device, dtype = weight.device, weight.dtype
    run_whole, run_part = whole.ready(), part.ready()

    def run(images: slice) -> list[_Example]:
        pieces = (slice(at, min(at + TOGETHER, images.stop)) for at in range(images.start, images.stop, TOGETHER))
        return [piece(each) for each in pieces]

    def piece(images: slice) -> _Example:
        returned, given = [], []
        drawn: dict[str, Drawn] = {}
        wanted: dict[str, torch.Tensor] = {}

        def see(name: str, _conv: nn.Conv2d, _x: torch.Tensor, output: torch.Tensor) -> None:
            drawn[name] = places.of(name, output, images)
            wanted[name] = _behind(original, name, output, drawn[name]).to(dtype)

        def end(_module: nn.Module, _inputs: Any, output: Any) -> None:
            returned.append(_copied(distance.read(output), dtype))

        def stop(_module: nn.Module, inputs: Any) -> None:
            given.append(_copied(inputs, dtype))
            raise _Reached

        handle = original.get_submodule(block).register_forward_hook(end)
        try:
            with watching(original, inside, see):
                run_whole(images)
        finally:
            handle.remove()
        handle = pruned.get_submodule(block).register_forward_pre_hook(stop)
        try:
            with suppress(_Reached):
                run_part(images)
        finally:
            handle.remove()
        return _Example(given[0], returned[0], drawn, wanted)

    return [example for found in forward(whole.images, device, run) for example in found]


def _losses(
    pruned: nn.Module, block: str, inside: Sequence[str], distance: Distance, example: _Example
) -> torch.Tensor:
    """Distances of the outputs, then the squared error of every convolution inside, behind its activation."""
    errors: dict[str, torch.Tensor] = {}

    def see(name: str, _conv: nn.Conv2d, _x: torch.Tensor, output: torch.Tensor) -> None:
        drawn, wanted = example.drawn[name], example.inside[name]
        wanted = wanted * _weight(pruned, name).flatten(1).any(1)  # what removed channels computed is not missed
        missing = (_behind(pruned, name, output, drawn) - wanted).square().sum(1)
        varies = (wanted - wanted.mean(0)).square().sum(1)
        weight = torch.ones_like(missing) if drawn.weight is None else drawn.weight.to(missing)
        errors[name] = (weight * (missing + LEAST * varies)).sum()

    with watching(pruned, inside, see):
        found = distance.read(pruned.get_submodule(block)(*example.inputs))
    return torch.stack([*distance.terms(found, example.wanted), *(errors[name] for name in inside)])


def _behind(model: nn.Module, name: str, output: torch.Tensor, drawn: Drawn) -> torch.Tensor:
    """``[N, outputs]``, what comes out of BatchNorm and activation behind a convolution, where it has them."""
    image, row, column = (index.long().to(output.device) for index in drawn.where)
    found = output[image, :, row, column]
    norm, activation = batch_norm_of(model, name), activation_of(model, name)
    if norm is not None:
        found = cast(torch.Tensor, model.get_submodule(norm)(found[:, :, None, None]))[:, :, 0, 0]
    return found if activation is None else cast(torch.Tensor, activation(found))


def _weight(model: nn.Module, name: str) -> torch.Tensor:
    return cast(nn.Conv2d, model.get_submodule(name)).weight


def _parameters(model: nn.Module, names: Sequence[str]) -> Iterator[torch.Tensor]:
    for name in names:
        conv = cast(nn.Conv2d, model.get_submodule(name))
        yield conv.weight
        norm = batch_norm_of(model, name)
        bias = conv.bias if norm is None else cast(nn.BatchNorm2d, model.get_submodule(norm)).bias
        if bias is not None:
            yield bias


def _descend(parameters: Sequence[torch.Tensor], losses: Sequence[Callable[[], torch.Tensor]], seed: int) -> None:
    """Steps of Adam that become shorter and shorter; every tensor's as long as its weights are large."""
    random = torch.Generator().manual_seed(seed)
    live = [(parameter != 0).to(parameter) for parameter in parameters]
    asked = [parameter.requires_grad for parameter in parameters]
    rates = [
        RATE * float(p.detach().square().sum() / m.sum().clamp(min=1)) ** 0.5
        for p, m in zip(parameters, live, strict=True)
    ]
    groups = [{"params": [parameter], "lr": rate} for parameter, rate in zip(parameters, rates, strict=True)]
    descent = torch.optim.Adam(groups, betas=(0.9, 0.99))
    shorter = torch.optim.lr_scheduler.LinearLR(descent, 1.0, 0.0, EPOCHS * len(losses))
    for parameter in parameters:
        parameter.requires_grad_()
    with torch.enable_grad():
        for _ in range(EPOCHS):
            for at in torch.randperm(len(losses), generator=random).tolist():
                gradients = torch.autograd.grad(losses[at](), parameters, allow_unused=True)
                for parameter, gradient, mask in zip(parameters, gradients, live, strict=True):
                    parameter.grad = None if gradient is None else gradient * mask
                descent.step()
                shorter.step()
    for parameter, wanted in zip(parameters, asked, strict=True):
        parameter.grad = None
        parameter.requires_grad_(wanted)


def _copied(inputs: Any, dtype: torch.dtype) -> Any:
    """The same tuples and lists of tensors, in memory of their own; mixed precision ends here."""
    if isinstance(inputs, torch.Tensor):
        return inputs.to(dtype, copy=True)
    return type(inputs)(_copied(each, dtype) for each in inputs)


def _tensors(inputs: Any) -> Iterator[torch.Tensor]:
    if isinstance(inputs, torch.Tensor):
        yield inputs
    else:
        for each in inputs:
            yield from _tensors(each)


__all__ = ["Distance", "anchors", "reconstruct"]
