"""Loading, building, looking, measuring and training leave the process as they found it, in whatever order."""

from __future__ import annotations

import logging
import os
import random
import warnings
from collections.abc import Callable
from copy import deepcopy
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from torch import nn
from ultralytics import __version__ as version
from ultralytics.nn.modules import Conv
from ultralytics.nn.tasks import DetectionModel
from ultralytics.utils import LOGGER

import seqprune
import seqprune.run  # imports of numerical packages set variables and filters of their own, once
from seqprune.yolo import DetectionImages, finetune
from seqprune.yolo.files.contained import contained
from seqprune.yolo.files.load import load
from seqprune.yolo.files.outside import unchanged
from seqprune.yolo.files.save import save_pt
from seqprune.yolo.files.tensors import save_pair
from seqprune.yolo.task.validate import validate
from seqprune.yolo.train.job import train

NAMES = {0: "green", 1: "red"}


def outside() -> dict[str, Any]:
    """What others share with us."""
    return {
        "activation": type(Conv.default_act).__name__,
        "environment": dict(os.environ),
        "threads": torch.get_num_threads(),
        "deterministic": (
            torch.are_deterministic_algorithms_enabled(),
            torch.is_deterministic_algorithms_warn_only_enabled(),
            torch.utils.deterministic.fill_uninitialized_memory,
            torch.backends.cudnn.deterministic,
            torch.backends.cudnn.benchmark,
        ),
        "type": torch.get_default_dtype(),
        "warnings": list(warnings.filters),
        "log": (LOGGER.level, logging.root.level, list(logging.root.handlers)),
        "plain": random.getstate(),
        "arrays": str(np.random.get_state()),  # noqa: NPY002
        "tensors": torch.get_rng_state().tolist(),
        "load": (torch.load, torch.save),
    }


Job = Callable[[nn.Module, Path, Path], object]
JOBS: dict[str, Job] = {
    "load a yaml": lambda net, data, tmp: load("yolov8n.yaml"),
    "load a yaml with an activation": lambda net, data, tmp: load("yolov6n.yaml"),
    "load a pt": lambda net, data, tmp: load(save_pt(net, tmp / "m.pt", names=NAMES)),
    "load a pair": lambda net, data, tmp: load(save_pair(net, tmp / "m.safetensors", names=NAMES)),
    "read images": lambda net, data, tmp: list(DetectionImages(data, imgsz=64)),
    "measure": lambda net, data, tmp: validate(net, data, imgsz=64),
    "fine-tune": lambda net, data, tmp: finetune(net, data, epochs=1, imgsz=64),
    "train": lambda net, data, tmp: train(
        save_pt(net, tmp / "m.pt", names=NAMES), data, tmp / "run", epochs=1, arguments={"imgsz": 64, "device": "cpu"}
    ),
    "prune": lambda net, data, tmp: seqprune.prune(
        net, data, preset="accurate", target="params=0.8", imgsz=64, val=False
    ),
}


@pytest.mark.parametrize("job", JOBS)
def test_a_job_leaves_everything_outside_as_it_was(tiny: nn.Module, data_yaml: Path, tmp_path: Path, job: str) -> None:
    """Threads, deterministic algorithms, random states and Ultralytics' default activation were left changed."""
    torch.set_num_threads(1)
    os.environ.pop("CUBLAS_WORKSPACE_CONFIG", None)
    torch.manual_seed(5)
    before = outside()
    JOBS[job](tiny, data_yaml, tmp_path)
    after = outside()
    changed = {name for name in before if before[name] != after[name]}
    assert changed == set()


def hostile(activation: nn.Module) -> Callable[..., None]:
    """An Ultralytics that sets the activation of all later networks, as those before 8.4.190 do."""
    original = DetectionModel.__init__

    def build(self: Any, cfg: Any = "yolov8n.yaml", *args: Any, **kwargs: Any) -> None:
        original(self, cfg, *args, **kwargs)
        if "yolov6" in str(self.yaml.get("yaml_file")) or self.yaml.get("activation"):
            Conv.default_act = activation

    return build


@pytest.mark.parametrize("theirs", [False, True], ids=["loaded by us", "loaded by Ultralytics"])
def test_a_pair_comes_back_as_it_was_after_a_network_with_another_activation(
    tiny: nn.Module, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, theirs: bool
) -> None:
    """After yolov6n.yaml every network was built with ReLU: a good pair came back as another network, silently."""
    monkeypatch.setattr(Conv, "default_act", Conv.default_act)
    monkeypatch.setattr(DetectionModel, "__init__", hostile(nn.ReLU()))
    image = torch.rand(1, 3, 64, 64)
    with torch.no_grad():
        expected = deepcopy(tiny)(image)[0]
    path = save_pair(tiny, tmp_path / "m.safetensors", names=NAMES)
    if theirs:
        DetectionModel("yolov6n.yaml", verbose=False)
        assert isinstance(Conv.default_act, nn.ReLU)
    else:
        load("yolov6n.yaml")
        assert isinstance(Conv.default_act, nn.SiLU)
    with torch.no_grad():
        assert torch.equal(load(path).model(image)[0], expected)
    assert isinstance(load("yolov8n.yaml").model.model[0].act, nn.SiLU)
    assert isinstance(Conv.default_act, nn.ReLU if theirs else nn.SiLU)


def test_what_failed_is_put_back_too() -> None:
    """As any work of Ultralytics' may end."""
    torch.set_num_threads(1)
    torch.use_deterministic_algorithms(False)

    def fail() -> None:
        Conv.default_act = nn.ReLU()
        os.environ["SEQPRUNE_TEST"] = "1"
        torch.use_deterministic_algorithms(True, warn_only=True)
        torch.set_num_threads(2)
        raise RuntimeError("stop")

    with pytest.raises(RuntimeError, match="stop"), contained():
        fail()
    assert isinstance(Conv.default_act, nn.SiLU)
    assert "SEQPRUNE_TEST" not in os.environ
    assert not torch.are_deterministic_algorithms_enabled()
    assert torch.get_num_threads() == 1


def test_every_switch_is_put_back_from_either_side(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("SEQPRUNE_KEPT", "a")
    monkeypatch.setenv("SEQPRUNE_GONE", "b")
    torch.set_num_threads(1)
    try:
        for on in (True, False):
            switch(on)
            before = outside() | {"matmul": torch.get_float32_matmul_precision()}
            with unchanged():
                assert isinstance(Conv.default_act, nn.SiLU)
                switch(not on)
                Conv.default_act = nn.ReLU()
                os.environ.update(SEQPRUNE_KEPT="c", SEQPRUNE_NEW="d")
                del os.environ["SEQPRUNE_GONE"]
                warnings.simplefilter("error")
                random.random()  # noqa: S311 - no secret
                np.random.random()  # noqa: NPY002
                torch.rand(1)
            after = outside() | {"matmul": torch.get_float32_matmul_precision()}
            assert {name for name in before if before[name] != after[name]} == set()
    finally:
        torch.set_num_threads(1)
        switch(False)


def switch(on: bool) -> None:
    """Torch's switches, all the other way."""
    torch.set_num_threads(2 if on else 1)
    torch.set_default_dtype(torch.float64 if on else torch.float32)
    torch.set_float32_matmul_precision("high" if on else "highest")
    torch.use_deterministic_algorithms(on, warn_only=on)
    torch.utils.deterministic.fill_uninitialized_memory = not on  # type: ignore[attr-defined]
    torch.backends.cudnn.deterministic, torch.backends.cudnn.benchmark = on, on


def test_ultralytics_waits_for_no_other_process(monkeypatch: pytest.MonkeyPatch) -> None:
    """Under ``torchrun`` its validator has the first process wait for those that never come."""
    from ultralytics.engine import validator
    from ultralytics.models.yolo.classify import val as classes
    from ultralytics.models.yolo.detect import val as boxes

    ranks = [(module, name) for module in (validator, classes, boxes) for name in ("RANK", "LOCAL_RANK")]
    held = [(module, name) for module, name in ranks if hasattr(module, name)]
    if not held and version.startswith("8.3."):
        pytest.skip("this version waits for nobody")
    assert held
    for module, name in held:
        monkeypatch.setattr(module, name, 1)
    with contained():
        assert all(getattr(module, name) == -1 for module, name in held)
    assert all(getattr(module, name) == 1 for module, name in held)
