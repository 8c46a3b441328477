"""Images in folders, for any network that takes one image: a folder a class, numbered files, or no classes at all.

``ROOT/train/CLASS/x.jpg`` and ``ROOT/val/CLASS/y.jpg``, or ``ROOT/CLASS/x.jpg``, or files alone in the place of the
folders. Nothing is written there.
"""

from __future__ import annotations

import random
import re
from collections.abc import Iterable, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from PIL import Image

from seqprune.errors import DataError
from seqprune.observe.batch import Batch
from seqprune.plain import printable
from seqprune.sources.shown import Shown
from seqprune.yolo.data.classes import imagenet_codes
from seqprune.yolo.data.files import FileImages
from seqprune.yolo.files.contained import contained

SPLITS = {"train": ("train", "calib"), "val": ("val", "eval", "test", "validation")}
"""What folders of images to look at, and to measure on, are called."""
ENDINGS = frozenset({".jpg", ".jpeg", ".png", ".bmp", ".webp", ".tif", ".tiff", ".ppm", ".pgm"})
IMAGENET = 1000
"""Classes of the networks that know those of ImageNet."""
_NUMBER = re.compile(r"(\d{1,9})(?:$|[ _-])")
_NUMBER_AND_MORE = re.compile(r"(\d{1,9})[ _-]")  # of files, which are numbered for other reasons as well
_UNREADABLE = (OSError, ValueError, SyntaxError, ImportError, Image.DecompressionBombError)


@dataclass(frozen=True)
class Found:
    """The images of a split.

    Attributes:
        root: its folder.
        files: sorted.
        classes: of each file what says its class: its folder's name, or its own where it lies in none.
        in_folders: whether they lie in folders.
    """

    root: Path
    files: tuple[Path, ...]
    classes: tuple[str, ...]
    in_folders: bool


@dataclass(frozen=True)
class Labels:
    """Which class a name stands for.

    Attributes:
        ids: by name of a folder or file; empty where nothing is labelled.
        names: class id to the name of its folder.
        note: what was done, or why nothing could be.
    """

    ids: Mapping[str, int]
    names: Mapping[int, str]
    note: str


class FolderImages(FileImages):
    """Images of a split, in batches, in a seeded random order: a batch, and what is held out, mixes the classes.

    Args:
        found: the files.
        labels: their classes.
        shown: how a network sees them.
        batch: images of one batch.
        images: so many, drawn with ``seed``; all of them where None.
        seed: of the draw and the order.

    Attributes:
        classes: one more than the greatest class id; 0 where nothing is labelled.

    Raises:
        DataError: none of the images can be read.
    """

    def __init__(
        self, found: Found, labels: Labels, shown: Shown, batch: int = 16, images: int | None = None, seed: int = 0
    ) -> None:
        order = random.Random(seed).sample(range(len(found.files)), len(found.files))[:images]  # noqa: S311 - no secret
        with contained(), ThreadPoolExecutor(4) as pool:  # Ultralytics' way of opening images installs packages
            reasons = list(pool.map(_why_unreadable, (found.files[at] for at in order)))
        chosen = [at for at, why in zip(order, reasons, strict=True) if not why]
        if not chosen:
            raise DataError(f"none of {len(order)} images in {found.root} can be used; the first: {reasons[0]}")
        left_out = sorted(found.files[at] for at, why in zip(order, reasons, strict=True) if why)
        self.unreadable = tuple(str(file.relative_to(found.root)) for file in left_out)
        self.names = dict(labels.names)
        self.shown = shown
        kinds = [labels.ids[found.classes[at]] for at in chosen] if labels.ids else []
        self.classes = max(kinds, default=-1) + 1
        super().__init__(_Pictures([found.files[at] for at in chosen], kinds, shown), batch, _together)

    def fingerprint(self) -> str:
        return f"{super().fingerprint()} {self.shown}"


class _Pictures:
    def __init__(self, files: Sequence[Path], kinds: Sequence[int], shown: Shown) -> None:
        self.im_files, self.kinds, self.shown = files, kinds, shown

    def __len__(self) -> int:
        return len(self.im_files)

    def __getitem__(self, index: int) -> dict[str, Any]:
        kind = {"cls": self.kinds[index]} if self.kinds else {}
        return {"img": self.shown.read(self.im_files[index])} | kind


def _together(items: list[dict[str, Any]]) -> Batch:
    kinds = torch.tensor([item["cls"] for item in items if "cls" in item], dtype=torch.int64)
    return Batch(torch.stack([item["img"] for item in items]), torch.arange(len(kinds)), kinds)


def found_in(root: str | Path) -> dict[str, Found]:
    """The splits ``train`` and ``val`` of a folder; where it has none, all of it is ``train``.

    Raises:
        DataError: there is no such folder, or no image in it.
    """
    root = Path(root)
    if not root.is_dir():
        raise DataError(f"{root}: no such folder; give one with images, in a folder a class or not")
    splits: dict[str, Found] = {}
    for split, names in SPLITS.items():
        folder = next((root / name for name in names if (root / name).is_dir()), None)
        if folder is not None:
            splits[split] = _listed(folder)
    if "train" not in splits:
        if splits:
            raise DataError(f"{root}: has val and no train; give both, or one folder without either")
        splits["train"] = _listed(root)
    return splits


def _listed(folder: Path) -> Found:
    inside = sorted(each for each in folder.iterdir() if each.is_dir())
    files = [(file, kind.name) for kind in inside for file in sorted(kind.rglob("*")) if _is_image(file)]
    if not files:
        files = [(file, file.name) for file in sorted(folder.iterdir()) if _is_image(file)]
        inside = []
    if not files:
        raise DataError(f"{folder}: holds no image ({', '.join(sorted(ENDINGS))}), and no folder with one")
    return Found(folder, tuple(file for file, _ in files), tuple(name for _, name in files), bool(inside))


def _is_image(path: Path) -> bool:
    return path.suffix.lower() in ENDINGS and path.is_file()


def labelled(splits: Iterable[Found], classes: int | None) -> Labels:
    """The classes of files by the names that they lie under.

    Names that begin with numbers are classes of these numbers; others are counted as they are sorted, where there are
    as many as the network has classes.

    Args:
        splits: all that are read: they count alike.
        classes: that the network has; ``None`` where it does not classify.
    """
    found = list(splits)
    if classes is None:
        return Labels({}, {}, "the network returns no logits of classes")
    names = sorted({name for split in found for name in split.classes})
    in_folders = all(split.in_folders for split in found)
    pattern = _NUMBER if in_folders else _NUMBER_AND_MORE
    numbers = [pattern.match(name) for name in names]
    if all(numbers) and all(number is not None and int(number[1]) < classes for number in numbers):
        ids = {name: int(number[1]) for name, number in zip(names, numbers, strict=True) if number is not None}
        shown = {number: name for name, number in ids.items()} if in_folders else {}
        return Labels(ids, shown, f"classes are the numbers that {_what(in_folders)} begin with")
    if not in_folders:
        return Labels({}, {}, "files lie in no folder a class, and their names begin with no numbers of classes")
    if classes == IMAGENET and len(names) != classes and set(names) <= set(codes := imagenet_codes()):
        ids = {name: codes.index(name) for name in names}
        return Labels(ids, {number: name for name, number in ids.items()}, "classes are ImageNet's, by their codes")
    if len(names) == classes:
        return Labels({name: number for number, name in enumerate(names)}, dict(enumerate(names)), "")
    such = ", ".join(printable(name, 40) for name in names[:3])
    why = f"{len(names)} folders ({such} …) are not the network's {classes} classes"
    return Labels({}, {}, f"{why}; begin their names with its numbers: 003_shark")


def _what(in_folders: bool) -> str:
    return "names of folders" if in_folders else "names of files"


def _why_unreadable(file: Path) -> str:
    """Empty where an image can be read to its end."""
    try:
        with Image.open(file) as image:
            image.draft("RGB", (32, 32))  # a JPEG is read whole and decoded small
            image.load()
    except _UNREADABLE as error:
        # Ultralytics asks for a reader of HEIC of whatever Pillow cannot read: what Pillow said is the reason.
        first = error.__context__ if isinstance(error, ImportError) else None
        return f"{file.name}: {printable(first or error, 200)}"
    return ""
