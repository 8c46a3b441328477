"""All that the engine asks of a network and its data. Whoever knows the network answers.

:mod:`seqprune.yolo.task.task` answers for Ultralytics' networks, :mod:`seqprune.engine.modules` for any other.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any, Protocol

import torch
from torch import nn

from seqprune.graph.channels import ChannelGraph
from seqprune.observe.batch import Images, LabelledImages
from seqprune.observe.inputs import Inputs
from seqprune.observe.relevance import Probe
from seqprune.observe.streaming import Structure
from seqprune.plan import PrunePlan
from seqprune.surgery import Difference

Judge = Callable[[nn.Module], float]
"""Given a pruned network, a number that is smaller for a better one."""


class Task(Protocol):
    """
    Attributes:
        images: those to look at, in batches.
        classes: how many there are; class ids lie in ``[0, classes)``. 0 where nothing is labelled.
        names: class id to name, where there are names.
        classifies: whether an image belongs to a class as a whole.
        bits: of the numbers that :meth:`runnable` computes with: 32, or 8 where a runtime's tool brings it there.
    """

    @property
    def images(self) -> Images: ...

    @property
    def classes(self) -> int: ...

    @property
    def names(self) -> Mapping[int, str]: ...

    @property
    def classifies(self) -> bool: ...

    @property
    def bits(self) -> int: ...

    def example(self, model: nn.Module) -> Inputs:
        """One input, on the model's device, on which operations and time are counted."""

    def runnable(self, model: nn.Module, runtime: str, folder: Path) -> nn.Module | Path:
        """The network as a runtime runs it with such an input: a module for torch, else a file in ``folder``.

        Raises:
            ModelError: it cannot be exported.
        """

    def trace(self, model: nn.Module) -> ChannelGraph:
        """The channel graph of the network, or of what was made of it."""

    @property
    def predict(self) -> Callable[[nn.Module, Inputs], list[torch.Tensor]] | None:
        """What the network finds in some inputs, see :data:`seqprune.observe.extract.Predict`; ``None``: unknown."""

    def probe(self, model: nn.Module) -> tuple[nn.Module, Probe] | None:
        """A copy that can be asked, and what asks it what an error in the outputs costs; ``None``: it cannot be."""

    def judge(self, original: nn.Module, held: LabelledImages) -> Judge | None:
        """How well a network does on images that were held out; ``None``: nobody knows."""

    def gradients(self, model: nn.Module) -> Mapping[str, torch.Tensor]:
        """Of the loss, a mean over the images, by parameter path; as criterion ``taylor`` wants them.

        Raises:
            ModelError, DataError: there is no loss to take them of.
        """

    def is_fixed(self, layer: str) -> bool:
        """Whether a layer must not be fitted anew."""

    def blocks(self, model: nn.Module) -> Structure | None:
        """Blocks whose outputs can be kept while layers behind them are looked at; ``None``: run it from the start."""

    def accuracy(self, model: nn.Module) -> Mapping[str, float]:
        """By name, that of one class as ``class:NAME``; empty where it is not measured."""

    def pictures(self, before: nn.Module, after: nn.Module) -> tuple[dict[str, Any], ...]:
        """A few images, with what both networks find in them; none where nothing can be shown.

        Each holds ``name``, ``jpeg`` (base64), ``width`` and ``height`` in pixels, and under ``before``, ``after`` and
        ``labels`` boxes as ``[x1, y1, x2, y2, confidence, class name]``, or, of a class, ``[confidence, class name]``.
        """

    @property
    def suffix(self) -> str:
        """What names of its weights end in."""

    def prove(self, masked: nn.Module, small: nn.Module, inputs: Inputs) -> tuple[Difference, str]:
        """Whether both compute the same, and how that was seen: :func:`seqprune.surgery.verify`, in ``float32``.

        Raises:
            VerificationError: they do not.
        """

    @property
    def unreadable_val(self) -> tuple[str, ...]:
        """What was left out of the measurements of accuracy."""

    def save(self, model: nn.Module, path: Path, plan: PrunePlan, half: bool = True) -> Path:
        """Writes weights, and what was pruned; a name that ends in ``.safetensors`` asks for tensors without code."""

    def file_bytes(self, model: nn.Module, plan: PrunePlan | None) -> int | None:
        """Of the file that :meth:`save` would write, or, without a plan, that the model came from."""
