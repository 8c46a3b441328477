"""Labelled images for observing, as Ultralytics validates them."""

from __future__ import annotations

import math
import os
from collections import deque
from collections.abc import Callable, Collection, Iterator, Mapping, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from copy import copy
from dataclasses import replace
from functools import partial
from hashlib import sha256
from itertools import chain, islice
from pathlib import Path
from typing import Any, Literal

import cv2
import torch
from ultralytics.cfg import get_cfg

from seqprune.errors import DataError, LostError
from seqprune.observe.batch import Batch
from seqprune.yolo.data.classes import fitted
from seqprune.yolo.data.dataset import ReadOnlyDataset, resolve
from seqprune.yolo.data.folders import ReadOnlyFolder, fitting_names, resolve_folder
from seqprune.yolo.files.contained import contained, one_line
from seqprune.yolo.task.tracing import padded

_THREADS = max(1, min(4, os.cpu_count() or 1))
_BATCHES_AHEAD = 2
_STRIDE = 32  # Ultralytics' validators use no smaller one


class FileImages:
    """Labelled images read from files, in batches: RGB, in the same order in every pass.

    Decoded by threads, two batches ahead of their use. Nothing is written to the data set's folder.

    Attributes:
        names: Class id to name.
        unreadable: The images left out: they, or their labels, cannot be read.
        image_count: Images used.
    """

    names: dict[int, str]
    unreadable: tuple[str, ...]

    def __init__(self, dataset: Any, batch: int, collate: Callable[[list[dict[str, Any]]], Batch]) -> None:
        self._dataset, self.batch, self._collate = dataset, batch, collate
        self.image_count = len(dataset)
        self._numbers: Sequence[int] = range(math.ceil(self.image_count / batch))

    @property
    def files(self) -> tuple[Path, ...]:
        """Paths of the images used, in the order of a pass."""
        return tuple(Path(file).absolute() for file in self._dataset.im_files)

    @property
    def objects(self) -> int:
        """Labelled objects in the images used; an image that is classified is one."""
        labels = getattr(self._dataset, "labels", None)
        if labels is None:
            return self.image_count
        return sum(len(labels[index]["cls"]) for number in self._numbers for index in self._batch(number))

    def fingerprint(self) -> str:
        """The same for the same files in the same order: by their names and sizes."""
        known = [f"{file.name} {file.stat().st_size}" for file in self.files]
        return sha256("\n".join([str(self.batch), *known]).encode()).hexdigest()

    def share(self, rank: int, count: int) -> FileImages:
        """Every ``count``-th batch from ``rank`` on, shaped as among all of them; the others are not decoded."""
        return self._part(self._numbers[rank::count])

    def hold_out(self, every: int = 8) -> tuple[FileImages, FileImages | None]:
        """All batches but one in ``every``, and those; ``None`` for them where there are not two batches."""
        held = [n for n in self._numbers if n % every == min(every, len(self._numbers)) // 2]
        if len(self._numbers) < 2:
            return self, None
        return self._part([n for n in self._numbers if n not in held]), self._part(held)

    def only(self, files: Collection[Path]) -> FileImages:
        """These of the files alone, of images that are all shaped alike."""
        part, wanted = copy(self), set(files)
        part._dataset = _Some(self._dataset, [n for n, file in enumerate(self.files) if file in wanted])
        part.image_count = len(part._dataset)
        part._numbers = range(math.ceil(part.image_count / self.batch))
        return part

    def _part(self, numbers: Sequence[int]) -> FileImages:
        part = copy(self)
        part._numbers = numbers
        part.image_count = sum(len(part._batch(n)) for n in numbers)
        return part

    def __len__(self) -> int:
        """Number of batches."""
        return len(self._numbers)

    def __iter__(self) -> Iterator[Batch]:
        """Go through all batches; leaving early stops the decoding."""
        jobs, numbers = map(self._batch, self._numbers), iter(self._numbers)
        pool = ThreadPoolExecutor(_THREADS, thread_name_prefix="seqprune-images")
        try:
            waiting: deque[list[Future[dict[str, Any]]]] = deque()
            submitted = ([pool.submit(self._load, index) for index in job] for job in jobs)
            waiting.extend(islice(submitted, _BATCHES_AHEAD))
            for upcoming in chain(submitted, [None] * _BATCHES_AHEAD):
                if not waiting:
                    return
                ready = [future.result() for future in waiting.popleft()]
                if upcoming is not None:
                    waiting.append(upcoming)
                yield replace(self._collate(ready), number=next(numbers))
        finally:
            pool.shutdown(wait=False, cancel_futures=True)

    def _batch(self, number: int) -> range:
        """Indices of the images of a batch."""
        return range(len(self._dataset))[number * self.batch : (number + 1) * self.batch]

    def _load(self, index: int) -> dict[str, Any]:
        """Decode one image and bring it to its size.

        Raises:
            LostError: it could be read when it was listed, and cannot be now.
        """
        try:
            item: dict[str, Any] = self._dataset[index]
        except (OSError, ValueError, RuntimeError, cv2.error) as error:
            file = self._dataset.im_files[index]
            raise LostError(f"{file}: cannot be decoded ({one_line(error)}); put it back, or begin anew") from error
        return item


class _Some:
    """Some images of a data set, in their order."""

    def __init__(self, dataset: Any, indices: Sequence[int]) -> None:
        self.dataset, self.indices = dataset, indices
        self.im_files = [dataset.im_files[index] for index in indices]

    def __len__(self) -> int:
        return len(self.indices)

    def __getitem__(self, index: int) -> Any:
        return self.dataset[self.indices[index]]


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
    """The images of one split, in batches, each with its class.

    Resized and cropped exactly as Ultralytics' validator sees them, floating point in [0, 1]. In a random order, so
    that a batch, and what is held out, mixes the classes.

    Args:
        data: Folder with ``train`` and ``val`` (or ``test``), in each a folder a class.
        split: ``train`` or ``val``.
        imgsz: Side in pixels, rounded up to a multiple of 32 as Ultralytics' validator does.
        batch: Images per batch.
        images: Use this many images, drawn without replacement with ``seed``; None uses all.
        names: The model's class names, which fix the class ids; None numbers the folders as they are sorted.
        seed: Seed of the draw and the order.

    Raises:
        DataError: The folder or the images cannot be used, or the classes are not the model's.
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
    ) -> None:
        _at_least_one(imgsz=imgsz, batch=batch, images=images)
        _check_split(split)
        description = resolve_folder(data, needs=(split,))
        folders: dict[int, str] = description["names"]
        self.names = folders if names is None else fitting_names(folders, names, str(data))
        with contained():
            dataset = ReadOnlyFolder(
                description[split],
                get_cfg(overrides={"imgsz": padded(imgsz, _STRIDE)}),
                classes=self.names,
                images=images,
                seed=seed,
            )
        self.unreadable = tuple(str(Path(file).relative_to(dataset.root)) for file, _ in dataset.left_out)
        super().__init__(dataset, batch, _with_classes)


def images_for(
    task: str, data: str | Path, *, stride: int = 32, labelled: bool = True, some: bool = False, **given: Any
) -> FileImages:
    """The images of a task: with boxes for what finds objects, with one class each for what classifies."""
    if task == "classify":
        return ClassificationImages(data, **given)
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
