"""Pruning in one call: what a caller says becomes settings, whoever knows the network its task, and the engine runs."""

from __future__ import annotations

import os
from collections.abc import Callable, Collection, Iterable, Mapping, Sequence
from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import Any

import torch
from torch import nn

from seqprune.engine.listener import Listener, together
from seqprune.engine.modules import Evaluate
from seqprune.engine.outputs import Outputs
from seqprune.engine.presets import BY
from seqprune.engine.record import Record
from seqprune.engine.run import Outcome, Subject, run
from seqprune.engine.settings import Choose, Look, Mode, Open, Train, check_together
from seqprune.engine.task import Task
from seqprune.errors import MeasurementError
from seqprune.observe.device import as_device
from seqprune.observe.inputs import Inputs
from seqprune.observe.ranks import Ranks, connect
from seqprune.observe.shelf import CACHE_BYTES
from seqprune.report import summary
from seqprune.report.result import PruneResult, RunFolder
from seqprune.report.screen import Screen
from seqprune.sources.opening import check_there, is_module, opened


def prune(
    model: str | Path | nn.Module | Any,
    data: Any = None,
    *,
    preset: str = "seed",
    layers: int | Sequence[str] | None = None,
    blocks: Iterable[int] | None = None,
    keep: str | float | None = None,
    represent: str | None = None,
    match: str | None = None,
    round_to: int | None = None,
    images: int | None = None,
    imgsz: int | None = None,
    batch: int = 16,
    device: str | int = "cpu",
    mode: Mode = "compact",
    target: str | None = None,
    recover: str | None = None,
    by: Sequence[str] = BY,
    protect: Sequence[str] = (),
    criterion: str | None = None,
    cache_bytes: int = CACHE_BYTES,
    cache_half: bool = False,
    amp: bool = False,
    finetune: int = 0,
    finetune_step: int = 0,
    distill: bool = False,
    training: Mapping[str, Any] | None = None,
    seed: int = 0,
    val: bool = True,
    runtime: str = "torch",
    threads: int | None = None,
    full: bool = False,
    front: bool | None = None,
    int8: bool = False,
    classes: Collection[str | int] | None = None,
    trust: bool = False,
    example_inputs: Inputs = None,
    evaluate: Evaluate | None = None,
    outputs: Outputs = "auto",
    fixed: Sequence[str] = (),
    folder: str | Path | None = None,
    listener: Listener | None = None,
    progress: bool | None = None,
) -> PruneResult:
    """Prunes a trained network front to back: one of Ultralytics', or any other ``torch.nn.Module``.

    Args:
        model: weights, an ``ultralytics.YOLO`` or its network, or any module; never changed.
        data: for Ultralytics' networks a dataset YAML with ``train`` and ``val`` images, or, for classification, a
            folder with those two, in each a folder a class; labels are needed by preset ``seed``, criterion ``taylor``,
            fine-tuning and for accuracy. For any other a data loader, see
            :data:`seqprune.engine.batches.Loader`, or a dictionary of loaders ``train`` and ``val``; labels are needed
            by preset ``seed`` alone. May be left out where nothing is chosen or repaired by images (``fast``).
        preset, layers, blocks, keep, represent, match, round_to, mode, target, recover, by, protect, criterion,
            seed: see
            :class:`seqprune.engine.settings.Choose`.
        images, imgsz, batch, device, cache_bytes, cache_half, amp, val, runtime, threads, full, front,
            int8: see :class:`seqprune.engine.settings.Look`.
        finetune, finetune_step, distill, training: the ``epochs``, ``step_epochs``, ``distill`` and ``arguments`` of
            :class:`seqprune.engine.settings.Train`; Ultralytics' networks only.
        classes: cut an Ultralytics network down to these of its classes, by name or number, before it is pruned;
            objects of others are left out.
        trust: load a ``.pt`` whatever it holds; it may run code.
        example_inputs: what a module takes, where there are no data.
        evaluate: measures a module's accuracy, by name; top-1 and top-5 on the labelled ``val`` data without it.
        outputs: what a module returns: ``logits``, ``values``, or ``auto``.
        fixed: module paths of a module that are not fitted anew.
        folder: where findings are kept as they come, and results at the end. Where an earlier run of the same was
            killed there, this one goes on from what it found, to the same bits.
        listener: told what is going on.
        progress: whether steps and a bar are shown as on the command line; left out, before a prompt or in a notebook
            without a listener.

    Under ``torchrun`` the processes share the images and all of them return the same plan and model; only the first
    measures accuracy and speed, so the records of the others lack them.

    Raises:
        InputError: weights, data, names or numbers that cannot be used.
        VerificationError: compact and masked model differ; nothing is returned then.
        ChangedError: the ``val`` images were others after pruning than before.
        TrainingError, MeasurementError: what came after the pruning failed; their ``result`` holds what was pruned.
    """
    given = dict(locals())
    if progress or (progress is None and listener is None and summary.is_interactive()):
        with Screen() as screen:
            heard = screen.listener if listener is None else together(screen.listener, listener)
            return prune(**given | {"listener": heard, "progress": False})
    check_there(model)
    look = Look(images, imgsz, batch, device, cache_bytes, cache_half, amp, val, runtime, threads, full, front, int8)
    choose = Choose(
        preset, layers, blocks, keep, represent, match if match or preset != "seed" or not is_module(model) else "all",
        round_to, target, recover, tuple(protect), criterion, tuple(by), mode, seed,
    )  # fmt: skip
    train = Train(finetune, finetune_step, distill, training or {})
    how = Open(trust, classes, example_inputs, evaluate, outputs, tuple(fixed))
    told, ranks = listener or Listener(), connect()
    where = own_device(as_device(str(device)), ranks)
    home = RunFolder(None if folder is None else Path(folder), keeps=ranks.count == 1)
    check_together(choose, train, ranks.count, data is not None and data != "")
    subject, look = opened(model, data, look, choose, train, how, device=where, told=told, state=home.state)
    tuner = None if is_module(model) else _tuner(subject, data, look, train, seed, told)
    home.begin(look, choose, train)
    if tuner is not None:
        tuner.state = home.state
    job = partial(run, subject, look, choose, train, device=where, ranks=ranks, told=told, state=home.state)
    if home.folder is not None:
        job = partial(job, folder=home.folder / "weights")
    return _run(job, subject.task, tuner, home)


def _run(job: Callable[..., Outcome], task: Task, tuner: Any, home: RunFolder) -> PruneResult:
    """
    Raises:
        ChangedError: the ``val`` images were others after pruning than before.
        TrainingError, MeasurementError: what was pruned before is in their ``result``, and in the run's folder.
    """

    def finished(out: Outcome, record: Record, whole: bool = True) -> PruneResult:
        return home.finish(PruneResult(out.model, out.plan, record, task), whole)

    try:
        out = job(on_pruned=partial(home.save_weights, task), **({} if tuner is None else {"tune": tuner}))
    except MeasurementError as error:
        if isinstance(error.result, Outcome):
            error.result = finished(error.result, error.result.record, whole=False)
        raise
    if tuner is None or tuner.failure is None:
        return finished(out, out.record)
    tuner.failure.result = finished(out, replace(out.record, finetune=0), whole=False)
    raise tuner.failure


def _tuner(subject: Subject, data: Any, look: Look, train: Train, seed: int, told: Listener) -> Any:
    """What trains an Ultralytics network."""
    from seqprune.yolo.train.tuning import Tuner

    arguments = {
        "imgsz": subject.sized[1] if subject.sized else look.imgsz,
        "batch": look.batch,
        "device": str(look.device),
        "seed": seed,
        **train.arguments,
    }
    return Tuner(data, arguments | {"teacher": subject.model if train.distill else None}, told.stage)


def own_device(device: torch.device, ranks: Ranks) -> torch.device:
    """The GPU that ``torchrun`` means for this process, where a GPU is asked for and there are several processes."""
    if ranks.count == 1 or device.type != "cuda":
        return device
    return torch.device("cuda", int(os.environ.get("LOCAL_RANK", "0")))


__all__ = ["PruneResult", "prune"]
