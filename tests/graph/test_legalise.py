"""A graph's answers, and what is given back so that constraints hold: the fewest channels, the best ones."""

from __future__ import annotations

from dataclasses import FrozenInstanceError
from weakref import ref

import numpy as np
import pytest
import torch
from torch import nn

from seqprune import trace
from seqprune.graph import Balance, ChannelGraph, Layer
from seqprune.graph.channels import BoolArray
from seqprune.graph.giving import Giving, Sections


def graph_of(
    layers: list[list[int]], balances: list[list[list[int]]] = (), pinned: tuple[int, ...] = ()
) -> ChannelGraph:
    """A graph of layers with these channel groups, and sections of groups of which equally many stay."""
    count = 1 + max(group for groups in layers for group in groups)
    return ChannelGraph(
        all_layers=tuple(
            Layer(f"layer{at}", "Conv2d", np.array(groups), np.ones(len(groups), bool), "")
            for at, groups in enumerate(layers)
        ),
        slices=(),
        balances=tuple(Balance(tuple(np.array(s) for s in sections), "halves") for sections in balances),
        barriers=(),
        pinned=np.isin(np.arange(count), pinned),
        inputs=(((1, 3, 4, 4), "float32"),),
    )


def removed(graph: ChannelGraph, *groups: int) -> BoolArray:
    gone = np.zeros(graph.group_count, bool)
    gone[list(groups)] = True
    return gone


def legal(graph: ChannelGraph, gone: BoolArray, scores: list[float], round_to: int = 1) -> list[int]:
    found = graph.legalise(gone, np.array(scores, float), ~graph.pinned, round_to)
    assert not (found & ~gone).any()
    return np.flatnonzero(found).tolist()


def test_the_best_channel_is_given_back() -> None:
    """One of six was given back to reach a multiple of four; which, no test asked: the worst one passed."""
    graph = graph_of([[0, 1, 2, 3, 4, 5]])
    assert legal(graph, removed(graph, 1, 3, 5), [0, 1, 0, 3, 0, 2], round_to=4) == [1, 5]


def test_nothing_is_given_back_where_no_multiple_is_asked_for() -> None:
    graph = graph_of([[0, 1, 2, 3, 4, 5]])
    gone = removed(graph, 1)
    np.testing.assert_array_equal(graph.legalise(gone, np.zeros(6), ~graph.pinned), gone)


def test_of_equally_good_channels_the_first_is_given_back() -> None:
    graph = graph_of([[0, 1, 2, 3, 4, 5]])
    assert legal(graph, removed(graph, 1, 3, 5), [0.0] * 6, round_to=4) == [3, 5]


def test_the_best_channel_of_a_section_is_given_back() -> None:
    graph = graph_of([[0, 1, 2, 3, 4, 5]], ([[0, 1, 2], [3, 4, 5]],))
    assert legal(graph, removed(graph, 3, 4), [0, 0, 0, 1, 2, 0]) == []
    assert legal(graph, removed(graph, 0, 3, 4), [0, 0, 0, 1, 2, 0]) == [0, 3]
    assert legal(graph, removed(graph, 0, 3, 4), [0, 0, 0, 2, 1, 0]) == [0, 4]


def test_an_emptied_layer_gets_its_best_channel() -> None:
    graph = graph_of([[0, 1, 2]])
    assert legal(graph, removed(graph, 0, 1, 2), [1, 3, 2]) == [0, 2]


def test_a_layer_that_sections_across_layers_would_empty_gets_its_best_channel() -> None:
    graph = graph_of([[0, 1], [2, 3], [4, 5, 6, 7]], ([[0, 2, 4, 5], [1, 3, 6, 7]],))
    gone = removed(graph, 0, 1, 4, 6)
    assert graph.unbalanced(gone) is None
    assert legal(graph, gone, [1, 0, 0, 0, 0, 0, 1, 0]) == [1, 4]


def test_no_more_is_given_back_than_is_needed() -> None:
    graph = graph_of([[0, 1, 2, 3, 4, 5, 6, 7]])
    assert legal(graph, removed(graph, 0, 1, 2, 3), [0.0] * 8, round_to=4) == [0, 1, 2, 3]
    assert legal(graph, removed(graph, 0, 1, 2), [0.0] * 8, round_to=4) == []


def test_what_one_constraint_gives_back_is_evened_out_by_the_others() -> None:
    """A single round stopped halfway: the second pair was evened before the first one unbalanced it."""
    graph = graph_of([[0, 1], [2, 3], [4, 5]], ([[2, 3], [4, 5]], [[0, 1], [2, 3]]))
    gone = removed(graph, 2, 4)
    assert graph.unbalanced(gone) is not None
    assert legal(graph, gone, [0.0] * 6) == []
    found = graph.legalise(gone, np.zeros(6), np.ones(6, bool))
    assert graph.unbalanced(found) is None


@pytest.mark.parametrize("length", [2, 3, 6])
def test_rounds_go_on_until_a_chain_of_constraints_is_even(length: int) -> None:
    """Each balance ties a section to the next one; they are met back to front, so each round mends one of them."""
    layers = [[2 * at, 2 * at + 1] for at in range(length + 1)]
    chain = [[layers[at], layers[at + 1]] for at in reversed(range(length))]
    graph = graph_of(layers, tuple(chain))
    gone = removed(graph, *(2 * at for at in range(1, length + 1)))
    assert legal(graph, gone, [0.0] * graph.group_count) == []


def test_what_a_section_has_by_another_it_is_not_given_again() -> None:
    """Group 0, given back for the first section, lies in the second one twice: that has as many as it needs."""
    sections = [[0, 1, 2], [0, 0, 3, 7], [4, 5, 6]]
    graph = graph_of(sections, (sections,))
    assert legal(graph, removed(graph, 0, 1, 7), [0.0] * 8) == [7]


def test_a_group_that_is_all_of_a_section_counts_as_often_as_it_lies_there() -> None:
    sections = [[0, 0], [1, 2, 3, 4]]
    graph = graph_of(sections, (sections,))
    assert legal(graph, removed(graph, 0, 3, 4), [0.0] * 5) == [3, 4]


def test_what_may_not_be_decided_stays_as_it_is() -> None:
    graph = graph_of([[0, 1, 2, 3]])
    gone = removed(graph, 0, 1)
    decided = removed(graph, 0)
    found = graph.legalise(gone, np.array([0.0, 9.0, 0.0, 0.0]), decided, 4)
    assert np.flatnonzero(found).tolist() == [1]


def test_a_trace_keeps_no_activation() -> None:
    """It kept every tensor of both passes: 660 MB for YOLOv8n on 640 pixels, 150 MB without."""

    class Deep(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.layers = nn.ModuleList(nn.Conv2d(3, 3, 1) for _ in range(9))

        def forward(self, x: torch.Tensor) -> torch.Tensor:
            refs = []
            for layer in self.layers:
                x = layer(x).relu()
                refs.append(ref(x))
            alive.append(sum(each() is not None for each in refs))
            return x

    alive: list[int] = []
    trace(Deep(), torch.rand(1, 3, 4, 4))
    assert alive == [1, 1]


def test_members_and_coupled_layers() -> None:
    graph = graph_of([[0, 1], [1, 2], [3], [2, 2]])
    assert graph.members == {
        0: (("layer0", 0),),
        1: (("layer0", 1), ("layer1", 0)),
        2: (("layer1", 1), ("layer3", 0), ("layer3", 1)),
        3: (("layer2", 0),),
    }
    assert graph.coupled("layer0") == ("layer1",)
    assert graph.coupled("layer1") == ("layer0", "layer3")
    assert graph.coupled("layer2") == ()
    assert graph.order == {"layer0": 0, "layer1": 1, "layer2": 2, "layer3": 3}


def test_bundles_follow_balances_as_far_as_they_reach() -> None:
    graph = graph_of([[0, 1], [2, 3], [4, 5], [6]], ([[0, 1], [2, 3]], [[2, 3], [4, 5]]))
    assert [bundle.groups.tolist() for bundle in graph.bundles("layer0")] == [[0, 1], [2, 3], [4, 5]]
    assert [bundle.groups.tolist() for bundle in graph.bundles("layer3")] == [[6]]
    across = graph_of([[0, 1], [2], [3, 4, 5]], ([[0, 1, 2], [3, 4, 5]],))
    assert [bundle.groups.tolist() for bundle in across.bundles("layer0")] == [[0, 1], [2], [3, 4, 5]]
    held = graph_of([[0, 1], [2, 3], [4, 5]], ([[0, 1], [2, 3]], [[2, 3], [4, 5]]), pinned=(1, 2, 3))
    assert {0} <= {group for bundle in held.bundles("layer0") for group in bundle.groups.tolist()} <= {0, 4, 5}
    assert held.bundles("layer1") == ()
    twice = graph_of([[0, 1], [1, 1, 0]]).bundles("layer0")
    assert [bundle.groups.tolist() for bundle in twice] == [[0], [1]]
    assert {name: at.tolist() for name, at in twice[1].columns.items()} == {"layer0": [[1]], "layer1": [[0, 1]]}


def test_a_section_may_be_uneven_or_empty() -> None:
    graph = graph_of([[0, 1, 2, 3]], ([[0, 1], [2, 3]],))
    assert graph.unbalanced(removed(graph)) is None
    assert graph.unbalanced(removed(graph, 0, 2)) is None
    assert graph.unbalanced(removed(graph, 0)) == (graph.balances[0], (1, 2))
    assert graph.unbalanced(removed(graph, 0, 1, 2, 3)) == (graph.balances[0], (0, 0))


def test_what_a_weight_reads_and_makes() -> None:
    model = nn.Sequential(
        nn.Conv2d(3, 4, 1, bias=False), nn.BatchNorm2d(4, affine=False), nn.Conv2d(4, 2, 1, bias=False)
    )
    graph = trace(model, torch.zeros(1, 3, 2, 2))
    assert graph.weight_inputs["2"].tolist() == graph.weight_outputs["0"].tolist() == graph.by_name["0"].groups.tolist()
    assert graph.weight_inputs.keys() == graph.weight_outputs.keys() == {"0", "2"}
    assert graph.weight_outputs["2"].tolist() == graph.by_name["2"].groups.tolist()
    assert graph.group_count == 1 + 4 + 2  # one of all that is no layer's output
    model[1] = nn.BatchNorm2d(4)
    graph = trace(model, torch.zeros(1, 3, 2, 2))
    assert (graph.weight_inputs.keys(), graph.weight_outputs.keys()) == ({"0", "2"}, {"0", "1", "2"})


def test_an_answer_cannot_be_changed() -> None:
    graph = trace(nn.Sequential(nn.Conv2d(3, 4, 1), nn.Conv2d(4, 2, 1)), torch.zeros(1, 3, 2, 2))
    for answer, name in ((graph, "pinned"), (graph.all_layers[0], "free"), (graph.slices[0], "dim")):
        with pytest.raises(FrozenInstanceError):
            setattr(answer, name, None)


def given_back_one_by_one(graph: ChannelGraph, gone: BoolArray, scores: np.ndarray, round_to: int) -> BoolArray:
    """The same, counted anew before every single channel."""
    gone = gone.copy()
    governed = np.isin(np.arange(graph.group_count), [g for b in graph.balances for s in b.sections for g in s])
    counted = [b.sections for b in graph.balances]
    counted += [(layer.groups,) for layer in graph.all_layers if not governed[layer.groups].all()]
    while True:
        before = gone.copy()
        for sections, least in [(c, None) for c in counted] + [((layer.groups,), 1) for layer in graph.all_layers]:
            most = max(int((~gone[s]).sum()) for s in sections)
            target = least or max(1, -(-most // round_to) * round_to)
            for section in sections:
                for group in sorted({*section[gone[section]].tolist()}, key=lambda g: (-scores[g], g)):
                    if int((~gone[section]).sum()) < min(target, len(section)):
                        gone[group] = False
        if (gone == before).all():
            return gone


@pytest.mark.parametrize("seed", range(12))
@pytest.mark.parametrize("round_to", [1, 3, 4])
def test_channels_given_back_together_are_those_given_back_one_by_one(seed: int, round_to: int) -> None:
    """Sections that overlap, and hold some groups twice."""
    draw = np.random.default_rng(seed)
    layers = [draw.integers(0, 20, draw.integers(2, 12)).tolist() for _ in range(5)]
    sections = [[draw.integers(0, 20, 4).tolist() for _ in range(2)] for _ in range(2)]
    graph = graph_of([*layers, list(range(20))], tuple(sections))
    gone, scores = draw.random(20) < 0.6, draw.integers(0, 4, 20).astype(float)
    found = graph.legalise(gone, scores, np.ones(20, bool), round_to)
    assert (found == given_back_one_by_one(graph, gone, scores, round_to)).all()


@pytest.mark.parametrize("seed", range(6))
@pytest.mark.parametrize("round_to", [1, 2, 3])
def test_sections_without_a_group_in_common_are_given_back_as_one_by_one(seed: int, round_to: int) -> None:
    """All of one layer, whose count is what theirs come to."""
    draw = np.random.default_rng(seed)
    one, two, three, four = (part.tolist() for part in np.split(draw.permutation(16), 4))
    graph = graph_of([list(range(16))], ([one, two], [three, four]))
    for share in (0.6, 1):  # some of them, and all
        gone, scores = draw.random(16) < share, draw.integers(0, 4, 16).astype(float)
        found = graph.legalise(gone, scores, np.ones(16, bool), round_to)
        assert (found == given_back_one_by_one(graph, gone, scores, round_to)).all()


def test_before_any_choice_nothing_is_removed() -> None:
    giving = graph_of([[0, 1, 2], [3, 4]]).giving(np.zeros(5), np.ones(5, bool))
    assert not giving.removed.any()
    assert (giving.kept.tolist(), giving.given) == ([3, 2], 0)
    removed = np.array([True, False, False, True, False])
    assert giving.legal(removed).tolist() == removed.tolist()
    assert giving.legal(removed, 2).tolist() == [True, False, False, False, False]


@pytest.mark.parametrize("seed", range(20))
def test_sections_side_by_side_give_back_what_they_do_one_after_the_other(seed: int) -> None:
    """A convolution in 16 groups asked each of them in turn."""
    draw = np.random.default_rng(seed)
    sections = [np.sort(part) for part in np.split(draw.permutation(60), 6)]
    removed, decided = draw.random(60) < 0.7, draw.random(60) < 0.8
    scores = draw.integers(0, 4, 60).astype(float)  # with ties
    both = [Giving(Sections.of([sections], [np.arange(60)], 60), scores, decided) for _ in range(2)]
    for each in both:
        each.begin(removed)
    both[0].side_by_side(np.arange(6), np.full(6, 5))
    for at in range(6):
        both[1].back(at, 5)
    assert (both[0].removed == both[1].removed).all()
    assert (both[0].kept == both[1].kept).all()
    assert both[0].given == both[1].given > 0
