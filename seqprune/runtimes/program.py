"""What is timed: a network that is ready to run, and what it is given."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt

from seqprune.observe.inputs import Inputs, tensors
from seqprune.runtimes.turns import Pass

Array = npt.NDArray[Any]


@dataclass(frozen=True)
class Program:
    """A network that is ready to run.

    Attributes:
        run: one pass.
        shapes: of what it is given.
        precision: in which it computes, where the runtime says so.
    """

    run: Pass
    shapes: tuple[tuple[int, ...], ...]
    precision: str = "float32"


@dataclass(frozen=True)
class Free:
    """Images for a file that says itself what it takes: what it leaves open is filled in."""

    imgsz: int
    batch: int = 1

    def shape(self, declared: Sequence[Any]) -> tuple[int, ...]:
        """``declared`` with numbers for what is no number, or none above 0."""
        fill = (self.batch, 3, self.imgsz, self.imgsz)
        return tuple(
            each if isinstance(each, int) and each > 0 else fill[min(at, 3)] for at, each in enumerate(declared)
        )


def arrays_of(inputs: Inputs | Free, declared: Sequence[tuple[Sequence[Any], Any]]) -> list[Array]:
    """What is given, or made as the file declares it: shapes and types of numbers."""
    if isinstance(inputs, Free):
        return [np.full(inputs.shape(shape), 0.5, kind) for shape, kind in declared]
    return [tensor.detach().cpu().numpy() for tensor in tensors(inputs)]


def shapes_of(arrays: Sequence[Array]) -> tuple[tuple[int, ...], ...]:
    return tuple(tuple(array.shape) for array in arrays)
