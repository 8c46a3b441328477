"""Blocks left out whole: elements of a sequence of modules that give what they take its shape, as residual blocks do.

``nn.Identity()`` takes the place of such a block, so that what follows reads what it read and every other module keeps
its name; of a residual block that is the block with its branch at zero. Where a module reads the outputs of all
elements side by side, as a C2f, the compact network has a shorter list and a convolution that reads fewer channels:
:func:`merge`. Which modules do is stated once, in :mod:`seqprune.graph.facts`.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from itertools import pairwise
from typing import cast

import numpy as np
import torch
from torch import nn

from seqprune.errors import PlanError
from seqprune.graph.channels import BoolArray
from seqprune.graph.copying import copied
from seqprune.graph.facts import READ_TOGETHER
from seqprune.graph.modes import inference
from seqprune.graph.paths import module_at, reached_once
from seqprune.graph.values import NETWORK_FAILS, cloned

LEAST = 2
"""Layers with weights in what is called a block here: one alone is a layer."""
SIDE = 8
"""In pixels, of the map on which a block is asked whether it is a residual one."""


def removable(model: nn.Module, inputs: tuple[torch.Tensor, ...]) -> tuple[str, ...]:
    """Blocks that may be left out, the outer ones first: elements of sequences and lists of modules that run once,
    given one tensor, and return one of the same shape; of lists those whose elements run one after the other. Of blocks
    within blocks all.

    Args:
        model: any network; a copy of it is run once.
        inputs: its arguments.
    """
    model = copied(model)
    once = reached_once(model)
    elements = {path: module for path, module in _elements(model) if id(module) in once}
    calls: dict[str, list[tuple[object, object]]] = {}

    def look(path: str, given: tuple[object, ...], named: Mapping[str, object], output: object) -> None:
        calls.setdefault(path, []).append((given[0] if len(given) == 1 and not named else None, output))

    for path, module in elements.items():  # of a copy, whose hooks go with it
        module.register_forward_hook(lambda _module, *seen, path=path: look(path, *seen), with_kwargs=True)
    with inference(model):
        model(*cloned(inputs))
    return tuple(path for path in elements if _keeps_shape(calls.get(path, [])) and _follows(model, path, calls))


def _keeps_shape(calls: Sequence[tuple[object, object]]) -> bool:
    given, made = calls[0] if len(calls) == 1 else (None, None)
    return isinstance(given, torch.Tensor) and isinstance(made, torch.Tensor) and given.shape == made.shape


def _follows(model: nn.Module, path: str, calls: Mapping[str, Sequence[tuple[object, object]]]) -> bool:
    """Whether a block reads what the one before makes, or is read by the one behind; in a sequence that is so."""
    parent, _, number = path.rpartition(".")
    elements = model.get_submodule(parent)
    if isinstance(elements, nn.Sequential) or _together(model, parent) is not None:
        return True
    before, behind = (calls.get(f"{parent}.{int(number) + step}".lstrip("."), [(None, None)]) for step in (-1, 1))
    given, made = calls[path][0]
    return before[0][1] is given or behind[0][0] is made


def left_out(model: nn.Module, blocks: Iterable[str]) -> nn.Module:
    """A copy of ``model`` without these blocks, all other names as they are; itself where it has none of them any more.

    Raises:
        PlanError: there is no such block.
    """
    missing = [path for path in blocks if not isinstance(module_at(model, path), nn.Identity)]
    if not missing:
        return model
    copy = copied(model)
    leave_out(copy, missing)
    return copy


def leave_out(model: nn.Module, blocks: Sequence[str]) -> None:
    """The same in place."""
    known = dict(_elements(model))
    for path in blocks:
        if path not in known:
            raise PlanError(
                f"the plan is for another model: {path} is no block that can be left out here; use the weights the "
                "plan was made for"
            )
    for path in blocks:
        parent, _, name = path.rpartition(".")
        _forget(model, path)
        setattr(model.get_submodule(parent), name, nn.Identity().train(known[path].training))


def merge(model: nn.Module, blocks: Iterable[str], kept: Mapping[str, BoolArray] | None = None) -> None:
    """Takes blocks that are left out from lists whose outputs are read side by side, in place: what reads such a block
    and what that read, which are the same, reads it once.

    Args:
        model: with ``nn.Identity()`` in the place of these blocks.
        blocks: their paths.
        kept: by path of a convolution, which of its inputs stayed; all where it is left out.
    """
    for parent, gone in _by_list(blocks).items():
        together = _together(model, parent)
        if together is None:
            continue
        elements = cast(nn.ModuleList, model.get_submodule(parent))
        conv = cast(nn.Conv2d, model.get_submodule(together.reader))
        places = together.sections(model, len(elements), None if kept is None else kept.get(together.reader))
        parts = [conv.weight.detach()[:, place] for place in places]
        for number in sorted(gone, reverse=True):
            last = parts.pop(together.before + number)
            parts[together.before + number - 1] = parts[together.before + number - 1] + last
            del elements[number]
        conv.weight = nn.Parameter(torch.cat(parts, 1).contiguous(), conv.weight.requires_grad)
        conv.in_channels = conv.weight.shape[1]


def placed(model: nn.Module, blocks: Iterable[str], name: str) -> str | None:
    """What a module is called in ``model``, which some blocks are gone from; ``None``: not there.

    Args:
        model: with or without :func:`merge`.
        blocks: those that are left out.
        name: module path in the network with all blocks.
    """
    blocks = tuple(blocks)
    if any(f"{name}.".startswith(f"{path}.") for path in blocks):
        return None
    for parent, gone in _by_list(blocks).items():
        inside = name.removeprefix(f"{parent}.")
        elements = module_at(model, parent)
        if inside == name or elements is None or any(isinstance(each, nn.Identity) for each in elements.children()):
            continue
        number, _, rest = inside.partition(".")
        before = int(number) - sum(each < int(number) for each in gone)
        return f"{parent}.{before}" + (f".{rest}" if rest else "")
    return name


def left_out_of(whole: nn.Module, model: nn.Module) -> tuple[str, ...]:
    """The blocks by which the modules of ``model``, after :func:`merge`, differ from those of ``whole``.

    Of a list that is shorter the last: elements of one list are alike.
    """
    found: list[str] = []
    for path, module in _elements(whole):
        there = module_at(model, path)
        parent = path.rpartition(".")[0]
        if any(f"{path}.".startswith(f"{each}.") for each in found):
            continue
        shorter = there is None and _together(whole, parent) is not None and module_at(model, parent) is not None
        if shorter or (isinstance(there, nn.Identity) and not isinstance(module, nn.Identity)):
            found.append(path)
    return tuple(found)


def _elements(model: nn.Module) -> Iterator[tuple[str, nn.Module]]:
    """Blocks in sequences and lists, those aside that a network of Ultralytics' wires by number."""
    for parent, sequence in model.named_modules():
        if isinstance(sequence, nn.Sequential | nn.ModuleList):
            for child, module in sequence.named_children():
                weights = sum(name.endswith("weight") and each.dim() > 1 for name, each in module.named_parameters())
                if weights >= LEAST and "f" not in vars(module):
                    yield f"{parent}.{child}".lstrip("."), module


def _by_list(blocks: Iterable[str]) -> dict[str, list[int]]:
    found: dict[str, list[int]] = {}
    for path in blocks:
        parent, _, name = path.rpartition(".")
        if name.isdigit():
            found.setdefault(parent, []).append(int(name))
    return found


@dataclass(frozen=True)
class _Together:
    """What reads the outputs of a list's elements: path of the convolution, and how many tensors it reads before."""

    reader: str
    before: int

    def sections(self, model: nn.Module, elements: int, kept: BoolArray | None = None) -> list[slice]:
        """Where the inputs of the convolution lie that are made by one module each, which were equally many once."""
        inputs = cast(nn.Conv2d, model.get_submodule(self.reader)).in_channels
        stay: BoolArray = np.ones(inputs, bool) if kept is None else kept
        ends = np.cumsum([0, *(part.sum() for part in np.split(stay, elements + self.before))]).tolist()
        return [slice(start, end) for start, end in pairwise(ends)]


def _together(model: nn.Module, parent: str) -> _Together | None:
    path, _, name = parent.rpartition(".")
    owner = module_at(model, path)
    for kind in type(owner).__mro__:
        stated = READ_TOGETHER.get(f"{kind.__module__}.{kind.__qualname__}")
        own = getattr(type(owner), "forward", None)
        if stated is not None and stated[0] == name and getattr(kind, "forward", None) is own:
            return _Together(f"{path}.{stated[1]}", stated[2])
    return None


def _forget(model: nn.Module, path: str) -> None:
    """Zeroes, in place, what is made of the outputs of a block that adds nothing to what it reads."""
    parent, _, number = path.rpartition(".")
    together = _together(model, parent)
    if together is None:
        return
    elements = cast(nn.ModuleList, model.get_submodule(parent))
    section = together.sections(model, len(elements))[together.before + int(number)]
    if not _is_residual(elements[int(number)], section.stop - section.start):
        weight = cast(torch.Tensor, model.get_submodule(together.reader).weight)
        with torch.no_grad():
            weight[:, section] = 0


def _is_residual(block: nn.Module, channels: int) -> bool:
    """Whether it returns what it is given where all its parameters are zero."""
    copy = copied(block).eval().float().cpu()
    given = torch.ones(1, channels, SIDE, SIDE)
    with torch.no_grad():
        for parameter in copy.parameters():
            parameter.zero_()
        try:
            return bool(torch.equal(copy(given), given))
        except NETWORK_FAILS:
            return True
