"""What is seen of the layers of one stage, in both networks and by several processes, and what they are fitted to."""

from __future__ import annotations

import threading
from collections.abc import Callable, Sequence
from copy import deepcopy
from typing import Any, TypeVar

import torch
from detectors import Images
from torch import nn

from seqprune import mask, trace
from seqprune.observe.forward import Forward
from seqprune.observe.patches import LEAST, Sampler
from seqprune.observe.ranks import Ranks
from seqprune.observe.reading import Reading, reading_of
from seqprune.observe.sources import Places
from seqprune.observe.stages import stages_of
from seqprune.observe.streaming import whole_passes
from seqprune.observe.unit import Unit
from seqprune.plan import PrunePlan
from seqprune.repair.refit import refit
from seqprune.repair.stage import Stage
from seqprune.testing.networks import randomise

INPUT = torch.zeros(1, 3, 32, 32)
T = TypeVar("T")


def fitted(
    model: nn.Module, stay: Sequence[int], stages: Sequence[Sequence[str]], change: Callable[[Any], None], **how: Any
) -> tuple[Any, tuple[str, ...]]:
    """The network without some channels of its stem, changed by hand and then fitted; and the layers that were."""
    graph = trace(model, INPUT)
    plan = PrunePlan.from_keep(graph, {"stem": stay})
    masked = mask(model, plan, graph)
    with torch.no_grad():
        change(masked)
    return masked, refit(model, masked, graph, plan.removed_groups(graph), Images(), stages, **how)


def as_it_is(_model: nn.Module) -> None:
    pass


class Row(nn.Module):
    """Two layers in a row."""

    def __init__(self, groups: int = 1) -> None:
        super().__init__()
        torch.manual_seed(0)
        self.stem, self.last = nn.Conv2d(3, 6, 1), nn.Conv2d(6, 2, 1, groups=groups)
        self.eval()

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return self.last(self.stem(x).relu())  # type: ignore[no-any-return]


class Forked(Row):
    """Two layers that read what one gives."""

    def __init__(self) -> None:
        super().__init__()
        self.side = nn.Conv2d(6, 2, 1)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        x = self.stem(x).relu()
        return torch.cat([self.last(x), self.side(x)], 1)


class Side(Ranks):
    """One of two threads that stand for processes."""

    def __init__(self, rank: int, board: list[Any], meeting: threading.Barrier) -> None:
        self.rank, self.count = rank, 2  # type: ignore[misc]
        self.board, self.meeting = board, meeting

    def gather(self, mine: T) -> list[T]:
        self.board[self.rank] = mine
        self.meeting.wait(20)
        found = list(self.board)
        self.meeting.wait(20)
        return found

    def swap(self, mine: Sequence[T]) -> list[T]:
        return [given[self.rank] for given in self.gather(mine)]


def test_two_processes_see_together_what_one_sees() -> None:
    """Of three batches one sees two and the other one; each fits every second layer of a stage."""
    model = Forked()
    graph = trace(model, INPUT)
    plan = PrunePlan.from_keep(graph, {"stem": range(4)})
    alone = mask(model, plan, graph)
    about: list[Any] = [graph, plan.removed_groups(graph), Images(), stages_of(model, INPUT)]
    names = refit(model, alone, *about)
    board: list[Any] = [None, None]
    meeting, fits, told = threading.Barrier(2), [deepcopy(mask(model, plan, graph)) for _ in board], [[], []]  # type: ignore[var-annotated]
    found: dict[int, tuple[str, ...]] = {}

    def work(rank: int) -> None:
        try:
            side = Side(rank, board, meeting)
            found[rank] = refit(deepcopy(model), fits[rank], *about, ranks=side, progress=told[rank].append)
        finally:
            if rank not in found:
                meeting.abort()

    threads = [threading.Thread(target=work, args=(rank,), daemon=True) for rank in range(2)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(60)
    assert found == {0: names, 1: names}
    assert names == ("last", "side")
    assert told == [[16, 16] * 2, [16] * 2]
    for one, other, whole in zip(*(each.state_dict().values() for each in (*fits, alone)), strict=True):
        assert torch.equal(one, whole)
        assert torch.equal(other, whole)


def test_a_stage_is_fitted_where_one_of_its_layers_is_a_factor_now() -> None:
    class Fork(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.left = nn.Sequential(nn.Identity(), nn.Conv2d(3, 4, 3, padding=1))
            self.right = nn.Conv2d(3, 4, 1)

        def forward(self, x: torch.Tensor) -> torch.Tensor:
            return self.left(x) + self.right(x)  # type: ignore[no-any-return]

    torch.manual_seed(0)
    model = Fork().eval()
    masked = deepcopy(model)
    masked.left = nn.Sequential(nn.Conv2d(3, 5, (3, 1), padding=(1, 0)), nn.Conv2d(5, 4, (1, 3), padding=(0, 1)))
    assert stages_of(model, INPUT) == [["left.1", "right"]]
    right = masked.right.weight.clone()
    graph = trace(masked, INPUT)
    gone = PrunePlan((), graph.inputs).removed_groups(graph)
    assert refit(model, masked, graph, gone, Images(), [["left.1", "right"]]) == ("left.1",)
    assert torch.equal(masked.right.weight, right)


def test_a_layer_that_runs_again_before_its_stage_is_seen_is_fitted_to_its_first_run() -> None:
    class Twice(Forked):
        def forward(self, x: torch.Tensor) -> torch.Tensor:
            x = self.stem(x).relu()
            return self.last(x) + self.last(x / 2) + self.side(x)  # type: ignore[no-any-return]

    model = Twice()
    with torch.no_grad():
        model.stem.bias.fill_(0.3)
        model.stem.weight[5] = model.stem.weight[4]  # repeats another one
    masked, names = fitted(model, range(5), [["last", "side"]], as_it_is, ridge=1e-6)
    assert names == ("last", "side")
    x = torch.rand(2, 3, 8, 8)
    with torch.no_grad():
        torch.testing.assert_close(masked(x), model(x), rtol=1e-3, atol=1e-3)


def test_what_reads_a_block_that_left_is_fitted_though_no_channel_did() -> None:
    torch.manual_seed(0)
    model = nn.Sequential(nn.Conv2d(3, 3, 1), nn.Sequential(nn.Conv2d(3, 3, 1), nn.Conv2d(3, 3, 1)), nn.Conv2d(3, 2, 1))
    masked = deepcopy(model)
    masked[1] = nn.Identity()
    graph = trace(masked, INPUT)
    gone = PrunePlan((), graph.inputs).removed_groups(graph)
    assert refit(model, masked, graph, gone, Images(), stages_of(model, INPUT), ridge=1e-6) == ("2",)
    x = torch.rand(2, 3, 8, 8)
    with torch.no_grad():  # a linear layer more in a row can be made up for
        torch.testing.assert_close(masked(x), model(x), rtol=1e-3, atol=1e-3)


def test_what_a_caller_brings_is_how_images_go_through() -> None:
    class Counted(Forward):
        calls = 0

        def __call__(self, *about: Any, **named: Any) -> Any:
            self.calls += 1
            return super().__call__(*about, **named)

    forward = Counted()
    fitted(Row(), range(4), [["last"]], as_it_is, forward=forward)
    assert forward.calls == len(Images())


def test_of_a_layer_in_groups_as_many_samples_are_taken_as_its_columns_need() -> None:
    """Of all images together, and so fewer of each the more images there are."""
    model, images = Row(groups=2), Images()
    stage = Stage(model, model, ["last"], {}, Reading((), {}, {}), len(images))
    for whole, part in zip(*(whole_passes(model, images) for _ in range(2)), strict=True):
        stage.look(whole, part, Places(Sampler(32 * 32), whole.batch, None), Forward())
    assert LEAST * 0.9 < stage.moments["last"].count < LEAST * 1.1 < 24 * 32 * 32


def test_what_is_added_is_made_up_for_where_it_has_the_size_of_the_outputs_alone() -> None:
    reading = Reading((), {}, {"last": Unit(shortcut="stem")})
    model = Row()
    stage = Stage(model, model, ["last"], {}, reading, 1)
    where, output = tuple(torch.zeros(4, dtype=torch.int64) for _ in range(3)), torch.ones(2, 2, 5, 5)
    assert stage.added("last", model.last, output, {}, where) is None
    assert stage.added("last", model.last, output, {"stem": torch.ones(2, 2, 1, 1)}, where) is None
    found = stage.added("last", model.last, output, {"stem": 3 * output}, where)
    assert found is not None
    assert torch.equal(found, torch.full((4, 2), 3.0))


def test_a_shortcut_that_left_with_its_block_is_none() -> None:
    reading = Reading((), {}, {"last": Unit(shortcut="stem"), "stem": Unit(shortcut="gone"), "side": Unit()})
    model = Forked()
    assert Stage(model, model, ["last", "stem", "side"], {}, reading, 1).shortcuts == {"last": "stem"}


def test_what_is_read_of_a_block_that_left_is_drawn_to_nothing() -> None:
    """Its reader has zeros there, where the original network has weights."""
    model = Row()
    masked, names = fitted(model, range(5), [["last"]], lambda masked: masked.last.weight[:, 4].zero_(), ridge=1e6)
    assert names == ("last",)
    assert masked.last.weight[:, 4].abs().max() < 1e-3
    torch.testing.assert_close(masked.last.weight[:, :4], model.last.weight[:, :4], rtol=1e-2, atol=1e-3)


def test_linear_layers_are_fitted_through_their_activation() -> None:
    """They have no groups; a convolution in groups is fitted without it."""

    class Tokens(nn.Module):
        def __init__(self, groups: int) -> None:
            super().__init__()
            self.stem, self.act = nn.Conv2d(3, 6, 1), nn.SiLU()
            self.body = nn.Conv2d(6, 4, 1, groups=groups) if groups else nn.Linear(6, 4)
            self.last = nn.Conv2d(4, 2, 1)

        def forward(self, x: torch.Tensor) -> torch.Tensor:
            x = self.stem(x)
            if isinstance(self.body, nn.Linear):
                return self.last(self.act(self.body(x.movedim(1, -1))).movedim(-1, 1))  # type: ignore[no-any-return]
            return self.last(self.act(self.body(x)))  # type: ignore[no-any-return]

    for groups, differs in ((0, True), (1, True), (2, False)):
        torch.manual_seed(0)
        model = Tokens(groups).eval()
        randomise(model, 0)
        assert reading_of(model, next(iter(Images()))).unit("body").activation is not None
        found = [
            fitted(model, [0, 1, 3, 4], [["body"]], as_it_is, bends=bends)[0].body.weight for bends in (True, False)
        ]
        assert torch.equal(*found) != differs, groups
