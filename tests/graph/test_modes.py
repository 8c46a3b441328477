"""What stands in the place of torch's own while a network is asked: there meanwhile, and gone after it."""

from __future__ import annotations

import pytest
from torch.fx import graph_module

from seqprune.graph.modes import untold


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
