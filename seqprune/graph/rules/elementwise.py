"""Operators that keep every channel in its place: activations, arithmetic, joins of two tensors."""

from __future__ import annotations

from dataclasses import replace
from numbers import Number
from typing import Any

import numpy as np
import torch

from seqprune.graph.channels import IntArray
from seqprune.graph.recorder import Recorder
from seqprune.graph.rules.table import ANY, require, rule
from seqprune.graph.values import NoRule, Value

KEEPS_ZERO = (
    "celu elu gelu hardshrink hardswish leaky_relu mish relu relu6 selu sign silu softshrink softsign square tanh "
    "tanhshrink requires_grad erf sin asinh atan trunc floor round nan_to_num ceil frac expm1 log1p sinh tan asin atanh"
).split()
KEEPS_NUMBER = (
    "abs clone contiguous detach double float half bfloat16 neg sqrt cpu cuda data positive to type type_as".split()
)
DROPOUT = "dropout dropout1d dropout2d dropout3d alpha_dropout feature_dropout feature_alpha_dropout".split()
LOSES_ZERO = "sigmoid hardsigmoid softplus logsigmoid exp cos cosh".split()
KEEPS_ZERO_LIMITED = ("clamp", "clip", "hardtanh")


@rule(*KEEPS_ZERO, dims=ANY)
def keeps_zero(r: Recorder, out: torch.Tensor, x: torch.Tensor, *args: Any, **kwargs: Any) -> Value:
    """f(0) = 0, channel by channel."""
    return replace(r.followed(x), nonzero=False)


@rule(*KEEPS_NUMBER, dims=ANY)
def keeps_number(r: Recorder, out: torch.Tensor, x: torch.Tensor, *args: Any, **kwargs: Any) -> Value:
    """The same, and of another number never zero, but where few bits hold it. ``type_as`` takes a type only."""
    value = r.followed(x)
    return replace(value, nonzero=value.nonzero and out.dtype in (torch.float32, torch.float64))


@rule(*DROPOUT, dims=ANY)
def dropout(
    r: Recorder, out: torch.Tensor, x: torch.Tensor, p: float = 0.5, training: bool = True, *args: Any, **kwargs: Any
) -> Value:
    """``F.dropout(x)`` draws in inference too; torch's own operator calls ``training`` ``train``."""
    return _unless_drawn(r, x, p > 0 and training and kwargs.get("train", True))


@rule("rrelu", dims=ANY)
def randomised_relu(
    r: Recorder,
    out: torch.Tensor,
    x: torch.Tensor,
    lower: float = 0.0,
    upper: float = 0.0,
    training: bool = False,
    *args: Any,
    **kwargs: Any,
) -> Value:
    return _unless_drawn(r, x, training)


def _unless_drawn(r: Recorder, x: torch.Tensor, draws: bool) -> Value:
    """f(0) = 0 whatever is drawn; but what is drawn for a channel hangs on how many there are."""
    require(r.model.training or not draws, "draws at random in inference")
    value = r.followed(x)
    return replace(value, constant=value.constant and not draws, nonzero=value.nonzero and not draws)


@rule("expand_as", dims=ANY)
def expand_as(r: Recorder, out: torch.Tensor, x: torch.Tensor, other: torch.Tensor) -> Value:
    value, lender = r.followed(x), r.value(other)
    dim = value.dim + out.dim() - x.dim()
    if lender is None or lender.dim != dim:
        raise NoRule("takes the shape of a constant")
    require(out.shape[dim] == len(value.known()), "spreads one channel over many")
    r.tie(value.known(), lender.known(), "takes its shape")
    return Value(value.known(), dim, value.zero)


@rule(*LOSES_ZERO, dims=ANY)
def loses_zero(r: Recorder, out: torch.Tensor, x: torch.Tensor, *args: Any, **kwargs: Any) -> Value:
    value = r.followed(x)
    return Value(value.known(), value.dim, zero=False, constant=value.steady, nonzero=value.zero)


@rule("rsqrt", "reciprocal", "log", "log2", "log10", dims=ANY)
def without_zero(r: Recorder, out: torch.Tensor, x: torch.Tensor) -> Value:
    """Infinite at zero; of a number that is one number as well, whose logarithm may be zero."""
    value = r.followed(x)
    require(value.nonzero, "is infinite at zero")
    return Value(value.known(), value.dim, zero=False, constant=value.constant)


@rule(*KEEPS_ZERO_LIMITED, dims=ANY)
def limited(r: Recorder, out: torch.Tensor, x: torch.Tensor, *args: Any, **kwargs: Any) -> Value:
    value = r.followed(x)
    named = {name.removesuffix("_val"): limit for name, limit in kwargs.items()}  # hardtanh has its own names
    low, high = (args[at] if at < len(args) else named.get(name) for at, name in enumerate(("min", "max")))
    require(all(v is None or isinstance(v, int | float) for v in (low, high)), "limits are tensors")
    # hardtanh without arguments limits to [-1, 1], which keeps zero as no limits would.
    return Value(value.known(), value.dim, value.zero and (low or 0) <= 0 <= (high or 0), value.steady)


@rule("pow", dims=ANY)
def power(r: Recorder, out: torch.Tensor, x: Any, exponent: Any) -> Value:
    require(isinstance(x, torch.Tensor), "only tensor ** number is followed")
    value = r.followed(x)
    if isinstance(exponent, torch.Tensor):  # one for all channels, which may be another in another pass
        require(exponent.numel() == 1 and r.value(exponent) is None, "only tensor ** number is followed")
        positive = r.steady(r.parameter(exponent)) and not exponent.is_meta and float(exponent) > 0
        require(positive or not value.zero, "zero to the power of what may be negative")
        return Value(value.known(), value.dim, value.zero)
    require(isinstance(exponent, int | float), "only tensor ** number is followed")
    require(exponent >= 0 or not value.zero, "zero to a negative power is infinite")
    return Value(value.known(), value.dim, value.zero and exponent > 0, value.steady)


@rule("softmax", "log_softmax", dims=ANY)
def softmax(
    r: Recorder, out: torch.Tensor, x: torch.Tensor, dim: int | None = None, *args: Any, **kwargs: Any
) -> Value:
    value = r.followed(x)
    require(dim is not None and dim % x.dim() != value.dim, "mixes channels")
    return Value(value.known(), value.dim, zero=False)


@rule("normalize", dims=ANY)
def normalize(
    r: Recorder, out: torch.Tensor, x: torch.Tensor, p: float = 2.0, dim: Any = 1, *args: Any, **kwargs: Any
) -> Value:
    """Divides by a norm, to which channels that are zero add nothing."""
    value = r.followed(x)
    require(value.zero and 0 <= p < float("inf") and isinstance(dim, int), "takes the norm of channels in another way")
    return value


@rule("add", "sub", "rsub", "maximum", "minimum", dims=ANY)
def addition(r: Recorder, out: torch.Tensor, x: Any, other: Any = None, *args: Any, **kwargs: Any) -> Value:
    require(other is not None, "reduces over channels")
    return joined(r, out, x, other, product=False)


@rule("mul", dims=ANY)
def product(r: Recorder, out: torch.Tensor, x: Any, other: Any, **kwargs: Any) -> Value:
    return joined(r, out, x, other, product=True)


@rule("div", "true_divide", dims=ANY)
def quotient(r: Recorder, out: torch.Tensor, x: Any, other: Any, **kwargs: Any) -> Value:
    return _divided(r, out, x, other)


@rule("rdiv", "rtruediv", dims=ANY)
def turned_quotient(r: Recorder, out: torch.Tensor, x: Any, other: Any) -> Value:
    return _divided(r, out, other, x)


def _divided(r: Recorder, out: torch.Tensor, x: Any, other: Any) -> Value:
    value = r.value(other) if isinstance(other, torch.Tensor) else None
    require(value is None or value.fixed or value.nonzero, "divides by channels that may be zero")
    return joined(r, out, x, other, product=True)


@rule("addcmul", dims=ANY)
def product_added(
    r: Recorder, out: torch.Tensor, x: torch.Tensor, one: Any, other: Any, *, value: float = 1.0
) -> Value:
    """``x + value * one * other``."""
    return _added(r, out, x, joined(r, out, one, other, product=True))


@rule("addcdiv", dims=ANY)
def quotient_added(
    r: Recorder, out: torch.Tensor, x: torch.Tensor, one: Any, other: Any, *, value: float = 1.0
) -> Value:
    return _added(r, out, x, _divided(r, out, one, other))


def _added(r: Recorder, out: torch.Tensor, x: torch.Tensor, other: Value) -> Value:
    return joined(r, out, x, stand_in(r, out, other), product=False)


def stand_in(r: Recorder, out: torch.Tensor, value: Value) -> torch.Tensor:
    """A tensor of the shape of ``out`` with channels of its own, for what a call computes on its way."""
    way = out.detach()
    r.set_value(way, value)
    return way


@rule("lerp", dims=ANY)
def between(r: Recorder, out: torch.Tensor, x: Any, end: Any, weight: Any) -> Value:
    """``x + weight * (end - x)``: zero where both are."""
    value = joined(r, out, x, end, product=False)
    weighed = joined(r, out, stand_in(r, out, value), weight, product=True)
    return Value(weighed.known(), weighed.dim, value.zero)


def joined(r: Recorder, out: torch.Tensor, x: Any, y: Any, *, product: bool) -> Value:
    """Of two operands at least one is tracked; the other may be a number, a constant or a parameter."""
    left = r.value(x) if isinstance(x, torch.Tensor) else None
    right = r.value(y) if isinstance(y, torch.Tensor) else None
    if left is not None and right is not None:
        for value, tensor, other, beside in ((left, x, right, y), (right, y, left, x)):
            if other.fixed and _is_spread(value, tensor, beside):
                return Value(value.known(), out.dim() + value.dim - tensor.dim(), value.zero and product)
        return _join_tracked(r, out, left, right, x.dim(), y.dim(), product=product)
    tensor, other = (x, y) if left is not None else (y, x)
    require(isinstance(other, torch.Tensor | Number | np.generic), "combines channels with what is no number")
    value = r.followed(tensor)
    axis = value.dim - tensor.dim()  # counted from the end, where broadcasting aligns
    dim = out.dim() + axis
    atoms = value.known()
    require(out.shape[dim] == len(atoms), "broadcasts one channel over many")
    if isinstance(other, torch.Tensor) and other.dim() >= -axis and other.shape[axis] > 1:
        _cut_beside(r, other, atoms, product=product)
        # What is worked out may be worked out with other numbers in another pass.
        return Value(atoms, dim, value.zero, value.constant and not r.is_computed(other))
    if isinstance(other, torch.Tensor) and other.numel() > 1:  # held, it has numbers along other dimensions
        r.foreign(other, "what combines it with channels")
    adds = not product and not (isinstance(other, int | float) and other == 0)
    # A tensor that no module holds may be another one in every pass, and one with rows and columns is no one number.
    number = isinstance(other, int | float)
    one = number or (isinstance(other, torch.Tensor) and other.numel() == 1 and r.steady(r.parameter(other)))
    nonzero = number and other != 0 and (value.nonzero if product else value.zero)
    return Value(atoms, dim, value.zero and not adds, value.steady and one, nonzero)


def _cut_beside(r: Recorder, other: torch.Tensor, atoms: IntArray, *, product: bool) -> None:
    """States that a constant with one number for each channel is cut with them; where it is added, it is zero then."""
    held = r.computed(other)
    require(held is not None or not r.owners(r.parameter(other)), "a parameter with more than one entry per channel")
    require(held is not None, "combines channels with a constant that has one entry per channel")
    assert held is not None  # noqa: S101 - as required
    require(product or held.can_be_zero, "adds what is not zero where channels are")
    zero = () if product else {id(part) for part in held.zero}
    for part in held.parts:
        r.cut(part, part.shape.index(len(atoms)), atoms, 0.0 if id(part) in zero else None)


def _is_spread(value: Value, tensor: torch.Tensor, other: torch.Tensor) -> bool:
    """Whether the other operand has one number for all channels, at every place."""
    axis = value.dim - tensor.dim()  # counted from the end, where broadcasting aligns
    return other.dim() < -axis or other.shape[axis] == 1


def _join_tracked(
    r: Recorder,
    out: torch.Tensor,
    left: Value,
    right: Value,
    left_dims: int,
    right_dims: int,
    *,
    product: bool,
) -> Value:
    axis = left.dim - left_dims
    require(axis == right.dim - right_dims, "the channels of the operands lie in different dimensions")
    a, b = left.known(), right.known()
    dim = out.dim() + axis
    if len(a) == len(b):
        r.tie(a, b, f"joined element-wise in {r.module or 'the network'} with channels that cannot be removed")
        zero = (left.zero or right.zero) if product else (left.zero and right.zero)
        return Value(a, dim, zero, left.steady and right.steady)
    one, many = (left, right) if len(a) == 1 else (right, left)
    r.pin(one.known(), f"one channel that {r.module or 'the network'} spreads over all others")
    return Value(many.known(), dim, many.zero and product)
