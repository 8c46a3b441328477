"""What the plugin's fixtures hold: cases of contracts, and the figures of a model."""

from __future__ import annotations

import tempfile
from collections.abc import Mapping
from dataclasses import asdict, dataclass
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import pytest
import torch
from torch import nn

from seqprune.budget.cost import parameters
from seqprune.errors import InputError
from seqprune.graph.copying import copied
from seqprune.runtimes.open import opened, threads_of
from seqprune.runtimes.turns import in_turns
from seqprune.runtimes.where import Where
from seqprune.testing.cases import Prepared
from seqprune.testing.contracts import CONTRACTS, Result
from seqprune.testing.outputs import run
from seqprune.testing.plugin import PROPERTY, setting
from seqprune.testing.process import Limits
from seqprune.testing.pruners import pruner

if TYPE_CHECKING:
    from seqprune.yolo.files.load import LoadedDetector

TARGET = "params=0.9"
_HELD = pytest.StashKey[Prepared]()


@dataclass(frozen=True)
class Asked:
    """A contract of a pruner on a network."""

    pruner: str
    network: str
    contract: str

    def __str__(self) -> str:
        return f"{self.pruner}-{Path(self.network).name}-{self.contract}"


def cases(config: pytest.Config) -> list[Any]:
    """Every pruner under test on every network under test, contract by contract; what is known to fail says why.

    Raises:
        pytest.UsageError: nothing is under test, or there is no such pruner.
    """
    networks = [name for name in (setting(config, "models") or "").split(",") if name]
    if model := setting(config, "model"):
        networks.append(model)
    if not networks:
        raise pytest.UsageError("nothing is under test: give --model best.pt, or --pruner NAME --models yolov8n")
    found = []
    for name in (setting(config, "pruner") or "seqprune").split(","):
        try:
            tried = pruner(name)
        except InputError as error:
            raise pytest.UsageError(str(error)) from error
        for network in networks:
            for contract in CONTRACTS:
                known = tried.expected.get(contract, "results of a peer are no failures here" if tried.peer else "")
                marks = [pytest.mark.xfail(reason=known, strict=False)] if known else []
                found.append(pytest.param(Asked(name, network, contract), marks=marks))
    return found


@dataclass(frozen=True)
class PruningCase:
    """One case, run when it is called."""

    asked: Asked
    config: pytest.Config
    node: pytest.Item

    def __call__(self) -> None:
        """
        Raises:
            ContractError: the contract does not hold.
        """
        __tracebackhide__ = True
        result = self.result
        self.node.user_properties.append((f"{PROPERTY} case", asdict(self.asked) | asdict(result)))
        if result.state in ("not applicable", "blocked"):
            pytest.skip(f"{result.state}: {result.reason}")
        if result.state != "holds":
            pytest.fail(f"{result.contract} {result.state}: {result.reason}", pytrace=False)

    @cached_property
    def result(self) -> Result:
        """What came of it, in a process of its own."""
        network = _prepared(self.config, self.asked.network)
        return network.cell(self.asked.pruner, [self.asked.contract])[self.asked.contract]


def _prepared(config: pytest.Config, name: str) -> Prepared:
    """The network of the last case, or another in its place: cases of one follow each other."""
    seconds, memory = (float(setting(config, each) or 0) for each in ("seconds", "memory"))
    limits = Limits(seconds or Limits.seconds, memory or Limits.gigabytes)
    held = config.stash.get(_HELD, None)
    if held is None or (held.subject, held.limits) != (name, limits):
        if held is not None:
            held.close()
        held = config.stash[_HELD] = Prepared(name, limits)
        config.add_cleanup(held.close)
    return held


@dataclass(frozen=True)
class PruningReport:
    """A model before and after pruning; each figure is measured when it is asked for, once.

    Attributes:
        model: what is under test.
        before: the file that it was pruned from, ``None`` where the suite prunes ``model`` itself.
        data: what accuracy is measured on.
        runtime: where time is measured.
        target: what the suite prunes to.
        size: side of the images in pixels, 0 for the usual one.
        folder: for files on the way.
    """

    model: str
    before: str | None
    data: str | None
    runtime: str
    target: str
    size: int
    folder: Path

    @classmethod
    def of(cls, config: pytest.Config, folder: Path) -> PruningReport:
        """
        Raises:
            pytest.UsageError: no model is under test.
        """
        model = setting(config, "model")
        if model is None:
            raise pytest.UsageError("no model is under test: give --model best.pt, or pruning_model in the ini file")
        return cls(
            model,
            setting(config, "unpruned"),
            setting(config, "data"),
            setting(config, "runtime") or "torch",
            setting(config, "target") or TARGET,
            int(setting(config, "imgsz") or 0),
            folder,
        )

    @cached_property
    def unpruned(self) -> nn.Module:
        """The network before pruning, in float32 and inference mode."""
        return self._given.model

    @cached_property
    def _given(self) -> LoadedDetector:
        return _loaded(self.before or self.model)

    @cached_property
    def pruned(self) -> nn.Module:
        """And after it."""
        if self.before is not None:
            return _loaded(self.model).model
        from seqprune.run import prune

        return prune(
            self.unpruned,
            self.data,
            preset="fast",
            target=self.target,
            recover=None if self.data is None else "bn",
            imgsz=self.imgsz,
            val=False,
            progress=False,
        ).model

    @cached_property
    def imgsz(self) -> int:
        """Side of the images in pixels."""
        return self.size or self._given.imgsz

    @property
    def classifies(self) -> bool:
        """Whether the model classifies whole images."""
        return getattr(self.unpruned, "task", "") == "classify"

    @cached_property
    def parameters(self) -> int:
        """Of the pruned network."""
        return parameters(self.pruned)

    @cached_property
    def parameters_share(self) -> float:
        """That stays."""
        return self.parameters / parameters(self.unpruned)

    @cached_property
    def accuracy(self) -> float:
        """mAP50-95 of the pruned network, or top-1."""
        return self._accuracy(self.pruned)

    @cached_property
    def accuracy_share(self) -> float:
        """Of the unpruned network's accuracy."""
        before = self._accuracy(self.unpruned)
        if not before:
            raise InputError(f"the unpruned network finds nothing in {self.data}: give the data that it was trained on")
        return self.accuracy / before

    @cached_property
    def time_share(self) -> float:
        """Of the unpruned network's time for one image in the runtime, both timed in turns."""
        from seqprune.yolo.task.exporting import runnable

        where = Where(self.runtime).settled()
        programs = []
        for network in (self.unpruned, self.pruned):
            folder = Path(tempfile.mkdtemp(dir=self.folder))
            made = runnable(network, self.runtime, folder, imgsz=self.imgsz)
            programs.append(opened(made, where, self.image))
        with threads_of(where):
            before, after = in_turns([program.run for program in programs])
        return after.median / before.median

    @cached_property
    def runtime_difference(self) -> float:
        """How far the pruned network in the runtime is from itself in torch, relative to the largest value.

        Both in float32, with weights as the file holds them, in half precision.
        """
        from seqprune.yolo.task.exporting import runnable

        folder = Path(tempfile.mkdtemp(dir=self.folder))
        made = runnable(self.pruned, self.runtime, folder, imgsz=self.imgsz)
        program = opened(made, Where(self.runtime, full=True).settled(), self.image)
        found: Any = program.run()
        if found is None:
            pytest.skip(f"{self.runtime} keeps what it computes to itself here: it ran")
        theirs = torch.as_tensor(np.asarray(next(iter(found.values())) if isinstance(found, Mapping) else found[0]))
        ours = run(copied(self.pruned).half().float(), (self.image,))[0]
        return float((ours - theirs).abs().max() / ours.abs().max())

    @cached_property
    def image(self) -> torch.Tensor:
        """A seeded one, ``[1, channels, side, side]``."""
        from seqprune.yolo.task.tracing import grey_image

        shape = grey_image(self.unpruned, self.imgsz).shape
        return torch.rand(shape, generator=torch.Generator().manual_seed(0))

    @cached_property
    def outputs(self) -> list[float]:
        """A few values of what the pruned network gives for the seeded image, evenly spread, and its largest one."""
        found = run(self.pruned, (self.image,))[0].flatten().double()
        places = torch.linspace(0, len(found) - 1, 32).long()
        return [*found[places].tolist(), float(found.abs().max())]

    def said(self) -> dict[str, Any]:
        """What was measured so far, as JSON holds it."""
        names = ("parameters", "parameters_share", "accuracy", "accuracy_share", "time_share", "runtime_difference")
        found = {name: vars(self)[name] for name in names if name in vars(self)}
        about = {
            "model": self.model,
            "runtime": self.runtime,
            "unpruned": self.before or f"{self.model} , pruned here to {self.target}",
        }
        return about | found

    def _accuracy(self, network: nn.Module) -> float:
        from seqprune.yolo.task.validate import validate, validate_classes

        if self.data is None:
            pytest.skip("no --data: accuracy is not measured")
        if self.classifies:
            return validate_classes(network, self.data, imgsz=self.imgsz).top1
        return validate(network, self.data, imgsz=self.imgsz).map50_95


def _loaded(name: str) -> LoadedDetector:
    from seqprune.yolo.files.load import load
    from seqprune.yolo.files.networks import NETWORKS

    return load(name, tasks=tuple(NETWORKS), seed=0)
