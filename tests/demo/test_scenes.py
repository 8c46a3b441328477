"""The demo's scenes are right and repeatable, and the detector shipped with them knows them."""

import pickletools
import re
import zipfile
from pathlib import Path

import numpy as np
import pytest
import ultralytics
from PIL import Image
from ultralytics.data import utils as ultralytics_data

from seqprune.demo import config_path, weights_path, write_scenes
from seqprune.demo.scenes import CLASSES, Scene, Split, make_scene, split_samples
from seqprune.errors import InputError

SCENES: list[tuple[Split, int]] = [(split, index) for split in ("train", "val") for index in range(15)]


def written(folder: Path) -> dict[str, bytes]:
    """Every file under a folder but ``data.yaml``, which names the folder."""
    files = (file for file in folder.rglob("*") if file.is_file() and file.name != "data.yaml")
    return {file.relative_to(folder).as_posix(): file.read_bytes() for file in files}


def test_the_same_seed_writes_the_same_bytes(tmp_path: Path) -> None:
    for name, seed in (("one", 3), ("again", 3), ("other", 4)):
        write_scenes(tmp_path / name, train=3, val=2, seed=seed)
    one, again, other = (written(tmp_path / name) for name in ("one", "again", "other"))
    assert one == again
    assert one.keys() == other.keys()
    assert all(one[name] != other[name] for name in one if name.endswith(".png"))


def test_a_longer_set_begins_with_the_shorter(tmp_path: Path) -> None:
    write_scenes(tmp_path / "short", train=1, val=2)
    write_scenes(tmp_path / "long", train=3, val=2)
    assert written(tmp_path / "short").items() <= written(tmp_path / "long").items()


def test_a_second_call_leaves_nothing_of_the_first(tmp_path: Path) -> None:
    """Ultralytics trusts a label cache by paths and total size: an old one would hide the new labels."""
    write_scenes(tmp_path / "used", train=4, val=3, seed=1)
    (tmp_path / "used" / "labels" / "val.cache").write_bytes(b"of the first")
    write_scenes(tmp_path / "used", train=2, val=1, seed=2)
    write_scenes(tmp_path / "fresh", train=2, val=1, seed=2)
    assert written(tmp_path / "used") == written(tmp_path / "fresh")


def test_the_files_are_a_yolo_data_set(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Read by Ultralytics itself; the folder's name needs quoting in YAML."""
    monkeypatch.setattr(ultralytics_data, "check_font", lambda *_: None)
    folder = tmp_path / "it's #1: größe"
    data = write_scenes(folder, train=3, val=2, size=96)
    assert data == folder / "data.yaml"
    read = ultralytics_data.check_det_dataset(str(data), autodownload=False)
    assert read["names"] == {digit: str(digit) for digit in range(CLASSES)}
    assert Path(read["train"]) == folder / "images" / "train"
    for split, count in (("train", 3), ("val", 2)):
        images = sorted((folder / "images" / split).iterdir())
        assert len(images) == count
        for index, image in enumerate(images):
            scene = make_scene("val" if split == "val" else "train", index, size=96)
            with Image.open(image) as picture:
                assert np.array_equal(np.asarray(picture), scene.image)
            rows = np.loadtxt(folder / "labels" / split / f"{image.stem}.txt", ndmin=2)
            assert np.array_equal(rows[:, 0], scene.classes)
            corners = np.hstack([rows[:, 1:3] - rows[:, 3:] / 2, rows[:, 1:3] + rows[:, 3:] / 2]) * 96
            np.testing.assert_allclose(corners, scene.boxes, atol=1e-3)


def test_training_and_validation_share_no_handwriting() -> None:
    samples = split_samples()
    assert not set(samples["train"]) & set(samples["val"])
    assert len(samples["train"]) + len(samples["val"]) == 1797
    for split, index in SCENES:
        assert set(make_scene(split, index, seed=index).samples) <= set(samples[split])


@pytest.mark.parametrize("size", [64, 128, 160])
@pytest.mark.parametrize(("split", "index"), SCENES[::3])
def test_labels_and_boxes_are_in_range(split: Split, index: int, size: int) -> None:
    scene = make_scene(split, index, size=size)
    assert scene.image.shape == scene.background.shape == (size, size, 3)
    assert scene.image.dtype == np.uint8
    assert 1 <= len(scene.boxes) == len(scene.classes) == len(scene.samples) <= 6
    assert scene.classes.min() >= 0
    assert scene.classes.max() < CLASSES
    assert scene.boxes.min() >= 0
    assert scene.boxes.max() <= size
    assert (scene.boxes[:, 2:] - scene.boxes[:, :2] >= 3).all()


@pytest.mark.parametrize(("split", "index"), SCENES)
def test_boxes_are_tight_around_the_digits(split: Split, index: int) -> None:
    """Outside the boxes nothing changed; each edge row and column of a box shows its digit."""
    scene = make_scene(split, index)
    changed = (scene.image != scene.background).any(axis=2)
    for box in scene.boxes:
        left, top, right, bottom = box
        inside = changed[top:bottom, left:right]
        assert inside[0].any()
        assert inside[-1].any()
        assert inside[:, 0].any()
        assert inside[:, -1].any()
    assert not changed[~covered(scene)].any()


def covered(scene: Scene) -> np.ndarray:
    """``(size, size)`` whether any box covers the pixel."""
    mask = np.zeros(scene.image.shape[:2], dtype=bool)
    for left, top, right, bottom in scene.boxes:
        mask[top:bottom, left:right] = True
    return mask


def test_digits_overlap_a_little_at_most() -> None:
    for split, index in SCENES:
        boxes = make_scene(split, index).boxes
        for one in range(len(boxes)):
            for other in range(one):
                low = np.maximum(boxes[one, :2], boxes[other, :2])
                high = np.minimum(boxes[one, 2:], boxes[other, 2:])
                areas = [np.prod(boxes[each, 2:] - boxes[each, :2]) for each in (one, other)]
                assert np.prod(np.maximum(high - low, 0)) <= 0.12 * min(areas)


@pytest.mark.parametrize("wrong", [{"train": 0}, {"val": 0}, {"size": 32}, {"size": 100}, {"seed": -1}], ids=str)
def test_numbers_out_of_range_are_refused_before_anything_is_written(wrong: dict[str, int], tmp_path: Path) -> None:
    with pytest.raises(InputError, match=f"{next(iter(wrong))}={next(iter(wrong.values()))}"):
        write_scenes(tmp_path / "scenes", **{"train": 1, "val": 1, **wrong})
    assert not (tmp_path / "scenes").exists()


def test_the_weights_are_small_and_load() -> None:
    assert weights_path().stat().st_size <= 8e6
    model = ultralytics.YOLO(weights_path())
    assert model.names == {digit: str(digit) for digit in range(CLASSES)}
    assert [type(block).__name__ for block in model.model.model] == [
        *("Conv", "Conv", "C2f", "Conv", "C2f", "Conv", "C2f", "Conv", "C2f", "SPPF"),
        *("Upsample", "Concat", "C2f", "Upsample", "Concat", "C2f", "Conv", "Concat", "C2f"),
        *("Conv", "Concat", "C2f", "Detect"),
    ]
    built = ultralytics.YOLO(config_path()).model.state_dict()
    assert {name: tensor.shape for name, tensor in built.items()} == {
        name: tensor.shape for name, tensor in model.model.state_dict().items()
    }


def test_the_weights_say_nothing_about_where_they_were_made() -> None:
    with zipfile.ZipFile(weights_path()) as archive:
        (pickled,) = (name for name in archive.namelist() if name.endswith("data.pkl"))
        operations = list(pickletools.genops(archive.read(pickled)))
    texts = {argument for _, argument, _ in operations if isinstance(argument, str)}
    assert not [text for text in texts if re.match(r"[/~\\]|[A-Za-z]:[/\\]", text) or "\\" in text]
    assert not texts & {"git", "save_dir", "project", "origin"}


@pytest.mark.slow
def test_the_weights_reach_what_they_are_said_to_reach(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(ultralytics_data, "check_font", lambda *_: None)
    data = write_scenes(tmp_path, train=1, val=100)
    model = ultralytics.YOLO(weights_path())
    recorded = model.ckpt["train_metrics"]["mAP50-95(100)"]
    metrics = model.val(
        data=str(data), imgsz=128, device="cpu", workers=0, plots=False, verbose=False, project=str(tmp_path)
    )
    assert metrics.box.map >= recorded - 0.02
    assert 0.7 < recorded < 0.95
