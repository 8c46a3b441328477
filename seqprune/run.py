"""Pruning in one call: what a caller says becomes settings, whoever knows the network its task, and the engine runs."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from functools import partial
from inspect import signature
from pathlib import Path
from typing import TYPE_CHECKING, Any

from torch import nn

from seqprune.engine.kinds import checked
from seqprune.engine.listener import Listener, heard, together
from seqprune.engine.measuring import Outcome
from seqprune.engine.options import Options, parameters, settings_of
from seqprune.engine.presets import ACTIVATION, UNASKED
from seqprune.engine.record import Record
from seqprune.engine.run import run
from seqprune.engine.settings import Choose, Look, Open, Train, check_together
from seqprune.engine.subject import Subject
from seqprune.engine.task import Task
from seqprune.errors import MeasurementError
from seqprune.graph.modes import uncompiled, untold
from seqprune.observe.device import as_device
from seqprune.observe.ranks import connect, own_device
from seqprune.report import summary
from seqprune.report.result import PruneResult, RunFolder
from seqprune.report.screen import Screen
from seqprune.sources.opening import check_there, is_ultralytics, opened

if TYPE_CHECKING:
    from typing_extensions import Unpack


def prune(
    model: str | Path | nn.Module | Any,
    data: Any = None,
    *,
    folder: str | Path | None = None,
    listener: Listener | None = None,
    progress: bool | None = None,
    **options: Unpack[Options],
) -> PruneResult:
    """Prunes a trained network front to back: one of Ultralytics', or any other ``torch.nn.Module``.

    Args:
        model: weights, an ``ultralytics.YOLO`` or its network, any module, or the name of what builds one, such as
            ``timm:resnet18``; never changed.
        data: for Ultralytics' networks a dataset YAML with ``train`` and ``val`` images, or, for classification, a
            folder with those two, in each a folder a class; labels are needed by preset ``activation``, criterion
            ``taylor``, fine-tuning and for accuracy. For any other a data loader, see
            :data:`seqprune.engine.batches.Loader`, a dictionary of loaders ``train`` and ``val``, or a folder of
            images; labels are needed by preset ``activation`` alone. May be left out where nothing is chosen or
            repaired by images (``fast``).
        folder: where findings are kept as they come, and results at the end. Where an earlier run of the same was
            killed there, this one goes on from what it found, to the same bits.
        listener: told what is going on.
        progress: whether steps and a bar are shown as on the command line; left out, before a prompt or in a notebook
            without a listener.
        options: what to look at, :class:`seqprune.engine.settings.Look`; what stays and is repaired,
            :class:`seqprune.engine.settings.Choose`; how the network is opened,
            :class:`seqprune.engine.settings.Open`; and, for Ultralytics' networks, ``finetune``, ``finetune_step``,
            ``distill`` and ``training``: ``epochs``, ``step_epochs``, ``distill`` and ``arguments`` of
            :class:`seqprune.engine.settings.Train`.

    Under ``torchrun`` the processes share the images and all of them return the same plan and model; only the first
    measures accuracy and speed, so the records of the others lack them.

    Raises:
        InputError: weights, data, names or numbers that cannot be used.
        VerificationError: compact and masked model differ; nothing is returned then.
        ChangedError: the ``val`` images were others after pruning than before.
        TrainingError, MeasurementError: what came after the pruning failed; their ``result`` holds what was pruned.
    """
    if progress or (progress is None and listener is None and summary.is_interactive()):
        with Screen() as screen:
            both = screen.listener if listener is None else together(screen.listener, heard(listener))
            return prune(model, data, folder=folder, listener=both, progress=False, **options)
    told, folder = heard(listener), checked("folder", folder, "str | Path")
    check_there(model)
    look, choose, train, how = settings_of(options)
    note = "" if options.get("preset") or choose.preset != ACTIVATION else UNASKED
    with uncompiled(), untold():
        return _prune(model, data, folder, told, note, look, choose, train, how)


vars(prune)["__signature__"] = signature(prune).replace(
    parameters=[*list(signature(prune).parameters.values())[:-1], *parameters()]
)


def _prune(
    model: Any,
    data: Any,
    folder: str | Path | None,
    told: Listener,
    note: str,
    look: Look,
    choose: Choose,
    train: Train,
    how: Open,
) -> PruneResult:
    ranks = connect()
    where = own_device(as_device(str(look.device)), ranks)
    home = RunFolder(None if folder is None else Path(folder), keeps=ranks.count == 1)
    check_together(look, choose, train, ranks.count, data is not None and data != "")
    if ranks.count > 1 and choose.by is None:
        choose = replace(choose, by=choose.way.by)
        if choose.way.by_time:
            told.warning("the size of the images stays as it is: smaller ones are tried in one process, not in several")
    subject, look = opened(model, data, look, choose, train, how, device=where, told=told, state=home.state)
    if subject.task.predict is None and choose.preset == ACTIVATION:
        choose = replace(choose, match="all")  # nobody says which objects are found
    tuner = _tuner(subject, data, look, train, choose.seed, told) if is_ultralytics(model) else None
    home.begin(look, choose, train)
    if tuner is not None:
        tuner.state = home.state
    if note:
        told.note(note)
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
        "imgsz": (subject.left and subject.left[1]) or look.imgsz,
        "batch": look.batch,
        "device": str(look.device),
        "seed": seed,
        **train.arguments,
    }
    return Tuner(data, arguments | {"teacher": subject.model if train.distill else None}, told.stage, told.epoch)


__all__ = ["PruneResult", "prune"]
