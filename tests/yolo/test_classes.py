"""Images to classify: as the validator sees them, with the model's class ids, and their folders stay as they are."""

from __future__ import annotations

import shutil
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image
from torch import nn

from seqprune.engine.listener import Listener
from seqprune.errors import DataError, InputError
from seqprune.observe.extract import match_objects
from seqprune.observe.inputs import as_input
from seqprune.run import prune
from seqprune.yolo import ClassificationImages
from seqprune.yolo.data.folders import fitting_names
from seqprune.yolo.files.load import load
from seqprune.yolo.files.save import save_pt
from seqprune.yolo.task.loss import training_loss
from seqprune.yolo.task.predict import predict
from seqprune.yolo.task.validate import validate_classes
from seqprune.yolo.task.validators import Classes
from seqprune.yolo.train.tuning import finetune

pytestmark = pytest.mark.parametrize("task", ["classify"])
NAMES = {0: "green", 1: "red"}
Listing = Callable[[Path], dict[str, tuple[int, int]]]


def by_content(images: torch.Tensor, classes: torch.Tensor) -> dict[bytes, int]:
    return {image.numpy().tobytes(): int(kind) for image, kind in zip(images, classes, strict=True)}


def test_images_are_what_the_validator_sees(network: nn.Module, images: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    draw = np.random.default_rng(0)
    for number, file in enumerate(sorted(images.glob("val/*/*.png"))):  # wide and high, to be resized and cropped
        noise = draw.integers(0, 256, (60 + 10 * number, 90, 3), np.uint8)
        Image.fromarray(noise).save(file)
    seen: list[tuple[torch.Tensor, torch.Tensor]] = []
    original = Classes.preprocess

    def keep(self: Classes, batch: dict[str, torch.Tensor]) -> dict[str, torch.Tensor]:
        seen.append((batch["img"].clone(), batch["cls"].clone()))
        return original(self, batch)

    monkeypatch.setattr(Classes, "preprocess", keep)
    validate_classes(network, images, imgsz=48, batch=3)
    theirs = by_content(*(torch.cat(parts) for parts in zip(*seen, strict=True)))
    (ours,) = ClassificationImages(images, split="val", imgsz=48, batch=4)
    assert ours.boxes is None
    assert ours.images.shape == (4, 3, 64, 64)  # as the validator rounds up
    assert torch.equal(ours.image_index, torch.arange(4))
    assert by_content(ours.images, ours.classes) == theirs
    assert sorted(theirs.values()) == [0, 0, 1, 1]
    assert torch.equal(as_input(ours.images, network), ours.images)


def test_every_image_has_the_class_of_its_folder(images: Path) -> None:
    seen = ClassificationImages(images, imgsz=32, batch=5, names=NAMES)
    assert (len(seen), seen.image_count, seen.names) == (3, 12, NAMES)
    kinds = torch.cat([batch.classes for batch in seen])
    assert [NAMES[kind] for kind in kinds.tolist()] == [file.parent.name for file in seen.files]
    red = torch.cat([batch.images[:, 0].mean((1, 2)) > 0.5 for batch in seen])
    assert torch.equal(red, kinds == 1)
    assert all(len(batch.classes.unique()) == 2 for batch in seen.share(0, 2))
    fitting, held = seen.hold_out()
    assert held is not None
    assert fitting.image_count + held.image_count == 12


def test_a_sample_is_seeded(images: Path) -> None:
    def files(seed: int) -> tuple[Path, ...]:
        return ClassificationImages(images, imgsz=32, images=5, seed=seed).files

    assert files(0) == files(0)
    assert len({*files(0)}) == 5
    assert files(0) != files(1)


def test_class_ids_are_the_models(images: Path) -> None:
    turned = {0: "red", 1: "green"}
    assert ClassificationImages(images, imgsz=32, names=turned).names == turned
    assert fitting_names(NAMES, {0: "0", 1: "1"}, "d") == NAMES
    assert fitting_names({0: "0", 1: "1", 2: "10"}, {0: "0", 1: "1", 2: "10"}, "d") == {0: "0", 1: "1", 2: "10"}
    codes = {0: "n01440764", 1: "n01443537"}
    assert fitting_names(codes, {0: "goldfish", 1: "tench"}, "d") == {0: "n01443537", 1: "n01440764"}


def call_everything_green(network: nn.Module) -> None:
    with torch.no_grad():
        network.get_submodule("model.9.linear").bias[0] = 100


def test_an_image_counts_where_its_class_is_the_most_probable(network: nn.Module, images: Path) -> None:
    call_everything_green(network)
    seen = ClassificationImages(images, imgsz=32, batch=5)
    for flags, batch in zip(match_objects(network, predict, seen), seen, strict=True):
        assert torch.equal(flags, batch.classes == 0)
        rows = predict(network, batch.images)
        assert all(row.tolist() == [[1.0, 0.0]] for row in rows)


def test_accuracy_is_the_share_of_images_with_the_right_class(network: nn.Module, images: Path) -> None:
    call_everything_green(network)
    (images / "val" / "red" / "1.png").unlink()
    measured = validate_classes(network, images, imgsz=32, batch=2)
    assert (measured.top1, measured.top5) == (pytest.approx(2 / 3), 1.0)
    network.names = {0: "red", 1: "green"}
    assert validate_classes(network, images, imgsz=32, batch=2).top1 == pytest.approx(1 / 3)


def test_the_loss_is_a_mean_over_images(network: nn.Module, images: Path) -> None:
    (whole,) = ClassificationImages(images, imgsz=32)
    with torch.no_grad():
        loss = nn.functional.cross_entropy(network(whole.images)[1], whole.classes)
    parts = ClassificationImages(images, imgsz=32, batch=5)
    assert training_loss(network, parts) == pytest.approx(float(loss), rel=1e-5)


def test_nothing_is_written_and_what_cannot_be_read_is_left_out(
    network: nn.Module, images: Path, listing: Listing, caplog: pytest.LogCaptureFixture
) -> None:
    """Ultralytics writes train.cache and re-encodes a JPEG without end marker."""
    Image.new("RGB", (40, 40)).save(images / "train" / "red" / "open.jpg")
    with (images / "train" / "red" / "open.jpg").open("ab") as file:
        file.write(b"trailing")
    (images / "train" / "red" / "1.png").write_bytes(b"no image")
    before = listing(images)
    seen = ClassificationImages(images, imgsz=32)
    assert sum(len(batch.images) for batch in seen) == seen.image_count == 12
    assert seen.unreadable == ("red/1.png",)
    assert "left out" in caplog.text
    (images / "val" / "red" / "broken.png").write_bytes(b"no image")
    before = listing(images)
    measured = validate_classes(network, images, imgsz=32).images
    assert measured.unreadable == ("red/broken.png",)
    assert "broken" not in "".join(measured.used)
    finetune(network, images, epochs=1, imgsz=32, batch=4, cache="disk")
    assert listing(images) == before
    (images / "train" / "red" / "3.png").unlink()
    with pytest.raises(DataError, match=r"3\.png: cannot be decoded"):
        list(seen)


def _empty(folder: Path) -> None:
    for file in [entry for entry in folder.rglob("*") if entry.is_file()]:
        file.unlink()


@pytest.mark.parametrize(
    ("spoil", "expected"),
    [
        (lambda root: shutil.rmtree(root), "no such folder; for classification give one with train and val"),
        (lambda root: shutil.rmtree(root / "train"), "has no folder train"),
        (lambda root: shutil.rmtree(root / "train" / "red"), "has one class, green; give a folder for each of two"),
        (lambda root: (root / "train" / "blue").mkdir(), "has 3 classes but the model has 2"),
        (lambda root: (root / "train" / "red").rename(root / "train" / "blue"), "blue is no class of the model"),
        (lambda root: _empty(root / "train"), "the images cannot be used"),
        (lambda root: [f.write_bytes(b"") for f in root.glob("train/*/*")], "none of 12 images in"),
    ],
)
def test_folders_that_cannot_be_used(images: Path, spoil: Callable[[Path], object], expected: str) -> None:
    spoil(images)
    with pytest.raises(DataError, match=expected) as caught:
        ClassificationImages(images, imgsz=32, names=NAMES)
    assert "\n" not in str(caught.value)
    assert not images.exists() or {*images.iterdir()} <= {images / "train", images / "val"}


def test_splits_and_numbers_that_cannot_be_used(network: nn.Module, images: Path) -> None:
    with pytest.raises(DataError, match="images=0"):
        ClassificationImages(images, images=0)
    with pytest.raises(DataError, match="not a split"):
        ClassificationImages(images, split="tset")  # type: ignore[arg-type]
    with pytest.raises(InputError, match="at least 1"):
        validate_classes(network, images, batch=0)
    (images / "val" / "red").rename(images / "val" / "blue")
    with pytest.raises(DataError, match="blue is no class of train"):
        validate_classes(network, images, imgsz=32)
    shutil.rmtree(images / "val" / "blue")
    (images / "val").rename(images / "test")
    assert ClassificationImages(images, split="val", imgsz=32).image_count == 2


@pytest.mark.slow
def test_the_whole_job(network: nn.Module, images: Path, tmp_path: Path, listing: Listing) -> None:
    path, before, steps = save_pt(network, tmp_path / "m.pt", names=NAMES), listing(images), []
    result = prune(
        path,
        images,
        layers=["model.7.conv", "model.3.conv", "model.9.conv.conv"],
        **{"imgsz": 64, "match": "all", "keep": 0.5, "batch": 4, "finetune": 1, "finetune_step": 1},
        listener=Listener(step=steps.append),
    )
    assert [(step.layer, step.status, step.objects) for step in steps] == [
        ("model.3.conv", "pruned", 12),
        ("model.7.conv", "pruned", 12),
        ("model.9.conv.conv", "pruned", 12),
    ]
    assert result.record.verify.max_rel <= 1e-4
    assert result.record.after.params < result.record.before.params
    assert result.record.after.top1 is not None
    assert listing(images) == before
    for name in ("saved.pt", "saved.safetensors"):
        loaded = load(result.save(tmp_path / name), tasks=["classify"])
        assert (loaded.task, loaded.plan, loaded.names) == ("classify", result.plan, NAMES)


@pytest.mark.parametrize("match", ["once", "each"])
def test_images_are_matched(match: str, network: nn.Module, images: Path) -> None:
    """The images of the other class do not count, and one class tells nothing apart."""
    call_everything_green(network)
    with pytest.raises(InputError, match="no layer could be pruned"):
        prune(network, images, layers=["model.3.conv"], imgsz=64, match=match, val=False)


def test_the_whole_network_goes_to_a_target(network: nn.Module, images: Path) -> None:
    warned: list[str] = []
    result = prune(
        *(network, images),
        preset="accurate",
        target="params=0.7",
        round_to=1,
        imgsz=64,
        batch=4,
        val=False,
        listener=Listener(warning=warned.append),
    )
    assert ["all errors count alike" in text for text in warned if "time" not in text] == [True]
    assert result.record.after.params == pytest.approx(0.7 * result.record.before.params, rel=0.03)
    assert [repair.step for repair in result.record.repairs] == ["ls"]
    assert all(repair.before is not None for repair in result.record.repairs)
