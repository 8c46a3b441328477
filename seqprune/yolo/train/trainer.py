"""Ultralytics' trainers, made to keep the shape, and the mask, of the network they are given.

Each is Ultralytics' own in everything else: EMA, mixed precision, several GPUs, early stopping, validation, and
resuming from ``last.pt``. The processes of a multi-GPU run import the trainer by its name and are handed the network,
which carries its plan (:mod:`seqprune.yolo.files.pruned`); nothing else has to follow them.
"""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import torch
from torch import nn
from ultralytics.cfg import get_cfg
from ultralytics.engine.trainer import BaseTrainer
from ultralytics.models.rtdetr import train as rtdetr
from ultralytics.models.yolo import classify, detect, obb, pose, segment
from ultralytics.nn import tasks
from ultralytics.utils import RANK
from ultralytics.utils.torch_utils import strip_optimizer, unwrap_model

from seqprune.errors import DataError, InputError, ModelError, TrainingError
from seqprune.graph.copying import copied
from seqprune.plan import PrunePlan
from seqprune.surgery import graph_for, masker
from seqprune.yolo.data.classes import fitted
from seqprune.yolo.data.dataset import ReadOnlyDataset, ReadOnlyStretched, build
from seqprune.yolo.data.folders import ReadOnlyFolder, describe, fitting_names
from seqprune.yolo.files.guard import guarded
from seqprune.yolo.files.heads import knows_some, with_classes
from seqprune.yolo.files.networks import forget_inputs, is_fixed, is_fused, names_of, released, student_of
from seqprune.yolo.files.pruned import is_masked, plan_of
from seqprune.yolo.files.settings import plain_settings
from seqprune.yolo.train.teacher import handed_over, load_teacher

Shapes = dict[str, torch.Size]
_PATHS = ("data", "distill_model")
_MAY_CHANGE = (
    *("imgsz", "batch", "device", "close_mosaic", "augmentations", "save_period", "workers", "cache", "patience"),
    *("time", "freeze", "val", "plots", "channels_last"),
)
"""In a run that goes on, as in Ultralytics' own."""


class KeepsShape(BaseTrainer):  # type: ignore[misc]
    """Mixed into a trainer of Ultralytics': trains the network it is given, not the one its YAML describes.

    ``YOLO("pruned.pt").train(trainer=seqprune.yolo.DetectionTrainer, data=...)`` keeps the pruned shape through
    training, EMA, resuming and the final checkpoints. Where the network carries a plan whose channels are masked, they
    are zeroed in the model and in its EMA before the first step and after every optimizer step. With ``distill_model``
    the network learns from a teacher beside; the final checkpoints hold the network alone.

    Raises:
        TrainingError: training changed a shape or woke a masked channel.
    """

    args: Any
    plan: PrunePlan | None = None
    mask: Callable[[nn.Module], None] | None = None
    shapes: Shapes
    data: Any
    teacher: nn.Module | None = None
    """Who teaches; read from ``distill_model`` where it is not given."""

    def __init__(self, *args: Any, **kwargs: Any) -> None:
        with guarded():
            super().__init__(*args, **kwargs)

    def train(self) -> Any:
        """Train as Ultralytics does; what it reads meanwhile, it reads as data."""
        with guarded():
            return super().train()

    def check_resume(self, overrides: Any) -> None:
        """Take a run's numbers from its checkpoint, and every path from where that lies and from the caller.

        Raises:
            InputError: the data is not given, or the checkpoint lies in no run's folder.
        """
        self.resume = bool(self.args.resume)
        if not self.resume:
            return
        last, given = str(self.args.resume), {name: value for name, value in vars(self.args).items() if name in _PATHS}
        if not given["data"]:
            raise InputError(f"{last}: its data is not given; from a checkpoint come numbers, no paths")
        if not Path(last).is_file():
            raise InputError(f"{last}: is no file; give RUN/weights/last.pt of the run that goes on")
        folder = run_of(last)
        numbers = tasks.torch_safe_load(last)[0].get("train_args") or {}
        self.args = get_cfg(overrides=plain_settings(numbers))
        where = {"save_dir": str(folder), "project": str(folder.parent), "name": folder.name}
        where |= {"model": last, "resume": last}
        changed = {name: overrides[name] for name in _MAY_CHANGE if name in overrides}
        for name, value in (changed | given | where).items():
            setattr(self.args, name, value)

    def get_dataset(self) -> dict[str, Any]:
        """The data as our own reader describes it: no script in it is run."""
        self.args.data, found = describe(self.args.data, self.args.task)
        return found | {"names": {0: "item"}, "nc": 1} if self.args.single_cls else found

    def get_model(self, cfg: Any = None, weights: nn.Module | None = None, verbose: bool = True) -> nn.Module:
        """A trainable copy of ``weights`` in its own shape; without weights, the network of ``cfg``.

        Where the data has another number of classes, the last layers of the head are made anew for them; a network
        that was cut down to some of its classes keeps those, and objects of the others are left out.

        Raises:
            ModelError: The weights were fused, or cannot be given the classes of the data.
            InputError: ``pretrained`` asks for other weights than the model's, or the teacher cannot be used.
        """
        pretrained = self.args.pretrained
        discards = pretrained is False and str(self.args.model).endswith(".pt")
        if not self.resume and (discards or isinstance(pretrained, str | Path)):
            raise InputError(f"pretrained={pretrained} would replace the pruned network; leave it out")
        if weights is None:
            built: nn.Module = super().get_model(cfg, None, verbose)
            return built
        with torch.inference_mode(False):
            model = released(copied(weights)).float()
        if is_fused(model):
            raise ModelError(
                "the model's BatchNorm layers were fused away by a prediction; load it afresh from its file"
            )
        self.find_teacher(model)
        self.find_classes(model)
        if len(self.data["names"]) != len(names_of(model)):
            model = with_classes(model, [*self.data["names"].values()])
        forget_inputs(model)
        for name, parameter in model.named_parameters():
            parameter.requires_grad = not is_fixed(name)  # as Ultralytics trains
        return model

    def find_classes(self, model: nn.Module) -> None:
        """Count the data's classes as a network does that knows some of them."""
        if knows_some(model) and set(names_of(model).values()) <= set(self.data["names"].values()):
            self.data = fitted(self.data, names_of(model), str(self.args.data), some=True)

    def find_teacher(self, student: nn.Module) -> None:
        """Read the teacher's file, where there is to be one and nobody gave it.

        Raises:
            InputError: it cannot teach ``student``.
        """
        source = getattr(self.args, "distill_model", None)  # unknown to an older Ultralytics
        if source is not None and self.teacher is None:
            self.teacher = load_teacher(source, student)

    def _setup_train(self, *args: Any, **kwargs: Any) -> Any:
        """Set up as Ultralytics does, then mask."""
        if isinstance(self.model, nn.Module):
            self.find_teacher(self.model)  # in the processes of several GPUs, which are handed the network
            self.find_classes(student_of(self.model))
        with handed_over(lambda: self.teacher):
            result = super()._setup_train(*args, **kwargs)
        network = self.network()
        self.shapes, self.plan = shapes_of(network), plan_of(network)
        if self.plan is not None and is_masked(network, self.plan):
            still = released(copied(self.ema.ema)).float().cpu().eval()
            self.mask = masker(self.plan, graph_for(still, self.plan))
        self.apply_mask()
        return result

    def optimizer_step(self) -> None:
        """Step as Ultralytics does, then mask: BatchNorm's bias has a gradient where all else is zero."""
        super().optimizer_step()
        self.apply_mask()

    def network(self) -> nn.Module:
        """What is trained, without the wrappers of several GPUs and of a teacher."""
        return student_of(unwrap_model(self.model))

    def apply_mask(self) -> None:
        """Zero the masked channels of the model and of its EMA."""
        if self.mask is not None:
            self.mask(self.network())
            if self.ema:
                self.mask(student_of(self.ema.ema))

    def final_eval(self) -> None:
        """Check what was trained, then evaluate it as Ultralytics does; the checkpoints keep the plan."""
        check_trained(released(self.ema.ema), self.shapes, self.plan, self.mask)
        super().final_eval()
        if self.plan is None or RANK not in (-1, 0):
            return
        for file in (self.last, self.best):
            if file.exists():
                strip_optimizer(file, updates={"seqprune_plan": self.plan.to_json()})


def run_of(last: str | Path) -> Path:
    """The folder of the run that a ``weights/last.pt`` belongs to.

    Raises:
        InputError: it lies in no folder ``weights``.
    """
    folder = Path(last).absolute().parent
    if folder.name != "weights":
        raise InputError(
            f"{last}: lies in no run's folder weights, so it is no run to resume; give RUN/weights/last.pt"
        )
    return folder.parent


def shapes_of(model: nn.Module) -> Shapes:
    """Shape of every tensor of a network, by name."""
    return {name: tensor.shape for name, tensor in model.state_dict().items()}


def check_trained(
    model: nn.Module, before: Shapes, plan: PrunePlan | None, mask: Callable[[nn.Module], None] | None
) -> None:
    """Compare a trained network with the one that was given.

    Raises:
        TrainingError: a shape changed, is not the plan's, or a masked channel is not zero.
    """
    if changed := sorted(set(before.items()) ^ set(shapes_of(model).items())):
        raise TrainingError(f"training changed the shape of {changed[0][0]}; this is a bug, please report it")
    if plan is not None:
        try:
            is_masked(model, plan)
        except ModelError as error:
            raise TrainingError(f"training did not keep the plan's shape: {error}") from error
    if mask is None:
        return
    masked = copied(model)
    mask(masked)
    after = model.state_dict()
    for name, tensor in masked.state_dict().items():
        if not torch.equal(tensor, after[name]):
            raise TrainingError(f"training woke masked channels of {name}; this is a bug, please report it")


class _ReadsBoxes(KeepsShape):
    """For labels in text files: they are read, and no cache is written beside them."""

    def build_dataset(self, img_path: str, mode: str = "train", batch: int | None = None) -> ReadOnlyDataset:
        """The split's images and labels, read only."""
        stride = max(int(unwrap_model(self.model).stride.max()), 32)
        return build(self.args, img_path, batch, self.data, mode=mode, rect=mode == "val", stride=stride)


class DetectionTrainer(_ReadsBoxes, detect.DetectionTrainer):  # type: ignore[misc]
    """Ultralytics' detection trainer in the shape of the network it is given; see :class:`KeepsShape`."""


class RTDETRTrainer(KeepsShape, rtdetr.RTDETRTrainer):  # type: ignore[misc]
    """The same for detectors of queries, whose images are stretched."""

    def build_dataset(self, img_path: str, mode: str = "val", batch: int | None = None) -> ReadOnlyDataset:
        """The split's images and labels, read only."""
        return build(self.args, img_path, batch, self.data, mode=mode, rect=False, stride=32, kind=ReadOnlyStretched)


class SegmentationTrainer(_ReadsBoxes, segment.SegmentationTrainer):  # type: ignore[misc]
    """The same for instance segmentation."""


class OBBTrainer(_ReadsBoxes, obb.OBBTrainer):  # type: ignore[misc]
    """The same for oriented boxes."""


class PoseTrainer(_ReadsBoxes, pose.PoseTrainer):  # type: ignore[misc]
    """The same for key points."""

    def get_model(self, cfg: Any = None, weights: nn.Module | None = None, verbose: bool = True) -> nn.Module:
        """As :meth:`KeepsShape.get_model`; the key points of the data must be the network's."""
        model: Any = super().get_model(cfg, weights, verbose)
        mine, theirs = list(model.model[-1].kpt_shape), list(self.data["kpt_shape"])
        if mine != theirs:
            raise DataError(f"{self.args.data} has kpt_shape {theirs}, the model {mine}; use data made for the model")
        return model  # type: ignore[no-any-return]


class ClassificationTrainer(KeepsShape, classify.ClassificationTrainer):  # type: ignore[misc]
    """The same for whole images: they are read, and no cache is written beside them."""

    def build_dataset(self, img_path: str, mode: str = "train", batch: int | None = None) -> ReadOnlyFolder:
        """The split's images and classes, read only."""
        train = mode == "train"
        prefix = "train" if train else self.args.split
        return ReadOnlyFolder(img_path, self.args, classes=self.data["names"], augment=train, prefix=prefix)

    def get_model(self, cfg: Any = None, weights: nn.Module | None = None, verbose: bool = True) -> nn.Module:
        """As :meth:`KeepsShape.get_model`, with the model's class ids and the dropout that the arguments ask for."""
        model: Any = super().get_model(cfg, weights, verbose)
        if weights is not None:
            self.data["names"] = fitting_names(self.data["names"], model.names, str(self.args.data))
        for module in model.modules():
            if isinstance(module, nn.Dropout) and self.args.dropout:
                module.p = self.args.dropout
        return model  # type: ignore[no-any-return]
