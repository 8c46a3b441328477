"""A pruned architecture from its description, in another process, trained as any YOLO is."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path

import pytest
import torch
from torch import nn
from ultralytics import YOLO

import seqprune
from seqprune.errors import ModelError, UntrustedError
from seqprune.yolo import rebuild
from seqprune.yolo.files.heads import with_classes
from seqprune.yolo.files.load import load
from seqprune.yolo.files.pruned import plan_of
from seqprune.yolo.files.tensors import save_pair

TRAIN = """
import json, sys
import seqprune.yolo
yolo = seqprune.yolo.rebuild(json.load(open(sys.argv[1])))
yolo.train(data=sys.argv[2], epochs=1, imgsz=64, device="cpu", project=sys.argv[3], name="run", plots=False, workers=0)
"""


@pytest.fixture
def pair(tiny: nn.Module, tmp_path: Path) -> Path:
    result = seqprune.prune(tiny, preset="fast", target="params=0.6", imgsz=64, round_to=1)
    return result.save(tmp_path / "small.safetensors")


def shapes(model: nn.Module) -> dict[str, torch.Size]:
    return {name: tensor.shape for name, tensor in model.state_dict().items()}


def test_the_architecture_comes_back_and_takes_the_weights(pair: Path) -> None:
    rebuilt, saved = rebuild(pair.with_suffix(".json")), load(pair)
    assert isinstance(rebuilt, YOLO)
    assert shapes(rebuilt.model) == shapes(saved.model)
    assert plan_of(rebuilt.model) == saved.plan
    assert rebuilt.names == saved.names
    rebuilt.model.load_state_dict(saved.model.state_dict())
    image = torch.rand(1, 3, 64, 64)
    with torch.no_grad():
        assert torch.equal(rebuilt.model.eval()(image)[0], saved.model(image)[0])


def test_plain_training_in_another_process_starts_from_the_shape(pair: Path, data_yaml: Path, tmp_path: Path) -> None:
    """Plain training rebuilt every pruned network at full width."""
    files = [str(part) for part in (pair.with_suffix(".json"), data_yaml, tmp_path / "runs")]
    done = subprocess.run([sys.executable, "-c", TRAIN, *files], capture_output=True, text=True, check=False)  # noqa: S603
    assert done.returncode == 0, done.stderr
    best = load(tmp_path / "runs" / "run" / "weights" / "best.pt")
    assert shapes(best.model) == shapes(load(pair).model)
    assert best.plan == load(pair).plan


def test_other_classes_than_the_yaml_was_built_with(tiny: nn.Module, tmp_path: Path) -> None:
    model = with_classes(tiny, ["a", "b", "c"])
    path = save_pair(model, tmp_path / "m.safetensors", names=model.names)
    assert shapes(rebuild(path.with_suffix(".json")).model) == shapes(model)


def test_what_is_no_description_is_refused_on_one_line(pair: Path, tmp_path: Path) -> None:
    description = json.loads(pair.with_suffix(".json").read_text())
    for broken in ({}, description | {"format": 99}, {k: v for k, v in description.items() if k != "task"}):
        with pytest.raises(ModelError) as caught:
            rebuild(broken)
        assert "\n" not in str(caught.value)
    with pytest.raises(ModelError, match="cannot be rebuilt"):
        rebuild(tmp_path / "absent.json")
    description["yaml"]["backbone"][0][2] = "os.system"
    with pytest.raises(UntrustedError):
        rebuild(description)
