"""A tiny detector and a tiny data set, made afresh for each test."""

from __future__ import annotations

import random
from collections.abc import Callable
from copy import deepcopy
from pathlib import Path

import pytest
import torch
from PIL import Image, ImageDraw
from torch import nn

from seqprune.plan import PrunePlan
from seqprune.yolo.task.tracing import trace_detector

REAL = Path(__file__).resolve().parents[3] / "shared" / "real"
DEAD = (0, 2)


@pytest.fixture
def real() -> Path:
    """The folder of real weights and images."""
    if not REAL.is_dir():
        pytest.skip(f"needs the real weights and images in {REAL}")
    return REAL


@pytest.fixture
def data_yaml(tmp_path: Path) -> Path:
    """Ten training and four validation images of differing shape, two classes, one empty label file."""
    root = tmp_path / "data"
    draw = random.Random(3)  # noqa: S311 - no secret
    for split, count in (("train", 10), ("val", 4)):
        (root / "images" / split).mkdir(parents=True)
        (root / "labels" / split).mkdir(parents=True)
        for number in range(count):
            width, height = draw.choice([(96, 64), (64, 96), (80, 80), (120, 60)])
            image = Image.new("RGB", (width, height), (30, 60, 90))
            lines = []
            for _ in range(0 if number == 1 else draw.randint(1, 3)):
                kind = draw.randint(0, 1)
                x, y = draw.uniform(0.3, 0.7), draw.uniform(0.3, 0.7)
                w, h = draw.uniform(0.2, 0.5), draw.uniform(0.2, 0.5)
                corners = [
                    (x - w / 2) * width,
                    (y - h / 2) * height,
                    (x + w / 2) * width,
                    (y + h / 2) * height,
                ]
                ImageDraw.Draw(image).rectangle(corners, fill=(220, 40, 40) if kind else (40, 220, 40))
                lines.append(f"{kind} {x:.4f} {y:.4f} {w:.4f} {h:.4f}")
            image.save(root / "images" / split / f"{number:02}.jpg", quality=95)
            (root / "labels" / split / f"{number:02}.txt").write_text("\n".join(lines))
    path = root / "data.yaml"
    path.write_text("train: images/train\nval: images/val\nnames:\n  0: green\n  1: red\n")
    return path


@pytest.fixture
def tiny() -> nn.Module:
    """A YOLOv8 of an eighth of the width, two classes, random weights."""
    from ultralytics.nn.tasks import DetectionModel, yaml_model_load

    cfg = deepcopy(yaml_model_load("yolov8n.yaml"))
    cfg["scales"] = {"n": [0.33, 0.125, 256]}
    cfg["nc"] = 2
    torch.manual_seed(0)
    model = DetectionModel(cfg, verbose=False).eval()
    model.names = {0: "green", 1: "red"}
    model.task = "detect"
    model.args = {"imgsz": 64, "task": "detect"}
    return model


LAYER = "model.4.m.0.cv1.conv"


@pytest.fixture
def plan_without(tiny: nn.Module) -> Callable[..., PrunePlan]:
    """The plan that takes channels out of the layer that ``narrow`` and ``mask`` work on."""

    def make(*gone: int) -> PrunePlan:
        channels = tiny.get_submodule(LAYER).out_channels
        keep = [index for index in range(channels) if index not in gone]
        return PrunePlan.from_keep(trace_detector(tiny), {LAYER: keep})

    return make


@pytest.fixture
def narrow_plan(plan_without: Callable[..., PrunePlan]) -> PrunePlan:
    """What ``narrow`` does, as a plan."""
    return plan_without(0, 1, 2)


@pytest.fixture
def mask_plan(plan_without: Callable[..., PrunePlan]) -> PrunePlan:
    """What ``mask`` does, as a plan."""
    return plan_without(*DEAD)


@pytest.fixture
def narrow() -> Callable[[nn.Module], nn.Module]:
    """Remove three inner channels of a bottleneck, by hand, from a copy."""

    def cut(model: nn.Module) -> nn.Module:
        model = deepcopy(model)
        unit = model.get_submodule("model.4.m.0")
        keep = torch.arange(3, unit.cv1.conv.out_channels)
        unit.cv1.conv.weight = nn.Parameter(unit.cv1.conv.weight.detach()[keep].clone())
        unit.cv1.conv.out_channels = unit.cv1.bn.num_features = len(keep)
        for name in ("weight", "bias"):
            setattr(unit.cv1.bn, name, nn.Parameter(getattr(unit.cv1.bn, name).detach()[keep].clone()))
        for name in ("running_mean", "running_var"):
            setattr(unit.cv1.bn, name, getattr(unit.cv1.bn, name)[keep].clone())
        unit.cv2.conv.weight = nn.Parameter(unit.cv2.conv.weight.detach()[:, keep].clone())
        unit.cv2.conv.in_channels = len(keep)
        return model

    return cut


@pytest.fixture
def mask() -> Callable[[nn.Module], None]:
    """Zero two channels of one layer, in place."""

    def zero(model: nn.Module) -> None:
        layer = model.get_submodule("model.4.m.0.cv1")
        dead = list(DEAD)
        with torch.no_grad():
            layer.conv.weight[dead] = 0
            layer.bn.weight[dead] = 0
            layer.bn.bias[dead] = 0
            layer.bn.running_mean[dead] = 0
            layer.bn.running_var[dead] = 1

    return zero


@pytest.fixture
def is_dead() -> Callable[[nn.Module], bool]:
    """Whether the channels of ``mask`` are exactly zero."""

    def check(model: nn.Module) -> bool:
        layer = model.get_submodule("model.4.m.0.cv1")
        dead = list(DEAD)
        tensors = (layer.conv.weight, layer.bn.weight, layer.bn.bias, layer.bn.running_mean)
        return all(not tensor[dead].any() for tensor in tensors) and bool((layer.bn.running_var[dead] == 1).all())

    return check


@pytest.fixture
def listing() -> Callable[[Path], dict[str, tuple[int, int]]]:
    """Everything below a folder with its time of change and size, folders too."""

    def look(folder: Path) -> dict[str, tuple[int, int]]:
        entries = [folder, *folder.rglob("*")]
        return {str(entry): (entry.stat().st_mtime_ns, entry.stat().st_size) for entry in entries}

    return look


TASK_NAMES = {0: "green", 1: "red"}
SUFFIX = {"detect": "", "segment": "-seg", "pose": "-pose", "obb": "-obb", "classify": "-cls"}


@pytest.fixture
def network(task: str) -> nn.Module:
    """A YOLOv8 of an eighth of the width for the task, two classes."""
    from ultralytics.nn.tasks import yaml_model_load

    from seqprune.yolo.files.networks import NETWORKS

    cfg = deepcopy(yaml_model_load(f"yolov8n{SUFFIX[task]}.yaml"))
    cfg |= {"scales": {"n": [0.33, 0.125, 256]}, "nc": 2}
    if task == "pose":
        cfg["kpt_shape"] = [3, 2]
    torch.manual_seed(0)
    model = NETWORKS[task](cfg, verbose=False).eval()  # type: ignore[call-arg]
    model.names, model.task, model.args = dict(TASK_NAMES), task, {"imgsz": 64, "task": task}  # type: ignore[assignment]
    return model


@pytest.fixture
def images(task: str, tmp_path: Path) -> Path:
    """Twelve training and four validation images, labelled for the task."""
    draw, root = random.Random(0), tmp_path / "data"  # noqa: S311 - no secret
    for split, count in (("train", 12), ("val", 4)):
        for number in range(count):
            kind = number % 2
            image = Image.new("RGB", (64, 64), (200, 40, 40) if kind else (40, 200, 40))
            if task == "classify":
                file = root / split / TASK_NAMES[kind] / f"{number}.png"
            else:
                file = root / "images" / split / f"{number}.png"
                label = root / "labels" / split / f"{number}.txt"
                label.parent.mkdir(parents=True, exist_ok=True)
                x, y = draw.uniform(0.3, 0.6), draw.uniform(0.3, 0.6)
                box = [x, y, 0.3, 0.3]
                corners = [x, y, x + 0.3, y, x + 0.3, y + 0.3, x, y + 0.3]
                points = [x, y, x + 0.1, y, x, y + 0.1]
                shape = {"detect": box, "segment": corners, "obb": corners, "pose": box + points}[task]
                label.write_text(" ".join(map(str, [kind, *(f"{value:.4f}" for value in shape)])))
            file.parent.mkdir(parents=True, exist_ok=True)
            image.save(file)
    if task == "classify":
        return root
    extra = "kpt_shape: [3, 2]\nflip_idx: [0, 1, 2]\n" if task == "pose" else ""
    (root / "data.yaml").write_text(f"train: images/train\nval: images/val\nnames: [green, red]\n{extra}")
    return root / "data.yaml"
