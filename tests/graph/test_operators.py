"""Operators beyond layers, pooling and arithmetic: those that leave channels where they are free all of them, exactly;
across channels the same operators pin them or, where removed ones add nothing, are exact too."""

from __future__ import annotations

from collections.abc import Callable
from functools import partial
from typing import Any

import pytest
import torch
from exactness import exact_on
from torch import nn
from torch.nn import functional as F  # noqa: N812 - its usual name

from seqprune import trace
from seqprune.testing.networks import randomise

X = torch.randn(2, 3, 6, 6, dtype=torch.float64, generator=torch.Generator().manual_seed(1))
WIDTH = 8
Call = Callable[["Net", torch.Tensor], torch.Tensor]


class Net(nn.Module):
    """What is tried, between two layers, beside layers of its own, a parameter a channel and a map of truth."""

    def __init__(self, between: Call) -> None:
        super().__init__()
        self.between = between
        self.first, self.last, self.other = nn.Conv2d(3, WIDTH, 1), nn.Conv2d(WIDTH, 2, 1), nn.Conv2d(WIDTH, WIDTH, 1)
        self.third, self.wide = nn.Conv2d(WIDTH, WIDTH, 1), nn.Conv2d(WIDTH, 2 * WIDTH, 1)
        self.flow, self.spots = nn.Conv2d(WIDTH, 2, 1), nn.Conv2d(WIDTH, 1, (6, 2))
        self.slope, self.power = nn.Parameter(torch.rand(1, WIDTH, 1, 1)), nn.Parameter(torch.full((1,), 3.0))
        self.register_buffer("asks", torch.rand(2, 1, 36))
        self.register_buffer("chosen", torch.arange(WIDTH).view(-1, 1, 1) % 3 > 0)
        self.register_buffer("inside", torch.arange(36).reshape(6, 6) % 3 > 0)
        randomise(self, 0)
        with torch.no_grad():
            self.power.fill_(3.0)
        self.double().eval()
        self._keep_what_runs()

    def _keep_what_runs(self) -> None:
        """For a layer that never ran a trace tries large images, of which attention makes gigabytes."""
        ran: set[str] = set()
        hooks = [
            layer.register_forward_hook(lambda *_, name=name: ran.add(name)) for name, layer in self.named_children()
        ]
        self(X)
        for hook in hooks:
            hook.remove()
        for name in {name for name, _ in self.named_children()} - ran:
            delattr(self, name)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return self.last(self.between(self, self.first(x).relu()))


exact = partial(exact_on, X)


def heads(n: Any, x: torch.Tensor, *shape: int) -> torch.Tensor:
    """Attention among places by heads of that shape."""
    q, k, v = (f(x).flatten(2).transpose(1, 2) for f in (n.other, n.third, n.other))
    q, k, v = (each.view(*each.shape[:-1], *shape).transpose(1, 2) for each in (q, k, v))
    y = (q @ k.transpose(-1, -2)).softmax(-1) @ v
    return y.transpose(1, 2).flatten(2).transpose(1, 2).reshape(x.shape[0], -1, 6, 6)


def single(n: Any, x: torch.Tensor, **options: Any) -> torch.Tensor:
    parts = (f(x).flatten(2).transpose(1, 2) for f in (n.other, n.third, n.other))
    return F.scaled_dot_product_attention(*parts, **options).transpose(1, 2).unflatten(2, (6, 6))


def smooth(x: torch.Tensor) -> torch.Tensor:
    """Neither zero nor one number where channels are removed."""
    return F.avg_pool2d(x.sigmoid(), 3, 1, 1)


def spots(x: torch.Tensor) -> torch.Tensor:
    """Where to look in an image, around its middle."""
    rows = torch.linspace(-0.9, 1.1, 6, dtype=x.dtype)
    return torch.stack(torch.meshgrid(rows, rows**2, indexing="ij"), -1).expand(len(x), 6, 6, 2)


def back_at_its_places(n: Any, x: torch.Tensor) -> torch.Tensor:
    rising = torch.linspace(1, 2, x.shape[2] * x.shape[3], dtype=x.dtype).view(
        x.shape[2:]
    )  # else two may be the greatest
    pooled, places = F.max_pool2d(x * rising, 2, return_indices=True)
    return F.max_unpool2d(n.other(pooled), places, 2)


def unpooled(
    x: torch.Tensor, maxima: Callable[[torch.Tensor], torch.Tensor], places: Callable[[torch.Tensor], torch.Tensor]
) -> torch.Tensor:
    """As many rows as channels, so that one may be taken for the other."""
    found = F.max_pool2d(x.repeat(1, 1, 2, 1)[:, :, :WIDTH], 1, return_indices=True)
    return F.max_unpool2d(maxima(found[0]), places(found[1]), 1)


def attended(asks: torch.Tensor, x: torch.Tensor) -> torch.Tensor:
    return F.scaled_dot_product_attention(asks, asks, x.flatten(2).mT).mT.unflatten(2, (6, 6))


FOLLOWED: dict[str, Call] = {
    "a mask of its own": lambda n, x: x * (x > 0.1).to(x.dtype),
    "a mask of another's": lambda n, x: x * (n.other(x) <= x).type_as(x),
    "a mask of both": lambda n, x: x * ((x > 0.1) & ~(n.other(x) > 1)),
    "a mask of sums over channels": lambda n, x: x * (x.sum(1, keepdim=True) > 1),
    "where, place by place": lambda n, x: torch.where(x > 0.2, x, n.other(x)),
    "where, or zero": lambda n, x: torch.where(x.isnan(), torch.zeros_like(x), x) + torch.where(x > 1, 0.0, x),
    "where of a map": lambda n, x: torch.where(n.inside, x, n.other(x)),
    "a map filled": lambda n, x: x.masked_fill(n.inside, 0.0),
    "a map filled in place": lambda n, x: n.other(x).masked_fill_(n.inside, 0.0),
    "a map filled with less": lambda n, x: x * n.other(x).masked_fill(n.inside, -1e4).flatten(2).softmax(-1).view_as(x),
    "ones": lambda n, x: x * torch.ones_like(x) * torch.full_like(x, 2.0),
    "addcmul": lambda n, x: torch.addcmul(x, n.other(x), n.third(x)),
    "addcmul of a parameter": lambda n, x: torch.addcmul(x, n.slope, n.other(x), value=0.5),
    "addcmul in place": lambda n, x: n.other(x).addcmul_(x, n.slope),
    "addcdiv": lambda n, x: torch.addcdiv(x, n.other(x), x.abs() + 1),
    "lerp": lambda n, x: torch.lerp(x, n.other(x), n.slope) + torch.lerp(x, n.other(x), 0.3),
    "deviations": lambda n, x: (x - x.mean((2, 3), keepdim=True)) / (x.std((2, 3), keepdim=True) + 1e-5),
    "deviations without a dimension": lambda n, x: x * x.flatten(2).var(-1, correction=0)[..., None, None],
    "deviations and means": lambda n, x: x * torch.std_mean(x, (2, 3), keepdim=True)[0],
    "root mean squares": lambda n, x: x * (x.pow(2).mean((2, 3), keepdim=True) + 1e-6).rsqrt(),
    "turned root mean squares": lambda n, x: x * (1 / (x.square().mean((2, 3), keepdim=True) + 1e-6).sqrt()),
    "norms": lambda n, x: x / (x.norm(dim=(2, 3), keepdim=True) + 1e-6),
    "norms of vectors": lambda n, x: x * torch.linalg.vector_norm(x, 3, dim=(2, 3), keepdim=True),
    "sums so far": lambda n, x: x.cumsum(3) + x.cummax(2)[0],
    "logarithms of sums": lambda n, x: x * x.logsumexp((2, 3), keepdim=True),
    "in order": lambda n, x: x.sort(-1)[0] * x.flatten(2).topk(4, -1).values.mean(-1)[..., None, None],
    "the middle": lambda n, x: x * x.flatten(2).median(-1, keepdim=True)[0][..., None],
    "a norm over space": lambda n, x: F.layer_norm(x, (6, 6)),
    "generalised means": lambda n, x: x * F.adaptive_avg_pool2d(x.clamp(min=1e-6).pow(n.power), 1).pow(1.0 / n.power),
    "einsum, element by element": lambda n, x: torch.einsum("bchw,bchw->bchw", x, n.other(x)),
    "einsum with gates": lambda n, x: torch.einsum("bchw, bc -> bchw", x, n.other(x).mean((2, 3))),
    "einsum with dots": lambda n, x: torch.einsum("...hw,...hw->...hw", x, n.other(x)),
    "einsum over space": lambda n, x: x * torch.einsum("bchw->bc", n.other(x))[..., None, None],
    "einsum over channels": lambda n, x: x * torch.einsum("bchw,bchw->bhw", x, n.other(x))[:, None],
    "einsum turned": lambda n, x: torch.einsum("bchw->bwhc", x).transpose(1, 3),
    "attention by einsum": lambda n, x: torch.einsum(
        "bnm,bcm->bcn",
        torch.einsum("bcn,bcm->bnm", n.other(x).flatten(2), n.third(x).flatten(2)).softmax(-1),
        x.flatten(2),
    ).view_as(x),
    "attention by products": lambda n, x: (
        x.flatten(2) @ (n.other(x).flatten(2).mT @ n.third(x).flatten(2)).softmax(-1)
    ).view_as(x),
    "products over space": lambda n, x: x @ n.inside.to(x.dtype),
    "attention by channels": lambda n, x: x * single(n, x, scale=0.3),
    "attention by heads": lambda n, x: heads(n, x, 2, -1),
    "attention by whole heads": lambda n, x: heads(n, x, -1, 4),
    "groups apart and together": lambda n, x: n.wide(x).view(2, 2, -1, 6, 6).amax(1) + x,
    "groups in the batch": lambda n, x: (x.view(2 * 4, -1, 6, 6) * 2).view(2, -1, 6, 6) if len(x) == 2 else x * 2,
    "pairs": lambda n, x: n.wide(x).unflatten(1, (-1, 2)).amax(2) + x,
    "space taken apart": lambda n, x: x.flatten(2).unflatten(2, (6, 6)),
    "repeated over space": lambda n, x: x + n.other(x).mean((2, 3), keepdim=True).repeat(1, 1, 6, 6),
    "tiled": lambda n, x: x + n.other(x).mean((2, 3)).unsqueeze(-1).unsqueeze(-1).tile(6, 6),
    "repeated": lambda n, x: x.repeat(1, 2, 1, 1).view(2, 2, -1, 6, 6).sum(1) if len(x) == 2 else x * 2,
    "stacked with another": lambda n, x: torch.stack([x, n.other(x)], 2).sum(2),
    "channels tiled": lambda n, x: x.tile(2, 1, 1).unflatten(1, (2, -1)).sum(1),
    "channels repeated one by one": lambda n, x: x.repeat_interleave(2, 1).unflatten(1, (-1, 2)).sum(2),
    "einsum with what is not zero": lambda n, x: torch.einsum("bchw,bchw->bchw", x, n.other(x).sigmoid()),
    "einsum with dots of fewer dimensions": lambda n, x: torch.einsum("...hw,...hw->...hw", x, n.other(x)[0]),
    "expanded as another": lambda n, x: x.mean((2, 3), keepdim=True).expand_as(n.other(x)),
    "einsum with a map first": lambda n, x: torch.einsum("hw,bchw,bchw->bchw", n.inside.to(x.dtype), x, n.other(x)),
    "groups by another's number": lambda n, x: n.wide(x).view(len(x), 2, x.shape[1], 6, 6).amax(1),
    "numbers that are not zero": lambda n, x: x * x.norm(0, dim=(2, 3), keepdim=True),
    "lerp by what scales too": lambda n, x: torch.lerp(x, n.other(x), n.slope) * n.slope,
    "einsum of a list": lambda n, x: torch.einsum("bchw,bchw->bchw", [x, n.other(x)]),
    "where of what scales too": lambda n, x: torch.where(n.chosen, x, n.other(x)) * n.chosen,
    "addcmul of what is not zero": lambda n, x: torch.addcmul(x, smooth(n.other(x)), n.third(x)),
    "attention by others": lambda n, x: attended(x.new_ones(len(x), 36, 5), x),
    "products of fewer dimensions": lambda n, x: x @ n.other(x)[0],
    "expanded by another's number": lambda n, x: x.mean((2, 3), keepdim=True).expand(-1, n.other(x).shape[1], 6, 6),
    "viewed as another": lambda n, x: x.flatten(2).view_as(n.other(x)),
    "attention with dropout": lambda n, x: x * single(n, x, scale=0.3, dropout_p=0.1 * n.training),
    "compared with what scales too": lambda n, x: x * (x > n.slope) * n.slope,
    "turned sums with one": lambda n, x: x * (1 / (n.other(x) + 1)),
    "addcmul of no zeros": lambda n, x: torch.addcmul(x, n.other(x).sigmoid(), n.third(x).sigmoid()),
    "einsum with dots behind letters": lambda n, x: torch.einsum("bc...,bc...->...bc", x, n.other(x)).permute(
        2, 3, 0, 1
    ),
    "einsum with dots before other letters": lambda n, x: torch.einsum(
        "b...hw,...w->b...h", x, n.other(x).mean((0, 2))
    )[..., None],
    "deviations of images": lambda n, x: x * x.var(0, correction=0) + x.movedim(1, 3).var((1, 2))[..., None, None],
    "turned products": lambda n, x: torch.Tensor.__rmatmul__(x, n.inside.to(x.dtype)),
    "shares of all by how many": lambda n, x: F.normalize(x, p=0.0),
    **{
        f"{name}, as short as may be": call
        for name, call in {
            "gates": lambda n, x: F.glu(n.wide(x).movedim(1, -1).unflatten(-1, (2, -1)).flatten(3)).movedim(-1, 1),
            "gates over space": lambda n, x: F.glu(x).repeat(1, 1, 1, 2),
            "in order": lambda n, x: x.sort()[0] + x.topk(6)[0],
            "logarithms of sums": lambda n, x: x * x.logsumexp((2, 3))[..., None, None],
            "the middle": lambda n, x: x + x.median(3)[0][..., None],
            "the greatest": lambda n, x: x + x.max(3)[0][..., None] + x.amax(3)[..., None],
            "in order, behind the channels": lambda n, x: x.flatten(2).sort()[0].view_as(x),
            "the greatest, behind the channels": lambda n, x: x.flatten(2).topk(36)[0].view_as(x),
            "logarithms over images": lambda n, x: x * x.logsumexp(0)[None],
            "images over each other": lambda n, x: torch.stack([x[0], n.other(x)[0]]).sum(0)[None],
            "sums": lambda n, x: x + x.sum(3)[..., None] + x.mean(3)[..., None],
            "norms": lambda n, x: x + x.norm(dim=3)[..., None] + torch.linalg.vector_norm(x, dim=3)[..., None],
            "random slopes": lambda n, x: F.rrelu(x),
            "ones": lambda n, x: x * torch.ones_like(x),
            "shares": lambda n, x: F.normalize(x),
            "a border": lambda n, x: F.pad(x, (1, 1)),
            "rows together": lambda n, x: x.movedim(1, 0).flatten(1).unflatten(1, (len(x), 6, 6)).movedim(0, 1),
        }.items()
    },
    "norms over channels": lambda n, x: x / (x.norm(dim=1, keepdim=True) + 1e-6),
    "greatest of channels": lambda n, x: x * torch.linalg.vector_norm(x, float("inf"), dim=1, keepdim=True),
    "windows": lambda n, x: (F.unfold(x, 3, padding=1).unflatten(1, (-1, 9)) * n.asks[:1, :, None]).sum(2).view_as(x),
    "windows along rows": lambda n, x: x.unfold(2, 3, 1).mean(-1) + n.other(x).unfold(-2, 3, 1).amax(4),
    "windows by their names": lambda n, x: (
        F.unfold(x, kernel_size=1, stride=1).view_as(x) + x.unfold(dimension=3, size=3, step=1).mean(4).mean(3, True)
    ),
    "windows there and back": lambda n, x: F.fold(F.unfold(x, 2, stride=2), (6, 6), 2, stride=2),
    "windows added up": lambda n, x: F.fold(n.wide(x).flatten(2), (6, 12), (1, 2), stride=(1, 2)),
    "sampled elsewhere": lambda n, x: F.grid_sample(x, spots(x), padding_mode="border", align_corners=False),
    "sampled where another says": lambda n, x: F.grid_sample(
        x, torch.stack([n.other(x).sum(1), n.third(x).sum(1)], -1).tanh(), align_corners=True
    ),
    "back at the places of maxima": back_at_its_places,
    "back at the places of maxima over rows": lambda n, x: F.max_unpool1d(
        *F.max_pool1d(x.flatten(2), 2, return_indices=True), 2
    ).view_as(x),
    "the greatest and where it lay": lambda n, x: F.adaptive_max_pool2d(x, 3, return_indices=True)[0],
    "places repeated": lambda n, x: x.repeat_interleave(2, dim=2),
    "shares of all": lambda n, x: x / (x.sum(1, keepdim=True) + 1),
    "divided by what is never zero": lambda n, x: x / x.exp(),
}


@pytest.mark.parametrize("name", FOLLOWED)
def test_channels_are_free_and_followed_exactly(name: str) -> None:
    graph = exact(Net(FOLLOWED[name]))
    assert all(layer.free.all() for layer in graph.all_layers if layer.name != "last"), graph.barriers


PINNED: dict[str, tuple[Call, str]] = {
    "sums so far": (lambda n, x: x.cumsum(1), "mixes channels"),
    "in order": (lambda n, x: x.sort(1)[0], "mixes channels"),
    "the greatest": (lambda n, x: x * x.topk(2, 1)[0].mean(1, keepdim=True), "mixes channels"),
    "the middle": (lambda n, x: x * x.median(1, keepdim=True)[0], "reduces over channels"),
    "deviations": (lambda n, x: x * x.std(1, keepdim=True), "reduces over channels"),
    "deviations of all": (lambda n, x: x * x.var(False), "reduces over channels"),
    "logarithms": (lambda n, x: x * x.logsumexp(1, keepdim=True), "reduces over channels"),
    "norms of constants": (lambda n, x: x * x.sigmoid().norm(dim=1, keepdim=True), "reduces over channels"),
    "norms of all": (lambda n, x: x * x.norm(), "reduces over channels"),
    "windows of channels": (lambda n, x: x * x.unfold(1, 2, 2).mean((1, 4))[:, None], "mixes channels"),
    "windows of channels by their names": (
        lambda n, x: x * x.unfold(dimension=1, size=2, step=2).mean((1, 4))[:, None],
        "mixes channels",
    ),
    "windows of an image turned": (
        lambda n, x: x * F.unfold(x.transpose(1, 2), 1).mean((1, 2))[:, None, None, None],
        "the channels are not in dimension 1",
    ),
    "windows added up elsewhere": (
        lambda n, x: F.fold(x.flatten(2).mT, (4, 2), 1)[:, :1] * x[:, :, :4, :2],
        "the channels are not in dimension 1",
    ),
    "sampled where they say": (
        lambda n, x: F.grid_sample(n.wide(x), x[:, :2].permute(0, 2, 3, 1), align_corners=False)[:, :WIDTH],
        "picks channels by number",
    ),
    "sampled turned": (
        lambda n, x: x * F.grid_sample(x.transpose(1, 2), spots(x), align_corners=False).sum(1, keepdim=True),
        "the channels are not in dimension 1",
    ),
    "windows of maps": (
        lambda n, x: x * F.unfold(x[:, :, 0], 3, padding=1).mean(),
        "the channels are not in dimension 1",
    ),
    "sampled where a weight of theirs says": (
        lambda n, x: F.grid_sample(x[:1], n.spots.weight, align_corners=True) * n.spots(x).sum((2, 3), True)[:1],
        "grid_sample in the network reads the parameter",
    ),
    "places of maxima": (lambda n, x: F.max_pool2d(x, 2, return_indices=True)[1].double(), "not zero once removed"),
    "maxima turned": (
        lambda n, x: F.max_pool2d(x.transpose(1, 2), 1, return_indices=True)[0].transpose(1, 2),
        "the channels are not in dimension 1",
    ),
    "at places of what stays": (
        lambda n, x: F.max_unpool2d(x, n.inside.long().expand(len(x), WIDTH, 6, 6), 1),
        "a constant takes part",
    ),
    "maxima and places turned": (
        lambda n, x: unpooled(x, lambda each: each.transpose(1, 2), lambda each: each.transpose(1, 2)),
        "the channels are not in dimension 1",
    ),
    "places turned": (
        lambda n, x: unpooled(x, lambda each: each, lambda each: each.transpose(1, 2)),
        "the channels are not in dimension 1",
    ),
    "maxima turned, places not": (
        lambda n, x: unpooled(x, lambda each: each.transpose(1, 2), lambda each: each),
        "the channels are not in dimension 1",
    ),
    "no norm": (lambda n, x: x * x.norm(-1, dim=(2, 3), keepdim=True), "is no norm that is zero at zero"),
    "sums of constants": (lambda n, x: x * x.sigmoid().sum(1, keepdim=True), "reduces over channels"),
    "a norm of channels": (
        lambda n, x: F.layer_norm(x.movedim(1, -1), (WIDTH,)).movedim(-1, 1),
        "normalises all channels as one",
    ),
    "a power that may be negative": (lambda n, x: x ** (n.power - 1), "zero to the power of what may be negative"),
    "turned": (lambda n, x: x * n.other(x).reciprocal(), "is infinite at zero"),
    "turned numbers": (lambda n, x: x * (1 / n.other(x)), "divides by channels that may be zero"),
    "numbers that may be zero": (lambda n, x: x / (x + 0.5).relu(), "divides by channels that may be zero"),
    "numbers in few bits": (lambda n, x: x / (x + 0.1).half().double(), "divides by channels that may be zero"),
    "einsum with a constant": (
        lambda n, x: torch.einsum("bchw,c->bchw", x, torch.arange(WIDTH).double()),
        "has a constant with one entry per channel",
    ),
    "einsum of squares": (lambda n, x: torch.einsum("bchw,bdhw->bcd", x, x)[..., None], "lie in different dimensions"),
    "turned multiples": (lambda n, x: x * (1 / (2 * n.other(x))), "divides by channels that may be zero"),
    "einsum of a diagonal": (lambda n, x: torch.einsum("bchh,bchw->bchw", x, x), "takes a diagonal"),
    "einsum of all": (lambda n, x: x * torch.einsum("bchw,bchw->", x, x), "sums all up"),
    "sums of all with dimensions": (lambda n, x: x * x.sum(dim=None, keepdim=True), "reduces over channels"),
    "a norm over space with a bias": (
        lambda n, x: F.layer_norm(x, (6, 6), None, n.asks[0, 0].view(6, 6)),
        "not zero once removed",
    ),
    "lerp to what is not zero": (lambda n, x: torch.lerp(x, n.other(x).sigmoid(), 0.3), "not zero once removed"),
    "stacked with what is not zero": (
        lambda n, x: torch.stack([x, n.other(x).sigmoid()], 2).sum(2),
        "not zero once removed",
    ),
    "norms by singular values": (
        lambda n, x: x * x.norm("nuc", dim=(2, 3), keepdim=True),
        "is no norm that is zero at zero",
    ),
    "logarithms of sums alone": (
        lambda n, x: x.logsumexp((2, 3), keepdim=True).repeat(1, 1, 6, 6),
        "not zero once removed",
    ),
    "turned sums with nothing": (lambda n, x: x * (1 / (n.other(x) + 0)), "divides by channels that may be zero"),
    "expanded as channels elsewhere": (
        lambda n, x: x * x.mean((0, 2, 3)).expand_as(n.other(x)[..., :1].repeat(1, 1, 1, 8)).mean(),
        "takes the shape of a constant",
    ),
    "attention with dropout in inference": (
        lambda n, x: x * single(n, x, scale=0.3, dropout_p=0.1),
        "draws at random in inference",
    ),
    "channels moved on": (lambda n, x: x.roll(1), "moves the channels on"),
    "all repeated": (
        lambda n, x: x * x.repeat_interleave(2).mean(),
        "makes one dimension of all",
    ),
    "sums of all": (lambda n, x: x * x.sum((0, 1, 2, 3)), "reduces over channels"),
    "products with a vector": (lambda n, x: x * (x @ torch.ones(6).double())[..., None], "multiplies by a vector"),
    "products of a vector": (lambda n, x: x * (torch.ones(6).double() @ x)[:, :, None], "multiplies by a vector"),
    "attention with a mask": (
        lambda n, x: x * single(n, x, scale=0.3, attn_mask=torch.zeros(36, 36).double()),
        "is masked, or shares keys among heads",
    ),
    "places of the greatest so far": (lambda n, x: x.cummax(2)[1].double(), "not zero once removed"),
    "places of the greatest": (
        lambda n, x: x.max(2, keepdim=True)[1].double().repeat(1, 1, 6, 1),
        "not zero once removed",
    ),
    "places of the middle": (
        lambda n, x: x.median(2, keepdim=True)[1].double().repeat(1, 1, 6, 1),
        "not zero once removed",
    ),
    "einsum without an arrow": (lambda n, x: torch.einsum("bchw,bchw", x, x).view(1, 1, 1, 1) * x, "does not say"),
    "einsum of constants": (lambda n, x: x * torch.einsum("bchw->bhw", x.sigmoid())[:, None], "not zero once removed"),
    "scaled attention": (lambda n, x: x * single(n, x), "scales attention by their number"),
    "attention to channels": (
        lambda n, x: x * F.scaled_dot_product_attention(n.asks, x.flatten(2), x.flatten(2)).view(2, 1, 6, 6),
        "attends to channels",
    ),
    "attention for channels": (
        lambda n, x: F.scaled_dot_product_attention(x.flatten(2), n.asks, n.asks).view_as(x),
        "attends for channels",
    ),
    "products with a constant": (
        lambda n, x: (torch.eye(WIDTH).double() @ x.flatten(2)).view_as(x),
        "has a constant with one entry per channel",
    ),
    "a constant of channels": (
        lambda n, x: torch.where(torch.arange(WIDTH)[:, None, None] > 3, x, n.other(x)),
        "constant that has one entry per channel",
    ),
    "filled with a number": (lambda n, x: x.masked_fill(n.inside, 1.0), "not zero once removed"),
    "chosen of constants": (lambda n, x: torch.where(x > 0, n.slope, -n.slope), "chooses among constants"),
    "places": (lambda n, x: x * torch.where(x > 0)[0].double().mean(), "returns places"),
    "groups by numbers": (lambda n, x: x.unflatten(1, (4, 2)).flatten(1, 2), "written out in the new shape"),
    "drawn": (lambda n, x: x + 0 * torch.rand_like(x), "reads their number"),
}


@pytest.mark.parametrize("name", PINNED)
def test_across_channels_they_stay_with_the_reason(name: str) -> None:
    between, reason = PINNED[name]
    layer = exact(Net(between)).by_name["first"]
    assert not layer.free.any()
    reasons = "; ".join(each.reason for each in trace(Net(between), X).all_layers)
    assert reason in reasons


def test_what_says_where_to_look_stays() -> None:
    graph = exact(Net(lambda n, x: F.grid_sample(x, n.flow(x).movedim(1, -1).tanh(), align_corners=False)))
    assert graph.by_name["first"].free.all()
    assert "looks where they say" in graph.by_name["flow"].reason


def test_a_power_that_is_zero_makes_ones_of_zeros() -> None:
    model = Net(lambda n, x: x**n.power)
    with torch.no_grad():
        model.power.zero_()
    layer = exact(model).by_name["first"]
    assert not layer.free.any()
    assert "zero to the power of what may be negative" in layer.reason
    with torch.no_grad():
        model.power.fill_(0.5)
    assert exact(model).by_name["first"].free.all()


def test_a_network_without_memory_is_traced() -> None:
    model = Net(lambda n, x: n.other(x) ** n.power).to("meta")
    layers = trace(model, X.to("meta")).by_name
    assert layers["first"].free.all()
    assert "zero to the power of what may be negative" in layers["other"].reason


def test_a_norm_that_code_computes_for_itself_is_no_width_of_its_module() -> None:
    assert trace(Net(lambda n, x: F.batch_norm(x, None, None, training=True)), X).widths == ()


def test_heads_that_share_keys_are_not_followed() -> None:
    if "enable_gqa" not in str(F.scaled_dot_product_attention.__doc__):
        pytest.skip("this torch has no keys that heads share")

    def shared(n: Any, x: torch.Tensor) -> torch.Tensor:
        q, k, v = (each.flatten(2).mT[:, None] for each in (n.other(x), n.third(x), x))
        return F.scaled_dot_product_attention(q, k, v, scale=0.3, enable_gqa=True)[:, 0].mT.unflatten(2, (6, 6))

    layer = exact(Net(shared)).by_name["first"]
    assert not layer.free.any()
    assert "is masked, or shares keys among heads" in layer.reason
