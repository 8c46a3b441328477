"""Labelled images for observing, as Ultralytics validates them."""

from __future__ import annotations

import math
import os
from collections import deque
from collections.abc import Iterator, Mapping, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from copy import copy
from itertools import chain, islice
from pathlib import Path
from typing import Any, Literal

import torch
from ultralytics.cfg import get_cfg

from seqprune.errors import DataError
from seqprune.observe.batch import Batch
from seqprune.yolo.contained import contained, one_line
from seqprune.yolo.dataset import ReadOnlyDataset, check_classes, resolve

_THREADS = max(1, min(4, os.cpu_count() or 1))
_BATCHES_AHEAD = 2


class DetectionImages:
    """The images of one split, in batches, with the labelled objects in them.

    RGB, letterboxed to rectangles shaped per batch with half a stride of padding, exactly as Ultralytics'
    validator sees them when it is given the same images and batch size. Sorted by aspect ratio; the same
    order in every pass. Decoded by threads, two batches ahead of their use. Nothing is written to the data
    set's folder.

    Args:
        data: Path of a data YAML, or a name that Ultralytics knows (``coco128.yaml``).
        split: ``train`` or ``val``.
        imgsz: Longest side in pixels, rounded up to a multiple of ``stride``.
        batch: Images per batch.
        images: Use this many images, drawn without replacement with ``seed``; None uses all.
        stride: Largest stride of the model; as Ultralytics' validator does, no less than 32 is used.
        names: The model's class names; None skips the comparison with the data's.
        seed: Seed of the draw.
        task: What the labels are for; of each object its box is taken, the upright one around it.

    Attributes:
        names: Class id to name, from the data YAML.
        unreadable: File names of the images left out: they, or their labels, cannot be read.
        image_count: Images used.

    Raises:
        DataError: The YAML, the images or the labels cannot be used; the message says which and why.
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
    ) -> None:
        for name, value in (("imgsz", imgsz), ("batch", batch), ("images", images), ("stride", stride)):
            if value is not None and value < 1:
                raise DataError(f"{name}={value} must be at least 1")
        description = resolve(data)
        if split not in ("train", "val"):
            raise DataError(f"split={split!r} is not a split; use 'train' or 'val'")
        if names is not None:
            check_classes(description, len(names), str(data))
        stride = max(stride, 32)
        self.names: dict[int, str] = dict(description["names"])
        self.batch = batch
        with contained():
            self._dataset = ReadOnlyDataset(
                img_path=description[split],
                imgsz=math.ceil(imgsz / stride) * stride,
                batch_size=batch,
                augment=False,
                hyp=get_cfg(),
                rect=True,
                stride=stride,
                pad=0.5,
                data=description,
                sample=images,
                sample_seed=seed,
                task="pose" if task == "pose" else "detect",  # else a polygon is read as the box around it
            )
        self.unreadable = tuple(Path(file).name for file, _ in self._dataset.left_out)
        self.image_count = len(self._dataset)
        self._numbers = range(math.ceil(self.image_count / batch))

    @property
    def files(self) -> tuple[Path, ...]:
        """Paths of the images used, in the order of a pass."""
        return tuple(Path(file).absolute() for file in self._dataset.im_files)

    def share(self, rank: int, count: int) -> DetectionImages:
        """Every ``count``-th batch from ``rank`` on, shaped as among all of them; the others are not decoded."""
        return self._part(self._numbers[rank::count])

    def hold_out(self, every: int = 8) -> tuple[DetectionImages, DetectionImages | None]:
        """All batches but one in ``every``, and those; ``None`` for them where there are not two batches."""
        held = [n for n in self._numbers if n % every == min(every, len(self._numbers)) // 2]
        if len(self._numbers) < 2:
            return self, None
        return self._part([n for n in self._numbers if n not in held]), self._part(held)

    def _part(self, numbers: Sequence[int]) -> DetectionImages:
        part = copy(self)
        part._numbers = numbers  # type: ignore[assignment]
        part.image_count = sum(len(part._batch(n)) for n in numbers)
        return part

    def __len__(self) -> int:
        """Number of batches."""
        return len(self._numbers)

    def __iter__(self) -> Iterator[Batch]:
        """Go through all batches; leaving early stops the decoding."""
        jobs = map(self._batch, self._numbers)
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
                yield _to_batch(ReadOnlyDataset.collate_fn(ready))
        finally:
            pool.shutdown(wait=False, cancel_futures=True)

    def _batch(self, number: int) -> range:
        """Indices of the images of a batch."""
        return range(len(self._dataset))[number * self.batch : (number + 1) * self.batch]

    def _load(self, index: int) -> dict[str, Any]:
        """Decode and letterbox one image."""
        try:
            item: dict[str, Any] = self._dataset[index]
        except (OSError, ValueError, RuntimeError) as error:
            file = self._dataset.im_files[index]
            raise DataError(f"{file}: cannot be decoded ({one_line(error)}); replace or remove it") from error
        return item


def _to_batch(collated: Mapping[str, torch.Tensor]) -> Batch:
    """Turn Ultralytics' collated dictionary (boxes ``xywh`` in [0, 1]) into a :class:`Batch`."""
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
