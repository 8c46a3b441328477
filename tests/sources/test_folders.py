"""Folders of images: what their names say of classes, how a network sees them, and what is left out."""

from __future__ import annotations

import re
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image

from seqprune.errors import DataError
from seqprune.sources import folders
from seqprune.sources.folders import FolderImages, Labels, found_in, labelled
from seqprune.sources.shown import Shown

SMALL = Shown(imgsz=16, crop=1.0)


def picture(path: Path, colour: tuple[int, int, int] = (200, 40, 90), size: tuple[int, int] = (24, 20)) -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    Image.new("RGB", size, colour).save(path)
    return path


def ids(root: Path, classes: int | None) -> Labels:
    return labelled(found_in(root).values(), classes)


def test_folders_are_classes_as_they_are_sorted_in_both_splits(tmp_path: Path) -> None:
    for name in ("train/cat/1.jpg", "train/dog/1.png", "train/owl/1.png", "val/owl/2.jpg", "val/notes.txt"):
        picture(tmp_path / name) if not name.endswith("txt") else (tmp_path / name).write_text("")
    labels = ids(tmp_path, 3)
    assert labels.ids == {"cat": 0, "dog": 1, "owl": 2}
    val = FolderImages(found_in(tmp_path)["val"], labels, SMALL)
    assert next(iter(val)).classes.tolist() == [2], "one folder of three, and still the third class"
    assert val.names == {0: "cat", 1: "dog", 2: "owl"}


def test_numbers_in_front_are_the_classes(tmp_path: Path) -> None:
    for name in ("calib/007_shark/a.jpg", "calib/12/b.jpg", "eval/3 ray/c.jpg"):
        picture(tmp_path / name)
    assert ids(tmp_path, 1000).ids == {"007_shark": 7, "12": 12, "3 ray": 3}
    for name in ("003_n01.jpg", "010_n02.jpg"):
        picture(tmp_path / "flat" / name)
    labels = ids(tmp_path / "flat", 1000)
    assert labels.ids == {"003_n01.jpg": 3, "010_n02.jpg": 10}
    images = FolderImages(found_in(tmp_path / "flat")["train"], labels, SMALL)
    assert sorted(next(iter(images)).classes.tolist()) == [3, 10]
    assert images.classes == 11


@pytest.mark.parametrize(
    ("names", "classes", "said"),
    [
        (
            ("cat/1.jpg", "dog/1.jpg"),
            3,
            "2 folders .* are not the network's 3 classes; begin their names with its numbers",
        ),
        (("000001.jpg", "000002.jpg"), 1000, "their names begin with no numbers of classes"),
        (("2024_01.jpg", "2024_02.jpg"), 1000, "their names begin with no numbers of classes"),
        (("7up/1.jpg", "3d/1.jpg"), 9, "are not the network's 9 classes"),
        (("cat/1.jpg", "dog/1.jpg"), None, "no logits of classes"),
    ],
)
def test_names_that_say_nothing_leave_images_without_classes(
    tmp_path: Path, names: tuple[str, ...], classes: int | None, said: str
) -> None:
    for name in names:
        picture(tmp_path / name)
    labels = ids(tmp_path, classes)
    assert not labels.ids
    assert re.search(said, labels.note)
    images = FolderImages(found_in(tmp_path)["train"], labels, SMALL)
    assert (images.classes, len(next(iter(images)).classes), images.image_count) == (0, 0, 2)


def test_some_of_imagenets_folders_are_known_by_their_codes(tmp_path: Path) -> None:
    """Imagenette has ten of the thousand: counted as they are sorted, an English springer would be a goldfish."""
    for name in ("n01440764/1.jpg", "n02102040/1.jpg", "n03888257/1.jpg"):
        picture(tmp_path / name)
    assert ids(tmp_path, 1000).ids == {"n01440764": 0, "n02102040": 217, "n03888257": 701}
    assert not ids(tmp_path, 10).ids


def test_images_are_shown_as_the_network_was_trained(tmp_path: Path) -> None:
    """The middle of the image, its shorter side resized, in the network's numbers."""
    wide = Image.new("RGB", (80, 40), (0, 0, 0))
    wide.paste((255, 0, 0), (20, 0, 60, 40))
    wide.save(tmp_path / "a.png")
    shown = Shown(16, 1.0, (0.5, 0.25, 0.0), (0.5, 0.5, 1.0), "nearest")
    seen = shown.read(tmp_path / "a.png")
    assert seen.shape == (3, 16, 16)
    assert torch.equal(seen, torch.tensor([1.0, -0.5, 0.0])[:, None, None].expand(3, 16, 16))
    grey = Shown(16, 0.5, (0.0,), (1.0,)).read(tmp_path / "a.png")
    assert grey.shape == (1, 16, 16)
    assert grey.max() == pytest.approx(round(0.299 * 255) / 255)
    noise = np.random.default_rng(0).integers(0, 255, (50, 70, 3), dtype=np.uint8)
    Image.fromarray(noise).save(tmp_path / "b.png")
    transforms = pytest.importorskip("torchvision.transforms")
    theirs = transforms.Compose(
        [
            transforms.Resize(32),
            transforms.CenterCrop(28),
            transforms.ToTensor(),
            transforms.Normalize(*[[0.5] * 3] * 2),
        ]
    )
    ours = Shown(28, 28 / 32, (0.5,) * 3, (0.5,) * 3).read(tmp_path / "b.png")
    torch.testing.assert_close(ours, theirs(Image.open(tmp_path / "b.png")))


def test_a_sample_is_seeded_and_what_cannot_be_read_is_left_out(tmp_path: Path) -> None:
    for number in range(12):
        picture(tmp_path / f"{number % 3}" / f"{number:02}.jpg", (20 * number, 0, 0), (64, 48))
    whole = picture(tmp_path / "1" / "13.jpg", size=(64, 48)).read_bytes()
    (tmp_path / "1" / "13.jpg").write_bytes(whole[: len(whole) // 2])
    (tmp_path / "2" / "14.png").write_bytes(b"no image")
    split, labels = found_in(tmp_path)["train"], ids(tmp_path, 3)
    images = FolderImages(split, labels, SMALL, batch=4)
    assert images.unreadable == ("1/13.jpg", "2/14.png")
    assert (images.image_count, len(images)) == (12, 3)
    assert len({int(kind) for kind in next(iter(images)).classes}) > 1, "a batch mixes the classes"
    few = [FolderImages(split, labels, SMALL, images=5, seed=seed) for seed in (0, 0, 1)]
    assert few[0].files == few[1].files != few[2].files
    assert few[0].fingerprint() == few[1].fingerprint()
    assert few[0].fingerprint() != FolderImages(split, labels, Shown(16), images=5).fingerprint()
    (tmp_path / "bad").mkdir()
    (tmp_path / "bad" / "a.png").write_bytes(b"")
    with pytest.raises(DataError, match="none of 1 images"):
        FolderImages(found_in(tmp_path / "bad")["train"], Labels({}, {}, ""), SMALL)


def test_folders_without_images_are_one_line(tmp_path: Path) -> None:
    with pytest.raises(DataError, match="no such folder"):
        found_in(tmp_path / "nowhere")
    with pytest.raises(DataError, match="holds no image"):
        found_in(tmp_path)
    picture(tmp_path / "val" / "a" / "1.jpg")
    with pytest.raises(DataError, match="has val and no train"):
        found_in(tmp_path)


def test_an_image_that_is_damaged_asks_for_no_package(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Where Ultralytics was imported a broken JPEG was said to lack the module pi_heif."""

    def opened(file: Path) -> None:
        try:
            raise OSError(f"cannot identify image file {file.name}")
        except OSError:
            raise ImportError("No module named 'pi_heif'")  # noqa: B904 - as Ultralytics does

    monkeypatch.setattr(folders.Image, "open", opened)
    assert folders._why_unreadable(tmp_path / "a.jpg") == "a.jpg: cannot identify image file a.jpg"
