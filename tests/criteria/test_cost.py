"""What a pass takes: time on a device that works on after it was asked is waited for."""

from __future__ import annotations

import itertools
from types import SimpleNamespace

import pytest
import torch
from torch import nn

from seqprune.budget import cost
from seqprune.budget.cost import latencies_ms


def test_every_pass_begins_and_ends_with_nothing_left_to_wait_for(monkeypatch: pytest.MonkeyPatch) -> None:
    happened: list[str] = []
    monkeypatch.setattr(cost, "_wait", lambda device: happened.append(f"waits for {device}"))

    class Telling(nn.Module):
        def forward(self, x: torch.Tensor) -> torch.Tensor:
            happened.append("runs")
            return x

    latencies_ms([Telling()], [torch.zeros(1)])
    assert happened == ["waits for cpu", "runs", "waits for cpu"] * (5 + 20)  # five to warm up


def test_times_are_in_milliseconds(monkeypatch: pytest.MonkeyPatch) -> None:
    seconds = itertools.count()
    monkeypatch.setattr(cost, "time", SimpleNamespace(perf_counter=lambda: next(seconds)))
    assert latencies_ms([nn.Identity()], [torch.zeros(1)], runs=3) == [1000]


def test_an_accelerator_alone_is_waited_for(monkeypatch: pytest.MonkeyPatch) -> None:
    asked: list[torch.device] = []
    monkeypatch.setattr(torch.cuda, "synchronize", asked.append)
    for device in ("cpu", "cuda:1"):
        cost._wait(torch.device(device))
    assert asked == [torch.device("cuda:1")]
