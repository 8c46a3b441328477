"""Networks in eight bits, calibrated on the images that they were pruned with, beside themselves in floats."""

from __future__ import annotations

import tempfile
from contextlib import ExitStack
from pathlib import Path
from typing import Any

from torch import nn
from ultralytics import YOLO

from seqprune.aside import hushed
from seqprune.engine.stopwatch import Stopwatch
from seqprune.errors import ModelError
from seqprune.runtimes.open import opened, size_of, threads_of
from seqprune.yolo.files.contained import contained, one_line
from seqprune.yolo.task.exporting import runnable
from seqprune.yolo.task.quantising import quantised
from seqprune.yolo.task.task import YoloTask

MOST = 128
"""Images to calibrate on, at most: a tool passes each through the network, with an eye on every tensor."""


def accuracy_of(file: Path, data: str, *, imgsz: int, device: str, task: str = "detect") -> dict[str, float]:
    """What plain Ultralytics measures of an exported network on ``val``, on squares.

    Raises:
        ModelError: it cannot be measured.
    """
    try:
        with tempfile.TemporaryDirectory(prefix="seqprune-val-") as folder, contained(), hushed():
            found = YOLO(str(file), task=task).val(
                data=data, imgsz=imgsz, batch=1, device=device, workers=0, plots=False, verbose=False, project=folder
            )
    except (RuntimeError, ValueError, TypeError, KeyError, OSError) as error:
        raise ModelError(f"{file} cannot be measured by Ultralytics ({one_line(error)})") from error
    return {"map50_95": float(found.box.map), "map50": float(found.box.map50)}


def eight_bits(model: nn.Module, task: YoloTask, watch: Stopwatch, folder: Path) -> dict[str, Any]:
    """The network in eight bits beside itself in floats, both exported: size, time in turns, accuracy on squares.

    Args:
        model: on the CPU.
        task: with the images to calibrate on, the first ``MOST`` of them, their size, and how accuracy is measured.
        watch: where.
        folder: where the file goes.

    Raises:
        ModelError: it cannot be exported, quantised or measured.
    """
    runtime, imgsz = watch.where.runtime, int(task.example(model).shape[-1])
    validation = task.validation or {}
    with tempfile.TemporaryDirectory(prefix="seqprune-int8-") as temporary, ExitStack() as stack:
        exported = runnable(model, runtime, Path(temporary), imgsz=imgsz)
        if not isinstance(exported, Path):
            raise ModelError(f"{runtime} has no tool for eight bits")
        small = quantised(exported, runtime, task.images, model, imgsz, folder, MOST)
        files = (exported, small)
        stack.enter_context(threads_of(watch.where))
        passes = [opened(file, watch.where, task.example(model)).run for file in files]
        spreads = watch.turns(passes, watch.where.clock)
        found = [
            {
                "file_bytes": size_of(file),
                "ms": ms.plain(),
                "accuracy": accuracy_of(file, str(validation["data"]), imgsz=imgsz, device="cpu"),
            }
            for file, ms in zip(files, spreads, strict=True)
        ]
    return {"runtime": runtime, "file": small.name, "float": found[0], "int8": found[1]}
