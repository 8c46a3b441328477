"""What a checkpoint holds, key by key, and what is left of the network it was made from."""

from __future__ import annotations

from datetime import datetime, timedelta, timezone
from pathlib import Path
from typing import Any

import pytest
import torch
import ultralytics
from small import described, network
from ultralytics.utils import LOGGER

from seqprune.errors import InputError, ModelError, UntrustedError
from seqprune.plan import PrunePlan
from seqprune.yolo.files.networks import build
from seqprune.yolo.files.pruned import plan_of
from seqprune.yolo.files.save import bytes_of, save_pt
from seqprune.yolo.files.unpickle import read
from seqprune.yolo.task.tracing import trace_detector

NAMES = {0: "green", 1: "red"}


def test_a_checkpoint_holds_what_ultralytics_does_and_a_plan(tmp_path: Path) -> None:
    model = network().train()
    plan = PrunePlan.from_keep(trace_detector(model), {"model.1.conv": range(4)}).to_json()
    model(torch.rand(1, 3, 96, 96))
    model.criterion = torch.nn.ReLU()
    path = save_pt(model, tmp_path / "m.pt", names={0: "a", 1: "b"}, plan_json=plan, train_args={"imgsz": 96, "odd": 1})
    held = read(path)
    saved = held.pop("model")
    assert abs(datetime.fromisoformat(held.pop("date")) - datetime.now(timezone.utc)) < timedelta(minutes=5)
    assert held == {
        "epoch": -1,
        "best_fitness": None,
        "ema": None,
        "updates": None,
        "optimizer": None,
        "train_args": {"imgsz": 96, "task": "detect"},
        "version": ultralytics.__version__,
        "license": "AGPL-3.0 License (https://ultralytics.com/license)",
        "docs": "https://docs.ultralytics.com",
        "seqprune_plan": plan,
    }
    assert (saved.names, saved.nc, saved.task, saved.args) == ({0: "a", 1: "b"}, 2, "detect", held["train_args"])
    assert not saved.training
    assert not any(parameter.requires_grad for parameter in saved.parameters())
    assert {parameter.dtype for parameter in saved.parameters()} == {torch.float16}
    assert plan_of(saved) is not None
    assert not hasattr(saved, "criterion")
    assert saved.model[-1].anchors.numel() == 0
    assert model.training
    assert plan_of(model) is None
    assert model.names == NAMES


def test_without_anything_beside_it_is_a_detector_in_half_precision_without_a_plan(tmp_path: Path) -> None:
    model = network()
    del model.task
    held = read(save_pt(model, tmp_path / "m.pt", names=NAMES))
    assert (held["train_args"], held["seqprune_plan"], plan_of(held["model"])) == ({"task": "detect"}, None, None)
    assert next(held["model"].parameters()).dtype is torch.float16
    held = read(save_pt(model, tmp_path / "m.pt", names=NAMES, half=False))
    assert next(held["model"].parameters()).dtype is torch.float32


@pytest.mark.parametrize(
    ("value", "kept"),
    [(65504.0, torch.float16), (-65520.0, torch.float32), (float("inf"), torch.float16), (float("nan"), torch.float16)],
)
def test_a_number_that_half_precision_has_not_keeps_all_in_float32(
    value: float, kept: torch.dtype, tmp_path: Path
) -> None:
    model = network()
    model.model[0].bn.running_var[0] = value
    held = read(save_pt(model, tmp_path / "m.pt", names=NAMES))["model"]
    assert held.model[0].bn.running_var.dtype is kept
    assert held.model[0].bn.num_batches_tracked.dtype is torch.int64


def test_the_size_is_that_of_the_file(tmp_path: Path) -> None:
    model = network()
    plan = PrunePlan.from_keep(trace_detector(model), {"model.1.conv": range(4)}).to_json()
    for about in ({}, {"plan_json": plan}):
        path = save_pt(model, tmp_path / "m.pt", names=NAMES, **about)  # type: ignore[arg-type]
        assert abs(bytes_of(model, names=NAMES, **about) - path.stat().st_size) < 100  # type: ignore[arg-type]
    model.helper = lambda: None
    with pytest.raises(ModelError, match=r"cannot be pickled \(.+\); remove hooks and closures"):
        bytes_of(model, names=NAMES)


def test_what_cannot_be_written_is_said_and_leaves_nothing(tmp_path: Path) -> None:
    with pytest.raises(InputError, match=r"m\.PT: Ultralytics only opens weights that end in \.pt"):
        save_pt(network(), tmp_path / "m.PT", names=NAMES)
    with pytest.raises(InputError, match=r"m\.pt: cannot be written \(.+\); check the folder"):
        save_pt(network(), tmp_path / "absent" / "m.pt", names=NAMES)
    model = network()
    model.helper = lambda: None
    with pytest.raises(ModelError, match=r"cannot be pickled \(.+\); remove hooks and closures"):
        save_pt(model, tmp_path / "m.pt", names=NAMES)
    model = network()
    model.note = plan_of
    with pytest.raises(ModelError, match=r"the model holds seqprune\.yolo\.files\.pruned\.plan_of"):
        save_pt(model, tmp_path / "m.pt", names=NAMES)
    assert not list(tmp_path.iterdir())
    model.note = "seqprune.is.a.word"
    assert read(save_pt(model, tmp_path / "m.pt", names={0: "seqprune.py"}))["model"].note == model.note


@pytest.mark.parametrize("task", ["track", None, ["detect"], "\x1b"])
def test_a_network_is_built_for_a_task_that_there_is(task: Any) -> None:
    with pytest.raises(ModelError, match=r"no network for .* can be built; give one for segment, pose, obb, classify"):
        build(task, described(), 2)


def test_a_description_that_builds_nothing_is_said_and_left_as_it_was() -> None:
    description = described(backbone=[[-1, 1, "Conv", []]])
    with pytest.raises(ModelError, match=r"the network that is described cannot be built \(.+\); correct it"):
        build("detect", description, 2)
    with pytest.raises(UntrustedError):
        build("detect", described(activation="exec()"), 2)
    given = described(channels=1)
    model = build("detect", given, 5)
    assert given == described(channels=1)
    assert not model.training
    assert model.get_submodule("model.0.conv").in_channels == 1
    assert model.yaml["nc"] == 5
    del given["channels"]
    assert build("detect", given, 2).get_submodule("model.0.conv").in_channels == 3


def test_nothing_is_said_of_a_network_that_is_built(monkeypatch: pytest.MonkeyPatch) -> None:
    said: list[object] = []
    monkeypatch.setattr(LOGGER, "info", lambda *args: said.append(args))
    build("detect", described(), 2)
    assert not said
