"""Operators that run where no call can be watched: those that see nothing of the input run as ever."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from torch import nn
from torch.utils._python_dispatch import TorchDispatchMode

from seqprune import trace
from seqprune.errors import ModelError
from seqprune.graph import below


@torch.jit.script
def halves() -> torch.Tensor:
    return 2 * torch.full([1, 1, 1, 1], 0.25, dtype=torch.float64)


def test_what_a_scripted_function_makes_of_nothing_is_as_it_says() -> None:
    seen: list[torch.dtype] = []

    class Scaled(nn.Module):
        def forward(self, x: torch.Tensor) -> torch.Tensor:
            seen.append(halves().dtype)
            return x * halves()

    graph = trace(
        nn.Sequential(nn.Conv2d(3, 4, 1), Scaled(), nn.Conv2d(4, 2, 1)).double(), torch.rand(1, 3, 4, 4).double()
    )
    assert graph.by_name["0"].free.all()
    assert set(seen) == {torch.float64}


@torch.jit.script
def doubled(x: torch.Tensor) -> torch.Tensor:
    return 2 * x


def test_what_cannot_be_watched_is_said_before_what_comes_after_it() -> None:
    class Twice(nn.Module):
        def forward(self, x: torch.Tensor) -> torch.Tensor:
            y = doubled(x)
            return y if x.sum().item() > 0 else x

    with pytest.raises(ModelError, match="where no call can be watched"):
        trace(nn.Sequential(nn.Conv2d(3, 4, 1), Twice()), torch.rand(1, 3, 4, 4))


def test_the_watch_is_not_wrapped_for_the_compiler() -> None:
    """From torch 2.6 on that imports it, which takes seconds."""
    assert below.OperatorWatch.__torch_dispatch__.__code__.co_filename == below.__file__


class Passing(TorchDispatchMode):
    """A watch of the network's own, as one that counts operations."""

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        return func(*args, **(kwargs or {}))


def test_calls_under_a_watch_of_the_networks_own_are_watched_as_ever() -> None:
    class Counted(nn.Module):
        def forward(self, x: torch.Tensor) -> torch.Tensor:
            with Passing():
                return x.relu()

    graph = trace(nn.Sequential(nn.Conv2d(3, 4, 1), Counted(), nn.Conv2d(4, 2, 1)), torch.rand(1, 3, 4, 4))
    assert graph.by_name["0"].free.all()
