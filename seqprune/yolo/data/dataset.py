"""A dataset YAML, and the images and labels it names, read without writing anything beside them.

Ultralytics' own dataset writes ``labels/*.cache``, unpickles the one it finds there, re-encodes JPEG files
that lack their end marker, and deletes ``*.npy`` files that it cannot read: all in the user's folder.
"""

from __future__ import annotations

import logging
import os
import random
import subprocess
import tempfile
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import torch
import yaml  # type: ignore[import-untyped,unused-ignore]
from ultralytics.data import utils as data_utils
from ultralytics.data.augment import Format
from ultralytics.data.dataset import YOLODataset
from ultralytics.data.utils import check_det_dataset, img2label_paths, verify_image_label
from ultralytics.models.rtdetr.val import RTDETRDataset
from ultralytics.utils import ROOT

from seqprune.errors import DataError, UnlabelledError
from seqprune.plain import why_no_file
from seqprune.yolo.data import datayaml
from seqprune.yolo.data.checked import check_class_ids, untouched
from seqprune.yolo.data.classes import renumbered
from seqprune.yolo.files.contained import contained, one_line, replaced

log = logging.getLogger(__name__)

_THREADS = min(8, os.cpu_count() or 1)


def resolve(data: str | Path, needs: Sequence[str] = ("train", "val")) -> dict[str, Any]:
    """Read a dataset YAML, or one that Ultralytics knows by name.

    Only a known name (``coco128.yaml``) may be downloaded; a ``download:`` script in a YAML of the user's
    own is never run, and nothing but what :func:`seqprune.yolo.data.datayaml.read` takes from it reaches Ultralytics.

    Args:
        data: The YAML or the name.
        needs: Splits that it must have, of ``train`` and ``val``.

    Returns:
        Ultralytics' description: ``names`` (id to name), ``nc``, ``train``, ``val`` (None where a split is missing),
        ``yaml_file``.

    Raises:
        DataError: The YAML is missing, cannot be parsed, or lacks a split or the class names; or its images are not
            there.
    """
    path, known = Path(data), False
    if os.path.isdir(path):
        raise DataError(f"{data} is a folder; give the data YAML that names its images and classes")
    if why_no_file(path) == "no such file":
        path = ROOT / "cfg" / "datasets" / path.name
        known = path.is_file() and str(data) == path.name
        if not known:
            raise DataError(f"{data}: no such file, and no dataset known by that name; give the path of a data YAML")
    content, copy = datayaml.read(path, needs), path
    try:
        with contained(), tempfile.TemporaryDirectory(prefix="seqprune-") as folder:
            if known:  # the package's own file, with its own script
                with replaced(data_utils, "exec", exec):
                    return dict(check_det_dataset(str(path), autodownload=True))
            copy = Path(folder, "data.yaml")
            both = dict.fromkeys(("train", "val")) | content  # Ultralytics asks for both keys
            copy.write_text(yaml.safe_dump(both, allow_unicode=True), encoding="utf-8")
            found: dict[str, Any] = check_det_dataset(str(copy), autodownload=False)
    except (
        OSError,
        SyntaxError,
        TypeError,
        ValueError,
        KeyError,
        AssertionError,
        RuntimeError,
        subprocess.CalledProcessError,
    ) as error:
        cause = "could not be fetched" if known else "cannot be used"
        why = one_line(str(error).replace(str(copy), str(data)))
        raise DataError(f"{data}: the data set {cause} ({why}); check where its images are") from error
    return found | {"yaml_file": str(path)}


class _AlwaysRGB(Format):  # type: ignore[misc]
    """Ultralytics' last step, which asks Python's generator for each image whether it stays BGR, at odds of nought."""

    def _format_img(self, img: npt.NDArray[np.uint8]) -> torch.Tensor:
        img = np.atleast_3d(img).transpose(2, 0, 1)
        return torch.from_numpy(np.ascontiguousarray(img[::-1] if img.shape[0] == 3 else img))


class ReadOnlyDataset(YOLODataset):  # type: ignore[misc]
    """Ultralytics' dataset of boxes that leaves the user's folder as it is.

    Args:
        sample: Take this many images, drawn with ``sample_seed``, in the order of their names; None: all.
        sample_seed: Seed of that draw.
        labelled: Whether there must be an object.

    Attributes:
        left_out: ``(image file, reason)`` of every image that could not be read or whose labels could not.

    Raises:
        DataError: No images, none readable, or a class id that the names do not have.
        UnlabelledError: No labelled object.
    """

    def __init__(
        self, *args: Any, sample: int | None = None, sample_seed: int = 0, labelled: bool = True, **kwargs: Any
    ) -> None:
        self.sample, self.sample_seed, self.labelled = sample, sample_seed, labelled
        self.left_out: tuple[tuple[str, str], ...] = ()
        if str(kwargs.get("cache")).lower() == "disk":
            log.warning("cache=disk would write beside the images and is not used")
            kwargs["cache"] = None
        super().__init__(*args, **kwargs)

    @property
    def npy_files(self) -> list[Path]:
        """Where Ultralytics looks for decoded images: nowhere."""
        return self._npy_files

    @npy_files.setter
    def npy_files(self, files: list[Path]) -> None:
        self._npy_files = [Path(os.devnull) / "none.npy"] * len(files)

    def build_transforms(self, hyp: Any = None) -> Any:
        """Ultralytics'; images that are not augmented are turned to RGB without a random draw."""
        transforms = super().build_transforms(hyp)
        last = transforms.transforms[-1]
        if not self.augment and type(last) is Format:
            last.__class__ = _AlwaysRGB
        return transforms

    def get_img_files(self, img_path: str | list[str]) -> list[str]:
        """The image files under ``img_path``, sorted, or the sample of them."""
        try:
            files: list[str] = super().get_img_files(img_path)
        except FileNotFoundError as error:
            raise DataError(f"no images found in {img_path}; check the path in the data YAML") from error
        if self.sample is None or self.sample >= len(files):
            return files
        return sorted(random.Random(self.sample_seed).sample(files, self.sample))  # noqa: S311 - no secret

    def get_labels(self) -> list[dict[str, Any]]:
        """Check every image and read its labels, in memory only."""
        files: list[str] = self.im_files
        looked_at = len(files)
        self.label_files = img2label_paths(files)
        with ThreadPoolExecutor(_THREADS) as pool:
            results = list(pool.map(self._read, files, self.label_files))
        labels = [label for label, _ in results if label]
        self.left_out = tuple((file, reason) for file, (label, reason) in zip(files, results, strict=True) if not label)
        self.im_files: list[str] = [label["im_file"] for label in labels]
        if not labels:
            file, reason = self.left_out[0]
            raise DataError(f"none of {looked_at} images can be used; the first, {file}: {reason}")
        for file, reason in self.left_out:
            log.warning("left out %s: %s", file, reason)
        boxes, segments = (sum(len(label[key]) for label in labels) for key in ("bboxes", "segments"))
        if not boxes and self.labelled:
            raise UnlabelledError(
                f"no labelled object in {looked_at} images of {self.img_path}: "
                "the labels folder is empty, missing or not beside the images folder"
            )
        if segments and segments != boxes:  # as Ultralytics does: boxes and polygons mixed, keep the boxes
            for label in labels:
                label["segments"] = []
        return labels

    def _read(self, im_file: str, label_file: str) -> tuple[dict[str, Any] | None, str]:
        """One image's label dictionary, or None and the reason."""
        classes = self.data.get("label_classes", len(self.data["names"]))
        if reason := why_no_file(im_file):
            return None, reason
        if (reason := why_no_file(label_file)) not in ("", "no such file"):
            return None, f"its labels: {reason}"
        if not self.single_cls:
            check_class_ids(label_file, classes)
        with untouched(im_file) as checked:
            points, size = self.data.get("kpt_shape", (0, 0)) if self.use_keypoints else (0, 0)
            found = verify_image_label(
                (checked, label_file, "", self.use_keypoints, classes, points, size, self.single_cls)
            )
        if found[0] is None:
            return None, one_line(str(found[-1]).rpartition("ignoring corrupt image/label: ")[2])
        _, rows, shape, segments, keypoints = found[:5]
        label = {
            "im_file": im_file,
            "shape": shape,
            "cls": rows[:, 0:1],
            "bboxes": rows[:, 1:],
            "segments": segments,
            "keypoints": keypoints,
            "normalized": True,
            "bbox_format": "xywh",
        }
        ids = self.data.get("class_ids")
        return (label if ids is None else renumbered(label, ids)), ""


class ReadOnlyStretched(ReadOnlyDataset, RTDETRDataset):  # type: ignore[misc]
    """The same for detectors of queries, whose images are stretched to a square."""


def build(
    cfg: Any,
    img_path: str | list[str],
    batch: int | None,
    data: dict[str, Any],
    *,
    mode: str,
    rect: bool,
    stride: int,
    kind: type[ReadOnlyDataset] = ReadOnlyDataset,
) -> ReadOnlyDataset:
    """The dataset that Ultralytics' ``build_yolo_dataset`` would build, read only.

    Args:
        cfg: Ultralytics' configuration namespace; its ``task`` says what is read beside boxes.
        img_path: Folder, list file, or list of either.
        batch: Images per batch, which shapes the rectangles.
        data: What :func:`resolve` returned.
        mode: ``train`` augments; anything else letterboxes as validation does.
        rect: Rectangles shaped per batch.
        stride: Largest stride of the model.
        kind: Of the dataset.
    """
    train = mode == "train"
    share = cfg.fraction
    if isinstance(share, list | tuple):
        share = ([*share, 1.0, 1.0])[0 if train else 1]
    elif not train:
        share = 1.0
    return kind(
        img_path=img_path,
        imgsz=cfg.imgsz,
        batch_size=batch,
        augment=train,
        hyp=cfg,
        rect=bool(cfg.rect or rect),
        cache=cfg.cache or None,
        single_cls=bool(cfg.single_cls),
        stride=stride,
        pad=0.0 if train else 0.5,
        prefix="",
        task=cfg.task,
        classes=None if "class_ids" in data else cfg.classes,  # they would be counted as the files do
        data=data,
        fraction=share,
    )
