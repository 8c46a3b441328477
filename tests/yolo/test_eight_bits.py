"""Eight bits at the end of a run, by the tools of the runtimes."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from ultralytics import YOLO

from seqprune.errors import InputError
from seqprune.run import prune
from seqprune.runtimes.where import QUANTISING
from seqprune.yolo.data.images import DetectionImages
from seqprune.yolo.task.quantising import _before, squares


@pytest.mark.slow
@pytest.mark.parametrize("runtime", [pytest.param(r, marks=[pytest.mark.long] * (r == "openvino")) for r in QUANTISING])
def test_what_was_pruned_is_brought_to_eight_bits_and_measured(
    runtime: str, tiny: Any, data_yaml: Path, tmp_path: Path
) -> None:
    for package in QUANTISING[runtime]:
        pytest.importorskip(package)
    result = prune(
        *(tiny, data_yaml),
        preset="fast",
        target="params=0.7",
        runtime=runtime,
        int8=True,
        imgsz=64,
        batch=4,
        threads=1,
        folder=tmp_path,
    )
    found = result.record.int8
    assert found["runtime"] == runtime
    assert found["int8"]["file_bytes"] < found["float"]["file_bytes"]
    assert found["int8"]["accuracy"].keys() == {"map50_95", "map50"}
    file = tmp_path / "weights" / found["file"]
    assert file.exists()
    image = np.full((64, 64, 3), 114, np.uint8)
    assert len(YOLO(str(file), task="detect").predict(image, imgsz=64, device="cpu", verbose=False)) == 1


def test_convolutions_that_no_other_follows_are_told() -> None:
    """The last ones of a head, in eight bits, took most of the accuracy."""
    reads = {"a": [], "act": ["a"], "b": ["act"], "c": ["act"], "end": ["b", "c"], "d": ["c"]}
    assert _before(["a", "b", "c", "d"], reads) == {"a", "c"}


def test_images_are_given_as_an_export_is_given_them(tiny: Any, data_yaml: Path) -> None:
    images = DetectionImages(data_yaml, imgsz=64, batch=4)
    found = list(squares(images, tiny, 64))
    assert len(found) == images.image_count
    assert {each.shape for each in found} == {(1, 3, 64, 64)}
    grey = torch.tensor(114 / 255)
    assert all(each.min() >= 0 and each.max() <= 1 for each in found)
    assert any(torch.isclose(torch.from_numpy(each[0, :, 0, 0]), grey).all() for each in found)


def test_larger_images_are_made_smaller_for_a_smaller_square(tiny: Any, data_yaml: Path) -> None:
    """Their upper left corners alone were looked at."""
    images = DetectionImages(data_yaml, imgsz=64, batch=4)
    whole, half = (list(squares(images, tiny, side)) for side in (64, 32))
    assert {each.shape for each in half} == {(1, 3, 32, 32)}
    for large, small in zip(whole, half, strict=True):
        shrunk = torch.nn.functional.interpolate(torch.from_numpy(large), scale_factor=0.5, mode="area")
        assert (shrunk - torch.from_numpy(small)).abs().mean() < 0.02


@pytest.mark.parametrize(
    ("given", "said"),
    [
        ({"runtime": "torch"}, "eight bits are for onnxruntime and openvino, not for torch"),
        ({"runtime": "onnxruntime", "val": False}, "give --data, and leave out --no-val"),
    ],
)
def test_what_eight_bits_need_is_said_first(given: dict[str, Any], said: str, tiny: Any, data_yaml: Path) -> None:
    with pytest.raises(InputError, match=said):
        prune(tiny, data_yaml, preset="fast", imgsz=64, int8=True, **given)
