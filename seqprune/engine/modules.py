"""What the engine asks of a network and its data, answered for any ``torch.nn.Module``."""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from functools import cached_property
from numbers import Real
from pathlib import Path
from typing import Any

import torch
from safetensors import SafetensorError
from safetensors.torch import load_file, save_file
from torch import nn
from torch.nn import functional

from seqprune.atomic import atomic, write_text
from seqprune.engine.batches import Classified
from seqprune.engine.outputs import Outputs, asked, found, judge_of, kinds_of, probe_of, variances_of
from seqprune.engine.task import Judge
from seqprune.errors import InputError, ModelError, PlanError
from seqprune.graph import ChannelGraph, trace
from seqprune.graph.copying import copied
from seqprune.graph.given import check_network
from seqprune.graph.leaving import leave_out, merge
from seqprune.observe.batch import LabelledImages
from seqprune.observe.inputs import Inputs, call
from seqprune.observe.relevance import Probe
from seqprune.observe.replay import Units, units_of
from seqprune.plain import UnreadableError, json_of, printable, text_of, why_no_file
from seqprune.plan import PrunePlan
from seqprune.runtimes.export import exported
from seqprune.surgery import Difference, fill, verify

SUFFIX = ".safetensors"
Evaluate = Callable[[nn.Module], Mapping[str, float]]


@dataclass(frozen=True)
class ModuleTask:
    """See :class:`seqprune.engine.task.Task`.

    Attributes:
        model: the unpruned network, in inference mode.
        images: what is looked at.
        validation: labelled ones that accuracy is measured on, top-1 and top-5, where nothing else measures it.
        evaluate: measures accuracy, by name.
        outputs: what the network returns; see :data:`seqprune.engine.outputs.Outputs`.
        fixed: module paths that are not fitted anew.
        names: class id to name.
        device: where accuracy on ``validation`` is measured; where the network is, where left out.
    """

    model: nn.Module
    images: Classified
    validation: Classified | None = None
    evaluate: Evaluate | None = None
    outputs: Outputs = "auto"
    fixed: tuple[str, ...] = ()
    names: Mapping[int, str] = field(default_factory=dict)
    device: torch.device | None = None
    suffix: str = field(default=SUFFIX, init=False)
    predict: None = field(default=None, init=False)
    classifies: bool = field(default=True, init=False)
    bits: int = field(default=32, init=False)

    @property
    def classes(self) -> int:
        return self.images.classes

    @property
    def unreadable_val(self) -> tuple[str, ...]:
        return () if self.validation is None else tuple(self.validation.unreadable)

    def example(self, model: nn.Module) -> Inputs:
        return next(iter(self.images)).input(model, slice(1))

    def runnable(self, model: nn.Module, runtime: str, folder: Path) -> nn.Module | Path:
        return model if runtime == "torch" else exported(model, self.example(model), runtime, folder)

    def trace(self, model: nn.Module) -> ChannelGraph:
        example = next(iter(self.images)).input(model, slice(2))
        return trace(model, example if isinstance(example, tuple) else (example,))

    @cached_property
    def _kinds(self) -> tuple[list[bool], list[float]]:
        """For every output, whether it is logits, and its variance."""
        model = asked(self.model)
        return kinds_of(model, self.images, self.outputs), variances_of(model, self.images)

    def probe(self, model: nn.Module) -> tuple[nn.Module, Probe] | None:
        return asked(model), probe_of(*self._kinds)

    def judge(self, original: nn.Module, held: LabelledImages) -> Judge | None:
        return judge_of(original, held, *self._kinds)

    def gradients(self, model: nn.Module) -> Mapping[str, torch.Tensor]:
        """Of the cross-entropy of classes and the network's first output."""
        copy = asked(model).requires_grad_(True)
        images = 0
        for batch in self.images:
            if not len(batch.classes):
                raise ModelError("criterion taylor takes the gradient of a loss: label the images with classes")
            y = found(call(copy, batch.input(copy)))[0]
            highest = int(batch.classes.max())
            if y.dim() != 2 or highest >= y.shape[1]:
                raise ModelError(
                    "criterion taylor takes the gradient of a loss of logits [B, K]; the network returns "
                    f"{list(y.shape)}, and classes go up to {highest}: choose another criterion, such as lamp"
                )
            loss = functional.cross_entropy(y[batch.image_index.to(y.device)], batch.classes.to(y.device))
            (loss * batch.count).backward()  # type: ignore[no-untyped-call]
            images += batch.count
        return {
            name: (torch.zeros_like(p) if p.grad is None else p.grad).detach().cpu() / images
            for name, p in copy.named_parameters()
        }

    def is_fixed(self, layer: str) -> bool:
        return any(f"{layer}.".startswith(f"{path}.") for path in self.fixed)

    def blocks(self, model: nn.Module) -> Units | None:
        return units_of(model, next(iter(self.images)))

    def pictures(self, before: nn.Module, after: nn.Module) -> tuple[dict[str, Any], ...]:
        return ()

    def accuracy(self, model: nn.Module) -> Mapping[str, float]:
        if self.evaluate is not None:
            measured = self.evaluate(model)
            if not isinstance(measured, Mapping) or not all(map(is_measure, measured.values())):
                raise InputError(
                    f"evaluate returned {printable(repr(measured), 80)}: let it return a dictionary of numbers by name"
                )
            return {name: float(value) for name, value in measured.items()}
        if self.validation is None or not self.validation.classes:
            return {}
        there = model if self.device is None else copied(model).to(self.device)
        return top_accuracies(there, self.validation)

    def prove(self, masked: nn.Module, small: nn.Module, inputs: Inputs) -> tuple[Difference, str]:
        return verify(masked, small, inputs if isinstance(inputs, tuple) else (inputs,)), "float32"

    def file_bytes(self, model: nn.Module, plan: PrunePlan | None) -> int | None:
        return None

    def save(self, model: nn.Module, path: Path, plan: PrunePlan, half: bool = False) -> Path:
        """Tensors without code, and beside them the plan as JSON.

        Raises:
            InputError: the name ends in something else, or weights are no plain tensors.
        """
        if path.suffix != SUFFIX:
            raise InputError(f"{path}: weights of a module are saved without code: give a name that ends in {SUFFIX}")
        for name, held in model.state_dict().items():
            if not isinstance(held, torch.Tensor) or held.is_quantized:
                raise InputError(f"{name} is no plain tensor, as of layers in eight bits: save result.model yourself")
        state = {name: tensor.detach().cpu().contiguous().clone() for name, tensor in model.state_dict().items()}
        with atomic(path) as temporary:
            save_file(state, temporary)
        write_text(path.with_suffix(".json"), json.dumps({"format": 1, "plan": json.loads(plan.to_json())}))
        return path


def is_measure(value: object) -> bool:
    """Whether it is one number, a tensor's as well."""
    return isinstance(value, Real) or (isinstance(value, torch.Tensor) and value.numel() == 1)


def restore(model: nn.Module, path: str | Path) -> nn.Module:
    """Gives an unpruned network, in place, the widths and weights of a pruned one that :meth:`ModuleTask.save` wrote.

    Args:
        model: the network as it is built, at its full widths.
        path: the ``.safetensors``.

    Raises:
        ModelError: there is no such file, or its tensors are not this network's.
    """
    check_network(model)
    if reason := why_no_file(path):
        raise ModelError(f"{path}: {reason}; check the path")
    path = Path(path)
    blocks = _plan_beside(path).blocks if path.with_suffix(".json").exists() else ()
    try:
        state = load_file(path)
    except (SafetensorError, OSError) as error:
        raise ModelError(f"{path}: holds no tensors ({printable(error)}); give what result.save wrote") from error
    for network in (copied(model), model) if blocks else (model,):  # what is left out is tried on a copy first
        leave_out(network, blocks)
        merge(network, blocks)
        if missing := set(network.state_dict()) ^ set(state):
            raise ModelError(f"{path}: {sorted(missing)[0]} is in only one of file and network; build the same network")
        try:
            fill(network, state)
        except ValueError as error:
            raise ModelError(f"{path}: {error}; build the network that was pruned") from error
    return model


def _plan_beside(path: Path) -> PrunePlan:
    """
    Raises:
        ModelError: it is damaged.
    """
    beside = path.with_suffix(".json")
    try:
        return PrunePlan.from_json(json.dumps(json_of(text_of(beside))["plan"]))
    except (UnreadableError, PlanError, KeyError, TypeError) as error:
        raise ModelError(f"{beside}: holds no plan ({printable(error)}); give what result.save wrote") from error


def top_accuracies(model: nn.Module, images: Classified) -> dict[str, float]:
    """``top1`` and ``top5`` of the network's first output, ``[B, K]``, shares of the labelled images."""
    hits = {1: 0, 5: 0}
    count = 0
    with torch.no_grad():
        for batch in images:
            y = found(call(model, batch.input(model)))[0]
            if y.dim() != 2:
                raise ModelError(f"the network returns {list(y.shape)}, no logits: give evaluate, which measures it")
            best = y.topk(min(5, y.shape[1]), 1).indices.cpu()[batch.image_index]
            right = best == batch.classes[:, None]
            count += len(right)
            for most in hits:
                hits[most] += int(right[:, :most].any(1).sum())
    return {f"top{most}": hit / max(count, 1) for most, hit in hits.items()}


__all__ = ["ModuleTask", "restore", "top_accuracies"]
