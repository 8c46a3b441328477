"""Any network run from the middle: modules that were passed already return what they returned, the rest runs.

Which part of a network reads which is written nowhere. So one run is watched for *units*: modules that are called once,
one after the other, and return one tensor with a row an image. To go on behind the first ``k`` of them the network is
called as ever, and these return what was kept; code between them runs again. Only those outputs are kept that something
behind reads, as the graph says that automatic differentiation records; the others are anything.
What was found is tried on the first images, with ``nan`` for them, and is not used where anything else comes out.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from contextlib import ExitStack, contextmanager, suppress
from dataclasses import dataclass, field, replace
from typing import Any

import torch
from torch import nn

from seqprune.graph.copying import copied
from seqprune.graph.values import leaves
from seqprune.observe.batch import Batch
from seqprune.observe.inputs import call, count_of, mapped, tensors, with_gradients
from seqprune.observe.maps import readable
from seqprune.observe.shelf import Outputs
from seqprune.observe.watching import recording

MOST = 4
"""Layers in a unit: those of the usual residual blocks. Its inside runs once for each of them."""
TOLERANCE = 1e-4
Node = Any


class _Passed(Exception):
    """The last unit that is wanted has run."""


@dataclass(frozen=True)
class Units:
    """See :class:`seqprune.observe.streaming.Structure`.

    Attributes:
        paths: modules in the order they run.
        needed: by number of units that are done, those whose outputs are read behind them.
        outside: by layer that lies in none, how many units are done before it runs first.
        proving: outputs that are not needed are ``nan``, for all to see; else whatever lies in the memory.
    """

    paths: tuple[str, ...]
    needed: tuple[frozenset[int], ...]
    outside: dict[str, int]
    proving: bool = False
    keeps_inputs: bool = field(default=True, init=False)
    _shapes: dict[Any, torch.Size] = field(default_factory=dict, repr=False, compare=False)

    def block_of(self, layer: str) -> int | None:
        inside = (number for number, path in enumerate(self.paths) if f"{layer}.".startswith(f"{path}."))
        return next(inside, self.outside.get(layer))

    def advance(
        self, model: nn.Module, start: int, stop: int, live: Outputs, batch: Batch, part: slice | None = None
    ) -> Outputs:
        """Runs some images of a batch through units ``start`` to ``stop - 1``; returns what is needed behind them."""
        inputs = batch.input(model, part)
        found: Outputs = {unit: live[unit] for unit in self.needed[min(stop, len(self.paths))] if unit < start}
        with self._replaying(model, start, stop, live, found, inputs), suppress(_Passed):
            call(model, inputs)
        return found

    @contextmanager
    def _replaying(
        self, model: nn.Module, start: int, stop: int, live: Outputs, found: Outputs, inputs: Any
    ) -> Iterator[None]:
        """Units before ``start`` return what they returned, others fill ``found``; the last before ``stop`` ends it."""
        size = tuple(each.shape[1:] for each in tensors(inputs))
        images = count_of(inputs)
        first = next(model.parameters())
        wanted = self.needed[min(stop, len(self.paths))]

        def instead(unit: int) -> Callable[..., torch.Tensor]:
            def forward(*_: Any, **__: Any) -> torch.Tensor:
                if unit in live:
                    return live[unit].clone()  # what follows may work in place
                unread = first.new_empty(images, *self._shapes[unit, size])
                return unread.fill_(torch.nan) if self.proving else unread

            return forward

        def seen(unit: int, _module: nn.Module, _inputs: Any, output: torch.Tensor) -> None:
            self._shapes[unit, size] = output.shape[1:]
            if unit in wanted:
                found[unit] = output.clone()
            if unit == stop - 1:
                raise _Passed

        with ExitStack() as ends:
            for unit, path in enumerate(self.paths[:stop]):
                module = model.get_submodule(path)
                if unit < start:
                    ends.enter_context(_stand_in(module, instead(unit)))
                else:
                    hook = module.register_forward_hook(lambda *given, unit=unit: seen(unit, *given))
                    ends.callback(hook.remove)
            yield


@contextmanager
def _stand_in(module: nn.Module, forward: Callable[..., torch.Tensor]) -> Iterator[None]:
    own = module.__dict__.get("forward")
    module.forward = forward
    try:
        yield
    finally:
        del module.forward
        if own is not None:
            module.forward = own


def units_of(model: nn.Module, batch: Batch) -> Units | None:
    """The units of a network in inference mode, found on the first two images; ``None`` where there are not two."""
    copy = recording(model).eval()
    images = slice(min(2, batch.count))
    calls, out = _watched(copy, batch, images)
    paths = _disjoint(list(_chosen(copy, "", calls, images.stop)), calls)
    if len(paths) < 2:
        return None
    ends = [calls[path][0].end for path in paths]
    outside = {
        name: sum(end < its[0].start for end in ends)
        for name, its in calls.items()
        if readable(copy.get_submodule(name)) and not any(f"{name}.".startswith(f"{path}.") for path in paths)
    }
    units = Units(tuple(paths), _needed([calls[path][0].node for path in paths], out), outside)
    try:
        return units if _holds(replace(units, proving=True), model, batch, images) else None
    except (RuntimeError, ValueError, TypeError, LookupError, AssertionError):  # of code that is given nan
        return None


@dataclass(frozen=True)
class _Call:
    """Of a module: when it began and ended, and the node of what it returned; ``None`` where that is no unit's."""

    start: int
    end: int
    node: Node


def _watched(model: nn.Module, batch: Batch, images: slice) -> tuple[dict[str, list[_Call]], Any]:
    """By module its calls in one run, and what that returned."""
    calls: dict[str, list[_Call]] = {}
    begun: list[int] = []
    clock = iter(range(1 << 62))

    def begin(_module: nn.Module, _inputs: Any) -> None:
        begun.append(next(clock))

    def end(name: str, _module: nn.Module, _inputs: Any, output: Any) -> None:
        is_unit = isinstance(output, torch.Tensor) and output.dim() > 0 and len(output) == images.stop
        node = output.grad_fn if is_unit else None
        calls.setdefault(name, []).append(_Call(begun.pop(), next(clock), node))

    with ExitStack() as ends, torch.enable_grad():
        for name, module in model.named_modules():
            if name:
                ends.callback(module.register_forward_pre_hook(begin).remove)
                ends.callback(module.register_forward_hook(lambda *given, name=name: end(name, *given)).remove)
        out = call(model, with_gradients(batch.input(model, images)))
    return calls, out


def _chosen(module: nn.Module, path: str, calls: dict[str, list[_Call]], images: int) -> Iterator[str]:
    """The largest modules that can be units and hold few layers, or none but themselves."""
    its = calls.get(path, [])
    layers = sum(readable(each) for each in module.modules())
    children = list(module.named_children())
    can_be = len(its) == 1 and its[0].node is not None
    if can_be and (layers <= MOST or not children) and next(module.parameters(), None) is not None:
        yield path
        return
    for name, child in children:
        yield from _chosen(child, f"{path}.{name}" if path else name, calls, images)


def _disjoint(paths: list[str], calls: dict[str, list[_Call]]) -> list[str]:
    """In the order of their calls; without those that are called while another runs."""
    found: list[str] = []
    for path in sorted(paths, key=lambda path: calls[path][0].start):
        if not found or calls[found[-1]][0].end < calls[path][0].start:
            found.append(path)
    return found


def _needed(nodes: Sequence[Node], out: Any) -> tuple[frozenset[int], ...]:
    """By number of units that are done, those whose nodes are reached from what is not, without another in between."""
    unit = {node: number for number, node in enumerate(nodes)}
    last = [tensor.grad_fn for tensor in _returned(out) if tensor.grad_fn is not None]
    found = []
    for done in range(len(nodes) + 1):
        waiting, known, reached = [*last, *nodes[done:]], set(), set()
        while waiting:
            node = waiting.pop()
            if node is None or node in known:
                continue
            known.add(node)
            if unit.get(node, done) < done:
                reached.add(unit[node])
            else:
                waiting += [before for before, _ in node.next_functions]
        found.append(frozenset(reached))
    return tuple(found)


def _holds(units: Units, model: nn.Module, batch: Batch, images: slice) -> bool:
    """Whether the network returns the same unit by unit, though it saw something else before."""
    copy = copied(model).eval()
    live: Outputs = {}
    with torch.no_grad():
        given = batch.input(copy, images)
        wanted = [each.clone() for each in _returned(call(copied(copy), given))]
        # What a module left behind for another to read, it would leave behind no more.
        call(copy, mapped(lambda x: -x if x.is_floating_point() else x, batch.input(copy, images)))
        for done in range(len(units.paths)):
            live = units.advance(copy, done, done + 1, live, batch, images)
        inputs = batch.input(copy, images)
        with units._replaying(copy, len(units.paths), len(units.paths) + 1, live, {}, inputs):
            found = _returned(call(copy, inputs))
    return all(_alike(a, b) for a, b in zip(found, wanted, strict=True))


def _returned(out: Any) -> list[torch.Tensor]:
    return [leaf for leaf in leaves(out) if isinstance(leaf, torch.Tensor)]


def _alike(found: torch.Tensor, wanted: torch.Tensor) -> bool:
    most = float(wanted.double().abs().max()) if wanted.numel() else 0.0
    return found.shape == wanted.shape and torch.allclose(found.double(), wanted.double(), 0.0, TOLERANCE * most)


__all__ = ["Units", "units_of"]
