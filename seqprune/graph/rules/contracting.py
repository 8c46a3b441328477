"""Products that sum over dimensions: matrix products, einsum, attention.

Channels that are summed over add nothing where they are zero; those that are not keep their place. A dimension is a
letter here, as in einsum.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import torch

from seqprune.graph.recorder import Recorder
from seqprune.graph.rules.table import ANY, require, rule
from seqprune.graph.values import NoRule, Value

Operand = tuple[torch.Tensor, Sequence[str]]
_AXES = "ABCDEFGHIJKLMNOPQRSTUVWXYZ"
"""Of the dimensions that dots stand for, from the last."""


@rule("einsum", dims=ANY)
def einsum(r: Recorder, out: torch.Tensor, equation: Any, *operands: Any) -> Value:
    tensors = operands[0] if isinstance(operands[0], list | tuple) else operands
    left, arrow, right = equation.replace(" ", "").partition("->")
    require(arrow and not set(_AXES) & set(equation), "does not say what stays, or by capital letters")
    names = left.split(",")
    parts = [(each, _letters(name, each.dim())) for each, name in zip(tensors, names, strict=True)]
    require(all(len(set(letters)) == len(letters) for _, letters in parts), "takes a diagonal")
    return contracted(r, out, parts, _letters(right, out.dim()))


def _letters(name: str, dims: int) -> list[str]:
    """One for each dimension; dots stand for those that are left."""
    before, dots, behind = name.partition("...")
    hidden = dims - len(before) - len(behind) if dots else 0
    return [*before, *_AXES[:hidden][::-1], *behind]


@rule("matmul", "bmm", "mm", dims=ANY)
def matrices(r: Recorder, out: torch.Tensor, x: torch.Tensor, other: torch.Tensor) -> Value:
    return _multiplied(r, out, x, other)


@rule("rmatmul", dims=ANY)
def turned_matrices(r: Recorder, out: torch.Tensor, x: torch.Tensor, other: torch.Tensor) -> Value:
    return _multiplied(r, out, other, x)


def _multiplied(r: Recorder, out: torch.Tensor, x: torch.Tensor, other: torch.Tensor) -> Value:
    require(x.dim() > 1 and other.dim() > 1, "multiplies by a vector")
    parts = [(x, [*_batch(x), "i", "k"]), (other, [*_batch(other), "k", "j"])]
    return contracted(r, out, parts, [*_batch(out), "i", "j"])


def _batch(tensor: torch.Tensor) -> str:
    return _AXES[: tensor.dim() - 2][::-1]


@rule("scaled_dot_product_attention", dims=ANY)
def attention(
    r: Recorder,
    out: torch.Tensor,
    query: torch.Tensor,
    key: torch.Tensor,
    value: torch.Tensor,
    attn_mask: torch.Tensor | None = None,
    dropout_p: float = 0.0,
    is_causal: bool = False,
    scale: float | None = None,
    enable_gqa: bool = False,
) -> Value:
    """Values keep their channels; those of queries and keys stay, where the products are scaled by their number."""
    require(dropout_p == 0 or r.model.training, "draws at random in inference")
    require(attn_mask is None and not enable_gqa, "is masked, or shares keys among heads")
    asks, keys = (query, [*_batch(query), "i", "k"]), (key, [*_batch(key), "j", "k"])
    values, stays = (value, [*_batch(value), "j", "c"]), [*_batch(out), "i", "c"]
    ours = [(known, letters[known.dim]) for tensor, letters in (asks, keys) for known in _leaving(r, tensor)]
    attended = [letters[known.dim] for tensor, letters in (keys, values) for known in _leaving(r, tensor)]
    require("j" not in attended, "attends to channels, to those that are zero as well")
    require("i" not in [letter for _, letter in ours], "attends for channels: one that is zero sees the mean of all")
    if "k" not in [letter for _, letter in ours]:
        return contracted(r, out, [asks, keys, values], stays)
    for known, _ in ours if scale is None else ():
        r.pin(known.known(), f"{r.module or 'the network'} scales attention by their number")
    contracted(r, out, [asks, keys], [*_batch(out), "i", "j"])
    return contracted(r, out, [values], stays)


def _leaving(r: Recorder, tensor: torch.Tensor) -> list[Value]:
    """What is known of a tensor, if any of its channels may leave."""
    value = r.value(tensor)
    return [] if value is None or value.fixed else [value]


def contracted(r: Recorder, out: torch.Tensor, parts: Sequence[Operand], stays: Sequence[str]) -> Value:
    """The channels of a product, which have one letter in all of its parts.

    Args:
        r: the recorder.
        out: the product.
        parts: operands, and a letter for each of their dimensions.
        stays: the same of ``out``; all other letters are summed over.
    """
    values = [(r.value(tensor), letters) for tensor, letters in parts]
    ours = [(value, letters[value.dim]) for tensor, letters in parts for value in _leaving(r, tensor)]
    if not ours:
        return r.without_channels(out)
    require(len({letter for _, letter in ours}) == 1, "channels of its parts lie in different dimensions")
    require(len({len(value.known()) for value, _ in ours}) == 1, "spreads one channel over many")
    atoms, letter = ours[0][0].known(), ours[0][1]
    for (tensor, letters), (value, _) in zip(parts, values, strict=True):
        if letter not in letters or tensor.shape[letters.index(letter)] == 1:
            continue
        at = letters.index(letter)
        if value is None:
            raise NoRule("has a constant with one entry per channel")
        if value.dim == at:
            r.tie(atoms, value.known(), f"multiplied in {r.module or 'the network'} with channels that stay")
        else:
            r.pin(atoms, f"multiplied in {r.module or 'the network'} with what has one entry per channel")
    zero = any(value.zero for value, _ in ours)
    if letter in stays:
        return Value(atoms, list(stays).index(letter), zero)
    require(zero, "sums over channels that are not zero once removed")
    require(out.dim(), "sums all up")
    return r.without_channels(out)
