"""Accuracy along the steps of a run, where it was asked for or training changes it: what was measured stays with it."""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Any

from torch import nn

from seqprune.engine.listener import Listener
from seqprune.engine.portrait import overall
from seqprune.engine.state import State
from seqprune.engine.task import Task
from seqprune.errors import SeqPruneError
from seqprune.graph.copying import copied


@dataclass
class Along:
    """
    Attributes:
        task: measures.
        told: what is going on.
        state: what an earlier run of the same measured before it was ended; each point is kept there as it comes.
        whole: whether accuracy is measured at all.
        every: whether each pruned layer is followed by a measurement.
    """

    task: Task
    told: Listener
    state: State
    whole: bool = True
    every: bool = False

    def __post_init__(self) -> None:
        self._found: dict[str, dict[str, float]] = self.state.read_plain("along") or {}

    def after(self, what: str, model: nn.Module) -> None:
        """Measures a network, once for each name of ``what`` was done to it; a run goes on where it cannot be."""
        if not self.whole or what in self._found:
            return
        self.told.stage(f"measure after {what}", None)
        try:
            known = overall(self.task.accuracy(copied(model).cpu()))
        except SeqPruneError as why:
            self.told.warning(f"accuracy after {what} is not measured: {why}")
            return
        self._found[what] = {name: value for name, value in known.items() if math.isfinite(value)}
        self.state.write_plain("along", self._found)

    def points(self) -> tuple[dict[str, Any], ...]:
        """``what`` was done and the ``accuracy`` after it, by name, in order."""
        return tuple({"what": what, "accuracy": accuracy} for what, accuracy in self._found.items())
