"""Channels that are constant once removed: the bias of their reader takes the constant, or they stay."""

from __future__ import annotations

from collections.abc import Callable
from types import MethodType
from typing import Any

import numpy as np
import pytest
import torch
from torch import nn
from torch.nn import functional as F  # noqa: N812 - its usual name

from seqprune import PrunePlan, compact, mask, trace, verify
from seqprune.graph import ChannelGraph
from seqprune.graph.constants import Constants
from seqprune.graph.values import Value
from seqprune.testing.networks import random_plan, randomise

X = torch.randn(2, 3, 6, 6, dtype=torch.float64, generator=torch.Generator().manual_seed(1))
WIDTH = 6
Code = Callable[[Any, torch.Tensor], torch.Tensor]


class Net(nn.Module):
    """A convolution, code, and a reader."""

    def __init__(self, code: Code, last: nn.Module | None = None) -> None:
        super().__init__()
        self.first, self.last = nn.Conv2d(3, WIDTH, 3, padding=1), last or nn.Conv2d(WIDTH, 2, 1)
        self.shift, self.slope = nn.Parameter(torch.rand(1) + 0.5), nn.Parameter(torch.rand(WIDTH, 1, 1) + 0.5)
        self.register_buffer("offset", torch.tensor(0.25))
        self.rows = nn.Parameter(torch.rand(1, 1, 6, 6))
        self.deep = nn.Conv2d(WIDTH, WIDTH, 3, padding=1, groups=WIDTH)
        self.norm = nn.BatchNorm2d(WIDTH)
        self.code = code
        randomise(self, 0)
        self.double().eval()

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return self.last(self.code(self, self.first(x)))


def exact(model: nn.Module) -> ChannelGraph:
    graph = trace(model, X)
    for seed in range(3):
        plan = random_plan(graph, seed)
        masked, small = mask(model, plan, graph), compact(model, plan, graph)
        verify(masked, small, X)
        verify(small, compact(masked, plan, graph), X)
        torch.testing.assert_close(masked.train()(X), small.train()(X), rtol=1e-8, atol=1e-8)
        again = trace(small.eval(), X)
        verify(mask(small, p := random_plan(again, seed), again), compact(small, p, again), X)
    return graph


FOLDED: dict[str, Code] = {
    "a number": lambda m, x: F.relu(x) + 0.5,
    "a number before it": lambda m, x: 1 - x,
    "a parameter": lambda m, x: F.relu(x) + m.shift,
    "a parameter's view": lambda m, x: F.relu(x) + m.shift.view(1, -1, 1, 1),
    "a buffer": lambda m, x: x - m.offset,
    "sigmoid": lambda m, x: torch.sigmoid(x),
    "hard sigmoid": lambda m, x: F.hardsigmoid(x),
    "softplus": lambda m, x: F.softplus(x, beta=2.0),
    "exponential": lambda m, x: x.exp(),
    "limits above zero": lambda m, x: x.clamp(1, 2),
    "limits around zero": lambda m, x: x.sigmoid().clamp(-1, 2),
    "an upper limit below zero": lambda m, x: x.clamp(max=-0.1),
    "power": lambda m, x: (x.sigmoid() + 1) ** -2,
    "one after the other": lambda m, x: torch.tanh(3 * F.relu(x + 1) / 2 - 0.25).abs(),
    "scaled by channel": lambda m, x: (x + 1) * m.slope,
    "both joined": lambda m, x: x.sigmoid() + x.cos(),
    "gated by another": lambda m, x: (x + 2) * (x.sigmoid() + 1),
    "zero and constant": lambda m, x: x + x.sigmoid(),
    "the greatest of a few": lambda m, x: F.max_pool2d(x.sigmoid(), 3, 1, 1),
    "the mean of all": lambda m, x: F.adaptive_avg_pool2d(x.sigmoid(), 1),
    "the mean by dimensions": lambda m, x: x.sigmoid().mean((2, 3), keepdim=True) + x.exp().amax((2, 3), keepdim=True),
    "larger": lambda m, x: F.interpolate(x.sigmoid(), scale_factor=2.0, mode="bicubic"),
    "reflected border": lambda m, x: F.pad(x.sigmoid(), (1, 1, 1, 1), mode="reflect"),
}


@pytest.mark.parametrize("name", FOLDED)
def test_the_bias_of_the_reader_takes_the_constant(name: str) -> None:
    """``x + 0.5`` pinned every channel before it: "not zero once removed"."""
    graph = exact(Net(FOLDED[name]))
    assert graph.by_name["first"].free.all(), graph.by_name["first"].reason
    assert graph.folds == ("last",)


@pytest.mark.parametrize(
    "like",
    [
        *(torch.ones_like, lambda x: torch.full_like(x, 0.5), lambda x: (x.relu() + 0.5).rsqrt()),
        *(lambda x: (x.relu() >= 0).double(), lambda x: (x.relu() <= 0).double()),
        *(lambda x: x.isfinite().double(), lambda x: x.logical_not().double()),
        *(lambda x: (x.relu() + 0.5).log(), lambda x: (x.relu() + 0.5).reciprocal()),
    ],
)
def test_the_bias_of_the_reader_takes_numbers_in_the_shape_of_channels(like: Callable[..., torch.Tensor]) -> None:
    graph = exact(Net(lambda m, x: like(x)))
    assert graph.by_name["first"].free.all()
    assert graph.folds == ("last",)


@pytest.mark.parametrize("name", FOLDED)
def test_what_is_made_of_channels_that_are_not_one_number_is_not_one_either(name: str) -> None:
    """A border of zeros around the constant of a sigmoid, say: no bias is that."""
    layer = trace(Net(lambda m, x: FOLDED[name](m, F.pad(x.sigmoid(), (1, 1)))), X).by_name["first"]
    assert not layer.free.any()
    assert "not zero once removed" in layer.reason


READERS: dict[str, nn.Module] = {
    "three by three without a border": nn.Conv2d(WIDTH, 2, 3),
    "three by three": nn.Conv2d(WIDTH, 2, 3, padding="valid", stride=2),
    "a border of its own": nn.Conv2d(WIDTH, 2, 3, padding=1, padding_mode="reflect"),
}


@pytest.mark.parametrize("name", READERS)
def test_readers_that_take_a_constant(name: str) -> None:
    assert exact(Net(FOLDED["sigmoid"], READERS[name])).by_name["first"].free.all()


@pytest.mark.parametrize("kind", [nn.Conv2d, nn.Linear])
def test_a_reader_without_a_bias_is_given_one(kind: type) -> None:
    """As behind a ReLU that is scaled and shifted (HGNetV2, CAFormer), whose channels all had to stay."""
    linear = kind is nn.Linear
    first, last = (
        (kind(3, 6, bias=False), kind(6, 4, bias=False))
        if linear
        else (nn.Conv2d(3, 6, 1, bias=False), nn.Conv2d(6, 4, 1, bias=False))
    )
    norm = nn.Identity() if linear else nn.BatchNorm2d(4)
    net = nn.Sequential(first, nn.Sigmoid(), last, norm, nn.ReLU(), kind(4, 2) if linear else nn.Conv2d(4, 2, 1))
    randomise(net, 0)
    last.weight.requires_grad_(False)
    net.double().eval()
    x = X.flatten(2).transpose(1, 2) if linear else X
    graph = trace(net, x)
    assert graph.by_name["0"].free.all()
    assert graph.folds == ("2",)
    for keep in ({"0": [0, 2]}, {"2": [1, 3]}, {"0": [1, 2, 5], "2": [0]}):
        plan = PrunePlan.from_keep(graph, keep)
        small: Any = compact(net, plan, graph)
        verify(mask(net, plan, graph), small, x)
        assert (small[2].bias is not None) == ("0" in keep)
        if small[2].bias is not None:
            assert (small[2].bias.shape, small[2].bias.requires_grad) == ((len(keep.get("2", range(4))),), False)
            compact(net, plan, graph).load_state_dict(small.state_dict())
    assert last.bias is None


def scaled(x: torch.Tensor) -> torch.Tensor:
    return (x - x.mean((1, 2, 3), keepdim=True)) / x.std((1, 2, 3), keepdim=True)


def test_constants_are_found_where_zeros_make_no_number() -> None:
    """A network that scales its images made a bias that is no number."""
    net = Net(lambda m, x: x.sigmoid())
    net.register_forward_pre_hook(lambda _m, given: (scaled(given[0]),))
    assert exact(net).by_name["first"].free.all()


def test_a_linear_layer_on_a_vector_takes_a_constant() -> None:
    net = Net(lambda m, x: x.sigmoid().mean((0, 2, 3)), nn.Linear(WIDTH, 2))
    graph = trace(net, X)
    for seed in range(3):
        plan = random_plan(graph, seed)
        verify(mask(net, plan, graph), compact(net, plan, graph), X)


class Merges(nn.Module):
    """Makes one layer of two, neither of which is said to have a bias."""

    def __init__(self) -> None:
        super().__init__()
        self.conv, self.norm = nn.Conv2d(WIDTH, 2, 1, bias=False), nn.BatchNorm2d(2)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        y: torch.Tensor = self.norm(self.conv(x))
        return y

    def switch_to_deploy(self) -> None:
        raise AssertionError


def changed() -> nn.Module:
    conv = nn.Conv2d(WIDTH, 2, 1)
    conv.forward = MethodType(lambda self, x: F.conv2d(x, self.weight), conv)  # type: ignore[method-assign]
    return conv


class Without(nn.Conv2d):
    def _conv_forward(self, x: torch.Tensor, weight: torch.Tensor, bias: torch.Tensor | None) -> torch.Tensor:
        return F.conv2d(x, weight)


@pytest.mark.parametrize(
    ("last", "reason"),
    [
        (Merges(), "may count on"),
        (Without(WIDTH, 2, 1), "its code is not"),
        (Without(WIDTH, 2, 1, bias=False), "its code"),
    ],
    ids=["merges", "leaves its bias out", "has none"],
)
def test_readers_whose_code_may_count_on_their_bias(last: nn.Module, reason: str) -> None:
    layer = exact(Net(FOLDED["sigmoid"], last)).by_name["first"]
    assert not layer.free.any()
    assert reason in layer.reason


def test_a_reader_with_a_forward_of_its_own() -> None:
    assert not trace(Net(FOLDED["sigmoid"], changed()), X).by_name["first"].free.any()


@pytest.mark.parametrize("share", [0.0, 0.5])
def test_what_dropout_draws_is_no_constant(share: float) -> None:
    model = Net(lambda m, x: F.dropout(x.sigmoid(), share, m.training))
    assert trace(model, X).by_name["first"].free.all() == (share == 0)


@pytest.mark.parametrize("side", [1, 2])
def test_a_linear_layer_takes_the_constant_of_flattened_maps(side: int) -> None:
    """As a classifier behind the mean over its last map does."""
    net = nn.Sequential(nn.Conv2d(3, WIDTH, 1), nn.Sigmoid(), nn.AdaptiveAvgPool2d(side), nn.Flatten())
    net.append(nn.Linear(WIDTH * side * side, 2))
    assert exact(net.double().eval()).by_name["0"].free.all()


def test_a_linear_layer_takes_a_constant() -> None:
    net = nn.Sequential(nn.Flatten(), nn.Linear(108, WIDTH), nn.Sigmoid(), nn.Linear(WIDTH, 2)).double().eval()
    graph = exact(net)
    assert graph.by_name["1"].free.all()
    assert graph.folds == ("3",)
    again = trace(net, X[:1])  # which has one number a channel
    verify(mask(net, p := random_plan(again, 0), again), compact(net, p, again), X)


def test_linear_layers_of_tokens_take_a_constant_in_the_last_dimension() -> None:
    class Tokens(nn.Sequential):
        def forward(self, x: torch.Tensor) -> torch.Tensor:
            return super().forward(x.permute(0, 2, 3, 1))

    graph = exact(Tokens(nn.Linear(3, WIDTH), nn.Sigmoid(), nn.Linear(WIDTH, 2)).double().eval())
    assert graph.by_name["0"].free.all()
    assert graph.folds == ("2",)


def test_a_reader_that_is_called_by_name() -> None:
    class Named(Net):
        def forward(self, x: torch.Tensor) -> torch.Tensor:
            return self.last(input=self.first(x).sigmoid())

    assert exact(Named(lambda m, x: x)).by_name["first"].free.all()


def test_parts_side_by_side() -> None:
    class Side(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.a, self.b, self.last = nn.Conv2d(3, 4, 1), nn.Conv2d(3, 4, 1), nn.Conv2d(11, 2, 1)

        def forward(self, x: torch.Tensor) -> torch.Tensor:
            return self.last(torch.cat([self.a(x).sigmoid(), F.relu(self.b(x)), x], 1))

    graph = exact(Side().double().eval())
    assert graph.by_name["a"].free.all()
    assert graph.by_name["b"].free.all()


@pytest.mark.parametrize(
    "code",
    [
        lambda m, x: F.relu(m.deep(x.sigmoid())),
        lambda m, x: F.relu(m.norm(x + 0.5)),
        lambda m, x: F.relu(m.deep(F.pad(x.sigmoid(), (1, 1)))),
    ],
    ids=["depthwise", "norm", "depthwise of what is no constant"],
)
def test_what_has_a_weight_a_channel_makes_zeros_of_constants(code: Code) -> None:
    graph = exact(Net(code))
    assert graph.by_name["first"].free.all()
    assert graph.folds == ()


class Borrows(nn.Conv2d):
    """Runs with the weight of another layer, which does not run."""

    def __init__(self) -> None:
        super().__init__(WIDTH, 2, 1)
        self.lender = nn.Conv2d(WIDTH, 2, 1)

    def _conv_forward(self, x: torch.Tensor, weight: torch.Tensor, bias: torch.Tensor | None) -> torch.Tensor:
        return F.conv2d(x, self.lender.weight, self.lender.bias)


class Own(nn.Conv2d):
    """A layer with code of its own."""

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return super().forward(2 * x)


PINNED: dict[str, tuple[Code, nn.Module | None, str]] = {
    "border of zeros": (FOLDED["sigmoid"], nn.Conv2d(WIDTH, 2, 3, padding=1), "border of zeros"),
    "border around a point": (FOLDED["sigmoid"], nn.Conv2d(WIDTH, 2, 1, padding=1), "border of zeros"),
    "same border": (FOLDED["sigmoid"], nn.Conv2d(WIDTH, 2, 3, padding="same"), "border of zeros"),
    "border of one side": (FOLDED["sigmoid"], nn.Conv2d(WIDTH, 2, 3, padding=(0, 1)), "border of zeros"),
    "groups without a bias": (FOLDED["sigmoid"], nn.Conv2d(WIDTH, 2, 1, groups=2, bias=False), "it has groups"),
    "groups": (FOLDED["sigmoid"], nn.Conv2d(WIDTH, 2, 1, groups=2), "it has groups"),
    "transposed": (FOLDED["sigmoid"], nn.ConvTranspose2d(WIDTH, 2, 2, 2), "it is transposed"),
    "another's weight": (FOLDED["sigmoid"], Borrows(), "its code is not that of torch's own layer"),
    "code of its own": (FOLDED["sigmoid"], Own(WIDTH, 2, 1), "its code is not that of torch's own layer"),
    "padded by zeros": (lambda m, x: F.pad(x.sigmoid(), (1, 1)), None, "not zero once removed"),
    "padded means": (lambda m, x: F.avg_pool2d(x.sigmoid(), 3, padding=1), None, "not zero once removed"),
    "rows and columns": (lambda m, x: x + m.rows, None, "not zero once removed"),
    "noise": (lambda m, x: x + torch.rand(1, dtype=x.dtype), None, "not zero once removed"),
    "shares over space": (lambda m, x: x.flatten(2).softmax(-1).unsqueeze(-1), None, "not zero once removed"),
    "one spread over all": (lambda m, x: x.sigmoid() * m.last.bias.sum(), None, "not zero once removed"),
}


@pytest.mark.parametrize("name", PINNED)
def test_what_no_bias_can_take_stays(name: str) -> None:
    code, last, reason = PINNED[name]
    model = Net(code, last)
    layer = trace(model, X).by_name["first"]
    assert not layer.free.any()
    assert reason in layer.reason


def test_two_layers_that_share_a_weight() -> None:
    model = Net(lambda m, x: x.sigmoid())
    model.twin = nn.Conv2d(WIDTH, 2, 1).double()
    model.twin.weight = model.last.weight
    model.code = lambda m, x: x.sigmoid()
    layer = trace(model, X).by_name["first"]
    assert not layer.free.any()
    assert "shares its weights" in layer.reason


def test_one_layer_that_reads_two_constants() -> None:
    class Twice(Net):
        def forward(self, x: torch.Tensor) -> Any:
            return self.last(self.first(x).sigmoid()), self.last(self.first(x).exp())

    layer = trace(Twice(FOLDED["sigmoid"]), X).by_name["first"]
    assert not layer.free.any()
    assert "at more than one place" in layer.reason


def test_a_constant_in_training_alone() -> None:
    model = Net(lambda m, x: x + 0.5 if m.training else x)
    layer = trace(model, X).by_name["first"]
    assert not layer.free.any()
    assert "in training only" in layer.reason


def test_inputs_that_are_no_plain_tensors() -> None:
    class Takes(Net):
        def forward(self, given: dict[str, torch.Tensor], *more: torch.Tensor) -> torch.Tensor:  # type: ignore[override]
            return super().forward(given["image"])

    for more in ((), (X,)):
        layer = trace(Takes(FOLDED["sigmoid"]), ({"image": X}, *more)).by_name["first"]
        assert not layer.free.any()
        assert "no plain tensors" in layer.reason


def test_what_a_pass_that_failed_saw_of_constants_is_forgotten() -> None:
    seen, value = Constants(), Value(np.arange(2), zero=False, constant=True)
    seen.begin()
    kept = seen.copy()
    for _ in range(2):
        seen.reads(1)
    seen.fold(1, np.arange(2))
    assert [*seen.unsteady("", "add", [value], (1,))] == []
    assert len([*seen.read_twice()]) == 1
    assert kept.folds == {}
    assert [*kept.read_twice()] == []
    assert [*kept.unsteady("", "add", [value], (2,))] == []


def test_the_unpruned_network_and_what_is_kept_are_not_touched() -> None:
    model = Net(FOLDED["a number"])
    bias = model.last.bias.detach().clone()
    graph = trace(model, X)
    plan = PrunePlan.from_keep(graph, {"first": [0, 2]})
    small = compact(model, plan, graph)
    assert torch.equal(model.last.bias, bias)
    wanted = bias + 0.5 * model.last.weight[:, [1, 3, 4, 5], 0, 0].sum(1)
    torch.testing.assert_close(small.last.bias, wanted, rtol=0, atol=1e-12)
    assert small.last.bias.requires_grad
    assert not small.last._forward_pre_hooks
    assert torch.equal(compact(model, PrunePlan.from_keep(graph, {}), graph).last.bias, bias)
