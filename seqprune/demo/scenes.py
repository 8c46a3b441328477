"""A detection set made on the spot: handwritten digits in cluttered scenes, nothing to download.

scikit-learn ships 1797 handwritten digits of 8 × 8 pixels. A scene is a square colour image with a shaded,
striped and noisy background, a few strokes that are no digits, and two to six digits of different size,
colour, contrast and slant, of which some overlap a little. Digits of the training scenes and digits of the
validation scenes are different handwriting samples: the split of the 1797 is fixed, whatever the seed, so a
detector trained on the training scenes of one seed has not seen the validation digits of any other.

Scene ``i`` of a split depends on nothing but ``(seed, split, i, size)``: a longer set begins with the
shorter one.
"""

import json
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from typing import Any, Literal

import numpy as np
from numpy.typing import NDArray
from PIL import Image, ImageDraw
from sklearn.datasets import load_digits

from ..errors import InputError

Split = Literal["train", "val"]

CLASSES = 10
_SPLITS: tuple[Split, ...] = ("train", "val")
_VALIDATION_SHARE = 0.25
_INK = 0.25  # coverage below this is background: a box ends at the last pixel that shows the digit
_LEAST_CONTRAST = 28.0  # grey levels between a digit's colour and the mean of what it covers
_MOST_CONTRAST = 150.0
_MOST_OVERLAP = 0.12  # of the smaller of two boxes
_TRIES = 30  # places tried before a digit is given up

Floats = NDArray[np.float64]
Bytes = NDArray[np.uint8]
Ints = NDArray[np.int64]


@dataclass(frozen=True)
class Scene:
    """One labelled image, and what a test needs to see that the labels are right.

    Attributes:
        image: ``(size, size, 3)`` RGB, 0 to 255.
        background: the same image before any digit was put in; equal to ``image`` outside the boxes.
        boxes: ``(n, 4)`` left, top, right, bottom in pixels; right and bottom are the first pixel outside.
        classes: ``(n,)`` the digits' values, 0 to 9.
        samples: ``(n,)`` which of scikit-learn's digits they are, 0 to 1796.
    """

    image: Bytes
    background: Bytes
    boxes: Ints
    classes: Ints
    samples: Ints


def write_scenes(folder: str | Path, *, train: int, val: int, size: int = 128, seed: int = 0) -> Path:
    """Write a detection data set in YOLO's format and return its ``data.yaml``.

    The folder receives ``images/{train,val}/*.png``, ``labels/{train,val}/*.txt`` and ``data.yaml``, which
    names the folder by its absolute path. Scenes that an earlier call left there are replaced.

    Args:
        folder: where to write; made if it is not there.
        train: number of training scenes, at least 1.
        val: number of validation scenes, at least 1.
        size: side of a scene in pixels, a multiple of 32, at least 64; digits scale with it.
        seed: any non-negative integer; the same seed writes the same bytes.

    Raises:
        InputError: a number is out of range.
    """
    counts: dict[Split, int] = {"train": train, "val": val}
    for split, count in counts.items():
        if count < 1:
            raise InputError(f"{split}={count} scenes asked for: a data set needs at least one; raise {split}.")
    _check_size_and_seed(size, seed)
    folder = Path(folder).resolve()
    for split, count in counts.items():
        images, labels = folder / "images" / split, folder / "labels" / split
        _empty(images, labels)
        for index in range(count):
            scene = make_scene(split, index, size=size, seed=seed)
            name = f"scene_{index:05d}"
            Image.fromarray(scene.image).save(images / f"{name}.png", compress_level=1)
            (labels / f"{name}.txt").write_text(_label_lines(scene, size), encoding="utf-8")
    data = folder / "data.yaml"
    names = "".join(f"  {digit}: '{digit}'\n" for digit in range(CLASSES))
    # A JSON string is a YAML string, whatever characters the path has.
    path = json.dumps(str(folder), ensure_ascii=False)
    data.write_text(f"path: {path}\ntrain: images/train\nval: images/val\nnames:\n{names}", encoding="utf-8")
    return data


def make_scene(split: Split, index: int, *, size: int = 128, seed: int = 0) -> Scene:
    """Scene number ``index`` of a split; see the module's text for what it depends on.

    Raises:
        InputError: a number is out of range.
    """
    _check_size_and_seed(size, seed)
    rng = np.random.default_rng([seed, _SPLITS.index(split), index])
    canvas = _background(rng, size)
    # Drawn before the digits and added to both pictures, so that they differ at digits only.
    grain = rng.normal(0.0, rng.uniform(2.0, 14.0), canvas.shape)
    background = _to_bytes(canvas + grain)

    pool = split_samples()[split]
    inks, values = _digits()
    boxes: list[tuple[int, int, int, int]] = []
    samples: list[int] = []
    for sample in rng.choice(pool, size=int(rng.integers(2, 7)), replace=False):
        ink = _written(rng, inks[sample], size)
        box = _place(rng, ink.shape, boxes, size)
        if box is None:
            continue
        left, top, right, bottom = box
        patch = canvas[top:bottom, left:right]
        colour = _contrasting(rng, patch.reshape(-1, 3).mean(axis=0))
        patch += ink[:, :, None] * (colour - patch)
        boxes.append(box)
        samples.append(int(sample))
    return Scene(
        image=_to_bytes(canvas + grain),
        background=background,
        boxes=np.array(boxes, dtype=np.int64).reshape(-1, 4),
        classes=values[samples],
        samples=np.array(samples, dtype=np.int64),
    )


@cache
def split_samples() -> dict[Split, Ints]:
    """Which of scikit-learn's digits each split may use: sorted indices, disjoint, all 1797 together."""
    count = len(_digits()[1])
    order = np.random.default_rng(1797).permutation(count)
    cut = round(count * _VALIDATION_SHARE)
    return {"train": np.sort(order[cut:]), "val": np.sort(order[:cut])}


@cache
def _digits() -> tuple[Floats, Ints]:
    """``(1797, 8, 8)`` ink coverage, 0 to 1, and ``(1797,)`` values, 0 to 9."""
    bunch: Any = load_digits()
    return np.asarray(bunch.images, dtype=np.float64) / 16.0, np.asarray(bunch.target, dtype=np.int64)


def _check_size_and_seed(size: int, seed: int) -> None:
    if size < 64 or size % 32:
        raise InputError(f"size={size}: digits need room and the detector's coarsest grid; give 64, 96, 128, …")
    if seed < 0:
        raise InputError(f"seed={seed}: a seed is a non-negative integer; give 0 or more.")


def _empty(images: Path, labels: Path) -> None:
    """Make both folders and take out an earlier call's scenes.

    Ultralytics' label cache goes too: it is trusted when paths and total size agree, whatever the labels say.
    """
    for folder, pattern in ((images, "scene_*.png"), (labels, "scene_*.txt")):
        folder.mkdir(parents=True, exist_ok=True)
        for old in folder.glob(pattern):
            old.unlink()
    labels.with_suffix(".cache").unlink(missing_ok=True)


def _label_lines(scene: Scene, size: int) -> str:
    """YOLO's label text: a line per object, class, then centre x, centre y, width, height over ``size``."""
    lines = []
    for value, (left, top, right, bottom) in zip(scene.classes, scene.boxes / size, strict=True):
        numbers = ((left + right) / 2, (top + bottom) / 2, right - left, bottom - top)
        lines.append(" ".join([str(value), *(f"{number:.6f}" for number in numbers)]) + "\n")
    return "".join(lines)


def _to_bytes(canvas: Floats) -> Bytes:
    return np.clip(np.rint(canvas), 0, 255).astype(np.uint8)


def _background(rng: np.random.Generator, size: int) -> Floats:
    """``(size, size, 3)`` shading, stripes and stray strokes, about 0 to 255 and not clipped."""
    base = rng.uniform(30.0, 225.0, 3)
    cells = int(rng.integers(2, 9))
    coarse = rng.normal(0.0, rng.uniform(5.0, 30.0), (cells, cells, 3))
    shading = np.stack([_resize(coarse[:, :, channel], size, size) for channel in range(3)], axis=-1)
    angle, period = rng.uniform(0.0, np.pi), rng.uniform(0.04, 0.3) * size
    across = np.arange(size) * np.cos(angle), np.arange(size)[:, None] * np.sin(angle)
    stripes = np.sin(2 * np.pi * (across[0] + across[1]) / period + rng.uniform(0.0, 2 * np.pi))
    canvas: Floats = base + shading + stripes[:, :, None] * rng.normal(0.0, 9.0, 3)

    # Strokes that are no digits, of the same kind of colours: without them any edge would be an object.
    for _ in range(int(rng.integers(0, 6))):
        mask = Image.new("L", (size, size))
        draw = ImageDraw.Draw(mask)
        x, y = rng.uniform(0, size, 2)
        reach = rng.uniform(0.05, 0.3) * size
        width = int(rng.integers(1, max(2, size // 20)))
        bend = rng.uniform(0.0, 360.0)
        if rng.random() < 0.5:
            end = (x + reach * np.cos(np.radians(bend)), y + reach * np.sin(np.radians(bend)))
            draw.line([(x, y), end], fill=255, width=width)
        else:
            frame = [x - reach / 2, y - reach / 2, x + reach / 2, y + reach / 2]
            draw.arc(frame, bend, bend + rng.uniform(60.0, 200.0), fill=255, width=width)
        coverage = np.asarray(mask, dtype=np.float64)[:, :, None] / 255.0
        canvas += coverage * rng.uniform(0.3, 1.0) * (_contrasting(rng, base) - canvas)
    return canvas


def _written(rng: np.random.Generator, digit: Floats, size: int) -> Floats:
    """One digit's coverage, ``(height, width)`` in [0, 1], scaled, slanted and cut to its ink.

    Every edge row and every edge column holds a pixel of at least ``_INK``.
    """
    longest = size * float(np.exp(rng.uniform(np.log(0.125), np.log(0.42))))
    aspect = float(np.exp(rng.uniform(-0.15, 0.15)))
    height, width = max(8, round(longest * aspect)), max(8, round(longest / aspect))
    # A margin of one cell on each side: what is turned stays inside, edges fade to nothing.
    grid = np.pad(digit, 1)
    large = Image.fromarray(_resize(grid, width * 10 // 8, height * 10 // 8).astype(np.float32))
    turned = large.rotate(float(rng.normal(0.0, 10.0)), Image.Resampling.BILINEAR, expand=True)
    coverage = np.clip(np.asarray(turned, dtype=np.float64), 0.0, 1.0)
    coverage[coverage < _INK] = 0.0
    rows, columns = np.flatnonzero(coverage.any(axis=1)), np.flatnonzero(coverage.any(axis=0))
    return coverage[rows[0] : rows[-1] + 1, columns[0] : columns[-1] + 1]


def _place(
    rng: np.random.Generator, shape: tuple[int, ...], taken: list[tuple[int, int, int, int]], size: int
) -> tuple[int, int, int, int] | None:
    """A box of ``shape`` inside the scene that overlaps the taken ones a little at most, or None."""
    height, width = shape
    for _ in range(_TRIES):
        left = int(rng.integers(0, size - width + 1))
        top = int(rng.integers(0, size - height + 1))
        box = (left, top, left + width, top + height)
        if all(_overlap(box, other) <= _MOST_OVERLAP for other in taken):
            return box
    return None


def _overlap(one: tuple[int, int, int, int], other: tuple[int, int, int, int]) -> float:
    """Shared area over the smaller box's area, 0 to 1."""
    width = min(one[2], other[2]) - max(one[0], other[0])
    height = min(one[3], other[3]) - max(one[1], other[1])
    smaller = min((box[2] - box[0]) * (box[3] - box[1]) for box in (one, other))
    return max(0, width) * max(0, height) / smaller


def _contrasting(rng: np.random.Generator, colour: Floats) -> Floats:
    """``(3,)`` a colour, 0 to 255, whose grey level is a drawn contrast away from the given one's."""
    contrast = float(np.exp(rng.uniform(np.log(_LEAST_CONTRAST), np.log(_MOST_CONTRAST))))
    grey = float(np.clip(colour.mean(), 0.0, 255.0))
    lighter = rng.random() < 0.5
    if (grey + contrast > 255.0) if lighter else (grey - contrast < 0.0):
        lighter = not lighter
    target = float(np.clip(grey + contrast if lighter else grey - contrast, 0.0, 255.0))
    tint = rng.normal(0.0, 25.0, 3)
    result: Floats = np.clip(target + tint - tint.mean(), 0.0, 255.0)
    return result


def _resize(values: Floats, width: int, height: int) -> Floats:
    """Bicubic resampling of a ``(rows, columns)`` array to ``(height, width)``."""
    picture = Image.fromarray(values.astype(np.float32)).resize((width, height), Image.Resampling.BICUBIC)
    resized: Floats = np.asarray(picture, dtype=np.float64)
    return resized
