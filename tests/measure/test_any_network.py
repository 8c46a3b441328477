"""Methods compared, layers pruned one at a time and channels looked at, of networks and data that are anybody's."""

from __future__ import annotations

import json
from copy import deepcopy
from typing import Any

import pytest
import torch
from torch import nn

import seqprune
from seqprune.errors import DataError, InputError
from seqprune.testing.networks import Unit, randomise

SIDE, CLASSES = 12, 4


class Net(nn.Module):
    """A residual block between two widths."""

    def __init__(self) -> None:
        super().__init__()
        self.stem, self.down, self.block = Unit(3, 32), Unit(32, 48), Unit(48, 48)
        self.head = nn.Linear(48, CLASSES)
        randomise(self, 0)
        with torch.no_grad():
            self.head.bias -= self.eval()(pictures(0).flatten(0, 1)).mean(0)  # else one class is all it sees

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        x = self.down(self.stem(x))
        return self.head((x + self.block(x)).mean((2, 3)))


def pictures(seed: int) -> torch.Tensor:
    """``[4, 8, 3, side, side]``: noise of one colour an image."""
    draw = torch.Generator().manual_seed(seed)
    return torch.randn(4, 8, 3, SIDE, SIDE, generator=draw) + 2 * torch.randn(4, 8, 3, 1, 1, generator=draw)


def loader(net: nn.Module, seed: int, labelled: bool = True) -> list[Any]:
    """Pictures, labelled as the network itself classifies them."""
    with torch.no_grad():
        return [(x, net(x).argmax(1)) if labelled else x for x in pictures(seed)]


@pytest.fixture(scope="module")
def net() -> nn.Module:
    return Net().eval()


@pytest.fixture(scope="module")
def data(net: nn.Module) -> dict[str, Any]:
    return {"train": loader(net, 0), "val": loader(net, 1)}


@pytest.mark.parametrize("target", ["params", "flops"])
def test_methods_are_compared_at_equal_cost(net: nn.Module, data: dict[str, Any], target: str) -> None:
    before = deepcopy(net.state_dict())
    methods = ["accurate", "lamp-global", "taylor", "obs-global", "random"]
    found = seqprune.compare(net, data, targets=[0.7], methods=methods, count=target, images=16, batch=8)
    whole, *rows = found.rows
    assert (whole.method, whole.accuracy["top1"]) == ("unpruned", 1.0), "labelled by the network itself"
    assert [row.method for row in rows] == methods
    assert not any(row.reason for row in rows)
    assert rows[0].share <= 0.71, "it rounds counts up to eights, which are coarse steps here"
    assert all(row.share == pytest.approx(0.7, abs=0.03) for row in rows[1:])
    assert rows[0].score > max(row.score for row in rows[1:]), "accurate is repaired"
    assert "top-1 accuracy | of unpruned | top-5 accuracy" in found.to_markdown()
    assert found.settings.get("target", "parameters") == {"params": "parameters", "flops": "operations"}[target]
    assert found.settings["images"] == 16
    assert all(torch.equal(tensor, before[name]) for name, tensor in net.state_dict().items())


@pytest.mark.parametrize("target", ["params", "flops"])
def test_torch_pruning_is_a_peer_for_any_network(net: nn.Module, data: dict[str, Any], target: str) -> None:
    pytest.importorskip("torch_pruning")
    peers = ["tp-magnitude", "tp-group-norm", "tp-taylor", "tp-bn-scale"]
    rows = seqprune.compare(net, data, targets=[0.7], methods=peers, count=target, batch=8).rows[1:]
    assert [(row.method, row.reason) for row in rows] == [(name, "") for name in peers]
    assert all(row.share == pytest.approx(0.7, abs=0.07) for row in rows)


def test_whoever_measures_says_what_is_compared(net: nn.Module) -> None:
    """Labels are nowhere: the distance to the unpruned network's answers is the caller's measure."""
    held = loader(net, 1, labelled=False)

    def agreement(model: nn.Module) -> dict[str, float]:
        with torch.no_grad():
            same = [(model(x).argmax(1) == net(x).argmax(1)).float().mean() for x in held]
        return {"agreement": float(torch.stack(same).mean()), "seen": 32.0}

    found = seqprune.compare(
        *(net, loader(net, 0, labelled=False)),
        targets=[0.8],
        methods=["accurate", "taylor"],
        evaluate=agreement,
        batch=8,
    )
    whole, row, unlabelled = found.rows
    assert whole.accuracy == {"agreement": 1.0, "seen": 32.0}
    assert 0 < row.score <= 1
    assert "label the images with classes" in unlabelled.reason
    assert "agreement" in found.to_html()
    assert json.loads(found.to_json())["rows"][1]["accuracy"]["agreement"] == row.score


def test_subsets_have_no_image_in_common(net: nn.Module, data: dict[str, Any]) -> None:
    how: dict[str, Any] = {"targets": [0.8], "methods": ["obs-global"], "images": 12, "batch": 8}
    found = seqprune.compare(net, data, subsets=2, **how)
    assert len(found.rows[1].runs) == 2
    assert found.settings["subsets"] == "2, disjoint"
    with pytest.raises(InputError, match="3 samples of 12 out of 32 train images have some in common"):
        seqprune.compare(net, data, subsets=3, **how)


def test_what_cannot_be_compared_is_said(net: nn.Module, data: dict[str, Any]) -> None:
    with pytest.raises(DataError, match=r"accuracy is not measured.*give val images with classes, or evaluate="):
        seqprune.compare(net, data["train"], targets=[0.8], methods=["l1"])
    with pytest.raises(InputError, match="finetune trains Ultralytics' networks"):
        seqprune.compare(net, data, targets=[0.8], methods=["l1"], finetune=1)
    (row,) = seqprune.compare(net, data, targets=[0.8], methods=["imgsz"], count="flops", batch=8).rows[1:]
    assert row.reason == "imgsz takes smaller images, and these come as they are: leave it out"


def test_layers_are_pruned_one_at_a_time(net: nn.Module, data: dict[str, Any]) -> None:
    found = seqprune.sensitivity(net, data, ratios=[0.5], batch=8)
    assert [point.layer for point in found.points] == ["stem.conv", "down.conv"]
    assert found.points[1].members == ("down.conv", "block.conv"), "one sum, one decision"
    assert (found.metric, found.unpruned) == ("top1", 1.0)
    assert all(point.drop == pytest.approx(1 - point.accuracy) for point in found.points)
    assert "drop of top-1 accuracy" in found.to_html()
    few = seqprune.sensitivity(net, data, layers=["stem.conv"], ratios=[0.5], images=4, criterion="taylor", batch=8)
    assert few.points[0].accuracy in (0, 0.25, 0.5, 0.75, 1)
    with pytest.raises(DataError, match="accuracy is not measured"):
        seqprune.sensitivity(net, data["train"])


def test_a_network_is_looked_into_with_an_example_or_with_data(net: nn.Module, data: dict[str, Any]) -> None:
    seen = seqprune.inspect(net, example_inputs=torch.zeros(1, 3, SIDE, SIDE))
    assert "down.conv         48    48  with block.conv" in str(seen)
    assert "pinned: network output" in str(seen)
    assert json.loads(seen.to_json()) == json.loads(seqprune.inspect(net, data).to_json())
    with pytest.raises(InputError, match="give data, or example_inputs"):
        seqprune.inspect(net)


def test_ultralytics_networks_are_looked_into_by_their_name() -> None:
    assert seqprune.inspect("yolov8n.yaml").graph.by_name["model.5.conv"].channels == 128
