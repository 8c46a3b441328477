"""Ultralytics' networks of four layers, one for every task: built, saved and loaded in milliseconds."""

from __future__ import annotations

from typing import Any

import torch

from seqprune.yolo.files.networks import build

CONV = [-1, 1, "Conv", [8, 3, 2]]
HEADS: dict[str, list[Any]] = {
    "detect": [[2], 1, "Detect", ["nc"]],
    "segment": [[2], 1, "Segment", ["nc", 4, 8]],
    "pose": [[2], 1, "Pose", ["nc", [3, 2]]],
    "obb": [[2], 1, "OBB", ["nc", 1]],
    "classify": [-1, 1, "Classify", ["nc"]],
}
QUERIES = [[2], 1, "RTDETRDecoder", ["nc", 32, 10]]


def described(task: str = "detect", **changes: Any) -> dict[str, Any]:
    """A model YAML of two classes."""
    points = {"kpt_shape": [3, 2]} if task == "pose" else {}
    return {"nc": 2, "channels": 3, **points, "backbone": [CONV] * 3, "head": [HEADS[task]], **changes}


def network(task: str = "detect", *names: str, **changes: Any) -> Any:
    """What is built from it, seeded, with names for its classes."""
    torch.manual_seed(0)
    names = names or ("green", "red")
    model: Any = build(task, described(task, nc=len(names), **changes), len(names))
    model.names, model.task, model.args = dict(enumerate(names)), task, {"imgsz": 64, "task": task}
    return model
