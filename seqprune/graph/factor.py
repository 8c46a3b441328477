"""A k×k convolution as a k×1 and a 1×k one with a few channels between, or the other way round: plain modules.

The block around the convolution, its BatchNorm and its activation, stays and holds the second of them;
``nn.Sequential(first, block)`` takes its place. What lies between is an ordinary layer then, whose channels are traced,
removed and fitted as all others. (M. Jaderberg, A. Vedaldi, A. Zisserman, "Speeding up convolutional neural networks
with low rank expansions", BMVC 2014.)
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from typing import Literal, TypeGuard, cast

import torch
from torch import nn
from torch.nn.utils import skip_init

from seqprune.errors import PlanError
from seqprune.graph.copying import copied
from seqprune.graph.paths import module_at, reached_once
from seqprune.graph.sole import child_of

First = Literal["column", "row"]
"""What the first of two convolutions is: k×1 or 1×k."""
Weights = tuple[torch.Tensor, torch.Tensor]
"""Of both convolutions, as they hold them: ``[rank, inputs, …]`` and ``[outputs, rank, …]``."""


@dataclass(frozen=True)
class Factor:
    """One block whose convolution is made of two.

    Attributes:
        block: its module path in the network as it was.
        first: which kernel comes first.
        rank: channels between.
    """

    block: str
    first: First
    rank: int


def factorable(model: nn.Module) -> dict[str, str]:
    """By module path of a block that can be factored, the path of its convolution; in the order of the modules.

    A block that is reached by two paths is none of them.
    """
    once, found = reached_once(model), {}
    for path, module in model.named_modules():
        child = _child(module)
        if child is not None and path and id(module) in once and _splits(getattr(module, child)):
            found[path] = f"{path}.{child}"
    return found


def full_rank(conv: nn.Conv2d, first: First) -> int:
    """Channels between with which both convolutions are the one."""
    height, width = conv.kernel_size if first == "column" else conv.kernel_size[::-1]
    return min(conv.in_channels * height, conv.out_channels * width)


def as_matrix(weight: torch.Tensor, first: First) -> torch.Tensor:
    """``[inputs · k, outputs · k]`` float64: what the first convolution sees of ``[outputs, inputs, k, k]``, and the
    rest; of as small a rank as channels between are needed.
    """
    turned = weight.detach().double() if first == "column" else weight.detach().double().transpose(2, 3)
    outputs, inputs, height, width = turned.shape
    return turned.permute(1, 2, 0, 3).reshape(inputs * height, outputs * width)


def as_weights(filters: torch.Tensor, rest: torch.Tensor, like: torch.Tensor, first: First) -> Weights:
    """Filters ``[rank, inputs · k]`` and what is made of them, ``[rank, outputs · k]``, as convolutions hold them.

    ``like`` is the weight ``[outputs, inputs, k, k]`` that they stand for.
    """
    outputs, inputs, height, width = like.shape if first == "column" else like.transpose(2, 3).shape
    one = filters.reshape(len(filters), inputs, height, 1)
    two = rest.reshape(len(rest), outputs, 1, width).transpose(0, 1)
    return (one, two) if first == "column" else (one.transpose(2, 3), two.transpose(2, 3))


def approximation(weight: torch.Tensor, first: First, rank: int) -> Weights:
    """The two whose product is nearest to ``weight``, ``[outputs, inputs, k, k]``; it at full rank."""
    left, values, right = torch.linalg.svd(as_matrix(weight, first), full_matrices=False)
    root = values[:rank].sqrt()[:, None]
    return as_weights(left.T[:rank] * root, right[:rank] * root, weight, first)


def factored(model: nn.Module, factors: Iterable[Factor], weights: Mapping[str, Weights] | None = None) -> nn.Module:
    """A copy of ``model`` with some blocks factored.

    Args:
        model: the network.
        factors: which blocks.
        weights: by block, those of both convolutions; where there are none, the best :func:`approximation`.

    Raises:
        PlanError: there is no such block, it cannot be factored, or not with so many channels between.
    """
    copy = copied(model)
    can = factorable(copy)
    for factor in factors:
        if factor.block not in can:
            raise PlanError(
                f"the plan is for another model: {factor.block} is no block whose convolution can be factored here; "
                "use the weights the plan was made for"
            )
        block = copy.get_submodule(factor.block)
        conv = cast(nn.Conv2d, copy.get_submodule(can[factor.block]))
        most = full_rank(conv, factor.first)
        if not 1 <= factor.rank <= most:
            raise PlanError(f"{factor.block} cannot have {factor.rank} channels between its factors: give 1 to {most}")
        given = (weights or {}).get(factor.block) or approximation(conv.weight, factor.first, factor.rank)
        one, two = _convolutions(conv, factor, given)
        setattr(block, can[factor.block].removeprefix(f"{factor.block}."), two)
        _replace(copy, factor.block, one)
    return copy


def aligned(model: nn.Module, factors: Iterable[Factor]) -> nn.Module:
    """A copy of ``model`` that computes the same, its modules named as those of the factored one."""
    copy = copied(model)
    for factor in factors:
        _replace(copy, factor.block, nn.Identity())
    return copy


def shaped(model: nn.Module, factors: Iterable[Factor]) -> nn.Module:
    """``model`` with the factors that it does not have yet; itself where it has all.

    Raises:
        PlanError: see :func:`factored`.
    """
    missing = [factor for factor in factors if not _is_pair(module_at(model, factor.block))]
    return factored(model, missing) if missing else model


def factors_of(whole: nn.Module, model: nn.Module) -> tuple[Factor, ...]:
    """The factors by which the modules of ``model`` differ from those of ``whole``."""
    found = []
    for path in factorable(whole):
        pair = model.get_submodule(path)
        if _is_pair(pair):
            one = cast(nn.Conv2d, pair[0])
            found.append(Factor(path, "column" if one.kernel_size[1] == 1 else "row", one.out_channels))
    return tuple(found)


def _is_pair(module: nn.Module | None) -> TypeGuard[nn.Sequential]:
    return (
        isinstance(module, nn.Sequential)
        and len(module) == 2
        and isinstance(module[0], nn.Conv2d)
        and _child(module[1]) is not None
    )


def _child(module: nn.Module) -> str | None:
    child = child_of(module)
    return child if child is not None and isinstance(getattr(module, child, None), nn.Conv2d) else None


def _splits(conv: nn.Conv2d) -> bool:
    whole = conv.groups == 1 and conv.padding_mode == "zeros" and not isinstance(conv.padding, str)
    return whole and min(conv.kernel_size) > 1


def _replace(model: nn.Module, path: str, before: nn.Module) -> None:
    """Puts a module before a block, in the block's place."""
    block = model.get_submodule(path)
    both = nn.Sequential(before, block)
    both.training = block.training
    for name in ("i", "f", "type", "np"):  # by these Ultralytics' networks know what a top-level block reads
        if name in vars(block):
            setattr(both, name, vars(block)[name])
    parent, _, last = path.rpartition(".")
    setattr(model.get_submodule(parent), last, both)


def _convolutions(conv: nn.Conv2d, factor: Factor, weights: Weights) -> tuple[nn.Conv2d, nn.Conv2d]:
    """Both; the second has the bias."""
    across = 1 if factor.first == "column" else 0  # the dimension that the first leaves alone
    padding = cast("tuple[int, int]", conv.padding)

    def only(values: tuple[int, ...], neutral: int, at: int) -> tuple[int, int]:
        return (values[0], neutral) if at == 0 else (neutral, values[1])

    def make(inputs: int, outputs: int, at: int, bias: bool) -> nn.Conv2d:
        # Weights are copied into it: drawn ones would move the caller's random numbers.
        made: nn.Conv2d = skip_init(  # type: ignore[no-untyped-call]
            nn.Conv2d,
            inputs,
            outputs,
            only(conv.kernel_size, 1, at),
            only(conv.stride, 1, at),
            only(padding, 0, at),
            only(conv.dilation, 1, at),
            bias=bias,
            dtype=conv.weight.dtype,
            device=conv.weight.device,
        )
        return made

    one = make(conv.in_channels, factor.rank, 1 - across, False)
    two = make(factor.rank, conv.out_channels, across, conv.bias is not None)
    with torch.no_grad():
        for made, weight in zip((one, two), weights, strict=True):
            made.weight.copy_(weight)
            made.train(conv.training).requires_grad_(conv.weight.requires_grad)
        if two.bias is not None:
            two.bias.copy_(cast(torch.Tensor, conv.bias))
    return one, two
