"""Every architecture that Ultralytics ships, built from its YAML at the smallest scale."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import torch
import ultralytics
import yaml
from torch import nn
from ultralytics.nn import tasks

MODELS = Path(ultralytics.__file__).parent / "cfg" / "models"
SIDE = 128  # two pixels a side at a stride of 64: BatchNorm of one pixel each in two images loses all digits

# Of releases that lack one, no YAML asks for it.
BY_HEAD: dict[str, Any] = {
    head: getattr(tasks, network, None)
    for head, network in {
        "Classify": "ClassificationModel",
        "Depth": "DepthModel",
        "OBB": "OBBModel",
        "Pose": "PoseModel",
        "RTDETRDecoder": "RTDETRDetectionModel",
        "Segment": "SegmentationModel",
        "SemanticSegment": "SemanticSegmentationModel",
        "WorldDetect": "WorldModel",
        "YOLOEDetect": "YOLOEModel",
        "YOLOESegment": "YOLOESegModel",
    }.items()
}


def names() -> list[str]:
    return sorted(path.stem for path in MODELS.rglob("*.yaml"))


def build(name: str) -> tuple[nn.Module, tuple[torch.Tensor, ...]]:
    """The network in float64 with random weights, and an image."""
    (path,) = MODELS.rglob(f"{name}.yaml")
    cfg = yaml.safe_load(path.read_text(encoding="utf-8"))
    cfg.setdefault("scale", next(iter(cfg.get("scales", {"": ()}))))
    for layer in (*cfg["backbone"], *cfg["head"]):
        if layer[2] == "TorchVision":  # name, weights, ...: the architecture alone, nothing is downloaded
            layer[3] = [None if argument == "DEFAULT" else argument for argument in layer[3]]
    head = cfg["head"][-1][2].removesuffix("26")
    torch.manual_seed(0)
    model = BY_HEAD.get(head, tasks.DetectionModel)(cfg, verbose=False)
    return model.double().eval(), (torch.rand(1, 3, SIDE, SIDE, dtype=torch.float64),)
