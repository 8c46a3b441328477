"""What an error in a network's outputs costs, where nobody says: no labels are needed.

Logits cost the divergence of the probabilities ``p`` they stand for: ½ eᵀ (diag(p) − p pᵀ) e for small errors ``e``
(S. Amari, "Natural gradient works efficiently in learning", 1998). Other outputs cost their squares, relative to their
variance over the images. Of a map of outputs every position counts alike, and all of them as much as one output.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any, Literal, cast

import torch
from torch import nn
from torch.nn import functional

from seqprune.errors import ModelError
from seqprune.graph.copying import copied
from seqprune.graph.values import leaves
from seqprune.observe.batch import LabelledImages
from seqprune.observe.inputs import Inputs, call
from seqprune.observe.relevance import Probe

Outputs = Literal["auto", "logits", "values"]
"""Whether outputs are logits along dimension 1; ``auto`` takes ``[B, K]`` for them unless they are probabilities."""
TINY = 1e-12


def found(out: Any) -> list[torch.Tensor]:
    """The floating-point tensors that a network returns, in order."""
    return [t for t in leaves(out) if isinstance(t, torch.Tensor) and t.is_floating_point() and t.numel()]


def _places(y: torch.Tensor) -> int:
    """Numbers of one image; a number without dimensions, as a total over the images, is one."""
    return y[0].numel() if y.dim() else 1


def kinds_of(model: nn.Module, images: LabelledImages, outputs: Outputs) -> list[bool]:
    """For every output, whether it is logits.

    Raises:
        ModelError: the network returns no floating-point tensor.
    """
    with torch.no_grad():
        seen = found(call(model, next(iter(images)).input(model)))
    if not seen:
        raise ModelError("the network returns no floating-point tensor: there is nothing to compare")
    if outputs != "auto":
        return [outputs == "logits" and y.dim() > 1 for y in seen]
    return [y.dim() == 2 and y.shape[1] > 1 and not _are_probabilities(y) for y in seen]


def _are_probabilities(y: torch.Tensor) -> bool:
    sums = y.sum(1)
    return bool((y >= 0).all() and torch.allclose(sums, torch.ones_like(sums), atol=1e-3))


def probe_of(logits: Sequence[bool], variances: Sequence[float]) -> Probe:
    """A random scalar of the outputs whose squared gradient says what an error costs; see :mod:`observe.relevance`.

    ``s`` are random signs: Σ s √p · log p has the gradient of the divergence, Σ s y / σ that of the squares.
    """

    def probe(model: nn.Module, inputs: Inputs, random: torch.Generator) -> torch.Tensor:
        total: torch.Tensor | None = None
        for y, is_logits, variance in zip(found(call(model, inputs)), logits, variances, strict=True):
            signs = (torch.randint(0, 2, y.shape, generator=random) * 2 - 1).to(y)
            if is_logits:
                known = functional.log_softmax(y, 1)
                terms = signs * (known.detach() / 2).exp() * known
                places = y[0, 0].numel()
            else:
                terms, places = signs * y / variance**0.5, _places(y)
            part = terms.sum() / max(places, 1) ** 0.5
            total = part if total is None else total + part
        return cast(torch.Tensor, total)

    return probe


def variances_of(model: nn.Module, images: LabelledImages) -> list[float]:
    """Of every output over images and positions."""
    sums: list[list[float]] = []
    with torch.no_grad():
        for batch in images:
            for at, y in enumerate(found(call(model, batch.input(model)))):
                if at == len(sums):
                    sums.append([0.0, 0.0, 0.0])
                each = y.double()
                now = (float(each.numel()), float(each.sum()), float(each.square().sum()))
                sums[at] = [a + b for a, b in zip(sums[at], now, strict=True)]
    return [max(squares / count - (total / count) ** 2, TINY) for count, total, squares in sums]


def judge_of(
    original: nn.Module, held: LabelledImages, logits: Sequence[bool], variances: Sequence[float]
) -> Callable[[nn.Module], float]:
    """How far a network's outputs are from the original's, per image: divergences, and squares over variances."""

    def distance(model: nn.Module) -> float:
        total, images = 0.0, 0
        with torch.no_grad():
            for batch in held:
                wanted, given = (found(call(network, batch.input(network))) for network in (original, model))
                images += batch.count
                for a, b, is_logits, variance in zip(wanted, given, logits, variances, strict=True):
                    if is_logits:
                        p, q = functional.log_softmax(a, 1), functional.log_softmax(b, 1)
                        total += float((p.exp() * (p - q)).sum()) / max(a[0, 0].numel(), 1)
                    else:
                        total += float((a - b).double().square().sum()) / variance / max(_places(a), 1)
        return total / max(images, 1)

    return distance


def asked(model: nn.Module) -> nn.Module:
    """A copy in inference mode whose weights need no gradients."""
    return copied(model).eval().requires_grad_(False)
