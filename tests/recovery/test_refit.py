"""Least squares: what can be made up for is made up for, and nothing is fitted that did not change."""

from __future__ import annotations

from functools import partial

import numpy as np
import pytest
import torch
from detectors import CLASSES, Detector, Images
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import nn

from seqprune import compact, mask, trace, verify
from seqprune.observe.patches import Drawn, Sampler, SecondMoments, enough
from seqprune.observe.reading import reading_of
from seqprune.observe.relevance import Relevance
from seqprune.observe.stages import stages_of
from seqprune.observe.streaming import Blocks, BlockStream
from seqprune.plan import PrunePlan
from seqprune.repair.refit import refit
from seqprune.repair.solve import solve
from seqprune.repair.stage import Stage, write
from seqprune.testing.networks import Network, Unit, example, random_plan, randomise
from seqprune.testing.strategies import networks

CHAIN = Blocks("model", tuple((i - 1,) for i in range(6)), (False,) * 6)
INPUT = torch.zeros(1, 3, 32, 32)


def twins(model: nn.Module) -> nn.Module:
    """Channels 8 to 15 of block 1 become copies of the first eight, up to scale and shift before the activation."""
    unit = model.get_submodule("model.1")
    with torch.no_grad():
        for tensor in (unit.conv.weight, unit.bn.weight, unit.bn.bias, unit.bn.running_mean, unit.bn.running_var):
            tensor[8:] = tensor[:8]
    return model


def fitted(model: nn.Module, plan: PrunePlan, **how: object) -> tuple[nn.Module, tuple[str, ...]]:
    graph = trace(model, INPUT)
    masked = mask(model, plan, graph)
    names = refit(model, masked, graph, plan.removed_groups(graph), Images(), stages_of(model, INPUT), **how)  # type: ignore[arg-type]
    return masked, names


def test_a_removed_channel_that_another_one_repeats_is_made_up_for_exactly() -> None:
    model = twins(Detector())
    plan = PrunePlan.from_keep(trace(model, INPUT), {"model.1.conv": range(8)})
    images = next(iter(Images())).images.float() / 255
    masked, names = fitted(model, plan, ridge=1e-9)
    with torch.no_grad():
        expected = model(images)
        broken = (mask(model, plan)(images) - expected).abs().max()
        repaired = (masked(images) - expected).abs().max()
    assert repaired < 1e-3 * broken
    assert names[0] == "model.2.cv1.conv"  # what reads it


@pytest.mark.parametrize("bias", [True, False])
def test_what_a_removed_channel_leaves_as_a_constant_is_not_made_up_for_twice(bias: bool) -> None:
    """Behind a sigmoid it is one half, which its reader went on to read beside an offset that made up for it."""
    torch.manual_seed(0)
    model = nn.Sequential(nn.Conv2d(3, 16, 3), nn.Sigmoid(), nn.Conv2d(16, 4, 1, bias=bias)).eval()
    with torch.no_grad():
        model[0].weight[8:], model[0].bias[8:] = model[0].weight[:8], model[0].bias[:8]
    plan = PrunePlan.from_keep(trace(model, INPUT), {"0": range(8)})
    images = next(iter(Images())).images.float() / 255
    masked, names = fitted(model, plan, ridge=1e-9)
    with torch.no_grad():
        torch.testing.assert_close(masked(images), model(images), rtol=0, atol=1e-3)
    assert names == ("2",)
    verify(masked, compact(masked, plan), images)


class Shortcut(nn.Module):
    """A linear branch beside a shortcut, with a BatchNorm that scales."""

    def __init__(self) -> None:
        super().__init__()
        self.stem, self.norm = nn.Conv2d(3, 4, 1), nn.BatchNorm2d(4)
        self.wide, self.back = nn.Conv2d(4, 6, 1), nn.Conv2d(6, 4, 1)
        self.last = nn.Conv2d(4, 2, 1)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        x = self.stem(x)
        return self.last(x + self.norm(self.back(self.wide(x))))


def test_a_branch_makes_up_for_what_its_shortcut_carries_past_it() -> None:
    """Errors of an inverted residual's input went through the whole stage, since each branch was right by itself."""
    torch.manual_seed(0)
    model = Shortcut().eval()
    randomise(model, 0)
    graph = trace(model, INPUT)
    plan = PrunePlan.from_keep(graph, {"wide": range(5)})
    masked = mask(model, plan, graph)
    with torch.no_grad():
        masked.stem.weight[:] = torch.randn(4, 3, 1, 1)  # type: ignore[union-attr,index]
        images = next(iter(Images())).images.float() / 255
        before = (masked(images) - model(images)).abs().max()
        stages = [["wide"], ["back"]]
        names = refit(model, masked, graph, plan.removed_groups(graph), Images(), stages, ridge=1e-9)
        assert names == ("wide", "back")
        assert (masked(images) - model(images)).abs().max() < 1e-3 * before


def test_an_output_that_counts_for_next_to_nothing_makes_up_for_no_shortcut() -> None:
    """Divided by what it is scaled with, its weights would be as large as that is small."""
    torch.manual_seed(0)
    model = Shortcut().eval()
    randomise(model, 0)
    graph = trace(model, INPUT)
    plan = PrunePlan.from_keep(graph, {"wide": range(5)})
    with torch.no_grad():
        model.norm.weight.mul_(1e3)
        model.norm.weight[0] = 1e-5
        masked = mask(model, plan, graph)
        masked.stem.weight[:] = torch.randn(4, 3, 1, 1)  # type: ignore[union-attr,index]
    refit(model, masked, graph, plan.removed_groups(graph), Images(), [["wide"], ["back"]])
    assert masked.back.weight[0].abs().max() < 100  # type: ignore[union-attr,index]


def test_a_branch_that_begins_at_nothing_makes_up_for_no_shortcut() -> None:
    """A last BatchNorm of zeros, as residual networks begin with: what was added was divided by it."""
    model = Shortcut().eval()
    randomise(model, 0)
    nn.init.zeros_(model.norm.weight)
    graph = trace(model, INPUT)
    plan = PrunePlan.from_keep(graph, {"wide": range(5), "stem": range(3)})
    masked = mask(model, plan, graph)
    names = refit(model, masked, graph, plan.removed_groups(graph), Images(), [["wide"], ["back"], ["last"]])
    assert names == ("wide", "back", "last")
    assert all(value.isfinite().all() for value in masked.state_dict().values())


def test_nothing_is_fitted_where_nothing_was_removed() -> None:
    model = Detector()
    masked, names = fitted(model, PrunePlan((), trace(model, INPUT).inputs))
    assert names == ()
    assert all(
        torch.equal(a, b) for a, b in zip(model.state_dict().values(), masked.state_dict().values(), strict=True)
    )


def test_fitting_brings_the_outputs_closer_and_keeps_both_models_the_same() -> None:
    model = Detector()
    graph = trace(model, INPUT)
    plan = random_plan(graph, 3, 0.4)
    images = next(iter(Images(seed=50))).images.float() / 255
    masked, _ = fitted(model, plan)
    with torch.no_grad():
        before = float((mask(model, plan, graph)(images) - model(images)).square().mean())
        after = float((masked(images) - model(images)).square().mean())
    assert after < 0.5 * before
    assert verify(masked, compact(masked, plan, graph), images).max_rel <= 1e-4


def test_streamed_and_whole_passes_fit_the_same() -> None:
    model = Detector()
    plan = random_plan(trace(model, INPUT), 5, 0.4)
    whole, names = fitted(model, plan)
    streamed, again = fitted(model, plan, streams=(BlockStream(CHAIN), BlockStream(CHAIN)))
    assert names == again
    for a, b in zip(whole.state_dict().values(), streamed.state_dict().values(), strict=True):
        torch.testing.assert_close(a, b)


def test_stages_that_were_fitted_are_not_fitted_again() -> None:
    model = Detector()
    plan, stages, told = random_plan(trace(model, INPUT), 5, 0.4), stages_of(model, INPUT), []
    again, names = fitted(model, plan, start=len(stages) - 2, on_stage=told.append)
    assert told == [len(stages) - 1, len(stages)]
    assert names
    assert set(names) <= {name for stage in stages[-2:] for name in stage}
    masked = mask(model, plan)
    for name in (name for stage in stages[:-2] for name in stage):
        assert torch.equal(again.get_submodule(name).weight, masked.get_submodule(name).weight)


def test_what_a_caller_knows_is_not_found_out_again(monkeypatch: pytest.MonkeyPatch) -> None:
    model = Detector()
    plan, reading = random_plan(trace(model, INPUT), 5, 0.4), reading_of(model, next(iter(Images())))
    whole, names = fitted(model, plan)
    few, _ = fitted(model, plan, sampler=Sampler(1))
    monkeypatch.setattr("seqprune.repair.refit.reading_of", lambda *_: pytest.fail("it was read already"))
    again, _ = fitted(model, plan, reading=reading)
    weights = [network.get_submodule(names[-1]).weight for network in (whole, again, few)]
    assert torch.equal(weights[0], weights[1])
    assert not torch.allclose(weights[0], weights[2])


def test_what_lies_before_all_that_was_removed_is_not_looked_at() -> None:
    model = Detector()
    graph, stages, told = trace(model, INPUT), stages_of(model, INPUT), []
    last = graph.layers[-1]
    gone = graph.legalise(
        np.isin(np.arange(graph.group_count), last.groups[:1]), np.zeros(graph.group_count), ~graph.pinned
    )
    fitted(model, PrunePlan.from_removed(graph, gone), on_stage=told.append)
    first = next(number for number, names in enumerate(stages) if last.name in names)
    assert told == list(range(first + 1, len(stages) + 1))
    assert first > 2


@pytest.mark.parametrize("outputs", [None, np.arange(16) % 2 == 0])
def test_weights_and_offsets_are_written_where_outputs_stay(outputs: np.ndarray | None) -> None:
    model, before = Detector(), Detector()
    conv, norm = model.get_submodule("model.1.conv"), model.get_submodule("model.1.bn")
    draw = torch.Generator().manual_seed(0)
    fit = torch.randn(conv.weight.shape, generator=draw).double().flatten(1), torch.randn(16, generator=draw).double()
    write(before, model, "model.1.conv", "model.1.bn", fit, outputs)
    live = np.ones(16, bool) if outputs is None else outputs
    old = before.get_submodule("model.1.conv").weight, before.get_submodule("model.1.bn").running_mean
    assert torch.equal(conv.weight[live], fit[0].reshape(conv.weight.shape).float()[live])
    torch.testing.assert_close(norm.running_mean[live], (old[1] - fit[1]).float()[live])
    assert torch.equal(conv.weight[~live], old[0][~live])
    assert torch.equal(norm.running_mean[~live], old[1][~live])


def test_offsets_alone_leave_the_weights() -> None:
    model = Detector()
    graph = trace(model, INPUT)
    plan = random_plan(graph, 5, 0.3)
    masked, names = fitted(model, plan, weights=False)
    for name in names:
        live = mask(model, plan, graph).get_submodule(name).weight
        assert torch.equal(masked.get_submodule(name).weight, live)
    images = torch.cat([batch.images for batch in Images()]).float() / 255
    with torch.no_grad():  # every position looked at, so the means agree
        wanted = model(images).mean((0, 2, 3))
        broken = (mask(model, plan, graph)(images).mean((0, 2, 3)) - wanted).abs().max()
        assert (masked(images).mean((0, 2, 3)) - wanted).abs().max() < 0.2 * broken


@settings(max_examples=15)
@given(networks(), st.integers(0, 2**16))
def test_any_network_is_fitted_and_stays_exact(net: Network, seed: int) -> None:
    graph = trace(net, example())
    plan = random_plan(graph, seed, 0.4)
    masked = mask(net, plan, graph)
    side = example().shape[-1]
    images = Images(count=8, batch=4)
    images.batches = [type(b)(b.images[:, :, :side, :side].double() / 255, *vars_of(b)) for b in images.batches]
    refit(net, masked, graph, plan.removed_groups(graph), images, stages_of(net, example()), sampler=Sampler(50))
    assert verify(masked, compact(masked, plan, graph), example(seed, 3)).max_rel <= 1e-10


def vars_of(batch: object) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor]:
    return batch.image_index, batch.classes, batch.boxes  # type: ignore[attr-defined]


@pytest.mark.parametrize("offset", [True, False])
def test_the_closed_form_is_that_of_ridge_regression(offset: bool) -> None:
    draw = np.random.default_rng(0)
    u, weight = draw.normal(2, 1, (500, 6)) @ draw.normal(0, 1, (6, 6)), draw.normal(0, 1, (3, 6))
    y = u @ weight.T + 5
    keep, ridge = np.array([True, False, True, True, False, True]), 1e-2
    moments = SecondMoments()
    moments.update(torch.from_numpy(u)[None], torch.from_numpy(y)[None])
    found, shift = solve(torch.from_numpy(weight), moments, keep, ridge, offset)
    part = u[:, keep] - (u[:, keep].mean(0) if offset else 0)
    wanted = y - (y.mean(0) if offset else 0)
    penalty = ridge * (part**2).mean(0).mean() * len(u)
    # As an ordinary regression with the penalty as further rows.
    rows = np.vstack([part, np.sqrt(penalty) * np.eye(4)])
    right = np.vstack([wanted, np.sqrt(penalty) * weight[:, keep].T])
    expected = np.linalg.lstsq(rows, right, rcond=None)[0].T
    np.testing.assert_allclose(found[:, torch.from_numpy(keep)], expected, rtol=1e-4, atol=1e-5)
    assert torch.equal(found[:, ~torch.from_numpy(keep)], torch.from_numpy(weight)[:, ~keep])
    np.testing.assert_allclose(shift, y.mean(0) - expected @ u[:, keep].mean(0), rtol=1e-3, atol=1e-3)


class Aside(nn.Module):
    """Two layers in a row, with and without what could take an offset, and two beside them that nothing changes."""

    def __init__(self, bias: bool, norm: bool, groups: int = 1) -> None:
        super().__init__()
        self.stem, self.side = nn.Conv2d(3, 6, 1), nn.Conv2d(3, 6, 1)
        self.body, self.far = nn.Conv2d(6, 4, 1, bias=bias, groups=groups), nn.Conv2d(6, 4, 1)
        self.bn = nn.BatchNorm2d(4) if norm else nn.Identity()
        self.act = nn.ReLU() if groups > 1 else nn.Identity()  # through which layers in groups are not fitted
        self.last = nn.Conv2d(8, 2, 1)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        y, z = self.stem(x).relu(), self.side(x).relu()
        return self.last(torch.cat([self.act(self.bn(self.body(y))), self.far(z)], 1))


@pytest.mark.parametrize(
    ("bias", "norm", "groups"), [(True, False, 1), (False, True, 1), (False, False, 1), (True, True, 2)]
)
def test_a_layer_is_fitted_to_all_that_is_seen_of_it_and_what_reads_the_same_as_before_is_not(
    bias: bool, norm: bool, groups: int
) -> None:
    """By an ordinary regression on every position of every image, the penalty as further rows of it."""
    torch.manual_seed(0)
    model, ridge = Aside(bias, norm, groups).eval(), 1e-2
    randomise(model, 0)
    graph = trace(model, INPUT)
    plan = PrunePlan.from_keep(graph, {"stem": [0, 1, 3, 4], "body": [0, 2]})
    masked, told, every = mask(model, plan, graph), [], Sampler(32 * 32)
    drawn = {(batch.number, "body"): every.draw(batch, (32, 32)) for batch in Images()}
    names = refit(
        *(model, masked, graph, plan.removed_groups(graph), Images(), stages_of(model, INPUT)),
        **{"sampler": Sampler(1), "relevance": Relevance(drawn=drawn)} if norm else {"sampler": every},
        ridge=ridge,
        progress=told.append,
    )
    assert names == ("body", "last")
    assert told == [8, 8, 8] * 3
    x = torch.cat([batch.images for batch in Images()]).float() / 255
    with torch.no_grad():
        after, before = (float((each(x) - model(x)).square().mean()) for each in (masked, mask(model, plan, graph)))
        assert after < before / 2
        wanted = model.body(model.stem(x).relu()).double().transpose(0, 1).flatten(1).T
        u = model.stem(x).relu().double().transpose(0, 1).flatten(1).T
    weight, means = model.body.weight.detach().double().flatten(1), bias or norm
    near = partial(torch.testing.assert_close, rtol=1e-3, atol=1e-4)
    if groups > 1:  # of which a third of what was drawn of each image is enough
        cells = torch.cat([32 * each.where[1] + each.where[2] for each in drawn.values()]).reshape(len(x), -1)
        some = (torch.arange(len(x))[:, None] * 32 * 32 + cells)[:, ::3].flatten()
        u, wanted = u[some], wanted[some]
    part, kept = 6 // groups, np.isin(range(6), [0, 1, 3, 4])[: 6 // groups]
    for group in range(groups):
        mine = [2 * group] if groups > 1 else [0, 2]  # outputs that stay
        seen, aim = u[:, part * group : part * (group + 1)][:, kept], wanted[:, mine]
        middle, target = (t.mean(0) if means else torch.zeros(t.shape[1]).double() for t in (seen, aim))
        penalty = (ridge * (seen - middle).square().mean() * len(seen)).sqrt()
        rows = torch.cat([seen - middle, penalty * torch.eye(seen.shape[1])])
        found = torch.linalg.lstsq(rows, torch.cat([aim - target, penalty * weight[mine][:, kept].T])).solution.T
        near(masked.body.weight[mine].flatten(1)[:, kept].double(), found)
        assert torch.equal(masked.body.weight[mine].flatten(1)[:, ~kept], model.body.weight[mine].flatten(1)[:, ~kept])
        shift = aim.mean(0) - found @ seen.mean(0)
        if bias:
            near(masked.body.bias[mine].double(), shift)
        elif norm:
            near((model.bn.running_mean - masked.bn.running_mean)[mine].double(), shift)


def test_a_layer_in_one_group_is_fitted_through_its_activation() -> None:
    torch.manual_seed(0)
    model = Aside(True, True).eval()
    model.act = nn.SiLU()
    randomise(model, 0)
    graph, x = trace(model, INPUT), torch.cat([batch.images for batch in Images()]).float() / 255
    plan, away = PrunePlan.from_keep(graph, {"stem": [0, 1]}), []
    for said in ({}, {"bends": False}):  # it is what happens where nothing is said
        masked = mask(model, plan, graph)
        refit(*(model, masked, graph, plan.removed_groups(graph), Images(), stages_of(model, INPUT)), **said)
        with torch.no_grad():
            made, wanted = (each.act(each.bn(each.body(each.stem(x).relu()))) for each in (masked, model))
            away.append(float((made - wanted).square().mean()))
    assert away[0] < away[1]


def test_without_weights_or_without_inputs_there_are_offsets_alone() -> None:
    draw = torch.Generator().manual_seed(0)
    seen, target = torch.randn(1, 60, 6, generator=draw) + 1, torch.randn(1, 60, 2, generator=draw)
    weight, moments = torch.randn(2, 6, generator=draw).double(), SecondMoments()
    moments.update(seen, target)
    for stay, ridge in ((None, None), (np.array([True, False, True]), None), (np.zeros(3, bool), 0.1)):
        rows, shift = solve(weight, moments, stay, ridge)
        assert torch.equal(rows, weight)
        read = np.repeat(np.ones(3, bool) if stay is None else stay, 2)
        torch.testing.assert_close(shift, target[0].mean(0).double() - weight[:, read] @ seen[0].mean(0).double()[read])


@pytest.mark.parametrize("layer", [nn.Conv2d(6, 6, 3), nn.Conv2d(6, 6, 3, groups=6), nn.Linear(7, 7)])
def test_of_layers_in_groups_fewer_positions_are_enough(layer: nn.Module) -> None:
    """Of a layer in one group every position that was drawn is looked at, and of one that has no groups."""
    where = tuple(torch.arange(4000) // 2000 for _ in range(3))
    output = torch.zeros(2, 5, 7, 6) if isinstance(layer, nn.Linear) else torch.zeros(2, 6, 5, 7)

    class Places:
        def of(self, _name: str, hw: tuple[int, int], part: slice) -> Drawn:
            assert (hw, part) == ((5, 7), slice(2, 4))
            return Drawn(where)

    found = Stage.drawn(Places(), 8, "a", layer, output, slice(2, 4))  # type: ignore[arg-type]
    grouped = getattr(layer, "groups", 1) > 1
    wanted = -(-2000 // -(-2000 // enough(layer, 8, 128))) if grouped else 2000
    assert (found.where[0] == 0).sum() == (found.where[0] == 1).sum() == wanted
    assert (wanted < 2000) == grouped


@pytest.mark.parametrize("offset", [True, False])
def test_groups_are_solved_as_if_each_were_alone(offset: bool) -> None:
    """A depthwise convolution of 1,152 groups was solved in as many turns."""
    draw = torch.Generator().manual_seed(0)
    seen, target = (torch.randn(5, 60, n, generator=draw) + 1 for n in (6, 2))
    seen[3] = 0.0  # where nothing varies, weights stay
    weight = torch.randn(10, 6, generator=draw).double()
    stay = np.array([[1, 1, 1], [1, 0, 1], [0, 0, 0], [1, 1, 1], [1, 0, 1]], bool)
    moments = SecondMoments()
    moments.update(seen, target)
    rows, shift = solve(weight, moments, stay, 0.1, offset)
    for group in range(5):
        alone, mine = SecondMoments(), slice(2 * group, 2 * group + 2)
        alone.update(seen[group : group + 1], target[group : group + 1])
        its, offsets = solve(weight[mine], alone, stay[group], 0.1, offset)
        torch.testing.assert_close(rows[mine], its)
        torch.testing.assert_close(shift[mine], offsets)
    assert torch.equal(rows[4:8], weight[4:8])
    for every in (np.ones(3, bool), np.ones((5, 3), bool)):
        for one, other in zip(solve(weight, moments, None, 0.1), solve(weight, moments, every, 0.1), strict=True):
            torch.testing.assert_close(one, other)


def test_stages_follow_the_network_and_hold_what_does_not_depend_on_each_other() -> None:
    stages = stages_of(Detector(), INPUT)
    flat = [name for stage in stages for name in stage]
    assert flat[:3] == ["model.0.conv", "model.1.conv", "model.2.cv1.conv"]
    assert len(flat) == len(set(flat)) == sum(isinstance(m, nn.Conv2d) for m in Detector().modules())

    class Fork(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.stem, self.left, self.right, self.join = Unit(3, 4), Unit(4, 4), Unit(4, 4), nn.Conv2d(8, CLASSES, 1)

        def forward(self, x: torch.Tensor) -> torch.Tensor:
            x = self.stem(x)
            return self.join(torch.cat([self.left(x), self.right(x)], 1))

    assert stages_of(Fork().eval(), INPUT) == [["stem.conv"], ["left.conv", "right.conv"], ["join"]]


def test_branches_that_read_different_blocks_are_one_stage() -> None:
    class Head(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.near, self.far = (nn.Sequential(Unit(4, 4), nn.Conv2d(4, CLASSES, 1)) for _ in range(2))

        def forward(self, near: torch.Tensor, far: torch.Tensor) -> torch.Tensor:
            return self.near(near) + self.far(far)

    class Scales(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.model = nn.ModuleList([Unit(3, 4), Unit(4, 4), Head()])

        def forward(self, x: torch.Tensor) -> torch.Tensor:
            near = self.model[0](x)
            return self.model[2](near, self.model[1](near))

    assert stages_of(Scales().eval(), INPUT) == [
        ["model.0.conv"],
        ["model.1.conv"],
        ["model.2.near.0.conv", "model.2.far.0.conv"],
        ["model.2.near.1", "model.2.far.1"],
    ]


def test_what_reads_another_through_a_detach_is_behind_it_though_weights_are_frozen() -> None:
    class Detached(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.a, self.b, self.c = nn.Conv2d(3, 4, 1), nn.Conv2d(4, 4, 1), nn.Conv2d(4, 4, 1)

        def forward(self, x: torch.Tensor) -> torch.Tensor:
            y: torch.Tensor = self.c(self.b(self.a(x).detach()))
            return y

    frozen = Detached().requires_grad_(False)
    assert stages_of(frozen, INPUT) == [["a", "b"], ["c"]]
    assert not any(parameter.requires_grad for parameter in frozen.parameters())


def test_layers_that_are_not_looked_at_are_not_computed_in_the_pruned_network() -> None:
    """Behind what a stage reads the pruned network ran on, and what came of it was thrown away."""
    model = Detector()
    graph = trace(model, INPUT)
    plan = random_plan(graph, 3, 0.4)
    stages, masked = stages_of(model, INPUT), mask(model, plan, graph)
    seen: list[tuple[int, str]] = []
    done = [0]
    for names in stages:
        for name in names:
            conv = masked.get_submodule(name)
            whole = conv.forward

            def watched(x: torch.Tensor, name: str = name, whole: object = whole) -> torch.Tensor:
                seen.append((done[0], name))
                return whole(x)  # type: ignore[operator,no-any-return]

            conv.forward = watched
    refit(
        *(model, masked, graph, plan.removed_groups(graph), Images(), stages),
        on_stage=lambda number: done.__setitem__(0, number),
    )
    depth = {name: number for number, names in enumerate(stages) for name in names}
    changed = min(stage for stage, _ in seen)
    assert seen
    assert all(depth[name] < stage for stage, name in seen if stage > changed)
    assert all("forward" in vars(masked.get_submodule(name)) for name in depth)  # as they were before


def test_a_layer_that_runs_twice_is_computed_for_those_that_read_its_second_run() -> None:
    class Twice(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.stem, self.shared = nn.Conv2d(3, 4, 1), nn.Conv2d(4, 4, 1)
            self.near, self.far, self.last = nn.Conv2d(4, 4, 1), nn.Conv2d(4, 4, 1), nn.Conv2d(4, 4, 1)

        def forward(self, x: torch.Tensor) -> torch.Tensor:
            x = self.stem(x)
            y = self.shared(self.far(self.near(x)))
            return y + self.last(self.shared(x))

    torch.manual_seed(0)
    model = Twice().eval()
    stages = stages_of(model, INPUT)
    assert stages == [["stem"], ["near", "last"], ["far"], ["shared"]]
    graph = trace(model, INPUT)
    plan = PrunePlan.from_keep(graph, {"stem": range(3)})
    masked = mask(model, plan, graph)
    names = refit(model, masked, graph, plan.removed_groups(graph), Images(), stages)
    assert "last" in names
    assert not torch.allclose(masked.last.weight, model.last.weight)  # of zeros there is nothing to learn
