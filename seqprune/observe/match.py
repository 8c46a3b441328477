"""Which labelled objects the detector finds, and where on a feature map an object lies."""

from __future__ import annotations

import torch

from seqprune.observe.batch import Batch

IOU_THRESHOLD = 0.5


def centre_cells(
    boxes: torch.Tensor, image_hw: tuple[int, int], feature_hw: tuple[int, int]
) -> tuple[torch.Tensor, torch.Tensor]:
    """Feature-map cells under the centres of boxes.

    Args:
        boxes: ``[M, 4]``, ``x1 y1 x2 y2`` in pixels.
        image_hw: height and width of the image in pixels.
        feature_hw: height and width of the feature map in cells.

    Returns:
        Rows and columns, ``[M]`` int64, clamped to the map.
    """
    height, width = feature_hw
    stride_y, stride_x = image_hw[0] / height, image_hw[1] / width
    centre = (boxes[:, :2].double() + boxes[:, 2:].double()) / 2
    rows = (centre[:, 1] / stride_y).floor().long().clamp(0, height - 1)
    columns = (centre[:, 0] / stride_x).floor().long().clamp(0, width - 1)
    return rows, columns


def box_iou(left: torch.Tensor, right: torch.Tensor) -> torch.Tensor:
    """Intersection over union of every pair, ``[M, 4]`` × ``[N, 4]`` → ``[M, N]`` in [0, 1]."""
    top = torch.maximum(left[:, None, :2], right[None, :, :2])
    bottom = torch.minimum(left[:, None, 2:], right[None, :, 2:])
    inter = (bottom - top).clamp(min=0).prod(2)
    areas = [(b[:, 2:] - b[:, :2]).clamp(min=0).prod(1) for b in (left, right)]
    union = areas[0][:, None] + areas[1][None] - inter
    return inter / union.clamp(min=torch.finfo(union.dtype).tiny)


def best_matches(
    boxes: torch.Tensor, classes: torch.Tensor, predictions: torch.Tensor
) -> tuple[torch.Tensor, torch.Tensor]:
    """For every labelled object of one image the prediction of its class that overlaps it most.

    Args:
        boxes: ``[M, 4]`` pixels.
        classes: ``[M]`` class ids.
        predictions: ``[N, 6]``: box in pixels, confidence, class.

    Returns:
        Indices into ``predictions``, -1 where no overlap is above 0.5, and the overlap (0 without a match).
    """
    if not len(predictions) or not len(boxes):
        return torch.full((len(boxes),), -1), torch.zeros(len(boxes), dtype=boxes.dtype)
    overlap = box_iou(boxes, predictions[:, :4].to(boxes.dtype))
    overlap = overlap * (classes[:, None] == predictions[None, :, 5].long())
    best, index = overlap.max(1)
    found = best > IOU_THRESHOLD
    return torch.where(found, index, -1), torch.where(found, best, torch.zeros_like(best))


def matched_objects(batch: Batch, predictions: list[torch.Tensor]) -> torch.Tensor:
    """``[M]`` bool: the objects of a batch that the model found, given its predictions image by image.

    Predictions are rows that end in a class; those of a detector are ``x1 y1 x2 y2``, confidence and class.
    """
    matched = torch.zeros(len(batch.classes), dtype=torch.bool)
    for image, found in enumerate(predictions):
        mine = batch.image_index == image
        if batch.boxes is None:
            matched[mine] = (batch.classes[mine][:, None] == found[:, -1].long().cpu()).any(1)
            continue
        index, _ = best_matches(batch.boxes[mine], batch.classes[mine], found.to(batch.boxes.device))
        matched[mine] = index >= 0
    return matched
