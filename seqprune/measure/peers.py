"""Torch-Pruning, to compare with. It comes with the extra ``compare``."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import Any

import torch
from torch import nn

from seqprune.budget.cost import gflops, parameters
from seqprune.budget.target import Target
from seqprune.engine.task import Task
from seqprune.errors import InputError, ModelError
from seqprune.graph.channels import ChannelGraph
from seqprune.graph.copying import copied
from seqprune.graph.outputs import OUTPUT
from seqprune.plain import printable
from seqprune.sources.opening import is_module

PEERS: dict[str, Callable[[Any], Any]] = {
    "magnitude": lambda found: found.MagnitudeImportance(p=1, group_reduction="first"),
    "group-norm": lambda found: found.MagnitudeImportance(p=2, group_reduction="mean"),
    "bn-scale": lambda found: found.BNScaleImportance(),
    "taylor": lambda found: found.TaylorImportance(),
    "random": lambda found: found.RandomImportance(),
}
"""By name, an importance of ``torch_pruning.importance``: ``magnitude`` is the L1 norm of the producer's rows alone,
``group-norm`` the L2 norm over every layer of the group, its consumers included."""
_TRIES = 10
_NEAR, _FAR = 0.005, 0.1
"""Of the target: near enough to stop the search, and too far to compare."""


def peer(
    importance: str, model: nn.Module, graph: ChannelGraph, target: Target, task: Task, seed: int = 0
) -> nn.Module:
    """Prunes with Torch-Pruning, in one step, at the uniform ratio that leaves the target.

    As in its own examples, the head ``Detect``, or the layers that give the outputs, are left as they are and the ratio
    is the same in all other layers.

    Args:
        importance: one of ``PEERS``.
        model: in inference mode; it is not changed.
        graph: its channel graph, which knows the layers that give the outputs.
        target: share of the parameters or operations that stays, met to half a percent where the widths allow.
        task: with labelled images, for ``taylor``, and an example.
        seed: of ``random``.

    Raises:
        InputError: Torch-Pruning is not installed, or the target is out of its reach.
        ModelError: it cannot follow this model.
    """
    try:
        import torch_pruning
    except ImportError as error:
        raise InputError("Torch-Pruning is missing: pip install 'seqprune[compare]', or leave out tp-*") from error
    whole, kept, example = _ready(model, graph, task)
    gradients = task.gradients(whole) if importance == "taylor" else {}
    names = [name for name, module in whole.named_modules() if any(module is one for one in kept)]

    def pruned(ratio: float) -> nn.Module:
        copy = _with_gradients(whole, gradients)
        torch_pruning.pruner.MagnitudePruner(
            copy,
            example,
            importance=PEERS[importance](torch_pruning.importance),
            pruning_ratio=ratio,
            ignored_layers=[copy.get_submodule(name) for name in names],
        ).step()
        return _at_rest(copy)

    def cost(network: nn.Module) -> float:
        return parameters(network) if target.kind == "params" else gflops(network, task.example(network))

    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        try:
            best, left = _search(pruned, target.share, cost, cost(whole))
        except (RuntimeError, IndexError, KeyError, AttributeError, ValueError, TypeError, AssertionError) as error:
            why = printable(" ".join(str(error).split()), 300)
            raise ModelError(f"Torch-Pruning fails on this model ({why}); leave out tp-*") from error
    if abs(left - target.share) > _FAR * target.share:
        what = "parameters" if target.kind == "params" else "operations"
        raise InputError(f"Torch-Pruning leaves {left:.3f} of the {what}, {target.share:g} was asked for: ask for more")
    return best


def _ready(model: nn.Module, graph: ChannelGraph, task: Task) -> tuple[nn.Module, Sequence[nn.Module], Any]:
    """A copy that can be followed, what stays of it as it is, and an input small enough to follow it by."""
    if is_module(model):
        whole = copied(model).eval()
        kept = [layer.name for layer in graph.all_layers if layer.reason == OUTPUT]
        return whole, [whole.get_submodule(name) for name in kept], task.example(whole)
    from seqprune.yolo.task.splitting import followable
    from seqprune.yolo.task.tracing import grey_image

    network, head = followable(model)
    stride: Any = network.stride
    return network, head, grey_image(network, 2 * int(max(stride)))


def _with_gradients(whole: nn.Module, gradients: Mapping[str, torch.Tensor]) -> nn.Module:
    copy = copied(whole)
    for name, parameter in copy.named_parameters():
        parameter.requires_grad_(True)  # it follows the graph of automatic differentiation
        parameter.grad = gradients[name].clone() if name in gradients else None
    return copy


def _at_rest(network: nn.Module) -> nn.Module:
    """Without what following it left behind."""
    for parameter in network.parameters():
        parameter.grad = None
    if not is_module(network):
        from seqprune.yolo.files.networks import forget_inputs

        forget_inputs(network)
    return network


def _search(
    pruned: Callable[[float], nn.Module], target: float, cost: Callable[[nn.Module], float], whole: float
) -> tuple[nn.Module, float]:
    """The model nearest to the target, and the share of the cost it has, by false position."""
    low, high, above, below = 0.0, 1.0, 1.0, 0.0  # ratios, and what they leave
    ratio, found = 1 - target**0.5, []
    for _ in range(_TRIES):
        model = pruned(ratio)
        left = cost(model) / whole
        found.append((model, left))
        if abs(left - target) <= _NEAR * target:
            break
        if left > target:
            low, above = ratio, left
        else:
            high, below = ratio, left
        # Kept off the ends, or one side would stay where it is for long.
        ratio = low + (high - low) * min(max((above - target) / (above - below), 0.2), 0.8)
    return min(found, key=lambda each: abs(each[1] - target))
