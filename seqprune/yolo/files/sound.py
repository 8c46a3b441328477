"""What a checkpoint holds, looked at before anybody works with it.

The unpickler makes layers without their constructors and fills them with whatever the file says. None of that runs, but
a layer whose ``forward`` is a number, a network that contains itself, or a list of names with instructions for a
terminal would end in an error far from its cause. Here each is refused, and what is about the training is reduced to
numbers.
"""

from __future__ import annotations

import math
import re
from collections.abc import Mapping
from types import FunctionType, MethodType
from typing import Any

import torch
from torch import nn

from seqprune.errors import UntrustedError
from seqprune.plain import is_name, is_number, is_whole, printable
from seqprune.yolo.files.archive import Damaged
from seqprune.yolo.files.description import check_description
from seqprune.yolo.files.known import FORWARDS
from seqprune.yolo.files.pruned import without_bar
from seqprune.yolo.files.settings import numbers_of, plain_settings

_HOOKS = frozenset(key for key in vars(nn.Module()) if "hooks" in key)
_DISTILLING = "ultralytics.nn.distill_model"
_NAME = re.compile(r"[\w-]{1,100}", re.ASCII)
_MODULES = 20_000
_CLASSES = 100_000


def sound(checkpoint: dict[Any, Any], source: str) -> dict[str, Any]:
    """A checkpoint with its networks checked and its settings reduced to numbers and known words.

    Raises:
        UntrustedError: the YAML of a network in it is not one that networks are built from.
        Damaged: a network in it is none that could have been saved.
    """
    found = {key: value for key, value in checkpoint.items() if isinstance(key, str) and key != "modelopt"}
    for key in ("ema", "model"):
        if isinstance(found.get(key), nn.Module):
            check_network(found[key], source)
    for key in ("train_args", "train_metrics", "stopper", "scaler"):
        value = found.get(key)
        if value is not None:
            made = plain_settings if key == "train_args" else numbers_of
            found[key] = made(value) if isinstance(value, Mapping) else {}
    for key, most in (("epoch", 10**6), ("updates", 10**12)):
        if found.get(key) is not None and not is_whole(found[key], -1, most):
            raise Damaged(f"{source}: its {key} is {printable(found[key], 40)}; it is damaged")
    fitness = found.get("best_fitness")
    if fitness is not None:
        found["best_fitness"] = float(fitness) if isinstance(fitness, float) and math.isfinite(fitness) else None
    return found


def check_network(network: nn.Module, source: str) -> None:
    """Raise Damaged for a network that no constructor has made, UntrustedError for one whose YAML is not plain."""
    try:
        modules = _check_tree(network)
        for module in modules:
            if module is network or "yaml" in vars(module):
                _check_own(module)
    except _Wrong as error:
        raise Damaged(f"{source}: {error}; it is damaged or was tampered with") from error
    for module in modules:
        if vars(module).get("yaml") is not None:
            try:
                check_description(without_bar(vars(module)["yaml"]))
            except UntrustedError as error:
                raise UntrustedError(f"{source}: {error}") from error


class _Wrong(ValueError):
    """What is wrong with a network; its file is not known yet."""


def _check_tree(network: nn.Module) -> list[nn.Module]:
    """Every module of it, each below another: none contains itself."""
    found: list[nn.Module] = []
    waiting = [(network, frozenset[int](), "the network")]
    while waiting:
        module, above, name = waiting.pop()
        found.append(module)
        if id(module) in above or len(found) > _MODULES:
            raise _Wrong(f"{name} contains itself" if id(module) in above else f"it has more than {_MODULES} layers")
        _check_module(module, name)
        inner = above | {id(module)}
        waiting += ((child, inner, key) for key, child in vars(module)["_modules"].items() if child is not None)
    return found


def _check_module(module: nn.Module, name: str) -> None:
    held = vars(module)
    kinds: dict[str, type[Any]] = {"_parameters": nn.Parameter, "_buffers": torch.Tensor, "_modules": nn.Module}
    for key, kind in kinds.items():
        entries = held.get(key)
        if not isinstance(entries, dict):
            raise _Wrong(f"{type(module).__name__} {name} has no {key[1:]}")
        for inner, value in entries.items():
            is_name_of_one = isinstance(inner, str) and _NAME.fullmatch(inner)
            if not is_name_of_one or not (value is None or isinstance(value, kind)):
                raise _Wrong(f"{type(module).__name__} {name} has a {type(value).__name__} among its {key[1:]}")
    if not isinstance(held.get("training"), bool):
        raise _Wrong(f"{type(module).__name__} {name} is neither training nor not")
    for key, value in held.items():
        if not isinstance(key, str) or (key in _HOOKS and not _are_harmless(value)):
            raise _Wrong(f"{type(module).__name__} {name} carries hooks")
        shadowed = getattr(type(module), key, None)
        is_right = isinstance(value, FunctionType | MethodType) if key in FORWARDS else key == "type" and is_name(value)
        if isinstance(shadowed, FunctionType) and not is_right:  # "type" is Ultralytics' name of the layer
            raise _Wrong(f"{type(module).__name__} {name} has a {type(value).__name__} for its {printable(key, 40)}")


def _are_harmless(hooks: Any) -> bool:
    """None, or those with which Ultralytics compares a student with its teacher in the midst of a training."""
    values = list(hooks.values()) if isinstance(hooks, dict) else [hooks]
    return all(value is None or isinstance(value, bool) or type(value).__module__ == _DISTILLING for value in values)


def _check_own(network: nn.Module) -> None:
    """What Ultralytics hangs on a network."""
    held = vars(network)
    names = held.get("names", {})
    values = list(names.values()) if isinstance(names, dict) else names
    if not isinstance(values, list | tuple) or len(values) > _CLASSES:
        raise _Wrong(f"its class names are a {type(names).__name__}")
    if isinstance(names, dict) and not all(is_whole(number, 0, _CLASSES) for number in names):
        raise _Wrong("its class ids are no numbers")
    if not all(isinstance(value, str | int) for value in values):
        raise _Wrong("a class name is no text")
    shown = [printable(value, 300) for value in values]
    held["names"] = dict(zip(names, shown, strict=True)) if isinstance(names, dict) else shown
    stride = held.get("stride")
    if stride is not None:
        sides = stride.flatten().tolist() if isinstance(stride, torch.Tensor) and stride.numel() <= 16 else None
        if not sides or not all(is_number(side, 1, 1024) for side in sides):
            raise _Wrong("its strides are no pixels")
    if held.get("task") is not None and not is_name(held["task"], 40):
        raise _Wrong("its task is no name")
    for key in ("args", "pt_path"):
        value = held.pop(key, None)
        if value is not None and key == "args":
            held[key] = plain_settings(value if isinstance(value, Mapping) else vars(value))
