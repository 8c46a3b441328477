"""RT-DETR: loaded from everything, proven though its top-k swaps near ties, measured as Ultralytics does."""

from __future__ import annotations

from copy import deepcopy
from pathlib import Path

import pytest
import torch
from torch import nn
from ultralytics import RTDETR
from ultralytics.models.rtdetr.val import RTDETRValidator
from ultralytics.nn.modules.block import C2f
from ultralytics.nn.tasks import RTDETRDetectionModel, yaml_model_load

import seqprune
from seqprune.errors import VerificationError
from seqprune.surgery import TOLERANCE, Difference
from seqprune.yolo.files.load import load
from seqprune.yolo.files.save import save_pt
from seqprune.yolo.task.predict import predict
from seqprune.yolo.task.proof import AS_IT_IS, AS_SETS, DOUBLE, difference_of_sets, prove
from seqprune.yolo.task.validate import validate
from seqprune.yolo.train.job import train
from seqprune.yolo.train.tuning import finetune

NAMES = {0: "green", 1: "red"}


@pytest.fixture
def queries() -> nn.Module:
    """A small RT-DETR on YOLOv8's backbone, two classes, random weights."""
    cfg = deepcopy(yaml_model_load("yolov8-rtdetr.yaml"))
    cfg |= {"scale": "n", "scales": {"n": [0.33, 0.125, 256]}, "nc": 2}
    cfg["head"][-1][3] = ["nc", 256, 40]  # queries, of which older releases want no more than there are cells
    torch.manual_seed(0)
    model = RTDETRDetectionModel(cfg, verbose=False).eval()
    model.names, model.task, model.args = dict(NAMES), "detect", {"imgsz": 64, "task": "detect"}
    return model


@pytest.fixture
def facade(queries: nn.Module, tmp_path: Path) -> RTDETR:
    return RTDETR(str(save_pt(queries, tmp_path / "rt.pt", names=NAMES)))


def test_it_is_pruned_from_a_file_and_from_an_object(facade: RTDETR, tmp_path: Path) -> None:
    """The object was "no Ultralytics detector", and the file's proof failed."""
    for given in (tmp_path / "rt.pt", facade, facade.model):
        record = seqprune.prune(given, preset="fast", target="params=0.9", imgsz=64).record
        assert record.verify.max_rel <= 1e-4
        assert record.settings["verified_as"] in (AS_IT_IS, AS_SETS, DOUBLE)
        assert record.after.params < record.before.params


@pytest.mark.slow
def test_it_is_built_from_a_yaml() -> None:
    """ "'YOLO' model does not support '_new' mode for 'None' task."""
    assert type(load("yolov8-rtdetr.yaml").model) is RTDETRDetectionModel


def swapped(rows: torch.Tensor) -> torch.Tensor:
    order = torch.randperm(rows.shape[-2], generator=torch.Generator().manual_seed(0))
    return rows[..., order, :]


def test_sets_are_compared_whatever_their_order() -> None:
    chosen, ordered = torch.rand(2, 30, 6).double(), torch.rand(2, 5).double()
    groups = ((0,),)
    found = difference_of_sets([chosen, ordered], [swapped(chosen), ordered], groups)
    assert found == Difference(0.0, 0.0)
    assert difference_of_sets([chosen, ordered], [swapped(chosen), ordered.flip(0)], groups).max_rel > 0.1
    assert difference_of_sets([chosen], [chosen[:, :29]], groups) is None
    assert difference_of_sets([chosen], [chosen * torch.nan], groups) is None


def test_a_row_that_is_no_ones_shows_at_full_size() -> None:
    """The oracle is tested too: one box that moved is not matched away, nor are rows of two tensors mixed."""
    chosen = torch.rand(1, 30, 6).double()
    moved = swapped(chosen).clone()
    moved[0, 3, 0] += 0.25
    assert difference_of_sets([chosen], [moved], ((0,),)).max_abs == pytest.approx(0.25, abs=0.2)
    assert difference_of_sets([chosen], [moved], ((0,),)).max_rel > 1e-2
    boxes, scores = torch.rand(1, 1, 30, 4).double(), torch.rand(1, 1, 30, 2).double()
    together = difference_of_sets([boxes, scores], [swapped(boxes), scores], ((0, 1),))
    assert together.max_rel > 0.1
    assert difference_of_sets([boxes, scores], [swapped(boxes), swapped(scores)], ((0, 1),)).max_rel == 0.0


class Swaps(nn.Module):
    """A network whose head names its rows in another order, as near ties do; in float64 as it is."""

    def __init__(self, inner: nn.Module, in_double: bool) -> None:
        super().__init__()
        self.inner, self.in_double = inner, in_double

    def forward(self, x: torch.Tensor) -> object:
        if self.training:
            return self.inner(x)
        y, raw = self.inner(x)
        if x.dtype == torch.float64:
            return y, raw
        if self.in_double:  # a query in the place of another, which no order explains
            return torch.cat((y[:, :-1], y[:, -1:] + 0.5), 1), raw
        return swapped(y), raw


@pytest.mark.parametrize(("in_double", "way"), [(False, DOUBLE), (True, DOUBLE)])
def test_near_ties_are_no_difference_and_the_proof_says_how_it_saw(
    queries: nn.Module, in_double: bool, way: str
) -> None:
    image = torch.rand(2, 3, 64, 64)
    difference, seen = prove(queries, Swaps(queries, in_double).eval(), image)
    assert seen == way
    assert difference.max_rel <= TOLERANCE[torch.float64 if in_double else torch.float32]


def test_a_wrong_weight_is_refused_whatever_the_order(queries: nn.Module) -> None:
    broken = deepcopy(queries)
    with torch.no_grad():
        broken.model[0].conv.weight.mul_(3.0)
    with pytest.raises(VerificationError):
        prove(queries, broken, torch.rand(2, 3, 64, 64))


def test_a_head_that_does_not_choose_is_compared_in_order(tiny: nn.Module) -> None:
    broken = deepcopy(tiny)
    broken.model[-1].cv2[0][2].bias.data[:4] += 3.0
    with pytest.raises(VerificationError):
        prove(tiny, broken, torch.rand(1, 3, 64, 64))
    found, seen = prove(tiny, deepcopy(tiny), torch.rand(1, 3, 64, 64))
    assert (found.max_abs, found.max_rel, seen) == (0.0, 0.0, AS_IT_IS)


def test_what_only_export_runs_is_proven_too(tiny: nn.Module) -> None:
    """A subclass of C2f kept the width it remembered: the pruned network exported wrongly, and only then."""
    broken = deepcopy(tiny)
    broken.model[4].c -= 1
    image = torch.rand(1, 3, 64, 64)
    with torch.no_grad():
        assert torch.equal(tiny(image)[0], broken(image)[0])
    with pytest.raises(VerificationError, match=r"C2f by forward_split, which splits at a width that was not updated"):
        prove(tiny, broken, image)
    assert prove(tiny, deepcopy(tiny), image)[1] == AS_IT_IS


class Swapped(C2f):
    """A subclass that computes something else than the code which it inherits for the exporter."""

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        right, left = self.cv1(x).chunk(2, 1)
        parts = [left, right]
        for each in self.m:
            parts.append(each(parts[-1]))
        found: torch.Tensor = self.cv2(torch.cat(parts, 1))
        return found


def test_code_for_the_exporter_that_never_was_right_is_not_asked(tiny: nn.Module) -> None:
    """A subclass of C2f with a ``forward`` of its own could not be pruned at all."""
    model = deepcopy(tiny)
    model.model[4].__class__ = Swapped
    image = torch.rand(1, 3, 64, 64)
    assert prove(model, deepcopy(model), image)[1] == AS_IT_IS
    broken = deepcopy(model)
    broken.model[2].c -= 1
    with pytest.raises(VerificationError, match="export would run C2f by forward_split"):
        prove(model, broken, image)


@pytest.mark.slow
def test_it_is_trained_in_its_shape(queries: nn.Module, data_yaml: Path, tmp_path: Path) -> None:
    small = seqprune.prune(queries, preset="fast", target="params=0.95", round_to=1, imgsz=64)
    path = small.save(tmp_path / "rt.pt")
    done = train(path, data_yaml, tmp_path / "run", epochs=1, arguments={"imgsz": 64, "device": "cpu", "batch": 4})
    assert load(done.best).plan == small.plan
    assert "train/giou_loss" in (done.folder / "results.csv").read_text()
    assert finetune(small.model, data_yaml, epochs=1, imgsz=64, plan=small.plan).names == NAMES


def test_boxes_are_in_pixels(queries: nn.Module) -> None:
    image = torch.rand(2, 3, 64, 96)
    (first, second), (_, raw) = predict(queries, image, conf=0.0), queries(image)
    assert first.shape[1] == second.shape[1] == 6
    assert first[:, :4].max() > 5
    assert torch.equal(first[:, 4], first[:, 4].sort(descending=True).values)
    assert first[0, 4] == pytest.approx(float(raw[1][-1][0].sigmoid().max()))


def test_accuracy_is_what_ultralytics_measures(queries: nn.Module, data_yaml: Path, tmp_path: Path) -> None:
    """Boxes in [0, 1] were taken for pixels: the accuracy of every RT-DETR was nought."""
    path = save_pt(queries, tmp_path / "rt.pt", names=NAMES, half=False)
    for file in (data_yaml.parent / "images" / "val").iterdir():  # what it detects is what there is
        (found,) = RTDETR(str(path)).predict(file, imgsz=64, conf=0.0, max_det=3, verbose=False)
        rows = zip(found.boxes.cls.tolist(), found.boxes.xywhn.clamp(0.01, 0.99).tolist(), strict=True)
        label = data_yaml.parent / "labels" / "val" / f"{file.stem}.txt"
        label.write_text("\n".join(f"{int(kind)} {' '.join(f'{value:.6f}' for value in box)}" for kind, box in rows))
    arguments = {"data": str(data_yaml), "imgsz": 64, "batch": 4, "plots": False, "workers": 0, "device": "cpu"}
    validator = RTDETRValidator(args={"model": str(path), "mode": "val", "task": "detect", "rect": False, **arguments})
    expected = validator(model=RTDETR(str(path)).model)
    found = validate(queries, data_yaml, imgsz=64, batch=4)
    assert found.recall == pytest.approx(expected["metrics/recall(B)"])
    assert found.map50 == pytest.approx(expected["metrics/mAP50(B)"])
    assert found.recall > 0


@pytest.mark.long
def test_accurate_goes_without_the_labels_of_cells(queries: nn.Module, data_yaml: Path) -> None:
    result = seqprune.prune(queries, data_yaml, preset="accurate", target="params=0.97", round_to=1, imgsz=64)
    assert result.record.after.map50_95 is not None
