"""What pruned networks are compared with: it depends on the network alone, so it is made once for all pruners."""

from __future__ import annotations

import random
from collections.abc import Callable, Collection
from contextlib import suppress
from dataclasses import dataclass

import numpy as np
from torch import nn

from seqprune.graph import proof
from seqprune.graph.copying import copied
from seqprune.graph.values import first_line
from seqprune.plan import PrunePlan
from seqprune.testing.outputs import Tensors, run, scripted
from seqprune.testing.trial import FAILS, Inputs, Keep, Trial, drawn

SETS = 3
"""Random sets of layers, each given in an order of its own."""


@dataclass(frozen=True)
class Asked:
    """Channels to keep beside those of the trial's plan.

    Attributes:
        name: what a failure says.
        keep: what the pruner is given.
        expected: outputs of the network with the others at zero.
    """

    name: str
    keep: Keep
    expected: Tensors


def other(inputs: Inputs) -> Inputs:
    """Images turned round."""
    return tuple(t.flip(-1) if t.is_floating_point() and t.dim() > 1 else t for t in inputs)


def other_outputs(trial: Trial) -> Tensors:
    """Of the reference on :func:`other` inputs."""
    return trial.once("other outputs", lambda: run(trial.reference, other(trial.inputs)))


def layers(trial: Trial) -> list[Asked]:
    """Each layer alone, or so many of them as the trial says, spread from the front to the back."""

    def make() -> list[Asked]:
        names = [layer.name for layer in trial.graph.layers]
        if trial.layers is not None and len(names) > trial.layers:
            chosen = np.unique(np.linspace(0, len(names) - 1, trial.layers).round().astype(int))
            names = [names[index] for index in chosen]
        plans = [(name, drawn(trial.graph, trial.seed + n, names=[name])) for n, name in enumerate(names)]
        return [_asked(trial, f"{name} alone", plan, plan.keep) for name, plan in plans if plan.layers]

    return trial.once("layers", make)


def shuffled(trial: Trial) -> list[Asked]:
    """Random sets of layers in random orders."""

    def make() -> list[Asked]:
        names = [layer.name for layer in trial.graph.layers]
        draw = random.Random(trial.seed)  # noqa: S311 - nothing secret
        found = []
        for number in range(SETS):
            some = draw.sample(names, max(1, len(names) // 2))
            plan = drawn(trial.graph, trial.seed + 100 + number, names=some)
            if not plan.layers:
                continue
            entries = list(plan.keep.items())
            draw.shuffle(entries)
            said = ", ".join(name for name, _ in entries[:3]) + (", …" if len(entries) > 3 else "")
            found.append(_asked(trial, said, plan, dict(entries)))
        return found

    return trial.once("shuffled", make)


def fused_outputs(trial: Trial) -> Tensors | None:
    """Of the reference after its ``fuse()``; ``None`` where it has none."""

    def make() -> Tensors | None:
        fused: nn.Module | None = proof.fused(copied(trial.reference))
        return None if fused is None else run(fused.eval(), trial.inputs)

    return trial.once("fused outputs", make)


def not_exported(trial: Trial) -> str:
    """Why the unpruned network does not become TorchScript; empty where it does."""

    def make() -> str:
        try:
            scripted(trial.unpruned, trial.inputs)
        except FAILS as error:
            return first_line(error)
        return ""

    return trial.once("not exported", make)


_OF: dict[str, Callable[[Trial], object]] = {
    "runs": lambda trial: trial.expected,
    "values": other_outputs,
    "alone": layers,
    "orders": shuffled,
    "fusing": fused_outputs,
    "exporting": not_exported,
}
"""By contract. A step of training is each case's own: a process that has followed gradients cannot be forked."""


def share(trial: Trial, contracts: Collection[str]) -> None:
    """Makes ahead what contracts compare with; what fails is left to the contract, which says so."""
    for name in contracts:
        if name in _OF:
            with suppress(*FAILS):
                _OF[name](trial)


def _asked(trial: Trial, name: str, plan: PrunePlan, keep: Keep) -> Asked:
    return Asked(name, keep, run(trial.masked(plan), trial.inputs))
