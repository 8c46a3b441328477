"""The last block fitted as a whole: nearer to what it returned than fits one by one can bring it, and nothing else."""

from __future__ import annotations

from copy import deepcopy

import pytest
import torch
from detectors import CLASSES, Images
from networks import Unit, randomise
from torch import nn

from seqprune import compact, mask, reconstruct, trace, verify
from seqprune.observe.batch import Batch
from seqprune.observe.forward import Forward
from seqprune.observe.patches import Sampler
from seqprune.observe.stages import producers_of, stages_of
from seqprune.observe.streaming import Blocks, BlockStream
from seqprune.plan import PrunePlan
from seqprune.reconstruct import Distance, anchors
from seqprune.refit import refit
from seqprune.surgery import active_channels

INPUT = torch.zeros(1, 3, 32, 32)
CHAIN = Blocks("model", ((-1,), (0,), (1,)), (False,) * 3)
HEAD = [f"model.2.{branch}.{at}" for branch in ("boxes", "kinds") for at in ("0.conv", "1.conv", "2")]


class Head(nn.Module):
    """Two branches, and beside what they return something else."""

    def __init__(self) -> None:
        super().__init__()
        self.boxes = nn.Sequential(Unit(8, 12, act=1), Unit(12, 12, act=1), nn.Conv2d(12, 4, 1))
        self.kinds = nn.Sequential(Unit(8, 10, act=1), Unit(10, 10, act=1), nn.Conv2d(10, CLASSES, 1))

    def forward(self, x: torch.Tensor) -> tuple[torch.Tensor, str]:
        return torch.cat([self.boxes(x), self.kinds(x)], 1), "and more"


class Model(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.model = nn.Sequential(Unit(3, 8, act=1), Unit(8, 8, act=1), Head())
        randomise(self, 0)
        self.eval()

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return self.model(x)[0]


def squares(found: torch.Tensor, wanted: torch.Tensor) -> torch.Tensor:
    return torch.stack([(found - wanted)[:, part].square().sum() for part in (slice(4), slice(4, None))])


SQUARES = Distance(lambda returned: returned[0], squares)
SUM = Distance(SQUARES.read, lambda *pair: squares(*pair).sum()[None])


def case(images: Images, keep: dict[str, range] | None = None) -> tuple[nn.Module, nn.Module, PrunePlan]:
    """A network, the same pruned and fitted convolution by convolution, and the plan."""
    model = Model()
    graph = trace(model, INPUT)
    chosen = {"model.2.boxes.0.conv": range(4), "model.2.kinds.0.conv": range(3)} if keep is None else keep
    plan = PrunePlan.from_keep(graph, chosen)
    masked = mask(model, plan, graph)
    refit(model, masked, graph, plan.removed_groups(graph), images, stages_of(model, INPUT))  # type: ignore[arg-type]
    return model, masked, plan


def fit(model: nn.Module, masked: nn.Module, images: Images, distance: Distance = SQUARES, **how: object) -> nn.Module:
    fitted = deepcopy(masked)
    inside = anchors(producers_of(model, INPUT), HEAD)
    reconstruct.reconstruct(model, fitted, "model.2", HEAD, inside, images, distance, **how)  # type: ignore[arg-type]
    return fitted


def apart(model: nn.Module, other: nn.Module, images: Images) -> torch.Tensor:
    with torch.no_grad():
        pairs = [(other(batch.images.float() / 255), model(batch.images.float() / 255)) for batch in images]
    return torch.stack([squares(*pair) for pair in pairs]).sum(0)


def test_outputs_come_nearer_on_images_that_were_not_seen_and_both_models_stay_the_same() -> None:
    images, others = Images(40), Images(seed=50)
    model, masked, plan = case(images)
    fitted = fit(model, masked, images)
    assert (apart(model, fitted, others) < 0.9 * apart(model, masked, others)).all()
    for layer in plan.layers:
        live = active_channels(fitted.get_submodule(layer.name))
        assert live.nonzero()[0].tolist() == list(layer.keep)
    assert verify(fitted, compact(fitted, plan), next(iter(others)).images.float() / 255).max_rel <= 1e-4


def test_a_hidden_channel_becomes_the_one_that_is_missed(monkeypatch: pytest.MonkeyPatch) -> None:
    """What is read is the channel that left: no fit of the reader brings it back, the filter beside it can learn it."""
    model = Model()
    with torch.no_grad():
        for branch in ("boxes", "kinds"):
            model.get_submodule(f"model.2.{branch}.1.conv").weight[:, 1:] = 0  # type: ignore[index]
    images, others = Images(), Images(seed=50)
    graph = trace(model, INPUT)
    plan = PrunePlan.from_keep(graph, {"model.2.kinds.0.conv": [1], "model.2.boxes.0.conv": [1]})
    masked = mask(model, plan, graph)
    refit(model, masked, graph, plan.removed_groups(graph), images, stages_of(model, INPUT))  # type: ignore[arg-type]
    monkeypatch.setattr(reconstruct, "EPOCHS", 60)
    monkeypatch.setattr(reconstruct, "RATE", 0.05)
    fitted = fit(model, masked, images)
    assert (apart(model, fitted, others) < 0.5 * apart(model, masked, others)).all()


def test_nothing_before_the_block_changes_and_nothing_is_left_behind() -> None:
    images = Images()
    model, masked, _ = case(images)
    for parameter in masked.parameters():
        parameter.requires_grad_(False)
    fitted = fit(model, masked, images)
    changed = {
        name
        for (name, before), after in zip(masked.state_dict().items(), fitted.state_dict().values(), strict=True)
        if not torch.equal(before, after)
    }
    convolutions = {f"{name}.weight" for name in HEAD}
    assert convolutions < changed
    assert all(name.startswith("model.2.") for name in changed)
    assert changed - convolutions == {
        *(f"model.2.{branch}.{at}" for branch in ("boxes", "kinds") for at in ("0.bn.bias", "1.bn.bias", "2.bias")),
    }
    assert all(p.grad is None and not p.requires_grad for p in fitted.parameters())


def test_a_block_that_is_as_it_was_stays_as_it_is() -> None:
    images = Images()
    model, masked, _ = case(images, keep={})
    fitted = fit(model, masked, images)
    assert all(
        torch.equal(a, b) for a, b in zip(model.state_dict().values(), fitted.state_dict().values(), strict=True)
    )


def test_a_branch_that_is_as_it_was_stays_as_it_is() -> None:
    images = Images()
    model, masked, _ = case(images, keep={"model.2.boxes.0.conv": range(4)})
    fitted = fit(model, masked, images)
    before, pruned, after = (each.state_dict() for each in (model, masked, fitted))
    assert all(torch.equal(value, after[name]) for name, value in before.items() if ".kinds." in name)
    assert not torch.equal(pruned["model.2.boxes.2.weight"], after["model.2.boxes.2.weight"])


def test_streams_and_whole_passes_end_at_the_same_weights_and_so_does_the_same_seed() -> None:
    images = Images()
    model, masked, _ = case(images)
    whole = fit(model, masked, images).state_dict()
    streamed = fit(model, masked, images, streams=(BlockStream(CHAIN), BlockStream(CHAIN))).state_dict()
    again = fit(model, masked, images).state_dict()
    other = fit(model, masked, images, sampler=Sampler(seed=1)).state_dict()
    for name, value in whole.items():
        torch.testing.assert_close(value, streamed[name])
        assert torch.equal(value, again[name])
    assert not torch.equal(whole["model.2.kinds.2.weight"], other["model.2.kinds.2.weight"])


def test_a_branch_that_drifted_by_next_to_nothing_stands_in_no_others_way() -> None:
    """Relative to what it was its error can only grow, by nothing that matters."""
    images, others = Images(), Images(seed=50)
    model, masked, _ = case(images, keep={"model.2.boxes.0.conv": range(4)})
    with torch.no_grad():
        for at in ("0.conv", "1.conv", "2"):
            masked.get_submodule(f"model.2.kinds.{at}").weight.mul_(1 + 1e-6)  # type: ignore[union-attr,operator]
    fitted = fit(model, masked, images, SUM)
    assert apart(model, fitted, others)[0] < 0.95 * apart(model, masked, others)[0]
    assert apart(model, fitted, others)[1] < 0.01 * apart(model, fitted, others)[0]


@pytest.mark.parametrize("rate", [100.0, float("nan")])
def test_a_descent_that_ends_nowhere_better_changes_nothing(monkeypatch: pytest.MonkeyPatch, rate: float) -> None:
    images = Images()
    model, masked, _ = case(images)
    monkeypatch.setattr(reconstruct, "RATE", rate)
    fitted = fit(model, masked, images).state_dict()
    assert all(torch.equal(value, fitted[name]) for name, value in masked.state_dict().items())


def test_mixed_precision_ends_in_front_of_the_block() -> None:
    images = Images()
    model, masked, _ = case(images)
    fitted = fit(model, masked, images, forward=Forward(amp=True))
    assert (apart(model, fitted, images) < apart(model, masked, images)).all()


def test_images_beyond_the_memory_are_left_out_evenly(monkeypatch: pytest.MonkeyPatch) -> None:
    images = Images(32, batch=8)  # two pieces a batch
    model, masked, _ = case(images)
    looked: list[int] = []

    def counting(found: torch.Tensor, wanted: torch.Tensor) -> torch.Tensor:
        looked.append(len(found))
        return squares(found, wanted)

    monkeypatch.setattr(reconstruct, "EPOCHS", 1)
    for room, pieces in ((2 << 30, 8), (1_500_000, 4)):
        monkeypatch.setattr(reconstruct, "BYTES", room)
        looked.clear()
        inside = anchors(producers_of(model, INPUT), HEAD)
        distance = Distance(SQUARES.read, counting)
        reconstruct.reconstruct(model, deepcopy(masked), "model.2", HEAD, inside, images, distance)  # type: ignore[arg-type]
        assert len(looked) == 3 * pieces  # how far it is, one epoch, and how far it is then


def test_held_to_what_they_were_are_the_last_convolutions_and_those_that_they_read() -> None:
    model = Model()
    producers = producers_of(model, INPUT)
    ends = [f"model.2.{branch}.{at}" for branch in ("boxes", "kinds") for at in ("1.conv", "2")]
    assert anchors(producers, HEAD) == ends
    assert anchors(producers, ["model.1.conv"]) == ["model.1.conv"]


def test_an_image_without_objects_is_looked_at() -> None:
    model, masked, _ = case(Images())
    none = torch.zeros(0, dtype=torch.int64)
    empty = [Batch(batch.images, none, none, torch.zeros(0, 4), batch.number) for batch in Images()]
    fitted = fit(model, masked, empty)  # type: ignore[arg-type]
    assert (apart(model, fitted, Images()) < apart(model, masked, Images())).all()
