"""Which layers of a network can be read, and what stands behind each: looked at on one input, not believed.

A layer is read where its weights times what :func:`seqprune.observe.patches.patches` shows give its own output: some
subclasses of a convolution pad in their own way, some layers fold rows of an image into the batch. Whether a BatchNorm
and an activation alone follow it is read from the graph that automatic differentiation records.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from functools import partial
from typing import Any, cast

import torch
from torch import nn

from seqprune.graph.values import tensors_in
from seqprune.observe.batch import Batch
from seqprune.observe.inputs import call, with_gradients
from seqprune.observe.maps import TRANSPOSED, as_map, blocks_of, readable, taps, weight_rows
from seqprune.observe.patches import patches
from seqprune.observe.unit import Unit, affine
from seqprune.observe.watching import entering, recording, watching

LAYERS = (nn.Linear, nn.Conv1d, nn.Conv2d, nn.Conv3d, *TRANSPOSED)
LOOKED_AT = 64
"""Positions of every layer's output that are computed anew."""
TOLERANCE = 1e-3
"""Of the greatest output there: another precision, or another order of sums, is no other layer."""
Node = Any
"""Of the graph that automatic differentiation records."""


@dataclass(frozen=True)
class Reading:
    """What can be known of a network's layers from what they read.

    Attributes:
        names: layers whose patches and weights give their outputs, in the order of the modules.
        left_out: by name, why the others do not.
        units: what follows a layer, where that is known.
    """

    names: tuple[str, ...]
    left_out: Mapping[str, str]
    units: Mapping[str, Unit]

    def unit(self, name: str) -> Unit:
        return self.units.get(name, Unit())


@dataclass(frozen=True)
class _Seen:
    """Of one layer or BatchNorm on its first run: the node of its output, and some values ``[positions, channels]``."""

    node: Node
    values: torch.Tensor


def reading_of(model: nn.Module, batch: Batch) -> Reading:
    """Runs a copy of the model, in inference mode, on the first image of a batch and compares."""
    copy = recording(model).eval()
    layers = {name: module for name, module in copy.named_modules() if isinstance(module, LAYERS)}
    norms = [name for name, m in copy.named_modules() if isinstance(m, nn.modules.batchnorm._BatchNorm)]
    left_out = {name: _why_not(module) for name, module in layers.items() if not readable(module)}
    made: dict[str, _Seen] = {}
    read: dict[tuple[Node, int], str] = {}
    before: dict[str, dict[tuple[Node, int], str]] = {}
    normed: dict[Node, tuple[str, _Seen]] = {}

    def look(name: str, layer: nn.Module, x: torch.Tensor, output: torch.Tensor) -> None:
        if name in made or name in left_out:
            return
        if why := _difference(layer, x.detach(), output.detach()):
            left_out[name] = why
        else:
            made[name] = _Seen(output.grad_fn, _some(as_map(layer, output.detach())))

    def follow(name: str, norm: nn.Module, x: torch.Tensor, output: torch.Tensor) -> None:
        normed.setdefault(x.grad_fn, (name, _Seen(output.grad_fn, _some(as_map(norm, output.detach())))))

    def enter(name: str, x: torch.Tensor) -> None:
        if x.grad_fn is not None:
            read[x.grad_fn, x.output_nr] = name
        if name in layers:
            before.setdefault(name, dict(read))

    def check(name: str, _layer: nn.Module, _given: Any, output: Any) -> None:
        if not isinstance(output, torch.Tensor):
            left_out.setdefault(name, f"it returns a {type(output).__name__}")

    for name, layer in layers.items():
        layer.register_forward_hook(partial(check, name))
    names = [name for name, _ in copy.named_modules() if name]
    with (
        torch.enable_grad(),
        entering(copy, names, enter),
        watching(copy, list(layers), look),
        watching(copy, norms, follow),
    ):
        out = call(copy, with_gradients(batch.input(copy, slice(1))))
    readers = _readers(out)
    whole = {name: seen for name, seen in made.items() if taps(layers[name]) == 1}  # one map for each channel
    units = {name: _unit(copy, name, seen, readers, normed, before[name]) for name, seen in whole.items()}
    known = tuple(name for name in layers if name not in left_out)
    return Reading(known, left_out, {name: unit for name, unit in units.items() if unit != Unit()})


def _why_not(layer: nn.Module) -> str:
    return "its kernel is not its stride" if isinstance(layer, TRANSPOSED) else "its padding is not of zeros"


def _difference(layer: nn.Module, x: torch.Tensor, output: torch.Tensor) -> str:
    """Why a layer's output is not what its weights make of its patches; empty where it is."""
    if len(x) != 1 or len(output) != 1:
        return f"it reads {len(x)} entries for one image"
    strange = f"this {type(layer).__name__} computes something else than its weights say: it may pad in its own way"
    if isinstance(layer, TRANSPOSED) and output.shape[2:] != blocks_of(layer, x):
        return strange
    shown = as_map(layer, output)
    width = shown.shape[-1]
    cells = _cells(shown[0, 0].numel()).to(x.device)
    try:
        read = patches(layer, x, (torch.zeros_like(cells), cells // width, cells % width), output)
    except ValueError:  # no padding makes an output of that size
        return strange
    rows = weight_rows(layer).chunk(len(read))
    found = torch.cat([part @ its.T for part, its in zip(read, rows, strict=True)], 1)
    if layer.bias is not None:
        found = found + cast(torch.Tensor, layer.bias).detach().repeat_interleave(taps(layer))
    return "" if _alike(found, _some(shown)) else strange


def _alike(found: torch.Tensor, wanted: torch.Tensor) -> bool:
    return found.shape == wanted.shape and float((found - wanted).abs().max()) <= TOLERANCE * float(wanted.abs().max())


def _cells(count: int) -> torch.Tensor:
    """Positions all over a map, its edges among them."""
    return torch.linspace(0, count - 1, min(count, LOOKED_AT)).long()


def _some(shown: torch.Tensor) -> torch.Tensor:
    """``[positions, channels]`` of the first image."""
    flat = shown[0].flatten(1)
    return flat[:, _cells(flat.shape[1]).to(flat.device)].T.clone()


def _readers(out: Any) -> dict[Node, list[Node]]:
    """By node, those that read its output on the way to what the network returns; ``None`` stands for the network."""
    waiting = [tensor.grad_fn for tensor in tensors_in(out) if tensor.grad_fn is not None]
    readers: dict[Node, list[Node]] = {}
    for node in waiting:
        readers.setdefault(node, []).append(None)
    known: set[Node] = set()
    while waiting:
        node = waiting.pop()
        if node in known:
            continue
        known.add(node)
        for before, _ in node.next_functions:
            if before is not None:
                readers.setdefault(before, []).append(node)
                waiting.append(before)
    return readers


def _unit(
    model: nn.Module,
    name: str,
    seen: _Seen,
    readers: Mapping[Node, list[Node]],
    normed: Mapping[Node, tuple[str, _Seen]],
    before: Mapping[tuple[Node, int], str],
) -> Unit:
    """The BatchNorm that alone reads a layer's output, and the activation or sum that alone reads what comes of that.

    ``before`` are the modules that were last to read each tensor before the layer ran.
    """
    reader = _only(readers, seen.node)
    norm, end, last = None, reader, seen.node
    if reader is not None and "BatchNorm" in type(reader).__name__ and seen.node in normed:
        norm, given = normed[seen.node]
        scale, shift = affine(cast(nn.BatchNorm2d, model.get_submodule(norm)))
        after = (seen.values * scale + shift).to(seen.values.dtype)
        end, last = _only(readers, reader), reader
        activation = _activation(end)
        # Some BatchNorms hold their activation.
        acted = given.values if activation is None else activation(after.clone())
        if not _alike(after, given.values) and not _alike(acted, given.values):
            return Unit()
    return Unit(norm, _activation(end), _shortcut(end, last, before))


def _shortcut(node: Node, last: Node, before: Mapping[tuple[Node, int], str]) -> str | None:
    """Where a node adds another tensor to what ``last`` made, a module that read that tensor."""
    if type(node).__name__ != "AddBackward0" or node._saved_alpha != 1:
        return None
    others = [each for each in node.next_functions if each[0] is not last]
    return before.get(others[0]) if len(others) == 1 and len(node.next_functions) == 2 else None


def _only(readers: Mapping[Node, list[Node]], node: Node) -> Node:
    its = readers.get(node, [])
    return its[0] if len(its) == 1 else None


def _activation(node: Node) -> nn.Module | None:
    """The element-wise activation that a node computes."""
    make = ACTIVATIONS.get(type(node).__name__.removesuffix("0").removesuffix("Backward"))
    return None if make is None else make(node)


ACTIVATIONS: dict[str, Callable[[Node], nn.Module]] = {
    "Relu": lambda _: nn.ReLU(),
    "Silu": lambda _: nn.SiLU(),
    "Mish": lambda _: nn.Mish(),
    "Hardswish": lambda _: nn.Hardswish(),
    "Hardsigmoid": lambda _: nn.Hardsigmoid(),
    "Sigmoid": lambda _: nn.Sigmoid(),
    "Tanh": lambda _: nn.Tanh(),
    "Gelu": lambda node: nn.GELU(node._saved_approximate),
    "Hardtanh": lambda node: nn.Hardtanh(node._saved_min_val, node._saved_max_val),
    "LeakyRelu": lambda node: nn.LeakyReLU(node._saved_negative_slope),
    "Softplus": lambda node: nn.Softplus(node._saved_beta, node._saved_threshold),
}
"""By the name of the node that automatic differentiation records, without ``Backward0``."""
