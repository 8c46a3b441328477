"""Each repair is kept where held-out images say that it helps, and nowhere else."""

from __future__ import annotations

import pytest
import torch
from detectors import Detector, Images
from networks import random_plan
from torch import nn

from seqprune import compact, mask, trace, verify
from seqprune.recover import recover, restate
from seqprune.surgery import active_channels

INPUT = torch.zeros(1, 3, 32, 32)


def case() -> tuple[nn.Module, object, object]:
    model = Detector()
    graph = trace(model, INPUT)
    plan = random_plan(graph, 1, 0.4)
    return mask(model, plan, graph), plan, graph


def double(model: nn.Module, weights: bool, _images: object) -> None:
    with torch.no_grad():
        model.get_submodule("model.5.0").weight.mul_(2 if weights else 3)


@pytest.mark.parametrize(
    ("losses", "kept"), [([5, 4, 3], (True, True)), ([5, 4, 4], (True, False)), ([5, 6, 4], (False, True))]
)
def test_only_what_helps_is_kept(losses: list[float], kept: tuple[bool, bool]) -> None:
    masked, plan, graph = case()
    told = iter(losses)
    best, repairs = recover(masked, plan, graph, Images(), "ls", double, lambda _model: next(told))  # type: ignore[arg-type]
    assert tuple(r.kept for r in repairs) == kept
    assert [r.step for r in repairs] == ["ls", "bn"]
    assert repairs[0].before == 5
    doubled = torch.equal(best.get_submodule("model.5.0").weight, 2 * masked.get_submodule("model.5.0").weight)
    assert doubled == kept[0]


def test_what_is_kept_is_done_anew_with_all_images() -> None:
    """A held-out image judges, and then helps."""
    masked, plan, graph = case()
    part, everything, fitted = Images(8), Images(), []

    def fit(model: nn.Module, weights: bool, images: object) -> None:
        fitted.append(images)
        double(model, weights, images)

    losses = iter([5, 4, 6])
    best, repairs = recover(masked, plan, graph, part, "ls", fit, lambda _m: next(losses), everything=everything)  # type: ignore[arg-type]
    assert fitted == [part, everything]
    assert [repair.kept for repair in repairs] == [True, False]
    weights = [model.get_submodule("model.5.0").weight for model in (best, masked)]
    assert torch.equal(weights[0], 2 * weights[1])  # from what was pruned, not on top of the first fit


def test_without_held_out_images_everything_is_kept_and_said() -> None:
    masked, plan, graph = case()
    _, repairs = recover(masked, plan, graph, Images(), "bias", double)  # type: ignore[arg-type]
    assert [(r.step, r.kept, r.before, r.after) for r in repairs] == [
        ("bias", True, None, None),
        ("bn", True, None, None),
    ]


def test_nothing_is_tried_where_nothing_is_asked_for() -> None:
    masked, plan, graph = case()
    best, repairs = recover(masked, plan, graph, Images(), "none", double)  # type: ignore[arg-type]
    assert best is masked
    assert repairs == ()


def test_new_statistics_leave_masked_channels_dead_and_both_models_the_same() -> None:
    masked, plan, graph = case()
    best, _ = recover(masked, plan, graph, Images(), "bn", double)  # type: ignore[arg-type]
    for layer in graph.all_layers:  # type: ignore[attr-defined]
        name = layer.name
        assert (active_channels(best.get_submodule(name)) == active_channels(masked.get_submodule(name))).all()
    assert verify(best, compact(best, plan, graph), INPUT + 0.3).max_rel <= 1e-4  # type: ignore[arg-type]
    assert not best.training


def test_new_statistics_are_the_means_over_the_batches() -> None:
    model, images = Detector(), Images()
    inputs = [batch.images.float() / 255 for batch in images]
    conv = model.get_submodule("model.0.conv")
    with torch.no_grad():
        expected = torch.stack([conv(x).mean((0, 2, 3)) for x in inputs]).mean(0)
    momentum = model.get_submodule("model.0.bn").momentum
    restate(model, images)
    torch.testing.assert_close(model.get_submodule("model.0.bn").running_mean, expected)
    assert model.get_submodule("model.0.bn").momentum == momentum
