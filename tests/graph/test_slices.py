"""Channels cut in two by a number that the code holds: ``x[:, : self.half]`` and ``x[:, self.half :]``."""

from __future__ import annotations

from collections.abc import Callable
from functools import partial
from typing import Any

import pytest
import torch
from exactness import exact_on
from torch import nn

from seqprune import PrunePlan, compact, trace
from seqprune.errors import PlanError
from seqprune.testing.networks import randomise

X = torch.randn(2, 3, 6, 6, dtype=torch.float64, generator=torch.Generator().manual_seed(1))
Code = Callable[[Any, torch.Tensor], torch.Tensor]
exact = partial(exact_on, X)


class Net(nn.Module):
    """Eight channels, code that cuts them at the third or in halves, and a reader of whatever is left."""

    def __init__(self, code: Code) -> None:
        super().__init__()
        self.first, self.wide, self.code, self.cut, self.half, self.end = (
            nn.Conv2d(3, 8, 1),
            nn.Conv2d(8, 12, 1),
            code,
            3,
            4,
            6,
        )
        self.gain = nn.Parameter(torch.rand(8))
        randomise(self, 0)
        self.double().eval()
        self.last = nn.Conv2d(code(self, self.first(X)).shape[1], 2, 1).double()

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return self.last(self.code(self, self.first(x).relu()))


def turned(m: Any, x: torch.Tensor) -> torch.Tensor:
    y = x.permute(0, 2, 3, 1)
    return torch.cat([y[..., m.cut :], y[..., : m.cut]], -1).permute(0, 3, 1, 2)


def in_place(m: Any, x: torch.Tensor) -> torch.Tensor:
    y = x * 1
    y[:, : m.cut].mul_(2)
    y[:, m.cut :].tanh_()
    return y


FOLLOWED: dict[str, Code] = {
    "gates": lambda m, x: x[:, : m.half] * x[:, m.half :].sigmoid(),
    "swapped": lambda m, x: torch.cat([x[:, m.cut :], x[:, : m.cut]], 1),
    "from zero, with all that follows": lambda m, x: torch.cat(
        [x[:, 0 : m.cut, :, ::2], x[:, m.cut :, 1:, ::2][:, :, :5].repeat(1, 1, 2, 1)[:, :, :6]], 1
    ),
    "channels last": turned,
    "in place": in_place,
    "one by one": lambda m, x: torch.cat([x[:, m.cut :: 1], x[:, : m.cut : 1]], 1),
    "as many as another has": lambda m, x: x + m.wide(x)[:, : x.shape[1]],
    "more than another has": lambda m, x: torch.cat([x, m.wide(x)[:, x.shape[1] :]], 1),
    "all": lambda m, x: x[:, :8],
    "of two tensors": lambda m, x: x[:, : m.half] + m.wide(x)[:, : m.half] * x[:, m.half :],
}


@pytest.mark.parametrize("code", FOLLOWED.values(), ids=FOLLOWED)
def test_channels_cut_in_two_are_free(code: Code) -> None:
    graph = exact(Net(code))
    assert all(layer.free.all() for layer in graph.all_layers if layer.name != "last"), graph.barriers


KEPT: dict[str, tuple[Code, list[bool]]] = {
    "computed with": (lambda m, x: torch.cat([x[:, : m.cut] / m.cut, x[:, m.cut :]], 1), [False] * 3 + [True] * 5),
    "rows as well": (lambda m, x: torch.cat([x[:, : m.cut, : m.cut], x[:, m.cut :, :3]], 1), [False] * 3 + [True] * 5),
    "rows by the same slice": (
        lambda m, x: (lambda cut: torch.cat([x[:, cut, cut], x[:, m.cut :, :3]], 1))(slice(m.cut)),
        [False] * 3 + [True] * 5,
    ),
    "from behind": (lambda m, x: x[:, -m.cut :], [False] * 8),
    "between two": (lambda m, x: x[:, m.cut : m.end], [False] * 8),
    "from a place written out": (lambda m, x: x[:, 4 : m.end], [False] * 8),
    "every other": (lambda m, x: x[:, : m.end : 2], [False] * 8),
    "every sixth behind the first": (lambda m, x: x[:, 1 :: m.end], [False] * 8),
    "written out": (lambda m, x: x[:, :3], [False] * 8),
    "one": (lambda m, x: x * x[:, 2, None], [False] * 8),
    "a parameter": (lambda m, x: x[:, : m.half] * m.gain[: m.half].view(-1, 1, 1), [False] * 4 + [True] * 4),
}


@pytest.mark.parametrize("name", KEPT)
def test_channels_whose_number_is_used_otherwise_stay(name: str) -> None:
    code, free = KEPT[name]
    assert exact(Net(code)).by_name["first"].free.tolist() == free


def test_a_number_that_cuts_nothing_off_stays_as_large() -> None:
    graph = exact(Net(lambda m, x: x[:, : m.wide(x).shape[1]]))
    assert graph.by_name["first"].free.all()
    assert not graph.by_name["wide"].free.any()


def test_a_number_that_takes_all_leaves_no_rest() -> None:
    """Parts that a loop takes one after the other: the empty rest ended in an error of numpy's."""
    model = Net(lambda m, x: torch.cat([x[:, : m.end], x[:, m.end :]], 1))
    model.end = 8
    layer = exact(model).by_name["first"]
    assert not layer.free.any()


@pytest.mark.parametrize("name", ["from behind", "between two", "every other", "written out", "one"])
def test_what_is_no_section_is_picked_by_number(name: str) -> None:
    assert "picks channels by number" in trace(Net(KEPT[name][0]), X).by_name["first"].reason


def test_the_number_follows_what_it_cuts() -> None:
    model = Net(FOLLOWED["swapped"])
    graph = trace(model, X)
    small = compact(model, PrunePlan.from_keep(graph, {"first": [0, 3, 4, 7]}), graph)
    assert (small.cut, model.cut) == (1, 3)
    with pytest.raises(PlanError, match="takes by its width"):
        PrunePlan.from_keep(graph, {"first": [3, 4]})
