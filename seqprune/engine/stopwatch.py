"""Time where the result will run, measured once and kept: a run that goes on finds the same numbers again."""

from __future__ import annotations

import json
import tempfile
from collections.abc import Callable, Sequence
from contextlib import ExitStack
from dataclasses import asdict, dataclass, field
from hashlib import sha256
from pathlib import Path
from typing import Any

from torch import nn

from seqprune.engine.state import State
from seqprune.engine.task import Task
from seqprune.graph.values import tensors_in
from seqprune.observe.inputs import tensors
from seqprune.runtimes.export import exported
from seqprune.runtimes.layers import Chain
from seqprune.runtimes.open import opened, threads_of
from seqprune.runtimes.turns import Clock, Pass, Spread, in_turns
from seqprune.runtimes.where import Where

Timer = Callable[[Sequence[Pass], Clock], list[Spread]]
LAYER_RUNS = 20


@dataclass(frozen=True)
class Stopwatch:
    """See :class:`seqprune.runtimes.layers.Timing`.

    Attributes:
        where: the runtime, settled.
        task: makes of a network what runs there, and says what it is given.
        state: where times are kept.
        turns: times whole networks.
        layer_turns: times layers.
    """

    where: Where
    task: Task
    state: State = field(default_factory=State)
    turns: Timer = lambda passes, clock: in_turns(passes, clock=clock)
    layer_turns: Timer = lambda passes, clock: in_turns(passes, LAYER_RUNS, 2, clock)

    def networks(self, given: Sequence[tuple[Task, nn.Module]]) -> list[Spread]:
        """Of one pass of each, in turns, each with an input of its task.

        Raises:
            SeqPruneError: one of them cannot be exported, or does not run there.
        """

        def measure() -> list[dict[str, float]]:
            with ExitStack() as stack:
                stack.enter_context(threads_of(self.where))
                passes = []
                for task, model in given:
                    folder = Path(stack.enter_context(tempfile.TemporaryDirectory(prefix="seqprune-time-")))
                    inputs = task.example(model)
                    passes.append(opened(task.runnable(model, self.where.runtime, folder), self.where, inputs).run)
                return [spread.plain() for spread in self.turns(passes, self.where.clock)]

        name = _name("networks", self.where, [[_shapes(model), *_about(task, model)] for task, model in given])
        return [Spread(**each) for each in self.state.plain(name, measure)]  # type: ignore[arg-type]

    def share(self, whole: nn.Module, smaller: nn.Module) -> float:
        before, after = self.networks([(self.task, whole), (self.task, smaller)])
        return after.median / before.median

    def milliseconds(self, model: nn.Module) -> float:
        return self.networks([(self.task, model)])[0].median

    def layers(self, chains: tuple[Chain, ...]) -> list[float]:
        def measure() -> list[float]:
            with ExitStack() as stack:
                stack.enter_context(threads_of(self.where))
                passes = [self._pass(chain, stack) for chain in chains]
                return [each.median for each in self.layer_turns(passes, self.where.clock)]

        found: list[float] = self.state.plain(_name("layers", self.where, [asdict(chain) for chain in chains]), measure)
        return found

    def _pass(self, chain: Chain, stack: ExitStack) -> Pass:
        module, inputs = chain.module(), chain.inputs()
        if self.where.runtime == "torch":
            return opened(module, self.where, inputs).run
        folder = Path(stack.enter_context(tempfile.TemporaryDirectory(prefix="seqprune-time-")))
        return opened(exported(module, inputs, self.where.runtime, folder), self.where, inputs).run


def _name(what: str, where: Where, about: Any) -> str:
    """Under which a time is kept: shapes decide it, not values."""
    text = json.dumps([asdict(where), about], sort_keys=True)
    return f"time-{what}-{sha256(text.encode()).hexdigest()[:16]}"


def _shapes(model: nn.Module) -> list[Any]:
    return [[name, list(each.shape)] for name, held in model.state_dict().items() for each in tensors_in(held)]


def _about(task: Task, model: nn.Module) -> list[Any]:
    """Shapes of what it is given and, but for floats, the bits that it computes with."""
    shapes = [list(tensor.shape) for tensor in tensors(task.example(model))]
    return [shapes] if task.bits == 32 else [shapes, task.bits]
