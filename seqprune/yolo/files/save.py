"""Checkpoints that Ultralytics opens without seqprune."""

from __future__ import annotations

import io
import pickle
import pickletools
import zipfile
from collections.abc import Mapping
from datetime import datetime, timezone
from pathlib import Path
from typing import IO, Any, cast

import torch
import ultralytics
from torch import nn
from ultralytics.utils import DEFAULT_CFG_DICT

from seqprune.atomic import atomic
from seqprune.errors import InputError, ModelError
from seqprune.graph.copying import copied
from seqprune.yolo.files.contained import one_line
from seqprune.yolo.files.networks import forget_inputs
from seqprune.yolo.files.pruned import remember

_UNPICKLED = (AttributeError, TypeError, pickle.PicklingError)


def save_pt(
    model: nn.Module,
    path: str | Path,
    *,
    names: Mapping[int, str],
    plan_json: str | None = None,
    train_args: Mapping[str, Any] | None = None,
    half: bool = True,
) -> Path:
    """Write a checkpoint that plain ``YOLO(path)`` loads, validates, predicts with and exports.

    It carries its plan, and is barred from being rebuilt at full width; see :mod:`seqprune.yolo.files.pruned`.

    The model is stored in half precision, as Ultralytics stores it; whoever loads it has it in float32 again, its
    weights rounded to eleven bits. Written to a temporary file beside ``path`` which then takes its place, so that an
    interrupted run leaves the old file or the new one and nothing in between.

    Args:
        model: An Ultralytics network; it is copied, not changed.
        path: Where to write, in an existing folder; ends in ``.pt``.
        names: Class id to name.
        plan_json: The pruning plan, kept as text in the model and under the key ``seqprune_plan``.
        train_args: Ultralytics' training arguments, such as ``imgsz``; unknown keys are left out.
        half: Whether in half precision; float32 to the bit otherwise, in a file of twice the size. A model with a
            number beyond the range of half precision is kept in float32.

    Returns:
        The path written.

    Raises:
        InputError: The file cannot be written there.
        ModelError: The model holds an object of seqprune's or one that cannot be pickled.
    """
    path = Path(path)
    if path.suffix != ".pt":
        raise InputError(f"{path}: Ultralytics only opens weights that end in .pt; use such a name")
    _replace(path, _checkpoint(model, names, plan_json, train_args, half))
    return path


def bytes_of(model: nn.Module, *, names: Mapping[int, str], plan_json: str | None = None) -> int:
    """Size of the file that :func:`save_pt` would write of a model.

    Raises:
        ModelError: The model cannot be pickled.
    """
    written = _Counted()
    try:
        torch.save(_checkpoint(model, names, plan_json, None, half=True), cast("IO[bytes]", written))
    except _UNPICKLED as error:
        raise ModelError(f"the model cannot be pickled ({one_line(error)}); remove hooks and closures") from error
    return written.end


class _Counted(io.RawIOBase):
    """A file of which only the size is kept."""

    def __init__(self) -> None:
        self.at = self.end = 0

    def write(self, data: Any) -> int:
        size = memoryview(data).nbytes
        self.at += size
        self.end = max(self.end, self.at)
        return size


def _checkpoint(
    model: nn.Module,
    names: Mapping[int, str],
    plan_json: str | None,
    train_args: Mapping[str, Any] | None,
    half: bool,
) -> dict[str, Any]:
    """What the file holds."""
    copy: Any = copied(model).float().cpu().eval()
    forget_inputs(copy)
    for parameter in copy.parameters():
        parameter.requires_grad = False  # as in Ultralytics' final checkpoints; its trainer switches it on
    arguments = {key: value for key, value in (train_args or {}).items() if key in DEFAULT_CFG_DICT}
    task = arguments["task"] = getattr(model, "task", "detect")
    copy.names = dict(names)
    copy.nc = len(names)
    copy.task = task
    copy.args = dict(arguments)
    if plan_json is not None:
        remember(copy, plan_json)
    if half and _fits_half(copy):
        copy.half()
    return {
        "epoch": -1,
        "best_fitness": None,
        "model": copy,
        "ema": None,
        "updates": None,
        "optimizer": None,
        "train_args": arguments,
        "date": datetime.now(timezone.utc).isoformat(),
        "version": ultralytics.__version__,
        "license": "AGPL-3.0 License (https://ultralytics.com/license)",
        "docs": "https://docs.ultralytics.com",
        "seqprune_plan": plan_json,
    }


def _fits_half(model: nn.Module) -> bool:
    """Whether no finite number of a model becomes infinite in half precision."""
    most = torch.finfo(torch.float16).max
    floats = (tensor for tensor in model.state_dict().values() if tensor.is_floating_point())
    return not any(bool((tensor.isfinite() & (tensor.abs() > most)).any()) for tensor in floats)


def _replace(path: Path, checkpoint: dict[str, Any]) -> None:
    """Write ``checkpoint`` beside ``path`` and put it in its place."""
    try:
        with atomic(path) as temporary:
            with temporary.open("wb") as file:
                torch.save(checkpoint, file)
            _check_foreign(temporary)
    except OSError as error:
        raise InputError(f"{path}: cannot be written ({one_line(error)}); check the folder") from error
    except _UNPICKLED as error:
        raise ModelError(f"the model cannot be pickled ({one_line(error)}); remove hooks and closures") from error


def _check_foreign(file: Path) -> None:
    """Raise ModelError where the pickle names something of seqprune's, which others do not have."""
    with zipfile.ZipFile(file) as archive:
        (name,) = (name for name in archive.namelist() if name.endswith("/data.pkl"))
        pickled = archive.read(name)
    for code, argument, _ in pickletools.genops(pickled):
        if code.name == "GLOBAL" and str(argument).partition(".")[0] == "seqprune":
            raise ModelError(f"the model holds {str(argument).replace(' ', '.')}: Ultralytics alone could not open it")
