"""What stands in the place of torch's own while a network is asked: there meanwhile, and gone after it."""

from __future__ import annotations

import random

import numpy as np
import pytest
import torch
from torch import nn
from torch.fx import graph_module

from seqprune.graph.modes import drawing, untold


def test_what_is_drawn_from_a_seed_is_the_same_whatever_was_drawn_before() -> None:
    def drawn() -> tuple[float, float, float]:
        return float(torch.rand(1)), random.random(), float(np.random.rand())  # noqa: NPY002, S311

    found = []
    for seed in (7, 7, 8):
        with drawing(nn.ReLU(), seed):
            found.append(drawn())
        drawn()
    assert found[0] == found[1]
    assert all(one != other for one, other in zip(found[0], found[2], strict=True))


def test_a_device_that_a_network_is_not_on_is_left_alone(monkeypatch: pytest.MonkeyPatch) -> None:
    """Asking one for its generator starts it, which takes seconds and memory."""
    asked: list[int] = []
    monkeypatch.setattr(torch.cuda, "device_count", lambda: 1)
    monkeypatch.setattr(torch.cuda, "get_rng_state", asked.append)
    monkeypatch.setattr(torch.cuda, "set_rng_state", lambda *_: None)
    with drawing(nn.Linear(1, 1), 0):
        pass
    assert not asked


def test_torch_fx_prints_nothing_until_the_outermost_ends() -> None:
    """A trace that is asked for in the course of another made the rest of that one print again."""
    with untold():
        with untold():
            pass
        graph_module.print("nothing")
    assert "print" not in vars(graph_module)


def test_what_prints_for_torch_fx_already_does_so_afterwards(monkeypatch: pytest.MonkeyPatch) -> None:
    said: list[str] = []
    monkeypatch.setattr(graph_module, "print", said.append, raising=False)
    with untold():
        pass
    graph_module.print("heard")
    assert said == ["heard"]
