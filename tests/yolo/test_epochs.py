"""A training that was killed goes on from its last epoch, to the same bits."""

from __future__ import annotations

from copy import deepcopy
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import nn
from ultralytics.nn.tasks import DetectionModel, yaml_model_load
from ultralytics.utils import DEFAULT_CFG_DICT

from seqprune.engine.state import State
from seqprune.plan import PrunePlan
from seqprune.yolo.train import epochs
from seqprune.yolo.train.tuning import finetune

EPOCHS = 5
QUICK: dict[str, Any] = {"epochs": EPOCHS, "imgsz": 64, "batch": 4, "seed": 3}
# Steps that reach over the ends of epochs: three batches an epoch, a step after every second.
UNEVEN = {"nbs": 8, "warmup_epochs": 1.0, "close_mosaic": 2, "mosaic": 1.0}


def same(one: nn.Module, other: nn.Module) -> bool:
    theirs = other.state_dict()
    return all(torch.equal(tensor, theirs[name]) for name, tensor in one.state_dict().items())


def ended_after(monkeypatch: pytest.MonkeyPatch, last: int, *args: Any, **options: Any) -> None:
    """A training that ends once so many epochs are kept."""
    write = epochs.Epochs.write

    def ending(self: Any, trainer: Any, last_step: int) -> None:
        write(self, trainer, last_step)
        if trainer.epoch + 1 == last:
            raise KeyboardInterrupt

    with monkeypatch.context() as patched:
        patched.setattr(epochs.Epochs, "write", ending)
        with pytest.raises(KeyboardInterrupt):
            finetune(*args, **options)


@pytest.mark.parametrize(
    "options",
    [
        {},
        {"optimizer": "AdamW", "lr0": 0.002},
        {"optimizer": "SGD", "cos_lr": True},
        {"multi_scale": 0.3, "nbs": 4, "batch": 5},
    ],
    ids=["auto", "AdamW", "SGD", "multi-scale"],
)
def test_a_training_goes_on_to_the_same_bits(
    tiny: nn.Module, data_yaml: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, options: dict[str, Any]
) -> None:
    """Every epoch was lost, however many there were."""
    if "multi_scale" in options and isinstance(DEFAULT_CFG_DICT["multi_scale"], bool):
        pytest.skip("sizes by share came with Ultralytics 8.4")
    given = QUICK | UNEVEN | options
    whole = finetune(tiny, data_yaml, **given)
    assert not same(whole, tiny)
    for last in (1, 3, 4):
        ended_after(monkeypatch, last, tiny, data_yaml, state=State(tmp_path), **given)
    assert same(finetune(tiny, data_yaml, state=State(tmp_path), **given), whole)


def test_it_does_not_begin_anew(
    tiny: nn.Module, data_yaml: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    ended_after(monkeypatch, 3, tiny, data_yaml, state=State(tmp_path), **QUICK)
    begun: list[int] = []
    begin = epochs.KeepsEpochs._begin_epoch
    monkeypatch.setattr(epochs.KeepsEpochs, "_begin_epoch", lambda self: (begun.append(self.epoch), begin(self)))
    finetune(tiny, data_yaml, state=State(tmp_path), **QUICK)
    assert begun == [3, 4]


def test_another_training_begins_at_its_first_epoch(
    tiny: nn.Module, data_yaml: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    other = QUICK | {"seed": 4}
    whole = finetune(tiny, data_yaml, **other)
    ended_after(monkeypatch, 3, tiny, data_yaml, state=State(tmp_path), **QUICK)
    assert same(finetune(tiny, data_yaml, state=State(tmp_path), **other), whole)


def test_a_mask_and_a_teacher_go_on_too(
    tiny: nn.Module,
    mask: Any,
    mask_plan: PrunePlan,
    data_yaml: Path,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    if "distill_model" not in DEFAULT_CFG_DICT:
        pytest.skip("distillation came with Ultralytics 8.4.77")
    given: dict[str, Any] = QUICK | UNEVEN | {"epochs": 3, "plan": mask_plan, "teacher": tiny}
    masked = deepcopy(tiny)
    mask(masked)
    whole = finetune(masked, data_yaml, **given)
    ended_after(monkeypatch, 2, masked, data_yaml, state=State(tmp_path), **given)
    assert same(finetune(masked, data_yaml, state=State(tmp_path), **given), whole)


def test_a_loss_that_changes_from_epoch_to_epoch_goes_on(
    data_yaml: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The two heads of a detector without suppression are weighed by how far the training is."""
    cfg = deepcopy(yaml_model_load("yolov10n.yaml")) | {"nc": 2}
    cfg["scales"] = {"n": [0.33, 0.125, 1024]}
    torch.manual_seed(0)
    model = DetectionModel(cfg, verbose=False).eval()
    model.names, model.task = {0: "green", 1: "red"}, "detect"
    whole = finetune(model, data_yaml, **QUICK)
    ended_after(monkeypatch, 2, model, data_yaml, state=State(tmp_path), **QUICK)
    assert same(finetune(model, data_yaml, state=State(tmp_path), **QUICK), whole)
