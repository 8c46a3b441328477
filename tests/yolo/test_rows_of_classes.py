"""Rows of a head for classes: which layers have them, what new ones begin with, what stays as it was."""

from __future__ import annotations

import math
from typing import Any

import pytest
import torch
from small import CONV, HEADS, QUERIES, described, network
from torch import nn
from ultralytics.nn import tasks
from ultralytics.nn.tasks import RTDETRDetectionModel

from seqprune.errors import ModelError
from seqprune.yolo.files.heads import class_layers, knows_some, mark_some, only_classes, shapes_with, with_classes
from seqprune.yolo.files.networks import by_queries, example, is_fixed, names_of

KINDS = [*HEADS, "v10", "queries", "own kernel", "semantic"]
RARE = -math.log(99)


def made(kind: str, *names: str) -> Any:
    """A network of a head of this kind."""
    torch.manual_seed(0)
    if kind == "queries":
        model: Any = RTDETRDetectionModel(described(nc=len(names), head=[QUERIES]), nc=len(names), verbose=False).eval()
        model.names, model.task = dict(enumerate(names)), "detect"
        return model
    if kind == "semantic":
        if not hasattr(tasks, "Segment26"):
            pytest.skip("this release of Ultralytics has no such head")
        head = [[0, 1, 2], 1, "Segment26", ["nc", 4, 8]]
        return network("segment", *names, head=[head], end2end=True, reg_max=1)
    if kind == "v10":
        return network("detect", *names, head=[[[2], 1, "v10Detect", ["nc"]]])
    model = network("detect" if kind == "own kernel" else kind, *names)
    if kind == "own kernel":
        branch = model.model[-1].cv3[0]
        branch[-1] = nn.Conv2d(branch[-1].in_channels, len(names), 3, 1, 1)
    return model


def beginnings(kind: str, classes: int) -> set[float]:
    """The biases of rows that are new."""
    if kind == "queries":
        return {RARE}
    if kind == "classify":
        return {0.0}
    begun = {math.log(5 / classes / (640 / stride) ** 2) for stride in ((2, 4, 8) if kind == "semantic" else (8,))}
    return begun | {0.0} if kind == "semantic" else begun


@pytest.mark.parametrize("kind", KINDS)
def test_classes_that_are_known_keep_their_rows_and_others_begin_anew(kind: str) -> None:
    model = made(kind, "a", "b", "c")
    for parameter in list(model.parameters())[::2]:
        parameter.requires_grad = False
    layers = class_layers(model)
    assert layers
    wanted = {name: parameter.requires_grad for name, parameter in model.named_parameters()}
    other: Any = with_classes(model, ["c", "new", "a", "newer"])
    assert names_of(other) == {0: "c", 1: "new", 2: "a", 3: "newer"}
    assert other.nc == 4
    assert names_of(model) == {0: "a", 1: "b", 2: "c"}
    assert {name: parameter.requires_grad for name, parameter in other.named_parameters()} == wanted
    found: set[float] = set()
    for name, layer in layers.items():
        changed: Any = other.get_submodule(name)
        assert type(changed) is type(layer)
        assert changed.weight.shape == (4, *layer.weight.shape[1:])  # type: ignore[union-attr]
        assert torch.equal(changed.weight[[0, 2]], layer.weight[[2, 0]])  # type: ignore[index]
        if getattr(layer, "bias", None) is not None:
            assert torch.equal(changed.bias[[0, 2]], layer.bias[[2, 0]])  # type: ignore[index]
            found |= {round(float(value), 4) for value in changed.bias[[1, 3]]}
    assert found == {round(value, 4) for value in beginnings(kind, 4)}
    rows = {f"{name}.{part}" for name in layers for part in ("weight", "bias")}
    state = other.state_dict()
    assert all(torch.equal(tensor, state[name]) for name, tensor in model.state_dict().items() if name not in rows)
    assert {name: tensor.shape for name, tensor in state.items()} == shapes_with(model, 4)
    assert shapes_with(model, 3) == {name: tensor.shape for name, tensor in model.state_dict().items()}
    head = other.model[-1]
    if hasattr(head, "nc"):
        assert head.nc == 4
    if hasattr(head, "reg_max"):
        assert head.no == 4 + 4 * head.reg_max
    with torch.no_grad():
        other(example(other))


def test_a_network_of_one_precision_and_mode_stays_in_it() -> None:
    model = network().double().train()
    other = with_classes(model, ["red", "blue"])
    assert all(layer.weight.dtype is torch.float64 and layer.training for layer in class_layers(other).values())
    assert not any(layer.training for layer in class_layers(with_classes(model.eval(), ["red"])).values())


def test_some_of_the_classes_are_told_from_all_and_from_others() -> None:
    model = network("detect", "a", "b", "c")
    some = only_classes(model, ["c", 0])
    assert names_of(some) == {0: "a", 1: "c"}
    assert knows_some(some)
    assert not knows_some(only_classes(model, ["a", "b", "c"]))
    assert not knows_some(with_classes(some, ["a", "d"]))
    mark_some(model, False)
    assert not knows_some(model)
    mark_some(model, True)
    assert knows_some(model)


def test_a_network_that_ran_has_no_anchors_of_its_last_image() -> None:
    model = network()
    model(torch.rand(1, 3, 96, 96))
    assert with_classes(model, ["a"]).model[-1].anchors.numel() == 0  # type: ignore[index,union-attr,operator]


@pytest.mark.parametrize("name", ["WorldDetect", "YOLOESegment"])
def test_classes_that_are_texts_or_have_no_rows_stay(name: str) -> None:
    from ultralytics.nn import modules

    model = network()
    model.model[-1] = vars(modules)[name].__new__(vars(modules)[name])
    nn.Module.__init__(model.model[-1])
    with pytest.raises(ModelError, match="the classes of this network are texts"):
        with_classes(model, ["a"])
    model.model[-1] = nn.ReLU()
    with pytest.raises(ModelError, match="a ReLU has no layer with a row for each class"):
        with_classes(model, ["a"])
    assert class_layers(model) == {}


def test_names_and_kinds_of_networks_are_told() -> None:
    assert by_queries(made("queries", "a"))
    assert not by_queries(network())
    assert is_fixed("model.3.dfl.conv.weight")
    assert not is_fixed("model.3.cv3.weight")
    bare = nn.Sequential()
    bare.names = ["x", "y"]  # type: ignore[assignment]
    assert names_of(bare) == {0: "x", 1: "y"}
    with pytest.raises(ModelError, match="has no class names"):
        names_of(nn.ReLU())
    assert example(nn.ReLU()).shape == (1, 3, 64, 64)
    assert example(network(channels=1, backbone=[CONV] * 3)).shape == (1, 1, 64, 64)
    model = network()
    assert torch.equal(example(model), example(model))
