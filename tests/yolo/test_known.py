"""Which names a checkpoint may hold, and which of its training arguments are taken on."""

from __future__ import annotations

import sys

import pytest
import torch
import torchvision
from torch import nn
from ultralytics.data.augment import LetterBox
from ultralytics.nn.modules import C2f
from ultralytics.nn.tasks import DetectionModel
from ultralytics.utils import IterableSimpleNamespace
from ultralytics.utils.loss import v8DetectionLoss

from seqprune.yolo.files.known import Refused, Token, is_transform, may_be_filled, meaning, shown
from seqprune.yolo.files.settings import numbers_of, plain_settings

KINDS: dict[str, type] = {
    "torch.nn.modules.linear.Linear": nn.Linear,
    "ultralytics.nn.modules.block.C2f": C2f,
    "ultralytics.nn.modules.block.Silence": nn.Identity,
    "ultralytics.nn.tasks.DetectionModel": DetectionModel,
    "ultralytics.nn.tasks.YOLOv10DetectionModel": DetectionModel,
    "torchvision.ops.misc.Permute": torchvision.ops.Permute,
    "torchvision.models.resnet.ResNet": torchvision.models.ResNet,
    "torchvision.transforms.transforms.Compose": torchvision.transforms.Compose,
    "torchvision.transforms.functional.InterpolationMode": torchvision.transforms.InterpolationMode,
    "ultralytics.utils.loss.v8DetectionLoss": v8DetectionLoss,
    "ultralytics.yolo.utils.loss.v8DetectionLoss": v8DetectionLoss,
    "ultralytics.data.augment.LetterBox": LetterBox,
    "ultralytics.yolo.data.augment.LetterBox": LetterBox,
    "ultralytics.utils.IterableSimpleNamespace": IterableSimpleNamespace,
    "ultralytics.yolo.utils.IterableSimpleNamespace": IterableSimpleNamespace,
}


def asked(path: str) -> object:
    module, _, name = path.rpartition(".")
    return meaning(module, name)


@pytest.mark.parametrize("path", KINDS)
def test_layers_losses_and_transforms(path: str) -> None:
    found = asked(path)
    assert isinstance(found, Token)
    assert (found.kind, found.call, found.holds) == (KINDS[path], None, None)
    assert found.name.rpartition(".")[2] == path.rpartition(".")[2]


@pytest.mark.parametrize(
    "path",
    [
        "torch.nn.modules.module.OrderedDict",  # not torch's own
        "torch.nn.modules.linear.init",  # a module
        "torch.nn.modules.linear.Nothing",
        "torch.nn.modules.nothing.Linear",
        "torch.nn.parallel.DataParallel",
        "ultralytics.nn.tasks.Path",
        "ultralytics.nn.tasks.YAML",  # a class and no layer
        "ultralytics.nn.autobackend.AutoBackend",  # a layer that opens files
        "torchvision.models.optical_flow.raft.BatchNorm2d",  # a layer of another package's
        "torch.nn.modules.linear.Linear ",
        "torch.nn.modules.linear.",
        "ultralytics.data.augment.Mosaic",
        "torchvision.datasets.folder.ImageFolder",
        "torch.nn.FloatStorage",
        "torch.StringStorage",
        "torch.load",
        "torch.nothing",
        "numpy.float32",
    ],
)
def test_everything_else_is_refused_by_its_name(path: str) -> None:
    with pytest.raises(Refused, match=path.replace(".", r"\.")):
        asked(path)


@pytest.mark.parametrize("name", ["LetterBox", "Conv2d", "Compose"])
def test_nothing_of_others_is_imported(name: str) -> None:
    """Python prints a poem where ``this`` is imported."""
    with pytest.raises(Refused, match=rf"this\.{name}"):
        meaning("this", name)
    assert "this" not in sys.modules


def test_a_long_name_is_cut() -> None:
    with pytest.raises(Refused) as caught:
        meaning("a" * 200, "b")
    assert str(caught.value) == "a" * 119 + "…"
    assert [shown("a" * 40), shown("a" * 41), shown([1])] == [repr("a" * 40), repr("a" * 39 + "…"), "list"]


def test_kinds_of_numbers_stand_for_themselves() -> None:
    assert asked("torch.float16") is torch.float16
    assert asked("torch.channels_last") is torch.channels_last
    for module in ("torch", "torch.cuda", "torch.storage"):
        assert asked(f"{module}.UntypedStorage") == Token(f"{module}.UntypedStorage", holds=torch.uint8)


def test_a_tensor_without_values_lies_at_the_beginning() -> None:
    made = meaning("torch._utils", "_rebuild_tensor_v2").call(
        torch.storage.TypedStorage(0, dtype=torch.float32), 5, (0, 3), (3, 1)
    )
    assert (made.storage_offset(), made.shape, made.stride()) == (0, (0, 3), (3, 1))


def test_what_may_be_filled() -> None:
    bare = [kind.__new__(kind) for kind in (nn.Linear, LetterBox, torchvision.transforms.Compose, v8DetectionLoss)]
    assert all(map(may_be_filled, [*bare, IterableSimpleNamespace()]))
    assert not any(map(may_be_filled, [[], {}, "a", nn.Linear, Token("a"), torch.ones(1)]))
    assert [is_transform(value) for value in bare] == [False, True, True, False]


TAKEN: list[tuple[str, object]] = [
    ("imgsz", 8192), ("imgsz", [320, 8192]), ("batch", -8192), ("lr0", 1e6), ("lr0", 0.1), ("epochs", 100_000),
    ("amp", True), ("device", None), ("device", "cpu"), ("device", "cuda:12"), ("device", "0,1"), ("device", [0, 1]),
    ("optimizer", "AdamW"), ("freeze", [0] * 10_000), ("cache", "ram"), ("split", "val"), ("task", "obb"),
    ("mode", "train"),
]  # fmt: skip
LEFT: list[tuple[object, object]] = [
    ("imgsz", 8193), ("imgsz", [8193]), ("batch", -8193), ("lr0", 1e6 + 1), ("lr0", float("nan")), ("epochs", 100_001),
    ("device", "cuda:123"), ("device", "cpu\n"), ("device", "0," * 16 + "0"), ("optimizer", "os.system"),
    ("freeze", [0] * 10_001), ("freeze", ["0"]), ("freeze", [0, "0"]), ("cache", "disk"), ("project", "/etc"),
    ("data", None), ("resume", True), ("model", "x.pt"), ("no_key", 1), (3, 1), ("lr0", {}), ("name", 3),
    ("lr0", "0.1"), ("mode", "export"), ("workers", 65), ("patience", 100_001),
]  # fmt: skip


def test_training_arguments_are_numbers_and_known_words() -> None:
    for key, value in TAKEN:
        assert plain_settings({key: value}) == {key: value}
    for strange, value in LEFT:
        assert plain_settings({strange: value}) == {}


def test_numbers_of_a_training() -> None:
    given = {"a": 1, "b": 0.5, "c": True, "d": "1", 5: 1, "e": float("nan"), "f": None, "g": [1], "h": float("-inf")}
    assert numbers_of(given) == {"a": 1, "b": 0.5, "c": True, "h": float("-inf")}
