"""Convolutions front to back, those together that do not read each other."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence

import torch
from torch import nn

from seqprune.graph.values import cloned
from seqprune.observe.inputs import Inputs, call, with_gradients
from seqprune.observe.maps import readable
from seqprune.observe.watching import recording, watching
from seqprune.select.layers import block_of


def stages_of(
    model: nn.Module, example_inputs: Inputs, block_of: Callable[[str], int | None] = block_of
) -> list[list[str]]:
    """Stages in execution order; the convolutions of one lie in one block and do not depend on each other.

    They are as few as can be: the branches of a head that read different blocks go together, since a block runs anew
    for every stage of it. What depends on what is read from the graph that automatic differentiation records.
    """
    names = [name for name, module in model.named_modules() if readable(module)]
    seen: dict[str, tuple[object, object]] = {}

    def look(name: str, _layer: nn.Module, x: torch.Tensor, output: torch.Tensor) -> None:
        seen.setdefault(name, (x.grad_fn, output.grad_fn))

    copy = recording(model)
    with torch.enable_grad(), watching(copy, names, look):
        call(copy, with_gradients(cloned(example_inputs)))
    made = {output: name for name, (_, output) in seen.items()}
    block = _blocks(list(seen), block_of)
    behind: dict[str, set[str]] = {}
    depth: dict[str, int] = {}
    stages: dict[tuple[int, int], list[str]] = {}
    for name, (read, _) in seen.items():
        direct = set(_direct(read, made))
        behind[name] = direct.union(*(behind[before] for before in direct))
        depth[name] = 1 + max((depth[other] for other in behind[name] if block[other] == block[name]), default=0)
        stages.setdefault((block[name], depth[name]), []).append(name)
    return [stages[key] for key in sorted(stages)]


def _blocks(names: Sequence[str], block_of: Callable[[str], int | None]) -> dict[str, int]:
    """By layer, its block where blocks run in the order of their numbers; else all are in one."""
    numbers = [block_of(name) or 0 for name in names]
    return dict(zip(names, numbers if numbers == sorted(numbers) else [0] * len(names), strict=True))


def _direct(node: object, made: dict[object, str]) -> Iterator[str]:
    """The convolutions that a node of the graph is computed from without another one in between."""
    waiting, known = [node], {None}
    while waiting:
        at = waiting.pop()
        if at in known:
            continue
        known.add(at)  # type: ignore[arg-type]
        if at in made:
            yield made[at]
        else:
            waiting += [before for before, _ in at.next_functions]  # type: ignore[attr-defined]
