"""Each repair is kept where held-out images say that it helps, and nowhere else."""

from __future__ import annotations

from collections.abc import Callable
from copy import deepcopy

import pytest
import torch
from detectors import Detector, Images
from torch import nn

from seqprune import compact, mask, trace, verify
from seqprune.graph.active import active_channels
from seqprune.observe.forward import Forward
from seqprune.repair.recover import Nowhere, Repair, recover, restate
from seqprune.testing.networks import random_plan

INPUT = torch.zeros(1, 3, 32, 32)


def case() -> tuple[nn.Module, nn.Module, object, object]:
    model = Detector()
    graph = trace(model, INPUT)
    plan = random_plan(graph, 1, 0.4)
    return model, mask(model, plan, graph), plan, graph


def scale(model: nn.Module, weights: bool, _images: object, *_progress: object) -> None:
    with torch.no_grad():
        model.get_submodule("model.5.0").weight.mul_(2 if weights else 3)


@pytest.mark.parametrize(
    ("losses", "kept"), [([5, 4, 3], (True, True)), ([5, 4, 4], (True, False)), ([5, 6, 4], (False, True))]
)
def test_only_what_helps_is_kept(losses: list[float], kept: tuple[bool, bool]) -> None:
    model, masked, plan, graph = case()
    told = iter(losses)
    best, repairs = recover(model, masked, plan, graph, Images(), "bias", scale, lambda _model: next(told))  # type: ignore[arg-type]
    assert tuple(r.kept for r in repairs) == kept
    assert [r.step for r in repairs] == ["bias", "bn"]
    assert repairs[0].before == 5
    fitted = torch.equal(best.get_submodule("model.5.0").weight, 3 * masked.get_submodule("model.5.0").weight)
    assert fitted == kept[0]


def test_the_masked_network_is_judged_and_then_each_that_was_changed() -> None:
    model, masked, plan, graph = case()
    judged: list[nn.Module] = []
    found: list[str] = []

    class Keeps(Nowhere):
        def number(self, name: str, make: Callable[[], float]) -> float:
            found.append(name)
            return super().number(name, make)

        def fitted(self, name: str, model: nn.Module, fit: Callable[..., object]) -> None:
            found.append(name)
            super().fitted(name, model, fit)

    def judge(candidate: nn.Module) -> float:
        judged.append(candidate)
        return -len(judged)

    best, _ = recover(model, masked, plan, graph, Images(), "bias", scale, judge, keep=Keeps())  # type: ignore[arg-type]
    assert found == ["judged-masked", "tried-bias", "judged-tried-bias", "tried-bn", "judged-tried-bn"]
    assert judged[0] is masked
    assert judged[2] is best
    weights = [each.get_submodule("model.5.0").weight for each in judged]
    assert torch.equal(weights[1], 3 * weights[0])


def test_least_squares_fit_weights_and_are_the_only_repair() -> None:
    model, masked, plan, graph = case()
    seen = []

    def fit(model: nn.Module, weights: bool, images: Images, start: int, on_stage: object, quick: bool) -> None:
        seen.append((len(images), quick))
        scale(model, weights, images)

    best, repairs = recover(model, masked, plan, graph, Images(), "ls", fit)  # type: ignore[arg-type]
    assert seen == [(3, False)]  # with no others to do it anew with, it is not tried quickly
    assert [r.step for r in repairs] == ["ls"]
    assert torch.equal(best.get_submodule("model.5.0").weight, 2 * masked.get_submodule("model.5.0").weight)


def test_what_is_kept_is_done_anew_with_all_images() -> None:
    """A held-out image judges, and then helps."""
    model, masked, plan, graph = case()
    part, everything, fitted = Images(8), Images(), []

    def fit(model: nn.Module, weights: bool, images: object, *_progress: object) -> None:
        fitted.append(images)
        scale(model, weights, images)

    losses = iter([5, 4, 6])
    best, repairs = recover(
        model, masked, plan, graph, part, "bias", fit, lambda _m: next(losses), everything=everything
    )  # type: ignore[arg-type]
    assert fitted == [part, everything]
    assert [repair.kept for repair in repairs] == [True, False]
    weights = [model.get_submodule("model.5.0").weight for model in (best, masked)]
    assert torch.equal(weights[0], 3 * weights[1])  # from what was pruned, not on top of the first fit


@pytest.mark.parametrize(
    ("losses", "fits", "repair"),
    [
        ([5, 4], [(2, True), (6, False)], Repair("ls", True, 5, 4)),
        ([5, 6, 3], [(2, True), (5, False), (6, False)], Repair("ls", True, 5, 3)),
        ([5, 6, 7], [(2, True), (5, False)], Repair("ls", False, 5, 7)),
    ],
)
def test_least_squares_are_tried_quickly_first(
    losses: list[float], fits: list[tuple[int, bool]], repair: Repair
) -> None:
    """Two whole fits, one of which only judged, were three quarters of a run."""
    model, masked, plan, graph = case()
    part, everything, seen = Images(40), Images(48), []

    def fit(model: nn.Module, weights: bool, images: Images, start: int, on_stage: object, quick: bool) -> None:
        assert start == 0
        seen.append((len(images), quick))
        scale(model, weights, images)

    told = iter(losses)
    best, repairs = recover(model, masked, plan, graph, part, "ls", fit, lambda _m: next(told), everything=everything)  # type: ignore[arg-type]
    assert seen == fits
    assert (best is masked) == (not repair.kept)
    assert repairs == (repair,)


def test_without_held_out_images_everything_is_kept_and_said() -> None:
    model, masked, plan, graph = case()
    _, repairs = recover(model, masked, plan, graph, Images(), "bias", scale)  # type: ignore[arg-type]
    assert [(r.step, r.kept, r.before, r.after) for r in repairs] == [
        ("bias", True, None, None),
        ("bn", True, None, None),
    ]


def test_nothing_is_tried_where_nothing_is_asked_for() -> None:
    model, masked, plan, graph = case()
    best, repairs = recover(model, masked, plan, graph, Images(), "none", scale)  # type: ignore[arg-type]
    assert best is masked
    assert repairs == ()


def test_new_statistics_leave_masked_channels_dead_and_both_models_the_same() -> None:
    model, masked, plan, graph = case()
    before = deepcopy(model.state_dict()), deepcopy(masked.state_dict())
    best, _ = recover(model, masked, plan, graph, Images(), "bn", scale)  # type: ignore[arg-type]
    for network, state in zip((model, masked), before, strict=True):
        assert all(torch.equal(tensor, state[name]) for name, tensor in network.state_dict().items())
    again = mask(best, plan, graph).state_dict()  # what left has no statistics of its own
    assert all(torch.equal(tensor, again[name]) for name, tensor in best.state_dict().items())
    assert not all(torch.equal(one, other) for one, other in zip(stated(best), stated(masked), strict=True))
    for layer in graph.all_layers:  # type: ignore[attr-defined]
        name = layer.name
        assert (active_channels(best.get_submodule(name)) == active_channels(masked.get_submodule(name))).all()
    assert verify(best, compact(best, plan, graph), INPUT + 0.3).max_rel <= 1e-4  # type: ignore[arg-type]
    assert not best.training


def stated(model: nn.Module) -> list[torch.Tensor]:
    return [s for n in model.modules() if isinstance(n, nn.BatchNorm2d) for s in (n.running_mean, n.running_var)]  # type: ignore[misc]


def test_an_unpruned_network_keeps_the_statistics_it_was_trained_to() -> None:
    """A few images cannot know them better: taken anew from 64, YOLOv8n lost up to 4 % of its mAP unpruned."""
    original, images = Detector(), Images()
    for at, norm in enumerate(n for n in original.modules() if isinstance(n, nn.BatchNorm2d)):
        with torch.no_grad():
            norm.running_mean.fill_(at + 3.0)  # type: ignore[union-attr]
            norm.running_var.fill_(at + 0.5)  # type: ignore[union-attr]
    model = deepcopy(original)
    restate(original, model, images)
    for before, after in zip(stated(original), stated(model), strict=True):
        torch.testing.assert_close(after, before)


def test_a_norm_that_keeps_no_statistics_has_none_to_correct() -> None:
    original = Detector()
    original.get_submodule("model.1").bn = nn.BatchNorm2d(16, track_running_stats=False)
    restate(original, model := deepcopy(original), Images())
    for name, tensor in model.state_dict().items():
        torch.testing.assert_close(tensor, original.state_dict()[name])


def test_new_statistics_undo_what_scales_a_channel() -> None:
    original, images = Detector(), Images()
    for norm in (module for module in original.modules() if isinstance(module, nn.BatchNorm2d)):
        norm.num_batches_tracked.fill_(100)  # type: ignore[union-attr]  # of its training
    model = deepcopy(original)
    factor = torch.linspace(0.25, 4, len(model.get_submodule("model.0.conv").weight))
    with torch.no_grad():
        model.get_submodule("model.0.conv").weight.mul_(factor[:, None, None, None])
    momentum = model.get_submodule("model.0.bn").momentum
    restate(original, model, images)
    norm, known = model.get_submodule("model.0.bn"), original.get_submodule("model.0.bn")
    torch.testing.assert_close(norm.running_mean, known.running_mean * factor)
    torch.testing.assert_close(norm.running_var, known.running_var * factor**2)
    assert norm.momentum == momentum
    assert not model.training


def test_a_channel_that_never_varies_is_shifted_alone() -> None:
    original, images = Detector(), Images()
    with torch.no_grad():
        original.get_submodule("model.0.conv").weight[0] = 0
    model = deepcopy(original)
    restate(original, model, images)
    assert all(s.isfinite().all() for s in stated(model))
    assert model.get_submodule("model.0.bn").running_var[0] == original.get_submodule("model.0.bn").running_var[0]


def test_a_batch_that_does_not_fit_is_counted_once() -> None:
    """Statistics that the failed attempt had moved are those before it when its halves come."""
    found = []
    for parts in (1, 2):
        original, images, forward, said = Detector(), Images(), Forward(), []  # type: ignore[var-annotated]
        forward.parts, forward.warn = parts, said.append
        model, left = deepcopy(original), [parts == 1]
        with torch.no_grad():
            model.get_submodule("model.0.conv").weight.mul_(2)
        for batch in images.batches:
            whole = batch.run

            def run(network: nn.Module, part: slice, whole: object = whole, left: list[bool] = left) -> object:
                out = whole(network, part)  # type: ignore[operator]
                if left[0]:
                    left[0] = False
                    raise torch.cuda.OutOfMemoryError
                return out

            object.__setattr__(batch, "run", run)
        restate(original, model, images, forward)
        assert len(said) == (parts == 1)
        found.append(stated(model))
    for one, other in zip(*found, strict=True):
        assert torch.equal(one, other)
