"""A few validation images with what two networks find in them, small enough for a page."""

from __future__ import annotations

import base64
import io
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import torch
from PIL import Image
from torch import nn

from seqprune.observe.batch import Batch
from seqprune.observe.inputs import as_input
from seqprune.yolo.data.images import images_for
from seqprune.yolo.task.predict import predict

COUNT, SIDE, QUALITY = 4, 320, 80
"""So many images, their longer side in pixels, and how their JPEGs are written."""
MOST = 40
"""Boxes of one image that are kept, the most confident first."""


def pictures(
    before: nn.Module, after: nn.Module, data: str | Path, names: Mapping[int, str], **how: Any
) -> tuple[dict[str, Any], ...]:
    """A sample of the ``val`` images, see :meth:`seqprune.engine.task.Task.pictures`.

    Args:
        before, after: the networks, in inference mode, on one device.
        data: as for :func:`seqprune.yolo.data.images.images_for`.
        names: class id to name.
        how: further arguments of that function: ``task``, ``imgsz``, ``stride``, ``some``.

    Raises:
        DataError: the images cannot be used.
    """
    images = images_for(data=data, split="val", batch=1, images=COUNT, names=names, labelled=False, **how)
    files = list(images.files)
    return tuple(
        _picture(batch, before, after, names, Path(file).name) for batch, file in zip(images, files, strict=True)
    )


def _picture(batch: Batch, before: nn.Module, after: nn.Module, names: Mapping[int, str], name: str) -> dict[str, Any]:
    pixels: Any = batch.images[0]
    height, width = pixels.shape[-2:]
    scale = min(1.0, SIDE / max(height, width))
    found = {
        when: [_entry(row, scale, names) for row in predict(model, as_input(batch.images, model))[0][:MOST].tolist()]
        for when, model in (("before", before), ("after", after))
    }
    return {
        **{"name": name, "jpeg": _jpeg(pixels, scale), "width": round(width * scale), "height": round(height * scale)},
        **found,
        "labels": _labels(batch, scale, names),
    }


def _entry(row: list[float], scale: float, names: Mapping[int, str]) -> list[Any]:
    """A row of :func:`seqprune.yolo.task.predict.predict`, its class by name."""
    *corners, confidence, kind = row
    return [*(round(value * scale, 1) for value in corners), round(confidence, 3), names.get(int(kind), str(int(kind)))]


def _labels(batch: Batch, scale: float, names: Mapping[int, str]) -> list[list[Any]]:
    kinds = [names.get(int(kind), str(int(kind))) for kind in batch.classes]
    if batch.boxes is None:
        return [[1.0, kind] for kind in kinds]
    return [
        [*(round(value * scale, 1) for value in box), 1.0, kind]
        for box, kind in zip(batch.boxes.tolist(), kinds, strict=True)
    ]


def _jpeg(pixels: torch.Tensor, scale: float) -> str:
    """``[3, H, W]`` as base64; of other channels than colours the first, in grey."""
    whole = pixels if pixels.dtype == torch.uint8 else (pixels.float() * 255).round().clamp(0, 255).to(torch.uint8)
    shown = whole if len(whole) == 3 else whole[:1].expand(3, -1, -1)
    image = Image.fromarray(shown.permute(1, 2, 0).contiguous().cpu().numpy())
    image = image.resize((max(1, round(image.width * scale)), max(1, round(image.height * scale))))
    file = io.BytesIO()
    image.save(file, "JPEG", quality=QUALITY)
    return base64.b64encode(file.getvalue()).decode("ascii")
