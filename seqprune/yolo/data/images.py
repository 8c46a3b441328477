"""Labelled images for observing, as Ultralytics validates them."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from functools import partial
from pathlib import Path
from typing import Any, Literal

import torch
from ultralytics.cfg import get_cfg

from seqprune.errors import DataError
from seqprune.observe.batch import Batch
from seqprune.yolo.data.classes import fitted
from seqprune.yolo.data.dataset import ReadOnlyDataset, resolve
from seqprune.yolo.data.files import FileImages
from seqprune.yolo.data.folders import FlatFolder, ReadOnlyFolder, fitting_names, flat_in, resolve_folder
from seqprune.yolo.files.contained import contained
from seqprune.yolo.task.tracing import padded

_STRIDE = 32  # Ultralytics' validators use no smaller one


class DetectionImages(FileImages):
    """The images of one split, in batches, with the labelled objects in them.

    Letterboxed to rectangles shaped per batch with half a stride of padding, exactly as Ultralytics' validator sees
    them when it is given the same images and batch size. Sorted by aspect ratio.

    Attributes:
        label_names: Class id to name as the label files count them.
        alike: Images of another data YAML, seen in the same way.

    Args:
        data: Path of a data YAML, or a name that Ultralytics knows (``coco128.yaml``).
        split: ``train`` or ``val``.
        imgsz: Longest side in pixels, rounded up to a multiple of ``stride``.
        batch: Images per batch.
        images: Use this many images, drawn without replacement with ``seed``; None uses all.
        stride: Largest stride of the model; as Ultralytics' validator does, no less than 32 is used.
        names: The model's class names, see :func:`seqprune.yolo.data.classes.fitted`; None takes the data's.
        seed: Seed of the draw.
        task: What the labels are for; of each object its box is taken, the upright one around it.
        labelled: Whether there must be an object; images without any count all the same.
        some: Whether ``names`` are some of the data's; objects of other classes are left out.

    Raises:
        DataError: The YAML, the images or the labels cannot be used; the message says which and why.
        UnlabelledError: No image has an object.
    """

    def __init__(
        self,
        data: str | Path,
        *,
        split: Literal["train", "val"] = "train",
        imgsz: int = 640,
        batch: int = 16,
        images: int | None = None,
        stride: int = 32,
        names: Mapping[int, str] | None = None,
        seed: int = 0,
        task: str = "detect",
        labelled: bool = True,
        some: bool = False,
    ) -> None:
        _at_least_one(imgsz=imgsz, batch=batch, images=images, stride=stride)
        _check_split(split)
        description = resolve(data, needs=(split,))
        label_names: dict[int, str] = dict(description["names"])
        if names is not None:
            description = fitted(description, names, str(data), some=some)
        how: dict[str, Any] = {"imgsz": imgsz, "batch": batch, "stride": stride, "task": task, "labelled": labelled}
        self.alike: Callable[[Path], DetectionImages] = partial(DetectionImages, names=names, some=some, **how)
        stride = max(stride, _STRIDE)
        self.names: dict[int, str] = dict(description["names"])
        self.label_names = label_names
        self.channels = int(description.get("channels", 3))
        with contained():
            dataset = ReadOnlyDataset(
                img_path=description[split],
                imgsz=padded(imgsz, stride),
                batch_size=batch,
                augment=False,
                hyp=get_cfg(),
                rect=True,
                stride=stride,
                pad=0.5,
                data=description,
                sample=images,
                sample_seed=seed,
                labelled=labelled,
                task="pose" if task == "pose" else "detect",  # else a polygon is read as the box around it
            )
        self.unreadable = tuple(Path(file).name for file, _ in dataset.left_out)
        super().__init__(dataset, batch, _with_boxes)


class ClassificationImages(FileImages):
    """The images of one split, in batches, each with its class, or without where that is allowed.

    Resized and cropped exactly as Ultralytics' validator sees them, floating point in [0, 1]. In a random order, so
    that a batch, and what is held out, mixes the classes.

    Args:
        data: Folder with ``train`` and ``val`` (or ``test``), in each a folder a class; not ``labelled``, images alone
            will do, in it or in its splits.
        split: ``train`` or ``val``.
        imgsz: Side in pixels, rounded up to a multiple of 32 as Ultralytics' validator does.
        batch: Images per batch.
        images: Use this many images, drawn without replacement with ``seed``; None uses all.
        names: The model's class names, which fix the class ids; None numbers the folders as they are sorted.
        seed: Seed of the draw and the order.
        labelled: Whether every image must have a class.

    Raises:
        DataError: The folder or the images cannot be used, or the classes are not the model's.
        UnlabelledError: The images lie in no folder a class.
    """

    def __init__(
        self,
        data: str | Path,
        *,
        split: Literal["train", "val"] = "train",
        imgsz: int = 224,
        batch: int = 16,
        images: int | None = None,
        names: Mapping[int, str] | None = None,
        seed: int = 0,
        labelled: bool = True,
    ) -> None:
        _at_least_one(imgsz=imgsz, batch=batch, images=images)
        _check_split(split)
        how: dict[str, Any] = {"images": images, "seed": seed}
        cfg = get_cfg(overrides={"imgsz": padded(imgsz, _STRIDE)})
        flat = None if labelled else flat_in(data, split)
        if flat is not None:
            self.names = dict(names or {})
            with contained():
                dataset: ReadOnlyFolder = FlatFolder(flat, cfg, **how)
        else:
            description = resolve_folder(data, needs=(split,))
            folders: dict[int, str] = description["names"]
            self.names = folders if names is None else fitting_names(folders, names, str(data))
            with contained():
                dataset = ReadOnlyFolder(description[split], cfg, classes=self.names, **how)
        self.unreadable = tuple(str(Path(file).relative_to(dataset.root)) for file, _ in dataset.left_out)
        super().__init__(dataset, batch, _with_classes if flat is None else _without_classes)


def images_for(
    task: str, data: str | Path, *, stride: int = 32, labelled: bool = True, some: bool = False, **given: Any
) -> FileImages:
    """The images of a task: with boxes for what finds objects, with one class each for what classifies."""
    if task == "classify":
        return ClassificationImages(data, labelled=labelled, **given)
    return DetectionImages(data, task=task, stride=stride, labelled=labelled, some=some, **given)


def _at_least_one(**numbers: int | None) -> None:
    for name, value in numbers.items():
        if value is not None and value < 1:
            raise DataError(f"{name}={value} must be at least 1")


def _check_split(split: str) -> None:
    if split not in ("train", "val"):
        raise DataError(f"split={split!r} is not a split; use 'train' or 'val'")


def _with_classes(items: list[dict[str, Any]]) -> Batch:
    """Images of one size, one class each."""
    images = torch.stack([item["img"] for item in items])
    return Batch(images, torch.arange(len(items)), torch.tensor([item["cls"] for item in items]))


def _without_classes(items: list[dict[str, Any]]) -> Batch:
    """Images of one size, no objects in them."""
    nothing = torch.zeros(0, dtype=torch.int64)
    return Batch(torch.stack([item["img"] for item in items]), nothing, nothing)


def _with_boxes(items: list[dict[str, Any]]) -> Batch:
    """Images with boxes, which Ultralytics collates as ``xywh`` in [0, 1]."""
    collated: Mapping[str, torch.Tensor] = ReadOnlyDataset.collate_fn(items)
    images = collated["img"]
    height, width = images.shape[-2:]
    xywh = collated["bboxes"].float().reshape(-1, 4)
    centre, size = xywh[:, :2], xywh[:, 2:]
    scale = torch.tensor([width, height], dtype=torch.float32)
    boxes = torch.cat(((centre - size / 2) * scale, (centre + size / 2) * scale), dim=1)
    return Batch(
        images=images,
        image_index=collated["batch_idx"].long().reshape(-1),
        classes=collated["cls"].long().reshape(-1),
        boxes=boxes,
    )
