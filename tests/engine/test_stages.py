"""What a run says of its stages: counted to the end, and no further."""

from __future__ import annotations

import re
from typing import Any

import torch
from torch import nn

import seqprune
from seqprune.engine.front import beaten
from seqprune.engine.listener import Listener


def network() -> nn.Module:
    torch.manual_seed(0)
    layers = [nn.Conv2d(3, 16, 3, padding=1), nn.ReLU(), nn.Conv2d(16, 16, 3, padding=1), nn.ReLU()]
    return nn.Sequential(*layers, nn.Conv2d(16, 4, 3), nn.AdaptiveAvgPool2d(1), nn.Flatten())


def test_parts_of_a_repair_are_counted_to_the_last_and_no_further() -> None:
    """A repair of 48 parts ended with its 49th."""
    heard: list[str] = []
    told = Listener(stage=lambda name, _total: heard.append(name))
    images = [(torch.rand(8, 3, 12, 12), torch.arange(8) % 4) for _ in range(8)]
    seqprune.prune(network(), images, target="params=0.7", by=["channels"], round_to=1, listener=told)
    parts = [
        tuple(map(int, found.groups()))
        for name in heard
        if (found := re.fullmatch(r"recover: part (\d+) of (\d+)", name))
    ]
    assert parts
    assert max(number for number, _ in parts) == parts[0][1]


def point(what: str, imgsz: int, time: float, score: float, bits: int = 32) -> dict[str, Any]:
    costs = {"share_of_time": time, "share_of_operations": time}
    return {"what": what, "imgsz": imgsz, **costs, "accuracy": {"map50_95": score}, "bits": bits}


def test_smaller_images_that_would_have_been_better_are_told() -> None:
    """A target of time left 0.07 of 0.35 where smaller images keep 0.33 in less time, and the table alone showed it."""
    points = [point("unpruned", 320, 1.0, 0.35), point("unpruned", 256, 0.66, 0.33), point("pruned", 320, 0.75, 0.07)]
    assert "images of 256 pixels is better: 66% of the time and map50_95 0.3300" in beaten(points, "share_of_time")
    assert "let smaller images be a move" in beaten(points, "share_of_time")
    sized = beaten([*points[:-1], point("pruned", 288, 0.75, 0.07)], "share_of_time")
    assert sized.endswith("take those images alone; more --images say better which size is best")
    assert beaten([*points[:-1], point("pruned", 320, 0.75, 0.34)], "share_of_time") == ""
    assert beaten([*points[:-1], point("pruned", 320, 0.6, 0.07)], "share_of_time") == ""
    assert beaten([points[0], points[-1]], "share_of_time") == ""


def test_eight_bits_that_would_have_been_better_are_told() -> None:
    """Of time alone: they save no operations."""
    whole, small = point("unpruned", 640, 1.0, 0.40), point("unpruned", 640, 0.45, 0.39, bits=8)
    pruned, in_bits = point("pruned", 544, 0.6, 0.38), point("pruned", 544, 0.3, 0.37, bits=8)
    assert "in eight bits is better: 45% of the time and map50_95 0.3900, the pruned one 60% and 0.3800; let them" in (
        beaten([whole, small, pruned], "share_of_time")
    )
    assert beaten([whole, small, pruned], "share_of_operations") == ""
    assert beaten([whole, small, pruned, in_bits], "share_of_time") == ""
    assert beaten([whole, pruned, point("pruned", 544, 0.9, 0.1, bits=8)], "share_of_time") == ""
    worse = point("pruned", 640, 0.5, 0.3, bits=8)
    assert beaten([whole, small, pruned, worse], "share_of_time").endswith("take it as it is, without training it on")
