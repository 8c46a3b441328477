"""Random networks, valid by construction: a topology is drawn and its widths follow from it."""

from __future__ import annotations

from collections.abc import Callable

from hypothesis import strategies as st
from torch import nn

from seqprune.testing.networks import ACTIVATIONS, Gate, Network, SplitBlock, Step, Unit, randomise

_ACTS = st.integers(0, len(ACTIVATIONS) - 1)
_WIDTHS = st.integers(2, 6)
_WIDEST = 24


@st.composite
def networks(draw: st.DrawFn, max_steps: int = 8) -> Network:
    """A small network in float64, in inference mode, with random weights and statistics."""
    net = Network()
    width = draw(_WIDTHS)
    net.add("module", (0,), (width,), Unit(3, width, act=draw(_ACTS)))
    for _ in range(draw(st.integers(1, max_steps))):
        STEPS[draw(st.sampled_from(OPS))](draw, net)
    net.finish()
    randomise(net, draw(st.integers(0, 2**16)))
    return net.double().eval()


def _any(draw: st.DrawFn, net: Network) -> int:
    """One of the feature maps so far; there is always one."""
    return draw(st.integers(1, len(net.widths) - 1))


def _of(draw: st.DrawFn, net: Network, fits: Callable[[int], bool]) -> int | None:
    """One of those whose width fits, ``None`` if there is none."""
    found = [i for i, width in enumerate(net.widths) if i > 0 and fits(width)]
    return draw(st.sampled_from(found)) if found else None


def _conv(draw: st.DrawFn, net: Network) -> None:
    source, width = _any(draw, net), draw(_WIDTHS)
    unit = Unit(net.widths[source], width, act=draw(_ACTS), bias=draw(st.booleans()))
    net.add("module", (source,), (width,), unit)


def _add(draw: st.DrawFn, net: Network) -> None:
    left = _any(draw, net)
    right = _of(draw, net, lambda width: width == net.widths[left])
    if right is not None:
        net.add("add", (left, right), (net.widths[left],))


def _cat(draw: st.DrawFn, net: Network) -> None:
    reads = tuple(_any(draw, net) for _ in range(draw(st.integers(2, 3))))
    if (width := sum(net.widths[r] for r in reads)) <= _WIDEST:
        net.add("cat", reads, (width,))


def _chunk(draw: st.DrawFn, net: Network) -> None:
    if (source := _of(draw, net, lambda width: width % 2 == 0)) is not None:
        net.add("chunk", (source,), (net.widths[source] // 2,) * 2)


def _depthwise(draw: st.DrawFn, net: Network) -> None:
    source, times = _any(draw, net), draw(st.integers(1, 2))
    width = net.widths[source]
    net.add("module", (source,), (width * times,), Unit(width, width * times, groups=width, act=draw(_ACTS)))


def _grouped(draw: st.DrawFn, net: Network) -> None:
    if (source := _of(draw, net, lambda width: width % 2 == 0 and width > 2)) is not None:
        net.add("module", (source,), (6,), Unit(net.widths[source], 6, groups=2, act=draw(_ACTS)))


def _shared(draw: st.DrawFn, net: Network) -> None:
    modules = {step.module: step for step in net.steps if step.op == "module"}
    step = modules[draw(st.sampled_from(sorted(modules)))]
    source = _of(draw, net, lambda width: width == net.widths[step.reads[0]])
    if source is not None:
        net.add("module", (source,), (_width_of(net, step),), net.blocks[step.module])


def _split_block(draw: st.DrawFn, net: Network) -> None:
    source, width, half = _any(draw, net), draw(_WIDTHS), draw(st.integers(2, 3))
    block = SplitBlock(net.widths[source], width, half, draw(st.integers(1, 2)), draw(st.booleans()))
    net.add("module", (source,), (width,), block)


def _gate(draw: st.DrawFn, net: Network) -> None:
    source = _any(draw, net)
    net.add("module", (source,), (net.widths[source],), Gate(net.widths[source], draw(_WIDTHS)))


def _pool(draw: st.DrawFn, net: Network) -> None:
    source = _any(draw, net)
    net.add("module", (source,), (net.widths[source],), nn.MaxPool2d(3, 1, 1))


def _width_of(net: Network, step: Step) -> int:
    at = 1
    for other in net.steps:
        if other is step:
            return net.widths[at]
        at += 2 if other.op == "chunk" else 1
    raise AssertionError(step)


STEPS: dict[str, Callable[[st.DrawFn, Network], None]] = {
    "conv": _conv,
    "add": _add,
    "cat": _cat,
    "chunk": _chunk,
    "depthwise": _depthwise,
    "grouped": _grouped,
    "shared": _shared,
    "split block": _split_block,
    "gate": _gate,
    "pool": _pool,
}
OPS = ("conv", "conv", *STEPS)
"""What the next step of a network may be; convolutions three times as often as anything else."""
