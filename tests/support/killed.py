"""Runs that are killed: each in a process of its own, forked from one that has imported what a run needs."""

from __future__ import annotations

import json
import multiprocessing
import os
import random
import signal
import sys
from collections.abc import Iterator
from dataclasses import asdict
from multiprocessing import forkserver
from pathlib import Path
from typing import Any

import torch
from clocks import multiplications
from safetensors.torch import load_file
from torch import nn

from seqprune import atomic
from seqprune.budget.cost import gflops
from seqprune.engine import state, stopwatch
from seqprune.run import prune
from seqprune.runtimes.turns import Spread
from seqprune.testing.networks import Unit, randomise

CLASSES, SIDE, BATCH = 3, 16, 8
SEED: dict[str, Any] = {"preset": "seed", "layers": ["stem.conv", "middle.conv", "block.conv"], "keep": 0.5}
ACCURATE: dict[str, Any] = {"preset": "accurate", "target": "params=0.7", "round_to": 1}
LATENCY: dict[str, Any] = {"preset": "accurate", "target": "latency=0.7", "round_to": 1}


class Network(nn.Module):
    """A residual block and a map of classes, four pixels a cell."""

    def __init__(self, seed: int = 0) -> None:
        super().__init__()
        self.stem = Unit(3, 12, act=1)
        self.middle = Unit(12, 16, act=1)
        self.down = nn.Conv2d(16, 16, 3, stride=4, padding=1)
        self.block = Unit(16, 16, act=1)
        self.head = nn.Conv2d(16, CLASSES, 1)
        randomise(self, seed)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        x = self.down(self.middle(self.stem(x))).relu()
        return self.head(x + self.block(x))


def batches(seed: int = 0) -> Iterator[tuple[torch.Tensor, ...]]:
    """Noise in which every object is a bright pixel of its class's colour, two to an image."""
    draw = torch.Generator().manual_seed(seed)
    for _ in range(3):
        inputs = torch.rand(BATCH, 3, SIDE, SIDE, generator=draw)
        places = torch.stack(
            [torch.arange(2 * BATCH) % BATCH, *torch.randint(0, SIDE, (2, 2 * BATCH), generator=draw)], 1
        )
        kinds = torch.randint(0, CLASSES, (2 * BATCH,), generator=draw)
        inputs[places[:, 0], kinds, places[:, 1], places[:, 2]] += 3
        yield inputs, kinds, places


def work(folder: Path, options: dict[str, Any], last: int | None = None) -> None:
    """One run, which keeps whatever it can; ``last``: see :func:`die_at`."""
    torch.set_num_threads(1)
    state.EVERY = 0.0
    if options.get("target", "").startswith("latency"):
        drift()
        state.State.clear = lambda _self: None  # type: ignore[method-assign]
    if last is not None:
        die_at(last)
    prune(Network(), batches, folder=folder, **options)


def drift(by: float = 0.005) -> None:
    """Times that are a little different whenever they are taken, as real ones are, and kept as those are."""
    draw = random.SystemRandom()

    def taken(ms: float) -> float:
        return ms * draw.uniform(1 - by, 1 + by)

    def networks(watch: Any, given: Any) -> list[Spread]:
        def measure() -> list[float]:
            return [taken(500 * gflops(model, task.example(model))) for task, model in given]

        shapes = [[list(tensor.shape) for tensor in model.state_dict().values()] for _, model in given]
        found = watch.state.plain(stopwatch._name("networks", watch.where, shapes), measure)
        return [Spread(ms, ms, ms, 1) for ms in found]

    def layers(watch: Any, chains: Any) -> list[float]:
        name = stopwatch._name("layers", watch.where, [asdict(chain) for chain in chains])
        found: list[float] = watch.state.plain(name, lambda: [taken(1e-6 * multiplications(each)) for each in chains])
        return found

    stopwatch.Stopwatch.networks = networks  # type: ignore[method-assign]
    stopwatch.Stopwatch.layers = layers  # type: ignore[method-assign]


def die_at(last: int) -> None:
    """Odd: after the new file of number ``last // 2`` took its name; even: right before."""
    replace, written = os.replace, iter(range(1 << 30))

    def dying(source: Any, target: Any) -> None:
        number = -1 if Path(target).exists() else next(written)
        if number * 2 == last:
            os.kill(os.getpid(), signal.SIGKILL)
        replace(source, target)
        if number * 2 + 1 == last:
            os.kill(os.getpid(), signal.SIGKILL)

    atomic.os.replace = dying  # type: ignore[attr-defined]


def warm() -> None:
    """Everything that a run imports on its way."""
    torch.set_num_threads(1)
    for options in (SEED, ACCURATE):
        prune(Network(), batches, **options)


def forked() -> Any:
    """Starts processes in a few milliseconds each: forked from one that has run a run."""
    context = multiprocessing.get_context("forkserver")
    context.set_forkserver_preload(["warmed"])
    known = os.environ.get("PYTHONPATH")
    os.environ["PYTHONPATH"] = os.pathsep.join(sys.path)  # its own path is ours only from Python 3.13 on
    try:
        forkserver.ensure_running()
    finally:
        os.environ.pop("PYTHONPATH")
        if known is not None:
            os.environ["PYTHONPATH"] = known
    return context


def outcome(folder: Path) -> tuple[Any, dict[str, torch.Tensor]]:
    """Plan and weights of a finished run of a module."""
    return json.loads((folder / "plan.json").read_text()), load_file(folder / "weights" / "pruned.safetensors")


def same(one: tuple[Any, dict[str, torch.Tensor]], other: tuple[Any, dict[str, torch.Tensor]]) -> bool:
    """Bit for bit."""
    (plan, tensors), (plan2, tensors2) = one, other
    alike = plan == plan2 and tensors.keys() == tensors2.keys()
    return alike and all(torch.equal(tensor, tensors2[name]) for name, tensor in tensors.items())
