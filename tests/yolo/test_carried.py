"""A pruned network carries its plan, and a bar against being rebuilt at full width; both go again without a trace."""

from __future__ import annotations

from typing import Any

import pytest
from torch import nn

from seqprune.errors import ModelError
from seqprune.plan import LayerKeep, PrunePlan
from seqprune.yolo.files.pruned import _BAR, TRAINERS, forget, is_masked, plan_of, remember, trainer_of, without_bar

ENTRY = [-1, 1, "Conv", [8, 3, 2]]
PLAN = PrunePlan((LayerKeep("0", 0, 4, (0, 2)), LayerKeep("1", 1, 6, (1, 2, 3))), (((1, 3, 8, 8), "float32"),))


BAR = _BAR.format("DetectionTrainer")


def network(*widths: int, task: str = "detect") -> Any:
    made: Any = nn.Sequential(*(nn.Conv2d(3, width, 1) for width in widths))
    made.task, made.yaml = task, {"nc": 2, "backbone": [ENTRY], "head": []}
    return made


@pytest.mark.parametrize("task", TRAINERS)
def test_what_a_network_carries_is_taken_away_without_a_trace(task: str) -> None:
    model = network(2, 3, task=task)
    given, held = model.yaml, set(vars(model))
    remember(model, PLAN.to_json())
    assert given == {"nc": 2, "backbone": [ENTRY], "head": []}  # it may be another network's too
    sentence = model.yaml["backbone"][0][2]
    assert TRAINERS[task] in sentence
    assert "nn." not in sentence  # Ultralytics would look it up in torch
    assert model.yaml["backbone"][1:] == [ENTRY]
    remember(model, PLAN.to_json())
    assert len(model.yaml["backbone"]) == 2
    assert plan_of(model) == PLAN
    assert forget(model) == PLAN
    assert (model.yaml, set(vars(model))) == (given, held)
    assert forget(model) is None
    assert plan_of(model) is None


def test_a_network_of_no_known_task_is_trained_as_a_detector() -> None:
    assert trainer_of(nn.ReLU()) == trainer_of(network(task="other")) == "DetectionTrainer"
    assert forget(nn.ReLU()) is None  # without a YAML too


@pytest.mark.parametrize(
    "plain",
    [
        None, [], {}, {"backbone": []}, {"backbone": "x"}, {"backbone": [ENTRY]}, {"backbone": [[-1, 1, "Conv"]]},
        {"backbone": ["this network was pruned"]}, {"backbone": [[-1, 1]]}, {"backbone": ["1234"]},
        {"backbone": [[-1, 1, ["Conv"], []]]}, {"backbone": [[-1, 1, BAR]]}, {"backbone": [{2: BAR}]},
        {"backbone": {"a": 1}}, {"backbone": 5}, {"backbone": [5]}, {"backbone": [{0: 1, 1: 1, 2: BAR, 3: 1}]},
    ],
)  # fmt: skip
def test_a_description_without_a_bar_stays_as_it_is(plain: Any) -> None:
    assert without_bar(plain) is plain


def test_masked_or_gone_and_nothing_between() -> None:
    assert not is_masked(network(2, 3), PLAN)
    assert is_masked(network(4, 6), PLAN)
    with pytest.raises(ModelError, match="1 has 6 channels where its plan leaves 3"):
        is_masked(network(2, 6), PLAN)
    with pytest.raises(ModelError, match="0 has 4 channels where its plan leaves 2"):
        is_masked(network(4, 3), PLAN)
    with pytest.raises(ModelError, match="1 has None channels where its plan leaves 3"):
        is_masked(network(2), PLAN)
    bent = network(2, 3)
    bent[1] = nn.ReLU()
    with pytest.raises(ModelError, match="1 has None channels"):
        is_masked(bent, PLAN)
