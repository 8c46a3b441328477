"""Operators with weights: convolution, transposed convolution, linear layers, batch normalisation, PReLU."""

from __future__ import annotations

from collections.abc import Callable
from functools import partial
from typing import Any, cast

import numpy as np
import torch
from torch import nn

from seqprune.graph.channels import IntArray
from seqprune.graph.constants import made_one, runs_as_torch
from seqprune.graph.counts import Count, counts_in, is_count, plain
from seqprune.graph.recorder import Recorder
from seqprune.graph.rules.table import ANY, require, rule
from seqprune.graph.unwatched import computed_weight
from seqprune.graph.values import FIXED, NoRule, Value


def _require_held(r: Recorder, held: bool) -> None:
    """Leaves a layer to the barrier whose weight or bias no module holds as it is."""
    if not held:
        why = computed_weight(r.own)
        other = "or no module of the network holds it, as of a layer in a plain list: a ModuleList does"
        raise NoRule(f"the weight is computed, {f'by {why}' if why else other}")


WhyNot = Callable[[], str]


def _read(
    r: Recorder, x: torch.Tensor, dim: int, channels: int, weight: torch.Tensor, why_not: WhyNot | None
) -> IntArray:
    """Atoms that a weight reads along ``dim``; removed ones must arrive as zeros, or as constants that can be folded.

    ``why_not`` says why the reader's bias cannot take up a constant; empty where it can, ``None`` where it need not,
    since what the weight makes of such a channel is removed with it.
    """
    r.reads(weight)
    value = r.followed(x)
    if value.atoms is None or value.fixed:
        return np.full(channels, FIXED)
    require(value.dim == dim, f"reads dimension {dim} while the channels lie in dimension {value.dim}")
    if value.zero or why_not is None:
        return value.atoms
    reason = why_not() if value.constant else ""
    if value.constant and not reason:
        r.fold(weight, value.atoms)
    else:
        more = f", and {reason}" if reason else ""
        r.pin(
            value.atoms,
            f"{r.module} reads channels that are not zero once removed (sigmoid, added constant …){more}",
        )
    return value.atoms


def _no_fold(r: Recorder, weight: torch.Tensor, bias: torch.Tensor | None, padding: Any = 0) -> str:
    """Why the bias of a layer cannot take up what its weight makes of a constant channel; empty where it can.

    A layer without one is given one.
    """
    if not runs_as_torch(r.own, weight, bias):
        return "its code is not that of torch's own layer"
    if bias is None and made_one(r.modules, r.module):
        return "it has no bias, which code that makes one layer of several may count on"
    if len(r.owners(weight)) > 1 or (bias is not None and len(r.owners(bias)) > 1):
        return "it shares its weights with another"
    pads = plain(padding)
    pads = (pads,) if isinstance(pads, int | str) else tuple(pads)
    if any(pad not in (0, "valid") for pad in pads):
        return "its border of zeros is no part of a constant"
    return ""


_WRITTEN_OUT = "the number of groups is written out in the code"


def convolution(
    r: Recorder,
    out: torch.Tensor,
    input: torch.Tensor,  # noqa: A002 - torch's own name, networks may pass it by keyword
    weight: torch.Tensor,
    bias: torch.Tensor | None = None,
    stride: Any = 1,
    padding: Any = 0,
    dilation: Any = 1,
    groups: int = 1,
) -> Value:
    _require_held(r, bool(r.owners(weight)))
    _require_held(r, bias is None or bool(r.owners(bias)))
    channels = input.shape[1]
    written, groups = groups, plain(groups, read=False)
    for count in counts_in((stride, padding, dilation)):
        count.use()
    depthwise = groups > 1 and groups == channels
    why_not = (lambda: "it has groups") if groups > 1 else partial(_no_fold, r, weight, bias, padding)
    read = _read(r, input, 1, channels, weight, None if depthwise else why_not)
    if depthwise:
        _require_counted(r, weight, written, read)
        return _depthwise(r, read, weight, bias)
    require(written is groups, "the number of groups is a number of channels")
    atoms = r.new_layer(weight, weight.shape[0])
    if groups > 1:
        read = read.reshape(groups, -1)
        _balance_groups(r, read, atoms, groups)
    _cut_output(r, weight, 0, bias, atoms)
    r.cut(weight, 1, read, None)
    return Value(atoms)


def _require_counted(r: Recorder, weight: torch.Tensor, groups: int, read: IntArray) -> None:
    """A depthwise convolution has as many groups as channels after pruning too.

    Its module's attribute follows them, where the module runs that holds the weight; else their own number was given.
    """
    module = r.own
    own = isinstance(module, nn.modules.conv._ConvNd) and any(o.module == r.module for o in r.owners(weight))
    if own and groups is vars(module)["groups"]:
        return
    require(is_count(groups), _WRITTEN_OUT)
    r.tie_counted(read, cast(Count, groups).source)


def _depthwise(r: Recorder, read: IntArray, weight: torch.Tensor, bias: torch.Tensor | None) -> Value:
    """A depthwise convolution passes its channels on, each of them once per output it makes of it."""
    times = weight.shape[0] // len(read)
    atoms = read if times == 1 else np.repeat(read, times)
    _cut_output(r, weight, 0, bias, atoms)
    return Value(atoms)


def transposed_convolution(
    r: Recorder,
    out: torch.Tensor,
    input: torch.Tensor,  # noqa: A002
    weight: torch.Tensor,
    bias: torch.Tensor | None = None,
    stride: Any = 1,
    padding: Any = 0,
    output_padding: Any = 0,
    groups: int = 1,
    dilation: Any = 1,
) -> Value:
    written, groups = groups, plain(groups, read=False)
    _require_held(r, bool(r.owners(weight)))
    _require_held(r, bias is None or bool(r.owners(bias)))
    channels = input.shape[1]
    read = _read(r, input, 1, channels, weight, lambda: "it is transposed")
    for count in counts_in((stride, padding, output_padding, dilation)):
        count.use()
    if groups > 1 and groups == channels:
        _require_counted(r, weight, written, read)
        atoms = np.repeat(read, weight.shape[1])
        r.cut(weight, 0, read, 0.0)
        if bias is not None:
            r.cut(bias, 0, atoms, 0.0)
        return Value(atoms)
    require(written is groups, "the number of groups is a number of channels")
    atoms = r.new_layer(weight, groups * weight.shape[1])
    if groups > 1:
        _balance_groups(r, read, atoms, groups)
        r.cut(weight, 1, atoms.reshape(groups, -1), 0.0)
    else:
        r.cut(weight, 1, atoms, 0.0)
    if bias is not None:
        r.cut(bias, 0, atoms, 0.0)
    r.cut(weight, 0, read, None)
    return Value(atoms)


# An image without a batch dimension has one fewer: what lies in dimension 1 is not its channels.
for space in (1, 2, 3):
    rule(f"conv{space}d", dims=space + 2, opaque=True)(convolution)
    rule(f"conv_transpose{space}d", dims=space + 2, opaque=True)(transposed_convolution)


def _balance_groups(r: Recorder, read: IntArray, atoms: IntArray, groups: int) -> None:
    where = f"{groups} convolution groups of {r.module}"
    r.balance(list(read.reshape(groups, -1)), f"inputs of the {where}")
    r.balance(list(atoms.reshape(groups, -1)), f"outputs of the {where}")


@rule("linear", dims=ANY, opaque=True)
def linear(
    r: Recorder,
    out: torch.Tensor,
    input: torch.Tensor,  # noqa: A002
    weight: torch.Tensor,
    bias: torch.Tensor | None = None,
) -> Value:
    _require_held(r, bool(r.owners(weight)))
    _require_held(r, bias is None or (bool(r.owners(bias)) and bias.shape == weight.shape[:1]))
    dim = input.dim() - 1
    read = _read(r, input, dim, input.shape[dim], weight, partial(_no_fold, r, weight, bias))
    atoms = r.new_layer(weight, weight.shape[0])
    _cut_output(r, weight, 0, bias, atoms)
    r.cut(weight, 1, read, None)
    return Value(atoms, dim)


def _cut_output(r: Recorder, weight: torch.Tensor, dim: int, bias: torch.Tensor | None, atoms: IntArray) -> None:
    r.cut(weight, dim, atoms, 0.0)
    if bias is not None:
        r.cut(bias, 0, atoms, 0.0)


def batch_norm(
    r: Recorder,
    out: torch.Tensor,
    input: torch.Tensor,  # noqa: A002
    running_mean: torch.Tensor | None = None,
    running_var: torch.Tensor | None = None,
    weight: torch.Tensor | None = None,
    bias: torch.Tensor | None = None,
    *args: Any,
    **kwargs: Any,
) -> Value:
    value = r.followed(input)
    require(value.dim == 1, "the channels are not in dimension 1")
    atoms = value.known()
    if weight is None and isinstance(r.own, nn.modules.batchnorm._NormBase):
        r.width("num_features", atoms)  # one without weights tells its channels in no other way
    for tensor, dead in ((weight, 0.0), (bias, 0.0), (running_mean, 0.0), (running_var, 1.0)):
        if tensor is not None:
            _require_held(r, bool(r.owners(tensor)))
            r.cut(tensor, 0, atoms, dead)
    return Value(atoms, 1, value.zero or weight is not None)


rule("batch_norm", "instance_norm", dims=ANY)(batch_norm)


def torchs_norm(
    r: Recorder,
    out: torch.Tensor,
    input: torch.Tensor,  # noqa: A002
    weight: torch.Tensor | None,
    bias: torch.Tensor | None,
    running_mean: torch.Tensor | None,
    running_var: torch.Tensor | None,
    *args: Any,
    **kwargs: Any,
) -> Value:
    """``torch.batch_norm``, whose statistics stand behind the weights."""
    return batch_norm(r, out, input, running_mean, running_var, weight, bias)


rule("torch.batch_norm", "torch.instance_norm", dims=ANY)(torchs_norm)


@rule("group_norm", dims=ANY)
def group_norm(
    r: Recorder,
    out: torch.Tensor,
    input: torch.Tensor,  # noqa: A002
    num_groups: int,
    weight: torch.Tensor | None = None,
    bias: torch.Tensor | None = None,
    eps: float = 1e-5,
) -> Value:
    """The channels of a group share their statistics, so a group stays or goes as a whole."""
    value = r.followed(input)
    held = {owner.module for tensor in (weight, bias) if tensor is not None for owner in r.owners(tensor)}
    require(held <= {r.module}, _WRITTEN_OUT)
    module = r.own
    require(isinstance(module, torch.nn.GroupNorm) and num_groups is module.num_groups, _WRITTEN_OUT)
    own = is_count(num_groups) or type(module).forward is torch.nn.GroupNorm.forward
    require(own, _WRITTEN_OUT)
    num_groups = plain(num_groups, read=False)
    require(num_groups > 1, "normalises all channels as one")
    require(value.dim == 1 and value.zero, "normalises channels that are not zero once removed")
    groups = value.known().reshape(num_groups, -1)
    first = np.repeat(groups[:, :1], groups.shape[1], axis=1)
    r.tie(first, groups, f"normalised in {r.module} with channels that cannot be removed")
    for tensor in (weight, bias):
        if tensor is not None:
            r.cut(tensor, 0, value.known(), 0.0)
    r.width("num_groups", groups[:, 0])
    r.width("num_channels", groups)
    return value


@rule("prelu", dims=ANY)
def prelu(r: Recorder, out: torch.Tensor, input: torch.Tensor, weight: torch.Tensor) -> Value:  # noqa: A002
    value = r.followed(input)
    if weight.numel() > 1:
        _require_held(r, bool(r.owners(weight)) and value.dim == 1)
        r.cut(weight, 0, value.known(), None)
    return value
