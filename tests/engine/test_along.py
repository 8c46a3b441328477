"""Accuracy along the steps: measured where it is asked for, of the network as it was then, and kept by a run."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import nn

import seqprune
from seqprune.engine.along import Along
from seqprune.engine.listener import Listener
from seqprune.engine.state import State
from seqprune.errors import DataError
from seqprune.graph.active import active_channels

LAYERS = ["2", "0"]


def network() -> nn.Module:
    torch.manual_seed(0)
    return nn.Sequential(nn.Conv2d(3, 16, 3), nn.ReLU(), nn.Conv2d(16, 16, 3), nn.ReLU(), nn.Conv2d(16, 4, 3))


def images() -> list[tuple[torch.Tensor, torch.Tensor]]:
    draw = torch.Generator().manual_seed(0)
    kinds = torch.arange(24) % 3
    return [(torch.rand(24, 3, 12, 12, generator=draw) + torch.eye(3)[kinds][:, :, None, None], kinds)]


def active(model: nn.Module) -> dict[str, float]:
    """What stands for accuracy: how many channels are active."""
    return {"active": float(sum(active_channels(model.get_submodule(name)).sum() for name in LAYERS))}


def pruned(**options: Any) -> Any:
    return seqprune.prune(
        network(), {"train": images(), "val": images()}, layers=LAYERS, keep=0.5, evaluate=active, imgsz=32, **options
    )


def test_nothing_is_measured_on_the_way_unless_it_is_asked_for() -> None:
    assert pruned().record.along == ()


def test_each_point_is_of_the_network_as_it_was_then(tmp_path: Path) -> None:
    heard: list[str] = []
    result = pruned(val_steps=True, folder=tmp_path, listener=Listener(stage=lambda name, _total: heard.append(name)))
    first, second = result.record.along
    assert (first["what"], second["what"]) == ("0", "2")
    assert [first["accuracy"]["active"], second["accuracy"]["active"]] == [24.0, 16.0]
    assert result.before.accuracies == {"active": 32.0}
    assert "measure after 2" in heard
    report = json.loads((tmp_path / "report.json").read_text())
    assert [point["accuracy"]["active"] for point in report["along"]] == [24.0, 16.0]
    page = (tmp_path / "report.html").read_text()
    assert "Accuracy along the steps" in page
    _, _, course = page.partition('aria-label="accuracy along the steps"')
    assert course.index("32.0000") < course.index("24.0000") < course.index("16.0000")


class _Task:
    """Answers once, and then refuses."""

    answers = 1

    def accuracy(self, model: nn.Module) -> dict[str, float]:
        if not self.answers:
            raise DataError("the images are gone")
        self.answers -= 1
        return {"map50_95": 0.5, "by_objects": float("nan"), "class:cat": 0.25}


def test_a_run_that_was_killed_keeps_its_points_and_one_that_cannot_be_measured_goes_on(tmp_path: Path) -> None:
    task: Any = _Task()
    warned: list[str] = []
    told = Listener(warning=warned.append)
    Along(task, told, State(tmp_path)).after("model.1.conv", nn.Identity())
    again = Along(task, told, State(tmp_path))
    again.after("model.1.conv", nn.Identity())
    assert not warned
    again.after("model.2.conv", nn.Identity())
    assert again.points() == ({"what": "model.1.conv", "accuracy": {"map50_95": 0.5}},)
    assert warned == ["accuracy after model.2.conv is not measured: the images are gone"]


@pytest.mark.parametrize("accuracy", [{}, {"map50_95": None}], ids=["nothing", "no number"])
def test_a_page_leaves_out_what_was_not_measured(accuracy: dict[str, Any]) -> None:
    import report_samples as samples

    from seqprune.report.html import page_of

    report = samples.record().plain()
    report["along"] = [{"what": "model.1.conv", "accuracy": accuracy}]
    assert "model.1.conv" not in page_of(report, {})
