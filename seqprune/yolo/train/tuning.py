"""Fine-tuning in memory: a model in, a trained copy out, and no files."""

from __future__ import annotations

import pickle
import subprocess
import tempfile
from collections.abc import Callable, Mapping
from copy import deepcopy
from pathlib import Path
from typing import Any

import torch
from torch import nn
from ultralytics.utils import DEFAULT_CFG_DICT

from seqprune.engine.run import fingerprint
from seqprune.engine.state import State
from seqprune.errors import DataError, InputError, TrainingError
from seqprune.graph.copying import copied
from seqprune.observe.device import as_device
from seqprune.plan import PrunePlan
from seqprune.yolo.data.classes import ITEM, fitted
from seqprune.yolo.data.folders import describe
from seqprune.yolo.files.contained import contained, one_line
from seqprune.yolo.files.heads import shapes_with
from seqprune.yolo.files.networks import forget_inputs, names_of, released
from seqprune.yolo.files.pruned import forget, remember, trainer_of
from seqprune.yolo.train import trainer as trainers
from seqprune.yolo.train.epochs import Epochs, KeepsEpochs, OnEpoch
from seqprune.yolo.train.teacher import check_student
from seqprune.yolo.train.trainer import check_trained

FAILED = (RuntimeError, ValueError, AssertionError, OSError, subprocess.CalledProcessError, pickle.PicklingError)
"""What training fails with."""
_OURS = ("model", "data", "task", "mode", "resume", "pretrained", "project", "name", "exist_ok", "save_dir")


class _Quiet(KeepsEpochs):
    """Mixed into one of our trainers: no checkpoints, no curves, no validation, nobody called back."""

    described: Mapping[str, Any]

    def get_dataset(self) -> dict[str, Any]:
        return dict(self.described)

    def validate(self) -> tuple[dict[str, float], None]:
        return {}, None

    def save_model(self) -> bool:
        return False

    def save_metrics(self, metrics: dict[str, float]) -> None:
        """No table is kept."""

    def final_eval(self) -> None:
        """Nothing was saved that could be evaluated."""


def _quiet(model: nn.Module, described: Mapping[str, Any]) -> type[_Quiet]:
    """The trainer of a network, quietened, on data that was described."""
    return type("QuietTrainer", (_Quiet, getattr(trainers, trainer_of(model))), {"described": described})


def finetune(
    model: nn.Module,
    data: str | Path,
    *,
    epochs: int,
    imgsz: int = 640,
    batch: int = 16,
    device: str | torch.device = "cpu",
    seed: int = 0,
    lr0: float | None = None,
    plan: PrunePlan | None = None,
    teacher: nn.Module | None = None,
    state: State | None = None,
    on_epoch: OnEpoch | None = None,
    **overrides: Any,
) -> nn.Module:
    """Fine-tune a network in the shape it has, with Ultralytics' losses, augmentation and schedule.

    Runs in a temporary folder that is removed; no plots, no checkpoints, no mixed precision, no loader
    processes, unless ``overrides`` say otherwise. The caller's random state is put back.

    Args:
        model: The network; it is copied, not changed.
        data: Path of a data YAML, a name that Ultralytics knows, or, for classification, a folder; trains on its
            ``train`` split.
        epochs: Passes over the images.
        imgsz: Side of the training images in pixels.
        batch: Images per step.
        device: One device.
        seed: Seed of augmentation and order.
        lr0: Initial learning rate, of AdamW unless ``overrides`` name an optimizer; None lets Ultralytics
            choose both.
        plan: What was pruned: its shape is checked, and where the model is masked it stays so.
        teacher: The network that ``model`` was before it was pruned, to learn from beside the labels; copied.
        state: Every epoch but the last is kept there, and where one of the same training is, it goes on from it; see
            :mod:`seqprune.yolo.train.epochs`.
        on_epoch: See :data:`seqprune.yolo.train.epochs.OnEpoch`.
        **overrides: Further training arguments of Ultralytics'.

    Returns:
        The averaged (EMA) weights after the last step, never rounded to half precision: float32, on the CPU,
        in eval mode, ``requires_grad`` as in ``model``, named by the data.

    Raises:
        InputError: An argument is impossible, or the data or the model cannot be used.
        TrainingError: Training failed, diverged, or changed the shape or woke a masked channel.
    """
    task = str(getattr(model, "task", "detect"))
    arguments = _arguments(epochs, imgsz, batch, device, seed, lr0, overrides) | {"task": task}
    if teacher is not None:
        check_student(model)
        arguments["distill_model"] = "teacher.pt"  # a name only: the teacher is handed over
    described, description = _described(model, data, task)
    how = (epochs, imgsz, batch, seed, lr0, sorted(overrides.items()), teacher is not None)
    kept = Epochs(state, f"{fingerprint(model)} {how}") if state is not None and state.folder is not None else None
    return _trained(model, description, arguments | {"data": described}, plan, teacher, kept, on_epoch)


def _described(model: nn.Module, data: str | Path, task: str) -> tuple[str, dict[str, Any]]:
    """What Ultralytics is given as the data, and its own description of them."""
    described, description = describe(data, task, needs=("train",))
    if task != "classify" and names_of(model) == ITEM:
        description = fitted(description, ITEM, str(data))
    description["val"] = description["val"] or description["train"]  # Ultralytics opens both; nothing is measured
    return described, description


def _trained(
    model: nn.Module,
    description: Mapping[str, Any],
    arguments: dict[str, Any],
    plan: PrunePlan | None,
    teacher: nn.Module | None,
    kept: Epochs | None,
    on_epoch: OnEpoch | None,
) -> nn.Module:
    """
    Raises:
        InputError, TrainingError: see :func:`finetune`.
    """
    with tempfile.TemporaryDirectory(prefix="seqprune-") as folder, contained():
        trainer = _prepared(model, description, arguments | {"project": folder, "name": "run"}, plan, teacher)
        trainer.epochs_kept, trainer.on_epoch = kept, on_epoch
        shapes = shapes_with(model, len(trainer.data["names"]))
        try:
            trainer.train()
        except FAILED as error:
            raise TrainingError(f"training failed: {one_line(error)}") from error
        result: Any = released(trainer.ema.ema).float().cpu().to(memory_format=torch.contiguous_format).eval()
    return _checked(result, model, shapes, trainer)


def _prepared(
    model: nn.Module,
    description: Mapping[str, Any],
    arguments: dict[str, Any],
    plan: PrunePlan | None,
    teacher: nn.Module | None,
) -> Any:
    """The trainer with the network, what it was pruned by, and its teacher.

    Raises:
        InputError: an argument that Ultralytics refuses.
    """
    try:
        trainer: Any = _quiet(model, description)(overrides=arguments)
    except (SyntaxError, TypeError, ValueError) as error:
        raise InputError(f"training arguments: {one_line(error)}") from error
    trainer.teacher = None if teacher is None else copied(teacher).float()
    trainer.model = trainer.get_model(weights=model)
    if plan is not None:
        remember(trainer.model, plan.to_json())
    return trainer


def _checked(result: Any, model: nn.Module, shapes: Any, trainer: Any) -> nn.Module:
    """What was trained, as ``model`` was given.

    Raises:
        TrainingError: it diverged, or has another shape, or a masked channel woke.
    """
    forget_inputs(result)
    forget(result)
    result.args = deepcopy(getattr(model, "args", {}))
    if broken := [name for name, tensor in result.state_dict().items() if not tensor.isfinite().all()]:
        raise TrainingError(f"training diverged: {broken[0]} is not finite; use a smaller lr0")
    check_trained(result, shapes, trainer.plan, trainer.mask)
    wanted = {name: parameter.requires_grad for name, parameter in model.named_parameters()}
    for name, parameter in result.named_parameters():
        parameter.requires_grad = wanted[name]  # other classes have other rows, not other names
    trained: nn.Module = result
    return trained


class Tuner:
    """Fine-tuning between the steps of a run and at its end.

    Args:
        data: As for :func:`finetune`.
        arguments: Of :func:`finetune`, ``teacher`` among them, but for ``epochs`` and ``plan``.
        stage: Told what is going on.
        on_epoch: See :data:`seqprune.yolo.train.epochs.OnEpoch`.

    Attributes:
        failure: Why it failed; the run goes on without any more of it then.
        state: Where epochs are kept.
    """

    def __init__(
        self,
        data: str | Path,
        arguments: dict[str, Any],
        stage: Callable[[str, int | None], None],
        on_epoch: OnEpoch | None = None,
    ) -> None:
        self.data, self.arguments, self.stage, self.on_epoch = data, arguments, stage, on_epoch
        self.failure: TrainingError | None = None
        self.state = State()

    def __call__(self, model: nn.Module, plan: PrunePlan, epochs: int) -> nn.Module:
        """The model, trained on its own device; as it was where there are no epochs or training failed."""
        if not epochs or self.failure is not None:
            return model
        self.stage(f"fine-tune {epochs} epochs", None)
        try:
            told: dict[str, Any] = {"state": self.state, "on_epoch": self.on_epoch}
            trained = finetune(model, self.data, plan=plan, epochs=epochs, **told, **self.arguments)
        except TrainingError as error:
            self.failure = error
            return model
        except DataError as error:  # what was pruned stays, whatever became of the images
            self.failure = TrainingError(str(error))
            return model
        return trained.to(next(model.parameters()).device)


def _arguments(
    epochs: int,
    imgsz: int,
    batch: int,
    device: str | torch.device,
    seed: int,
    lr0: float | None,
    overrides: dict[str, Any],
) -> dict[str, Any]:
    """Ultralytics' training arguments."""
    for name, value in (("epochs", epochs), ("imgsz", imgsz), ("batch", batch)):
        if value < 1:
            raise InputError(f"{name}={value} must be at least 1")
    check_names(overrides)
    arguments: dict[str, Any] = {
        "mode": "train",
        "model": "model.pt",  # a name only: the model is handed over
        "epochs": epochs,
        "imgsz": imgsz,
        "batch": batch,
        "device": as_device(device),
        "seed": seed,
        "exist_ok": True,
        "plots": False,
        "save": False,
        "val": False,
        "verbose": False,
        "workers": 0,
        "amp": False,  # with it, Ultralytics downloads a model to try mixed precision on
    }
    if lr0 is not None:  # optimizer=auto ignores the learning rate
        arguments |= {"optimizer": "AdamW", "momentum": 0.9, "warmup_bias_lr": 0.0, "lr0": lr0}
    return arguments | overrides


def check_names(overrides: Mapping[str, Any]) -> None:
    """Raise InputError for a training argument that is not the caller's to give, or that does not exist."""
    for name in overrides:
        if name in _OURS:
            raise InputError(f"{name} is not a choice when fine-tuning: it is given by the model and the data")
        if name not in DEFAULT_CFG_DICT:
            raise InputError(f"{name} is no training argument of this version of Ultralytics; check its spelling")
