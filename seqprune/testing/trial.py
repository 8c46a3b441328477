"""One pruner on one network: what it was asked, what it gave, and what it should have given."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from functools import cached_property
from typing import Any, TypeVar

import numpy as np
import torch
from torch import nn

from seqprune.errors import SeqPruneError
from seqprune.graph import ChannelGraph, trace
from seqprune.graph.channels import BoolArray
from seqprune.graph.copying import copied
from seqprune.graph.values import NETWORK_FAILS, first_line
from seqprune.plan import PrunePlan
from seqprune.surgery import mask
from seqprune.testing.outputs import run

T = TypeVar("T")
Inputs = tuple[torch.Tensor, ...]
Keep = Mapping[str, Sequence[int]]
Prune = Callable[[nn.Module, Inputs, Keep], nn.Module]
"""``prune(module, example_inputs, keep) -> module``: takes every channel of the layers in ``keep`` that is not in its
set. ``keep`` is complete: a layer that is coupled to another is in it too. The module given is the pruner's own."""
FAILS = (*NETWORK_FAILS, SeqPruneError)
SHARE = 0.5
"""Of the channels that may leave, so many are asked for."""


class ContractError(AssertionError):
    """A contract does not hold.

    Attributes:
        contract: its name.
    """

    def __init__(self, contract: str, message: str) -> None:
        super().__init__(f"{contract}: {message}")
        self.contract, self.message = contract, message


class NotApplicable(Exception):
    """A contract has nothing to ask of this network; the message says why."""


@dataclass(frozen=True)
class Trial:
    """A network, a pruner, and what it is to keep.

    Attributes:
        unpruned: the network, in inference mode; never changed.
        inputs: what it takes.
        prune: the pruner.
        graph: the network's channel graph.
        plan: what stays.
        seed: of the plan and of whatever else is drawn.
        layers: how many layers are pruned alone at most; ``None`` for all.
        known: what was computed of the unpruned network, by name: the same for every pruner.
    """

    unpruned: nn.Module
    inputs: Inputs
    prune: Prune
    graph: ChannelGraph
    plan: PrunePlan
    seed: int = 0
    layers: int | None = None
    known: dict[str, Any] = field(default_factory=dict, compare=False)

    def once(self, name: str, make: Callable[[], T]) -> T:
        """What is the same for every pruner: made when it is first asked for, and kept."""
        if name not in self.known:
            self.known[name] = make()
        found: T = self.known[name]
        return found

    @cached_property
    def pruned(self) -> nn.Module:
        """What the pruner gives for the plan."""
        return self.asked(self.plan.keep)

    @property
    def reference(self) -> nn.Module:
        """The unpruned network with the removed channels exactly zero: what the pruned one has to compute."""
        return self.once("reference", lambda: self.masked(self.plan))

    @property
    def expected(self) -> list[torch.Tensor]:
        """Outputs of the reference."""
        return self.once("expected", lambda: run(self.reference, self.inputs))

    def masked(self, plan: PrunePlan) -> nn.Module:
        """The unpruned network with the channels of a plan at zero, in inference mode."""
        return mask(self.unpruned, plan, self.graph).eval()

    def asked(self, keep: Keep) -> nn.Module:
        """What the pruner gives for a keep set, in inference mode."""
        return self.prune(copied(self.unpruned), self.inputs, keep).eval()


def trial(
    unpruned: nn.Module,
    prune: Prune,
    inputs: Inputs,
    keep: Keep | None = None,
    *,
    seed: int = 0,
    layers: int | None = None,
) -> Trial:
    """What the contracts look at.

    Args:
        unpruned: any network; give it weights under which a wrong channel shows
            (:func:`seqprune.testing.outputs.prepare`), in float64 where it has it: rounding hides nothing there.
        prune: the pruner.
        inputs: tensors that the network takes.
        keep: by layer what stays; half of what may leave is drawn where left out.
        seed: of that draw.
        layers: how many layers are pruned alone at most.

    Raises:
        InputError: the network cannot be traced, or the keep sets are impossible.
    """
    model = copied(unpruned).eval()
    graph = trace(model, inputs)
    plan = drawn(graph, seed) if keep is None else PrunePlan.from_keep(graph, keep)
    return Trial(model, inputs, prune, graph, plan, seed, layers)


def trial_of_own(unpruned: nn.Module, prune: Prune, inputs: Inputs, *, seed: int = 0) -> Trial:
    """The trial of a pruner that chooses the channels itself and says which in ``module.seqprune_keep``; in float32.

    Raises:
        InputError: the network cannot be traced, or the keep sets that it says are impossible.
        ContractError: it fails, or does not say what it kept.
    """
    model = copied(unpruned).eval().float()
    inputs = tuple(t.float() if t.is_floating_point() else t for t in inputs)
    graph = trace(model, inputs)
    small: Any = attempt("returns", "the pruner fails", lambda: prune(copied(model), inputs, drawn(graph, seed).keep))
    keep = getattr(small, "seqprune_keep", None)
    if not isinstance(keep, Mapping):
        raise ContractError("returns", "it chooses the channels itself, and does not say which in seqprune_keep")
    del small.seqprune_keep
    return Trial(model, inputs, lambda *_: small, graph, PrunePlan.from_keep(graph, keep), seed)


def drawn(graph: ChannelGraph, seed: int, share: float = SHARE, names: Iterable[str] | None = None) -> PrunePlan:
    """A random plan that no constraint forbids.

    Channels that become another constant than zero where they are zeroed, as behind a sigmoid, are spared: there
    "gone" and "zeroed" are two networks, and a pruner may mean either.
    """
    draw = np.random.default_rng(seed)
    spare = graph.pinned.copy()
    for path in graph.folds:
        spare[graph.weight_inputs[path].ravel()] = True
    wanted: BoolArray = (draw.random(graph.group_count) < share) & ~spare
    free = ~spare
    if names is not None:
        among = np.zeros_like(spare)
        for name in names:
            for bundle in graph.bundles(name):
                among[bundle.groups] = True
        wanted &= among
    return PrunePlan.from_removed(graph, graph.legalise(wanted, draw.random(graph.group_count), free))


def attempt(contract: str, what: str, work: Callable[[], T]) -> T:
    """Runs what a pruner answers for; its error, in one line, is the contract's."""
    try:
        return work()
    except FAILS as error:
        raise ContractError(contract, f"{what}: {first_line(error)}") from error
