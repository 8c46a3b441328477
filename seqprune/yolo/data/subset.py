"""Data sets with fewer images: for measuring often, and for looking at several samples."""

from __future__ import annotations

import random
import tempfile
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path

import yaml  # type: ignore[import-untyped,unused-ignore]

from seqprune.errors import InputError
from seqprune.yolo.data.files import FileImages
from seqprune.yolo.data.images import DetectionImages


@contextmanager
def sampled(data: str | Path, images: int | None, seed: int = 0) -> Iterator[str | Path]:
    """A data YAML whose ``val`` images are a seeded sample of those of ``data``; ``data`` itself where None.

    Raises:
        DataError: the data or the number cannot be used.
    """
    if images is None:
        yield data
        return
    chosen = DetectionImages(data, split="val", images=images, seed=seed)
    with listed(chosen.files, chosen.names, chosen.channels) as described:
        yield described


def dealt(whole: FileImages, count: int, images: int, seed: int) -> list[FileImages]:
    """``count`` samples of ``images`` of some images, see :func:`deal`.

    Raises:
        InputError: the samples could not differ.
    """
    parts = deal(whole.files, count, images, seed)
    if not isinstance(whole, DetectionImages):
        return [whole.only(files) for files in parts]
    found: list[FileImages] = []
    for files in parts:  # rectangles are shaped anew, batch by batch
        with listed(files, whole.label_names, whole.channels) as described:
            found.append(whole.alike(described))
    return found


def deal(files: Sequence[Path], count: int, images: int, seed: int) -> list[list[Path]]:
    """``count`` samples of ``images`` files: none in common where there are enough files, else drawn one by one.

    Raises:
        InputError: there are no more files than one sample takes, or a number below 1.
    """
    if count < 1 or not 1 <= images < len(files):
        raise InputError(
            f"{count} samples of {images} out of {len(files)} train images do not differ: give fewer --images, or one "
            "of --subsets"
        )
    order = sorted(files)
    draw = random.Random(seed)  # noqa: S311 - no secret
    if count * images > len(order):
        return [draw.sample(order, images) for _ in range(count)]
    draw.shuffle(order)
    return [order[start : start + images] for start in range(0, count * images, images)]


@contextmanager
def listed(files: Sequence[Path], names: Mapping[int, str], channels: int = 3) -> Iterator[Path]:
    """A data YAML of these images, both ``train`` and ``val``: Ultralytics asks for both.

    The images stay where they are and are only listed, in a temporary folder.
    """
    with tempfile.TemporaryDirectory(prefix="seqprune-") as folder:
        listing, described = Path(folder, "sample.txt"), Path(folder, "data.yaml")
        listing.write_text("".join(f"{file}\n" for file in files), encoding="utf-8")
        description = {"train": str(listing), "val": str(listing), "names": dict(names), "channels": channels}
        described.write_text(yaml.safe_dump(description, allow_unicode=True), encoding="utf-8")
        yield described
