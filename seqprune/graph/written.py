"""Atoms, ties, cuts and constraints as they are stated during a trace, and the channel graph that follows from them."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass, field

import numpy as np
import torch
from scipy.sparse import coo_matrix
from scipy.sparse.csgraph import connected_components
from torch import nn

from seqprune.graph.channels import Balance, Barrier, BoolArray, ChannelGraph, IntArray, Layer, Slice, Width
from seqprune.graph.constants import Constants
from seqprune.graph.deferred import Deferred
from seqprune.graph.reader import Held
from seqprune.graph.tensors import Owner, Tensors
from seqprune.graph.values import FIXED, NoRule


@dataclass
class _Cut:
    owner: Owner
    dim: int
    atoms: IntArray
    dead: float | None


@dataclass
class _LayerAtoms:
    name: str
    kind: str
    atoms: IntArray


@dataclass
class Written(Tensors):
    """What is known so far; :meth:`finish` turns it into a :class:`ChannelGraph`."""

    stack: list[str] = field(default_factory=list)
    ran: set[str] = field(default_factory=set)

    def __post_init__(self) -> None:
        super().__post_init__()
        self._atom_count = 1
        self._ties: list[tuple[IntArray, IntArray]] = []
        self._pins: list[tuple[IntArray, str]] = [(np.array([FIXED]), "not the output of a layer")]
        self._cuts: dict[tuple[str, str, int], _Cut] = {}
        self._layers: dict[int, _LayerAtoms] = {}
        self._balances: list[tuple[tuple[IntArray, ...], str]] = []
        self._widths: dict[tuple[str, str], tuple[tuple[IntArray, ...], bool]] = {}
        self._barriers: dict[tuple[str, str, str], Barrier] = {}
        self._foreign: dict[int, str] = {}
        self._deferred = Deferred()
        self.watched: list[Held] = []
        self.constants = Constants()

    @property
    def module(self) -> str:
        return self.stack[-1] if self.stack else ""

    @property
    def own(self) -> nn.Module:
        """The module whose code runs."""
        return self.modules[self.module]

    @property
    def has_layers(self) -> bool:
        """Whether any layer ran so far."""
        return bool(self._layers)

    def layer_of(self, atom: int) -> str:
        """Name of the layer that an atom is an output channel of."""
        for layer in self._layers.values():
            if layer.atoms[0] <= atom <= layer.atoms[-1]:
                return layer.name
        return "the network's input"

    def new_layer(self, weight: torch.Tensor, channels: int) -> IntArray:
        """Atoms of the layer that owns ``weight``: made at its first call, the same ever after.

        Raises:
            NoRule: its owner calls it anything else, so that a module's name does not say which tensor is meant, or
                another layer reads it in another way.
        """
        found = self._layers.get(id(weight))
        if found is None:
            name = next((owner.module for owner in self.owners(weight) if owner.tensor == "weight"), None)
            if name is None:
                raise NoRule(f"the weights of a layer are called weight, not {self.owners(weight)[0].tensor}")
            kind = type(self.modules[name]).__name__
            atoms = np.arange(self._atom_count, self._atom_count + channels)
            self._atom_count += channels
            found = self._layers[id(weight)] = _LayerAtoms(name, kind, atoms)
        if len(found.atoms) != channels:  # the barrier leaves all that is known of the weight whole
            raise NoRule("its weight is used in two ways")
        return found.atoms

    def cut(self, tensor: torch.Tensor, dim: int, atoms: IntArray, dead: float | None) -> None:
        """States that ``dim`` of a parameter or buffer holds one position per atom."""
        for owner in self.owners(tensor):
            key = (owner.module, owner.tensor, dim)
            known = self._cuts.setdefault(key, _Cut(owner, dim, atoms, dead))
            if known.dead != dead:
                for each in (known.atoms, atoms):
                    self.pin(each, "held by one tensor that is used in two ways")
            if known.atoms is not atoms:
                self.tie(known.atoms, atoms, "held by one tensor that is used twice")

    def tie(self, left: IntArray, right: IntArray, reason: str) -> None:
        """Atoms at the same position stay or go together."""
        left, right = left.ravel(), right.ravel()
        if len(left) != len(right):
            for each in (left, right):
                self.pin(each, reason)
            return
        self.pin(left[right == FIXED], reason)
        self.pin(right[left == FIXED], reason)
        both = (left != FIXED) & (right != FIXED)
        self._ties.append((left[both], right[both]))

    def pin(self, atoms: IntArray, reason: str) -> None:
        if atoms.size:
            self._pins.append((atoms.ravel(), reason))

    def balance(self, sections: Iterable[IntArray], reason: str) -> None:
        self._balances.append((tuple(sections), reason))

    def width(self, attribute: str, *sections: IntArray, many: bool = False) -> None:
        """States that an attribute of the running module holds how many channels there are."""
        self._widths[self.module, attribute] = (tuple(s.ravel() for s in sections), many)

    def state_width(self, module: str, attribute: str, atoms: IntArray) -> None:
        """The same for an attribute of any module, found by what its code does with it."""
        self._widths[module, attribute] = ((atoms,), False)

    def held(self, module: str, tensor: str, dim: int) -> IntArray | None:
        """The atoms along a dimension of a module's tensor, where there are any."""
        cut = self._cuts.get((module, tensor, dim))
        return None if cut is None else cut.atoms

    def counted(self, module: str, attribute: str) -> IntArray | None:
        """The atoms that an attribute counts, where a rule stated that it does."""
        sections = self._widths.get((module, attribute))
        return None if sections is None else np.concatenate(sections[0])

    def finish(self, inputs: tuple[tuple[tuple[int, ...], str], ...], notes: tuple[str, ...]) -> ChannelGraph:
        atoms_of: dict[Owner, list[IntArray]] = {}
        for cut in self._cuts.values():
            atoms_of.setdefault(cut.owner, []).append(cut.atoms)
        for key, reason in self._foreign.items():
            for owner in self._owners[key]:
                for atoms in atoms_of.get(owner, ()):
                    self.pin(atoms, reason)
        for atoms in self.constants.read_twice():
            self.pin(atoms, "one layer reads them, constant once removed, at more than one place")
        seen = len(self._pins)
        self._deferred.settle(self)
        self._pins = self._pins[seen:] + self._pins[:seen]  # what is read comes before what is done with it
        groups = self._groups()
        first = np.full(int(groups.max()) + 1, len(self._pins))  # of the pins that hold a group the first says why
        for at, (atoms, _) in reversed([*enumerate(self._pins)]):
            first[groups[atoms]] = at
        pinned = first < len(self._pins)
        reasons = {group: self._pins[first[group]][1] for group in np.flatnonzero(pinned).tolist()}
        return ChannelGraph(
            all_layers=tuple(_layer(layer, groups, pinned, reasons) for layer in self._layers.values()),
            slices=tuple(
                Slice(c.owner.module, c.owner.tensor, c.dim, groups[c.atoms], c.dead) for c in self._cuts.values()
            ),
            balances=tuple(Balance(tuple(groups[s] for s in ss), why) for ss, why in self._unique_balances()),
            barriers=tuple(self._barriers.values()),
            pinned=pinned,
            inputs=inputs,
            notes=notes,
            unread=self._unread(),
            folds=tuple(self._owners[weight][0].module for weight in self.constants.folds),
            widths=tuple(
                Width(module, attribute, tuple(groups[s] for s in sections), many)
                for (module, attribute), (sections, many) in self._widths.items()
            ),
        )

    def _unread(self) -> tuple[tuple[str, str], ...]:
        touched = self._deferred.touched()
        held = () if self._deferred.blind else self.watched
        return tuple((h.module, h.attribute) for h in held if (h.module, h.attribute) not in touched)

    def _unique_balances(self) -> Iterator[tuple[tuple[IntArray, ...], str]]:
        seen = set()
        for sections, reason in self._balances:
            key = tuple(section.tobytes() for section in sections)
            if key not in seen:
                seen.add(key)
                yield sections, reason

    def _groups(self) -> IntArray:
        """``[atoms]``, the connected component of each atom."""
        left = np.concatenate([a for a, _ in self._ties] or [np.empty(0, np.intp)])
        right = np.concatenate([b for _, b in self._ties] or [np.empty(0, np.intp)])
        edges = coo_matrix((np.ones(len(left), bool), (left, right)), shape=(self._atom_count,) * 2)
        labels: IntArray = connected_components(edges, directed=False)[1].astype(np.intp)
        return labels


def _layer(layer: _LayerAtoms, groups: IntArray, pinned: BoolArray, reasons: Mapping[int, str]) -> Layer:
    mine = groups[layer.atoms]
    blocked = [reasons[g] for g in dict.fromkeys(mine[pinned[mine]].tolist())]
    return Layer(layer.name, layer.kind, mine, ~pinned[mine], "; ".join(dict.fromkeys(blocked)))
