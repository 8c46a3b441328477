"""Pruners by name: those that come with the suite, and those that other distributions register.

A pruner is ``prune(module, example_inputs, keep) -> module``; see :data:`seqprune.testing.trial.Prune`. A distribution
registers one as an entry point of the group ``seqprune.pruners``; a script with :func:`register`; and
``package.module:function`` names one that is registered nowhere.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from importlib import metadata

from seqprune.errors import InputError
from seqprune.testing import faulty, ours
from seqprune.testing.named import named
from seqprune.testing.peers import torch_pruning, torch_pruning_split
from seqprune.testing.trial import Prune

GROUP = "seqprune.pruners"


@dataclass(frozen=True)
class Pruner:
    """A pruner under test.

    Attributes:
        name: what it is asked for by.
        prune: the function.
        about: how it is used, in a line.
        peer: whether its failures are somebody else's: results of the suite, not failures of it.
        own: whether it chooses the channels itself, as many as ``keep`` leaves, and says which in
            ``module.seqprune_keep``.
        expected: by contract, why it is known not to hold.
    """

    name: str
    prune: Prune
    about: str = ""
    peer: bool = False
    own: bool = False
    expected: Mapping[str, str] = field(default_factory=dict)


_HALF = "readers were narrowed, producers were not"
_ZERO = "channels are zeroed, not removed"

PRUNERS: dict[str, Pruner] = {
    p.name: p
    for p in (
        Pruner("seqprune", ours.exact, "trace, PrunePlan.from_keep, compact"),
        Pruner("seqprune-fast", ours.fast, 'prune(module, preset="fast") to the parameters that stay', own=True),
        Pruner(
            "torch-pruning", torch_pruning, "DependencyGraph.get_pruning_group(...).prune(), as documented", peer=True
        ),
        Pruner("torch-pruning-c2f", torch_pruning_split, "the same, every C2f rewritten before", peer=True),
        Pruner(
            "naive",
            faulty.half_applied,
            "narrows the next layer, leaves the producer: the predecessor's first fault",
            expected={"channels": _HALF, "batchnorm": _HALF, "runs": _HALF, "order": "readers are guessed by width"},
        ),
        Pruner(
            "zeroing",
            faulty.zeroing,
            "zeroes channels and removes none: the predecessor's way",
            expected={"smaller": _ZERO, "channels": _ZERO, "batchnorm": _ZERO, "training": "zeros wake up"},
        ),
        Pruner(
            "back-to-front",
            faulty.back_to_front,
            "removes rows from the back and guesses the reader by its width",
            expected=dict.fromkeys(
                ("channels", "batchnorm", "order", "runs", "values", "alone", "orders"), "readers are guessed by width"
            ),
        ),
    )
}


def register(pruner: Pruner) -> None:
    """Adds a pruner, in this process."""
    PRUNERS[pruner.name] = pruner


def pruner(name: str) -> Pruner:
    """The pruner of that name.

    Raises:
        InputError: there is none, or what is registered is no pruner.
    """
    if name in PRUNERS:
        return PRUNERS[name]
    for entry in metadata.entry_points(group=GROUP):
        if entry.name == name:
            return _as_pruner(name, entry.load())
    if ":" in name:
        return _as_pruner(name, named(name))
    known = ", ".join((*PRUNERS, *(entry.name for entry in metadata.entry_points(group=GROUP))))
    raise InputError(f"there is no pruner {name!r}: choose {known}, or package.module:function")


def _as_pruner(name: str, found: object) -> Pruner:
    if isinstance(found, Pruner):
        return found
    if not callable(found):
        raise InputError(f"{name} is a {type(found).__name__}: register prune(module, example_inputs, keep)")
    return Pruner(name, found)
