"""Detectors with random weights, and plans of random channels."""

from __future__ import annotations

from functools import cache

import numpy as np
import torch
from torch import nn

from seqprune.graph import ChannelGraph, trace
from seqprune.plan import PrunePlan
from seqprune.yolo.files.load import load

ROUND_TO = 8


@cache
def detector(scale: str) -> nn.Module:
    """YOLOv8 of a scale from n to x; seeded, never changed."""
    torch.manual_seed(0)
    return load(f"yolov8{scale}.yaml").model


@cache
def graph_of(scale: str) -> ChannelGraph:
    return trace(detector(scale), example_inputs())


def example_inputs() -> torch.Tensor:
    return torch.zeros(1, 3, 64, 64)


def random_plan(graph: ChannelGraph, keep: float) -> PrunePlan:
    """Keeps about that share of the channels of every layer, counts rounded up to a multiple of 8."""
    scores = np.random.default_rng(0).random(graph.group_count)
    free = ~graph.pinned
    removed = free & (scores > keep)
    return PrunePlan.from_removed(graph, graph.legalise(removed, scores, free, ROUND_TO))


def kept_channels(graph: ChannelGraph, plan: PrunePlan) -> int:
    """Over all layers."""
    return sum(layer.channels for layer in graph.all_layers) - sum(layer.removed for layer in plan.layers)
