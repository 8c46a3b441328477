"""Any number of networks and exported files side by side, in every runtime: time in turns, and size."""

from __future__ import annotations

import json
import tempfile
from collections.abc import Sequence
from contextlib import ExitStack
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from torch import nn

from seqprune.budget.cost import parameters
from seqprune.engine.listener import Listener
from seqprune.errors import InputError, ModelError, SeqPruneError, UntrustedError
from seqprune.observe.inputs import Inputs
from seqprune.runtimes.export import exported
from seqprune.runtimes.open import READS, kind_of, opened, size_of, threads_of
from seqprune.runtimes.program import Free, Program
from seqprune.runtimes.turns import RUNS, WARM_UP, Spread, in_turns
from seqprune.runtimes.where import RUNTIMES, Where, installed
from seqprune.yolo.files.load import LoadedDetector, load
from seqprune.yolo.files.networks import NETWORKS
from seqprune.yolo.task.exporting import runnable
from seqprune.yolo.task.tracing import grey_image, image_channels, padded

RUNS_CODE = ("torchscript", "engine")
"""Kinds of exported files that may hold more than a network."""
Given = str | Path | nn.Module


@dataclass(frozen=True)
class Timed:
    """One network in one runtime.

    Attributes:
        model: its name.
        runtime: where it was run.
        ms: milliseconds of one pass; ``None`` where it does not run there.
        share: of the time of the first network there.
        file_bytes: of the file or folder that was run; of one that torch runs, the file that was given.
        params: parameters; ``None`` of an exported file.
        shape: of its first input.
        precision: in which it was computed.
        reason: why it does not run there.
    """

    model: str
    runtime: str
    ms: Spread | None = None
    share: float | None = None
    file_bytes: int | None = None
    params: int | None = None
    shape: tuple[int, ...] = ()
    precision: str = ""
    reason: str = ""

    def plain(self) -> dict[str, Any]:
        """As JSON holds it."""
        return vars(self) | {"ms": None if self.ms is None else self.ms.plain(), "shape": list(self.shape)}


@dataclass(frozen=True)
class Benched:
    """
    Attributes:
        settings: what was asked for.
        places: by runtime, its version, and the machine.
        rows: runtime by runtime, the networks in the order they were given.
    """

    settings: dict[str, Any]
    places: dict[str, dict[str, Any]]
    rows: tuple[Timed, ...]

    def to_json(self) -> str:
        rows = [row.plain() for row in self.rows]
        return json.dumps({"settings": self.settings, "places": self.places, "rows": rows}, indent=2) + "\n"

    def cells(self) -> tuple[list[str], list[list[str]]]:
        """Head and cells of the table."""
        head = ["model", "runtime", "ms", "quartiles", "of the first", "file, MB", "parameters", "input", "computed in"]
        return head, [
            [
                row.model + (f" ({row.reason})" if row.reason else ""),
                row.runtime,
                "–" if row.ms is None else f"{row.ms.median:.2f}",
                "–" if row.ms is None else f"{row.ms.low:.2f}–{row.ms.high:.2f}",
                "–" if row.share is None else f"{row.share:.3f}",
                "–" if row.file_bytes is None else f"{row.file_bytes / 1e6:.2f}",
                "–" if row.params is None else f"{row.params:,}",
                "×".join(map(str, row.shape)) or "–",
                row.precision or "–",
            ]
            for row in self.rows
        ]


@dataclass(frozen=True)
class _Entry:
    """A network as it was given: weights or a module, or an exported file of a kind."""

    name: str
    path: Path | None
    kind: str = ""
    detector: LoadedDetector | None = None
    module: nn.Module | None = None

    @property
    def network(self) -> nn.Module | None:
        return self.module if self.detector is None else self.detector.model

    def runs_in(self, runtime: str) -> bool:
        return not self.kind or self.kind in READS[runtime]


def bench(
    models: Sequence[Given],
    *,
    runtimes: Sequence[str] | None = None,
    imgsz: int | None = None,
    batch: int = 1,
    threads: int | None = None,
    device: str | int = "cpu",
    full: bool = False,
    runs: int = RUNS,
    example_inputs: Inputs = None,
    trust: bool = False,
    listener: Listener | None = None,
) -> Benched:
    """Times networks side by side, in turns, each exported for each runtime into a temporary folder.

    Args:
        models: weights (``.pt``, ``.safetensors``, a model YAML), exported files (``.onnx``, ``.torchscript``,
            ``.engine``, folders of OpenVINO and NCNN), or modules.
        runtimes: of ``torch``, ``onnxruntime``, ``openvino``, ``ncnn``, ``tensorrt``; all that are installed and run
            on the device where left out.
        imgsz: side of the images in pixels, where a file does not say it; each network's own, or 640, where left out.
        batch: images at a time.
        threads: of a processor, in every runtime; as many as torch uses where left out.
        device: ``cpu``, or the number of a GPU.
        full: whether OpenVINO has to compute in float32.
        runs: of each, that count.
        example_inputs: what modules take that are not Ultralytics'.
        trust: read weights whatever they hold, and files that may hold more than a network.
        listener: told what is going on.

    Raises:
        InputError: a model, a runtime or a number that cannot be used.
    """
    told = listener or Listener()
    if not models or batch < 1 or runs < 1 or (imgsz is not None and imgsz < 32):
        raise InputError(
            f"{len(models)} models, batch={batch}, runs={runs}, imgsz={imgsz}: give a model or more, at least one "
            "image and one run, and 32 pixels or more"
        )
    places = _places(runtimes, threads, str(device), full)
    entries = [_entry(model, trust, example_inputs) for model in models]
    rows: list[Timed] = []
    for where in places:
        told.stage(f"time in {where.runtime}", None)
        rows += _in_one(entries, where, imgsz, batch, runs, example_inputs)
    for entry in entries:
        if not any(row.model == entry.name for row in rows):
            told.warning(f"{entry.name} is timed nowhere: none of these runtimes opens {entry.kind}")
    settings = {"imgsz": imgsz, "batch": batch, "runs": runs, "warm_up": WARM_UP}
    return Benched(settings, {where.runtime: where.about() for where in places}, tuple(rows))


def _places(runtimes: Sequence[str] | None, threads: int | None, device: str, full: bool) -> list[Where]:
    """
    Raises:
        InputError: a runtime that was asked for is not installed, or does not run there.
    """
    if runtimes:
        return [Where(name, threads, device, full).settled() for name in dict.fromkeys(runtimes)]
    elsewhere = "tensorrt" if device == "cpu" else "ncnn"
    fitting = [name for name in installed() if name != elsewhere]
    return [Where(name, threads, device, full).settled() for name in fitting]


def _entry(model: Given, trust: bool, example_inputs: Inputs) -> _Entry:
    """
    Raises:
        InputError: it cannot be read.
    """
    if isinstance(model, nn.Module) and example_inputs is not None:
        return _Entry(type(model).__name__, None, module=model)
    path = None if isinstance(model, nn.Module) else Path(model)
    kind = "" if path is None else kind_of(path)
    if path is None or not kind:
        detector = load(model, tasks=NETWORKS, trust=trust, seed=0)
        return _Entry(str(model) if path else detector.source, path, detector=detector)
    if not path.exists():
        raise ModelError(f"{path}: no such file or folder; check the path")
    if kind in RUNS_CODE and not trust:
        raise UntrustedError(f"{path}: a file of this kind may run code: give --trust where you know who made it")
    return _Entry(str(path), path, kind)


def _in_one(
    entries: Sequence[_Entry], where: Where, imgsz: int | None, batch: int, runs: int, example_inputs: Inputs
) -> list[Timed]:
    """Rows of one runtime."""
    rows: list[Timed] = []
    programs: dict[int, Program] = {}
    with ExitStack() as stack:
        stack.enter_context(threads_of(where))
        for entry in entries:
            if not entry.runs_in(where.runtime):
                continue
            folder = Path(stack.enter_context(tempfile.TemporaryDirectory(prefix="seqprune-bench-")))
            count = None if entry.network is None else parameters(entry.network)
            row = Timed(entry.name, where.runtime, params=count)
            try:
                program, file = _program(entry, where, folder, imgsz, batch, example_inputs)
                programs[len(rows)] = program
                rows.append(
                    replace(
                        row,
                        file_bytes=size_of(file) if file and file.exists() else None,
                        shape=program.shapes[0],
                        precision=program.precision,
                    )
                )
            except SeqPruneError as error:
                rows.append(replace(row, reason=str(error)))
        spreads = in_turns([program.run for program in programs.values()], runs, clock=where.clock)
    timed = dict(zip(programs, spreads, strict=True))
    first = spreads[0].median if spreads else 0.0
    return [
        replace(row, ms=timed[at], share=timed[at].median / first) if at in timed else row
        for at, row in enumerate(rows)
    ]


def _program(
    entry: _Entry, where: Where, folder: Path, imgsz: int | None, batch: int, example_inputs: Inputs
) -> tuple[Program, Path | None]:
    """What is run, and the file or folder that it comes from."""
    if entry.kind and entry.path is not None:
        return opened(entry.path, where, Free(imgsz or 640, batch)), entry.path
    if entry.module is not None:
        file = None if where.runtime == "torch" else exported(entry.module, example_inputs, where.runtime, folder)
        return opened(file or entry.module, where, example_inputs), file
    assert entry.detector is not None  # noqa: S101 - one of the three
    model, side = entry.detector.model, padded(imgsz or entry.detector.imgsz, entry.detector.stride)
    made = runnable(model, where.runtime, folder, imgsz=side, batch=batch, device=where.device)
    if isinstance(made, Path):
        return opened(made, where, Free(side, batch)), made
    image = grey_image(model, side).expand(batch, image_channels(model), side, side)
    return opened(made, where, image), entry.path


__all__ = ["RUNTIMES", "Benched", "Timed", "bench"]
