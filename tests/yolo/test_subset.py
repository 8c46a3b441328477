"""A sample of the val images, listed and not copied."""

from __future__ import annotations

from pathlib import Path

import pytest
from torch import nn

from seqprune.errors import DataError
from seqprune.yolo import DetectionImages
from seqprune.yolo.subset import sampled
from seqprune.yolo.validate import validate


def test_the_sample_is_seeded_and_can_be_measured(data_yaml: Path, tiny: nn.Module, listing) -> None:
    before, found = listing(data_yaml.parent), []
    for seed in (0, 0, 1):
        with sampled(data_yaml, 2, seed) as described:
            images = DetectionImages(described, split="val")
            found.append(images.files)
            assert validate(tiny, described, imgsz=64, batch=2).map50 >= 0
        assert not Path(described).exists()
    assert found[0] == found[1]
    assert len(set(found[0])) == 2
    assert all(file.parent == data_yaml.parent / "images" / "val" for file in found[0])
    assert listing(data_yaml.parent) == before


def test_all_images_are_the_data_itself(data_yaml: Path) -> None:
    with sampled(data_yaml, None) as described:
        assert described == data_yaml
    with pytest.raises(DataError, match="at least 1"), sampled(data_yaml, 0):
        pass
