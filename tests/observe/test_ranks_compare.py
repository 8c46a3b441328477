"""Several processes measure the rows of a comparison side by side: all return the rows of one, the first keeps them."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
import torch
from several import processes
from torch import nn

import seqprune
from seqprune.engine.state import State
from seqprune.observe.ranks import connect
from seqprune.testing.networks import Unit, randomise

METHODS = ["lamp-global", "clusters", "random", "taylor", "l1"]
TIMED = ("seconds", "latency_ms")


class Net(nn.Module):
    """Three layers and four classes."""

    def __init__(self) -> None:
        super().__init__()
        self.stem, self.down, self.head = Unit(3, 32), Unit(32, 48), nn.Linear(48, 4)
        randomise(self, 0)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return self.head(self.down(self.stem(x)).mean((2, 3)))


def data(net: nn.Module) -> dict[str, Any]:
    with torch.no_grad():
        pictures = torch.randn(4, 8, 3, 12, 12, generator=torch.Generator().manual_seed(0))
        return {"train": list(pictures), "val": [(x, net(x).argmax(1)) for x in pictures]}


def rows_of_this_process(folder: str | None = None) -> str:
    """The rows, and how many of them were told."""
    torch.set_num_threads(1)
    net, told = Net().eval(), list[Any]()
    state = State(Path(folder)) if folder and connect().rank == 0 else None
    asked: dict[str, Any] = {"targets": [0.8, 0.6], "methods": METHODS, "batch": 8, "state": state}
    found = seqprune.compare(net, data(net), on_row=told.append, **asked)
    rows = [{name: value for name, value in row.plain().items() if name not in TIMED} for row in found.rows]
    return json.dumps([rows, len(told)])


@pytest.mark.slow
def test_two_processes_compare_as_one_and_go_on_from_what_was_kept(tmp_path: Path) -> None:
    """``taylor`` and ``clusters`` fail on images without labels: their rows say why, and nobody waits for them."""
    (rows, told) = json.loads(rows_of_this_process(str(tmp_path / "alone")))
    kept = sorted(path.name for path in (tmp_path / "alone").glob("row-*"))
    assert len(kept) == told == 1 + 2 * len(METHODS)
    assert [row["method"] for row in rows if row.get("reason")] == ["clusters", "taylor"] * 2
    for file in ("row-0.8-random-0.json", "row-0.6-l1-0.json"):  # as if it had been ended
        (tmp_path / "alone" / file).unlink()
    for folder in ("new", "alone"):
        both = processes(
            2, f"import test_ranks_compare as t; print(t.rows_of_this_process({str(tmp_path / folder)!r}))"
        )
        said = [process.communicate(timeout=120) for process in both]
        assert [process.returncode for process in both] == [0, 0], said
        first, second = (json.loads(out) for out, _ in said)
        assert first == [rows, told]
        assert second[0] == rows
        assert sorted(path.name for path in (tmp_path / folder).glob("row-*")) == kept
