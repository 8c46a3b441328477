"""Objects count by their confidence, however many cells predict them; what cannot be asked is not."""

from __future__ import annotations

import re

import pytest
import torch
import ultralytics
from torch import nn
from ultralytics.nn.tasks import DetectionModel

from seqprune.observe.batch import Batch
from seqprune.observe.inputs import as_input
from seqprune.observe.patches import Sampler
from seqprune.observe.relevance import relevance_of
from seqprune.testing.networks import randomise
from seqprune.yolo.files.load import load
from seqprune.yolo.files.networks import NETWORKS
from seqprune.yolo.task.probe import object_weights, probe_for
from seqprune.yolo.task.validate import validate


def batches(count: int = 2, side: int = 160) -> list[Batch]:
    draw = torch.Generator().manual_seed(0)
    none = torch.zeros(0, dtype=torch.int64)
    pixels = [torch.randint(0, 256, (1, 3, side, side), dtype=torch.uint8, generator=draw) for _ in range(count)]
    return [Batch(images, none, none, torch.zeros(0, 4), number) for number, images in enumerate(pixels)]


def detector(architecture: str) -> nn.Module:
    """One with random weights."""
    torch.manual_seed(0)
    model: nn.Module = load(f"{architecture}.yaml", tasks=NETWORKS).model
    randomise(model, 0)
    return model


def predictions(rows: list[list[float]]) -> torch.Tensor:
    return torch.tensor(rows).T[None]


def test_an_object_counts_once_however_many_cells_predict_it() -> None:
    """Two cells on one object of confidence 0.8, one on another of another class, one that finds nothing."""
    found = object_weights(
        predictions(
            [
                [50, 50, 20, 20, 0.8, 0.0],
                [51, 50, 20, 20, 0.4, 0.0],
                [50, 50, 20, 20, 0.0, 0.6],
                [90, 90, 20, 20, 0.01, 0.02],
            ]
        ),
        2,
    )[0]
    assert float(found[:2].sum()) == pytest.approx(0.8)
    assert float(found[0] / found[1]) == pytest.approx(2**4)
    assert float(found[2]) == pytest.approx(0.6)
    assert float(found[3]) == 0


def test_an_empty_image_and_a_box_without_area_are_no_error() -> None:
    assert not object_weights(predictions([[5, 5, 2, 2, 0.0]]), 1).any()
    assert object_weights(predictions([[5, 5, 0, 0, 0.5]]), 1).tolist() == [[0.5]]


@pytest.mark.parametrize("task", [task for task in NETWORKS if task != "classify"])
def test_every_branch_of_a_head_is_asked(task: str) -> None:
    """Masks' coefficients, key points and angles too, else their branches would seem to be worth nothing."""
    name = {"detect": "", "segment": "-seg"}.get(task, f"-{task}")
    model = detector(f"yolov8n{name}")
    before = {name: value.clone() for name, value in model.state_dict().items()}
    found = probe_for(model, batches(), len(model.names))  # type: ignore[arg-type]
    assert found is not None
    copy, probe = found
    last = [f"model.22.{branch}.1.2" for branch in ("cv2", "cv3", "cv4") if hasattr(model.model[-1], branch)]  # type: ignore[index]
    assert len(last) == (2 if task == "detect" else 3)
    curvature = relevance_of(copy, ["model.0.conv", *last], batches(), probe).curvature
    assert all(float(found.sum()) > 0 for found in curvature.values())
    assert all(torch.equal(before[name], value) for name, value in model.state_dict().items())


@pytest.mark.parametrize("architecture", ["yolov10n", "yolo26n", "yolo26n-seg", "yolo26n-pose", "yolo26n-obb"])
def test_of_a_head_that_needs_no_suppression_every_cell_is_asked(architecture: str) -> None:
    if "26" in architecture and not hasattr(DetectionModel, "end2end"):
        pytest.skip("this version of Ultralytics has no YOLO26")
    model = detector(architecture)
    model.end2end = True  # as a checkpoint may have it; versions differ in what they begin with
    images, classes = batches(), len(model.names)  # type: ignore[arg-type]
    found = probe_for(model, images, classes)
    if found is None and ultralytics.__version__ != "8.4.190":
        pytest.skip("older versions of Ultralytics let no gradient through such heads")
    assert found is not None
    copy, probe = found
    last = [name for name, _ in model.named_modules() if re.fullmatch(r"model\.\d+\.one2one_cv\d\.1\.2", name)]
    assert len(last) >= 2
    curvature = relevance_of(copy, ["model.0.conv", *last], images, probe).curvature
    assert all(float(each.sum()) > 0 for each in curvature.values())
    with torch.no_grad():
        cells, chosen = (each(as_input(images[0].images, each))[0] for each in (copy, model))
    cells, chosen = (each[0] if isinstance(each, tuple) else each for each in (cells, chosen))
    best = int(cells[0, 4 : 4 + classes].amax(0).argmax())
    x, y, width, height = cells[0, :4, best].tolist()
    assert chosen[0, 0, 4].item() == pytest.approx(float(cells[0, 4 : 4 + classes, best].max()))
    corners = x - width / 2, y - height / 2, x + width / 2, y + height / 2
    box = (x, y, width, height) if "obb" in architecture else corners
    assert chosen[0, 0, :4].tolist() == pytest.approx(box, rel=1e-4, abs=1e-2)


def test_a_logit_costs_what_its_probability_says_whatever_the_seed() -> None:
    """Nothing else goes into its own probability, so chance has no part in it: p (1 - p), by the object's worth."""
    model, images = detector("yolov8n"), batches()
    classes = len(model.names)  # type: ignore[arg-type]
    found = probe_for(model, images, classes)
    assert found is not None
    copy, probe = found
    expected = torch.zeros(classes, dtype=torch.float64)
    with torch.no_grad():
        for batch in images:
            y = copy(as_input(batch.images, copy))[0]
            p = y[:, 4:].clamp(1e-6, 1 - 1e-6)
            coarsest = slice(-((batch.images.shape[-1] // 32) ** 2), None)
            expected += ((p * (1 - p)) * object_weights(y, classes)[:, None])[..., coarsest].sum((0, 2)).double()
    assert expected.sum() > 0
    for seed in (0, 1):
        curvature = relevance_of(copy, ["model.22.cv3.2.2"], images, probe, Sampler(seed=seed)).curvature
        torch.testing.assert_close(curvature["model.22.cv3.2.2"], expected, rtol=1e-3, atol=1e-9)


def test_small_images_are_enough() -> None:
    model = load("yolov8n.yaml").model
    assert probe_for(model, batches(1, 64), len(model.names)) is not None  # type: ignore[arg-type]


def test_what_returns_no_prediction_for_every_cell_is_not_asked() -> None:
    class TopK(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.weight = nn.Parameter(torch.zeros(1))

        def forward(self, images: torch.Tensor) -> torch.Tensor:
            return torch.zeros(len(images), 300, 6)

    assert probe_for(TopK(), batches(1), 80) is None
    classifier = load("yolov8n-cls.yaml", tasks=NETWORKS).model
    assert probe_for(classifier, batches(1, 64), len(classifier.names)) is None


def test_a_network_that_was_validated_before_can_be_asked(tiny: nn.Module, data_yaml: object) -> None:
    """Validation leaves tensors of inference mode in the head, which no gradient goes through."""
    validate(tiny, data_yaml, imgsz=64, batch=4)  # type: ignore[arg-type]
    found = probe_for(tiny, batches(1), len(tiny.names))  # type: ignore[arg-type]
    assert found is not None
    copy, probe = found
    assert relevance_of(copy, ["model.0.conv"], batches(1), probe).curvature
