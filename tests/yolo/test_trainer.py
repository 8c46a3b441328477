"""Training keeps the shape and the mask, and leaves the data as it is."""

from __future__ import annotations

import random
import tempfile
from copy import deepcopy
from pathlib import Path

import numpy as np
import pytest
import torch
from torch import nn
from ultralytics import YOLO

import seqprune
from seqprune.errors import InputError, ModelError, TrainingError
from seqprune.plan import PrunePlan
from seqprune.yolo.files.load import load
from seqprune.yolo.files.save import save_pt
from seqprune.yolo.task.tracing import trace_detector
from seqprune.yolo.train.trainer import DetectionTrainer
from seqprune.yolo.train.tuning import _Quiet, finetune

NAMES = {0: "green", 1: "red"}
SMALL = {"epochs": 1, "imgsz": 64, "batch": 4}
# A step after every batch: six in all.
EAGER = {**SMALL, "epochs": 2, "lr0": 0.01, "nbs": 4, "warmup_epochs": 0}
PLAIN = {**SMALL, "device": "cpu", "plots": False, "verbose": False, "workers": 0, "amp": False}


def shapes(model: nn.Module) -> dict[str, torch.Size]:
    return {name: tensor.shape for name, tensor in model.state_dict().items()}


@pytest.fixture
def watched(monkeypatch: pytest.MonkeyPatch, is_dead) -> list[tuple[bool, bool]]:
    """Whether the masked channels are zero in the model and in its EMA, after every step."""
    seen: list[tuple[bool, bool]] = []

    def step(self: DetectionTrainer) -> None:
        original(self)
        seen.append((is_dead(self.model), is_dead(self.ema.ema)))

    original = DetectionTrainer.optimizer_step
    monkeypatch.setattr(_Quiet, "optimizer_step", step)
    return seen


def test_finetuning_keeps_the_shape_and_leaves_no_trace(
    tiny: nn.Module,
    narrow,
    data_yaml: Path,
    tmp_path: Path,
    listing,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    scratch = tmp_path / "scratch"
    scratch.mkdir()
    monkeypatch.setattr(tempfile, "tempdir", str(scratch))
    monkeypatch.chdir(scratch)
    small = narrow(tiny)
    before, weights = listing(data_yaml.parent), {k: v.clone() for k, v in small.state_dict().items()}
    random.seed(5)
    torch.manual_seed(5)
    trained = finetune(small, data_yaml, **SMALL, lr0=0.01)
    after = random.getstate(), torch.rand(1).item()
    random.seed(5)
    torch.manual_seed(5)
    assert after == (random.getstate(), torch.rand(1).item())
    assert shapes(trained) == shapes(small)
    assert not trained.training
    assert all(torch.equal(tensor, weights[name]) for name, tensor in small.state_dict().items())
    assert any(not torch.equal(tensor, weights[name]) for name, tensor in trained.state_dict().items())
    wanted = [parameter.requires_grad for parameter in small.parameters()]
    assert [parameter.requires_grad for parameter in trained.parameters()] == wanted
    assert listing(data_yaml.parent) == before
    assert not any(scratch.iterdir())
    assert capsys.readouterr() == ("", "")


def test_finetuning_is_repeatable(tiny: nn.Module, data_yaml: Path) -> None:
    one, other = (finetune(tiny, data_yaml, **SMALL, seed=1).state_dict() for _ in range(2))
    assert all(torch.equal(tensor, other[name]) for name, tensor in one.items())


def test_masked_channels_stay_zero_after_every_step(
    tiny: nn.Module, mask, mask_plan, is_dead, data_yaml: Path, watched: list[tuple[bool, bool]]
) -> None:
    mask(tiny)
    trained = finetune(tiny, data_yaml, **EAGER, plan=mask_plan)
    assert len(watched) == 6
    assert set(watched) == {(True, True)}
    assert is_dead(trained)


def whole_plan(model: nn.Module) -> PrunePlan:
    """A third of all channel groups that can go: in residuals, in halves, before the head, on their own."""
    graph = trace_detector(model)
    removed = ~graph.pinned & (np.arange(graph.group_count) % 3 == 0)
    order = np.arange(graph.group_count, dtype=float)
    return PrunePlan.from_removed(graph, graph.legalise(removed, order, np.ones_like(removed)))


def asleep(model: nn.Module, plan: PrunePlan) -> list[bool]:
    """Channel by channel of the plan's layers, whether weights, bias and all that BatchNorm holds are zero, or one."""
    found = []
    for layer in plan.layers:
        path = layer.name.rpartition(".conv")[0]
        modules = [model.get_submodule(layer.name), *([model.get_submodule(f"{path}.bn")] if path else [])]
        for channel in set(range(layer.channels)) - set(layer.keep):
            tensors = {
                f"{i}.{n}": t[channel] for i, m in enumerate(modules) for n, t in m.state_dict().items() if t.dim()
            }
            found.append(all(bool((t == ("running_var" in n)).all()) for n, t in tensors.items()))
    return found


@pytest.mark.parametrize("guarded", [True, False])
def test_every_channel_of_a_whole_plan_stays_zero_in_model_and_average(
    guarded: bool, tiny: nn.Module, data_yaml: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    plan = whole_plan(tiny)
    masked = seqprune.mask(tiny, plan)
    assert len(plan.layers) > 20
    assert all(asleep(masked, plan))
    seen: list[bool] = []

    def step(self: DetectionTrainer) -> None:
        original(self)
        seen.extend(all(asleep(model, plan)) for model in (self.model, self.ema.ema))

    original = DetectionTrainer.optimizer_step
    monkeypatch.setattr(_Quiet, "optimizer_step", step)
    trained = finetune(masked, data_yaml, **EAGER, plan=plan if guarded else None)
    assert len(seen) == 12
    assert all(seen) is guarded
    assert all(asleep(trained, plan)) is guarded
    if not guarded:
        assert sum(asleep(trained, plan)) < len(asleep(trained, plan)) / 2


def test_without_the_guard_masked_channels_wake_up(
    tiny: nn.Module, mask, is_dead, data_yaml: Path, watched: list[tuple[bool, bool]]
) -> None:
    """The predecessor's failure: BatchNorm's bias has a gradient though all around it is zero."""
    mask(tiny)
    trained = finetune(tiny, data_yaml, **EAGER)
    assert not is_dead(trained)
    assert (True, True) not in watched[1:]


def test_a_mask_that_is_not_kept_is_an_error(tiny: nn.Module, mask, mask_plan, data_yaml: Path, monkeypatch) -> None:
    mask(tiny)
    monkeypatch.setattr(_Quiet, "apply_mask", lambda self: None)
    with pytest.raises(TrainingError, match="woke masked channels"):
        finetune(tiny, data_yaml, **SMALL, plan=mask_plan)


def test_a_changed_shape_is_an_error(tiny: nn.Module, narrow, data_yaml: Path, monkeypatch) -> None:
    monkeypatch.setattr(_Quiet, "get_model", lambda self, weights: narrow(weights))
    with pytest.raises(TrainingError, match=r"changed the shape of model\.4\.m\.0"):
        finetune(tiny, data_yaml, **SMALL)


def test_divergence_is_an_error(tiny: nn.Module, data_yaml: Path) -> None:
    next(tiny.parameters()).data.fill_(float("nan"))
    for epochs in (1, 2):
        with pytest.raises(TrainingError, match=r"diverged|NaN"):
            finetune(tiny, data_yaml, **{**SMALL, "epochs": epochs})


@pytest.mark.parametrize(
    ("arguments", "expected"),
    [
        ({"epochs": 0}, "epochs=0"),
        ({"batch": -1}, "batch=-1"),
        ({"pretrained": "other.pt"}, "pretrained is not a choice"),
        ({"learning_rate": 1.0}, "learning_rate is no training argument"),
        ({"device": "0,1"}, "name one"),
        ({"device": "99"}, "device=99"),
        ({"momentum": "much"}, "training arguments"),
    ],
)
def test_impossible_arguments_are_refused(tiny: nn.Module, data_yaml: Path, arguments, expected: str) -> None:
    with pytest.raises(InputError, match=expected) as caught:
        finetune(tiny, data_yaml, **{**SMALL, **arguments})
    assert "\n" not in str(caught.value)


def test_a_fused_model_is_refused(tiny: nn.Module, data_yaml: Path) -> None:
    with pytest.raises(ModelError, match="fused"):
        finetune(deepcopy(tiny).fuse(verbose=False), data_yaml, **SMALL)


def test_a_shape_that_is_not_the_plans_is_refused(tiny: nn.Module, narrow, mask_plan, data_yaml: Path) -> None:
    with pytest.raises(ModelError, match=r"model\.4\.m\.0\.cv1\.conv has \d+ channels where its plan leaves \d+"):
        finetune(narrow(tiny), data_yaml, **SMALL, plan=mask_plan)


@pytest.mark.slow
def test_yolo_train_keeps_the_shape_and_the_plan_to_the_final_checkpoint(
    tiny: nn.Module, narrow, narrow_plan, data_yaml: Path, tmp_path: Path, listing
) -> None:
    small = narrow(tiny)
    path = save_pt(small, tmp_path / "small.pt", names=NAMES, plan_json=narrow_plan.to_json())
    before = listing(data_yaml.parent)
    model = YOLO(path)
    model.train(trainer=DetectionTrainer, data=str(data_yaml), project=str(tmp_path / "runs"), **PLAIN)
    assert shapes(model.model) == shapes(small)
    for name in ("best.pt", "last.pt"):
        loaded = load(model.trainer.wdir / name)
        assert shapes(loaded.model) == shapes(small)
        assert loaded.plan == narrow_plan
        assert loaded.checkpoint["seqprune_plan"] == narrow_plan.to_json()
    assert listing(data_yaml.parent) == before


@pytest.mark.slow
def test_interrupted_training_resumes_in_shape_with_the_mask(
    tiny: nn.Module, mask, mask_plan, is_dead, data_yaml: Path, tmp_path: Path
) -> None:
    mask(tiny)
    path = save_pt(tiny, tmp_path / "masked.pt", names=NAMES, plan_json=mask_plan.to_json())

    def stop(running: DetectionTrainer) -> None:
        raise KeyboardInterrupt

    model = YOLO(path)
    model.add_callback("on_model_save", stop)
    with pytest.raises(KeyboardInterrupt):
        model.train(
            trainer=DetectionTrainer,
            data=str(data_yaml),
            project=str(tmp_path / "runs"),
            **{**PLAIN, "epochs": 2, "nbs": 4, "lr0": 0.01, "optimizer": "AdamW", "warmup_epochs": 0},
        )
    last = model.trainer.last
    assert load(last).plan == mask_plan
    resumed = YOLO(last)
    resumed.train(trainer=DetectionTrainer, resume=True, device="cpu")
    assert resumed.trainer.start_epoch == 1
    assert shapes(resumed.model) == shapes(tiny)
    assert is_dead(resumed.model)
    assert is_dead(load(last).model)


def test_other_weights_do_not_replace_the_pruned_ones(tiny: nn.Module, data_yaml: Path, tmp_path: Path) -> None:
    path = save_pt(tiny, tmp_path / "tiny.pt", names=NAMES)
    arguments = {"data": str(data_yaml), "project": str(tmp_path / "runs"), **PLAIN}
    with pytest.raises(InputError, match="pretrained=False would replace"):
        YOLO(path).train(trainer=DetectionTrainer, pretrained=False, **arguments)
