"""Unpruned networks by name, small enough to try everything on, with weights under which a wrong channel shows."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import torch
from torch import nn

from seqprune.errors import InputError
from seqprune.sources.factories import built
from seqprune.testing.named import named
from seqprune.testing.outputs import prepare
from seqprune.testing.trial import Inputs

TIMM = "timm:"
TORCHVISION = "torchvision:"
SIDE = 64
LARGEST = 224
"""Pixels a side: the smallest images that a network takes are tried first."""
FILES = (".pt", ".safetensors", ".yaml", ".yml")


def subject(name: str) -> tuple[nn.Module, Inputs]:
    """The network, in float64 and inference mode, and what it takes.

    Args:
        name: ``timm:resnet18``, ``torchvision:vgg11``; a model YAML of Ultralytics' with or without its ending
            (``yolov8n``); a file of weights, whose own weights it has then;
            or ``package.module:function``, which returns a network and the tuple of tensors that it takes.

    Raises:
        InputError: there is no such network, or its library is not installed.
    """
    torch.manual_seed(0)
    if name.startswith((TIMM, TORCHVISION)):
        return _classifier(name)
    if ":" in name and not name.endswith(FILES):
        return _made(name)
    from seqprune.yolo.files.load import load
    from seqprune.yolo.files.networks import NETWORKS
    from seqprune.yolo.task.tracing import grey_image

    whole = name if name.endswith(FILES) else f"{name}.yaml"
    found = load(whole, tasks=tuple(NETWORKS), seed=0)
    network = found.model.double().eval()
    if Path(whole).suffix not in (".pt", ".safetensors"):
        prepare(network)
    image = grey_image(network, max(SIDE, 2 * found.stride))
    return network, (torch.rand(image.shape, dtype=torch.float64, generator=torch.Generator().manual_seed(0)),)


def _made(name: str) -> tuple[nn.Module, Inputs]:
    make: Any = named(name)
    try:
        model, inputs = make()
    except (TypeError, ValueError) as error:
        raise InputError(f"{name} gives no network and its inputs ({error}); return (module, (tensor,))") from error
    return model.eval(), tuple(inputs)


def _classifier(name: str) -> tuple[nn.Module, Inputs]:
    network = built(name)[0]
    side = SIDE
    fixed = getattr(network, "default_cfg", {})
    if fixed.get("fixed_input_size"):
        side = fixed["input_size"][-1]
    network = network.double().eval()
    prepare(network)
    while True:
        image = torch.rand(1, 3, side, side, dtype=torch.float64, generator=torch.Generator().manual_seed(0))
        try:
            with torch.no_grad():
                network(image)
        except (RuntimeError, ValueError, AssertionError, ZeroDivisionError) as error:
            if side >= LARGEST:
                raise InputError(f"{name} runs on no image of {SIDE} to {LARGEST} pixels ({error})") from error
            side = min(2 * side, LARGEST)
            continue
        return network, (image,)
