"""The layers of a head that hold a row for every class: kept, left out, or made anew for other classes.

Everything else of a network keeps its shape and its weights, the layers before them too: their widths, which
Ultralytics derives from the number of classes it builds with, stay what they were.
"""

from __future__ import annotations

import math
from collections.abc import Collection, Mapping, Sequence
from typing import Any

import torch
from torch import nn
from ultralytics.nn.modules import Classify, Detect, RTDETRDecoder, WorldDetect

from seqprune.errors import ModelError
from seqprune.graph.copying import copied
from seqprune.yolo.data.classes import numbers_of
from seqprune.yolo.files.networks import forget_inputs, names_of

RARE = 0.01
"""How probable a class of a query is before training, as RT-DETR begins."""
_SOME = "seqprune_some_classes"


def only_classes(model: nn.Module, wanted: Collection[str | int]) -> nn.Module:
    """A copy of a network that knows some of its classes, by the rows it had for them.

    Args:
        model: Of Ultralytics'.
        wanted: Names or numbers of classes that stay.

    Raises:
        DataError: One of them is no class of the network's.
        ModelError: Its head has no row for each class.
    """
    names = names_of(model)
    numbers = numbers_of(wanted, names)
    cut = with_classes(model, [names[number] for number in numbers])
    if len(numbers) < len(names):
        setattr(cut, _SOME, True)
    return cut


def knows_some(model: nn.Module) -> bool:
    """Whether a network was cut down to some of the classes of its data: objects of the others are left out."""
    return bool(getattr(model, _SOME, False))


def mark_some(model: nn.Module, some: bool) -> None:
    """Say so of a network that was read from elsewhere."""
    if some:
        setattr(model, _SOME, True)


def with_classes(model: nn.Module, names: Sequence[str]) -> nn.Module:
    """A copy of a network for other classes.

    Classes that it knows by name keep their rows; those of the others are drawn as Ultralytics draws them, by torch's
    generator.

    Args:
        model: Of Ultralytics'.
        names: Of the classes, in the order of their ids.

    Raises:
        ModelError: Its head has no row for each class.
    """
    old = names_of(model)
    number = {name: row for row, name in old.items()}
    rows = [number.get(name) for name in names]
    copy: Any = copied(model)
    head = copy.model[-1]
    if isinstance(head, WorldDetect) or "YOLOE" in type(head).__name__:
        raise ModelError("the classes of this network are texts: set them with set_classes before it is pruned")
    found = _layers(head, len(names))
    if not found:
        raise ModelError(
            f"a {type(head).__name__} has no layer with a row for each class: its classes stay as they are"
        )
    for owner, name, prior in found:
        setattr(owner, name, _with_rows(getattr(owner, name), rows, prior))
    if hasattr(head, "nc"):
        head.nc = len(names)
    if isinstance(head, Detect):
        head.no = len(names) + 4 * head.reg_max
    copy.names, copy.nc = dict(enumerate(names)), len(names)
    vars(copy).pop(_SOME, None)
    forget_inputs(copy)
    changed: nn.Module = copy
    return changed


def _layers(head: Any, classes: int) -> list[tuple[Any, str, float]]:
    """Owner, attribute and, with so many classes, the bias to begin with of every layer with a row for each."""
    if isinstance(head, Classify):
        return [(head, "linear", 0.0)]
    if isinstance(head, RTDETRDecoder):
        bias = -math.log((1 - RARE) / RARE)
        scores = [(head.dec_score_head, str(level), bias) for level in range(len(head.dec_score_head))]
        return [(head, "enc_score_head", bias), (head, "denoising_class_embed", 0.0), *scores]
    if not isinstance(head, Detect):
        return []
    found = []
    for branches in (head.cv3, getattr(head, "one2one_cv3", None)):
        for branch, stride in zip(branches or (), head.stride.tolist(), strict=False):
            # As Ultralytics begins: five objects in an image of 640 pixels, whatever their class.
            found.append((branch, str(len(branch) - 1), math.log(5 / classes / (640 / stride) ** 2)))
    semantic = getattr(getattr(head, "proto", None), "semseg", None)
    if semantic is not None:
        found.append((semantic, str(len(semantic) - 1), 0.0))
    return found


def _with_rows(layer: nn.Module, rows: Sequence[int | None], bias: float) -> nn.Module:
    """A layer of the same kind with these rows of it; ``None`` is one that is new."""
    given: Any = layer
    weight = given.weight
    made: Any
    if isinstance(layer, nn.Conv2d):
        made = nn.Conv2d(layer.in_channels, len(rows), layer.kernel_size, layer.stride, layer.padding)  # type: ignore[arg-type]
    elif isinstance(layer, nn.Embedding):
        made = nn.Embedding(len(rows), layer.embedding_dim)
    else:
        made = nn.Linear(given.in_features, len(rows))
    made = made.to(device=weight.device, dtype=weight.dtype).train(layer.training)
    with torch.no_grad():
        if getattr(made, "bias", None) is not None:
            made.bias.fill_(bias)
        for new, old in enumerate(rows):
            if old is not None:
                made.weight[new] = weight[old]
                if getattr(made, "bias", None) is not None:
                    made.bias[new] = given.bias[old]
    for mine, theirs in zip(made.parameters(), given.parameters(), strict=True):
        mine.requires_grad = theirs.requires_grad
    changed: nn.Module = made
    return changed


def class_layers(model: nn.Module) -> Mapping[str, nn.Module]:
    """By module path, the layers with a row for each class."""
    inner: Any = model
    wanted = {id(getattr(owner, name)) for owner, name, _ in _layers(inner.model[-1], 1)}
    return {name: module for name, module in model.named_modules() if id(module) in wanted}


def shapes_with(model: nn.Module, classes: int) -> dict[str, torch.Size]:
    """Shape of every tensor by name, were the network one of so many classes."""
    shapes = {name: tensor.shape for name, tensor in model.state_dict().items()}
    if classes != len(names_of(model)):
        for layer in class_layers(model):
            for name in (f"{layer}.weight", f"{layer}.bias"):
                if name in shapes:
                    shapes[name] = torch.Size((classes, *shapes[name][1:]))
    return shapes
