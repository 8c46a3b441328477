"""Applies a validated plan: zeros (``mask``) or smaller tensors (``compact``), and the proof that both agree."""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any, cast

import numpy as np
import torch
from torch import nn
from torch.utils.hooks import RemovableHandle

from seqprune.errors import ModelError, SeqPruneError, VerificationError
from seqprune.graph import outputs, trace, widths
from seqprune.graph.channels import BoolArray, ChannelGraph, Slice
from seqprune.graph.copying import copied
from seqprune.graph.values import NETWORK_FAILS, cloned, first_line, leaves
from seqprune.plan import PrunePlan

TOLERANCE = {torch.float64: 1e-10, torch.float32: 1e-4, torch.float16: 2e-2, torch.bfloat16: 1e-1}


@dataclass(frozen=True)
class Difference:
    """How far two models are apart: ``max_rel`` is ``max_abs`` over the largest reference value, tensor by tensor."""

    max_abs: float
    max_rel: float


def mask(model: nn.Module, plan: PrunePlan, graph: ChannelGraph | None = None) -> nn.Module:
    """A copy of ``model`` in which the removed channels are exactly zero; shapes stay.

    Weight rows, biases, BatchNorm weight, bias and running mean become zero, the running variance one, in
    every producer of a channel group. Laws: ``mask(mask(m, p), p) == mask(m, p)``.

    Raises:
        PlanError: the plan is not for this model.
    """
    masked = copied(model)
    masker(plan, graph or graph_for(model, plan))(masked)
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


def keep_masked(model: nn.Module, plan: PrunePlan, optimizer: torch.optim.Optimizer) -> RemovableHandle:
    """Keeps a masked model's removed channels dead while an optimizer trains it: they are zeroed after every step.

    Without it they wake up, since a zero BatchNorm has a gradient. The handle's ``remove()`` ends it.

    Raises:
        PlanError: the plan is not for this model.
    """
    zero = masker(plan, graph_for(model, plan))
    zero(model)
    return optimizer.register_step_post_hook(lambda *_: zero(model))


def compact(model: nn.Module, plan: PrunePlan, graph: ChannelGraph | None = None) -> nn.Module:
    """A copy of ``model`` without the removed channels, made of the same unmodified modules.

    Equal to ``mask(model, plan)`` on every input up to floating point.

    Args:
        model: the unpruned or the masked model.
        plan: what stays.
        graph: the model's graph, traced anew where it is left out.

    Raises:
        PlanError: the plan is not for this model.
    """
    graph = graph or graph_for(model, plan)
    removed = plan.removed_groups(graph)
    small = copied(model)
    stated = [(module, widths.held(module)) for module in small.modules()]
    cuts: dict[tuple[str, str], list[Slice]] = {}
    for cut in graph.slices:
        if removed[cut.groups].any():
            cuts.setdefault((cut.module, cut.tensor), []).append(cut)
    done: dict[int, torch.Tensor] = {}  # a parameter that two modules share stays one parameter
    for (path, name), slices in cuts.items():
        module = small.get_submodule(path)
        whole = getattr(module, name)
        setattr(module, name, done.setdefault(id(whole), _cut(whole, slices, removed)))
    for path in {path for path, _ in cuts}:
        _update_widths(small.get_submodule(path))
    for module, facts in stated:
        widths.update(module, facts)
    for width in graph.widths:
        counts = [int((~removed[section]).sum()) for section in width.sections]
        setattr(small.get_submodule(width.module), width.attribute, counts if width.many else counts[0])
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
    for name, tensor in tensors.items():
        path, _, attribute = name.rpartition(".")
        module = model.get_submodule(path)
        whole = getattr(module, attribute)
        if whole.ndim != tensor.ndim or any(a < b for a, b in zip(whole.shape, tensor.shape, strict=True)):
            raise ValueError(f"{name} is {list(tensor.shape)} where the whole is {list(whole.shape)}")
        if whole.shape != tensor.shape:
            wrong.add(path)
        part = nn.Parameter(tensor, whole.requires_grad) if isinstance(whole, nn.Parameter) else tensor
        setattr(module, attribute, done.setdefault(id(whole), part))
    for path in wrong:
        _update_widths(model.get_submodule(path))
    for module, facts in stated:
        widths.update(module, facts)


def _cut(whole: torch.Tensor, slices: list[Slice], removed: BoolArray) -> torch.Tensor:
    part = whole.detach()
    # The rows of a grouped convolution choose its columns, so these go first, while all rows are there.
    for cut in sorted(slices, key=lambda s: s.groups.ndim == 1):
        stay = ~removed[cut.groups]
        if cut.groups.ndim == 1:
            part = part.index_select(cut.dim, torch.from_numpy(np.flatnonzero(stay)).to(part.device))
        else:
            blocks = part.chunk(len(stay))
            part = torch.cat(
                [b[:, torch.from_numpy(np.flatnonzero(s)).to(part.device)] for b, s in zip(blocks, stay, strict=True)]
            )
    part = part.clone(memory_format=torch.preserve_format)
    return nn.Parameter(part, whole.requires_grad) if isinstance(whole, nn.Parameter) else part


def _update_widths(module: nn.Module) -> None:
    """Attributes of torch's own modules that repeat a shape."""
    weight = getattr(module, "weight", None)
    if not isinstance(weight, torch.Tensor):
        return
    if isinstance(module, nn.modules.conv._ConvTransposeNd):
        if module.groups > 1 and module.groups == module.in_channels:
            module.groups = weight.shape[0]
        module.in_channels, module.out_channels = weight.shape[0], weight.shape[1] * module.groups
    elif isinstance(module, nn.modules.conv._ConvNd):
        if module.groups > 1 and module.groups == module.in_channels:
            multiplier = module.out_channels // module.groups
            module.groups = module.in_channels = weight.shape[0] // multiplier
        else:
            module.in_channels = weight.shape[1] * module.groups
        module.out_channels = weight.shape[0]
    elif isinstance(module, nn.Linear):
        module.out_features, module.in_features = weight.shape
    elif isinstance(module, nn.modules.batchnorm._NormBase):
        module.num_features = weight.shape[0]
    elif isinstance(module, nn.PReLU):
        module.num_parameters = weight.shape[0]


def graph_for(model: nn.Module, plan: PrunePlan) -> ChannelGraph:
    """Traces ``model`` on inputs of the shapes the plan was made with."""
    parameter = next(model.parameters())
    inputs = tuple(
        torch.zeros(
            shape,
            dtype=parameter.dtype if "float" in dtype else getattr(torch, dtype),
            device=parameter.device,
        )
        for shape, dtype in plan.inputs
    )
    return trace(model, inputs)


def verify(masked: nn.Module, small: nn.Module, example_inputs: Any, tolerance: float | None = None) -> Difference:
    """Measures whether both models compute the same in inference.

    Args:
        masked: the reference.
        small: the compact model.
        example_inputs: real input of the model, a tensor or a tuple of arguments.
        tolerance: greatest relative difference; by default 1e-4 in float32, 1e-10 in float64.

    Raises:
        ModelError: the masked model does not run on this input.
        VerificationError: the compact one does not; shapes differ, a value is not finite in one of them only, or the
            difference is above the tolerance.
    """
    inputs = example_inputs if isinstance(example_inputs, tuple) else (example_inputs,)
    reference = _run(masked, inputs, ModelError, "the masked model does not run on the example inputs")
    result = _run(small, inputs, VerificationError, "the compact model does not run where the masked one does")
    if not reference:
        raise VerificationError("the network returns no floating-point tensor: there is nothing to compare")
    if [t.shape for t in reference] != [t.shape for t in result]:
        raise VerificationError(
            "the compact model returns tensors of other shapes than the masked one; please report this"
        )
    max_abs = max_rel = 0.0
    for a, b in zip(reference, result, strict=True):
        if a.numel():
            error = float((a.double() - b.double()).abs().max())
            scale = float(a.double().abs().max())
            max_abs = max(max_abs, error) if not math.isnan(error) else math.nan
            max_rel = max(max_rel, error / scale if scale else error) if not math.isnan(error) else math.nan
    limit = TOLERANCE[next(small.parameters()).dtype] if tolerance is None else tolerance
    if not max_rel <= limit:
        raise VerificationError(
            f"the compact model differs from the masked one by {max_rel:.2e} of the largest value, {limit:.0e} is "
            "allowed; NaN means that the weights or the input hold values that are not finite"
        )
    return Difference(max_abs, max_rel)


def _run(model: nn.Module, inputs: tuple[Any, ...], error: type[SeqPruneError], what: str) -> list[torch.Tensor]:
    try:
        return _outputs(model, inputs)
    except NETWORK_FAILS as raised:
        hint = "check the input" if error is ModelError else "please report this, with the network"
        raise error(f"{what} ({first_line(raised)}); {hint}") from raised


def _outputs(model: nn.Module, inputs: tuple[Any, ...]) -> list[torch.Tensor]:
    modes = {m: m.training for m in model.modules()}
    try:
        with torch.no_grad():
            out = model.eval()(*cloned(inputs))
    finally:
        for module, training in modes.items():
            module.training = training
    return [t for t in leaves(outputs.read(model, out)) if isinstance(t, torch.Tensor) and t.is_floating_point()]


def count_active_channels(layer: nn.Module) -> int:
    """Output channels of a convolution or linear layer with any weight that is not zero."""
    return int(active_channels(layer).sum())


def active_channels(layer: nn.Module) -> BoolArray:
    """``[channels]``, which output channels have any weight that is not zero."""
    active: BoolArray = weight_rows(layer).ne(0).any(1).cpu().numpy()
    return active


def weight_rows(layer: nn.Module, values: torch.Tensor | None = None) -> torch.Tensor:
    """``[channels, weights]``, the weights of each output channel of a convolution or linear layer.

    Args:
        layer: the convolution or linear layer.
        values: taken instead of the weights, in their shape: gradients.
    """
    weight = (cast(torch.Tensor, layer.weight) if values is None else values).detach()
    if isinstance(layer, nn.modules.conv._ConvTransposeNd):
        weight = torch.cat([block.transpose(0, 1) for block in weight.chunk(layer.groups)])
    return weight.flatten(1)
