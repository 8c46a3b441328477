"""Images to classify, in a folder a class, read without writing anything beside them.

Ultralytics' own dataset writes ``train.cache`` beside the folders, unpickles the one it finds there, re-encodes JPEG
files that lack their end marker, and keeps ``*.npy`` where it is asked to; its check of a folder without ``train``
makes a split of it on disk.
"""

from __future__ import annotations

import logging
import os
import random
from collections.abc import Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import torchvision
from ultralytics.data.dataset import ClassificationDataset
from ultralytics.data.utils import IMG_FORMATS, check_cls_dataset, verify_image
from ultralytics.nn.autobackend import check_class_names

from seqprune.errors import DataError, UnlabelledError
from seqprune.yolo.data.checked import untouched
from seqprune.yolo.data.classes import check_classes
from seqprune.yolo.data.dataset import resolve
from seqprune.yolo.files.contained import contained, one_line, replaced

log = logging.getLogger(__name__)

_THREADS = min(8, os.cpu_count() or 1)


def describe(data: str | Path, task: str, needs: Sequence[str] = ("train", "val")) -> tuple[str, dict[str, Any]]:
    """What Ultralytics is to be given as the ``data`` of a task, and its own description of that.

    ``needs`` are splits that a YAML must have.

    Raises:
        DataError: As :func:`resolve_folder` for classification, else as :func:`seqprune.yolo.data.dataset.resolve`.
    """
    if task == "classify":
        return str(data), resolve_folder(data, needs)
    description = resolve(data, needs)
    return str(description.get("yaml_file", data)), description


def resolve_folder(data: str | Path, needs: Sequence[str] = ("train", "val")) -> dict[str, Any]:
    """Read which classes and splits a folder of images to classify has.

    Args:
        data: The folder.
        needs: Splits that it must have beside ``train``.

    Returns:
        Ultralytics' description: ``names`` (id to folder, sorted), ``nc``, and the folders ``train`` and ``val``, which
        is ``test`` where there is no other, and None where there is neither.

    Raises:
        DataError: There is no such folder, or it lacks a split, two classes, or images.
        UnlabelledError: Its images lie in no folder a class, or there is no split to measure on.
    """
    if not Path(data).is_dir():
        raise DataError(f"{data}: no such folder; for classification give one with train and val, a folder a class")
    if (flat := flat_in(data, "train")) is not None:
        raise UnlabelledError(
            f"{flat}: its images lie in no folder a class; accuracy, training and what is chosen by classes need train "
            "and val with a folder a class"
        )
    if not Path(data, "train").is_dir():  # Ultralytics would copy the images into a split of its own
        raise DataError(f"{data}: has no folder train; for classification it needs train and val, a folder a class")
    try:
        with contained():
            found: dict[str, Any] = check_cls_dataset(str(data), split="val")
    except (OSError, ValueError) as error:
        raise DataError(f"{data}: the images cannot be used ({one_line(error)}); check its folder train") from error
    if found["val"] is None and "val" in needs:
        raise UnlabelledError(f"{data}: has no folder val or test; accuracy is measured there, with a folder a class")
    if len(found["names"]) < 2:
        raise DataError(f"{data}: has one class, {found['names'][0]}; give a folder for each of two classes or more")
    return found


def flat_in(data: str | Path, split: str) -> Path | None:
    """The folder that holds images themselves, and none in folders: ``data`` or its split (``test`` for ``val``)."""
    known = [Path(data, name) for name in (("train",) if split == "train" else ("val", "test"))]
    there = next((folder for folder in known if folder.is_dir()), Path(data))
    if not there.is_dir() or not _images_of(there):
        return None
    inside = (each for each in there.iterdir() if each.is_dir())
    return None if any(_images_of(folder) for folder in inside) else there


def _images_of(folder: Path) -> list[str]:
    """Sorted, without those of folders in it."""
    return sorted(str(file) for file in folder.iterdir() if file.suffix[1:].lower() in IMG_FORMATS and file.is_file())


def fitting_names(folders: Mapping[int, str], names: Mapping[int, str], source: str) -> dict[int, str]:
    """Class id to folder, ids as the model counts: its classes are found by name, in whatever order they are.

    Folders may have ImageNet's codes for names. A model with mere numbers for names, made from a YAML, takes the
    folders as they are sorted.

    Args:
        folders: Names of the folders, sorted.
        names: The model's class names.
        source: The data, for messages.

    Raises:
        DataError: Another number of classes, or a folder that is none of them.
    """
    check_classes({"names": folders}, len(names), source)
    mine, theirs = check_class_names(dict(folders)), check_class_names(dict(names))
    strange = sorted(set(mine.values()) - set(theirs.values()))
    if strange and all(name == str(number) for number, name in theirs.items()):
        return dict(folders)
    if strange:
        known = ", ".join([*theirs.values()][:5])
        raise DataError(
            f"{source}: {strange[0]} is no class of the model, whose classes are {known}{', …' * (len(theirs) > 5)}: "
            "they were not made for each other; rename the folder, or use the data the model was trained for"
        )
    by_name = {name: folders[number] for number, name in mine.items()}
    return {number: by_name[name] for number, name in theirs.items()}


class ReadOnlyFolder(ClassificationDataset):  # type: ignore[misc]
    """Ultralytics' dataset of images in a folder a class, which leaves the user's folders as they are.

    Args:
        classes: Class id to the name of its folder.
        images: With a seed, take this many; None: all.
        seed: Of a random order of the images, which lie folder by folder otherwise.

    Attributes:
        left_out: ``(image file, reason)`` of every image that could not be read.

    Raises:
        DataError: No images, none readable, or a folder that is no class.
    """

    def __init__(
        self,
        root: str | Path,
        args: Any,
        *,
        classes: Mapping[int, str],
        augment: bool = False,
        prefix: str = "",
        images: int | None = None,
        seed: int | None = None,
    ) -> None:
        self.images, self.seed = images, seed
        self.samples: list[Any]
        self.left_out: tuple[tuple[str, str], ...] = ()
        try:
            super().__init__(str(root), args, augment=augment, prefix=prefix)
        except FileNotFoundError as error:
            raise DataError(f"no images found in {root}; it needs a folder a class") from error
        if str(args.cache).lower() == "disk":
            log.warning("cache=disk would write beside the images and is not used")
        self.cache_disk = False
        self._count(classes)

    def _count(self, classes: Mapping[int, str]) -> None:
        """Class ids as the model counts them."""
        root = self.root
        ids = {folder: number for number, folder in classes.items()}
        if strange := sorted(set(self.base.classes) - set(ids)):
            raise DataError(f"{root}: {strange[0]} is no class of train; rename the folder or take it out")
        numbers = [ids[Path(sample[0]).relative_to(root).parts[0]] for sample in self.samples]
        self.samples = [[file, number, *rest] for (file, _, *rest), number in zip(self.samples, numbers, strict=True)]

    @property
    def im_files(self) -> list[str]:
        """The image files, in order."""
        return [sample[0] for sample in self.samples]

    def verify_images(self) -> list[tuple[str, int]]:
        """Check the images, or a sample of them, in memory only."""
        samples = self.samples
        if self.seed is not None:
            count = len(samples) if self.images is None else min(self.images, len(samples))
            samples = random.Random(self.seed).sample(samples, count)  # noqa: S311 - no secret
        with ThreadPoolExecutor(_THREADS) as pool:
            reasons = list(pool.map(_why_unreadable, (file for file, _ in samples)))
        self.left_out = tuple((file, why) for (file, _), why in zip(samples, reasons, strict=True) if why)
        for file, why in self.left_out:
            log.warning("left out %s: %s", file, why)
        if len(self.left_out) == len(samples):
            why = f"the first, {self.left_out[0][0]}: {self.left_out[0][1]}" if samples else "its folders are empty"
            raise DataError(f"none of {len(samples)} images in {self.root} can be used; {why}")
        return [sample for sample, why in zip(samples, reasons, strict=True) if not why]


class FlatFolder(ReadOnlyFolder):
    """The same of images that lie in no folder a class: they have none.

    Args:
        root: The folder that holds them.
        args, images, seed: As for :class:`ReadOnlyFolder`.
    """

    def __init__(self, root: Path, args: Any, *, images: int | None = None, seed: int | None = None) -> None:
        base = SimpleNamespace(root=str(root), classes=[""], samples=[(file, 0) for file in _images_of(root)])
        with replaced(torchvision.datasets, "ImageFolder", lambda **_: base):  # which asks for folders
            super().__init__(root, args, classes={}, images=images, seed=seed)

    def _count(self, classes: Mapping[int, str]) -> None:
        self.labels: list[dict[str, Any]] = [{"cls": ()}] * len(self.samples)


def _why_unreadable(im_file: str) -> str:
    """Empty where an image can be read."""
    with untouched(im_file) as checked:
        _, found, _, message = verify_image(((checked, 0), ""))
    return "" if found else one_line(str(message).rpartition("ignoring corrupt image/label: ")[2])
