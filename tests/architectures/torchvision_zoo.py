"""torchvision's networks for classification, segmentation, detection and optical flow, with random weights."""

from __future__ import annotations

from typing import Any

import torch
from torch import nn
from torch.nn import functional as F  # noqa: N812 - its usual name
from torchvision import models

# Sides of images that leave every map more than a pixel, where 64 is not enough or the network names its own.
SIDES = {"alexnet": 96, "googlenet": 64, "inception": 299, "maxvit": 224, "raft": 128, "ssd300": 300, "vit": 64}
SIDES |= {"vit_h_14": 56, "fasterrcnn": 128, "maskrcnn": 128, "keypointrcnn": 128, "retinanet": 128, "fcos": 128}
LARGE = 150e6  # parameters from which float32 is used for memory's sake, as for images of 300 pixels for time's

KINDS = {
    "classification": models,
    "segmentation": models.segmentation,
    "detection": models.detection,
    "optical flow": models.optical_flow,
}
# What the pruning library with the widest coverage lists as its own test, by name or family.
PEER = (
    "vit convnext densenet efficientnet mnasnet mobilenet regnet_y resnet resnext wide_resnet fcn deeplabv3 lraspp "
    "squeezenet vgg ssdlite ssd300 fasterrcnn shufflenet swin_t swin_s swin_b alexnet googlenet inception fcos "
    "keypointrcnn maskrcnn_resnet50_fpn_v2 retinanet_resnet50_fpn_v2 raft_large"
).split()


def names() -> list[str]:
    return sorted(name for module in KINDS.values() for name in models.list_models(module=module))


def kind(name: str) -> str:
    return next(k for k, module in KINDS.items() if name in models.list_models(module=module))


def peer_names() -> list[str]:
    later = {"resnext101_64x4d"}  # than the release it was written for
    return [name for name in names() if name.startswith(tuple(PEER)) and name not in later]


class Dense(nn.Module):
    """A detector up to where it selects boxes: from there on, what is computed depends on the image.

    Detectors of two stages cut regions out of the maps of their backbone, which are outputs here, and keep their width;
    the heads of the second stage read the whole map in the place of a region.
    """

    def __init__(self, detector: nn.Module) -> None:
        super().__init__()
        self.detector: Any = detector

    def forward(self, image: torch.Tensor) -> list[Any]:
        maps = list(self.detector.backbone(image).values())
        if hasattr(self.detector, "head"):
            return [self.detector.head(maps)]
        out, regions = [maps, self.detector.rpn.head(maps)], self.detector.roi_heads
        for part in ("box", "mask", "keypoint"):
            if getattr(regions, f"{part}_head", None) is not None:
                size = getattr(regions, f"{part}_roi_pool").output_size
                region = F.adaptive_avg_pool2d(maps[0], size)
                out.append(getattr(regions, f"{part}_predictor")(getattr(regions, f"{part}_head")(region)))
        return out


def build(name: str) -> tuple[nn.Module, tuple[torch.Tensor, ...]]:
    """The network with random weights, in float64 where memory allows, and what it takes."""
    torch.manual_seed(0)
    family = name.split("_")[0]
    side = SIDES.get(name, SIDES.get(family, 64))
    options: dict[str, Any] = {"weights": None}
    if family == "vit":
        options["image_size"] = side
    if kind(name) in ("segmentation", "detection"):
        options["weights_backbone"] = None
    if family in ("fcn", "deeplabv3"):
        options["aux_loss"] = True
    if family in ("fasterrcnn", "maskrcnn", "keypointrcnn", "retinanet", "fcos"):
        options |= {"min_size": side, "max_size": side}
    if family in ("inception", "googlenet"):
        options["init_weights"] = False
    model = models.get_model(name, **options)
    if kind(name) == "detection":
        model = Dense(model)
    flow = kind(name) == "optical flow"  # takes two images; holds coordinates in float32
    small = sum(p.numel() for p in model.parameters()) < LARGE and side < 300
    dtype = torch.float64 if small and not flow else torch.float32
    return model.to(dtype).eval(), tuple(torch.rand(1, 3, side, side, dtype=dtype) for _ in range(1 + flow))
