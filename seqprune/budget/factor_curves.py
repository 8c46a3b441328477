"""How well a convolution is made of two with few channels between, and which are worth it: pure numbers.

With the weights as a matrix ``M`` ``[inputs · k, outputs · k]`` and the covariance ``C`` of the single columns (or
rows) of pixels that the convolution reads, filters ``C^-½ U`` leave the least error, ``U`` the first left singular
vectors of ``C^½ M``; the squares of the singular values that are left out are its size (X. Zhang et al., "Accelerating
very deep convolutional networks for classification and detection", TPAMI 2016). That takes neighbouring columns for
unrelated. They are not, so the filters are improved for whole patches: the second convolution is the least-squares one
for any filters, and what is left is brought down by a quasi-Newton method on these (variable projection: G. Golub,
V. Pereyra, "The differentiation of pseudo-inverses and nonlinear least squares problems whose variables separate",
1973).
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import TypeVar

import torch

from seqprune.graph.factor import First, as_matrix, as_weights

LEAST = 1e-5
"""Of the mean of a covariance's diagonal, added to it: what was not seen to vary is still told apart."""
STEPS = 15
Rank = TypeVar("Rank", float, torch.Tensor)


@dataclass(frozen=True)
class Curve:
    """What a layer loses and costs when it is made of two.

    Attributes:
        first: which kernel comes first.
        filters: ``[R, inputs · k]`` float64, those that matter most first.
        loss: ``[R + 1]`` what is lost with so many channels between.
        whole: what the layer costs as it is.
        each: what a channel between costs.
        base: what it costs however few there are.
    """

    first: First
    filters: torch.Tensor
    loss: torch.Tensor
    whole: float
    each: float
    base: float = 0.0

    def cost(self, rank: Rank) -> Rank:
        """With so many channels between."""
        return self.base + self.each * rank

    def best(self, price: float, step: int = 1) -> tuple[int, float]:
        """Channels between, a multiple of ``step``, of the least ``loss + price · cost``, and that; 0 for the layer
        as it is, which loses nothing.
        """
        ranks = torch.arange(step, max(step, len(self.loss)), step)
        if not len(ranks):
            return 0, price * self.whole
        total = self.loss[ranks] + price * self.cost(ranks.double())
        at = int(total.argmin())
        least = float(total[at])
        return (int(ranks[at]), least) if least < price * self.whole else (0, price * self.whole)


def curve(
    weight: torch.Tensor,
    patches: torch.Tensor,
    scale: torch.Tensor,
    first: First,
    whole: float,
    each: float,
    base: float = 0.0,
) -> Curve:
    """
    Args:
        weight: ``[outputs, inputs, k, k]``.
        patches: ``[inputs · k · k]²``, covariance of what is read.
        scale: ``[outputs]``, what an error in each output is multiplied with.
        first: which kernel comes first.
        whole, each, base: see :class:`Curve`.
    """
    turned = _turned(weight, first)
    _, inputs, height, width = turned.shape
    split = _turned_patches(patches, weight, first).reshape(inputs, height, width, inputs, height, width)
    columns = split.diagonal(dim1=2, dim2=5).mean(-1).reshape(inputs * height, inputs * height)
    values, vectors = torch.linalg.eigh(columns)
    roots = (values.clamp(min=0) + _least(columns)).sqrt()
    matrix = as_matrix(weight, first) * scale.double().repeat_interleave(width)
    left, singular, _ = torch.linalg.svd((vectors * roots) @ vectors.T @ matrix, full_matrices=False)
    filters = left.T @ ((vectors / roots) @ vectors.T)
    squares = singular.square().flip(0).cumsum(0).flip(0)
    return Curve(first, filters, torch.cat([squares, squares.new_zeros(1)]), whole, each, base)


Chosen = dict[str, tuple[Curve, int]]
"""By layer that is made of two, how, and with how many channels between."""


def at_price(curves: Mapping[str, Sequence[Curve]], price: float, step: int) -> Chosen:
    """What loses least, where every unit of cost is worth ``price`` units of loss."""
    found: Chosen = {}
    for name, ways in curves.items():
        best = min(ways, key=lambda way: way.best(price, step)[1])
        rank, _ = best.best(price, step)
        if rank:
            found[name] = best, rank
    return found


def saved(chosen: Chosen) -> float:
    """Of the cost."""
    return sum(way.whole - way.cost(rank) for way, rank in chosen.values())


def cheapest(
    curves: Mapping[str, Sequence[Curve]],
    enough: Callable[[Chosen], bool],
    step: int,
    rounds: int = 60,
    nearest: bool = False,
) -> Chosen | None:
    """What :func:`at_price` chooses at the least price at which that is enough; where it never is, ``None``, or with
    ``nearest`` what saves most.

    Args:
        curves: by layer, how it can be made of two.
        enough: whether so much is saved; of a choice that saves more it says no less.
        step: channels between are a multiple of it.
        rounds: of bisection, on a logarithmic scale.
    """
    ends = [float(way.loss[0]) / way.whole for ways in curves.values() for way in ways if way.loss[0] > 0]
    if not ends:
        return {} if nearest else None
    low, high = min(ends) * 1e-9, max(ends) * 1e6
    best = at_price(curves, high, step)
    if not enough(best):
        return best if nearest else None
    for _ in range(rounds):
        middle = (low * high) ** 0.5
        chosen = at_price(curves, middle, step)
        if enough(chosen):
            high, best = middle, chosen
        else:
            low = middle
    return best


def pair(
    weight: torch.Tensor, patches: torch.Tensor, scale: torch.Tensor, way: Curve, rank: int, steps: int = STEPS
) -> tuple[tuple[torch.Tensor, torch.Tensor], float]:
    """Weights of both convolutions, and their loss on whole patches.

    Args:
        weight, patches, scale: see :func:`curve`.
        way: from which filters to begin.
        rank: channels between.
        steps: of the quasi-Newton method.
    """
    turned = _turned(weight, way.first)
    outputs, inputs, height, width = turned.shape
    covariance = _turned_patches(patches, weight, way.first)
    covariance = covariance + _least(covariance) * torch.eye(len(covariance), dtype=torch.float64)
    rows = turned.flatten(1) * scale.double()[:, None]
    wanted = rows @ covariance
    total = (wanted * rows).sum()

    def solved(filters: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
        seen = _as_seen(filters, inputs, height, width)
        read = wanted @ seen.T
        found = torch.linalg.solve(seen @ covariance @ seen.T, read.T)
        return found, total - (found * read.T).sum()

    filters = way.filters[:rank].clone()
    if steps and float(total) > 0:
        filters = filters.requires_grad_()
        search = torch.optim.LBFGS([filters], max_iter=steps, history_size=8, line_search_fn="strong_wolfe")

        def closure() -> torch.Tensor:
            search.zero_grad()
            loss = solved(filters)[1] / total
            loss.backward()  # type: ignore[no-untyped-call]
            return loss

        with torch.enable_grad():
            search.step(closure)  # type: ignore[no-untyped-call]
        filters = filters.detach()
    found, loss = solved(filters)
    rest = (found / scale.double()).reshape(rank, width, outputs).transpose(1, 2).reshape(rank, outputs * width)
    return as_weights(filters, rest, weight, way.first), float(loss)


def _as_seen(filters: torch.Tensor, inputs: int, height: int, width: int) -> torch.Tensor:
    """``[rank · width, inputs · height · width]``: filters at every column of a patch."""
    seen = filters.new_zeros(len(filters), width, inputs, height, width)
    each = filters.reshape(len(filters), inputs, height)
    for column in range(width):
        seen[:, column, :, :, column] = each
    return seen.reshape(len(filters) * width, inputs * height * width)


def _turned(weight: torch.Tensor, first: First) -> torch.Tensor:
    return weight.detach().double() if first == "column" else weight.detach().double().transpose(2, 3)


def _turned_patches(patches: torch.Tensor, weight: torch.Tensor, first: First) -> torch.Tensor:
    patches = patches.double()
    if first == "column":
        return patches
    _, inputs, height, width = weight.shape
    split = patches.reshape(inputs, height, width, inputs, height, width)
    return split.permute(0, 2, 1, 3, 5, 4).reshape(patches.shape)


def _least(covariance: torch.Tensor) -> float:
    mean = float(covariance.diagonal().mean())
    return LEAST * mean if mean > 0 else 1.0
