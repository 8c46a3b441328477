"""Training a pruned network to files: checkpoints, curves and the plan in a folder, from which it can be resumed."""

from __future__ import annotations

import shutil
from collections.abc import Callable, Collection, Mapping
from contextlib import ExitStack
from dataclasses import replace
from pathlib import Path
from typing import Any

from torch import nn

from seqprune.engine.record import Trained
from seqprune.errors import InputError, TrainingError
from seqprune.plain import printable
from seqprune.yolo.data.classes import ITEM
from seqprune.yolo.data.folders import describe
from seqprune.yolo.files.contained import contained, one_line
from seqprune.yolo.files.guard import guarded
from seqprune.yolo.files.heads import knows_some, only_classes, shapes_with
from seqprune.yolo.files.load import LoadedDetector, load
from seqprune.yolo.files.networks import NETWORKS
from seqprune.yolo.files.pruned import is_masked, remember, trainer_of
from seqprune.yolo.files.unpickle import UNREADABLE, read
from seqprune.yolo.train import trainer as trainers
from seqprune.yolo.train.epochs import OnEpoch, losses_of
from seqprune.yolo.train.teacher import load_teacher
from seqprune.yolo.train.tuning import FAILED, check_names

_REFUSED = (SyntaxError, TypeError, ValueError, KeyError, RuntimeError, OSError)


def train(
    model: str | Path,
    data: str | Path,
    folder: Path,
    *,
    epochs: int,
    arguments: Mapping[str, Any] | None = None,
    on_epoch: OnEpoch | None = None,
    trust: bool = False,
    classes: Collection[str | int] | None = None,
    warn: Callable[[str], None] = lambda _text: None,
) -> Trained:
    """Train a network, for any task, in the shape it has, as Ultralytics trains.

    Args:
        model: A ``.pt``; a masked one stays masked.
        data: A data YAML, or, for classification, a folder of images.
        folder: Where the run goes; made here.
        epochs: Passes over the images.
        arguments: Training arguments of Ultralytics': ``imgsz``, ``batch``, ``device``, ``patience``, ``lr0`` …;
            ``distill_model`` is the file of a teacher, the network before it was pruned.
        on_epoch: See :data:`seqprune.yolo.train.epochs.OnEpoch`.
        trust: Load ``model`` and the teacher whatever they hold.
        classes: Cut the network down to these of its classes, by name or number, before it is trained.
        warn: Told what may not be meant.

    Raises:
        InputError: The model, the teacher, the data or an argument cannot be used.
        TrainingError: Training failed, or did not keep the shape or the mask.
    """
    given = dict(arguments or {})
    source = given.pop("distill_model", None)
    check_names(given)
    if epochs < 1:
        raise InputError(f"epochs={epochs} must be at least 1")
    _check_sizes(given)
    loaded = load(model, tasks=NETWORKS, trust=trust)
    if loaded.plan is not None:
        is_masked(loaded.model, loaded.plan)  # refuses what is not in the plan's shape
    else:
        warn(f"{model} was not pruned: it is trained as it is, in the shape it has")
    teacher = None
    if source is not None:
        teacher = load_teacher(source, loaded.model, trust=trust)
        given["distill_model"] = str(Path(source).absolute() if Path(source).exists() else source)  # for resuming
    described, description = describe(data, loaded.task)
    if classes is not None:
        loaded = replace(loaded, model=only_classes(loaded.model, classes))
    else:
        _warn_of_others(loaded, str(data), len(description["names"]), warn)
    overrides = {"plots": False, "verbose": False, "imgsz": loaded.imgsz} | given
    overrides |= _places(loaded, model, described, epochs, folder)
    fresh = not folder.exists()
    try:
        return _run(loaded, overrides, on_epoch, trust, teacher)
    except InputError:
        if fresh and not any(folder.glob("weights/*.pt")):
            shutil.rmtree(folder, ignore_errors=True)  # Ultralytics made it before it looked at the input
        raise


def _warn_of_others(loaded: LoadedDetector, data: str, classes: int, warn: Callable[[str], None]) -> None:
    """Says what becomes of a head where the data have another number of classes."""
    if not knows_some(loaded.model) and loaded.names != ITEM and classes != len(loaded.names):
        warn(
            f"{data} has {classes} classes, the model {len(loaded.names)}: the last layers of its head are made anew, "
            "classes that it knows by name keep theirs"
        )


def _places(loaded: LoadedDetector, model: str | Path, described: str, epochs: int, folder: Path) -> dict[str, Any]:
    """The arguments of Ultralytics' that are not the caller's to give."""
    found = {
        "task": loaded.task,
        "mode": "train",
        "model": str(model),
        "data": described,
        "epochs": epochs,
        "project": str(folder.parent.absolute()),
        "name": folder.name,
    }
    # As the network was trained: all classes are one.
    return found | ({"single_cls": True} if loaded.names == ITEM else {})


def resume(
    last: str | Path,
    data: str | Path | None,
    *,
    arguments: Mapping[str, Any] | None = None,
    on_epoch: OnEpoch | None = None,
    trust: bool = False,
) -> Trained:
    """Go on with an interrupted run, in the folder that its checkpoint lies in.

    From the checkpoint come the network, the optimizer's state and numbers; no path in it is followed.

    Args:
        last: The run's ``weights/last.pt``.
        data: The run's data, as for :func:`train`; ``None`` is an error that names what the checkpoint says.
        arguments: What Ultralytics lets change then: ``imgsz``, ``batch``, ``device``, ``patience``, and a few more;
            ``distill_model`` is the file of the run's teacher, where it had one.
        on_epoch: As for :func:`train`.
        trust: As for :func:`train`.

    Raises:
        UntrustedError: ``last``, or the ``best.pt`` beside it, holds what may run code.
        InputError: ``last`` is no checkpoint of an interrupted run, its data or its teacher is missing or cannot be
            used, or an argument cannot be changed any more.
        TrainingError: As for :func:`train`.
    """
    loaded = load(last, tasks=NETWORKS, trust=trust)
    checkpoint = loaded.checkpoint or {}
    if checkpoint.get("epoch", -1) < 0:
        raise InputError(f"{last}: no run to resume, it was finished or never begun; leave out --resume")
    _check_sizes(arguments or {})
    folder = trainers.run_of(last)
    for file in (folder, folder / "weights", *folder.iterdir(), *(folder / "weights").iterdir()):
        if file.is_symlink():
            raise InputError(
                f"{file}: is a link, and what it leads to would be written over; put the file itself there"
            )
    best = folder / "weights" / "best.pt"
    if not trust and best.exists():
        read(best)  # Ultralytics opens it at the end: what cannot be read then is refused before an hour's work
    overrides = dict(arguments or {}) | {"task": loaded.task, "mode": "train", "model": str(last), "resume": str(last)}
    if data is None:
        named = printable((read(last).get("train_args") or {}).get("data"), 200)
        raise InputError(
            f"{last}: names its data ({named}), and no path that a checkpoint names is followed: give the run's --data"
        )
    overrides["data"] = describe(data, loaded.task)[0]
    source = overrides.get("distill_model")
    if source is None and "train/dis_loss" in (checkpoint.get("train_results") or {}):
        raise InputError(f"{last}: its run learned from a teacher, which is not given; name its file with --distill")
    teacher = None if source is None else load_teacher(source, loaded.model, trust=trust)
    return _run(loaded, overrides, on_epoch, trust, teacher)


def _run(
    loaded: LoadedDetector,
    overrides: dict[str, Any],
    on_epoch: OnEpoch | None,
    trust: bool,
    teacher: nn.Module | None,
) -> Trained:
    """Train, and compare what came out with what went in."""
    with ExitStack() as stack:
        stack.enter_context(contained())
        stack.enter_context(guarded(trust))
        try:
            trainer = getattr(trainers, trainer_of(loaded.model))(overrides=overrides)
        except _REFUSED as error:
            raise InputError(f"training arguments or data: {one_line(error)}") from error
        trainer.teacher = teacher
        if trainer.resume:
            _check_taken(trainer.args, overrides)
        else:
            trainer.model = trainer.get_model(weights=_carrying(loaded))
        failures = (*FAILED, *UNREADABLE) if trainer.resume else FAILED  # what is resumed, a file says
        shapes = shapes_with(loaded.model, len(trainer.data["names"]))
        if on_epoch is not None and not trainer.ddp:  # what follows into other processes must be plain
            trainer.add_callback("on_train_epoch_end", lambda it: on_epoch(it.epoch + 1, it.epochs, losses_of(it)))
        try:
            trainer.train()
        except failures as error:
            raise TrainingError(f"training failed: {one_line(error)}") from error
    best = trainer.best if trainer.best.exists() else trainer.last
    if not best.exists():
        raise TrainingError(f"training left no checkpoint in {trainer.wdir}; look for an error of its processes")
    result = load(best, tasks=NETWORKS, trust=trust)
    trainers.check_trained(result.model, shapes, loaded.plan, None)
    if loaded.plan is not None:
        loaded.plan.save(trainer.save_dir / "plan.json")
    metrics = trainer.metrics or (result.checkpoint or {}).get("train_metrics") or {}
    plain = {str(name): float(value) for name, value in metrics.items() if not str(name).startswith("val/")}
    return Trained(Path(trainer.save_dir), Path(best), loaded.plan, plain)


def _check_sizes(given: Mapping[str, Any]) -> None:
    """Raise InputError for sizes that Ultralytics would replace without a word; its batch=-1 is one that it means."""
    if given.get("batch", 16) == 0:
        raise InputError("batch=0 must be at least 1, or -1 for as many as the GPU holds")
    imgsz = given.get("imgsz", 640)
    if isinstance(imgsz, int) and imgsz < 32:
        raise InputError(f"imgsz={imgsz} must be at least 32, the largest stride")


def _check_taken(taken: Any, given: Mapping[str, Any]) -> None:
    """Raise InputError for what Ultralytics does not let change in a run that was begun: it goes on without."""
    handed_over = ("task", "mode", "model", "resume", "device")
    ignored = [name for name in given if name not in handed_over and getattr(taken, name, None) != given[name]]
    if ignored:
        raise InputError(
            f"{ignored[0]}={given[ignored[0]]} cannot be changed in a run that was begun: leave it out, or begin anew"
        )


def _carrying(loaded: LoadedDetector) -> nn.Module:
    """The network with its plan on it again."""
    if loaded.plan is not None:
        remember(loaded.model, loaded.plan.to_json())
    return loaded.model
