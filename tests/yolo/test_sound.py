"""What a checkpoint may hold: every limit from both sides, and what is made of the rest."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest
import torch
from torch import nn

from seqprune.errors import UntrustedError
from seqprune.yolo.files import sound as rooms
from seqprune.yolo.files.archive import Damaged
from seqprune.yolo.files.sound import check_network, sound


def network(**held: Any) -> nn.Module:
    made = nn.Sequential(nn.Conv2d(3, 4, 1), nn.BatchNorm2d(4))
    vars(made).update(held)
    return made


def inner(**held: Any) -> nn.Module:
    made = network()
    vars(made[1]).update(held)
    return made


NUMBERS: dict[str, tuple[Any, Any]] = {"epoch": (10**6, 10**6 + 1), "updates": (10**12, 10**12 + 1)}


@pytest.mark.parametrize("key", NUMBERS)
def test_counts_of_a_training(key: str) -> None:
    most, more = NUMBERS[key]
    for allowed in (-1, 0, most, None):
        assert sound({key: allowed}, "x.pt")[key] == allowed
    for refused in (-2, more, 1.5, "1", True):
        with pytest.raises(Damaged, match=rf"x\.pt: its {key} is {refused}; it is damaged"):
            sound({key: refused}, "x.pt")


def test_what_is_about_the_training_becomes_numbers() -> None:
    given = {
        7: 1,
        "modelopt": 2,
        "best_fitness": 0.5,
        "train_metrics": {"map": 0.25},
        "train_args": None,
        "scaler": [1],
    }
    found = sound(given, "x.pt")
    assert found == {"best_fitness": 0.5, "train_metrics": {"map": 0.25}, "train_args": None, "scaler": {}}
    assert [sound({"best_fitness": f}, "")["best_fitness"] for f in (float("nan"), float("inf"), 1, "1", None)] == [
        None
    ] * 5
    assert sound({"train_args": {"imgsz": 320}}, "")["train_args"]["imgsz"] == 320


@pytest.mark.parametrize("key", ["ema", "model"])
def test_both_networks_of_a_checkpoint_are_looked_at(key: str) -> None:
    with pytest.raises(Damaged, match=r"x\.pt: .* is neither training nor not; it is damaged or was tampered with"):
        sound({key: inner(training=1)}, "x.pt")
    assert sound({key: "text"}, "x.pt") == {key: "text"}


def itself() -> nn.Module:
    made = network()
    made._modules["0"] = made
    return made


def unnamed() -> nn.Module:
    made = network()
    vars(made[1])[3] = 4  # type: ignore[index]
    return made


WRONG: dict[str, tuple[Callable[[], nn.Module], str]] = {
    "itself": (itself, "0 contains itself"),
    "no parameters": (lambda: inner(_parameters=None), "BatchNorm2d 1 has no parameters"),
    "no buffers": (lambda: inner(_buffers=[]), "BatchNorm2d 1 has no buffers"),
    "no modules": (lambda: inner(_modules=3), "BatchNorm2d 1 has no modules"),
    "a parameter that is none": (lambda: inner(_parameters={"weight": torch.ones(4)}), "a Tensor among its parameters"),
    "a buffer that is none": (lambda: inner(_buffers={"running_mean": 1.0}), "a float among its buffers"),
    "a module that is none": (lambda: network(_modules={"0": torch.ones(1)}), "a Tensor among its modules"),
    "a name with a space": (lambda: inner(_buffers={"a b": None}), "a NoneType among its buffers"),
    "a name too long": (lambda: inner(_buffers={"a" * 101: None}), "a NoneType among its buffers"),
    "a name that is a number": (lambda: inner(_buffers={10**5000: None}), "a NoneType among its buffers"),
    "a hook": (lambda: inner(_forward_hooks={0: print}), "carries hooks"),
    "a hook that is no list": (lambda: inner(_backward_pre_hooks=print), "carries hooks"),
    "a key that is none": (unnamed, "carries hooks"),
    "a forward": (lambda: inner(forward=3), "a int for its forward"),
    "a method": (lambda: inner(extra_repr="x"), "a str for its extra_repr"),
    "a type that is no name": (lambda: inner(type=3), "a int for its type"),
    "names that are a number": (lambda: network(names=3), "class names are a int"),
    "too many names": (lambda: network(names=["a"] * 100_001), "class names are a list"),
    "ids that are texts": (lambda: network(names={"a": "b"}), "class ids are no numbers"),
    "an id too great": (lambda: network(names={100_001: "b"}), "class ids are no numbers"),
    "an id below zero": (lambda: network(names={-1: "b"}), "class ids are no numbers"),
    "a name that is none": (lambda: network(names={0: 1.5}), "a class name is no text"),
    "a stride of half a pixel": (lambda: network(stride=torch.tensor([0.5])), "strides are no pixels"),
    "a stride too great": (lambda: network(stride=torch.tensor([8.0, 1025.0])), "strides are no pixels"),
    "too many strides": (lambda: network(stride=torch.ones(17)), "strides are no pixels"),
    "no strides": (lambda: network(stride=torch.ones(0)), "strides are no pixels"),
    "a stride that is a list": (lambda: network(stride=[8]), "strides are no pixels"),
    "a task that is none": (lambda: network(task=3), "its task is no name"),
    "a task too long": (lambda: network(task="t" * 41), "its task is no name"),
}


@pytest.mark.parametrize("name", WRONG)
def test_what_no_constructor_has_made_is_refused(name: str) -> None:
    make, said = WRONG[name]
    with pytest.raises(Damaged, match=said) as caught:
        check_network(make(), "x.pt")
    assert str(caught.value).startswith("x.pt: ")


def test_what_a_constructor_has_made_is_not() -> None:
    made = network(
        names={0: "a\x1b", 100_000: 7}, stride=torch.tensor([1.0] * 15 + [1024.0]), task="t" * 40, pt_path="x"
    )
    made[1].register_buffer("a" * 100, None)
    made[1].type = "torch.nn.modules.batchnorm.BatchNorm2d"
    compares = type("Hook", (), {"__module__": "ultralytics.nn.distill_model"})
    made[1]._forward_hooks = {0: None, 1: True, 2: compares()}
    check_network(made, "x.pt")
    assert made.names == {0: "a\ufffd", 100_000: "7"}
    assert "pt_path" not in vars(made)
    listed = network(names=("a" * 300, "a" * 301))
    check_network(listed, "x.pt")
    assert listed.names == ["a" * 300, "a" * 299 + "…"]
    listed = network(names=("a", "b\n"), args={"imgsz": 64, "evil": print})
    check_network(listed, "x.pt")
    assert listed.names == ["a", "b "]
    assert listed.args["imgsz"] == 64
    assert "evil" not in listed.args
    check_network(network(names=["a"] * 100_000), "x.pt")
    shared = network()
    shared.append(shared[0])  # twice, but not in itself
    check_network(shared, "x.pt")


def test_as_many_layers_as_any_network_has(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(rooms, "_MODULES", 3)
    check_network(network(), "x.pt")
    with pytest.raises(Damaged, match="it has more than 3 layers"):
        check_network(network().append(nn.ReLU()), "x.pt")
    with pytest.raises(Damaged, match="0 contains itself"):
        check_network(itself(), "x.pt")


def test_the_yaml_of_every_network_in_it_is_looked_at() -> None:
    evil = {"backbone": [[-1, 1, "os.system", ["x"]]], "head": []}
    for made in (network(yaml=evil), inner(yaml=evil)):
        with pytest.raises(UntrustedError, match=r"^x\.pt: 'os\.system' in the model's YAML is no layer"):
            check_network(made, "x.pt")
    with pytest.raises(Damaged, match="its task is no name"):
        check_network(inner(yaml={"backbone": [], "head": []}, task=3), "x.pt")
    check_network(network(yaml=None), "x.pt")
