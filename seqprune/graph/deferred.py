"""Facts about counts, kept until a trace has seen every use of the tensors that tell what is counted."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from dataclasses import dataclass, field
from typing import Protocol

import numpy as np

from seqprune.graph.channels import IntArray
from seqprune.graph.reader import Held, Source


class Facts(Protocol):
    """What a recorder knows of modules, and takes."""

    def held(self, module: str, tensor: str, dim: int) -> IntArray | None: ...

    def counted(self, module: str, attribute: str) -> IntArray | None: ...

    def state_width(self, module: str, attribute: str, atoms: IntArray) -> None: ...

    def pin(self, atoms: IntArray, reason: str) -> None: ...

    def tie(self, left: IntArray, right: IntArray, reason: str) -> None: ...

    def balance(self, sections: Iterable[IntArray], reason: str) -> None: ...


@dataclass
class Deferred:
    """Sources of counts that were used, that must stay equal, and whose channels stay or go together."""

    used: list[tuple[Source, str]] = field(default_factory=list)
    equal: list[tuple[Source, Source, str]] = field(default_factory=list)
    tied: list[tuple[Source, Source, str]] = field(default_factory=list)
    blind: bool = False
    """Whether a pass ran in which nobody saw what the code does with attributes."""

    def copy(self) -> Deferred:
        return Deferred(list(self.used), list(self.equal), list(self.tied), self.blind)

    def touched(self) -> set[tuple[str, str]]:
        """Modules and attributes that did anything in a pass."""
        pairs = [source for left, right, _ in (*self.equal, *self.tied) for source in (left, right)]
        return _attributes([*pairs, *(source for source, _ in self.used)])

    def settle(self, facts: Facts) -> None:
        """Tells the recorder, which knows by now what every tensor holds."""
        self._state_widths(facts)
        for bind, pairs in ((facts.tie, self.tied), (_balance(facts), self.equal)):
            for left, right, reason in pairs:
                one, other = counted(facts, left), counted(facts, right)
                if one is None or other is None or len(one) != len(other):
                    self.used += [(left, reason), (right, reason)]
                elif not np.array_equal(one, other):
                    bind(one, other, reason)
        for source, reason in self.used:
            of = source.of if isinstance(source, Held) else ""
            for atoms in (counted(facts, source), _outputs(facts, of) if of else None):
                if atoms is not None:
                    facts.pin(atoms, reason)

    def _state_widths(self, facts: Facts) -> None:
        """An attribute that code hands on for channels follows them; those of one that it uses as well are pinned."""
        for left, right, _ in (*self.tied, *self.equal) if not self.blind else ():
            for held, other in ((left, right), (right, left)):
                if not isinstance(held, Held) or held.tensors:
                    continue
                known, atoms = facts.counted(held.module, held.attribute), counted(facts, other)
                if known is None and atoms is not None and len(atoms) == held.number:
                    facts.state_width(held.module, held.attribute, atoms)


def _outputs(facts: Facts, layer: str) -> IntArray | None:
    """What a layer makes; of a transposed one what it reads, too, since both are as many."""
    bias, weight = facts.held(layer, "bias", 0), facts.held(layer, "weight", 0)
    return weight if bias is None else bias


def _attributes(sources: Iterable[Source]) -> set[tuple[str, str]]:
    return {(s.module, s.attribute) for s in sources if isinstance(s, Held)}


def _balance(facts: Facts) -> Callable[[IntArray, IntArray, str], None]:
    return lambda one, other, reason: facts.balance((one, other), reason)


def counted(facts: Facts, source: Source) -> IntArray | None:
    """The atoms that are counted; ``None`` where nothing is known that could be removed: the number is a constant."""
    if not isinstance(source, Held):
        return source.ravel()
    for tensor, dim in source.tensors:
        if (atoms := facts.held(source.module, tensor, dim)) is not None:
            return atoms.ravel()
    return facts.counted(source.module, source.attribute)
