"""The read-only answer of a trace: which channels stay or go together, and what every tensor has to do with them."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from difflib import get_close_matches
from functools import cached_property
from itertools import islice

import numpy as np
import numpy.typing as npt

from seqprune.errors import PlanError
from seqprune.graph.giving import BoolArray as BoolArray
from seqprune.graph.giving import Giving, Sections
from seqprune.graph.giving import IntArray as IntArray
from seqprune.plain import is_count, printable


@dataclass(frozen=True)
class Layer:
    """A convolution or linear layer whose output channels are atoms.

    Attributes:
        name: module path, ``model.5.conv``.
        kind: class name of the module.
        groups: ``[channels]``, the channel group of each output channel.
        free: ``[channels]``, whether the channel may be removed.
        reason: why channels that are not free are pinned; empty where all are free.
    """

    name: str
    kind: str
    groups: IntArray
    free: BoolArray
    reason: str

    @property
    def channels(self) -> int:
        return len(self.groups)


@dataclass(frozen=True)
class Slice:
    """How one dimension of one tensor of a module follows the channel groups.

    Attributes:
        module: module path of the owner.
        tensor: name of the parameter or buffer in it.
        dim: the dimension that is cut.
        groups: ``[size]``, the channel group at each position; for dimension 1 of a grouped convolution
            ``[conv_groups, size]``, since each of its groups reads other channels, or makes them if transposed.
        dead: the value a masked position takes, ``None`` where masking leaves the tensor alone.
    """

    module: str
    tensor: str
    dim: int
    groups: IntArray
    dead: float | None


@dataclass(frozen=True)
class Balance:
    """Sections of which an equal number of channels must stay, because an unmodified module says so."""

    sections: tuple[IntArray, ...]
    reason: str


@dataclass(frozen=True)
class Width:
    """A number of channels that a module holds in an attribute, and its code computes with.

    Attributes:
        module: module path of the owner.
        attribute: name of the attribute.
        sections: the channel group at each position that is counted, a section for each number.
        many: whether the attribute is a list of numbers, one a section.
    """

    module: str
    attribute: str
    sections: tuple[IntArray, ...]
    many: bool


@dataclass(frozen=True)
class Barrier:
    """An operator through which channels could not be followed."""

    op: str
    module: str
    shape: tuple[int, ...]
    reason: str

    def __str__(self) -> str:
        shape = "×".join(map(str, self.shape))
        return f"{self.op} of [{shape}] in {self.module or 'the network'}: {self.reason}"


@dataclass(frozen=True)
class Bundle:
    """Channel groups that are decided together because they have the same member layers.

    Attributes:
        groups: ``[units]``, ascending in the order of the first member's channels.
        columns: for every member layer its channels, ``[units, times]``; ``times`` is 1 unless the
            layer holds a group more than once.
    """

    groups: IntArray
    columns: dict[str, IntArray]


@dataclass(frozen=True)
class ChannelGraph:
    """Where the channels of a network go.

    Attributes:
        all_layers: every layer that ran, front to back, pinned ones included.
        slices: what surgery does to every tensor.
        balances: constraints that unmodified modules impose.
        widths: attributes that follow the channels.
        barriers: what is pinned, where and why, in execution order.
        pinned: ``[group_count]``, groups that may not be removed.
        inputs: shape and dtype of the example inputs, ``((1, 3, 64, 64), "float32")`` each.
        notes: what the trace could not look at.
        folds: layers whose bias takes up what their weight makes of channels that are constant once removed.
        unread: modules and attributes, whole numbers that no pass did anything with.
    """

    all_layers: tuple[Layer, ...]
    slices: tuple[Slice, ...]
    balances: tuple[Balance, ...]
    barriers: tuple[Barrier, ...]
    pinned: BoolArray
    inputs: tuple[tuple[tuple[int, ...], str], ...]
    notes: tuple[str, ...] = ()
    widths: tuple[Width, ...] = ()
    unread: tuple[tuple[str, str], ...] = ()
    folds: tuple[str, ...] = ()

    @property
    def group_count(self) -> int:
        """How many channel groups there are: atoms that stay or go together."""
        return len(self.pinned)

    @cached_property
    def layers(self) -> tuple[Layer, ...]:
        """The prunable layers, front to back: those with a channel that may be removed."""
        return tuple(layer for layer in self.all_layers if layer.free.any())

    @cached_property
    def by_name(self) -> dict[str, Layer]:
        """Every layer by its module path."""
        return {layer.name: layer for layer in self.all_layers}

    @cached_property
    def weight_inputs(self) -> dict[str, IntArray]:
        """By module path, the groups along what its weight reads; ``[conv_groups, size]`` for grouped convolutions."""
        return {cut.module: cut.groups for cut in self.slices if cut.tensor == "weight" and cut.dead is None}

    @cached_property
    def weight_outputs(self) -> dict[str, IntArray]:
        """By module path, the groups along what its weight makes."""
        return {cut.module: cut.groups for cut in self.slices if cut.tensor == "weight" and cut.dead is not None}

    @cached_property
    def order(self) -> dict[str, int]:
        """Position of every layer in execution order."""
        return {layer.name: position for position, layer in enumerate(self.all_layers)}

    @cached_property
    def members(self) -> dict[int, tuple[tuple[str, int], ...]]:
        """The (layer, channel) pairs of every group, front to back."""
        found: dict[int, list[tuple[str, int]]] = {}
        for layer in self.all_layers:
            for channel, group in enumerate(layer.groups.tolist()):
                found.setdefault(group, []).append((layer.name, channel))
        return {group: tuple(pairs) for group, pairs in found.items()}

    def layer(self, name: str) -> Layer:
        """The layer of that module path.

        Raises:
            PlanError: there is none.
        """
        if not isinstance(name, str) or name not in self.by_name:
            shown = printable(name, 80)
            near = get_close_matches(shown, self.by_name)
            hint = f"did you mean {', '.join(near)}?" if near else "`seqprune inspect` lists the layers"
            raise PlanError(f"the model has no layer {shown}; {hint}")
        return self.by_name[name]

    def coupled(self, name: str) -> tuple[str, ...]:
        """Layers that share a channel group with ``name``, itself left out, front to back."""
        groups = set(self.layer(name).groups.tolist())
        return tuple(o.name for o in self.all_layers if o.name != name and groups & set(o.groups.tolist()))

    def bundles(self, name: str) -> tuple[Bundle, ...]:
        """Everything that must be decided when ``name`` is pruned.

        The free groups of the layer, and those that balances tie to them: both halves of a C2f, with
        the residual branches that end in one of them.
        """
        free = ~self.pinned
        touched = np.zeros(self.group_count, bool)
        touched[self.layer(name).groups] = True
        touched &= free
        while True:
            size = touched.sum()
            for balance in self.balances:
                if any(touched[section].any() for section in balance.sections):
                    touched[np.concatenate(balance.sections)] = True
            touched &= free
            if touched.sum() == size:
                break
        by_members: dict[tuple[str, ...], list[int]] = {}
        for group in dict.fromkeys(g for layer in self.all_layers for g in layer.groups.tolist()):
            if touched[group]:
                by_members.setdefault(tuple(n for n, _ in self.members[group]), []).append(group)
        return tuple(self._bundle(names, groups) for names, groups in by_members.items())

    def _bundle(self, names: Sequence[str], groups: Sequence[int]) -> Bundle:
        columns = {
            name: np.array([[c for n, c in self.members[g] if n == name] for g in groups], np.intp)
            for name in dict.fromkeys(names)
        }
        return Bundle(np.array(groups, np.intp), columns)

    def unbalanced(self, removed: BoolArray) -> tuple[Balance, tuple[int, ...]] | None:
        """The first balance that ``removed`` (``[group_count]``) breaks, with the counts that stay."""
        kept = iter(self._sections.counts(~removed).tolist())
        for balance in self.balances:  # whose sections are the first of all
            counts = tuple(islice(kept, len(balance.sections)))
            if len(set(counts)) > 1 or min(counts) == 0:
                return balance, counts
        return None

    def legalise(
        self, removed: BoolArray, scores: npt.NDArray[np.float64], decided: BoolArray, round_to: int = 1
    ) -> BoolArray:
        """Gives back the fewest, best channels so that every constraint holds.

        Args:
            removed: ``[group_count]``, the groups a selection wants to remove.
            scores: ``[group_count]``, higher stays first.
            decided: ``[group_count]``, groups that may be given back; all others are left as they are.
            round_to: counts are rounded up to a multiple of this where enough channels are left.

        Returns:
            ``removed`` with some groups given back; never with more removed.

        Raises:
            PlanError: an argument is of another shape or type.
        """
        for name, given, kinds in (("removed", removed, "b"), ("scores", scores, "iuf"), ("decided", decided, "b")):
            seen = np.asarray(given)
            if seen.shape != (self.group_count,) or seen.dtype.kind not in kinds:
                raise PlanError(
                    f"{name} is a {type(given).__name__} of {list(seen.shape)}: give an array of {self.group_count} "
                    f"{'truth values' if kinds == 'b' else 'numbers'}, one for each channel group"
                )
        if not is_count(round_to, 1):
            raise PlanError(f"channel counts cannot be rounded to multiples of {round_to!r}: give 1 or more")
        removed, scores, decided = np.asarray(removed), np.asarray(scores), np.asarray(decided)
        return self.giving(scores, decided).legal(removed, round_to)

    def giving(self, scores: npt.NDArray[np.float64], decided: BoolArray) -> Giving:
        """:meth:`legalise` of one choice after the other: its ``legal`` takes what is removed, and ``round_to``."""
        return Giving(self._sections, scores, decided)

    @cached_property
    def _sections(self) -> Sections:
        balances = [balance.sections for balance in self.balances]
        return Sections.of(balances, [layer.groups for layer in self.all_layers], self.group_count)
