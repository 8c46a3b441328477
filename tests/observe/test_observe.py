"""Observation: moments of the right cells, to the last layer and no further, in any batches."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from detectors import CLASSES, Detector, Images, find_all
from torch import nn

from seqprune.errors import ModelError
from seqprune.observe.batch import Batch
from seqprune.observe.extract import match_objects, observe
from seqprune.observe.inputs import as_input
from seqprune.observe.match import box_iou, centre_cells
from seqprune.select.moments import ClassMoments

LAYERS = ["model.1.conv", "model.2.m.0.0.conv", "model.3.conv"]


def reference(model: nn.Module, layer: str, images: Images) -> ClassMoments:
    """Image by image, object by object, as the predecessor did it."""
    vectors, labels = [], []
    for batch in images:
        outputs: list[torch.Tensor] = []
        handle = model.get_submodule(layer).register_forward_hook(lambda _m, _a, o, outputs=outputs: outputs.append(o))
        with torch.no_grad():
            model(as_input(batch.images, model))
        handle.remove()
        for image, kind, box in zip(batch.image_index, batch.classes, batch.boxes, strict=True):
            height, width = outputs[0].shape[-2:]
            row = min(int((box[1] + box[3]) / 2 / (32 / height)), height - 1)
            column = min(int((box[0] + box[2]) / 2 / (32 / width)), width - 1)
            vectors.append(outputs[0][image, :, row, column].double().numpy())
            labels.append(int(kind))
    return ClassMoments.from_samples(np.array(vectors), labels)


@pytest.mark.parametrize("layer", LAYERS)
def test_moments_are_those_of_every_object_looked_at_alone(layer: str) -> None:
    model, images = Detector(), Images()
    seen = observe(model, LAYERS, images, CLASSES).moments[layer]
    expected = reference(model, layer, images)
    assert seen.classes == expected.classes
    np.testing.assert_array_equal(seen.count, expected.count)
    np.testing.assert_allclose(seen.mean, expected.mean, rtol=1e-5, atol=1e-6)
    np.testing.assert_allclose(seen.m2, expected.m2, rtol=1e-4, atol=1e-6)


def test_the_forward_pass_stops_after_the_last_layer() -> None:
    model = Detector()
    ran = []
    model.get_submodule("model.4").register_forward_hook(lambda *_: ran.append(True))
    observe(model, LAYERS, Images(), CLASSES)
    assert not ran
    assert not any(m._forward_hooks for n, m in model.named_modules() if n != "model.4")


def test_only_matched_objects_count() -> None:
    model, images = Detector(), Images()
    matched = [torch.arange(len(b.classes)) % 2 == 0 for b in images]
    assert observe(model, LAYERS, images, CLASSES, matched).objects == sum(int(m.sum()) for m in matched)


def test_no_object_at_all_is_an_empty_observation() -> None:
    images = Images()
    nothing = [torch.zeros(len(b.classes), dtype=torch.bool) for b in images]
    seen = observe(Detector(), LAYERS, images, CLASSES, nothing)
    assert seen.objects == 0
    assert seen.moments["model.1.conv"].classes == ()


def test_matching_needs_class_and_overlap() -> None:
    images = Images()
    found = match_objects(Detector(), find_all, images)
    assert sum(int(m.sum()) for m in found) > 60

    def other_class(model: nn.Module, batch: torch.Tensor) -> list[torch.Tensor]:
        shifted = find_all(model, batch)
        for rows in shifted:
            rows[:, 5] = (rows[:, 5] + 1) % CLASSES
        return shifted

    assert sum(int(m.sum()) for m in match_objects(Detector(), other_class, images)) < 20


def test_overlap_of_boxes() -> None:
    boxes = torch.tensor([[0.0, 0, 2, 2], [1, 1, 3, 3], [5, 5, 5, 5]])
    torch.testing.assert_close(box_iou(boxes, boxes), torch.tensor([[1, 1 / 7, 0], [1 / 7, 1, 0], [0, 0, 0]]))


def test_centres_on_and_beyond_the_border_are_clamped() -> None:
    """A box may reach out of a letterboxed image; a negative index would read the other side of the map."""
    rows, columns = centre_cells(torch.tensor([[-50.0, -50, -10, -10], [60, 30, 70, 40]]), (32, 64), (4, 8))
    assert (rows.tolist(), columns.tolist()) == ([0, 3], [0, 7])


def test_float_images_are_taken_as_they_are() -> None:
    images = Images()
    floats = [Batch(b.images.float() / 255, b.image_index, b.classes, b.boxes) for b in images]
    a = observe(Detector(), LAYERS, images, CLASSES).moments["model.3.conv"]
    b = observe(Detector(), LAYERS, floats, CLASSES).moments["model.3.conv"]
    np.testing.assert_allclose(a.mean, b.mean, rtol=1e-6)


def test_a_layer_without_a_feature_map_is_refused() -> None:
    model = nn.Sequential(nn.Conv2d(3, 4, 3), nn.Flatten(), nn.Linear(3600, 4)).eval()
    with pytest.raises(ModelError, match="returns no feature map"):
        observe(model, ["2"], Images(), CLASSES)


def test_a_layer_that_does_not_run_is_named() -> None:
    model = nn.Sequential(nn.Conv2d(3, 4, 3)).eval()
    model.idle = nn.Conv2d(3, 4, 1)
    model.forward = lambda x: model[0](x)  # type: ignore[method-assign]
    with pytest.raises(ModelError, match="idle did not run"):
        observe(model, ["idle"], Images(), CLASSES)
