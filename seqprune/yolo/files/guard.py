"""Ultralytics reads no file by itself while one of our functions runs.

In the midst of a training it opens checkpoints (``best.pt`` beside ``last.pt``, a teacher, other weights, those of its
check of mixed precision), runs the ``download:`` script of a data YAML whose images are missing, and evaluates what
stands under ``activation`` in a model YAML. Each of these goes through what is ours, whoever calls it, and is put back
afterwards.
"""

from __future__ import annotations

import io
import sys
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from pathlib import Path
from typing import Any, NoReturn

import torch
import torchvision
from ultralytics.data import utils as data_utils
from ultralytics.nn import tasks

from seqprune.errors import UntrustedError
from seqprune.plain import UnreadableError, printable, text_of, yaml_of
from seqprune.yolo.data.dataset import resolve
from seqprune.yolo.files.contained import replaced
from seqprune.yolo.files.description import check_description, layer_of
from seqprune.yolo.files.sound import sound
from seqprune.yolo.files.unpickle import read

_plain = {"depth": 0, "trusted": False}  # how many guards are up, and whether the innermost lets checkpoints run


@contextmanager
def guarded(trust: bool | None = None) -> Iterator[None]:
    """Let everything in this process read checkpoints, data YAMLs and descriptions as data for a while.

    Args:
        trust: Whether checkpoints may run code; ``None``: as it is around, and not where nothing is around.
    """
    before = _plain["trusted"]
    _plain["trusted"] = before if trust is None else trust
    _plain["depth"] += 1
    try:
        with ExitStack() as stack:
            if _plain["depth"] == 1:
                _stand(stack)
            yield
    finally:
        _plain["depth"] -= 1
        _plain["trusted"] = before


def _stand(stack: ExitStack) -> None:
    """Put all of ours in place, once."""
    loads: Any = torch.load
    programs: Any = torch.jit.load
    checkpoints = tasks.torch_safe_load

    def load(f: Any, *args: Any, **named: Any) -> Any:
        return loads(f, *args, **named) if _plain["trusted"] else _read(f)

    def program(f: Any, *args: Any, **named: Any) -> Any:
        return programs(f, *args, **named) if _plain["trusted"] else _no_program(f)

    def checkpoint(weight: str | Path, *args: Any, **named: Any) -> tuple[dict[str, Any], str]:
        return checkpoints(weight, *args, **named) if _plain["trusted"] else _checkpoint(weight)

    stack.enter_context(replaced(torch, "load", load))
    stack.enter_context(replaced(torch.jit, "load", program))
    for module in _holding(checkpoints, "torch_safe_load"):
        stack.enter_context(replaced(module, "torch_safe_load", checkpoint))
    for module in _holding(data_utils.check_det_dataset, "check_det_dataset"):
        stack.enter_context(replaced(module, "check_det_dataset", _data))
    for module in _holding(data_utils.load_dataset_cache_file, "load_dataset_cache_file"):
        stack.enter_context(replaced(module, "load_dataset_cache_file", _no_cache))
    if convert := getattr(data_utils, "convert_ndjson_to_yolo_if_needed", None):  # it fetches what a file lists
        for module in _holding(convert, "convert_ndjson_to_yolo_if_needed"):
            stack.enter_context(replaced(module, "convert_ndjson_to_yolo_if_needed", lambda data, *_, **__: data))
    get_model = torchvision.models.get_model  # a description has random weights: none are fetched for it
    stack.enter_context(replaced(torchvision.models, "get_model", lambda name, **_: get_model(name, weights=None)))
    parse = tasks.parse_model

    def parsed(description: Any, *args: Any, **named: Any) -> Any:
        check_description(description)
        return parse(description, *args, **named)

    stack.enter_context(replaced(tasks, "parse_model", parsed))
    stack.enter_context(replaced(tasks, "YAML", _Descriptions))
    stack.enter_context(_shadowed(tasks, "eval", layer_of))
    stack.enter_context(_shadowed(data_utils, "exec", _no_script))
    if timed := getattr(data_utils, "check_file_speeds", None):  # it opens images, and a named pipe has no end
        for module in _holding(timed, "check_file_speeds"):
            stack.enter_context(replaced(module, "check_file_speeds", lambda *_, **__: None))


class _Descriptions:
    """What reads model YAMLs for Ultralytics."""

    @staticmethod
    def load(file: str | Path, *_: Any, **__: Any) -> dict[str, Any]:
        found = yaml_of(text_of(file))
        if not isinstance(found, dict):
            raise UnreadableError("holds no keys, so it is no model YAML")
        return found


def _holding(function: Any, name: str) -> list[Any]:
    """The modules of Ultralytics' that hold a function under its name."""
    modules = [module for key, module in list(sys.modules.items()) if key.startswith("ultralytics.") and module]
    return [module for module in modules if vars(module).get(name) is function]


@contextmanager
def _shadowed(module: Any, name: str, value: Any) -> Iterator[None]:
    """Let a module find ``value`` where it looks for one of Python's own functions."""
    if name in vars(module):
        with replaced(module, name, value):
            yield
        return
    setattr(module, name, value)
    try:
        yield
    finally:
        delattr(module, name)


def _read(source: Any) -> Any:
    if isinstance(source, str | Path):
        return read(source)
    if isinstance(source, io.BytesIO):
        return read(source)
    return read(io.BytesIO(source.read()))


def _checkpoint(weight: str | Path) -> tuple[dict[str, Any], str]:
    """What ``torch_safe_load`` returns: a dictionary with a sound network in it, and the file."""
    file = str(_file_of(weight))
    found = read(file)
    return sound(found if isinstance(found, dict) else {"model": found}, file), file


def _file_of(weight: str | Path) -> str:
    """The file of official weights, downloaded where it is missing."""
    from ultralytics.utils.downloads import attempt_download_asset

    return str(attempt_download_asset(weight))


def _data(dataset: Any, autodownload: bool = True, split: str = "") -> dict[str, Any]:
    """``check_det_dataset`` by our own reader, which runs no script."""
    found = resolve(dataset)
    if split and not found.get(split):
        raise FileNotFoundError(f"{dataset}: has no split {split!r}")
    return found


def _no_program(source: Any) -> NoReturn:
    raise UntrustedError(f"{printable(source, 200)}: is a TorchScript program, which is not run; give a checkpoint")


def _no_cache(path: Any) -> NoReturn:
    raise FileNotFoundError(f"{path}: caches of a data set are not read")


def _no_script(*_: Any) -> NoReturn:
    raise UntrustedError("a download script in the data YAML is not run; fetch the images first and leave it out")
