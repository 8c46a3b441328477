"""Applies a validated plan: zeros (``mask``) or smaller tensors (``compact``), and the proof that both agree."""

from __future__ import annotations

import logging
from collections.abc import Callable, Mapping
from dataclasses import replace
from numbers import Real
from typing import Any

import numpy as np
import torch
from torch import nn
from torch.utils.hooks import RemovableHandle

from seqprune.errors import InputError, ModelError, PlanError
from seqprune.graph import proof, trace, widths
from seqprune.graph.beside import repeated
from seqprune.graph.capture import NotAllRun, NotRunning
from seqprune.graph.channels import BoolArray, ChannelGraph, Slice
from seqprune.graph.constants import constants_read
from seqprune.graph.copying import copied
from seqprune.graph.factor import shaped
from seqprune.graph.given import check_belongs, check_graph, check_inputs, check_network, zeros
from seqprune.graph.leaving import left_out, merge
from seqprune.graph.modes import uncompiled, untold
from seqprune.graph.numbers import put
from seqprune.graph.paths import module_at
from seqprune.graph.proof import TOLERANCE as TOLERANCE
from seqprune.graph.proof import Difference as Difference
from seqprune.graph.values import tensors_in
from seqprune.plan import PrunePlan, check_plan

log = logging.getLogger(__name__)


def mask(model: nn.Module, plan: PrunePlan, graph: ChannelGraph | None = None) -> nn.Module:
    """A copy of ``model`` in which the removed channels are exactly zero; shapes stay.

    Weight rows, biases, BatchNorm weight, bias and running mean become zero, the running variance one, in
    every producer of a channel group. Laws: ``mask(mask(m, p), p) == mask(m, p)``.

    Args:
        model, plan, graph: as :func:`compact` takes them.

    Raises:
        PlanError: the plan is not for this model.
    """
    _check(model, plan, graph)
    masked = copied(shaped(left_out(model, plan.blocks), plan.factors))
    masker(plan, _graph_of(masked, plan, graph))(masked)
    return masked


def masker(plan: PrunePlan, graph: ChannelGraph) -> Callable[[nn.Module], None]:
    """A function that zeroes the plan's channels of a model in place, for training loops."""
    removed = plan.removed_groups(graph)
    rows = [
        (cut, block, torch.from_numpy(np.flatnonzero(removed[groups])))
        for cut in graph.slices
        if cut.dead is not None and removed[cut.groups].any()
        for block, groups in enumerate(np.atleast_2d(cut.groups))
    ]

    def apply(model: nn.Module) -> None:
        with torch.no_grad():
            for cut, block, index in rows:
                tensor = getattr(model.get_submodule(cut.module), cut.tensor)
                if cut.groups.ndim == 2:  # of a grouped transposed convolution
                    tensor = tensor.chunk(len(cut.groups))[block]
                tensor.index_fill_(cut.dim, index.to(tensor.device), cut.dead)

    return apply


def keep_masked(
    model: nn.Module, plan: PrunePlan, optimizer: torch.optim.Optimizer, graph: ChannelGraph | None = None
) -> RemovableHandle:
    """Keeps a masked model's removed channels dead while an optimizer trains it: they are zeroed after every step.

    Without it they wake up, since a zero BatchNorm has a gradient. The handle's ``remove()`` ends it.

    Args:
        model: trained in place by ``optimizer``; masked by ``plan``.
        plan, graph: as :func:`compact` takes them.

    Raises:
        PlanError: the plan is not for this model.
    """
    _check(model, plan, graph)
    if not isinstance(optimizer, torch.optim.Optimizer):
        raise InputError(f"the optimizer is a {type(optimizer).__name__}: give the one of torch.optim that trains it")
    zero = masker(plan, _graph_of(model, plan, graph))
    zero(model)
    return optimizer.register_step_post_hook(lambda *_: zero(model))


def compact(model: nn.Module, plan: PrunePlan, graph: ChannelGraph | None = None) -> nn.Module:
    """A copy of ``model`` without the removed channels, made of the same unmodified modules.

    Equal to ``mask(model, plan)`` on every input up to floating point.

    Args:
        model: the unpruned or the masked model, the plan's factors and blocks done or not; by the weights alone then.
        plan: what stays.
        graph: that of the model with its factors, traced anew where it is left out.

    Raises:
        PlanError: the plan is not for this model.
    """
    _check(model, plan, graph)
    model = shaped(left_out(model, plan.blocks), plan.factors)
    graph = _graph_of(model, plan, graph)
    removed = plan.removed_groups(graph)
    whole = copied(model) if graph.folds else model
    new = fold_constants(whole, plan, graph, removed)
    outputs = (cut for cut in graph.slices if cut.module in new and cut.tensor == "weight" and cut.dead is not None)
    cuts: dict[tuple[str, str], list[Slice]] = {}
    for cut in (*graph.slices, *(replace(cut, tensor="bias") for cut in outputs)):
        if removed[cut.groups].any():
            cuts.setdefault((cut.module, cut.tensor), []).append(cut)
    parts: dict[int, torch.Tensor] = {}  # a parameter that two modules share stays one parameter
    modules = dict(whole.named_modules(remove_duplicate=False))
    tensors = {(path, name): getattr(modules[path], name) for path, name in cuts}
    for key, slices in cuts.items():
        if id(tensors[key]) not in parts:
            parts[id(tensors[key])] = _cut(tensors[key], slices, removed)
    stated = [widths.held(module) for module in whole.modules()]
    small = copied(whole, parts)  # what is cut is not copied first
    modules = dict(small.named_modules(remove_duplicate=False))
    for (path, name), tensor in tensors.items():
        if getattr(modules[path], name) is not parts[id(tensor)]:  # a module that copies itself in its own way
            setattr(modules[path], name, parts[id(tensor)])
    for path in {path for path, _ in cuts}:
        widths.follow(modules[path])
    for module, facts in zip(small.modules(), stated, strict=True):
        widths.update(module, facts)
    for same in repeated(model, graph, removed):
        if same.clear:
            put(small.get_submodule(same.module), same.attribute, same.after[0])
        else:
            log.log(logging.INFO if same.other else logging.WARNING, "%s: left as it is, set it if it is theirs", same)
    for width in graph.widths:
        counts = [int((~removed[section]).sum()) for section in width.sections]
        put(small.get_submodule(width.module), width.attribute, counts if width.many else counts[0])
    merge(small, plan.blocks, {path: ~removed[groups] for path, groups in graph.weight_inputs.items()})
    return small


def fill(model: nn.Module, tensors: Mapping[str, torch.Tensor]) -> None:
    """Gives a model, in place, tensors of other widths than it was built with; its modules' widths follow them.

    Args:
        model: a network of the same modules.
        tensors: its state by name, complete.
    """
    stated = [(module, widths.held(module)) for module in model.modules()]
    done: dict[int, torch.Tensor] = {}
    wrong: set[str] = set()
    places = [(name, model.get_submodule(name.rpartition(".")[0]), name.rpartition(".")[2]) for name in tensors]
    for name, module, attribute in places:  # all of them, before the first is put in its place
        whole, tensor = getattr(module, attribute), tensors[name]
        if whole.ndim != tensor.ndim or any(a < b for a, b in zip(whole.shape, tensor.shape, strict=True)):
            raise ValueError(f"{name} is {list(tensor.shape)} where the whole is {list(whole.shape)}")
    for name, module, attribute in places:
        whole, tensor = getattr(module, attribute), tensors[name]
        if whole.shape != tensor.shape:
            wrong.add(name.rpartition(".")[0])
        part = nn.Parameter(tensor, whole.requires_grad) if isinstance(whole, nn.Parameter) else tensor
        setattr(module, attribute, done.setdefault(id(whole), part))
    for path in wrong:
        widths.follow(model.get_submodule(path))
    for module, facts in stated:
        widths.update(module, facts)


def _cut(whole: torch.Tensor, slices: list[Slice], removed: BoolArray) -> torch.Tensor:
    part = whole.detach()
    for cut in slices:
        stay = ~removed[cut.groups]
        if cut.groups.ndim == 1:
            part = part.index_select(cut.dim, torch.from_numpy(np.flatnonzero(stay)).to(part.device))
        else:
            blocks = part.chunk(len(stay))  # of equally many rows each, before these are cut and after
            part = torch.cat(
                [b[:, torch.from_numpy(np.flatnonzero(s)).to(part.device)] for b, s in zip(blocks, stay, strict=True)]
            )
    return nn.Parameter(part, whole.requires_grad) if isinstance(whole, nn.Parameter) else part


def _check(model: object, plan: object, graph: object = None) -> None:
    check_network(model)
    check_plan(plan)
    if graph is not None:
        check_graph(graph)


def _graph_of(model: nn.Module, plan: PrunePlan, graph: ChannelGraph | None) -> ChannelGraph:
    """The one given, which has to be the model's, or a new one."""
    if graph is None:
        return graph_for(model, plan)
    check_belongs(graph, model)
    return graph


def graph_for(model: nn.Module, plan: PrunePlan) -> ChannelGraph:
    """Traces ``model`` on zeros of the shapes the plan was made with, one tensor an argument.

    Raises:
        ModelError: it does not run on them, as where it takes its tensors in lists.
        PlanError: a layer of the plan does not, as where the data choose among experts.
    """
    try:
        graph = trace(model, zeros(model, plan.inputs))
    except NotRunning as error:
        raise ModelError(
            f"without its graph the network is run on one tensor an argument, {[shape for shape, _ in plan.inputs]}, "
            f"and {error.what}: where it takes them in lists or dictionaries, {_GIVE_THE_GRAPH}"
        ) from error
    except NotAllRun as error:
        raise PlanError(f"without its graph the network is run on zeros; {error}, or {_GIVE_THE_GRAPH}") from error
    for entry in plan.layers:
        weight = getattr(module_at(model, entry.name), "weight", None)
        if entry.name not in graph.by_name and isinstance(weight, torch.Tensor) and entry.channels in weight.shape:
            raise PlanError(
                f"{entry.name} does not run on zeros, on which the network is traced without its graph: likely which "
                f"layers run depends on the data; {_GIVE_THE_GRAPH}"
            )
    return graph


_GIVE_THE_GRAPH = "give the graph that trace returned, as in compact(model, plan, graph)"


def fold_constants(small: nn.Module, plan: PrunePlan, graph: ChannelGraph, removed: BoolArray) -> frozenset[str]:
    """Adds to biases, in place, what their layers make of removed channels that are constants, as after a sigmoid.

    The constants are those of the masked network, seen in a pass: which number it is hangs on its weights alone.

    Returns:
        The layers that had no bias and were given one.
    """
    gone = {path: np.flatnonzero(removed[graph.weight_inputs[path]]) for path in graph.folds}
    gone = {path: index for path, index in gone.items() if len(index)}
    if not gone:
        return frozenset()
    masked = copied(small).eval()
    masker(plan, graph)(masked)
    seen = constants_read(masked, gone, zeros(masked, graph.inputs))
    new = frozenset(path for path in gone if small.get_submodule(path).bias is None)
    with torch.no_grad():
        for path, index in gone.items():
            layer: Any = small.get_submodule(path)
            rows = layer.weight.double()[:, torch.from_numpy(index).to(layer.weight.device), ...]
            rows = rows.reshape(*rows.shape[:2], -1).sum(2)
            if path in new:
                layer.bias = nn.Parameter(layer.weight.new_zeros(len(rows)), layer.weight.requires_grad)
            layer.bias.copy_(layer.bias.double() + rows @ seen[path])
    return new


def verify(masked: nn.Module, small: nn.Module, example_inputs: Any, tolerance: float | None = None) -> Difference:
    """Measures whether both models compute the same in inference, and tries what they run elsewhere.

    That is, where the masked model runs it: its own ``fuse``, what it computes where ``torch.jit.is_tracing()`` or
    ``torch.compiler.is_compiling()``, gradients on, other sizes and another number of inputs, a training step, and what
    :func:`seqprune.graph.proof.register_form` states. Where float32 finds a difference, float64 decides.

    Args:
        masked: the reference.
        small: the compact model.
        example_inputs: real input of the model, a tensor or a tuple of arguments.
        tolerance: greatest relative difference; by default 1e-4 in float32, 1e-10 in float64. Where one is given, no
            other precision is tried.

    Raises:
        InputError: the tolerance is no number of 0 or more.
        ModelError: the masked model does not run on this input.
        VerificationError: the compact one does not; shapes differ, a value is not finite in one of them only, or the
            difference is above the tolerance.
    """
    for model in (masked, small):
        check_network(model)
    if tolerance is not None and not (
        isinstance(tolerance, Real) and not isinstance(tolerance, bool) and tolerance >= 0
    ):
        raise InputError(f"{tolerance=}: give a number, 0 or more, or leave it out")
    inputs = example_inputs if isinstance(example_inputs, tuple) else (example_inputs,)
    if tensors_in(inputs):  # a network may take none
        check_inputs(inputs)
    with uncompiled(), untold():
        found = proof.compare(copied(masked), copied(small), inputs, tolerance)  # which may keep something of a run
        return replace(found, tried=proof.elsewhere(masked, small, inputs, tolerance))
