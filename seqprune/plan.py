"""A pruning plan: which channels of which layers stay, front to back."""

from __future__ import annotations

import json
from collections.abc import Iterable, Mapping
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np

from seqprune.atomic import write_text
from seqprune.errors import PlanError
from seqprune.graph.channels import BoolArray, ChannelGraph, IntArray, Layer
from seqprune.graph.factor import Factor
from seqprune.graph.given import check_graph, check_keep, indices_of
from seqprune.plain import UnreadableError, is_whole, json_of, name_of, once, printable, text_of

FORMAT, FACTORS, CHANNELS_ONLY = 3, 2, 1
"""Of plans that leave blocks out; of those with no more than pairs and a size; of nothing but keep sets. Earlier
versions read what they know."""
_MOST = 10_000_000  # channels of a layer

Shapes = tuple[tuple[tuple[int, ...], str], ...]
"""Shape and dtype of the inputs that a graph was traced with."""


@dataclass(frozen=True, repr=False)
class LayerKeep:
    """What stays of one layer.

    Attributes:
        name: module path.
        position: place in the model's execution order.
        channels: output channels before pruning.
        keep: sorted indices in ``[0, channels)`` that stay.
    """

    name: str
    position: int
    channels: int
    keep: tuple[int, ...]

    @property
    def removed(self) -> int:
        return self.channels - len(self.keep)

    def __repr__(self) -> str:
        return f"LayerKeep({self.name}: {len(self.keep)} of {self.channels} channels stay)"


@dataclass(frozen=True, repr=False)
class PrunePlan:
    """Frozen, hashable and complete: every layer that loses channels is in it, front to back.

    Laws: the order in which keep sets are given does not matter; ``from_json(p.to_json()) == p``;
    ``mask(mask(m, p), q) == mask(m, p & q)``.

    Attributes:
        layers: the layers that lose channels, in execution order.
        inputs: shape and dtype of the example inputs the graph was traced with.
        factors: blocks whose convolution is made of two before channels leave; layers are those of the network that
            this gives.
        imgsz: side in pixels of the images that the result is meant for, where that was chosen too.
        blocks: module paths of blocks that are left out before anything else; all other names stay as they were.
    """

    layers: tuple[LayerKeep, ...]
    inputs: tuple[tuple[tuple[int, ...], str], ...]
    factors: tuple[Factor, ...] = ()
    imgsz: int | None = None
    blocks: tuple[str, ...] = ()

    def __repr__(self) -> str:
        stay, whole = sum(len(entry.keep) for entry in self.layers), sum(entry.channels for entry in self.layers)
        return f"PrunePlan({len(self.layers)} layers lose channels, {stay:,} of their {whole:,} stay)"

    @classmethod
    def from_keep(cls, graph: ChannelGraph, keep: Mapping[str, Iterable[int]]) -> PrunePlan:
        """Completes keep sets over channel groups and checks every constraint.

        Args:
            graph: the network's channel graph.
            keep: by layer, the sorted indices that stay; layers in any order. A channel that one layer
                gives up is given up by every member of its group, so keep sets of coupled layers intersect.

        Raises:
            PlanError: an unknown or pinned layer; a keep set that is empty, unsorted or out of range; a
                constraint of the network's modules that the result would break.
        """
        check_graph(graph)
        if not isinstance(keep, Mapping):
            raise PlanError(f"keep is a {type(keep).__name__}: give a dictionary of layers and the indices that stay")
        removed = np.zeros(graph.group_count, bool)
        for name, indices in keep.items():
            layer = find_layer(graph, name)
            chosen = indices_of(name, indices)
            check_keep(name, layer.channels, chosen)
            gone = np.setdiff1d(np.arange(layer.channels), chosen)
            check_free(layer, gone)
            removed[layer.groups[gone]] = True
        return cls.from_removed(graph, removed)

    @classmethod
    def from_removed(cls, graph: ChannelGraph, removed: BoolArray) -> PrunePlan:
        """The plan that removes the channel groups at ``removed`` (``[group_count]``).

        Raises:
            PlanError: that is not one truth value a group, or breaks a constraint of the network's modules.
        """
        check_graph(graph)
        removed = np.asarray(removed)
        if removed.dtype != np.bool_ or removed.shape != (graph.group_count,):
            raise PlanError(
                f"removed is a {removed.dtype} of {removed.shape}: give one truth value for each of "
                f"{graph.group_count} channel groups"
            )
        layers = []
        for position, layer in enumerate(graph.all_layers):
            check_free(layer, np.flatnonzero(removed[layer.groups]))
            stay = np.flatnonzero(~removed[layer.groups])
            if not len(stay):
                raise PlanError(f"nothing would be left of {layer.name}: keep at least one channel")
            if len(stay) < layer.channels:
                layers.append(LayerKeep(layer.name, position, layer.channels, tuple(stay.tolist())))
        if broken := graph.unbalanced(removed):
            balance, counts = broken
            raise PlanError(
                f"sections of {counts} channels would stay where equally many must, at least one each: "
                f"{balance.reason}; even them out, or let graph.legalise give channels back"
            )
        return cls(tuple(layers), graph.inputs)

    @property
    def keep(self) -> dict[str, tuple[int, ...]]:
        """The indices of the channels that stay, by module path, front to back."""
        return {layer.name: layer.keep for layer in self.layers}

    def removed_groups(self, graph: ChannelGraph) -> BoolArray:
        """``[group_count]``, the groups this plan removes, after checking that the plan is one for ``graph``.

        Raises:
            PlanError: a layer is missing or has another width, or the graph couples channels otherwise.
        """
        removed = np.zeros(graph.group_count, bool)
        for mine in self.layers:
            layer = graph.by_name.get(mine.name)
            if layer is None or layer.channels != mine.channels:
                seen = "no such layer" if layer is None else f"{layer.channels} channels"
                raise PlanError(
                    f"the plan is for another model: it has {mine.name} with {mine.channels} channels, the model "
                    f"has {seen}; use the weights the plan was made for"
                )
            gone = np.setdiff1d(np.arange(layer.channels), mine.keep, assume_unique=True)
            removed[layer.groups[gone]] = True
        if graph.pinned[removed].any() or PrunePlan.from_removed(graph, removed).layers != self.layers:
            raise PlanError(
                "the plan is for another model: its layers are coupled differently here; make the plan anew"
            )
        return removed

    def __and__(self, other: PrunePlan) -> PrunePlan:
        """Keeps what both keep. The result is checked against a graph when it is applied."""
        check_plan(other)
        if (self.factors, self.imgsz, self.blocks) != (other.factors, other.imgsz, other.blocks):
            raise PlanError(
                "the plans factor or leave out other blocks, or are for other sizes of images: join plans that agree"
            )
        mine, theirs = ({layer.name: layer for layer in plan.layers} for plan in (self, other))
        for name in mine.keys() & theirs.keys():
            if mine[name].channels != theirs[name].channels:
                raise PlanError(
                    f"the plans are for different models: {name} has {mine[name].channels} channels in one and "
                    f"{theirs[name].channels} in the other; join plans of one model only"
                )
        joined = mine | theirs
        for name in mine.keys() & theirs.keys():
            stay = sorted({*mine[name].keep} & {*theirs[name].keep})
            joined[name] = replace(mine[name], keep=tuple(stay))
        return replace(self, layers=tuple(sorted(joined.values(), key=lambda e: e.position)))

    # ---- JSON --------------------------------------------------------------------------------------

    def to_json(self) -> str:
        """The plan as text that :meth:`from_json` reads."""
        layers = [
            {"name": e.name, "position": e.position, "channels": e.channels, "keep": list(e.keep)} for e in self.layers
        ]
        inputs = [{"shape": list(shape), "dtype": dtype} for shape, dtype in self.inputs]
        rows = ",\n".join("    " + json.dumps(layer) for layer in layers)
        more, number = "", CHANNELS_ONLY
        if self.factors or self.imgsz or self.blocks:
            pairs = ",\n".join("    " + json.dumps(asdict(factor)) for factor in self.factors)
            more, number = f'  "imgsz": {json.dumps(self.imgsz)},\n  "factors": [\n{pairs}\n  ],\n', FACTORS
        if self.blocks:
            more, number = f'{more}  "blocks": {json.dumps(self.blocks)},\n', FORMAT
        inputs_line = f'  "inputs": {json.dumps(inputs)},\n'
        return f'{{\n  "format": {number},\n{inputs_line}{more}  "layers": [\n{rows}\n  ]\n}}\n'

    @classmethod
    def from_json(cls, text: str) -> PrunePlan:
        """Reads a plan back; whether it fits a model is checked when it is applied.

        Raises:
            PlanError: the text is no plan, or a keep set in it is impossible.
        """
        try:
            data = json_of(text)
            if data["format"] not in (CHANNELS_ONLY, FACTORS, FORMAT):
                raise PlanError(
                    f"the plan has format {printable(data['format'], 40)}, this version reads {FORMAT}; make it anew"
                )
            plan = cls(
                tuple(_layer_from(entry) for entry in data["layers"]),
                tuple((_counts(entry["shape"], 0), name_of(entry["dtype"])) for entry in data["inputs"]),
                tuple(_factor_from(entry) for entry in data.get("factors", ())),
                None if data.get("imgsz") is None else _counts((data["imgsz"],), 1)[0],
                tuple(name_of(path) for path in data.get("blocks", ())),
            )
            once([layer.name for layer in plan.layers])
            once([factor.block for factor in plan.factors])
            once(plan.blocks)
        except (UnreadableError, KeyError, TypeError, ValueError, AttributeError) as error:
            why = str(error) if isinstance(error, UnreadableError) else f"{type(error).__name__}: {printable(error)}"
            raise PlanError(f"the text is no pruning plan ({why}); give a plan.json that seqprune wrote") from error
        for layer in plan.layers:
            check_keep(layer.name, layer.channels, layer.keep)
        return plan

    def save(self, path: str | Path) -> None:
        """Writes it as JSON, whole or not at all.

        Raises:
            PlanError: it cannot be written there.
        """
        try:
            write_text(path, self.to_json())
        except (OSError, TypeError) as error:
            why = f"{path} cannot be written ({printable(error)})"
            raise PlanError(f"{why}; give the name of a file in a folder that is there") from error

    @classmethod
    def load(cls, path: str | Path) -> PrunePlan:
        """The plan in a file that :meth:`save` wrote.

        Raises:
            PlanError: the file cannot be read, or holds no plan.
        """
        try:
            text = text_of(path)
        except UnreadableError as error:
            raise PlanError(f"cannot read the plan {path} ({error}); give a plan.json that seqprune wrote") from error
        return cls.from_json(text)


def check_plan(plan: object) -> None:
    """Raises :class:`PlanError` unless it is one."""
    if not isinstance(plan, PrunePlan):
        raise PlanError(f"the plan is a {type(plan).__name__}: give a PrunePlan, as from_keep and load make them")


def check_free(layer: Layer, gone: IntArray) -> None:
    """Raises :class:`PlanError` where a channel of a layer that is to be removed cannot be."""
    if not layer.free[gone].all():
        first = gone[~layer.free[gone]][0]
        raise PlanError(f"channel {first} of {layer.name} cannot be removed: {layer.reason}; keep it")


def find_layer(graph: ChannelGraph, name: str) -> Layer:
    """The prunable layer of that name; raises :class:`PlanError` where there is none."""
    layer = graph.layer(name)
    if not layer.free.any():
        raise PlanError(f"{name} cannot be pruned: {layer.reason}; choose another layer")
    return layer


def _layer_from(entry: Mapping[str, Any]) -> LayerKeep:
    position, channels = _counts((entry["position"], entry["channels"]), 0)
    return LayerKeep(name_of(entry["name"]), position, channels, _counts(entry["keep"]))


def _factor_from(entry: Mapping[str, Any]) -> Factor:
    (rank,) = _counts((entry["rank"],))
    if entry["first"] not in ("column", "row") or rank < 1:
        raise ValueError(f"a factor of {printable(entry['first'], 40)} first with {rank} channels between")
    return Factor(name_of(entry["block"]), entry["first"], rank)


def _counts(values: Iterable[Any], least: int = -_MOST) -> tuple[int, ...]:
    found = tuple(values)
    if strange := [value for value in found if not is_whole(value, least, _MOST)]:
        raise ValueError(f"{printable(strange[0], 40)} is no number of channels")
    return found
