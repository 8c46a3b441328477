"""Flat keywords stand for settings: all of them, once, with the defaults of the settings."""

from __future__ import annotations

import inspect
import json
from collections.abc import Callable
from dataclasses import fields
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from torch import nn

import seqprune
from seqprune.engine.options import Options, parameters, settings_of
from seqprune.engine.run import fingerprint
from seqprune.engine.settings import Choose, Look, Open, Train, as_plain, check_together
from seqprune.errors import InputError

KINDS = (Look, Choose, Train, Open)


def test_every_field_of_the_settings_is_a_keyword_and_no_other() -> None:
    names = [parameter.name for parameter in parameters()]
    assert len(names) == len(set(names)) == sum(len(fields(kind)) for kind in KINDS)
    assert set(names) == set(Options.__annotations__)


def test_what_is_not_said_is_as_by_default() -> None:
    assert settings_of({}) == (Look(), Choose(), Train(), Open())
    defaults = {parameter.name: parameter.default for parameter in parameters()}
    assert settings_of(defaults) == settings_of({})


def test_keywords_become_the_fields_that_they_stand_for() -> None:
    look, choose, train, how = settings_of(
        {"imgsz": 64, "preset": "fast", "protect": ["a"], "finetune": 3, "training": {"lr0": 0.1}, "fixed": ["b"]}
    )
    assert (look.imgsz, choose.protect, how.fixed) == (64, ("a",), ("b",))
    assert (train.epochs, train.arguments) == (3, {"lr0": 0.1})


def test_a_keyword_that_there_is_not_is_pythons_error() -> None:
    with pytest.raises(TypeError, match="unexpected keyword argument 'pretest'"):
        settings_of({"pretest": "fast"})
    with pytest.raises(InputError, match="there is no preset 'fats'"):
        settings_of({"preset": "fats"})


def test_help_shows_all_keywords() -> None:
    shown = inspect.signature(seqprune.prune).parameters
    assert list(shown)[:5] == ["model", "data", "folder", "listener", "progress"]
    assert shown["batch"].default == 16
    assert {"target", "evaluate", "weights", "finetune"} <= set(shown)


def test_a_target_of_time_in_eight_bits_is_met_in_one_process() -> None:
    """Each process would time eight bits by itself, and prune to a target of its own."""
    small, whole = (Look(int8=int8, runtime="onnxruntime") for int8 in (True, False))
    timed, counted = (Choose(preset="accurate", target=target) for target in ("latency=0.5", "flops=0.5"))
    with pytest.raises(InputError, match="in eight bits is met in one process"):
        check_together(small, timed, Train(), 2, has_data=True)
    for look, choose, processes in ((small, timed, 1), (small, counted, 2), (whole, timed, 2)):
        check_together(look, choose, Train(), processes, has_data=True)


def test_eight_bits_are_a_setting_of_a_run_where_a_target_is_met_in_them() -> None:
    """A run begun without them went on with them, to another target."""
    plain = [
        as_plain(Look(int8=int8, runtime="onnxruntime"), Choose(preset="accurate", target=target), Train())
        for target in ("latency=0.5", "flops=0.5")
        for int8 in (True, False)
    ]
    assert [each.get("int8") for each in plain] == [True, None, None, None]
    assert plain[2] == plain[3]


NETWORK = nn.Sequential(nn.Conv2d(3, 8, 1), nn.ReLU(), nn.Conv2d(8, 2, 1))
WRONG = {
    "a seed beyond all generators": ({"seed": 2**64}, "seed=18446744073709551616: give a whole number"),
    "a seed that is truth": ({"seed": True}, "seed=True: give a whole number"),
    "a text of images": ({"images": "a"}, "images=a: imgsz is at least 32, the others positive"),
    "half a batch": ({"batch": 1.5}, "batch=1.5"),
    "a text of a size": ({"imgsz": "640"}, "imgsz=640"),
    "a cache of nothing": ({"cache_bytes": "a"}, "cache_bytes='a': give a whole number, 0 or more"),
    "a text to round to": ({"round_to": "8"}, "multiples of 8: give 1 or more"),
    "a list to keep": ({"keep": [0.5]}, r"a keep ratio of \[0.5\] is outside"),
    "a text of epochs": ({"finetune": "a"}, "finetune=a, finetune_step=0: give epochs, 0 or more"),
}


@pytest.mark.parametrize("name", WRONG)
def test_numbers_that_are_none(name: str) -> None:
    """They ended in an error of Python's comparison, or of torch's generator."""
    options, message = WRONG[name]
    with pytest.raises(InputError, match=message):
        settings_of(options)
    assert settings_of({"batch": np.int64(4), "seed": np.int64(1), "round_to": np.int64(2)})[0].batch == 4


OBJECT = object()
DATA = [torch.zeros(1, 3, 4, 4)]
OTHERS = {
    **dict.fromkeys(("protect", "fixed", "by"), (3, "a list of texts")),
    **{f"{name} as a text": ("model.3", "a list of texts") for name in ("protect", "fixed", "by")},
    **{name: ([1], "a text") for name in ("preset", "recover", "criterion", "represent", "match", "runtime")},
    **dict.fromkeys(("val", "amp", "trust", "int8", "distill", "full"), (None, "True or False")),
    **{f"{name} as a number": (0.5, "True or False") for name in ("val", "val_steps", "front", "cache_half")},
    **{f"{name} as a tensor": (torch.zeros(2), "True or False") for name in ("val", "distill")},
    "blocks": (3, "a list of whole numbers"),
    "blocks of texts": (["3"], "a list of whole numbers"),
    "layers": (0.5, "a whole number, or a list of texts"),
    "layers as a text": ("model.3", "a whole number, or a list of texts"),
    "classes as a text": ("person", "a list of names or numbers"),
    "mean": (0.5, "a list of numbers"),
    "std of truth": ([True], "a list of numbers"),
    "weights": (3, "the path of a file"),
    "evaluate": ("top1", "a function"),
    "training": (OBJECT, "a dictionary"),
}


@pytest.mark.parametrize("name", OTHERS)
def test_values_of_another_kind(name: str) -> None:
    """They ended in Python's own errors, some of them an hour later."""
    value, wanted = OTHERS[name]
    keyword = name.split()[0]
    with pytest.raises(InputError, match=rf"^{keyword}=.* is a {type(value).__name__}: give {wanted}"):
        settings_of({keyword: value})


def test_numpys_values_are_plain_ones() -> None:
    """A folder of a run could not be written of them."""
    options: dict[str, Any] = {"seed": np.int64(3), "images": np.int32(4), "threads": np.int64(1), "val": np.bool_(1)}
    look, choose, train, _ = settings_of(options | {"blocks": np.arange(2), "finetune": np.int64(1)})
    plain = as_plain(look, choose, train)
    assert json.loads(json.dumps(plain)) == plain
    assert (plain["seed"], plain["images"], plain["threads"], plain["blocks"]) == (3, 4, 1, [0, 1])


CALLS: list[Callable[..., object]] = [seqprune.prune, seqprune.sensitivity, partial(seqprune.compare, targets=[0.5])]


@pytest.mark.parametrize("call", CALLS)
@pytest.mark.parametrize("listener", [3, print, torch.zeros(2)])
def test_a_listener_that_is_none(call: Callable[..., object], listener: object) -> None:
    more = {"methods": ["l1"]} if isinstance(call, partial) else {}
    with pytest.raises(InputError, match=f"the listener is a {type(listener).__name__}: give a seqprune.Listener"):
        call(NETWORK, DATA, listener=listener, **more)


def test_a_listener_without_functions() -> None:
    with pytest.raises(InputError, match="stage of a Listener is a int: give a function"):
        seqprune.Listener(stage=3)


def compared(**options: Any) -> object:
    return seqprune.compare(NETWORK, DATA, **{"targets": [0.5], "methods": ["l1"], **options})


prune: Callable[..., object] = seqprune.prune
REFUSED: dict[str, tuple[Callable[[], object], str]] = {
    "a folder": (lambda: prune(NETWORK, DATA, folder=3), "folder=3 is a int: give the path"),
    "data of one tensor": (lambda: prune(NETWORK, DATA[0], preset="accurate"), "data is a Tensor: give a load"),
    "data of a number": (lambda: seqprune.inspect(NETWORK, np.float64(1)), "data is a float64: give a loader"),
    "a method": (lambda: compared(methods=3), "methods=3 is a int: give a list of texts"),
    "a runtime": (lambda: compared(runtimes="torch"), "runtimes='torch' is a str: give a list of texts"),
    "subsets": (lambda: compared(subsets="a"), "subsets=a, finetune=0: give the number"),
    "a state": (lambda: compared(state=3), "the state is a int: give a seqprune.engine.state.State"),
    "what is counted": (lambda: compared(count=[1]), "at equal parameters or operations, not"),
    "layers": (lambda: seqprune.sensitivity(NETWORK, DATA, layers="0"), "layers='0' is a str: give a list"),
    "accuracy": (
        lambda: prune(NETWORK, DATA, preset="fast", evaluate=lambda _: 0.5),
        "evaluate returned 0.5: let it return a dictionary of numbers",
    ),
}


def test_a_folder_that_is_a_file(tmp_path: Path) -> None:
    """It was told to make room on its disk."""
    (tmp_path / "file").write_text("")
    with pytest.raises(InputError, match="file is a file: give the name of a folder"):
        prune(NETWORK, DATA, preset="fast", folder=tmp_path / "file")


def test_a_network_without_weights() -> None:
    with pytest.raises(InputError, match="lies on the meta device, without weights"):
        prune(nn.Sequential(nn.Conv2d(3, 8, 1, device="meta")), DATA, preset="fast")


def test_layers_in_eight_bits_have_a_fingerprint() -> None:
    """What they hold of weights is a pair: AttributeError."""
    layers = nn.Sequential(nn.Conv2d(3, 8, 1), nn.Flatten(), nn.Linear(8, 2))
    small = torch.ao.quantization.quantize_dynamic(layers, {nn.Linear})
    other = torch.ao.quantization.quantize_dynamic(layers, {nn.Linear})
    assert fingerprint(small) == fingerprint(other) != fingerprint(layers)
    layers.insert(0, nn.Conv2d(3, 3, 1))
    result = seqprune.prune(
        torch.ao.quantization.quantize_dynamic(layers, {nn.Linear}),
        [torch.zeros(1, 3, 1, 1)] * 2,
        preset="fast",
        target="params=0.9",
        round_to=1,
    )
    with pytest.raises(InputError, match="is no plain tensor, as of layers in eight bits"):
        result.save("nowhere.safetensors")


@pytest.mark.parametrize("name", REFUSED)
def test_arguments_of_another_kind(name: str) -> None:
    call, message = REFUSED[name]
    with pytest.raises(InputError, match=message):
        call()


@pytest.mark.parametrize("call", [seqprune.prune, seqprune.inspect, seqprune.sensitivity, seqprune.compare])
@pytest.mark.parametrize("network", [None, 3, {"a": 1}])
def test_a_network_that_is_none(call: Callable[..., object], network: object) -> None:
    with pytest.raises(InputError, match=f"the network is a {type(network).__name__}: give weights"):
        call(
            network,
            [torch.zeros(1, 3, 4, 4)],
            **({"targets": [0.5], "methods": ["l1"]} if call is seqprune.compare else {}),
        )


@pytest.mark.parametrize("shares", ["a", ["a"], 0.5, None, [float("nan")], [True]])
def test_shares_that_are_none(shares: object) -> None:
    data = [torch.zeros(1, 3, 4, 4)]
    with pytest.raises(InputError, match=r"in \(0, 1\)"):
        seqprune.compare(NETWORK, data, targets=shares, methods=["accurate"])
    with pytest.raises(InputError, match=r"in \(0, 1\)"):
        seqprune.sensitivity(NETWORK, data, ratios=shares)


def test_a_result_says_why_it_cannot_be_written(tmp_path: Path) -> None:
    data = torch.utils.data.DataLoader(torch.zeros(2, 3, 4, 4))
    result = seqprune.prune(NETWORK, data, preset="fast", target="params=0.8", round_to=1)
    for path in (tmp_path, tmp_path / "none" / "report.html", None):
        with pytest.raises(InputError, match="cannot be written"):
            result.report(path)
    for path in (tmp_path / "none" / "small.safetensors", None):
        with pytest.raises(InputError, match="cannot be written"):
            result.save(path)
