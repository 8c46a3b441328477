"""An end to what a file can make a network cost before anybody has looked at it.

The numbers of a description, or of a layer read from a checkpoint, multiply: a few of them, each harmless, fill any
memory. So the first time such a network is built, or run on a small image, each operation is counted before it is
done.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from math import prod
from typing import Any

import torch
from torch.utils._python_dispatch import TorchDispatchMode

from seqprune.errors import ModelError

# YOLOv8x-P6 has 97 million values and takes 2e10 multiplications on 256 pixels, YOLOv9e is built in 6,800 operations.
_VALUES = 400_000_000
_LARGEST = 200_000_000
_MULTIPLICATIONS = 50_000_000_000
_OPERATIONS = 20_000


class _Counted(TorchDispatchMode):  # type: ignore[no-untyped-call]
    """Counts operations, values made of nothing, and the multiplications of convolutions."""

    def __init__(self) -> None:
        super().__init__()  # type: ignore[no-untyped-call]
        self.operations = self.values = self.multiplications = 0

    def __torch_dispatch__(self, func: Any, types: Any, args: Sequence[Any] = (), kwargs: Any = None) -> Any:
        self.operations += 1
        self.values += 0 if _has_tensor(args) else _numbers(args)
        largest, work = _expected(func.__name__, args)
        self.multiplications += work
        for seen, most, what in (
            (self.operations, _OPERATIONS, "operations"),
            (self.values, _VALUES, "values"),
            (largest, _LARGEST, "values in one map"),
            (self.multiplications, _MULTIPLICATIONS, "multiplications on one small image"),
        ):
            if seen > most:
                raise ModelError(
                    f"the network takes more than {most:,} {what}, more than any that is known: a number in its "
                    "description is wrong; correct it"
                )
        return func(*args, **(kwargs or {}))


@contextmanager
def bounded() -> Iterator[None]:
    """Stop with a ModelError what takes more memory or time than any known network, while it is built or first run."""
    with _Counted():
        yield


def _has_tensor(args: Sequence[Any]) -> bool:
    return any(isinstance(arg, torch.Tensor) for arg in args)


def _numbers(args: Sequence[Any]) -> int:
    """How many values a function makes of a size alone: ``empty([3, 4])``, ``arange(12)``."""
    if not args:
        return 0
    if isinstance(args[0], list | tuple) and all(isinstance(side, int) for side in args[0]):
        return prod(args[0])
    return max((int(arg) for arg in args if isinstance(arg, int | float) and abs(arg) < 2**63), default=0)


def _expected(name: str, args: Sequence[Any]) -> tuple[int, int]:
    """Values that come out, at most, and multiplications on the way, of what makes maps larger than they were."""
    kind = name.partition(".")[0]
    if not args or not isinstance(args[0], torch.Tensor):
        return 0, 0
    shape: Sequence[int] = args[0].shape
    if kind.startswith("upsample") and len(args) > 1 and isinstance(args[1], list | tuple):
        return prod(shape[:2]) * prod(args[1]), 0
    if ("pad" in kind or kind in ("repeat", "expand", "tile")) and len(args) > 1 and isinstance(args[1], list | tuple):
        if "pad" not in kind:
            return (prod(args[1]) * prod(shape) if kind != "expand" else 0), 0
        padded = list(shape)
        for place, (low, high) in enumerate(zip(args[1][::2], args[1][1::2], strict=False)):
            padded[-1 - place] += low + high
        return prod(max(side, 0) for side in padded), 0
    if kind == "convolution":
        return _convolved(shape, args)
    if kind in ("mm", "bmm", "addmm", "baddbmm"):
        left, right = args[-2:] if "add" in kind else args[:2]
        return prod(left.shape[:-1]) * right.shape[-1], prod(left.shape) * right.shape[-1]
    if kind.startswith("_scaled_dot_product"):
        return prod(shape), 2 * prod(shape) * args[1].shape[-2]
    return 0, 0


def _convolved(shape: Sequence[int], args: Sequence[Any]) -> tuple[int, int]:
    """``convolution(input, weight, bias, stride, padding, dilation, transposed, output_padding, groups)``."""
    weight: Sequence[int] = args[1].shape
    stride, padding, dilation, transposed = args[3:7]
    sides = 1
    for place, side in enumerate(shape[2:]):
        step, edge, spread = (_at(one, place) for one in (stride, padding, dilation))
        reach = spread * (weight[2 + place] - 1) + 1
        sides *= max((side - 1) * step + reach if transposed else (side + 2 * edge - reach) // max(step, 1) + 1, 1)
    out = shape[0] * (weight[1] * args[8] if transposed else weight[0]) * sides
    work = out * weight[1] * prod(weight[2:])
    return out, (shape[0] * prod(shape[1:]) * weight[1] * prod(weight[2:])) if transposed else work


def _at(values: Sequence[int], place: int) -> int:
    return values[place] if len(values) > place else values[0]
