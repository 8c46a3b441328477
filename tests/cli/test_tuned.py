"""Fine-tuning on real work: the demo's detector and scenes, masked and compact, between the layers and at the end."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
from ultralytics.engine.trainer import BaseTrainer

from seqprune import count_active_channels
from seqprune.demo import weights_path, write_scenes
from seqprune.demo.run import SIZE, TRAINING
from seqprune.engine.listener import Listener
from seqprune.errors import InputError, TrainingError
from seqprune.run import PruneResult, prune
from seqprune.yolo.files.load import load
from seqprune.yolo.train import tuning

LAYERS = ["model.7.conv", "model.3.conv"]


@pytest.fixture(scope="module")
def scenes(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_scenes(tmp_path_factory.mktemp("scenes") / "digits", train=96, val=32, size=SIZE, seed=0)


def run(scenes: Path, **options: Any) -> PruneResult:
    given = {"layers": LAYERS, "imgsz": SIZE, "keep": 0.25, "match": "all", "training": TRAINING, **options}
    return prune(weights_path(), scenes, **given)  # type: ignore[arg-type]


@pytest.fixture(scope="module")
def untrained(scenes: Path) -> PruneResult:
    return run(scenes)


@pytest.mark.slow
@pytest.mark.parametrize("mode", ["compact", pytest.param("mask", marks=pytest.mark.long)])
def test_one_epoch_after_each_layer_and_at_the_end(
    scenes: Path, untrained: PruneResult, mode: str, tmp_path: Path
) -> None:
    stages: list[str] = []
    listener = Listener(stage=lambda name, _total: stages.append(name))
    result = run(scenes, mode=mode, finetune_step=1, finetune=1, listener=listener)
    assert stages.count("fine-tune 1 epochs") == 3
    assert result.record.after.map50_95 > untrained.record.after.map50_95 + 0.1
    assert result.record.settings["finetune_step"] == 1
    for layer in LAYERS:
        assert count_active_channels(result.model.get_submodule(layer)) == len(result.plan.keep[layer])
    saved = load(result.save(tmp_path / "pruned.pt"))
    assert saved.plan == result.plan


@pytest.mark.slow
def test_training_that_fails_between_the_layers_is_an_error_at_the_end(
    scenes: Path, untrained: PruneResult, monkeypatch: pytest.MonkeyPatch
) -> None:
    """What was pruned is there all the same."""
    calls: list[int] = []

    def fail(*_: object, **__: object) -> None:
        calls.append(1)
        raise TrainingError("training failed: no more memory")

    monkeypatch.setattr(tuning, "finetune", fail)
    with pytest.raises(TrainingError, match="no more memory") as caught:
        run(scenes, finetune_step=1, finetune=1, val=False)
    assert len(calls) == 1
    assert isinstance(caught.value.result, PruneResult)
    assert caught.value.result.plan == untrained.plan


@pytest.mark.slow
@pytest.mark.parametrize("error", [OSError("no space left"), AssertionError("a shape")])
def test_whatever_training_fails_with_the_pruned_network_is_there(
    scenes: Path, untrained: PruneResult, monkeypatch: pytest.MonkeyPatch, error: Exception
) -> None:
    def fail(*_: object, **__: object) -> None:
        raise error

    monkeypatch.setattr(BaseTrainer, "train", fail)
    with pytest.raises(TrainingError, match=str(error)) as caught:
        run(scenes, finetune=1, val=False)
    assert isinstance(caught.value.result, PruneResult)
    assert caught.value.result.plan == untrained.plan


def test_a_misspelt_training_argument_is_refused_before_anything_is_done(scenes: Path) -> None:
    stages: list[str] = []
    with pytest.raises(InputError, match="lrO is no training argument"):
        run(scenes, finetune=1, training={"lrO": 1}, listener=Listener(stage=lambda name, _total: stages.append(name)))
    assert not stages
