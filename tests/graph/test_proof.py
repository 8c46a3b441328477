"""The proof: float64 decides where float32 cannot, and what a network runs elsewhere is compared as well."""

from __future__ import annotations

import random
from collections.abc import Callable, Iterator
from copy import deepcopy
from typing import Any

import numpy as np
import pytest
import torch
from torch import nn

from seqprune import verify
from seqprune.errors import ModelError, VerificationError
from seqprune.graph import proof

X = torch.rand(1, 3, 6, 6, generator=torch.Generator().manual_seed(0)) + 1
ZERO = torch.zeros((), dtype=torch.int64)
INF, NAN = float("inf"), float("nan")
FORWARD = ("as exported", "gradients on", "another size", "a larger size", "training step")


class Summing(nn.Module):
    """Adds three numbers in an order; with rounding, the order matters."""

    def __init__(self, order: tuple[int, int, int], factor: float = 1.0, dtype: torch.dtype = torch.float32) -> None:
        super().__init__()
        self.weight = nn.Parameter(torch.tensor([1e8, 1.0, -1e8], dtype=dtype))
        self.order, self.factor = order, factor
        self.reads = nn.Linear(6, 1, dtype=dtype)  # takes nothing of another precision

    def forward(self, x: torch.Tensor, at: torch.Tensor = ZERO) -> torch.Tensor:
        first, second, third = (self.weight[at] for at in self.order)
        return ((first + second) + third) * self.factor + 0 * self.reads(x).sum() + 0 * self.weight[at]


def test_float64_decides_where_float32_finds_a_difference() -> None:
    """RT-DETR keeps its best candidates: a near tie fell the other way, and a correct result was refused."""
    one, other = Summing((0, 1, 2)), Summing((0, 2, 1))
    assert (one(X).item(), other(X).item()) == (0.0, 1.0)
    found = verify(one, other, X)
    assert (found.max_rel, found.precision) == (0.0, "float64")
    assert one.weight.dtype == other.weight.dtype == torch.float32
    assert verify(one, one, X).precision == "float32"
    assert verify(one, other, (X, ZERO)).precision == "float64"  # numbers that index stay whole


def test_float64_refuses_what_float32_refused_for_a_reason() -> None:
    with pytest.raises(VerificationError, match=r"differs from the masked one by 1\.00e\+00 .* 1e-04 is allowed"):
        verify(Summing((0, 1, 2)), Summing((0, 2, 1), factor=1 + 1e-9), X)


def test_a_tolerance_that_is_given_is_kept() -> None:
    with pytest.raises(VerificationError, match="1e-02 is allowed"):
        verify(Summing((0, 1, 2)), Summing((0, 2, 1)), X, tolerance=1e-2)


def test_float64_has_no_second_chance() -> None:
    one, other = (Summing((0, 1, 2), factor, torch.float64) for factor in (1.0, 1 + 1e-9))
    with pytest.raises(VerificationError, match="1e-10 is allowed"):
        verify(one, other, X.double())
    assert verify(one, one, X.double()).precision == "float64"


@pytest.mark.parametrize(("kind", "limit"), [(torch.float16, 2e-2), (torch.bfloat16, 1e-1)])
def test_few_bits_have_a_tolerance_of_their_own(kind: torch.dtype, limit: float) -> None:
    one, near, far = (Bare(1 + share * limit).to(kind) for share in (0, 0.5, 1.5))
    x = torch.ones(1, 3, 6, 6, dtype=kind)
    assert verify(one, near, x).precision == str(kind).removeprefix("torch.")
    with pytest.raises(VerificationError, match=f"{limit:.0e} is allowed"):
        verify(one, far, x)


class Net(nn.Module):
    """Multiplies by two, and does what it is told in one place."""

    def __init__(self, **does: Any) -> None:
        super().__init__()
        self.layer = nn.Conv2d(3, 1, 1, bias=False)
        nn.init.constant_(self.layer.weight, 2.0)
        self.does = does

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        y = self.layer(x)
        for place, seen in {
            "gradients": torch.is_grad_enabled() and not self.training,
            "training": self.training,
            "small": x.shape[2] < 6,
            "large": x.shape[2] > 6,
            "several": len(x) > 2,
            "odd": x.shape[2] % 2 == 1,
        }.items():
            if seen and place in self.does:
                y = self.does[place](y)
        return y


class Fusing(Net):
    """Has a ``fuse`` of its own, which returns nothing, itself, or another network."""

    def fuse(self) -> Any:
        if "fails" in self.does:
            raise RuntimeError("two\nlines")
        if "other" in self.does:
            return Net()
        self.layer.weight.data *= self.does.get("factor", 1)
        return self if "itself" in self.does else None


class Quiet(Fusing):
    def fuse(self, verbose: bool = True) -> Any:  # type: ignore[override]
        assert not verbose
        return super().fuse()


class Bare(nn.Module):
    fuse = True  # no function

    def __init__(self, weight: float = 1.0) -> None:
        super().__init__()
        self.weight = nn.Parameter(torch.full((1,), weight))

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return x * self.weight


@pytest.mark.parametrize(
    ("one", "other"),
    [
        (Fusing(), Fusing()),
        (Fusing(itself=1), Fusing(itself=1)),
        (Fusing(other=1), Fusing(other=1)),
        (Fusing(factor=3), Fusing(factor=3)),
        (Quiet(), Quiet()),
    ],
)
def test_what_is_fused_is_compared(one: nn.Module, other: nn.Module) -> None:
    assert verify(one, other, X).tried == ("fused", *FORWARD)
    assert float(one.layer.weight.detach().mean()) == 2.0


def test_what_has_no_fuse_is_not_fused() -> None:
    assert verify(Net(), Net(), X).tried == FORWARD
    assert verify(Bare(), Bare(), X).tried == FORWARD


def test_what_the_masked_network_cannot_do_is_left_out() -> None:
    assert verify(Fusing(fails=1), Fusing(fails=1), X).tried == FORWARD

    def fail(y: torch.Tensor) -> torch.Tensor:
        raise ValueError("not here")

    for place, left in (("gradients", "gradients on"), ("training", "training step")):
        net = Net(**{place: fail})
        assert verify(net, net, X).tried == tuple(name for name in FORWARD if name != left)
    assert verify(net := Net(small=fail), net, X).tried == FORWARD  # another number at this size does
    net = Net(small=fail, large=fail)
    assert verify(net, net, X).tried == tuple(name for name in FORWARD if name != "a larger size")
    net = Net(small=fail, large=fail, several=fail)
    assert verify(net, net, X).tried == ("as exported", "gradients on", "training step")


def test_the_training_step_is_one_of_the_smallest_inputs_that_were_tried() -> None:
    seen: list[tuple[int, ...]] = []

    def see(y: torch.Tensor) -> torch.Tensor:
        seen.append(tuple(y.shape))
        return y

    verify(Net(training=see), Net(), X)
    assert seen == [(3, 1, 3, 3)]


def double(y: torch.Tensor) -> torch.Tensor:
    return 2 * y


def fail(y: torch.Tensor) -> torch.Tensor:
    raise KeyError("two\nlines")


@pytest.mark.parametrize(
    ("one", "other", "message"),
    [
        (Fusing(), Fusing(factor=3), r"fused: the compact model differs"),
        (Fusing(), Fusing(fails=1), r"fused: the compact model cannot be brought into this form \(RuntimeError: two\)"),
        (Net(), Net(gradients=double), r"gradients on: the compact model differs"),
        (Net(), Net(gradients=fail), r"gradients on: the compact model does not run"),
        (Net(), Net(small=double), r"another size: the compact model differs"),
        (Net(), Net(small=lambda y: y[:, :, 1:]), r"another size: the compact model returns tensors of other shapes"),
        (Net(), Net(training=fail), r"a training step fails in the compact model \(KeyError: .two"),
        (Net(), Net(training=lambda y: y.detach()), r"a training step fails in the compact model"),
    ],
)
def test_what_differs_elsewhere_is_refused(one: nn.Module, other: nn.Module, message: str) -> None:
    with pytest.raises(VerificationError, match=f"^{message}") as caught:
        verify(one, other, X)
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize("small", [fail, lambda y: y])
def test_a_larger_image_is_tried_whether_a_smaller_one_runs_or_not(small: Callable[[Any], Any]) -> None:
    with pytest.raises(VerificationError, match=r"^a larger size: the compact model differs"):
        verify(Net(small=small), Net(small=small, large=double), X)


def test_a_border_that_is_added_to_odd_sizes_alone_is_tried() -> None:
    """As attention in windows adds it: only the size of the example was compared, and even ones."""
    with pytest.raises(VerificationError, match=r"^a larger size: the compact model differs"):
        verify(Net(), Net(odd=double), torch.ones(1, 3, 12, 12))


class Fixed(nn.Module):
    """For images of one size: of a larger one it makes several rows, nothing, or what is no number."""

    def __init__(self, otherwise: Callable[[torch.Tensor], Any], width: int = 4) -> None:
        super().__init__()
        self.first, self.last = nn.Conv2d(3, width, 1), nn.Linear(width * 36, 2)
        self.otherwise = otherwise

    def forward(self, x: torch.Tensor) -> Any:
        maps = self.first(x)
        if maps[0].numel() != self.last.in_features:
            return self.otherwise(maps)
        return self.last(maps.flatten(1))


@pytest.mark.parametrize(
    "otherwise",
    [lambda maps: maps.flatten(2).repeat(len(maps.flatten()), 1, 1), lambda maps: None, lambda maps: maps / 0],
    ids=["rows", "nothing", "no number"],
)
def test_what_the_masked_network_makes_of_other_sizes_has_to_mean_something(otherwise: Callable[..., Any]) -> None:
    net = Fixed(otherwise)
    mine = Fixed(lambda maps: maps[:, :, 0])
    mine.load_state_dict(net.state_dict())
    assert "a larger size" not in verify(net, mine, X).tried
    with pytest.raises(VerificationError, match=r"^another size"):
        verify(Fixed(lambda maps: maps), mine, X, tolerance=1e9)


def test_inputs_without_images_have_another_number() -> None:
    assert verify(nn.Linear(3, 2), nn.Linear(3, 2), torch.zeros(2, 3), tolerance=10).tried == (
        "as exported",
        "gradients on",
        "another size",
        "another batch",
        "training step",
    )


def test_a_larger_size_is_not_many_times_as_large_and_of_two_images() -> None:
    """Attention over all of a map of 8 pixels was asked with 41 and 73 of them, 2,000 times as much, for each image."""
    seen = set()

    class Takes(nn.Conv2d):
        def forward(self, x: torch.Tensor) -> torch.Tensor:
            seen.add(x.shape)
            return super().forward(x)

    for side, larger in ((8, (17, 25)), (20, (37, 53)), (640, (673, 705))):
        net = Takes(3, 1, 1)
        seen.clear()
        verify(net, net, torch.rand(5, 3, side, side))
        assert {shape for shape in seen if shape[2] > side} == {(2, 3, *larger)}


def test_images_in_dictionaries_are_made_smaller_and_masks_of_numbers_stay() -> None:
    seen = []

    class Takes(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.layer = nn.Conv2d(3, 1, 1)

        def forward(self, given: dict[str, torch.Tensor], ids: torch.Tensor) -> torch.Tensor:
            seen.append((given["image"].shape[2:], ids.shape[1:]))
            assert len(given["image"]) == len(ids)
            return self.layer(given["image"])

    net = Takes()
    verify(net, net, ({"image": X}, torch.zeros(1, 1, 6, 6, dtype=torch.int64)))
    assert {shape for _, shape in seen} == {torch.Size([1, 6, 6])}
    assert {shape for shape, _ in seen} == {torch.Size([6, 6]), torch.Size([3, 3]), torch.Size([11, 15])}


@pytest.fixture
def forms() -> Iterator[None]:
    before = dict(proof.FORMS)
    yield
    proof.FORMS.clear()
    proof.FORMS.update(before)


@pytest.mark.usefixtures("forms")
def test_a_form_that_others_state() -> None:
    """As an exporter, which puts another ``forward`` in the place of a module's own."""

    def exported(model: nn.Module) -> nn.Module | None:
        if not isinstance(model, Net):
            return None
        factor = model.does.get("exported", 1)
        model.forward = lambda x: type(model).forward(model, x) * factor  # type: ignore[method-assign]
        return model

    proof.register_form("exported", exported)
    assert verify(Net(), Net(), X).tried == ("exported", *FORWARD)
    assert verify(Bare(), Bare(), X).tried == FORWARD
    with pytest.raises(VerificationError, match=r"^exported: the compact model differs"):
        verify(Net(), Net(exported=2), X)


@pytest.mark.usefixtures("forms")
def test_a_form_that_the_masked_network_does_not_take_leaves_the_others() -> None:
    def fails(model: nn.Module) -> nn.Module | None:
        raise RuntimeError

    proof.FORMS.clear()
    proof.register_form("fails", fails)
    proof.register_form("none", lambda model: None)
    proof.register_form("same", lambda model: model)
    assert verify(Net(), Net(), X).tried == ("same", *FORWARD[-len(FORWARD) :])


def test_how_far_two_outputs_are_apart() -> None:
    """In all, and tensor by tensor of its largest value; where that is zero, as it is."""
    one, other = torch.tensor([3.0, -8.0]), torch.tensor([3.0, -6.0])
    assert proof._difference([one], [other]) == proof.Difference(2.0, 0.25)
    assert proof._difference([one, torch.zeros(2)], [one, torch.full((2,), -0.5)]) == proof.Difference(0.5, 0.5)
    found = proof._difference([100 * one, one, torch.empty(0)], [100 * one + 4, one + 1, torch.empty(0)])
    assert found == proof.Difference(4.0, 0.125)


@pytest.mark.parametrize(
    "values", [(INF, 1.0), (1.0, INF), (INF, INF), (-INF, 1.0), (NAN, 1.0), (1.0, NAN), (INF, -INF)]
)
@pytest.mark.parametrize("later", [0.0, 0.5])
def test_what_is_not_finite_is_within_no_tolerance(values: tuple[float, float], later: float) -> None:
    """Infinite in the masked network alone, infinitely far of infinitely large was no number, and passed for zero."""
    one, other = ([torch.tensor([value, 2.0]), torch.tensor([1.0, 2.0])] for value in values)
    found = proof._difference(one, [other[0], other[1] + later])
    assert not found.max_rel <= 1e9
    assert not found.max_abs <= 1e9

    class Gives(nn.Module):
        def __init__(self, value: float) -> None:
            super().__init__()
            self.value = value

        def forward(self, x: torch.Tensor) -> torch.Tensor:
            return x + self.value

    with pytest.raises(VerificationError, match="differs from the masked one"):
        verify(*map(Gives, values), X)


def test_what_the_masked_network_returns_is_refused_as_it_is() -> None:
    class Yields(nn.Module):
        def forward(self, x: torch.Tensor) -> Iterator[torch.Tensor]:
            return iter([x])

    with pytest.raises(ModelError, match=r"^the network returns a list_iterator"):
        verify(Yields(), Yields(), X)


def test_random_numbers_and_modes_are_left_as_they_were() -> None:
    net = nn.Sequential(nn.Conv2d(3, 2, 1), nn.BatchNorm2d(2), nn.Dropout(0.5)).train()
    net[1].eval()
    torch.manual_seed(3)
    wanted = torch.rand(3)
    torch.manual_seed(3)
    statistics = net[1].running_mean.clone()
    verify(net, net, X)
    assert torch.equal(torch.rand(3), wanted)
    assert [m.training for m in net.modules()] == [True, True, False, True]
    assert torch.equal(net[1].running_mean, statistics)
    assert all(p.grad is None for p in net.parameters())


def test_networks_that_keep_what_they_computed_are_left_as_they_were() -> None:
    """After the proof ``deepcopy`` failed: the network held an activation with its gradient's history."""

    class Keeps(Net):
        def forward(self, x: torch.Tensor) -> torch.Tensor:
            self.kept = super().forward(x)
            return self.kept

    net = Keeps()
    assert verify(net, net, X).tried == FORWARD
    assert not hasattr(net, "kept")
    deepcopy(net)


class Windowed(nn.Module):
    """Sets its windows by the least size that it has seen, as Swin does, and the greatest batch."""

    def __init__(self) -> None:
        super().__init__()
        self.conv, self.window = nn.Conv2d(3, 2, 1), 6
        self.register_buffer("most", torch.ones(()))

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        self.window = min(self.window, *x.shape[2:])
        self.most = torch.clamp(self.most, min=len(x))
        return nn.functional.max_pool2d(self.conv(x), self.window, 1) * self.most


def test_networks_that_remember_sizes_are_left_as_they_were() -> None:
    """After a proof on half of the size they computed something else at their own."""
    one, other = Windowed(), Windowed()
    other.load_state_dict(one.state_dict())
    before = one(X)
    assert "another size" in verify(one, other, X).tried
    for model in (one, other):
        assert (model.window, model.most.item()) == (6, 1)
        assert torch.equal(model(X), before)


def test_frozen_networks_are_trained_too() -> None:
    net = Net().requires_grad_(False)
    assert verify(net, net, X).tried == FORWARD
    assert not net.layer.weight.requires_grad


@pytest.mark.parametrize("returns", [lambda y: None, lambda y: y.argmax()])
def test_nothing_to_compare(returns: Callable[[torch.Tensor], Any]) -> None:
    class Returns(Net):
        def forward(self, x: torch.Tensor) -> Any:
            return returns(self.layer(x))

    with pytest.raises(VerificationError, match="returns no floating-point tensor"):
        verify(Returns(), Returns(), X)


def test_an_input_that_the_masked_network_does_not_take() -> None:
    with pytest.raises(ModelError, match=r"^the masked model does not run on the example inputs \(RuntimeError: "):
        verify(Net(), Net(), torch.rand(1, 5, 2, 2))


def test_the_greatest_difference_of_all_outputs_counts() -> None:
    class Many(Net):
        def forward(self, x: torch.Tensor) -> Any:
            y = self.layer(x)
            return {"first": y[:0], "second": [y + self.does.get("late", 0)], "last": (0 * y, y)}

    found = verify(Many(), Many(late=1e-3), X, tolerance=1.0)
    assert found.max_abs == pytest.approx(1e-3, rel=1e-2)
    assert found.max_rel == pytest.approx(1e-3 / float(Many()(X)["second"][0].detach().abs().max()), rel=1e-2)
    off = verify(Summing((0, 2, 1), 0.0), Summing((0, 2, 1), 0.5), X, tolerance=1.0)
    assert (off.max_abs, off.max_rel) == (0.5, 0.5)  # over nothing there is no share


def test_no_difference_is_within_no_tolerance() -> None:
    """As pairs of files are compared, which come back to the bit."""
    model = nn.Conv2d(3, 2, 1)
    assert verify(model, model, torch.rand(1, 3, 4, 4), tolerance=0.0).max_rel == 0


@pytest.mark.parametrize("changed", ["often", "seldom"])
@pytest.mark.parametrize("draw", [random.random, np.random.random, lambda: torch.rand(()).item()])
def test_what_a_network_runs_by_chance_is_run(changed: str, draw: Callable[[], float]) -> None:
    """What both drew was the same, so the layer that was not drawn was never compared."""

    class Chance(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.often, self.seldom = nn.Conv2d(3, 2, 1), nn.Conv2d(3, 2, 1)

        def forward(self, x: torch.Tensor) -> torch.Tensor:
            found: torch.Tensor = (self.often if draw() < 0.7 else self.seldom)(x)
            return found

    model = Chance()
    assert "other random numbers" in verify(model, deepcopy(model), X).tried
    other = deepcopy(model)
    other.get_submodule(changed).bias.data += 0.1
    with pytest.raises(VerificationError, match="differs from the masked one"):
        verify(model, other, X)


def test_how_much_one_of_several_draws_takes_is_no_matter_to_the_next() -> None:
    """Noise for each channel, say, of which a compact network has fewer."""

    class Chance(nn.Module):
        def __init__(self, more: int) -> None:
            super().__init__()
            self.one, self.two, self.more = nn.Conv2d(3, 2, 1), nn.Conv2d(3, 2, 1), more

        def forward(self, x: torch.Tensor) -> torch.Tensor:
            found: torch.Tensor = (self.one if torch.rand(()) < 0.5 else self.two)(x)
            torch.rand(self.more)
            return found

    model, other = Chance(1), Chance(2)
    other.load_state_dict(model.state_dict())
    assert "other random numbers" in verify(model, other, X).tried


def test_what_a_proof_draws_is_its_own() -> None:
    """Whatever the caller drew before; and of inputs of another size something else."""
    seen: list[tuple[int, float]] = []

    class Draws(Net):
        def forward(self, x: torch.Tensor) -> torch.Tensor:
            if not self.training:
                seen.append((x.shape[2], torch.rand(()).item()))
            return super().forward(x)

    runs = []
    for seed in range(2):
        torch.manual_seed(seed)
        seen.clear()
        verify(Draws(), Draws(), X)
        runs.append([*seen])
    assert runs[0] == runs[1]
    sizes = sorted(size for size, _ in set(seen))
    assert sizes.count(3) == 1
    assert len({drawn for _, drawn in seen}) == len(sizes)


def test_networks_that_draw_at_random_draw_the_same() -> None:
    """A variational autoencoder samples in inference: whatever was removed, it differed from itself."""

    class Samples(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.reads = nn.Conv2d(3, 2, 1)

        def forward(self, x: torch.Tensor) -> torch.Tensor:
            y: torch.Tensor = self.reads(x)
            return y + torch.randn_like(y)

    model = Samples()
    state = torch.get_rng_state()
    found = verify(model, deepcopy(model), X)
    assert found.max_rel == 0
    assert "other random numbers" in found.tried
    assert torch.equal(torch.get_rng_state(), state)
    other = deepcopy(model)
    other.reads.bias.data += 0.1
    with pytest.raises(VerificationError, match="differs from the masked one"):
        verify(model, other, X)


def test_only_a_difference_that_is_no_number_is_put_down_to_the_weights() -> None:
    model, other = nn.Conv2d(3, 2, 1), nn.Conv2d(3, 2, 1)
    with pytest.raises(VerificationError, match=r"is allowed: its code may compute with a number of channels"):
        verify(model, other, X)
    other.bias.data[0] = torch.nan
    with pytest.raises(VerificationError, match=r"by nan .* hold values that are not finite$"):
        verify(model, other, X)
