"""Weights for a network that was built: files of tensors, read as data and put where they belong."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import torch
from safetensors import SafetensorError
from safetensors.torch import load_file
from torch import nn

from seqprune.engine.modules import SUFFIX, restore
from seqprune.errors import ModelError
from seqprune.plain import UnreadableError, json_of, printable, text_of, why_no_file

PICKLED = (".pt", ".pth", ".bin")
_INSIDE = ("state_dict", "model_state_dict", "model", "state_dict_ema", "model_ema")
"""Where trainers put the tensors of a network."""


def give_weights(model: nn.Module, path: str | Path) -> nn.Module:
    """Gives a network, in place, the tensors of a file; what seqprune saved of a pruned one brings its widths along.

    Nothing in the file is run.

    Raises:
        UntrustedError: the file holds what may run code.
        ModelError: there is no such file, it holds no tensors, or they are another network's.
    """
    path = Path(path)
    if path.suffix not in (SUFFIX, *PICKLED):
        raise ModelError(f"{path}: weights end in {SUFFIX} or {', '.join(PICKLED)}; give such a file")
    if reason := why_no_file(path):
        raise ModelError(f"{path}: {reason}; check the path")
    if path.suffix == SUFFIX and _is_pruned(path):
        return restore(model, path)
    given = _of_file(path) if path.suffix == SUFFIX else _of_pickle(path)
    own = model.state_dict()
    counters = {name for name in own if name.endswith("num_batches_tracked")}  # of no use in inference
    if wrong := _mismatch(own, given, counters):
        raise ModelError(f"{path}: {wrong}; build the network that they were saved of")
    model.load_state_dict(given, strict=False)
    return model


def _is_pruned(path: Path) -> bool:
    """Whether a plan lies beside it, as ``result.save`` writes it."""
    try:
        about = json_of(text_of(path.with_suffix(".json")))
    except UnreadableError:
        return False
    return isinstance(about, dict) and set(about) == {"format", "plan"}


def _of_file(path: Path) -> dict[str, torch.Tensor]:
    try:
        return load_file(path)
    except (SafetensorError, OSError) as error:
        raise ModelError(f"{path}: holds no tensors ({printable(error)}); copy it again") from error


def _of_pickle(path: Path) -> dict[str, torch.Tensor]:
    from seqprune.yolo.files.unpickle import read

    found: Any = read(path)
    for name in _INSIDE:
        if isinstance(found, Mapping) and isinstance(found.get(name), Mapping):
            found = found[name]
    if not isinstance(found, Mapping) or not all(isinstance(each, torch.Tensor) for each in found.values()):
        raise ModelError(f"{path}: holds a {type(found).__name__}, no tensors by name; save model.state_dict()")
    wrapped = all(name.startswith("module.") for name in found)  # DataParallel
    return {name.removeprefix("module.") if wrapped else name: tensor for name, tensor in found.items()}


def _mismatch(own: Mapping[str, torch.Tensor], given: Mapping[str, torch.Tensor], optional: set[str]) -> str:
    """What is wrong with the first of the tensors that do not fit; empty where all do."""
    if missing := sorted(set(own) - set(given) - optional):
        return f"{len(missing)} tensors of the network are not in it, such as {missing[0]}"
    if strange := sorted(set(given) - set(own)):
        return f"{len(strange)} of its tensors are not the network's, such as {printable(strange[0], 100)}"
    for name, tensor in given.items():
        if tensor.shape != own[name].shape:
            return f"{name} is {list(tensor.shape)}, and {list(own[name].shape)} in the network"
    return ""
