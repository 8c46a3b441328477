"""What the trace follows, and what it refuses to guess."""

from __future__ import annotations

import operator
from collections import UserDict
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, replace
from types import MappingProxyType

import pytest
import torch
from exactness import exact_on
from torch import nn
from torch.nn import functional as F  # noqa: N812 - its usual name
from torch.overrides import handle_torch_function, has_torch_function

from seqprune import PrunePlan, compact, mask, trace, verify
from seqprune.errors import ModelError, VerificationError
from seqprune.graph import ChannelGraph
from seqprune.graph.names import op_name
from seqprune.graph.recorder import Recorder
from seqprune.graph.rules.table import DIMS, check_dims
from seqprune.graph.standins.operators import attend_heads
from seqprune.graph.values import NoRule
from seqprune.testing.networks import randomise


class Between(nn.Module):
    """A convolution, whatever is tried, and a convolution that reads it."""

    def __init__(self, between: Callable[[torch.Tensor], torch.Tensor], reads: int = 4, **modules: nn.Module):
        super().__init__()
        self.first = nn.Conv2d(3, 4, 3, padding=1)
        self.between = between
        self.last = nn.Conv2d(reads, 2, 1)
        for name, module in modules.items():
            self.add_module(name, module)
        randomise(self, 0)
        self.double().eval()

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return self.last(self.between(self.first(x)))


X = torch.randn(2, 3, 6, 6, dtype=torch.float64, generator=torch.Generator().manual_seed(1))


def kept_in(memory: torch.Tensor, x: torch.Tensor) -> torch.Tensor:
    memory[:] = x
    return memory


class Lent(nn.GroupNorm):
    """Has the weights of another module."""

    def __init__(self, groups: int, channels: int) -> None:
        super().__init__(groups, channels)
        self.other = nn.GroupNorm(groups, channels)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return nn.functional.group_norm(x, self.num_groups, self.other.weight, self.other.bias)


class Norm(nn.Module):
    """Writes the number of its groups out, and holds it nowhere."""

    def __init__(self) -> None:
        super().__init__()
        self.weight, self.bias = nn.Parameter(torch.ones(4)), nn.Parameter(torch.zeros(4))

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return nn.functional.group_norm(x, 2, self.weight, self.bias)


class Maps(nn.Module):
    """Weighs every place of every channel."""

    def __init__(self) -> None:
        super().__init__()
        self.weights = nn.Parameter(torch.rand(4, 6, 6))

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return x * self.weights


class Turned(nn.Module):
    """Takes the rows of a map for its channels."""

    def __init__(self, inner: nn.Module) -> None:
        super().__init__()
        self.inner = inner

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return self.inner(x.transpose(1, 2)).transpose(1, 2)


class Doubled(nn.Conv2d):
    """Has a bias that is computed."""

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return nn.functional.conv2d(x, self.weight, self.bias * 2)  # type: ignore[operator]


class TransposedDoubled(nn.ConvTranspose2d):
    """The same."""

    def forward(self, x: torch.Tensor) -> torch.Tensor:  # type: ignore[override]
        return nn.functional.conv_transpose2d(x, self.weight, self.bias * 2)  # type: ignore[operator]


class ByHeart(nn.Conv2d):
    """A depthwise layer that knows its number of groups by heart."""

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return nn.functional.conv2d(x, self.weight, self.bias, groups=4)


class Add(nn.Module):
    """Adds a constant."""

    def __init__(self, constant: torch.Tensor) -> None:
        super().__init__()
        self.constant = constant

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return x + self.constant


class Each(nn.GroupNorm):
    """Each channel is a group of its own."""

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return nn.functional.group_norm(x, x.shape[1], self.weight, self.bias)


def assert_fits(graph: ChannelGraph, model: nn.Module) -> None:
    """Every tensor has as many places in a dimension as the graph says."""
    for cut in graph.slices:
        assert getattr(model.get_submodule(cut.module), cut.tensor).shape[cut.dim] == cut.groups.shape[-1], cut


def exact(model: nn.Module, keep: dict[str, list[int]]) -> ChannelGraph:
    graph = trace(model, X)
    assert_fits(graph, model)
    plan = PrunePlan.from_keep(graph, keep)
    verify(mask(model, plan, graph), compact(model, plan, graph), X)
    return graph


@pytest.mark.parametrize(
    "between",
    [
        torch.relu,
        nn.functional.silu,
        nn.functional.gelu,
        lambda x: nn.functional.leaky_relu(x, 0.1, inplace=True),
        lambda x: x.clamp(-1, 2),
        lambda x: x.clamp(-1, 0),
        lambda x: x.clamp(0, 2),
        lambda x: x.clamp(max=0),
        lambda x: x.clamp(None, 1.0),
        lambda x: x.clamp(min=0),
        lambda x: nn.functional.hardtanh(x),
        lambda x: x * 3 - x / 2,
        lambda x: x / torch.full((), 2.0),
        lambda x: x**2,
        *(lambda x, act=act: act(x.relu(), 2) for act in (operator.imul, operator.itruediv, operator.ipow)),
        *(lambda x, act=act: act(x.relu(), x) for act in (operator.iadd, operator.isub)),
        lambda x: nn.functional.max_pool2d(x, 2),
        lambda x: nn.functional.avg_pool2d(x, 3, padding=1),
        lambda x: nn.functional.interpolate(x, scale_factor=2),
        lambda x: nn.functional.interpolate(x, size=x.shape[2:], mode="bilinear"),
        lambda x: nn.functional.pad(x, (1, 2, 0, 1)),
        lambda x: nn.functional.pad(x, (0, 0, 0, 0, 0, 0, 1, 0)),
        lambda x: nn.functional.pad(x, (1, 1, 1, 1), mode="reflect"),
        lambda x: x.transpose(2, 3).permute(0, 1, 3, 2),
        lambda x: x[:, :, 1:, ::2],
        lambda x: x[..., 0, None],
        lambda x: x.mean((2, 3), keepdim=True),
        lambda x: x * x.sigmoid(),
        lambda x: x + x.mean(3, keepdim=True),
        lambda x: torch.stack([x, x.relu()], 0).sum(0),
        lambda x: torch.maximum(x, x.square()),
        lambda x: x.flatten(2)[..., None],
        lambda x: x if x.shape != (9, 4, 6, 6) and x.shape != "none" else -x,
        lambda x: x.view(x.shape[0], -1, *x.shape[2:]),
        lambda x: nn.functional.normalize(x),
        lambda x: torch.channel_shuffle(x, 2),
        nn.GroupNorm(2, 4, affine=False),
        lambda x: nn.functional.normalize(x, p=1.0, dim=2),
        lambda x: x.sigmoid() * x,
        lambda x: F.hardtanh(x, max_val=2.0),
        lambda x: F.hardtanh(x, min_val=-2.0),
        lambda x: x.transpose(1, 3).flatten(1, 2).transpose(1, 2)[..., None],
        lambda x: x + 0,
        lambda x: 0 - x,
        *(lambda x, dim=dim: x.unsqueeze(dim).squeeze(dim) for dim in (0, 1, 2, -1)),
        lambda x: x[:, None, :, 1:][:, 0],
        lambda x: F.dropout(x, 0.0),
        lambda x: torch.dropout(x, 0.5, train=False),
        lambda x: F.dropout(x, 0.5, False),
        nn.Sequential(nn.Sigmoid(), nn.Conv2d(4, 4, 1, groups=4)),  # what it makes of a constant leaves with it
        nn.Sequential(nn.Sigmoid(), nn.BatchNorm2d(4)),
        lambda x: torch.stack(x.unbind(0)) + torch.stack(x.unbind(3), 3),
        lambda x: x.transpose(1, 3)[..., 0, :][..., None].transpose(1, 2),
        lambda x: x * len((1, *x.shape)),
        lambda x: x * len(list(x.shape)),
    ],
)
def test_channels_are_followed_exactly(between: Callable[[torch.Tensor], torch.Tensor]) -> None:
    keep = [2, 3] if isinstance(between, nn.GroupNorm) else [1, 3]
    graph = exact(Between(between), {"first": keep})
    assert graph.by_name["first"].free.all()
    assert graph.folds == ()  # zero all the way: there is no constant to take up


@pytest.mark.parametrize(
    ("between", "reads"),
    [
        (lambda x: x**0, 4),
        (lambda x: x + x.sigmoid(), 4),
        (lambda x: x.sigmoid() - x, 4),
        (lambda x: F.hardtanh(x, max_val=-0.5), 4),
        (lambda x: F.hardtanh(x, min_val=0.5), 4),
        (lambda x: torch.cat([x, x.sigmoid()], 1), 8),
        (lambda x: torch.cat([x.cos(), x], 1), 8),
    ],
)
def test_what_is_a_constant_once_removed_is_taken_up_by_a_bias(
    between: Callable[[torch.Tensor], torch.Tensor], reads: int
) -> None:
    graph = exact(Between(between, reads), {"first": [1, 3]})
    assert graph.by_name["first"].free.all()
    assert graph.folds


DRAWS: list[Callable[[torch.Tensor], torch.Tensor]] = [
    F.dropout,
    F.dropout2d,
    lambda x: torch.dropout(x, 0.5, True),
    lambda x: F.alpha_dropout(x, 0.5, True),
    lambda x: F.rrelu(x, training=True),
]


@pytest.mark.filterwarnings("ignore:Implicit dimension choice for softmax", "ignore:The use of `x.T`")
@pytest.mark.parametrize(
    ("between", "reason"),
    [
        (lambda x: nn.functional.pad(x, (1, 1), value=1.0), "not zero once removed"),
        (lambda x: x.cumprod(1), "mixes channels"),
        (lambda x: x.softmax(1), "mixes channels"),
        (lambda x: x[:, [0, 1, 2, 3]], "indexed by a tensor"),
        (lambda x: torch.cat([x[:, :2], x[:, 2:]], 1), "picks channels by number"),
        (lambda x: x[:, :-1].repeat_interleave(2, 1)[:, :4], "picks channels by number"),
        (lambda x: x[:, :: -1 + 2 * 2][:, [0, 1, 1, 0]], "picks channels by number"),
        (lambda x: x.narrow(1, 0, 4), "picks channels by number"),
        (lambda x: x.select(1, 0)[:, None].expand(-1, 4, -1, -1), "picks channels by number"),
        (lambda x: x.view(2, 4, 6, 6), "written out"),
        (lambda x: x.flip(1), "turns the channels round"),
        (lambda x: x**-1.0, "zero to a negative power is infinite"),
        (lambda x: x.unbind(1)[0][:, None].repeat(1, 4, 1, 1), "takes the channels apart one by one"),
        (lambda x: x.flatten(0, 1).mean(0)[None, None].repeat(2, 4, 1, 1), "reduces over channels"),
        (lambda x: 1 / x, "divides by channels that may be zero"),
        (lambda x: x / x.cosh().floor(), "divides by channels"),
        (lambda x: nn.functional.layer_norm(x, x.shape[1:]), "reads their number"),
        (lambda x: nn.functional.group_norm(x, 2), "number of groups is written out"),
        (lambda x: nn.functional.normalize(x, p=float("inf")), "takes the norm of channels in another way"),
        (lambda x: nn.functional.normalize(x.sigmoid()), "takes the norm of channels in another way"),
        (lambda x: nn.GroupNorm(1, 4).double()(x), "number of groups is written out"),
        (nn.GroupNorm(1, 4), "normalises all channels as one"),
        (Lent(2, 4), "number of groups is written out"),
        (lambda x: x.T.permute(3, 2, 1, 0), "turns all dimensions round"),
        (lambda x: x.flatten(2).T.permute(2, 1, 0)[..., None], "turns all dimensions round"),
        (Doubled(4, 4, 1), "the weight is computed"),
        (ByHeart(4, 4, 1, groups=4), "the number of groups is written out"),
        (TransposedDoubled(4, 4, 1), "the weight is computed"),
        (nn.Sequential(nn.Sigmoid(), nn.Conv2d(4, 4, 1, groups=2)), "it has groups"),
        (lambda x: nn.functional.normalize(x, dim=(1, 2)), "takes the norm of channels in another way"),
        (lambda x: x + x.max(), "reduces over channels"),
        (Norm(), "number of groups is written out"),
        (Maps(), "a parameter with more than one entry per channel"),
        (Turned(nn.PReLU(6)), "the weight is computed"),
        (Turned(nn.GroupNorm(2, 6)), "normalises channels that are not zero once removed"),
        (Turned(nn.BatchNorm2d(6)), "the channels are not in dimension 1"),
        (Turned(nn.MaxPool2d(1)), "the channels are not in dimension 1"),
        (Turned(nn.ChannelShuffle(2)), "the channels are not in dimension 1"),
        (lambda x: nn.functional.batch_norm(x, torch.zeros(4).double(), torch.ones(4).double()), "weight is computed"),
        (nn.Sequential(nn.Sigmoid(), nn.GroupNorm(2, 4)), "normalises channels that are not zero once removed"),
        (lambda x: x.split(4, 1)[0], "numbers in the code"),
        (lambda x: nn.functional.prelu(x, torch.full((4,), 0.1).double()), "the weight is computed"),
        (lambda x: x.view(torch.float64), "changes the type, not the shape"),
        (lambda x: torch.mul(x, 2, out=torch.empty(2, 4, 6, 6, dtype=x.dtype)), "no rule for this operator"),
        (lambda x: torch.Tensor._make_subclass(torch.Tensor, x), "shares its memory in a way that is not followed"),
        (lambda x: nn.functional.softmax(x), "mixes channels"),
        (lambda x: x ** torch.full((4, 1, 1), 2.0), "only tensor ** number is followed"),
        (lambda x: torch.pow(2.0, x), "only tensor ** number is followed"),
        (lambda x: nn.functional.conv2d(x, torch.ones(4, 4, 1, 1).double()), "the weight is computed"),
        (lambda x: nn.functional.conv_transpose2d(x, torch.ones(4, 4, 1, 1).double()), "the weight is computed"),
        (nn.Linear(6, 6), "reads dimension 3 while the channels lie in dimension 1"),
        (lambda x: x.clamp(max=torch.ones((), dtype=x.dtype)), "limits are tensors"),
        (lambda x: x.clamp(None, torch.ones((), dtype=x.dtype)), "limits are tensors"),
        (lambda x: x.view(2, -1, 72).view(2, 4, 6, 6), "written out in the new shape"),
        (lambda x: x.view(2, -1, 48).view(2, 4, 6, 6), "cuts the channels into heads or groups"),
        (lambda x: nn.functional.pad(x, (0, 0, 0, 0, 1, 0))[:, :4], "pads channels"),
        (lambda x: nn.functional.pad(x, (0, 0, 0, 0, 0, 1))[:, :4], "pads channels"),
        (lambda x: nn.functional.pad(x.transpose(1, 3), (1, 0))[..., :4].transpose(1, 3), "pads channels"),
        (lambda x: attend_heads(x.sigmoid(), 1, 1, 2, 1.0, 1, {})[0].repeat(1, 2, 1, 1), "not zero once removed"),
        (lambda x: attend_heads(x.transpose(1, 2), 1, 1, 4, 1.0, 1, {})[0], "not zero once removed"),
        (lambda x: x.flatten(2).view_as(torch.zeros(2, 4, 6, 6)), "a tensor with its channels elsewhere"),
        (lambda x: x.flatten(2).view_as(x.transpose(1, 2).relu()).transpose(1, 2), "with its channels elsewhere"),
        (lambda x: x.view_as(torch.cat(x.chunk(2, 1)[:1] * 2, 2)).repeat(1, 2, 1, 1)[:, :, :6], "other channels"),
        (lambda x: x / x.mean(1, keepdim=True), "reduces over channels"),
        (lambda x: x * x.mean(()), "reduces over channels"),
        (lambda x: x * x.shape[1], "reads their number"),
        (lambda x: x * max(x.shape), "reads their number"),
        (lambda x: x * (4 in x.shape), "reads their number"),
        (lambda x: x * x.shape.index(4), "reads their number"),
        (lambda x: x + torch.zeros(x.shape, dtype=x.dtype), "reads their number"),
        (
            lambda x: torch.cat([x, torch.zeros_like(x)], 1).relu().mean((2, 3), keepdim=True).flip(1)[:, :4],
            "turns the channels round",
        ),
        (lambda x: torch.cat([x, x.new_zeros(x.shape)], 1)[:, 1:5], "reads their number"),
        (lambda x: torch.cat([x, x.new_zeros(2, 4, 6, 6)], 1)[:, 1:5], "picks channels by number"),
        (lambda x: x if x.shape == (2, 4, 6, 6) else -x, "reads their number"),
        (lambda x: x / (x.numel() / 72), "reads their number"),
        (lambda x: torch.cat([x.split(2, 1)[1], x[:, :2]], 1), "numbers in the code"),
        (lambda x: x + torch.ones(4, 1, 1, dtype=x.dtype), "constant that has one entry per channel"),
        *((lambda x, draws=draws: draws(x), "draws at random in inference") for draws in DRAWS),
    ],
)
def test_what_cannot_be_followed_is_pinned_with_its_reason(
    between: Callable[[torch.Tensor], torch.Tensor], reason: str
) -> None:
    model = Between(between)
    graph = trace(model, X)
    layer = graph.by_name["first"]
    assert not layer.free.any()
    assert reason in layer.reason
    assert_fits(graph, model)


@pytest.mark.parametrize(
    ("operator", "dims", "known"),
    [("conv2d", 3, "of 4 its"), ("mine", 6, "of 3 to 5 its")],
)
def test_on_how_many_dimensions_an_operator_is_known_is_said(
    operator: str, dims: int, known: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setitem(DIMS, "mine", range(3, 6))
    with pytest.raises(NoRule, match=f"^runs on a tensor of {dims} dimensions, {known} channels are known$"):
        check_dims(operator, dims)


@pytest.mark.parametrize(
    ("between", "reason"),
    [
        (lambda x: x.transpose(0, 1).reshape(2, x.shape[1], 6, 6), "another number of channels takes their place"),
        (lambda x: torch.cat([x.flip(1), x.flip(1)], 1)[:, :4], "picks channels by number"),
        (
            lambda x: torch.swapaxes(x, axis0=2, axis1=3),
            "called in a way that its rule does not know: missing a required argument: 'dim0'",
        ),
        (Each(2, 4), "the number of groups is written out in the code"),
        (lambda x: x.chunk(4, 1)[0].expand_as(x), "spreads one channel over many"),
        (lambda x: x.chunk(4, 1)[0].expand(-1, x.shape[1], -1, -1), "spreads one channel over many"),
        *(
            (
                lambda x, join=join: join([x[:, :, :4], x.transpose(1, 2)[:, :4]]).flatten(0, -4),
                f"the channels of the {what} lie in different dimensions",
            )
            for join, what in ((torch.cat, "parts"), (torch.stack, "parts"), (lambda two: two[0] + two[1], "operands"))
        ),
    ],
)
def test_every_operator_that_stops_a_trace_says_why(
    between: Callable[[torch.Tensor], torch.Tensor], reason: str
) -> None:
    assert reason in [barrier.reason for barrier in trace(Between(between), X).barriers]


class Lends(nn.Module):
    """A layer whose weight a function is given, and nothing else."""

    def __init__(self, call: Callable[..., torch.Tensor], layer: nn.Conv2d) -> None:
        super().__init__()
        self.call, self.layer = call, layer

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return self.call(x, self.layer.weight)


@pytest.mark.filterwarnings("ignore:Complex modules")
@pytest.mark.parametrize("layer", [nn.Conv2d, nn.ConvTranspose2d])
def test_a_layer_reads_complex_numbers(layer: Callable[..., nn.Module]) -> None:
    """Of such an input no channels are known."""
    model = nn.Sequential(layer(3, 4, 1), layer(4, 2, 1)).to(torch.complex128)
    assert trace(model, X.to(torch.complex128)).by_name["0"].free.all()


@pytest.mark.parametrize("call", [F.conv2d, F.conv_transpose2d])
def test_a_layer_is_read_by_what_it_is_told_and_torchs_own_for_the_rest(call: Callable[..., torch.Tensor]) -> None:
    layer = exact_on(X, Between(Lends(call, nn.Conv2d(4, 4, 1)))).by_name["between.layer"]
    assert layer.free.all(), layer.reason


def test_a_barrier_is_said_with_what_reaches_it_and_where() -> None:
    lines = ["flip of [2×4×6×6] in the network: turns the channels round", "relu of [2×4×6×6] in between: why"]
    barrier = trace(Between(lambda x: x.flip(1)), X).barriers[0]
    assert [str(barrier), str(replace(barrier, op="relu", module="between", reason="why"))] == lines


def test_channels_that_are_tied_to_more_or_fewer_stay() -> None:
    """As a rule of others may ask for."""
    model = nn.ModuleList([nn.Conv2d(3, 4, 1), nn.Conv2d(3, 5, 1)])
    recorder = Recorder(model)
    recorder.tie(*(recorder.new_layer(conv.weight, conv.out_channels) for conv in model), "unequal")
    assert [layer.reason for layer in recorder.finish((), ()).all_layers] == ["unequal", "unequal"]


@pytest.mark.parametrize("turned", [False, True])
def test_channels_that_are_tied_to_those_of_no_layer_stay(turned: bool) -> None:
    recorder = Recorder(nn.ModuleList([nn.Conv2d(3, 4, 1)]))
    atoms, none = recorder.new_layer(recorder.model[0].weight, 4), recorder.fixed(4)
    none[1:3] = atoms[2], atoms[1]
    recorder.tie(*((none, atoms) if turned else (atoms, none)), "beside")
    layer = recorder.finish((), ()).all_layers[0]
    assert layer.reason == "beside"
    assert layer.free.tolist() == [False, True, True, False]
    assert layer.groups[1] == layer.groups[2]


def test_channels_that_were_lost_stay_where_others_are_followed_beside_them() -> None:
    class Beside(Between):
        def forward(self, x: torch.Tensor) -> torch.Tensor:
            lost, kept = x.flip(1).permute(0, 2, 3, 1), self.first(x).permute(0, 2, 3, 1)
            return self.last(torch.cat([lost, kept], 3).permute(0, 3, 1, 2))

    assert exact(Beside(torch.relu, 7), {"first": [0, 3]}).by_name["first"].free.all()


def test_one_channel_that_was_lost_holds_no_others() -> None:
    """Whatever reached a barrier stays, so that nothing of its results leaves, spread over others or not."""

    class Meets(Between):
        def forward(self, x: torch.Tensor) -> torch.Tensor:
            return self.last(self.first(x) * self.beside(x).flip(1).sum(3, keepdim=True)[:, :1])

    model = Meets(torch.relu)
    model.beside = nn.Conv2d(3, 4, 1).double()
    randomise(model, 0)
    layers = exact(model, {"first": [0, 3]}).by_name
    assert layers["first"].free.all()
    assert not layers["beside"].free.any()


def test_as_many_channels_that_were_lost_hold_others() -> None:
    class Meets(Between):
        def forward(self, x: torch.Tensor) -> torch.Tensor:
            return self.last(self.first(x) * self.beside(x).flip(1))

    model = Meets(torch.relu, beside=nn.Conv2d(3, 4, 1).double())
    layer = trace(model, X).by_name["first"]
    assert not layer.free.any()
    assert "joined element-wise in the network with channels that cannot be removed" in layer.reason


def test_a_function_without_a_name_is_called_by_its_text() -> None:
    """As objects that are called, which a library may show to ``torch.overrides``."""

    class Swish:
        def __call__(self, x: torch.Tensor) -> torch.Tensor:
            return handle_torch_function(self, (x,), x) if has_torch_function((x,)) else x * x.sigmoid()

        def __str__(self) -> str:
            return "library.swish"

    assert op_name(Swish()) == "swish"
    barriers = trace(Between(Swish()), X).barriers
    assert [(barrier.op, barrier.reason) for barrier in barriers] == [("swish", "no rule for this operator")]


@pytest.mark.parametrize(
    ("function", "name"),
    [
        *((getattr(torch.Tensor, f"__{kind}add__"), "add") for kind in ("", "i", "r")),
        *((getattr(torch.Tensor, f"__{kind}mul__"), "mul") for kind in ("", "i", "r")),
        *((getattr(torch.Tensor, f"__{kind}truediv__"), "div") for kind in ("", "i")),
        (torch.Tensor.__isub__, "sub"),
        (torch.Tensor.__ipow__, "pow"),
        (torch.relu_, "relu"),
        (torch.Tensor.shape.__get__, "shape"),  # type: ignore[attr-defined]
        (torch.Tensor.data.__set__, "set data"),  # type: ignore[attr-defined]
    ],
)
def test_whatever_way_an_operator_is_called_its_rule_has_one_name(function: Callable[..., object], name: str) -> None:
    assert op_name(function) == name


@pytest.mark.parametrize(
    "join",
    [
        torch.stack,
        torch.cat,
        lambda parts: torch.cat(parts, 1),
        lambda parts: torch.einsum("ncij,ocij->no", *parts),
    ],
)
def test_a_weight_that_lies_beside_channels_keeps_its_shape(join: Callable[..., torch.Tensor]) -> None:
    class Beside(Between):
        def forward(self, x: torch.Tensor) -> torch.Tensor:
            y = self.first(x)
            return self.last(self.mid(y)) * join([y.mean((2, 3), keepdim=True), self.mid.weight]).sum()

    layer = trace(Beside(torch.relu, 2, mid=nn.Conv2d(4, 2, 1)), X).by_name["mid"]
    assert not layer.free.any()
    assert "reads the parameter" in layer.reason


def test_a_constant_written_into_a_view_pins_all_that_shares_its_memory() -> None:
    def between(x: torch.Tensor) -> torch.Tensor:
        left, _right = x.chunk(2, 1)
        left.add_(1)
        return x

    assert not trace(Between(between), X).by_name["first"].free[:2].any()


def test_what_nobody_knows_written_into_a_view_pins_all_that_shares_its_memory() -> None:
    def between(x: torch.Tensor) -> torch.Tensor:
        x.chunk(2, 1)[0].cumsum_(1)
        return x

    assert not trace(Between(between), X).by_name["first"].free.any()


def test_many_tensors_written_in_one_call_pin_what_they_hold() -> None:
    """``'list' object has no attribute 'layout'``, as if the network did not run on its input."""

    def between(x: torch.Tensor) -> torch.Tensor:
        torch._foreach_add_([x], 1.0)
        return x

    assert "_foreach_add" in exact(Between(between), {}).by_name["first"].reason


def test_a_reused_activation_in_place_keeps_channels_apart() -> None:
    def between(x: torch.Tensor) -> torch.Tensor:
        for part in x.chunk(2, 1):
            part.relu_()
        return x

    exact(Between(between), {"first": [0, 3]})


def test_chunks_must_keep_equally_many_channels() -> None:
    """A C2f takes its halves apart with ``chunk(2)``: halves of 2 and 1 channels would be cut at the wrong place."""
    model = Between(lambda x: torch.cat(x.chunk(2, 1)[::-1], 1))
    exact(model, {"first": [0, 2]})
    with pytest.raises(Exception, match=r"sections of \(2, 1\) channels would stay"):
        PrunePlan.from_keep(trace(model, X), {"first": [0, 1, 3]})


def test_cat_of_a_tensor_with_itself_keeps_duplicates() -> None:
    exact(Between(lambda x: torch.cat([x, x], 1), reads=8), {"first": [2]})


def test_flattened_channels_reach_a_linear_layer() -> None:
    model = nn.Sequential(nn.Conv2d(3, 4, 1), nn.Flatten(), nn.Linear(144, 5), nn.ReLU(), nn.Linear(5, 2)).double()
    randomise(model, 0)
    exact(model, {"0": [0, 2], "2": [1, 2, 4]})


def test_transposed_convolution_is_followed() -> None:
    model = nn.Sequential(nn.Conv2d(3, 4, 1), nn.ConvTranspose2d(4, 5, 2, 2), nn.ReLU(), nn.Conv2d(5, 2, 1)).double()
    exact(model.eval(), {"0": [0, 2], "1": [1, 4]})


def test_a_group_norm_says_how_many_channels_it_has() -> None:
    model = Between(nn.GroupNorm(2, 4))
    small = compact(model, PrunePlan.from_keep(trace(model, X), {"first": [2, 3]}))
    assert small.between.num_channels == 2  # type: ignore[union-attr]
    assert small(X).shape == (2, 2, 6, 6)


@pytest.mark.parametrize("kind", [nn.Conv2d, nn.ConvTranspose2d])
def test_a_group_of_one_channel_makes_neighbours(kind: Callable[..., nn.Module]) -> None:
    graph = exact(Between(kind(4, 8, 1, groups=4), reads=8), {"first": [1, 3]})
    assert graph.by_name["first"].free.all()


@pytest.mark.parametrize("kind", [nn.Conv2d, nn.ConvTranspose2d])
def test_groups_of_a_convolution_are_neighbouring_channels(kind: Callable[..., nn.Module]) -> None:
    model = nn.Sequential(nn.Conv2d(3, 8, 1), nn.ReLU(), kind(8, 6, 1, groups=2), nn.ReLU(), nn.Conv2d(6, 2, 1))
    graph = trace(model.double().eval(), X)
    read, made = graph.by_name["0"].groups, graph.by_name["2"].groups
    sections = [[each.tolist() for each in balance.sections] for balance in graph.balances]
    assert [read[:4].tolist(), read[4:].tolist()] in sections
    assert [made[:3].tolist(), made[3:].tolist()] in sections


@pytest.mark.parametrize("kind", [nn.Conv2d, nn.ConvTranspose2d])
def test_what_makes_many_channels_of_one_is_a_layer_like_others(kind: Callable[..., nn.Module]) -> None:
    model = nn.Sequential(nn.Conv2d(3, 1, 1), kind(1, 4, 2), nn.ReLU(), nn.Conv2d(4, 2, 1)).double().eval()
    assert exact(model, {"1": [0, 3]}).by_name["1"].free.all()


def test_a_constant_for_each_of_two_channels_keeps_both() -> None:
    model = nn.Sequential(nn.Conv2d(3, 2, 1), Add(torch.ones(2, 1, 1).double()), nn.Conv2d(2, 2, 1)).double().eval()
    assert "one entry per channel" in trace(model, X).by_name["0"].reason


def test_a_slope_for_each_of_two_channels() -> None:
    model = nn.Sequential(nn.Conv2d(3, 2, 1), nn.PReLU(2), nn.Conv2d(2, 2, 1)).double().eval()
    assert exact(model, {"0": [1]}).by_name["0"].free.all()


def test_prelu_and_layer_scale_parameters_are_cut() -> None:
    class Scaled(Between):
        def __init__(self) -> None:
            super().__init__(torch.relu)
            self.act = nn.PReLU(4)
            self.scale = nn.Parameter(torch.randn(4, 1, 1))
            self.shift = nn.Parameter(torch.randn(1, 4, 1, 1))
            self.double()

        def forward(self, x: torch.Tensor) -> torch.Tensor:
            return self.last(self.act(self.first(x)) * self.scale + self.shift)

    exact(Scaled(), {"first": [0, 1]})


def test_a_parameter_that_is_also_read_elsewhere_is_pinned() -> None:
    class Reader(Between):
        def forward(self, x: torch.Tensor) -> torch.Tensor:
            return self.last(self.first(x)) * self.first.weight.sum()

    assert not trace(Reader(torch.relu), X).by_name["first"].free.any()


def test_one_weight_in_two_modules_stays_one_weight() -> None:
    model = nn.Sequential(*(nn.Conv2d(3, 3, 1, bias=False) for _ in range(3)), nn.Conv2d(3, 2, 1)).double().eval()
    model[1].weight = model[2].weight
    graph = trace(model, X)
    plan = PrunePlan.from_keep(graph, {"1": [0, 2]})
    small = compact(model, plan, graph)
    assert small[1].weight is small[2].weight
    verify(mask(model, plan, graph), small, X)


@pytest.mark.parametrize(
    "between",
    [
        lambda x: x if x.sum() > 0 else -x,
        lambda x: x * float(x.max()),
        lambda x: x * x.max().item(),
        lambda x: x * torch.from_numpy(x.detach().numpy()),
        lambda x: x * float(kept_in(torch.zeros(2, 4, 6, 6), x).sum()),
    ],
)
def test_control_flow_that_depends_on_data_is_an_error(
    between: Callable[[torch.Tensor], torch.Tensor],
) -> None:
    with pytest.raises(ModelError, match="reads values of its input"):
        trace(Between(between), X)


def test_a_refusal_that_the_networks_code_catches_is_one() -> None:
    """The other branch was followed then, which never runs."""

    class Catches(Between):
        def forward(self, x: torch.Tensor) -> torch.Tensor:
            try:
                scale = float(x.mean())
            except Exception:  # noqa: BLE001 - as people write it
                return super().forward(x)
            return self.last(self.first(x).flip(1)) * scale

    with pytest.raises(ModelError, match="reads values of its input with float"):
        trace(Catches(torch.relu), X)


def test_a_layer_in_another_thread_is_refused() -> None:
    """Nothing is watched there: the layer before it lost channels that it reads."""

    class Threads(Between):
        def forward(self, x: torch.Tensor) -> torch.Tensor:
            y = self.first(x)
            with ThreadPoolExecutor(1) as pool:
                return torch.cat([self.last(y), pool.submit(self.other, y).result()], 1)

    model = Threads(torch.relu)
    model.other = nn.Conv2d(model.first.out_channels, 2, 1).double()
    with pytest.raises(ModelError, match="other runs in a thread of its own, where calls cannot be watched"):
        trace(model, X)


class Handed(torch.autograd.Function):
    """Hands its result on through an object that no watched call made."""

    @staticmethod
    def forward(ctx: object, x: torch.Tensor) -> torch.Tensor:
        return x.relu().view_as(x)


def test_a_tensor_from_an_autograd_function_is_never_taken_for_a_constant() -> None:
    """The reader would keep its width while the producer shrinks."""
    graph = trace(Between(Handed.apply), X)
    removed = graph.by_name["first"].free
    readers = [c for c in graph.slices if (c.module, c.dim) == ("last", 1)]
    assert not removed.any() or (readers[0].groups == graph.by_name["first"].groups).all()


def test_what_no_watched_call_made_is_no_constant() -> None:
    graph = trace(Between(lambda x: torch.Tensor._make_subclass(torch.Tensor, x).abs()), X)
    assert "shares its memory in a way that is not followed" in graph.by_name["first"].reason
    assert not [barrier for barrier in graph.barriers if "constant" in barrier.reason]
    read = trace(Between(lambda x: torch.Tensor._make_subclass(torch.Tensor, x)), X)
    assert [layer.name for layer in read.all_layers] == ["first", "last"]


def test_a_half_pruned_model_is_named() -> None:
    """Another tool narrowed the reader and left the producer: the layer, its width and what reaches it are said."""
    model = Between(torch.relu)
    model.last = nn.Conv2d(3, 2, 1).double()
    with pytest.raises(ModelError, match="last takes 3 channels, but 4 reach it from first:"):
        trace(model, X)


def test_an_input_of_other_channels_is_no_half_pruned_model() -> None:
    with pytest.raises(ModelError, match="first takes 3 channels, but the input has 2: give inputs as it takes them"):
        trace(Between(torch.relu), X[:, :2])


@pytest.mark.parametrize(
    ("between", "takes"),
    [
        (lambda x: F.conv2d(input=x, weight=torch.ones(2, 3, 1, 1).double()), 3),
        (lambda x: F.conv2d(x, torch.ones(2, 1, 1, 1).double(), None, 1, 0, 1, 2), 2),
        (lambda x: F.conv2d(x, torch.ones(2, 3, 1, 1).double(), None, 1, 0, 1), 3),
        (lambda x: F.conv2d(x, torch.ones(2, 3, 1, 1).double(), groups=2), 6),
        (lambda x: F.linear(x.movedim(1, -1), torch.ones(2, 5).double()), 5),
        (lambda x: F.linear(x.flatten(2).mT, weight=torch.ones(2, 5).double()), 5),
        (lambda x: F.conv2d(x[0], torch.ones(2, 3, 1, 1).double()), 3),
    ],
)
def test_how_many_channels_a_call_takes_is_said_however_it_is_written(
    between: Callable[[torch.Tensor], torch.Tensor], takes: int
) -> None:
    with pytest.raises(ModelError, match=f"^a layer takes {takes} channels, but 4 reach it from first:"):
        trace(Between(between), X)


@pytest.mark.parametrize(
    "between",
    [
        lambda x: F.linear(x, torch.ones(5).double()),
        lambda x: F.conv2d(x[0, 0], torch.ones(2, 3, 1, 1).double()),
        lambda x: F.conv2d(x[0, 0], torch.ones(2, 6, 1, 1).double()),
        lambda x: F.conv2d(x, torch.ones(2, 4, 9, 9).double()),
    ],
)
def test_a_call_that_fails_for_another_reason_is_no_half_pruned_model(
    between: Callable[[torch.Tensor], torch.Tensor],
) -> None:
    with pytest.raises(ModelError, match=r"does not run on inputs of shape .*: the network raised RuntimeError"):
        trace(Between(between), X)


def test_the_innermost_module_that_fails_is_named() -> None:
    class Fails(nn.Module):
        def forward(self, x: torch.Tensor) -> torch.Tensor:
            raise KeyError("no such size")

    with pytest.raises(ModelError, match=r"does not run on .*: between\.1 raised KeyError"):
        trace(Between(nn.Sequential(nn.ReLU(), Fails())), X)


class Tries(Between):
    """Goes on with another layer where the first one fails."""

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        y = self.first(x)
        try:
            return self.narrow(y)
        except RuntimeError:
            return self.last(y.view(*y.shape[:2], -1).view_as(y))


def test_what_the_network_catches_is_no_half_pruned_model() -> None:
    """It was refused as pruned by halves; of fewer channels the first layer would have run, so they stay."""
    model = Tries(torch.relu, narrow=nn.Conv2d(2, 2, 1).double())
    graph = trace(model, X)
    assert graph.by_name["first"].reason == "conv2d in narrow: it fails, with RuntimeError"
    assert [(each.op, each.module) for each in graph.barriers] == [("conv2d", "narrow")]


def test_what_fails_after_an_error_that_was_caught_is_said() -> None:
    class Behind(Tries):
        def forward(self, x: torch.Tensor) -> torch.Tensor:
            super().forward(x)
            raise KeyError("no such size")

    with pytest.raises(ModelError, match="the network raised KeyError"):
        trace(Behind(torch.relu, narrow=nn.Conv2d(2, 2, 1).double()), X)


def test_code_behind_an_error_that_was_caught_is_the_modules_own() -> None:
    """What ran behind it was told as of the module that had failed."""

    class Behind(Tries):
        def forward(self, x: torch.Tensor) -> torch.Tensor:
            return super().forward(x).cumprod(1)

    barriers = trace(Behind(torch.relu, narrow=nn.Conv2d(2, 2, 1).double()), X).barriers
    assert [each.module for each in barriers if each.op == "cumprod"] == [""]


def test_a_module_that_did_not_start_is_not_left() -> None:
    """A hook of its own stopped it: what ran behind it was told as of the module around."""

    class Behind(Tries):
        def forward(self, x: torch.Tensor) -> torch.Tensor:
            return super().forward(x).cumprod(1)

    def refuses(module: nn.Module, given: object) -> None:
        raise RuntimeError

    model = Behind(torch.relu, narrow=nn.Conv2d(4, 2, 1).double())
    model.narrow.register_forward_pre_hook(refuses)
    barriers = trace(nn.Sequential(model), X).barriers
    assert {each.module for each in barriers if each.op == "cumprod"} == {"0"}


def test_a_layer_that_only_training_reads_is_seen() -> None:
    """An auxiliary head narrows with the rest, although inference never runs it."""

    class Auxiliary(Between):
        def __init__(self) -> None:
            super().__init__(torch.relu, aux=nn.Conv2d(4, 2, 1))

        def forward(self, x: torch.Tensor) -> tuple[torch.Tensor, ...]:
            features = self.first(x).relu()
            return (self.last(features), self.aux(features)) if self.training else (self.last(features),)

    model = Auxiliary()
    graph = trace(model, X)
    small = compact(model, PrunePlan.from_keep(graph, {"first": [0, 1]}), graph)
    assert small.aux.in_channels == 2
    assert len(small.train()(X)) == 2


def test_modules_that_never_run_are_noted() -> None:
    assert "never ran: idle" in trace(Between(torch.relu, idle=nn.Conv2d(4, 2, 1)), X).notes[0]


def test_tracing_leaves_the_model_alone() -> None:
    model = Between(torch.relu).train()
    trace(model, X)
    assert model.training
    assert not model._forward_hooks


def test_outputs_handed_on_for_their_shape_alone_pin_nothing() -> None:
    """A head that returns its input maps beside its predictions kept the necks last layers from being pruned."""
    from seqprune.graph import outputs

    class Head(Between):
        def forward(self, x: torch.Tensor) -> dict[str, torch.Tensor]:
            features = self.first(x).relu()
            return {"boxes": self.last(features), "feats": features}

    model = Head(torch.relu)
    assert not trace(model, X).by_name["first"].free.any()
    outputs.register({f"{__name__}.{Head.__qualname__}": frozenset({"feats"})})
    exact(model, {"first": [0, 3]})
    tree = [({"feats": 1, "boxes": 2}, "feats"), {"inner": {"feats": 3}}]
    assert outputs.read(model, tree) == [[{"boxes": 2}, "feats"], {"inner": {}}]
    assert outputs.read(nn.ReLU(), tree) is tree


@pytest.mark.parametrize(
    "between",
    [
        lambda x: torch.cat((x, x), axis=1),
        lambda x: torch.cat(tensors=(x, x), dim=1),
        lambda x: torch.cat((torch.add(input=x, other=x), x), 1),
        lambda x: torch.cat(torch.chunk(input=x, chunks=2, dim=1)[::-1] * 2, 1),
    ],
)
def test_keywords_as_torch_and_numpy_name_them(between: Callable[[torch.Tensor], torch.Tensor]) -> None:
    assert exact(Between(between, reads=8), {"first": [0, 2]}).by_name["first"].free.all()


def test_a_layer_whose_weights_have_another_name_is_left_whole() -> None:
    """A module's name would not say which of its tensors is meant."""

    class Two(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.w1, self.w2 = nn.Parameter(torch.rand(5, 4, 1, 1)), nn.Parameter(torch.rand(4, 5, 1, 1))

        def forward(self, x: torch.Tensor) -> torch.Tensor:
            return nn.functional.conv2d(nn.functional.conv2d(x, self.w1), self.w2)

    graph = trace(Between(Two(), reads=4), X)
    assert [layer.name for layer in graph.all_layers] == ["first", "last"]
    assert not graph.by_name["first"].free.any()
    assert any("called weight, not w1" in barrier.reason for barrier in graph.barriers)


class Blur(nn.Module):
    """A depthwise filter kept in a buffer, the number of its groups written out."""

    def __init__(self, transposed: bool = False) -> None:
        super().__init__()
        self.transposed = transposed
        self.register_buffer("filt", torch.rand(4, 1, 3, 3))

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        convolve = nn.functional.conv_transpose2d if self.transposed else nn.functional.conv2d
        return convolve(x, self.filt, padding=1, groups=4)


class Held(nn.Module):
    """Arithmetic with a tensor of its own."""

    def __init__(self, act: Callable[[torch.Tensor, torch.Tensor], torch.Tensor]) -> None:
        super().__init__()
        self.act = act
        self.s = nn.Parameter(torch.rand(4, 1, 1) + 0.5)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return self.act(x, self.s)


@pytest.mark.parametrize(
    "between",
    [
        Blur(),
        Blur(transposed=True),
        Held(lambda x, s: x * s + s),
        Held(lambda x, s: x / s - s),
        Held(lambda x, s: (x - s) / s),
        lambda x: x * x**-1,
        lambda x: x * x.pow(2).mean((2, 3), keepdim=True).pow(-0.5),
        lambda x: x.expand_as(torch.zeros(2, 4, 6, 6)),
        lambda x: x / len(x[0]),
        lambda x: x + x.new_tensor(x.detach()),
        lambda x: x * x.new_tensor(x.detach()).mean(),
        lambda x: x * x.new_tensor(data=x.detach()).mean(),
        lambda x: nn.functional.linear(x.permute(0, 2, 3, 1), torch.eye(4).double()).permute(0, 3, 1, 2),
    ],
)
@pytest.mark.filterwarnings("ignore:To copy construct from a tensor")
def test_what_masking_cannot_show_is_left_whole(between: Callable[[torch.Tensor], torch.Tensor]) -> None:
    assert not trace(Between(between), X).by_name["first"].free.any()


def test_a_bias_that_all_outputs_share_leaves_its_layer_whole() -> None:
    class Shared(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.weight, self.bias = nn.Parameter(torch.rand(4, 4)), nn.Parameter(torch.rand(1))

        def forward(self, x: torch.Tensor) -> torch.Tensor:
            return nn.functional.linear(x.permute(0, 2, 3, 1), self.weight, self.bias).permute(0, 3, 1, 2)

    graph = trace(Between(Shared()), X)
    assert not graph.by_name["first"].free.any()
    assert "between" not in graph.by_name or not graph.by_name["between"].free.any()


def test_one_weight_read_in_two_ways_leaves_its_layer_whole() -> None:
    class Tied(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.encode = nn.Conv2d(4, 6, 3, padding=1, bias=False)

        def forward(self, x: torch.Tensor) -> torch.Tensor:
            return nn.functional.conv_transpose2d(self.encode(x), self.encode.weight, padding=1)

    graph = trace(Between(Tied()), X)
    assert not graph.by_name["between.encode"].free.any()
    assert "its weight is used in two ways" in [barrier.reason for barrier in graph.barriers]


@pytest.mark.parametrize(
    "between",
    [
        lambda x: x / x.size(dim=2),
        lambda x: x * x.shape[2:].numel(),
        lambda x: x / len(x),
        lambda x: x.relu().expand_as(x),
        lambda x: x * torch.full((1,), 3.0).type_as(x),
        lambda x: x * torch.full((1,), 3.0).to(x),
        lambda x: x * (x.pow(2).mean((2, 3), keepdim=True) + 0.1).pow(-0.5),
        lambda x: x.to(torch.result_type(x, X)) if x.type() == "torch.DoubleTensor" else x.flip(1),
    ],
)
def test_other_sizes_are_read_freely(between: Callable[[torch.Tensor], torch.Tensor]) -> None:
    assert exact(Between(between), {"first": [0, 2]}).by_name["first"].free.all()


class OwnError(Exception):
    """As a library of networks has its own."""


@pytest.mark.parametrize("error", [OwnError("not\nhere"), StopIteration(), LookupError("no such size")])
def test_whatever_a_network_fails_with_is_one_line(error: Exception) -> None:
    """``StopIteration`` and errors of a network's own came out raw."""

    class Fails(Between):
        def forward(self, x: torch.Tensor) -> torch.Tensor:
            raise error

    with pytest.raises(ModelError, match=f"does not run .* the network raised {type(error).__name__}") as raised:
        trace(Fails(torch.relu), X)
    assert "\n" not in str(raised.value)


@pytest.mark.parametrize(
    "error",
    [AttributeError("no targets"), KeyError("targets"), ZeroDivisionError("by zero"), OwnError("no"), StopIteration()],
)
def test_whatever_only_training_fails_with_is_a_note(error: Exception) -> None:
    class Trains(Between):
        def forward(self, x: torch.Tensor) -> torch.Tensor:
            if self.training:
                raise error
            return super().forward(x)

    graph = trace(Trains(torch.relu), X)
    assert graph.by_name["first"].free.all()
    assert "training mode was not traced" in " ".join(graph.notes)


@dataclass
class Outputs:
    logits: torch.Tensor
    inner: object = None


class Plain:
    def __init__(self, logits: torch.Tensor) -> None:
        self.logits, self.whole = logits, self


class Named(dict[str, object]):
    """As of libraries whose outputs are dictionaries with attributes."""


class Listed(list[object]):
    pass


class Slots:
    __slots__ = ("__hidden", "never")

    def __init__(self, logits: torch.Tensor) -> None:
        self.__hidden = logits


class OneSlot(Slots):
    __slots__ = "more"

    def __init__(self, logits: torch.Tensor) -> None:
        super().__init__(torch.zeros(1))
        self.more = logits


@pytest.mark.parametrize(
    "wrapped",
    [
        *(Outputs, Plain, lambda y: Outputs(torch.zeros(1), Plain(y)), lambda y: {"found": [Outputs(y)]}),
        *(lambda y: Named(found=y), lambda y: (torch.zeros(1), Named(found=[y])), lambda y: Listed([y, None]), Slots),
        *(OneSlot, lambda y: MappingProxyType({"found": Slots(y)}), lambda y: {"found": y}.values()),
        lambda y: UserDict(found=y),
    ],
)
def test_outputs_in_objects_stay_and_are_compared(wrapped: Callable[[torch.Tensor], object]) -> None:
    class Wraps(Between):
        def forward(self, x: torch.Tensor) -> object:  # type: ignore[override]
            return wrapped(super().forward(x))

    model = Wraps(torch.relu)
    graph = exact(model, {"first": [0, 2]})
    assert not graph.by_name["last"].free.any()
    other = mask(model, PrunePlan.from_keep(graph, {"first": [1, 3]}), graph)
    with pytest.raises(VerificationError, match="differs from the masked one"):
        verify(model, other, X)


def test_what_cannot_be_compared_is_refused() -> None:
    class Yields(Between):
        def forward(self, x: torch.Tensor) -> object:  # type: ignore[override]
            return iter([super().forward(x)])

    with pytest.raises(ModelError, match="returns a list_iterator"):
        trace(Yields(torch.relu), X)

    class Unordered(Between):
        def forward(self, x: torch.Tensor) -> object:  # type: ignore[override]
            return {super().forward(x)}

    with pytest.raises(ModelError, match="returns a set of tensors, without an order: return a list"):
        trace(Unordered(torch.relu), X)

    class Mixed(Between):
        def forward(self, x: torch.Tensor) -> object:  # type: ignore[override]
            return {super().forward(x), "name"}

    with pytest.raises(ModelError, match="returns a set of tensors"):
        trace(Mixed(torch.relu), X)

    class Nothing(Between):
        def forward(self, x: torch.Tensor) -> object:  # type: ignore[override]
            super().forward(x)
            return None

    with pytest.raises(VerificationError, match="nothing to compare"):
        verify(Nothing(torch.relu), Nothing(torch.relu), X)
    with pytest.raises(ModelError, match="no tensor in the example inputs"):
        trace(Between(torch.relu), (Outputs(X),))


def test_a_set_of_names_may_be_returned() -> None:
    class Named(Between):
        def forward(self, x: torch.Tensor) -> object:  # type: ignore[override]
            return super().forward(x), {"a name"}

    assert trace(Named(torch.relu), X).by_name["first"].free.all()
