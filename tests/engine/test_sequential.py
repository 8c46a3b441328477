"""The loop: front to back, active channels tracked, skips said and survived."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from detectors import CLASSES, Detector, Images, find_all

from seqprune import PrunePlan, compact, count_active_channels, trace, verify
from seqprune.engine.sequential import front_to_back, prune_sequentially
from seqprune.engine.steps import Settings, StepReport
from seqprune.errors import InputError, PlanError, VerificationError
from seqprune.graph import ChannelGraph

ALL = ["model.4.cv1.conv", "model.1.conv", "model.3.conv", "model.2.m.1.0.conv", "model.2.cv1.conv", "model.2.cv2.conv"]
RATIO = Settings(keep=0.5, match="all")


@pytest.fixture(scope="module")
def graph() -> ChannelGraph:
    return trace(Detector(), torch.zeros(1, 3, 32, 32))


def run(
    graph: ChannelGraph, layers: list[str], settings: Settings = RATIO, **kwargs: object
) -> tuple[PrunePlan, Detector, list[StepReport]]:
    return prune_sequentially(Detector(), graph, layers, Images(), CLASSES, settings=settings, **kwargs)  # type: ignore


@pytest.mark.parametrize("settings", [RATIO, Settings(match="all"), Settings(keep=0.5, match="all", round_to=8)])
def test_layers_are_pruned_front_to_back_whatever_order_they_are_given_in(
    graph: ChannelGraph, settings: Settings
) -> None:
    plan, masked, steps = run(graph, ALL, settings)
    assert [s.layer for s in steps] == sorted(ALL, key=graph.order.__getitem__)
    assert all(s.status == "pruned" or "no knee" in s.reason for s in steps)
    assert sum(s.removed > 0 for s in steps) >= 3
    again, _, _ = run(graph, sorted(ALL), settings)
    assert again == plan
    verify(masked, compact(masked, plan, graph), torch.rand(2, 3, 64, 32))


def test_reports_count_active_channels(graph: ChannelGraph) -> None:
    plan, masked, steps = run(graph, ALL)
    for step in steps:
        stay = count_active_channels(masked.get_submodule(step.layer))
        assert step.active_after == stay == len(plan.keep[step.layer])
        assert step.active_before - step.active_after == step.removed > 0
        assert step.objects == 72
        assert step.classes == (0, 1, 2)
    assert [s.block for s in steps] == [1, 2, 2, 2, 3, 4]


def test_a_residual_group_is_decided_together_and_said(graph: ChannelGraph) -> None:
    _, _, steps = run(graph, ["model.2.m.0.1.conv", "model.2.cv1.conv"])
    first, second = steps
    assert first.members == ("model.2.cv1.conv", "model.2.m.0.1.conv", "model.2.m.1.1.conv")
    assert first.active_after == 8  # of 16: four of each half
    assert second.reason == "decided together with model.2.cv1.conv"
    assert second.active_after == 4
    assert second.status == "pruned"


def test_counts_are_rounded_up(graph: ChannelGraph) -> None:
    plan, _, _ = run(graph, ["model.3.conv", "model.2.cv1.conv"], Settings(keep=0.4, match="all", round_to=8))
    assert len(plan.keep["model.3.conv"]) == 16
    assert "model.2.cv1.conv" not in plan.keep  # halves of 8 round up to 8


def test_a_step_that_cannot_be_decided_is_skipped_and_the_run_goes_on(graph: ChannelGraph) -> None:
    """The predecessor caught everything and went on with another algorithm; here only the layer is left alone."""

    def blind(model: torch.nn.Module, images: torch.Tensor) -> list[torch.Tensor]:
        return [torch.zeros(0, 6)] * len(images)

    plan, _, steps = run(graph, ["model.1.conv", "model.3.conv"], Settings(keep=0.5), predict=blind)
    assert [s.status for s in steps] == ["skipped", "skipped"]
    assert all("no labelled object was matched" in s.reason for s in steps)
    assert plan.layers == ()


def test_matching_again_after_every_step_sees_the_pruned_model(graph: ChannelGraph) -> None:
    """``each`` is the predecessor's way and starves later layers; ``once`` is not affected by what was pruned."""

    def loses_sight(model: torch.nn.Module, images: torch.Tensor) -> list[torch.Tensor]:
        pruned = count_active_channels(model.get_submodule("model.1.conv")) < 16
        return [torch.zeros(0, 6)] * len(images) if pruned else find_all(model, images)

    layers = ["model.1.conv", "model.3.conv"]
    _, _, once = run(graph, layers, Settings(keep=0.5, match="once"), predict=loses_sight)
    _, _, each = run(graph, layers, Settings(keep=0.5, match="each"), predict=loses_sight)
    assert [s.status for s in once] == ["pruned", "pruned"]
    assert [s.status for s in each] == ["pruned", "skipped"]


def test_only_seqprune_errors_are_handled(graph: ChannelGraph) -> None:
    def broken(model: torch.nn.Module, images: torch.Tensor) -> list[torch.Tensor]:
        raise ZeroDivisionError("a bug")

    with pytest.raises(ZeroDivisionError):
        run(graph, ["model.1.conv"], Settings(match="each"), predict=broken)


def test_channels_that_wake_up_between_steps_are_an_error(graph: ChannelGraph) -> None:
    """Fine-tuning without the mask woke the predecessor's channels; the next step would run on other counts."""

    def careless(model: torch.nn.Module, plan: PrunePlan) -> torch.nn.Module:
        with torch.no_grad():
            model.get_submodule("model.1.conv").weight.add_(0.01)
        return model

    with pytest.raises(VerificationError, match=r"model\.1\.conv has 16 active channels, the plan leaves 8"):
        run(graph, ["model.1.conv", "model.3.conv"], after_step=careless)


def test_nan_activations_skip_the_layer(graph: ChannelGraph) -> None:
    model = Detector()
    with torch.no_grad():
        model.get_submodule("model.2.cv2.bn").bias[5] = float("nan")
    _, _, steps = prune_sequentially(model, graph, ["model.1.conv", "model.3.conv"], Images(), CLASSES, settings=RATIO)
    assert [s.status for s in steps] == ["pruned", "skipped"]
    assert "24 of 24 channels have activations that are not finite" in steps[1].reason


@pytest.mark.parametrize("represent", ["weight", "medoid", "gamma"])
def test_representatives(graph: ChannelGraph, represent: str) -> None:
    plan, _, _ = run(graph, ["model.3.conv"], Settings(keep=0.5, match="all", represent=represent))  # type: ignore
    assert len(plan.keep["model.3.conv"]) == 12


def test_equal_seeds_make_equal_plans(graph: ChannelGraph) -> None:
    settings = Settings(match="all", seed=5)
    assert run(graph, ALL, settings)[0] == run(graph, ALL, settings)[0]


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"keep": 0.0}, "outside (0, 1]"),
        ({"keep": 1.5}, "outside (0, 1]"),
        ({"keep": float("nan")}, "outside (0, 1]"),
        ({"round_to": 0}, "multiples of 0"),
    ],
)
def test_impossible_settings(settings: dict[str, float], message: str) -> None:
    with pytest.raises(InputError) as error:
        Settings(**settings)  # type: ignore[arg-type]
    assert message in str(error.value)


def test_unknown_layers_are_named_with_what_was_meant(graph: ChannelGraph) -> None:
    with pytest.raises(PlanError, match=r"no layer model.3.cnv; did you mean model.3.conv"):
        front_to_back(graph, ["model.3.cnv"])
    with pytest.raises(PlanError, match="cannot be pruned: network output"):
        front_to_back(graph, ["model.5.0"])


def test_a_detector_without_predictions_needs_match_all(graph: ChannelGraph) -> None:
    with pytest.raises(InputError, match="match=once needs"):
        run(graph, ["model.1.conv"], Settings())


def test_pruning_leaves_other_layers_alone(graph: ChannelGraph) -> None:
    _, masked, _ = run(graph, ["model.3.conv"])
    before = Detector().state_dict()
    changed = {n for n, t in masked.state_dict().items() if not torch.equal(t, before[n])}
    assert changed == {
        f"model.3.{n}" for n in ("conv.weight", "bn.weight", "bn.bias", "bn.running_mean", "bn.running_var")
    }


def test_all_keep_sets_of_a_small_network_are_exact() -> None:
    """Exhaustive: every keep set of a residual pair behind a split."""
    from itertools import combinations

    from seqprune import mask
    from seqprune.testing.networks import Network, SplitBlock, Unit, example, randomise

    net = Network()
    net.add("module", (0,), (3,), Unit(3, 3))
    net.add("module", (1,), (2,), SplitBlock(3, 2, 2, 1, shortcut=True))
    net.finish()
    randomise(net, 0)
    net = net.double().eval()
    graph = trace(net, example())
    free = np.flatnonzero(~graph.pinned)
    tried = 0
    for size in range(len(free) + 1):
        for chosen in combinations(free.tolist(), size):
            removed = np.zeros(graph.group_count, bool)
            removed[list(chosen)] = True
            try:
                plan = PrunePlan.from_removed(graph, removed)
            except PlanError:
                continue
            verify(mask(net, plan, graph), compact(net, plan, graph), example())
            tried += 1
    assert tried == 7 * 5 * 3 * 3  # keep sets of 3, of two equal halves of 2, of 2 and of 2 channels


def test_a_channel_that_was_dead_may_come_alive(graph: ChannelGraph) -> None:
    model = Detector()
    with torch.no_grad():
        model.get_submodule("model.3.conv").weight[0] = 0

    def train(model: torch.nn.Module, _plan: PrunePlan) -> torch.nn.Module:
        with torch.no_grad():
            model.get_submodule("model.3.conv").weight[0] = 0.1
        return model

    plan, *_ = prune_sequentially(
        model,
        graph,
        ["model.1.conv", "model.5.0"][:1],
        Images(),
        CLASSES,
        settings=Settings(match="all", keep=0.5),
        after_step=train,
    )
    assert plan.layers
