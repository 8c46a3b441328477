"""Repairs what removal broke, without training: every convolution is fitted anew to what it computed before.

Front to back, the original and the pruned network in lockstep. Of each convolution whose input changed, the weights are
those that reproduce its original output best from what the pruned network feeds it now, in the least-squares sense
(asymmetric, as in Y. He, X. Zhang, J. Sun, "Channel pruning for accelerating very deep neural networks", ICCV 2017):

    W′ = (Cov(y, u) + λ·W) (Cov(u) + λ·I)⁻¹,    d = mean(y) − W′ mean(u),

``u`` the patches of channels that stay, ``y`` the original output, ``d`` the bias, or what the BatchNorm's running mean
is lowered by. ``λ`` is a share of the mean variance; it draws the weights to the original ones.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from typing import cast

import numpy as np
import torch
from torch import nn

from seqprune.graph.channels import BoolArray, ChannelGraph, IntArray
from seqprune.observe.batch import LabelledImages
from seqprune.observe.extract import Progress
from seqprune.observe.forward import Forward
from seqprune.observe.patches import Sampler, SecondMoments, patches, readable
from seqprune.observe.sources import Places, watching
from seqprune.observe.streaming import Blocks, BlockStream
from seqprune.select.layers import block_of

RIDGE = 3e-3


class _Reached(Exception):
    pass


@dataclass(frozen=True)
class Refit:
    """What was refitted.

    Attributes:
        layers: convolutions, front to back.
    """

    layers: tuple[str, ...]


def refit(
    original: nn.Module,
    masked: nn.Module,
    graph: ChannelGraph,
    removed: BoolArray,
    images: LabelledImages,
    stages: Sequence[Sequence[str]],
    streams: Callable[[], BlockStream],
    *,
    sampler: Sampler | None = None,
    ridge: float = RIDGE,
    forward: Forward | None = None,
    progress: Progress | None = None,
) -> Refit:
    """Fits the convolutions of ``masked``, in place, to what those of ``original`` compute.

    Args:
        original: the unpruned network, in inference mode.
        masked: the same with removed channels zero; on the same device.
        removed: ``[group_count]``.
        images: calibration images.
        stages: convolutions in execution order; those of one stage do not read each other.
        streams: makes a stream for each of both networks.
        ridge: relative to the mean variance of a convolution's input.
    """
    sampler, forward = sampler or Sampler(), forward or Forward()
    device = next(masked.parameters()).device
    inputs = {cut.module: cut.groups for cut in graph.slices if cut.tensor == "weight" and cut.dead is None}
    outputs = {cut.module: cut.groups for cut in graph.slices if cut.tensor == "weight" and cut.dead is not None}
    norms = batch_norms(masked, outputs)
    first, second = streams(), streams()
    fitted: list[str] = []
    touched = False
    for stage in stages:
        touched = touched or any(removed[g].any() for name in stage for g in (inputs.get(name), outputs.get(name)) if g is not None)
        if not touched:
            continue
        moments = {name: SecondMoments() for name in stage}
        drifted: set[str] = set()
        both = zip(
            first.passes(original, stage, images, forward), second.passes(masked, stage, images, forward), strict=True
        )
        for number, (whole, part) in enumerate(both):
            places = Places(sampler, whole.batch, number)
            run_whole, run_part = whole.ready(), part.ready()

            def run(images_: slice) -> None:
                seen: dict[str, tuple[torch.Tensor, torch.Tensor]] = {}

                def look_whole(name: str, conv: nn.Conv2d, x: torch.Tensor, output: torch.Tensor) -> None:
                    where = places.of(output, images_)
                    image, row, column = (index.to(device) for index in where)
                    seen[name] = (patches(conv, x, where), output[image, :, row, column])
                    if len(seen) == len(stage):
                        raise _Reached

                def look_part(name: str, conv: nn.Conv2d, x: torch.Tensor, output: torch.Tensor) -> None:
                    got = patches(conv, x, places.of(output, images_))
                    before, target = seen.pop(name)
                    if not torch.equal(before, got):
                        drifted.add(name)
                    per_group = target.reshape(len(target), conv.groups, -1).transpose(0, 1)
                    moments[name].update(got, per_group)
                    if not seen:
                        raise _Reached

                for model, look, go in ((original, look_whole, run_whole), (masked, look_part, run_part)):
                    with watching(model, stage, look):
                        try:
                            go(images_)
                        except _Reached:
                            pass

            forward(whole.images, device, run)
            if progress is not None:
                progress(whole.images)
        for name in stage:
            if name in drifted:
                _solve(
                    cast(nn.Conv2d, original.get_submodule(name)),
                    cast(nn.Conv2d, masked.get_submodule(name)),
                    moments[name],
                    _alive(inputs.get(name), removed),
                    _alive(outputs.get(name), removed),
                    norms.get(name) and (original.get_submodule(norms[name]), masked.get_submodule(norms[name])),
                    ridge,
                )
                fitted.append(name)
    first.reset()
    second.reset()
    return Refit(tuple(fitted))


def _alive(groups: IntArray | None, removed: BoolArray) -> BoolArray | None:
    return None if groups is None else ~removed[groups]


def _solve(original, conv, moments, inputs, outputs, norms, ridge) -> None:  # type: ignore[no-untyped-def]
    """Writes the fitted weights of one convolution, convolution group by convolution group."""
    weight = original.weight.detach().double().flatten(1)
    per_group, kernel = original.out_channels // conv.groups, weight.shape[1] * conv.groups // conv.in_channels
    outputs = np.ones(conv.out_channels, bool) if outputs is None else outputs
    has_offset = conv.bias is not None or norms is not None
    new, offset = weight.clone(), torch.zeros(conv.out_channels, dtype=torch.float64, device=weight.device)
    for number in range(conv.groups):
        rows = slice(number * per_group, (number + 1) * per_group)
        if inputs is None:
            alive = np.ones(weight.shape[1] // kernel, bool)
        else:
            alive = inputs if inputs.ndim == 1 else inputs[number]
        keep = torch.from_numpy(np.repeat(alive, kernel)).to(weight.device)
        products = moments.products[number] / moments.count
        cross = moments.cross[number] / moments.count
        mean, target = moments.mean[number], moments.target_mean[number]
        if not has_offset:
            products, cross = products + torch.outer(mean, mean), cross + torch.outer(target, mean)
        products, cross = products[keep][:, keep], cross[:, keep]
        if not len(products):
            continue
        penalty = ridge * float(products.diagonal().mean())
        if not penalty > 0:
            continue
        left = products + penalty * torch.eye(len(products), dtype=torch.float64, device=weight.device)
        fitted = torch.linalg.solve(left, (cross + penalty * weight[rows][:, keep]).T).T
        part = new[rows]
        part[:, keep] = fitted
        new[rows] = part
        offset[rows] = target - fitted @ mean[keep]
    live = torch.from_numpy(outputs).to(weight.device)
    with torch.no_grad():
        conv.weight[live] = new.reshape(conv.weight.shape)[live].to(conv.weight.dtype)
        if conv.bias is not None:
            conv.bias[live] = offset[live].to(conv.bias.dtype)
        elif norms is not None:
            before, after = norms
            after.running_mean[live] = (before.running_mean.double() - offset)[live].to(after.running_mean.dtype)


def batch_norms(model: nn.Module, outputs: dict[str, IntArray]) -> dict[str, str]:
    """By convolution without a bias, the BatchNorm beside it that takes its output."""
    found = {}
    for name, module in model.named_modules():
        if isinstance(module, nn.Conv2d):
            parent = name.rpartition(".")[0]
            norms = [
                child for child, m in model.get_submodule(parent).named_children() if isinstance(m, nn.BatchNorm2d)
            ]
            if len(norms) == 1 and isinstance(model.get_submodule(f"{parent}.{norms[0]}"), nn.BatchNorm2d):
                found[name] = f"{parent}.{norms[0]}"
    return found


def stages_of(model: nn.Module, example_inputs: torch.Tensor) -> list[list[str]]:
    """Convolutions front to back, those together that do not depend on each other and lie in one block.

    Depth is read from the graph that automatic differentiation records.
    """
    names = [name for name, module in model.named_modules() if readable(module)]
    seen: dict[str, tuple[object, object]] = {}
    order: list[str] = []

    def look(name: str, _conv: nn.Conv2d, x: torch.Tensor, output: torch.Tensor) -> None:
        if name not in seen:
            order.append(name)
            seen[name] = (x.grad_fn, output.grad_fn)

    with torch.enable_grad(), watching(model, names, look):
        model(example_inputs.detach().clone().requires_grad_())
    made = {output: name for name, (_, output) in seen.items()}
    depth: dict[str, int] = {}
    for name in order:
        depth[name] = 1 + max((depth[before] for before in _before(seen[name][0], made)), default=0)
    keys = {name: (block_of(name) if block_of(name) is not None else 0, depth[name]) for name in order}
    stages: dict[tuple[int, int], list[str]] = {}
    for name in order:
        stages.setdefault(cast("tuple[int, int]", keys[name]), []).append(name)
    return [stages[key] for key in sorted(stages)]


def _before(node: object, made: dict[object, str]) -> Iterator[str]:
    """The convolutions whose output a node of the graph is computed from, without another one in between."""
    waiting, known = [node], set()
    while waiting:
        at = waiting.pop()
        if at is None or at in known:
            continue
        known.add(at)
        if at in made:
            yield made[at]
        else:
            waiting += [n for n, _ in at.next_functions]  # type: ignore[attr-defined]
