"""A record with everything in it that a page shows, names that would break out of one among it."""

from __future__ import annotations

import base64
import io
import random
from typing import Any

from PIL import Image

from seqprune.engine.record import Measurements, Record
from seqprune.engine.steps import StepReport
from seqprune.measure.comparison import UNPRUNED, Comparison, Row
from seqprune.measure.sensitivity import Point, Sensitivity
from seqprune.repair.recover import Repair
from seqprune.surgery import Difference

EVIL = '<img src=x onerror="document.title=1">'
NAMES = {0: "person", 1: EVIL, 2: "a class with a very long name that goes on and on"}


def seen(channels: int = 24, k: int = 8) -> dict[str, Any]:
    draw = random.Random(0)  # noqa: S311 - no secret
    return {
        "space": [[draw.random(), draw.random()] for _ in range(channels)],
        "labels": [number % k for number in range(channels)],
        "medoids": list(range(k)),
        "keep": list(range(k)),
        "k": k,
        "scores": [1 - 1 / count for count in range(2, channels)],
        "classes": [0, 1, 2],
        "before": [[0, 1.0, 1.5], [1.0, 0, 0.5], [1.5, 0.5, 0]],
        "after": [[0, 0.9, 1.4], [0.9, 0, 0.5], [1.4, 0.5, 0]],
    }


def picture() -> dict[str, Any]:
    file = io.BytesIO()
    Image.new("RGB", (64, 48), (40, 90, 120)).save(file, "JPEG")
    boxes = [[5, 5, 30, 30, 0.9, EVIL], [20, 10, 60, 40, 0.5, "person"]]
    return {
        **{"name": f"{EVIL}.jpg", "jpeg": base64.b64encode(file.getvalue()).decode(), "width": 64, "height": 48},
        **{"before": boxes, "after": boxes[:1], "labels": boxes[:1]},
    }


def layer(name: str, block: int | None, before: int, after: int, **more: Any) -> dict[str, Any]:
    known = {"kind": "Conv2d", "block_kind": "C2f", "gflops_before": 0.4, "gflops_after": 0.4 * after / before}
    return {"name": name, "block": block, "before": before, "after": after, **known, "rank": None, "pinned": ""} | more


def comparison() -> Comparison:
    """Two methods at two targets, timed in a runtime, and one that failed."""
    size: dict[str, Any] = {"params": 3_000_000, "share": 1.0, "gflops": 8.7, "latency_ms": 50.0}
    more = {"times": {"onnxruntime": 30.0}, "file_bytes": 6_500_000}
    rows = [Row(UNPRUNED, 1.0, **size, accuracy={"map50_95": 0.37, "map50": 0.52}, **more)]
    for method, scores in {"accurate": (0.35, 0.3), EVIL: (0.2, 0.05)}.items():
        for target, score in zip((0.8, 0.6), scores, strict=True):
            known: dict[str, Any] = {name: type(value)(value * target) for name, value in size.items()}
            accuracy = {"map50_95": score, "map50": score + 0.1}
            row = Row(method, target, **known, accuracy=accuracy, runs=(score - 0.01, score + 0.01), **more)
            rows.append(row)
    rows.append(Row("lamp", 0.6, reason=f"cannot be met {EVIL} " + "x" * 80))
    settings = {"images": 128, "imgsz": 640, "batch": 16, "seed": 0}
    return Comparison(f"weights/{EVIL}.pt", "data.yaml", settings, tuple(rows))


def sensitivity() -> Sensitivity:
    """Six layers at two ratios, one with a long path."""
    names = [f"model.{number}.conv" for number in range(5)] + [f"a.{EVIL}.path.that.goes.on.and.on.and.on"]
    points = tuple(
        Point(name, (name,), ratio, int(64 * ratio), 64, 0.98, 0.37 - number / 50, number / 50)
        for number, name in enumerate(names)
        for ratio in (0.5, 0.25)
    )
    settings = {"criterion": "l2", "ratios": [0.5, 0.25], "imgsz": 640, "images": "all", "seed": 0}
    return Sensitivity(f"weights/{EVIL}.pt", "data.yaml", settings, "map50_95", 0.37, points)


def front() -> tuple[dict[str, Any], ...]:
    """The unpruned network, the same on smaller images and in eight bits, the pruned one, that in eight bits."""
    ways = [("unpruned", 640, 32, 1.0, 0.5), ("unpruned", 512, 32, 0.64, 0.4), ("unpruned", 640, 8, 0.45, 0.49)]
    ways += [("pruned", 640, 32, 0.8, 0.25), ("pruned", 640, 8, 0.36, 0.24)]
    return tuple(
        {
            **{"what": what, "imgsz": imgsz, "bits": bits, "gflops": 8.0, "share_of_operations": (imgsz / 640) ** 2},
            **{"share_of_time": share, "ms": {"median": 50 * share, "low": 1.0, "high": 2.0, "runs": 20}},
            "accuracy": {"map50_95": score, "map50": score + 0.1},
            "in_floats": score + 0.01 if bits == 8 else None,
        }
        for what, imgsz, bits, share, score in ways
    )


def record() -> Record:
    return Record(
        model=f"weights/{EVIL}.pt",
        data="data.yaml",
        preset="activation",
        seed=0,
        mode="compact",
        finetune=0,
        settings={"keep": "knee", "protect": []},
        versions={"torch": "2.15"},
        steps=(
            StepReport("model.5.conv", 5, 256, 256, 118, 512, (0, 2), 118, members=("model.5.conv",), seen=seen()),
            StepReport("model.7.conv", 7, 512, 512, 512, status="skipped", reason=f"only {EVIL} " + "x" * 300),
        ),
        verify=Difference(1e-5, 3e-7),
        before=Measurements(1_000_000, 8.0, 50.0, 0.5, 0.7, 0.6, 0.4, file_bytes=2_000_000),
        after=Measurements(750_000, 6.0, 40.0, 0.25, 0.4, 0.5, 0.4, file_bytes=1_500_000),
        unreadable=("broken.jpg",),
        repairs=(Repair("ls", True, 8.1, 4.2), Repair("bn", False)),
        network=(
            layer("model.5.conv", 5, 256, 118),
            layer("model.6.cv1.conv", 6, 64, 64, rank=24, gflops_after=0.2),
            layer("model.22.dfl.conv", 22, 16, 16, pinned=f"read by {EVIL}"),
            layer("head", None, 10, 10),
        ),
        classes={"before": {NAMES[0]: 0.5, NAMES[1]: 0.4, NAMES[2]: 0.3}, "after": {NAMES[0]: 0.3, NAMES[1]: 0.4}},
        along=(
            {"what": EVIL, "accuracy": {"map50_95": 0.41, "map50": 0.6}},
            {"what": "model.5.conv.with.a.long.path", "accuracy": {"map50_95": 0.2, "map50": 0.4}},
        ),
        made={
            "command": f"seqprune prune {EVIL}",
            "date": "2026-11-28T20:00:00+00:00",
            "processor": "Xeon",
            "gpu": None,
        },
        pictures=(picture(), picture()),
        names=NAMES,
        timed={"runtime": f"openvino{EVIL}", "version": "2026", "processor": "Xeon", "bits": 8},
        front=front(),
    )


def training() -> dict[str, Any]:
    """Three epochs; the first has no accuracy, and the last no loss on validation images."""
    columns = ("train/box_loss", "train/cls_loss", "val/box_loss", "metrics/mAP50-95(B)", "metrics/recall(B)")
    epochs = [{"epoch": epoch, **dict.fromkeys(columns, 1 / (epoch + 1))} for epoch in (1, 2, 3)]
    del epochs[0]["metrics/mAP50-95(B)"], epochs[2]["val/box_loss"]
    return {
        "kind": "training",
        "model": f"weights/{EVIL}.pt",
        "data": "data.yaml",
        "best": "weights/best.pt",
        "bytes": 3_200_000,
        "shape": "the plan's shape",
        "metrics": {"metrics/mAP50-95(B)": 0.4321, "metrics/recall(B)": None},
        "epochs": epochs,
        "made": {"command": f"seqprune finetune {EVIL}", "gpu": None},
        "versions": {"torch": "2.15"},
    }
