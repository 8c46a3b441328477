"""Images come as the validator sees them, in a fixed order, and the folder they come from stays as it is."""

from __future__ import annotations

import random
import threading
from pathlib import Path

import numpy as np
import pytest
import torch
from torch import nn

from seqprune.errors import DataError
from seqprune.yolo.data.images import DetectionImages
from seqprune.yolo.task.validators import Validator


def test_batches_are_what_the_validator_sees(data_yaml: Path, tiny: nn.Module, tmp_path: Path, monkeypatch) -> None:
    seen: list[dict[str, torch.Tensor]] = []

    def keep(self: Validator, batch: dict[str, torch.Tensor]) -> dict[str, torch.Tensor]:
        seen.append({key: batch[key].clone() for key in ("img", "bboxes", "cls", "batch_idx")})
        return original(self, batch)

    original = Validator.preprocess
    monkeypatch.setattr(Validator, "preprocess", keep)
    arguments = {
        "data": str(data_yaml),
        "imgsz": 64,
        "batch": 3,
        "device": "cpu",
        "rect": True,
        "plots": False,
    }
    Validator(args={**arguments, "val": False}, save_dir=tmp_path / "val")(model=tiny)
    images = DetectionImages(data_yaml, split="val", imgsz=64, batch=3)
    assert len(images) == len(seen) == 2
    for ours, theirs in zip(images, seen, strict=True):
        height, width = ours.images.shape[2:]
        assert ours.images.dtype == torch.uint8
        assert torch.equal(ours.images, theirs["img"])
        assert torch.equal(ours.classes, theirs["cls"].flatten().long())
        assert torch.equal(ours.image_index, theirs["batch_idx"].long())
        centre = (ours.boxes[:, :2] + ours.boxes[:, 2:]) / 2 / torch.tensor([width, height])
        assert torch.allclose(centre, theirs["bboxes"][:, :2], atol=1e-6)


def test_boxes_lie_on_the_objects_and_images_are_rgb(data_yaml: Path) -> None:
    for batch in DetectionImages(data_yaml, split="val", imgsz=64):
        last = {int(index): number for number, index in enumerate(batch.image_index)}
        for index, number in last.items():  # drawn last, so nothing lies over it
            row, column = (int((batch.boxes[number, k] + batch.boxes[number, k + 2]) / 2) for k in (1, 0))
            red, green, _ = batch.images[index, :, row, column].tolist()
            assert (red > green) == bool(batch.classes[number])


def test_two_passes_are_the_same_and_leave_no_threads(data_yaml: Path) -> None:
    images = DetectionImages(data_yaml, imgsz=64, batch=4)
    assert images.image_count == 10
    first, second = list(images), list(images)
    assert len(first) == len(second) == len(images) == 3
    for one, other in zip(first, second, strict=True):
        assert torch.equal(one.images, other.images)
        assert torch.equal(one.boxes, other.boxes)
    next(iter(images))
    alive = [thread for thread in threading.enumerate() if thread.name.startswith("seqprune-images")]
    for thread in alive:
        thread.join(timeout=10)
    assert not any(thread.is_alive() for thread in alive)


def test_a_sample_is_seeded_and_leaves_the_random_state(data_yaml: Path) -> None:
    def names(seed: int) -> list[str]:
        return [Path(f).name for f in DetectionImages(data_yaml, imgsz=64, images=5, seed=seed)._dataset.im_files]

    assert names(0) == names(0)
    assert len(set(names(0))) == 5
    assert names(0) != names(1)
    assert DetectionImages(data_yaml, imgsz=64, images=99).image_count == 10


def test_an_image_without_objects_is_a_batch_without_boxes(data_yaml: Path) -> None:
    (batch,) = [b for b in DetectionImages(data_yaml, imgsz=64, batch=1) if not len(b.classes)]
    assert batch.boxes.shape == (0, 4)


def test_imgsz_is_rounded_up_to_the_stride(data_yaml: Path) -> None:
    batch = next(iter(DetectionImages(data_yaml, imgsz=70, batch=2)))
    assert all(side % 32 == 0 for side in batch.images.shape[2:])


def test_nothing_is_written_beside_the_images(data_yaml: Path, listing) -> None:
    """Ultralytics writes labels.cache, re-encodes a JPEG without end marker, deletes a damaged npy."""
    folder = data_yaml.parent / "images" / "train"
    whole = (folder / "00.jpg").read_bytes()
    (folder / "00.jpg").write_bytes(whole + b"trailing")
    (folder / "02.npy").write_bytes(b"damaged")
    before = listing(data_yaml.parent)
    images = DetectionImages(data_yaml, imgsz=64)
    assert images.image_count == 10
    assert sum(len(batch.images) for batch in images) == 10
    assert listing(data_yaml.parent) == before


def test_unreadable_images_are_named_and_left_out(data_yaml: Path, caplog: pytest.LogCaptureFixture) -> None:
    folder = data_yaml.parent / "images" / "train"
    (folder / "03.jpg").write_bytes(b"no image")
    (folder / "04.jpg").write_bytes((folder / "04.jpg").read_bytes()[:-200])
    (data_yaml.parent / "labels" / "train" / "05.txt").write_text("0 0.5 0.5 7 7")
    images = DetectionImages(data_yaml, imgsz=64)
    assert images.unreadable == ("03.jpg", "04.jpg", "05.jpg")
    assert images.image_count == 7
    assert "left out" in caplog.text


def test_polygons_become_boxes(data_yaml: Path) -> None:
    (data_yaml.parent / "labels" / "val" / "00.txt").write_text("1 0.25 0.25 0.75 0.25 0.75 0.75 0.25 0.75")
    images = DetectionImages(data_yaml, split="val", imgsz=64, batch=1)
    assert images.image_count == 4
    assert not images.unreadable


def _edit(path: Path, text: str) -> None:
    path.write_text(text)


NAMES = "names: {0: green, 1: red}\n"
SPLITS = "train: images/train\nval: images/val\n"


@pytest.mark.parametrize(
    ("spoil", "expected"),
    [
        (lambda p: p.unlink(), "no such file"),
        (lambda p: _edit(p, "names: [a\n: }"), "not a readable YAML"),
        (lambda p: _edit(p, "just text"), "holds no keys"),
        (lambda p: _edit(p, "val: images/val\n" + NAMES), "key train is missing"),
        (lambda p: _edit(p, SPLITS), "key names is missing"),
        (lambda p: _edit(p, SPLITS + NAMES + "nc: 5\n"), "cannot be used"),
        (lambda p: _edit(p, "train: images/train\nval: images/nowhere\n" + NAMES), "cannot be used"),
        (lambda p: _edit(p, "train: images/nowhere\nval: images/val\n" + NAMES), "no images found in"),
        (lambda p: _edit(p, SPLITS + "names: [green]\n"), "has 1 classes but the model has 2"),
        (lambda p: _edit(p, SPLITS + "names: [green, red, blue]\n"), "has 3 classes but the model has 2"),
        (lambda p: [f.unlink() for f in (p.parent / "labels" / "train").iterdir()], "no labelled object"),
        (
            lambda p: [f.write_bytes(b"") for f in (p.parent / "images" / "train").iterdir()],
            "none of 10 images",
        ),
        (
            lambda p: _edit(p.parent / "labels" / "train" / "00.txt", "7 0.5 0.5 0.1 0.1"),
            r"00\.txt: class id 7",
        ),
        (
            lambda p: _edit(p.parent / "labels" / "train" / "00.txt", "-1 0.5 0.5 0.1 0.1"),
            r"00\.txt: class id -1",
        ),
    ],
)
def test_unusable_data_is_refused_on_one_line(data_yaml: Path, spoil, expected: str) -> None:
    spoil(data_yaml)
    with pytest.raises(DataError, match=expected) as caught:
        DetectionImages(data_yaml, imgsz=64, names={0: "green", 1: "red"})
    assert "\n" not in str(caught.value)


def test_a_folder_and_a_bad_number_are_refused(data_yaml: Path) -> None:
    with pytest.raises(DataError, match="is a folder"):
        DetectionImages(data_yaml.parent)
    with pytest.raises(DataError, match="images=0"):
        DetectionImages(data_yaml, images=0)
    with pytest.raises(DataError, match="not a split"):
        DetectionImages(data_yaml, split="tset")  # type: ignore[arg-type]


def test_a_download_script_in_a_users_yaml_is_not_run(data_yaml: Path, tmp_path: Path) -> None:
    script = f"download: |\n  open({str(tmp_path / 'ran')!r}, 'w').close()\n"
    data_yaml.write_text("train: images/train\nval: images/nowhere\n" + NAMES + script)
    with pytest.raises(DataError, match="cannot be used"):
        DetectionImages(data_yaml)
    assert not (tmp_path / "ran").exists()


def test_an_image_that_vanishes_is_named(data_yaml: Path) -> None:
    images = DetectionImages(data_yaml, imgsz=64)
    (data_yaml.parent / "images" / "train" / "00.jpg").unlink()
    with pytest.raises(DataError, match=r"00\.jpg: cannot be decoded"):
        list(images)


def test_python_and_numpy_random_numbers_do_not_change_the_order(data_yaml: Path) -> None:
    random.seed(1)
    np.random.seed(1)  # noqa: NPY002 - the generator that Ultralytics would use
    one = DetectionImages(data_yaml, imgsz=64, images=6)._dataset.im_files
    random.seed(2)
    np.random.seed(2)  # noqa: NPY002
    assert DetectionImages(data_yaml, imgsz=64, images=6)._dataset.im_files == one


def test_shares_are_the_batches_of_the_whole(data_yaml: Path) -> None:
    """As several processes look at them: a batch is shaped as among all, or their moments would differ."""
    images = DetectionImages(data_yaml, imgsz=64, batch=3)
    shares = [images.share(rank, 2) for rank in range(2)]
    assert [len(share) for share in shares] == [2, 2]
    for rank, share in enumerate(shares):
        for mine, whole in zip(share, list(images)[rank::2], strict=True):
            assert torch.equal(mine.images, whole.images)
            assert torch.equal(mine.boxes, whole.boxes)


@pytest.mark.filterwarnings("ignore:invalid value encountered in remainder")  # Ultralytics'
@pytest.mark.parametrize("number", ["nan", "inf"])
def test_a_class_id_that_is_no_number_leaves_its_image_out(data_yaml: Path, number: str) -> None:
    label = data_yaml.parent / "labels" / "train" / "00.txt"
    label.write_text(f"{number} 0.5 0.5 0.1 0.1\n")
    images = DetectionImages(data_yaml, imgsz=64, names={0: "green", 1: "red"})
    assert [Path(name).stem for name in images.unreadable] == ["00"]
