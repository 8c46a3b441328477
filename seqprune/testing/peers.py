"""Other people's pruners, each used as its own documentation says; the extra ``compare`` has them."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, cast

from torch import nn

from seqprune.errors import InputError
from seqprune.testing.plain import is_ultralytics
from seqprune.testing.trial import Inputs, Keep, NotApplicable


def torch_pruning(module: nn.Module, inputs: Inputs, keep: Keep) -> nn.Module:
    """Torch-Pruning by its graph of dependencies.

    One group after another, checked with its own ``check_pruning_group``. What a group takes from other layers is not
    taken from them again: positions are those of the channels that are left, which the library leaves to its caller.

    Raises:
        InputError: it is not installed.
    """
    try:
        import torch_pruning as library
    except ImportError as error:
        raise InputError("Torch-Pruning is missing: pip install 'seqprune[compare]'") from error
    if is_ultralytics(module):
        from seqprune.yolo.files.networks import forget_inputs

        forget_inputs(module)
    for parameter in module.parameters():
        parameter.requires_grad_(parameter.is_floating_point())  # it follows the graph of automatic differentiation
    found = library.DependencyGraph().build_dependency(module, example_inputs=inputs)
    layers: dict[str, Any] = {name: module.get_submodule(name) for name in keep}
    left = {id(layer): list(range(_width(layer))) for layer in layers.values()}
    for name, stay in keep.items():
        layer, kept = layers[name], set(stay)
        positions = [place for place, channel in enumerate(left[id(layer)]) if channel not in kept]
        if not positions:
            continue
        group = found.get_pruning_group(layer, _function(library, layer), idxs=positions)
        if not found.check_pruning_group(group):
            raise ValueError(f"check_pruning_group refuses {len(positions)} channels of {name}")
        for dependency, places in group:
            rest = left.get(id(dependency.target.module))
            if rest is not None and found.is_out_channel_pruning_fn(dependency.handler):
                gone = {int(place) for place in places}
                left[id(dependency.target.module)] = [c for place, c in enumerate(rest) if place not in gone]
        group.prune()
    if is_ultralytics(module):
        forget_inputs(module)
    return module


def torch_pruning_split(module: nn.Module, inputs: Inputs, keep: Keep) -> nn.Module:
    """Torch-Pruning on a network whose C2f were rewritten, as its own YOLOv8 example does: it loses count in ``chunk``.

    The first convolution of each is two then, one for each half of its channels.
    """
    if not is_ultralytics(module):
        raise NotApplicable("this network has no C2f to rewrite: see torch-pruning")
    from seqprune.yolo.task.splitting import SplitC2f, split_c2f

    asked: dict[str, list[int]] = {name: list(stay) for name, stay in keep.items()}
    split = split_c2f(module)
    if not any(isinstance(block, SplitC2f) for block in split.modules()):
        raise NotApplicable("this network has no C2f to rewrite: see torch-pruning")
    for name, block in split.named_modules():
        old = f"{name}.cv1.conv"
        if isinstance(block, SplitC2f) and old in asked:
            stay, half = asked.pop(old), len(block.first.conv.weight)  # type: ignore[union-attr,arg-type]
            asked[f"{name}.first.conv"] = [c for c in stay if c < half]
            asked[f"{name}.second.conv"] = [c - half for c in stay if c >= half]
    return torch_pruning(split, inputs, asked)


def _width(layer: Any) -> int:
    return int(layer.out_features if isinstance(layer, nn.Linear) else layer.out_channels)


def _function(library: Any, layer: nn.Module) -> Callable[..., Any]:
    """What it prunes a kind of layer with."""
    name = "prune_linear_out_channels" if isinstance(layer, nn.Linear) else "prune_conv_out_channels"
    return cast("Callable[..., Any]", getattr(library, name))
