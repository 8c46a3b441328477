"""What a parameter, the input or another layer gives to an operator: exact where it is followed, whole elsewhere."""

from __future__ import annotations

from collections.abc import Callable
from contextlib import nullcontext
from functools import partial
from typing import Any

import numpy as np
import pytest
import torch
from exactness import exact_on
from torch import nn
from torch.nn import functional as F  # noqa: N812 - its usual name

from seqprune import PrunePlan, compact, mask, trace, verify
from seqprune.errors import ModelError
from seqprune.graph.names import writes_in_place
from seqprune.graph.standins.operators import gate_heads
from seqprune.graph.standins.ultralytics import prompted_head
from seqprune.graph.values import OPAQUE, NoRule, Value
from seqprune.graph.watch import _check_values
from seqprune.testing.networks import randomise

X = torch.randn(2, 3, 6, 6, dtype=torch.float64, generator=torch.Generator().manual_seed(1))
Code = Callable[[Any, torch.Tensor, torch.Tensor], torch.Tensor]


class Net(nn.Module):
    """Two convolutions and a reader, with code between that may take the input as well."""

    def __init__(self, code: Code, reads: int = 4, last: nn.Module | None = None) -> None:
        super().__init__()
        self.first, self.other, self.twin = nn.Conv2d(3, 4, 3, padding=1), nn.Conv2d(3, 2, 1), nn.Conv2d(3, 4, 1)
        self.last = last or nn.Conv2d(reads, 2, 1)
        self.scale, self.square = nn.Parameter(torch.rand(4) + 0.5), nn.Parameter(torch.rand(2, 2) + 0.5)
        self.pair, self.mixed = nn.Parameter(torch.rand(2) + 0.5), nn.Linear(4, 4)
        self.grouped = nn.Conv2d(4, 4, 1, groups=2)
        self.transposed = nn.ConvTranspose2d(4, 4, 1, groups=2)
        self.code = code
        randomise(self, 0)
        self.bare, self.portion = nn.BatchNorm2d(4, affine=False), nn.Parameter(torch.tensor(0.5))
        self.register_buffer("total", torch.zeros(()))
        self.double().eval()

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return self.last(self.code(self, self.first(x), x))


exact = partial(exact_on, X, plans=2)


def written(m: Any, x: torch.Tensor) -> torch.Tensor:
    """A buffer that holds a number of the input, by a name that torch counts no changes of."""
    m.total.data.zero_().add_(x.sum(1).mean((0, 1, 2)))
    total: torch.Tensor = m.total
    return total


def tokens(x: torch.Tensor) -> torch.Tensor:
    return x.permute(0, 2, 3, 1)


def image(x: torch.Tensor) -> torch.Tensor:
    return x.permute(0, 3, 1, 2)


FOLLOWED: dict[str, Code] = {
    "a number for each place, of the input": lambda m, x, given: x * given.mean(1, keepdim=True),
    "a map of the input": lambda m, x, given: x * given.mean((0, 1)),
    "the input's number before it": lambda m, x, given: given.mean(1, keepdim=True) * x,
    "a scale with a dimension before it": lambda m, x, given: image(tokens(x) * m.scale[None]),
    "a scale taken whole": lambda m, x, given: image(tokens(x) * m.scale[:]),
    "a scale reshaped by name": lambda m, x, given: x * torch.reshape(m.scale, (-1, 1, 1)),
    "dimensions before all others": lambda m, x, given: image(tokens(x)[None, None, None][0, 0, 0]),
    "a norm without weights": lambda m, x, given: m.bare(x),
    "a new tensor of its type": lambda m, x, given: x * x.new_ones(1),
    "what is zero times what is not": lambda m, x, given: x.sigmoid() * x,
    "what is not zero times what is": lambda m, x, given: x * x.sigmoid(),
    "a number of its own, viewed": lambda m, x, given: x * m.portion.view(1, 1, 1) * m.portion[None],
    "parts that a call names": lambda m, x, given: torch.stack(tensors=[x, x.relu()], dim=0).sum(0),
    "the first power": lambda m, x, given: x**1,
    "a root": lambda m, x, given: x.abs() ** 0.5,
    "a linear layer without a bias": lambda m, x, given: image(F.linear(tokens(x), m.mixed.weight)),
    "dropout in training": lambda m, x, given: F.dropout(x, 0.5, m.training),
    "a product with one number for each place": lambda m, x, given: torch.einsum(
        "bchw,bchw->bchw", x, given.mean(1, keepdim=True)
    ),
    "a diagonal of the input": lambda m, x, given: x * torch.diagonal(given[0, 0])[None],
    "the ones around a scale": lambda m, x, given: x * m.scale.view(1, -1, 1, 1) / m.scale.view(1, -1, 1, 1).shape[2],
    "ones for a number of the input": lambda m, x, given: x * torch.ones_like(given.sum()),
    "a number of all channels in a buffer": lambda m, x, given: x * written(m, x),
}


@pytest.mark.parametrize("name", FOLLOWED)
def test_what_is_followed_is_free_and_exact(name: str) -> None:
    graph = exact(Net(FOLLOWED[name]))
    assert graph.by_name["first"].free.all(), graph.by_name["first"].reason
    assert graph.folds == ()


def test_ones_for_the_input_stand_beside_channels_as_they_are() -> None:
    graph = exact(Net(lambda m, x, given: torch.cat([x, torch.ones_like(given)], 1), 7))
    assert graph.by_name["first"].free.all(), graph.by_name["first"].reason
    assert graph.folds == ()


def test_a_scale_of_two_channels_and_of_two_columns_keeps_both() -> None:
    def code(m: Any, x: torch.Tensor, given: torch.Tensor) -> torch.Tensor:
        y = m.other(given) * m.pair.view(-1, 1, 1)
        return x[..., :2] * m.pair + y.sum(1, keepdim=True)[..., :2]

    layer = exact(Net(code)).by_name["other"]
    assert not layer.free.any()
    assert layer.reason == "what combines it with channels in the network reads the parameter"


def test_a_constant_viewed_by_a_number_changes_nothing_for_other_numbers() -> None:
    def code(m: Any, x: torch.Tensor, given: torch.Tensor) -> torch.Tensor:
        y = m.twin(given)
        scale = torch.ones(4).double().view(1, x.shape[1], 1, 1)
        return x * scale + y.view(len(y), y.shape[1], -1).view(y.shape).sum(1, keepdim=True)

    graph = exact(Net(code))
    assert not graph.by_name["first"].free.any()
    assert graph.by_name["twin"].free.all(), graph.by_name["twin"].reason


def test_a_barrier_is_told_once_whatever_is_done_with_what_it_lost() -> None:
    graph = trace(Net(lambda m, x, given: x * x.mean().sqrt().exp()), X)
    assert [each.op for each in graph.barriers] == ["mean", "mul"]


def test_a_parameter_that_is_returned_keeps_its_shape() -> None:
    class Tells(Net):
        def forward(self, x: torch.Tensor) -> Any:
            return super().forward(x), self.scale

    layer = trace(Tells(lambda m, x, given: x * m.scale.view(-1, 1, 1)), X).by_name["first"]
    assert not layer.free.any()
    assert layer.reason == "what it returns in the network reads the parameter"


def row_written(x: torch.Tensor) -> torch.Tensor:
    y = x.clone()
    y[:, :, 0] = 1.0
    return y


def constant(x: torch.Tensor) -> torch.Tensor:
    return x.sigmoid()


def varied(x: torch.Tensor) -> torch.Tensor:
    """Not zero once removed, nor one number: a mean over a border of zeros."""
    return F.avg_pool2d(x.sigmoid(), 3, 1, 1)


def four(given: torch.Tensor) -> torch.Tensor:
    return torch.cat([given, given.mean(1, True)], 1)


WHOLE: dict[str, tuple[Code, str]] = {
    "a sum with the input": (lambda m, x, given: x + given.mean(1, keepdim=True), "not zero once removed"),
    "no zero times the input": (lambda m, x, given: x.sigmoid() * given.mean(1, keepdim=True), "not zero once removed"),
    "the input's own channels": (lambda m, x, given: x * four(given)[0], "cannot be removed"),
    "the input's own channels before it": (lambda m, x, given: four(given)[0] * x, "cannot be removed"),
    "a constant as long as channels": (
        lambda m, x, given: x * torch.ones(1).double().expand(x.shape[1]).sum(),
        "reads their number",
    ),
    "a scale that what was lost has met": (
        lambda m, x, given: [m.twin(given).flip(1) * m.scale.view(-1, 1, 1), x * m.scale.view(-1, 1, 1)][1],
        "held by one tensor that is used twice",
    ),
    "a parameter of rows and columns": (lambda m, x, given: x * m.square.view(-1, 1, 1), "no rule|parameter|constant"),
    "a scale that a call names": (
        lambda m, x, given: x * torch.relu(input=m.scale).view(-1, 1, 1),
        "constant that has one entry per channel",
    ),
    "a scale to the power of what is none": (
        lambda m, x, given: x * (m.scale ** torch.arange(4)).view(-1, 1, 1),
        "constant that has one entry per channel",
    ),
    "a product that names a factor": (
        lambda m, x, given: x * torch.mul(m.scale, other=m.portion).view(-1, 1, 1),
        "constant that has one entry per channel",
    ),
    "a constant times a scale": (
        lambda m, x, given: x * (torch.arange(4) * m.scale).view(-1, 1, 1),
        "constant that has one entry per channel",
    ),
    "a scale of channels times the same of rows": (
        lambda m, x, given: x[:, :, :4, :4] * (m.scale.view(-1, 1, 1) * m.scale.view(1, -1, 1)),
        "constant that has one entry per channel",
    ),
    "the greater of channels and what was worked out": (
        lambda m, x, given: torch.maximum(x, m.scale.relu().view(-1, 1, 1)),
        "maximum in the network reads the parameter",
    ),
    "a sum that is written elsewhere": (
        lambda m, x, given: torch.add(x, x, out=torch.empty_like(given[:, :1].expand(-1, 4, -1, -1))),
        "add in the network: no rule for this operator",
    ),
    "divided by what may be zero": (lambda m, x, given: x / x.relu(), "divides by channels that may be zero"),
    "divided by a number that an activation made zero": (
        lambda m, x, given: x / (x - 1.0).relu(),
        "divides by channels that may be zero",
    ),
    "one entry of a scale": (lambda m, x, given: x * m.scale.view(-1, 1, 1) * m.scale[-1], "reads the parameter"),
    "a constant and what is none": (lambda m, x, given: constant(x) + varied(x), "not zero once removed"),
    "what is no constant and one": (lambda m, x, given: varied(x) + constant(x), "not zero once removed"),
    "a norm of a constant": (lambda m, x, given: m.bare(constant(x)), "not zero once removed"),
    "one channel by number": (lambda m, x, given: x[:, 0][:, None].repeat(1, 4, 1, 1), "picks channels by number"),
    "a sum with what a buffer holds of the input": (lambda m, x, given: x + written(m, x), "not zero once removed"),
    "a sum with what a buffer counts": (
        lambda m, x, given: [m.total.data.add_(1), x + m.total][1],
        "not zero once removed",
    ),
    "a sum with a number that code writes, the same so far": (
        lambda m, x, given: [m.total.fill_(0.0), x + m.total][1],
        "not zero once removed",
    ),
    "a row that is written": (lambda m, x, given: row_written(x), "setitem in the network: no rule"),
    "a constant to the power of channels": (
        lambda m, x, given: torch.pow(torch.full((1,), 2.0).double(), x),
        "a constant takes part where channels were expected",
    ),
    "a scale times a number of the input": (
        lambda m, x, given: [given.sum() * m.scale, x * m.scale.view(-1, 1, 1)][1],
        "reads the parameter",
    ),
    "a constant viewed by their number": (
        lambda m, x, given: x * torch.ones(4).double().view(1, x.shape[1], 1, 1),
        "reads their number",
    ),
    "times a number of the input": (lambda m, x, given: x * given.sum(), "joins channels that were lost at an earlier"),
    "what the input makes for each channel, elsewhere": (
        lambda m, x, given: torch.einsum("bchw,cbw->bchw", x, given.mean(1).permute(1, 0, 2)[:4]),
        "with what has one entry per channel",
    ),
    "channels repeated by a number each": (
        lambda m, x, given: x.repeat_interleave(torch.tensor([1, 2, 1, 0]), 1),
        "repeats channels by a tensor of numbers",
    ),
    "a power by a number of NumPy's": (lambda m, x, given: x ** np.int64(2), "only tensor ** number is followed"),
    "a norm over space of what is no constant": (
        lambda m, x, given: F.layer_norm(varied(x), (6, 6)),
        "not zero once removed",
    ),
    "pixels of what are no channels": (
        lambda m, x, given: x * F.pixel_shuffle(x.permute(0, 2, 1, 3)[:, :4], 2).mean(),
        "spreads over space what are no channels",
    ),
    "channels of what are none": (
        lambda m, x, given: x * F.pixel_unshuffle(x.permute(0, 2, 1, 3), 2).mean(),
        "makes channels of what are none",
    ),
    "a scale reshaped by a named shape": (
        lambda m, x, given: x * torch.reshape(m.scale, shape=(-1, 1, 1)),
        "constant that has one entry per channel",
    ),
    "a linear layer's bias that is computed": (
        lambda m, x, given: image(F.linear(tokens(x), m.mixed.weight, 2 * m.mixed.bias)),
        "the weight is computed",
    ),
    "a product by lists of numbers": (
        lambda m, x, given: torch.einsum(x, [0, 1, 2, 3], x, [0, 1, 2, 3], [0, 1, 2, 3]),
        "by capital letters",
    ),
    "a power by what the input makes": (
        lambda m, x, given: x ** given[:1].mean((0, 1, 2, 3), keepdim=True),
        "only tensor ** number is followed",
    ),
    "a scale taken for rows": (
        lambda m, x, given: (x * m.scale.view(-1, 1, 1))[:, :, :2, :2] * m.scale.view(1, 2, -1),
        "reads the parameter",
    ),
    "what has no rule": (lambda m, x, given: torch.rot90(x, 1, (2, 3)), "rot90 in the network: no rule"),
    "a diagonal": (lambda m, x, given: x * torch.diagonal(x[0, 0]).mean(), "picks channels by number"),
    "the largest of all": (lambda m, x, given: x + x.max(), "reduces over channels"),
    "a limit by name": (lambda m, x, given: torch.clamp(x, max=torch.ones(()).double()), "limits are tensors"),
    "groups as many as channels elsewhere": (
        lambda m, x, given: F.conv2d(x, m.grouped.weight, None, groups=m.other(given).shape[1]),
        "the number of groups is a number of channels",
    ),
    "transposed groups as many as channels elsewhere": (
        lambda m, x, given: F.conv_transpose2d(x, m.transposed.weight, None, groups=m.other(given).shape[1]),
        "the number of groups is a number of channels",
    ),
}


@pytest.mark.parametrize("name", WHOLE)
def test_what_is_not_followed_stays_whole(name: str) -> None:
    code, reason = WHOLE[name]
    layer = trace(Net(code), X).by_name["first"]
    assert not layer.free.any()
    assert any(each in layer.reason for each in reason.split("|")), layer.reason


def test_a_constant_beside_what_is_none() -> None:
    """All that one reader takes up must be one number: the other stays."""
    for code in (
        lambda m, x, given: torch.cat([constant(x), varied(x)], 1),
        lambda m, x, given: torch.cat([varied(x), constant(x)], 1),
    ):
        assert not trace(Net(code, 8), X).by_name["first"].free.any()


@pytest.mark.parametrize("tensor", ["weight", "bias"])
def test_a_constant_read_by_a_layer_that_shares_a_tensor(tensor: str) -> None:
    model = Net(lambda m, x, given: x.sigmoid())
    model.twin = nn.Conv2d(4, 2, 1).double()  # which never runs
    setattr(model.twin, tensor, getattr(model.last, tensor))
    layer = trace(model, X).by_name["first"]
    assert not layer.free.any()
    assert "it shares its weights with another" in layer.reason


def test_the_input_turned_is_read_in_any_dimension() -> None:
    model = Net(lambda m, x, given: x, last=nn.Conv2d(4, 2, 1))
    model.first = nn.Conv2d(6, 4, 1).double()
    turned = nn.Sequential(Turn(), model.first, nn.ReLU(), model.last)
    assert exact(turned.double().eval()).by_name["1"].free.all()


class Turn(nn.Module):
    """Rows for channels."""

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return x.transpose(1, 2)


class Flat(nn.Module):
    """Channels behind the last dimension but one, merged into it."""

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return tokens(x).flatten(2)


def test_channels_at_the_end_of_what_is_merged() -> None:
    model = nn.Sequential(nn.Conv2d(3, 4, 1), Flat(), nn.Linear(24, 2)).double().eval()
    randomise(model, 0)
    graph = exact(model)
    assert graph.by_name["0"].free.all()


@pytest.mark.parametrize("kind", [nn.Conv2d, nn.ConvTranspose2d])
def test_a_number_of_channels_for_a_stride_is_read(kind: type[nn.Module]) -> None:
    call = F.conv2d if kind is nn.Conv2d else F.conv_transpose2d

    def code(m: Any, x: torch.Tensor, given: torch.Tensor) -> torch.Tensor:
        return call(x, m.extra.weight, m.extra.bias, stride=m.other(given).shape[1])

    model = Net(code)
    model.extra = kind(4, 4, 1).double()
    layer = trace(model, X).by_name["other"]
    assert not layer.free.any()
    assert "reads their number" in layer.reason


@pytest.mark.parametrize("kind", ["max", "avg", "lp", "adaptive_max", "adaptive_avg"])
@pytest.mark.parametrize("space", [1, 2, 3])
def test_pooling_over_any_space_keeps_channels(kind: str, space: int) -> None:
    pool = getattr(F, f"{kind}_pool{space}d")
    arguments = {"lp": (2.0, 2), "max": (2,), "avg": (2,)}.get(kind, (1,))

    class Pooled(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            conv = getattr(nn, f"Conv{space}d")
            self.first, self.last = conv(3, 4, 1), conv(4, 2, 1)

        def forward(self, x: torch.Tensor) -> torch.Tensor:
            return self.last(pool(self.first(x), *arguments))

    x = torch.rand(1, 3, *[4] * space, dtype=torch.float64)
    assert trace(Pooled().double().eval(), x).by_name["first"].free.all()


@pytest.mark.parametrize("reshaped", [torch.reshape, torch.unsqueeze])
def test_a_parameter_reshaped_by_name_alone(reshaped: Callable[..., torch.Tensor]) -> None:
    """Its tensor lies among the keywords: the trace ended in an IndexError of its own."""
    how = {"shape": (-1, 1, 1)} if reshaped is torch.reshape else {"dim": 0}
    graph = trace(Net(lambda m, x, given: x * reshaped(input=m.scale, **how).view(-1, 1, 1)), X)
    assert not graph.by_name["first"].free.any()


@pytest.mark.parametrize("like", [torch.zeros_like, torch.rand_like, torch.empty_like])
def test_a_tensor_made_in_the_shape_of_channels_that_are_named(like: Callable[..., torch.Tensor]) -> None:
    """``zeros_like(input=x)``: what is as wide as the channels was taken for a constant."""
    layer = trace(Net(lambda m, x, given: torch.cat([x, 0 * like(input=x)], 1), 8), X).by_name["first"]
    assert not layer.free.any()
    assert "reads their number" in layer.reason


def test_an_operator_in_place_on_what_is_named() -> None:
    """As before: an IndexError."""
    assert exact(Net(lambda m, x, given: torch.relu_(input=x))).by_name["first"].free.all()


def empty(*shape: int) -> torch.Tensor:
    return torch.empty(shape, dtype=torch.float64)


@pytest.mark.parametrize(
    "code",
    [
        lambda x: torch.cat((x, x), 1, out=empty(len(x), 8, *x.shape[2:])),
        lambda x: torch.cat(tensors=(x, x), dim=1, out=empty(len(x), 8, *x.shape[2:])),
        lambda x: torch.cat((torch.add(input=x, other=x, out=empty(len(x), 4, *x.shape[2:])), x), 1),
    ],
)
def test_what_is_written_where_the_code_says(code: Callable[[torch.Tensor], torch.Tensor]) -> None:
    """The list of parts was taken for what is written: the trace ended in an AttributeError of its own."""
    layer = exact(Net(lambda m, x, given: code(x), 8)).by_name["first"]
    assert not layer.free.any()
    assert "no rule for this operator" in layer.reason


@pytest.mark.parametrize(("shape", "right"), [((2, 3), True), ((2, 4), False), ((3,), False), ((3, 2), False)])
def test_what_a_rule_says_is_held_against_what_there_is(shape: tuple[int, ...], right: bool) -> None:
    assert not OPAQUE.fixed
    with pytest.raises(NoRule, match="lost at an earlier barrier"):
        OPAQUE.known()
    _check_values([OPAQUE], [torch.zeros(shape)])
    with nullcontext() if right else pytest.raises(NoRule, match="leaves another number of channels"):
        _check_values([Value(np.arange(3), 1)], [torch.zeros(shape)])


@pytest.mark.parametrize("made", [lambda x: torch.zeros_like(X), lambda x: x.flip(1)[:, :3]], ids=["constant", "lost"])
def test_a_layer_of_another_width_than_what_reaches_it_from_no_layer(made: Callable[..., torch.Tensor]) -> None:
    model = Net(lambda m, x, given: made(torch.cat([x, x], 1)))
    with pytest.raises(ModelError, match=r"^last takes 4 channels, but 3 reach it: the model was pruned by halves"):
        trace(model, X)


@torch.jit.script
def made_unwatched() -> torch.Tensor:
    return torch.ones([1], dtype=torch.float64)


def test_what_is_made_where_nobody_watches_is_made_as_it_says() -> None:
    def code(m: Any, x: torch.Tensor, given: torch.Tensor) -> torch.Tensor:
        assert made_unwatched().dtype is torch.float64
        return x * made_unwatched()

    assert trace(Net(code), X).by_name["first"].free.all()


def test_what_was_lost_stays_and_what_it_chooses_among_is_followed() -> None:
    def code(m: Any, x: torch.Tensor, given: torch.Tensor) -> torch.Tensor:
        return torch.where(m.twin(given).mean(1, True) > 0, x, 2 * x)

    graph = exact(Net(code))
    assert graph.by_name["first"].free.all()
    assert "reduces over channels" in graph.by_name["twin"].reason


def test_a_constant_is_not_taken_for_a_buffer_that_was_replaced() -> None:
    """It was known by its id, which the next tensor may get: the constant would have lost channels with the buffer."""

    def code(m: Any, x: torch.Tensor, given: torch.Tensor) -> torch.Tensor:
        if m.made is None:
            known = {id(each) for each in m.norms.buffers()}
            for norm in m.norms:
                norm.running_mean = norm.running_mean + 1
            made = [torch.ones(4, 1, 1) for _ in range(3000)]
            m.made = next((each for each in made if id(each) in known), made[0])
        return x * m.made

    model = Net(code)
    model.made, model.norms = None, nn.ModuleList(nn.BatchNorm2d(4) for _ in range(20))
    layer = trace(model, X).by_name["first"]
    assert not layer.free.any()
    assert "constant that has one entry per channel" in layer.reason


def unwatched(x: torch.Tensor) -> torch.Tensor:
    """The same, by no call that a trace sees."""
    return torch.Tensor._make_subclass(torch.Tensor, x)


def test_what_was_lost_stays_beside_what_is_followed() -> None:
    """Wherever the channels lie."""

    def code(m: Any, x: torch.Tensor, given: torch.Tensor) -> torch.Tensor:
        return image(torch.cat([tokens(x), unwatched(tokens(m.other(given)))], 3))

    layers = exact(Net(code, 6)).by_name
    assert layers["first"].free.all()
    assert not layers["other"].free.any()


def test_heads_whose_gates_were_lost_are_followed() -> None:
    layers = exact(Net(lambda m, x, given: gate_heads(x, unwatched(m.other(given).sigmoid())))).by_name
    assert layers["first"].free.all()
    assert not layers["other"].free.any()


def test_a_parameter_that_a_norm_over_space_reads_keeps_its_length() -> None:
    model = Net(lambda m, x, given: F.layer_norm(x * m.scale.view(-1, 1, 1), (6,), m.scale), 6)
    model.first, model.scale = nn.Conv2d(3, 6, 1).double(), nn.Parameter(torch.rand(6).double())
    layer = exact(model).by_name["first"]
    assert not layer.free.any()
    assert "layer_norm in the network reads the parameter" in layer.reason


def test_a_constant_viewed_by_a_number_of_channels_pins_no_others() -> None:
    def code(m: Any, x: torch.Tensor, given: torch.Tensor) -> torch.Tensor:
        y = m.twin(given)
        y = y.view(len(y), y.shape[1], 6, 6)
        return torch.cat([y, x * torch.ones(4).double().view(1, x.shape[1], 1, 1)], 1)

    layers = exact(Net(code, 8)).by_name
    assert layers["twin"].free.all()
    assert not layers["first"].free.any()


def test_the_length_of_a_view_of_two_numbers_is_one_of_channels() -> None:
    def code(m: Any, x: torch.Tensor, given: torch.Tensor) -> torch.Tensor:
        scale = m.scale.view(1, -1, 1, 1)
        return x * scale / scale.shape[1]

    model = Net(code, 2)
    model.first, model.scale = nn.Conv2d(3, 2, 1).double(), nn.Parameter(torch.rand(2).double())
    assert "reads their number" in trace(model, X).by_name["first"].reason


def test_a_width_that_a_layer_of_torch_holds_is_stated_nowhere_else() -> None:
    graph = exact(Net(lambda m, x, given: x.flatten(2).view(2, m.last.in_channels, 6, 6) if len(x) == 2 else x))
    assert graph.by_name["first"].free.all()
    assert graph.widths == ()


def test_who_splits_is_said() -> None:
    graph = trace(Net(lambda m, x, given: torch.cat(x.split(m.other(given).shape[1], 1), 1)), X)
    assert "the network splits them by a width it holds" in {balance.reason for balance in graph.balances}


def test_what_layers_read_is_told_of_weights_alone() -> None:
    graph = trace(Net(FOLLOWED["a scale taken whole"]), X)
    first = graph.by_name["first"].groups
    assert {name: groups.tolist() for name, groups in graph.weight_inputs.items()} == {
        "first": [0, 0, 0],
        "last": first.tolist(),
    }
    assert graph.weight_outputs.keys() == {"first", "last"}
    assert (graph.weight_outputs["first"] == first).all()


@pytest.mark.parametrize("kind", [nn.Conv2d, nn.ConvTranspose2d])
def test_a_depthwise_convolution_of_two_channels(kind: Callable[..., nn.Module]) -> None:
    model = nn.Sequential(nn.Conv2d(3, 2, 1), kind(2, 2, 1, groups=2), nn.ReLU(), nn.Conv2d(2, 2, 1)).double()
    graph = trace(model.eval(), X)
    plan = PrunePlan.from_keep(graph, {"0": [1]})
    small = compact(model, plan, graph)
    verify(masked := mask(model, plan, graph), small, X)
    assert not masked[1].weight[0].any()
    assert masked[1].weight[1].any()
    assert (small[1].groups, small[1].in_channels, small[1].out_channels) == (1, 1, 1)


@pytest.mark.parametrize(
    ("function", "kwargs", "writes"),
    [
        *((getattr(torch.Tensor, f"__{name}__"), {}, True) for name in ("iadd", "imul", "ipow", "setitem", "ior")),
        *((getattr(torch.Tensor, f"__{name}__"), {}, False) for name in ("add", "invert", "getitem", "radd")),
        *((torch.relu_, {}, True), (torch.relu, {}, False), (torch.ops.aten.add_.Tensor, {}, True)),
        *((F.relu, {"inplace": True}, True), (F.relu, {"inplace": False}, False)),
        *((torch.add, {"out": torch.empty(0)}, True), (torch.add, {"out": None}, False)),
    ],
)
def test_what_a_call_writes_into(function: Callable[..., object], kwargs: dict[str, Any], writes: bool) -> None:
    assert writes_in_place(function, kwargs) is writes


def test_a_stand_in_of_yoloe_runs_what_reads_the_visual_prompts() -> None:
    """As many maps as the head has levels, and a mask for one prompt as large as the first."""

    class Head(nn.Module):
        def forward(self, x: list[torch.Tensor], more: int, *, named: int) -> tuple[int, int, int]:
            return len(x), more, named

    head, maps, seen = Head(), [torch.zeros(2, 4, 6, 5), torch.zeros(2, 4, 3, 3), torch.zeros(2, 1, 1, 1)], []
    assert prompted_head(head, maps, 7, named=8) == (3, 7, 8)
    head.nl, head.savpe = 2, lambda given, mask: seen.append((len(given), mask.shape, float(mask.min())))
    assert prompted_head(head, maps, 7, named=8) == (3, 7, 8)
    assert seen == [(2, (2, 1, 6, 5), 1.0)]
