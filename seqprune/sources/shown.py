"""How images are shown to a network: their size, what of them, and in which numbers."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
import torch
from PIL import Image, ImageOps
from torch import nn

from seqprune.errors import InputError

_RESAMPLING = {"nearest": 0, "lanczos": 1, "bilinear": 2, "bicubic": 3, "box": 4, "hamming": 5}


@dataclass(frozen=True)
class Shown:
    """ImageNet's where nothing else is known.

    Attributes:
        imgsz: side of what the network sees, in pixels.
        crop: that, over the shorter side of the resized image.
        mean, std: of each channel in [0, 1]; subtracted, and divided by.
        resampling: name of the filter.
    """

    imgsz: int = 224
    crop: float = 0.875
    mean: tuple[float, ...] = (0.485, 0.456, 0.406)
    std: tuple[float, ...] = (0.229, 0.224, 0.225)
    resampling: str = "bilinear"

    def but(self, imgsz: int | None, mean: Sequence[float] | None, std: Sequence[float] | None) -> Shown:
        """With what the caller says instead.

        Raises:
            InputError: numbers that cannot be used.
        """
        given = {"imgsz": imgsz, "mean": mean and tuple(mean), "std": std and tuple(std)}
        found = replace(self, **{name: value for name, value in given.items() if value})  # type: ignore[arg-type]
        if len(found.mean) != len(found.std) or len(found.mean) not in (1, 3) or min(found.std) <= 0:
            raise InputError(
                f"mean={list(found.mean)}, std={list(found.std)}: give as many of each as images have channels, 3 or "
                "1, std greater than 0"
            )
        return found

    @property
    def channels(self) -> int:
        return len(self.mean)

    def read(self, file: Path) -> torch.Tensor:
        """``[channels, imgsz, imgsz]`` float32: the middle of the image.

        Raises:
            OSError, ValueError: it cannot be read.
        """
        with Image.open(file) as found:
            image = ImageOps.exif_transpose(found).convert("L" if self.channels == 1 else "RGB")
        short = max(self.imgsz, int(self.imgsz / self.crop))
        width, height = (max(short, int(short * side / min(image.size))) for side in image.size)
        image = image.resize((width, height), Image.Resampling(_RESAMPLING[self.resampling]))
        left, top = round((width - self.imgsz) / 2), round((height - self.imgsz) / 2)
        pixels = np.asarray(image.crop((left, top, left + self.imgsz, top + self.imgsz)), np.float32) / 255
        planes = torch.from_numpy(pixels.reshape(self.imgsz, self.imgsz, self.channels)).permute(2, 0, 1)
        mean, std = (torch.tensor(numbers)[:, None, None] for numbers in (self.mean, self.std))
        return ((planes - mean) / std).contiguous()


def of_timm(model: nn.Module) -> Shown:
    """What timm says of a network of its own; ImageNet's for any other."""
    known: Any = getattr(model, "pretrained_cfg", None)
    if not isinstance(known, dict) or "input_size" not in known:
        return Shown()
    resampling = known.get("interpolation", "bicubic")
    return Shown(
        int(known["input_size"][-1]),
        float(known.get("crop_pct") or 0.875),
        tuple(known["mean"]),
        tuple(known["std"]),
        resampling if resampling in _RESAMPLING else "bicubic",
    )


def of_torchvision(weights: Iterable[Any]) -> Shown:
    """What torchvision says of the first weights of a network, which are not downloaded."""
    presets: Any = next((entry.transforms() for entry in weights), None)
    if not hasattr(presets, "crop_size"):
        return Shown()
    size, short = presets.crop_size[0], presets.resize_size[0]
    return Shown(size, size / short, tuple(presets.mean), tuple(presets.std), str(presets.interpolation.value))
