"""Ultralytics' validators as they are run here: on data that are only read, telling nobody else."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any

import torch
from ultralytics.engine.validator import BaseValidator
from ultralytics.models.rtdetr.val import RTDETRValidator
from ultralytics.models.yolo.classify import ClassificationValidator
from ultralytics.models.yolo.detect import DetectionValidator
from ultralytics.models.yolo.obb import OBBValidator
from ultralytics.models.yolo.pose import PoseValidator
from ultralytics.models.yolo.segment import SegmentationValidator
from ultralytics.utils import nms

from seqprune.yolo.data.dataset import ReadOnlyDataset, ReadOnlyStretched, build
from seqprune.yolo.data.folders import ReadOnlyFolder
from seqprune.yolo.task.predict import UNLIMITED_SECONDS

Watched = tuple[Callable[[int], None], Callable[[int], None]]
"""Told how many images are looked at, and how many were since the last call."""


class _Unheard(BaseValidator):  # type: ignore[misc]
    """Mixed into a validator of Ultralytics': calls nobody back but us."""

    watched: Watched | None = None
    _done = 0

    def run_callbacks(self, event: str) -> None:
        """The integrations would log to other services; only how far it is is told."""
        if self.watched is None:
            return
        expect, progress = self.watched
        images = len(self.dataloader.dataset) if event.startswith("on_val_batch") or event == "on_val_start" else 0
        if event == "on_val_start":
            self._done = 0
            expect(images)
        elif event == "on_val_batch_end":
            done = min((self.batch_i + 1) * self.args.batch, images)
            progress(done - self._done)
            self._done = done


class _ReadsOnly(_Unheard, DetectionValidator):  # type: ignore[misc]
    """Mixed into a validator of boxes: on a read-only dataset."""

    def build_dataset(self, img_path: str, mode: str = "val", batch: int | None = None) -> ReadOnlyDataset:
        """The split's images and labels."""
        return build(self.args, img_path, batch, self.data, mode=mode, rect=False, stride=int(self.stride))


class Validator(_ReadsOnly):
    """The same for boxes, without a time limit."""

    def postprocess(self, preds: Any) -> list[dict[str, torch.Tensor]]:
        """Suppress overlapping boxes; a slow machine must not lose images to the time limit."""
        found = nms.non_max_suppression(
            preds,
            self.args.conf,
            self.args.iou,
            multi_label=True,
            agnostic=self.args.single_cls or self.args.agnostic_nms,
            max_det=self.args.max_det,
            max_time_img=UNLIMITED_SECONDS,
            end2end=self.end2end,
        )
        return [{"bboxes": x[:, :4], "conf": x[:, 4], "cls": x[:, 5], "extra": x[:, 6:]} for x in found]


class Queries(_Unheard, RTDETRValidator):  # type: ignore[misc]
    """Ultralytics' for detectors of queries, on a read-only dataset."""

    def build_dataset(self, img_path: str, mode: str = "val", batch: int | None = None) -> ReadOnlyDataset:
        """The split's images, stretched, and labels."""
        return build(self.args, img_path, batch, self.data, mode=mode, rect=False, stride=32, kind=ReadOnlyStretched)


class _Masks(_ReadsOnly, SegmentationValidator):  # type: ignore[misc]
    """The same for the masks of instances."""


class _Points(_ReadsOnly, PoseValidator):  # type: ignore[misc]
    """The same for key points."""


class _Oriented(_ReadsOnly, OBBValidator):  # type: ignore[misc]
    """The same for oriented boxes."""


class Classes(_Unheard, ClassificationValidator):  # type: ignore[misc]
    """Ultralytics' for whole images, on a read-only dataset."""

    classes: Mapping[int, str]
    images: int | None
    seed: int

    def build_dataset(self, img_path: str) -> ReadOnlyFolder:
        """The split's images and classes, or those of a sample."""
        seed = None if self.images is None else self.seed  # with one, the order is drawn as well
        how: dict[str, Any] = {"prefix": self.args.split, "images": self.images, "seed": seed}
        return ReadOnlyFolder(img_path, self.args, classes=self.classes, **how)


# By task: the validator, and the letter and the name by which Ultralytics marks what the task is about.
VALIDATORS: dict[str, tuple[Any, str, str]] = {
    "detect": (Validator, "B", "box"),
    "segment": (_Masks, "M", "seg"),
    "pose": (_Points, "P", "pose"),
    "obb": (_Oriented, "B", "box"),
}
