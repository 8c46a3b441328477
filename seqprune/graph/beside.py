"""Whole numbers in modules that repeat the width of a layer beside them, and are read only after training.

A block that is made into one convolution for deployment knows its ``in_channels``; no pass reads it, so nothing in a
trace tells what it counts. It equals the width of a layer in the block: if that is cut, it is to follow.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass

import numpy as np
import torch
from torch import nn

from seqprune.graph.channels import BoolArray, ChannelGraph
from seqprune.graph.numbers import WIDTH_NAME, numbers

DEPTH = 2
"""How far down a layer may lie from the module whose attribute repeats its width: a block, its Conv, its conv."""

IN_NAME = re.compile(r"(^|_)n?in(_|p|c|f|$)|^inp|^c_?(in|1)$|^in(channels|planes|features|dim)", re.IGNORECASE)
OUT_NAME = re.compile(r"(^|_)n?out(_|p|c|f|$)|^oup|^c_?(out|2)$|^out(channels|planes|features|dim)", re.IGNORECASE)
OTHER_NAME = re.compile(
    r"kernel|strid|pad|dilat|group|head|scale|ratio|size|steps?$|level|depth|num_(layer|block|class)|max|min|^n[clrmt]$|"
    r"^no$|^[ksprgd]\d?$|reg|seed|version|index|^[if]$|repeat|bits|patch|window|resol|height|img|shape_",
    re.IGNORECASE,
)
"""Names that say of a number that it is something else."""


@dataclass(frozen=True)
class Repeated:
    """An attribute that equals the width of layers beside it, some of which lose channels.

    Attributes:
        module: module path.
        attribute: name of the attribute, with the place in it where it is a list or dictionary.
        before: what it holds.
        after: the widths, once pruned, of the layers that it may mean; it follows where they agree.
        unread: whether it is known that no pass of the trace read it.
    """

    module: str
    attribute: str
    before: int
    after: tuple[int, ...]
    unread: bool = True

    @property
    def named(self) -> bool:
        """Whether its name is that of a width: ``stride`` may be 16 by chance."""
        return WIDTH_NAME.search(self.attribute) is not None

    @property
    def clear(self) -> bool:
        return self.named and len(self.after) == 1 and self.unread

    @property
    def other(self) -> bool:
        """Whether its name says that it is something else."""
        return not self.named and OTHER_NAME.search(self.attribute) is not None

    def __str__(self) -> str:
        counts = " or ".join(map(str, self.after))
        return f"{self.module or 'the network'}.{self.attribute} is {self.before}, layers beside it have {counts} now"


def repeated(model: nn.Module, graph: ChannelGraph, removed: BoolArray) -> list[Repeated]:
    """The attributes that equal a width that changes and that no pass of the trace read; in lists, those it may have.

    Args:
        model: the network before it is cut.
        graph: its channel graph.
        removed: ``[group_count]``, the groups that leave.
    """
    found = []
    modules = dict(model.named_modules())
    beside = _layers_beside(modules, graph)
    for path, attribute, before, unread in _numbers(modules, graph):
        widths = list(_widths(graph, removed, beside.get(path, ()), before))
        for wanted, name in ((True, IN_NAME), (False, OUT_NAME)):
            if name.search(attribute) and any(inner is wanted for inner, _ in widths):
                widths = [(inner, after) for inner, after in widths if inner is wanted]
        after = tuple(sorted({after for _, after in widths}))
        if after and after != (before,):
            found.append(Repeated(path, attribute, before, after, unread))
    return found


def _numbers(modules: Mapping[str, nn.Module], graph: ChannelGraph) -> Iterator[tuple[str, str, int, bool]]:
    """Of every module its numbers that no pass read, and those in lists and dictionaries whose names are widths'."""
    unread = set(graph.unread)
    stated = {(width.module, width.attribute) for width in graph.widths}
    for path, module in modules.items():
        if type(module).__module__.startswith("torch."):
            continue
        for attribute, number in numbers(module):
            if type(number) is not int:
                continue
            inside = not attribute.isidentifier()
            if (path, attribute) in stated or (path, attribute.partition("[")[0]) in stated:
                continue
            if inside or (path, attribute) in unread:
                yield path, attribute, number, (path, attribute) in unread


def _layers_beside(modules: Mapping[str, nn.Module], graph: ChannelGraph) -> dict[str, list[str]]:
    """By module path, the layers that are or lie in it, no further down than ``DEPTH``."""
    found: dict[str, list[str]] = {}
    for name in dict.fromkeys((*graph.weight_inputs, *graph.weight_outputs)):
        weight = getattr(modules.get(name), "weight", None)
        if not isinstance(weight, torch.Tensor) or weight.dim() < 2:
            continue
        path = name
        for _ in range(DEPTH + 1):
            found.setdefault(path, []).append(name)
            if not path:
                break
            path = path.rpartition(".")[0]
    return found


def _widths(graph: ChannelGraph, removed: BoolArray, layers: Iterable[str], width: int) -> Iterator[tuple[bool, int]]:
    """Of the layers of this width: whether it is what they read, and how many channels stay."""
    for name in layers:
        for groups, reads in ((graph.weight_inputs.get(name), True), (graph.weight_outputs.get(name), False)):
            if groups is not None and groups.size == width:
                yield reads, width - int(np.count_nonzero(removed[groups]))
