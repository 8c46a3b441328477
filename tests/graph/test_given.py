"""What callers hand over by mistake: said in one line, before a tensor is touched."""

from __future__ import annotations

import copy
import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from torch import nn

from seqprune import PrunePlan, compact, count_active_channels, keep_masked, mask, restore, trace, verify
from seqprune.errors import InputError, ModelError, PlanError, SeqPruneError
from seqprune.graph import given
from seqprune.surgery import fill
from seqprune.testing.networks import randomise

X = torch.rand(1, 3, 6, 6, generator=torch.Generator().manual_seed(0))


def network(width: int = 8) -> nn.Sequential:
    net = nn.Sequential(nn.Conv2d(3, width, 3), nn.ReLU(), nn.Conv2d(width, 4, 1))
    randomise(net, 0)
    return net.eval()


NET = network()
GRAPH = trace(NET, X)
PLAN = PrunePlan.from_keep(GRAPH, {"0": range(4)})
MASKED, SMALL = mask(NET, PLAN), compact(NET, PLAN)
SGD = torch.optim.SGD(network().parameters(), 0.1)


def of_inputs(shape: list[int], dtype: str = "float32") -> PrunePlan:
    return PrunePlan.from_json(json.dumps(json.loads(PLAN.to_json()) | {"inputs": [{"shape": shape, "dtype": dtype}]}))


def legal(**given: Any) -> object:
    none = np.zeros(GRAPH.group_count, bool)
    return GRAPH.legalise(**{"removed": none, "scores": np.zeros(len(none)), "decided": ~none, **given})


CALLS: dict[str, tuple[Callable[[], object], type[SeqPruneError], str]] = {
    "compact without a plan": (lambda: compact(NET, None), PlanError, "the plan is a NoneType: give a PrunePlan"),
    "compact by keep sets": (lambda: compact(NET, {"0": [1]}), PlanError, "the plan is a dict: give a PrunePlan"),
    "arguments the wrong way round": (lambda: compact(PLAN, NET), ModelError, "not a PrunePlan"),
    "compact a name": (lambda: compact("yolov8n.pt", PLAN), ModelError, "not a str: give the built module"),
    "inputs for a graph": (lambda: compact(NET, PLAN, X), PlanError, "the graph is a Tensor: give what trace returned"),
    "another network's graph": (lambda: compact(network(4), PLAN, GRAPH), PlanError, "the graph is another network's"),
    "mask by another's": (lambda: mask(network(4), PLAN, GRAPH), PlanError, "0.weight is [4, 3, 3, 3]"),
    "a graph of a layer that is a norm here": (
        lambda: mask(nn.Sequential(nn.BatchNorm2d(8), *network()[1:]), PLAN, GRAPH),
        PlanError,
        "0.weight is [8] and not 3 along dimension 1",
    ),
    "a graph with more layers": (lambda: mask(nn.Sequential(NET[0]), PLAN, GRAPH), PlanError, "there is no 2.weight"),
    "mask without a plan": (lambda: mask(NET, None), PlanError, "the plan is a NoneType"),
    "mask nothing": (lambda: mask(None, PLAN), ModelError, "not a NoneType"),
    "another plan for none": (lambda: compact(nn.Sequential(nn.ReLU()), PLAN), PlanError, "another model"),
    "keep without an optimizer": (lambda: keep_masked(NET, PLAN, None), InputError, "the optimizer is a NoneType"),
    "keep without a plan": (lambda: keep_masked(NET, None, SGD), PlanError, "the plan is a NoneType"),
    "keep nothing": (lambda: keep_masked(None, PLAN, SGD), ModelError, "not a NoneType"),
    "a channel before the first": (
        lambda: PrunePlan.from_keep(GRAPH, {"0": [-1, 3]}),
        PlanError,
        "the keep set of 0 holds -1, outside [0, 8)",
    ),
    "no keep sets": (lambda: PrunePlan.from_keep(GRAPH, None), PlanError, "keep is a NoneType: give a dictionary"),
    "a list of layers": (lambda: PrunePlan.from_keep(GRAPH, ["0"]), PlanError, "keep is a list: give a dictionary"),
    "a network for a graph": (lambda: PrunePlan.from_keep(NET, {}), PlanError, "the graph is a Sequential"),
    "a tensor of truth": (
        lambda: PrunePlan.from_keep(GRAPH, {"0": torch.arange(8) > 0}),
        PlanError,
        "something else than whole numbers",
    ),
    "truth at two channels": (
        lambda: PrunePlan.from_keep(GRAPH, {"0": torch.tensor([False, True])}),
        PlanError,
        "something else",
    ),
    "truth among channels": (lambda: PrunePlan.from_keep(GRAPH, {"0": [0, True]}), PlanError, "something else than"),
    "a dictionary of channels": (
        lambda: PrunePlan.from_keep(GRAPH, {"0": {0: 1}}),
        PlanError,
        "something else than whole numbers",
    ),
    "nothing removed": (lambda: PrunePlan.from_removed(GRAPH, None), PlanError, "one truth value for each of"),
    "too few removed": (lambda: PrunePlan.from_removed(GRAPH, np.zeros(2, bool)), PlanError, "one truth value"),
    "numbers removed": (
        lambda: PrunePlan.from_removed(GRAPH, np.zeros(GRAPH.group_count, int)),
        PlanError,
        "one truth value",
    ),
    "pinned channels removed": (
        lambda: PrunePlan.from_removed(GRAPH, np.arange(GRAPH.group_count) == GRAPH.by_name["2"].groups[0]),
        PlanError,
        "channel 0 of 2 cannot be removed: network output",
    ),
    "a text for a tolerance": (lambda: verify(MASKED, SMALL, X, "a"), InputError, "tolerance='a': give a number"),
    "truth for a tolerance": (lambda: verify(MASKED, SMALL, X, True), InputError, "tolerance=True: give a number"),
    "no number for a tolerance": (lambda: verify(MASKED, SMALL, X, float("nan")), InputError, "tolerance=nan"),
    "less than nothing": (lambda: verify(MASKED, SMALL, X, -1), InputError, "tolerance=-1: give a number, 0 or more"),
    "verify nothing": (lambda: verify(None, SMALL, X), ModelError, "not a NoneType"),
    "verify against a plan": (lambda: verify(MASKED, PLAN, X), ModelError, "not a PrunePlan"),
    "verify on nothing": (lambda: verify(MASKED, SMALL, X[:0]), ModelError, "the example inputs hold no number"),
    "count without weights": (lambda: count_active_channels(nn.ReLU()), ModelError, "a ReLU has no rows of weights"),
    "count a norm": (lambda: count_active_channels(nn.BatchNorm2d(3)), ModelError, "has no rows of weights"),
    "count nothing": (lambda: count_active_channels(None), ModelError, "a NoneType has no rows"),
    "count a lazy layer": (lambda: count_active_channels(nn.LazyConv2d(3, 1)), ModelError, "has no rows of weights"),
    "join with nothing": (lambda: PLAN & None, PlanError, "the plan is a NoneType"),
    "a plan by hand": (lambda: compact(NET, PrunePlan(None, None)), PlanError, "the plan is for inputs"),
    "a type that is none": (
        lambda: compact(NET, of_inputs([1, 3, 6, 6], "foo")),
        PlanError,
        "inputs of 1 × 3 × 6 × 6 foo",
    ),
    "a part of torch": (lambda: compact(NET, of_inputs([1, 3, 6, 6], "nn")), PlanError, "the plan is for inputs of"),
    "a quantised type": (lambda: compact(NET, of_inputs([1, 3, 6, 6], "quint8")), PlanError, "the plan is for inputs"),
    "an endless image": (
        lambda: compact(NET, of_inputs([1, 3, 9999999, 9999999])),
        PlanError,
        "the plan is for inputs",
    ),
    "beyond all numbers": (lambda: compact(NET, of_inputs([9999999] * 8)), PlanError, "the plan is for inputs of"),
    "a layer that there is not": (lambda: GRAPH.coupled("1"), PlanError, "the model has no layer 1"),
    "no layer": (lambda: GRAPH.bundles(None), PlanError, "the model has no layer None"),
    "a list of one layer": (lambda: GRAPH.bundles(["0"]), PlanError, "the model has no layer ['0']"),
    "made legal without truth": (lambda: legal(removed=[1]), PlanError, "removed is a list of [1]: give an array"),
    "made legal by the truth of two": (lambda: legal(removed=np.zeros(2, bool)), PlanError, "a ndarray of [2]: give"),
    "made legal by texts": (lambda: legal(scores="a"), PlanError, "scores is a str of []: give an array of"),
    "made legal by numbers for truth": (
        lambda: legal(removed=np.zeros(GRAPH.group_count)),
        PlanError,
        "removed is a ndarray",
    ),
    "made legal by truth for numbers": (
        lambda: legal(scores=np.zeros(GRAPH.group_count, bool)),
        PlanError,
        "scores is a ndarray",
    ),
    "a layer with an endless name": (
        lambda: GRAPH.coupled("0" * 99),
        PlanError,
        f"the model has no layer {'0' * 79}…; `seqprune inspect` lists the layers",
    ),
    "made legal to nothing": (lambda: legal(round_to=0), PlanError, "rounded to multiples of 0: give 1 or more"),
    "restore from nothing": (lambda: restore(NET, None), ModelError, "None: is no path"),
    "load nothing": (lambda: PrunePlan.load(None), PlanError, "cannot read the plan None (is no path)"),
    "load a number": (lambda: PrunePlan.load(3), PlanError, "cannot read the plan 3 (is no path)"),
    "save nowhere": (lambda: PLAN.save(None), PlanError, "None cannot be written"),
}


@pytest.mark.parametrize("name", CALLS)
def test_what_is_handed_over_by_mistake(name: str) -> None:
    """``compact(net, None)`` and forty like it ended in an AttributeError, a TypeError or an IndexError of torch's."""
    call, kind, message = CALLS[name]
    before = copy.deepcopy(NET.state_dict())
    with pytest.raises(kind) as caught:
        call()
    assert message in str(caught.value)
    assert "\n" not in str(caught.value)
    assert all(torch.equal(old, new) for old, new in zip(before.values(), NET.state_dict().values(), strict=True))


def test_a_channel_with_any_weight_is_active() -> None:
    layer = nn.Linear(3, 4)
    with torch.no_grad():
        layer.weight.copy_(torch.tensor([[1.0, 0, 0], [0, 0, 0], [0, 2, 3], [4, 5, 6]]))
    assert count_active_channels(layer) == 3


def test_an_empty_tensor_may_stand_beside_others() -> None:
    given.check_inputs((X, torch.zeros(0, 4)))


def test_a_folder_that_is_none(tmp_path: Path) -> None:
    (tmp_path / "file").touch()
    for path in (tmp_path, tmp_path / "a" / "plan.json", tmp_path / "file" / "plan.json"):
        with pytest.raises(PlanError, match="cannot be written"):
            PLAN.save(path)
    assert [path.name for path in tmp_path.iterdir()] == ["file"]


@pytest.mark.parametrize("of", [list, np.array, torch.tensor])
def test_truth_of_every_group_in_any_container(of: Callable[[Any], Any]) -> None:
    """Of a tensor as of an array; a list was a TypeError."""
    removed = np.isin(np.arange(GRAPH.group_count), GRAPH.by_name["0"].groups[4:])
    assert PrunePlan.from_removed(GRAPH, of(removed.tolist())) == PLAN


def test_a_network_without_parameters() -> None:
    """There was none whose type the inputs could take: a bare StopIteration."""
    net = nn.Sequential(nn.ReLU())
    plan = PrunePlan.from_keep(trace(net, X), {})
    assert torch.equal(mask(net, plan)(X), compact(net, plan)(X))


def test_a_network_is_filled_whole_or_not_at_all() -> None:
    """The tensors before the one that did not fit were in the network already."""
    net, state = network(), compact(NET, PLAN).state_dict()
    before = copy.deepcopy(net.state_dict())
    with pytest.raises(ValueError, match=r"2\.bias is \[9\] where the whole is \[4\]"):
        fill(net, state | {"2.bias": torch.zeros(9)})
    assert net[0].out_channels == 8
    torch.testing.assert_close(net.state_dict(), before, rtol=0, atol=0)


def test_inputs_up_to_the_most_are_made(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(given, "_MOST", 12)
    assert given.zeros(nn.Linear(2, 2), (((3, 4), "float32"),))[0].shape == (3, 4)
    made = given.zeros(nn.Linear(2, 2).double(), (((2,), "int64"), ((2,), "float16")))
    assert [each.dtype for each in made] == [torch.int64, torch.float64]
    with pytest.raises(PlanError, match="no network takes"):
        given.zeros(nn.Linear(2, 2), (((13,), "float32"),))


def test_a_network_whose_first_parameter_is_whole_numbers_takes_what_it_took() -> None:
    """Its inputs became whole numbers too, which no layer takes."""
    net = network()
    net.register_parameter("levels", nn.Parameter(torch.arange(4), requires_grad=False))
    assert next(net.parameters()).dtype is torch.int64
    plan = PrunePlan.from_keep(trace(net, X), {"0": [0, 2]})
    assert given.zeros(net, plan.inputs)[0].dtype is torch.float32
    verify(mask(net, plan), compact(net, plan), X)


def test_two_hundred_images_are_no_endless_ones() -> None:
    model = nn.Linear(2, 2, device="meta")
    assert given.zeros(model, (((200, 3, 640, 640), "float32"),))[0].shape == (200, 3, 640, 640)
    with pytest.raises(PlanError, match="no network takes"):
        given.zeros(model, (((2**28 + 1,), "float32"),))
