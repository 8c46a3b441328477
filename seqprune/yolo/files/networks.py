"""Ultralytics' networks by task, built from descriptions that hold no code."""

from __future__ import annotations

from collections.abc import Mapping
from copy import deepcopy
from importlib import import_module
from typing import Any

import torch
from torch import nn
from ultralytics.nn import tasks
from ultralytics.nn.modules import Conv, RTDETRDecoder

from seqprune.errors import ModelError
from seqprune.plain import printable
from seqprune.yolo.files.bounded import bounded
from seqprune.yolo.files.contained import one_line
from seqprune.yolo.files.description import check_description
from seqprune.yolo.files.unpickle import UNREADABLE

try:
    distilling: Any = import_module("ultralytics.nn.distill_model")
except ImportError:
    distilling = None  # an older Ultralytics

NETWORKS: dict[str, type[nn.Module]] = {
    "segment": tasks.SegmentationModel,
    "pose": tasks.PoseModel,
    "obb": tasks.OBBModel,
    "classify": tasks.ClassificationModel,
    "detect": tasks.DetectionModel,  # last: most of the others are detectors too
}


def build(task: str, description: Mapping[str, Any], classes: int) -> nn.Module:
    """The network of a model YAML with random weights, in inference mode.

    Raises:
        UntrustedError: the description holds code, or names what is no layer.
        ModelError: there is no such task, or the network would take more memory or time than any that is known.
    """
    check_description(description)
    if not isinstance(task, str) or task not in NETWORKS:
        raise ModelError(f"no network for {printable(task, 60)} can be built; give one for {', '.join(NETWORKS)}")
    wanted: Any = NETWORKS[task]
    try:
        with bounded():
            network: nn.Module = wanted(
                deepcopy(dict(description)), ch=description.get("channels", 3), nc=classes, verbose=False
            )
    except UNREADABLE as error:
        raise ModelError(f"the network that is described cannot be built ({one_line(error)}); correct it") from error
    return network.eval()


def example(network: nn.Module) -> torch.Tensor:
    """A small image, the same every time, as the network takes it."""
    description: Any = getattr(network, "yaml", {})
    generator = torch.Generator().manual_seed(0)
    return torch.rand(1, int(description.get("channels", 3)), 64, 64, generator=generator)


def student_of(module: nn.Module) -> nn.Module:
    """The network that learns, where Ultralytics wrapped it together with a teacher; else the module itself."""
    is_wrapped = distilling is not None and isinstance(module, distilling.DistillationModel)
    return module.student_model if is_wrapped else module  # type: ignore[return-value]


def released(module: nn.Module) -> nn.Module:
    """The same for good: nothing of the wrapper is left on it, and the wrapper teaches no more."""
    if (student := student_of(module)) is not module:
        module._remove_feature_hooks()  # type: ignore[operator]
    return student


def is_fused(module: nn.Module) -> bool:
    """Whether a convolution of Ultralytics' has lost its BatchNorm."""
    return any(isinstance(inner, Conv) and not hasattr(inner, "bn") for inner in module.modules())


def is_fixed(name: str) -> bool:
    """Whether a parameter or module is the head's table of distances: numbers that the loss takes for granted."""
    return ".dfl" in name


def forget_inputs(module: nn.Module) -> None:
    """Drop what running a model left in it: the head's anchors of the last input shape, and the loss."""
    head: Any
    for head in module.modules():
        if hasattr(head, "anchors") and hasattr(head, "strides") and hasattr(head, "shape"):
            head.anchors, head.strides, head.shape = torch.empty(0), torch.empty(0), None
    if hasattr(module, "criterion"):  # RT-DETR's is a module
        del module.criterion


def by_queries(module: nn.Module) -> bool:
    """Whether a detector is one of queries (RT-DETR): boxes in [0, 1], images stretched, nothing to suppress."""
    return any(isinstance(inner, RTDETRDecoder) for inner in module.modules())


def names_of(model: nn.Module) -> dict[int, str]:
    """Class id to name.

    Raises:
        ModelError: The model has none.
    """
    names: Any = getattr(model, "names", None)
    if names is None:
        raise ModelError("the model has no class names, so it is no Ultralytics network; load it with seqprune")
    return names if isinstance(names, dict) else dict(enumerate(names))
