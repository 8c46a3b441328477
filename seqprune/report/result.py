"""What came out of a run, and the folder that it goes to."""

from __future__ import annotations

import json
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from os import PathLike
from pathlib import Path

from torch import nn

from seqprune.atomic import atomic, write_text
from seqprune.engine.record import Record, Size
from seqprune.engine.settings import Choose, Look, Train, as_plain
from seqprune.engine.state import State
from seqprune.engine.steps import StepReport
from seqprune.engine.task import Task
from seqprune.errors import InputError, SeqPruneError
from seqprune.plan import PrunePlan
from seqprune.report import summary
from seqprune.report.html import DRAWN, write_html

FILES = ("weights/pruned.pt", "plan.json", "report.json", "report.html")


@dataclass(frozen=True, repr=False)
class PruneResult:
    """What came out.

    Attributes:
        model: the pruned network, compact or masked, on the CPU, for inference.
        plan: what stays of every layer that lost channels.
        record: everything measured, as ``report.json`` holds it.
        task: what was asked of the network and its data; it knows how weights are saved.
    """

    model: nn.Module
    plan: PrunePlan
    record: Record
    task: Task

    @property
    def steps(self) -> tuple[StepReport, ...]:
        """One report a layer, front to back."""
        return self.record.steps

    @property
    def before(self) -> Size:
        """Size, speed and accuracy of the network that was given."""
        return self.record.before

    @property
    def after(self) -> Size:
        """The same of the pruned one."""
        return self.record.after

    @property
    def metrics(self) -> dict[str, float]:
        """What was measured of the pruned network: ``params``, ``gflops``, ``file_bytes``, ``map50_95`` and so on."""
        return summary.measured(self.record.after)

    def __repr__(self) -> str:
        return summary.text(self.record)

    def _repr_html_(self) -> str:
        return summary.html(self.record)

    @property
    def names(self) -> dict[int, str]:
        """Class id to name."""
        return dict(self.task.names)

    def save(self, path: str | Path, *, half: bool = True) -> Path:
        """Writes weights; nothing is left behind where writing fails.

        Of an Ultralytics network a ``.pt`` that plain Ultralytics loads; where the name ends in
        ``.safetensors``, the tensors and, beside them, a description: files without code. Of any other module the
        latter, which :func:`seqprune.restore` gives to a network as it was built.

        Args:
            path: where to write, in an existing folder.
            half: whether a ``.pt`` of an Ultralytics network is written in half precision, as Ultralytics does.
        """
        with _writing(path):
            return self.task.save(self.model, Path(path), self.plan, half)

    def report(self, path: str | Path) -> Path:
        """Writes ``report.json``, or a page with plots where the name ends in ``.html``."""
        with _writing(path):
            path = Path(path)
            with atomic(path) as temporary:
                if path.suffix == ".html":
                    write_html(self.record, temporary)
                else:
                    temporary.write_text(self.record.to_json(), encoding="utf-8")
        return path


@contextmanager
def _writing(path: object) -> Iterator[None]:
    """
    Raises:
        InputError: it is no name of a file, or of one that cannot be written.
    """
    if not isinstance(path, str | PathLike):
        raise InputError(f"{path!r} cannot be written: give the name of a file")
    try:
        yield
    except OSError as error:
        raise InputError(f"{path} cannot be written ({error}): give a file in a folder that is there") from error


@dataclass(frozen=True)
class RunFolder:
    """Where a run writes what it finds as it comes, and its results at the end; nowhere without a folder."""

    folder: Path | None = None
    keeps: bool = True
    """Whether findings are kept on the way: several processes have no state in common."""

    @property
    def state(self) -> State:
        return State(self.folder / "state" if self.folder is not None and self.keeps else None)

    def begin(self, look: Look, choose: Choose, train: Train) -> None:
        """Holds a run to the settings that it began with.

        Raises:
            InputError: the folder holds a finished run, or one with other settings.
        """
        if self.folder is None:
            return
        if self.folder.exists() and not self.folder.is_dir():
            raise InputError(f"{self.folder} is a file: give the name of a folder, one that is new or a run's")
        if (self.folder / FILES[2]).exists() and self.state.is_empty:
            raise InputError(f"{self.folder} holds a finished run: give another folder")
        for path in [path for path in self.folder.rglob(".*") if path.is_file()]:
            path.unlink()  # half a file of a process that was killed while it wrote
        self.state.same("settings", json.dumps(as_plain(look, choose, train), sort_keys=True), "what is asked for")

    def save_weights(self, task: Task, model: nn.Module, plan: PrunePlan) -> None:
        """The pruned network and its plan, before anything is measured.

        Raises:
            SeqPruneError: they cannot be written.
        """
        if self.folder is None:
            return
        try:
            weights = self.folder / files_of(task)[0]
            weights.parent.mkdir(parents=True, exist_ok=True)
            task.save(model, weights, plan)
            plan.save(self.folder / FILES[1])
        except (OSError, RuntimeError, InputError) as error:  # torch words a full disk as a RuntimeError
            raise self._full("results", error) from error

    def finish(self, result: PruneResult, whole: bool = True) -> PruneResult:
        """Writes the reports; what was kept on the way is not needed any more where the run is ``whole``.

        Raises:
            SeqPruneError: they cannot be written.
        """
        if self.folder is not None:
            try:
                if drawn := result.record.drawn():
                    write_text(self.folder / DRAWN, json.dumps(drawn))
                for name in reversed(FILES[2:]):  # the numbers last: with them a run is over
                    result.report(self.folder / name)
            except (OSError, InputError) as error:  # what a run found out is no input
                raise self._full("report", error) from error
            if whole:
                self.state.clear()
        return result

    def _full(self, what: str, error: Exception) -> SeqPruneError:
        why = error.__cause__ or error
        return SeqPruneError(f"the {what} cannot be written to {self.folder} ({why}); check its disk")


def files_of(task: Task) -> tuple[str, ...]:
    """Names of a run's files, in its folder."""
    return (str(Path(FILES[0]).with_suffix(task.suffix)), *FILES[1:])


def write(result: PruneResult, folder: Path) -> None:
    """All files of a result, into a folder that exists."""
    home = RunFolder(folder)
    home.save_weights(result.task, result.model, result.plan)
    home.finish(result)
