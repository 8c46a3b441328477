"""Torch-Pruning on Ultralytics' detectors, to compare with. It comes with the extra ``compare``."""

from __future__ import annotations

from collections.abc import Callable
from copy import deepcopy
from typing import Any

import torch
from torch import nn
from ultralytics.nn.modules import C2f, Conv

from seqprune.errors import InputError, ModelError
from seqprune.observe.batch import LabelledImages
from seqprune.yolo.files.contained import one_line
from seqprune.yolo.files.networks import forget_inputs
from seqprune.yolo.task.gradients import loss_gradients
from seqprune.yolo.task.profile import parameters
from seqprune.yolo.task.tracing import grey_image

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
_UNFOLLOWED = ("Attention", "AAttn", "RepVGGDW")


class SplitC2f(nn.Module):
    """A C2f, equal to the one it is made of, whose first convolution is two: Torch-Pruning loses count in ``chunk``."""

    def __init__(self, block: C2f) -> None:
        super().__init__()
        self.first, self.second = _rows(block.cv1, slice(None, block.c)), _rows(block.cv1, slice(block.c, None))
        self.m, self.cv2 = block.m, block.cv2
        for name in ("i", "f", "type", "np"):  # where Ultralytics' network keeps its wiring
            if hasattr(block, name):
                setattr(self, name, getattr(block, name))

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        """As in a C2f."""
        parts = [self.first(x), self.second(x)]
        for branch in self.m:
            parts.append(branch(parts[-1]))
        return self.cv2(torch.cat(parts, 1))  # type: ignore[no-any-return]


def _rows(unit: Conv, rows: slice) -> nn.Module:
    """Some output channels of a convolution with BatchNorm."""
    part: Any = deepcopy(unit)
    part.conv.weight = nn.Parameter(unit.conv.weight.detach()[rows].clone())
    part.conv.out_channels = part.bn.num_features = len(part.conv.weight)
    for name in ("weight", "bias"):
        setattr(part.bn, name, nn.Parameter(getattr(unit.bn, name).detach()[rows].clone()))
    for name in ("running_mean", "running_var"):
        setattr(part.bn, name, getattr(unit.bn, name)[rows].clone())
    return part  # type: ignore[no-any-return]


def split_c2f(model: nn.Module) -> nn.Module:
    """A copy in which every C2f is a :class:`SplitC2f`; it computes the same."""
    copy = deepcopy(model)
    for name, block in list(copy.named_modules()):
        if isinstance(block, C2f):
            parent, _, child = name.rpartition(".")
            setattr(copy.get_submodule(parent), child, SplitC2f(block))
    return copy


def peer(importance: str, model: nn.Module, target: float, images: LabelledImages, seed: int = 0) -> nn.Module:
    """Prunes with Torch-Pruning, in one step, at the uniform ratio that leaves the target.

    As in its own YOLOv8 example, the head ``Detect`` is left as it is and the ratio is the same in all other layers.

    Args:
        importance: One of ``PEERS``.
        model: An Ultralytics detector; it is not changed.
        target: Share of the parameters that stays, met to half a percent where the widths allow.
        images: Labelled images, for ``taylor``.
        seed: Of ``random``.

    Raises:
        InputError: Torch-Pruning is not installed, or the target is out of its reach.
        ModelError: It cannot follow this model.
    """
    try:
        import torch_pruning
    except ImportError as error:
        raise InputError("Torch-Pruning is missing: pip install 'seqprune[compare]', or leave out tp-*") from error
    if strange := {type(m).__name__ for m in model.modules()} & set(_UNFOLLOWED):
        raise ModelError(f"Torch-Pruning does not follow {min(strange)}: compare it on YOLOv5u or YOLOv8")
    whole: Any = split_c2f(model).eval()
    forget_inputs(whole)
    gradients = loss_gradients(whole, images) if importance == "taylor" else {}
    image = grey_image(whole, 2 * int(max(whole.stride)))

    def pruned(ratio: float) -> nn.Module:
        copy = deepcopy(whole)
        for name, parameter in copy.named_parameters():
            parameter.requires_grad_(True)  # it follows the graph of automatic differentiation
            parameter.grad = gradients[name].clone() if name in gradients else None
        torch_pruning.pruner.MagnitudePruner(
            copy,
            image,
            importance=PEERS[importance](torch_pruning.importance),
            pruning_ratio=ratio,
            ignored_layers=[copy.model[-1]],
        ).step()
        forget_inputs(copy)
        for parameter in copy.parameters():
            parameter.grad = None
        return copy  # type: ignore[no-any-return]

    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        try:
            best, left = _search(pruned, target, parameters(whole))
        except (RuntimeError, IndexError, KeyError, AttributeError, ValueError) as error:
            raise ModelError(f"Torch-Pruning fails on this model ({one_line(error)}); leave out tp-*") from error
    if abs(left - target) > _FAR * target:
        raise InputError(f"Torch-Pruning leaves {left:.3f} of the parameters, {target:g} was asked for: ask for more")
    return best


def _search(pruned: Callable[[float], nn.Module], target: float, whole: int) -> tuple[nn.Module, float]:
    """The model nearest to the target, and the share of the parameters it has, by false position."""
    low, high, above, below = 0.0, 1.0, 1.0, 0.0  # ratios, and what they leave
    ratio, found = 1 - target**0.5, []
    for _ in range(_TRIES):
        model = pruned(ratio)
        left = parameters(model) / whole
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
