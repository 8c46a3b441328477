"""Plans and surgery: what is refused, in one line, and what exactly becomes zero, smaller or stays."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import nn

from seqprune import PrunePlan, compact, mask, trace, verify
from seqprune.errors import PlanError, SeqPruneError, VerificationError
from seqprune.graph import ChannelGraph, widths
from seqprune.testing.networks import Network, SplitBlock, Unit, example, random_plan, randomise


def network(width: int = 4) -> Network:
    net = Network()
    net.add("module", (0,), (width,), Unit(3, width))
    net.add("module", (1,), (6,), SplitBlock(width, 6, 3, 1, shortcut=True))
    net.add("module", (2,), (6,), Unit(6, 6, groups=6))
    net.finish()
    randomise(net, 0)
    return net.double().eval()


@pytest.fixture(scope="module")
def net() -> Network:
    return network()


@pytest.fixture(scope="module")
def graph(net: Network) -> ChannelGraph:
    return trace(net, example())


def refused(action: Callable[[], object], message: str) -> None:
    with pytest.raises(SeqPruneError) as caught:
        action()
    assert message in str(caught.value)
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize(
    ("keep", "message"),
    [
        ({"blocks.0.conv": []}, "the keep set of blocks.0.conv is empty: a layer keeps at least one of its 4"),
        ({"blocks.0.conv": [0, 1.5]}, "the keep set of blocks.0.conv holds something else than whole numbers"),
        ({"blocks.0.conv": [False, True]}, "the keep set of blocks.0.conv holds something else than whole numbers"),
        ({"blocks.0.conv": 2}, "the keep set of blocks.0.conv holds something else than whole numbers"),
        ({"blocks.0.conv": "01"}, "the keep set of blocks.0.conv holds something else than whole numbers"),
        ({3: [0]}, "the model has no layer 3"),
        ({"blocks.0.conv": [0, 4]}, "holds 4, outside [0, 4)"),
        ({"blocks.0.conv": [-1, 2]}, "holds -1, outside [0, 4)"),
        ({"blocks.0.conv": [2, 1]}, "not sorted"),
        ({"blocks.0.conv": [1, 1]}, "not sorted or holds an index twice"),
        ({"blocks.0.cnv": [1]}, "no layer blocks.0.cnv; did you mean blocks.0.conv"),
        ({"blocks.head3": [0]}, "blocks.head3 cannot be pruned: network output"),
        ({"blocks.1.cv1.conv": [0, 1, 3]}, "sections of (2, 1) channels would stay where equally many must"),
        ({"blocks.1.m.0.1.conv": [0, 1]}, "sections of (3, 2) channels would stay"),
    ],
)
def test_impossible_keep_sets(graph: ChannelGraph, keep: dict[str, list[int]], message: str) -> None:
    refused(lambda: PrunePlan.from_keep(graph, keep), message)


def test_coupled_layers_follow_without_being_named(graph: ChannelGraph) -> None:
    plan = PrunePlan.from_keep(graph, {"blocks.1.cv1.conv": [0, 2, 4, 5]})
    assert plan.keep == {"blocks.1.cv1.conv": (0, 2, 4, 5), "blocks.1.m.0.1.conv": (1, 2)}


def test_a_plan_for_another_model(graph: ChannelGraph) -> None:
    other = network(width=5)
    plan = PrunePlan.from_keep(graph, {"blocks.0.conv": [0, 1]})
    refused(lambda: mask(other, plan), "the plan is for another model: it has blocks.0.conv with 4 channels")
    refused(lambda: compact(nn.Sequential(nn.Conv2d(3, 2, 1)).double(), plan), "has no such layer")


class Joined(nn.Module):
    """Two layers side by side, one upon the other, or the second for all to see."""

    def __init__(self, how: str) -> None:
        super().__init__()
        self.a, self.b, self.last = nn.Conv2d(3, 4, 1), nn.Conv2d(3, 4, 1), nn.LazyConv2d(2, 1)
        self.how = how
        self.double()(example())

    def forward(self, x: torch.Tensor) -> object:
        a, b = self.a(x), self.b(x)
        joined = self.last(a + b if self.how == "added" else torch.cat([a, b], 1))
        return (joined, b) if self.how == "returned" else joined


@pytest.mark.parametrize(("made", "given"), [("beside", "added"), ("added", "beside"), ("beside", "returned")])
def test_a_plan_for_a_model_with_the_same_layers_in_other_places(made: str, given: str) -> None:
    keep = {"a": [0, 1], "b": [0, 1]} if made == "added" else {"b": [0, 2]}
    plan = PrunePlan.from_keep(trace(Joined(made), example()), keep)
    mask(Joined(made), plan)
    if (made, given) == ("added", "beside"):
        mask(Joined(given), plan)  # where nothing is coupled any layers may lose the same channels
    else:
        refused(lambda: mask(Joined(given), plan), "the plan is for another model: its layers are coupled differently")


def test_plans_of_different_models_do_not_join(graph: ChannelGraph) -> None:
    one = PrunePlan.from_keep(graph, {"blocks.0.conv": [0, 1]})
    other = PrunePlan.from_keep(trace(network(5), example()), {"blocks.0.conv": [0, 1]})
    refused(lambda: one & other, "the plans are for different models")


@pytest.mark.parametrize(
    "text", ["", "[]", "{}", '{"format": 1}', "not json", '{"format": 1, "layers": 3, "inputs": []}']
)
def test_text_that_is_no_plan(text: str) -> None:
    refused(lambda: PrunePlan.from_json(text), "the text is no pruning plan")


def test_why_text_is_no_plan_is_said_in_words_or_by_what_python_says() -> None:
    refused(
        lambda: PrunePlan.from_json("not json"), "no pruning plan (Expecting value: line 1 column 1 (char 0)); give"
    )
    refused(lambda: PrunePlan.from_json('{"format": 1}'), "no pruning plan (KeyError: 'layers'); give")


@pytest.mark.parametrize(
    ("change", "said"),
    [
        ({"imgsz": -5}, "-5 is no number"),
        ({"imgsz": 0}, "0 is no number"),
        ({"inputs": [{"shape": [1, -3], "dtype": "float32"}]}, "-3 is no number"),
        ({"layers": [{"name": "a", "position": -1, "channels": 4, "keep": [0]}]}, "-1 is no number"),
        ({"layers": 2 * [{"name": "a", "position": 0, "channels": 4, "keep": [0]}]}, "a stands there more than once"),
        ({"factors": 2 * [{"block": "b", "first": "row", "rank": 2}]}, "b stands there more than once"),
        ({"blocks": ["c", "c"]}, "c stands there more than once"),
    ],
)
def test_a_plan_that_no_network_has(graph: ChannelGraph, change: dict[str, Any], said: str) -> None:
    """A layer twice, or images of -5 pixels, were found when it was applied, or not at all."""
    data = json.loads(PrunePlan((), graph.inputs).to_json())
    refused(lambda: PrunePlan.from_json(json.dumps(data | {"format": 3} | change)), said)


def test_a_plan_of_another_format(graph: ChannelGraph) -> None:
    data = json.loads(PrunePlan.from_keep(graph, {"blocks.0.conv": [0, 1]}).to_json())
    refused(lambda: PrunePlan.from_json(json.dumps(data | {"format": 9})), "has format 9")
    data["layers"][0]["channels"] = 10**7
    assert PrunePlan.from_json(json.dumps(data)).layers[0].channels == 10**7
    data["layers"][0]["channels"] += 1
    refused(lambda: PrunePlan.from_json(json.dumps(data)), "10000001 is no number of channels")
    data["layers"][0]["channels"] = 4
    data["layers"][0]["keep"] = [3, 9]
    refused(lambda: PrunePlan.from_json(json.dumps(data)), "holds 9, outside")


def test_plan_files(graph: ChannelGraph, tmp_path: Path) -> None:
    plan = PrunePlan.from_keep(graph, {"blocks.0.conv": [0, 1]})
    plan.save(tmp_path / "plan.json")
    assert PrunePlan.load(tmp_path / "plan.json") == plan
    refused(lambda: PrunePlan.load(tmp_path / "none.json"), "cannot read the plan")


def test_masked_channels_are_exactly_zero_in_every_tensor(net: Network, graph: ChannelGraph) -> None:
    plan = PrunePlan.from_keep(graph, {"blocks.1.cv2.conv": [0, 2, 5]})
    masked = mask(net, plan, graph)
    gone = [1, 3, 4]
    for unit in (masked.blocks["1"].cv2, masked.blocks["2"]):  # the depthwise convolution passes the channels on
        for tensor in (unit.conv.weight, unit.bn.weight, unit.bn.bias, unit.bn.running_mean):
            assert (tensor[gone] == 0).all()
            assert (tensor[[0, 2, 5]] != 0).any()
        assert (unit.bn.running_var[gone] == 1).all()


def test_compact_updates_what_modules_say_of_themselves(net: Network, graph: ChannelGraph) -> None:
    widths.register({f"{SplitBlock.__module__}.SplitBlock": {"half": ("cv1.conv", 2)}})
    plan = PrunePlan.from_keep(graph, {"blocks.1.cv2.conv": [0, 2, 5], "blocks.1.cv1.conv": [0, 1, 3, 4]})
    small = compact(net, plan, graph)
    block, depthwise = small.blocks["1"], small.blocks["2"].conv
    assert (block.cv1.conv.out_channels, block.half, block.cv1.bn.num_features) == (4, 2, 4)
    assert (block.cv2.conv.in_channels, block.cv2.conv.out_channels) == (6, 3)
    assert (depthwise.in_channels, depthwise.groups, depthwise.out_channels) == (3, 3, 3)
    assert small.blocks["head3"].in_channels == 3


def test_requires_grad_and_precision_are_kept(graph: ChannelGraph) -> None:
    frozen = network()
    frozen.blocks["0"].conv.weight.requires_grad_(False)
    small = compact(frozen, PrunePlan.from_keep(graph, {"blocks.0.conv": [0, 1]}), graph)
    assert not small.blocks["0"].conv.weight.requires_grad
    assert small.blocks["1"].cv1.conv.weight.requires_grad
    assert small.blocks["0"].conv.weight.dtype == torch.float64


def test_verify_refuses_another_model(net: Network, graph: ChannelGraph) -> None:
    plan = random_plan(graph, 0)
    small = compact(net, plan, graph)
    with torch.no_grad():
        small.blocks["0"].conv.weight[0, 0, 0, 0] += 1e-3
    with pytest.raises(VerificationError, match="differs from the masked one"):
        verify(mask(net, plan, graph), small, example())


def test_verify_refuses_values_that_are_not_finite(net: Network, graph: ChannelGraph) -> None:
    """NaN compares as neither above nor below a tolerance."""
    plan = random_plan(graph, 0)
    with pytest.raises(VerificationError, match=r"by nan of the largest value.*not finite"):
        verify(mask(net, plan, graph), compact(net, plan, graph), example() * float("nan"))


def test_verify_refuses_other_shapes() -> None:
    with pytest.raises(VerificationError, match="other shapes"):
        verify(nn.Conv2d(3, 4, 1), nn.Conv2d(3, 5, 1), torch.rand(1, 3, 4, 4))


def test_plan_errors_are_bad_input() -> None:
    from seqprune.errors import InputError

    assert issubclass(PlanError, InputError)
