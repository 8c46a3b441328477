"""A sample of the val images, listed and not copied."""

from __future__ import annotations

from pathlib import Path

import pytest
from torch import nn

from seqprune.errors import DataError, InputError
from seqprune.yolo import DetectionImages
from seqprune.yolo.data.subset import deal, dealt, sampled
from seqprune.yolo.task.validate import validate


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


def test_samples_have_no_image_in_common_where_there_are_enough(data_yaml: Path, listing) -> None:
    before = listing(data_yaml.parent)

    def files(count: int, images: int) -> list[set[Path]]:
        whole = DetectionImages(data_yaml, imgsz=64, batch=2, images=count * images, seed=0)
        return [set(sample.files) for sample in dealt(whole, count, images, 0)]

    apart = files(3, 3)
    assert [len(sample) for sample in apart] == [3, 3, 3]
    assert len(set.union(*apart)) == 9
    assert apart == files(3, 3)
    overlapping = files(3, 6)
    assert [len(sample) for sample in overlapping] == [6, 6, 6]
    assert len({frozenset(sample) for sample in overlapping}) > 1
    assert listing(data_yaml.parent) == before


def test_subsets_that_could_not_differ_are_refused() -> None:
    files = [Path(f"{number}.jpg") for number in range(4)]
    with pytest.raises(InputError, match="2 samples of 4 out of 4 train images do not differ"):
        deal(files, 2, 4, 0)


def test_all_images_are_the_data_itself(data_yaml: Path) -> None:
    with sampled(data_yaml, None) as described:
        assert described == data_yaml
    with pytest.raises(DataError, match="at least 1"), sampled(data_yaml, 0):
        pass


def test_a_sample_has_the_channels_of_the_whole(data_yaml: Path) -> None:
    data_yaml.write_text(data_yaml.read_text() + "channels: 1\n")
    with sampled(data_yaml, 2) as described:
        assert next(iter(DetectionImages(described, imgsz=64))).images.shape[1] == 1
