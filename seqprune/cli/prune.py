"""``seqprune prune``: arguments in, a folder of results out."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

from seqprune.cli import opening, options
from seqprune.cli.console import conclude, emit, is_follower, screen_for
from seqprune.cli.resuming import absolute, alone, asked_of, new_run, resumable
from seqprune.errors import InputError, MeasurementError, TrainingError

ASKED: dict[str, Any] = {
    **{"model": str, "data": str, "preset": str, "target": str, "criterion": str, "recover": str, "represent": str},
    **{"match": str, "mode": str, "device": str, "protect": list, "by": list, "layers": (int, list), "blocks": list},
    **{"keep": (str, float, int), "round_to": int, "images": int, "imgsz": int, "batch": int, "cache_bytes": int},
    **{"cache_half": bool, "amp": bool, "finetune": int, "finetune_step": int, "distill": bool, "seed": int},
    **{"val": bool, "val_steps": bool, "front": bool, "int8": bool},
    **{"classes": list, "runtime": str, "threads": int, "full": bool},
    **opening.OPENED,
}


def prune(
    model: opening.Model = None,
    data: options.Data = None,
    preset: options.Preset = None,
    target: options.Target = None,
    criterion: options.Criterion = None,
    recover: options.Recover = None,
    by: options.Moves = None,
    protect: options.Protect = None,
    layers: options.Layers = None,
    blocks: options.Blocks = None,
    layer: options.OneLayer = None,
    keep: options.Keep = None,
    represent: options.Represent = None,
    match: options.Match = None,
    round_to: options.RoundTo = None,
    images: options.Images = None,
    imgsz: options.Size = None,
    batch: options.BatchSize = 16,
    device: options.Device = "cpu",
    mode: options.Mode = "compact",
    cache_bytes: options.CacheBytes = 4 << 30,
    cache_half: options.CacheHalf = False,
    amp: options.Amp = False,
    finetune: options.Finetune = 0,
    finetune_step: options.FinetuneStep = 0,
    distill: options.Distill = False,
    seed: options.Seed = 0,
    runtime: options.Runtime = "torch",
    threads: options.Threads = None,
    precision: options.Precision = "auto",
    front: options.Front = None,
    int8: options.Int8 = False,
    no_val: options.NoVal = False,
    val_steps: options.ValSteps = False,
    classes: options.Classes = None,
    project: options.Project = Path("runs/prune"),
    name: options.Name = None,
    resume: options.Resume = None,
    weights: opening.Weights = None,
    mean: opening.Mean = None,
    std: opening.Std = None,
    trust: opening.Trust = False,
) -> None:
    """Prune a trained network front to back, prove the result, and measure it."""
    given = dict(locals())
    if layer and (layers is not None or blocks is not None):
        raise InputError("--layer names the layers outright: leave out --layers and --blocks, or --layer")
    if resume is not None:
        alone(model, data)
        _run(asked_of(resume, ASKED, "prune"), resume, trust)
        return
    if model is None:
        raise InputError("MODEL is missing: give weights (.pt), or --resume RUN; see `seqprune prune --help`")
    _begin(_asked(given), project, name, trust)


def _begin(asked: dict[str, Any], project: Path, name: str | None, trust: bool) -> None:
    """In a new folder, which the first of several processes has."""
    if is_follower():
        _run(asked, None, trust)
        return
    from seqprune.report.folder import free_folder

    with new_run(free_folder(project, name, opening.stem_of(asked["model"])), absolute(asked)) as folder:
        _run(asked, folder, trust)


def _asked(given: Mapping[str, Any]) -> dict[str, Any]:
    """What was typed as ``seqprune.prune`` takes it, and a run's folder holds it: what ``ASKED`` names.

    Raises:
        InputError: something that is no number, or no blocks.
    """
    from seqprune.select.layers import parse_blocks

    read = {
        "by": None if given["by"] is None else [move.strip() for move in given["by"].split(",")],
        "protect": given["protect"] or [],
        "layers": given["layer"] or given["layers"],
        "blocks": None if given["blocks"] is None else list(parse_blocks(given["blocks"])),
        "keep": ratio(given["keep"]),
        "val": not given["no_val"],
        "full": options.is_full(given["precision"]),
        "classes": None if given["classes"] is None else given["classes"].split(","),
        **opening.opening(given["weights"], given["mean"], given["std"]),
    }
    return {name: read.get(name, given.get(name)) for name in ASKED}


def _run(asked: dict[str, Any], folder: Path | None, trust: bool) -> None:
    """
    Raises:
        TrainingError, MeasurementError: what was done is saved and said; the work as a whole failed.
    """
    from seqprune import run
    from seqprune.report.result import PruneResult, files_of

    failure: TrainingError | MeasurementError | None = None
    with screen_for(folder is None) as screen, resumable("prune", folder):
        try:
            result = run.prune(**asked, folder=folder, trust=trust, listener=screen.listener)
        except (TrainingError, MeasurementError) as error:
            if not isinstance(error.result, PruneResult):
                raise
            result, failure = error.result, error
        if folder is not None:
            conclude(screen.console, result)
            screen.console.print(f"results in {folder}: {', '.join(files_of(result.task))}", markup=False)
            emit({"folder": str(folder)} | result.record.plain())
        if failure is not None:
            raise failure


def ratio(keep: str | None) -> str | float | None:
    """A share as a number; a word stays: the engine knows which there are."""
    try:
        return keep if keep is None else float(keep)
    except ValueError:
        return keep
