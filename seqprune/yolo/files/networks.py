"""Ultralytics' networks by task, built from descriptions that hold no code."""

from __future__ import annotations

import ast
from collections.abc import Mapping
from copy import deepcopy
from importlib import import_module
from typing import Any

import torch
import torchvision
from torch import nn
from ultralytics.nn import tasks
from ultralytics.nn.modules import Conv, RTDETRDecoder

from seqprune.errors import ModelError, UntrustedError

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
    """
    check_description(description)
    wanted: Any = NETWORKS[task]
    network: nn.Module = wanted(
        deepcopy(dict(description)), ch=description.get("channels", 3), nc=classes, verbose=False
    )
    return network.eval()


def check_description(description: Mapping[str, Any]) -> None:
    """Raise UntrustedError for what Ultralytics would evaluate or call that is no layer of torch's or its own."""
    activation = description.get("activation")
    if activation and not _makes_a_layer(str(activation)):
        raise UntrustedError(
            f"the activation {str(activation)[:80]!r} in the model's YAML is code, not a layer of torch.nn with plain "
            "arguments; write one such as nn.ReLU()"
        )
    for entry in [*description.get("backbone", []), *description.get("head", [])]:
        name = str(entry[2])
        if not _is_layer(name):
            raise UntrustedError(
                f"{name[:80]!r} in the model's YAML is no layer of torch's or Ultralytics'; correct it"
            )


def _is_layer(name: str) -> bool:
    room, _, last = name.rpartition(".")
    home = {"nn": nn, "torch.nn": nn, "torchvision.ops": torchvision.ops, "": tasks}.get(room)
    found = getattr(home, last, None)
    return isinstance(found, type) and issubclass(found, nn.Module)


def _makes_a_layer(text: str) -> bool:
    """Whether an expression is a call of a class of ``torch.nn`` with literals."""
    try:
        call = ast.parse(text.strip(), mode="eval").body
        if not isinstance(call, ast.Call):
            return False
        for value in (*call.args, *(keyword.value for keyword in call.keywords)):
            ast.literal_eval(value)
    except (SyntaxError, ValueError):
        return False
    name = ast.unparse(call.func)
    return name.startswith(("nn.", "torch.nn.")) and _is_layer(name)


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
    if "criterion" in vars(module):
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
