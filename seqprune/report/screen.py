"""A run as it happens, on a console."""

from __future__ import annotations

from rich.console import Console
from rich.progress import BarColumn, Progress, SpinnerColumn, TextColumn, TimeElapsedColumn
from rich.text import Text

from seqprune.engine.listener import Listener
from seqprune.engine.steps import StepReport
from seqprune.plain import printable
from seqprune.report.console import step_block


class Screen:
    """Steps as they come, and a progress bar below them where someone is watching."""

    def __init__(self, console: Console | None = None) -> None:
        self.console = console or Console(soft_wrap=True, highlight=False)
        self.steps = 0
        self.progress = Progress(
            SpinnerColumn("line"),
            TextColumn("{task.description}"),
            BarColumn(),
            TextColumn("{task.fields[images]}"),
            TimeElapsedColumn(),
            console=self.console,
            transient=True,
            disable=not self.console.is_terminal,
        )
        self.task = self.progress.add_task("start", total=None, images="")

    def __enter__(self) -> Screen:
        if not self.progress.disable:  # stopping prints an empty line otherwise, before rich 14
            self.progress.start()
        return self

    def __exit__(self, *_: object) -> None:
        if not self.progress.disable:
            self.progress.stop()

    @property
    def listener(self) -> Listener:
        return Listener(self.stage, self.progress_by, self.step, self.warning)

    def stage(self, name: str, total: int | None) -> None:
        name = printable(name)
        self.progress.reset(self.task, description=name, total=total, images="")
        if not self.console.is_terminal:
            self.console.print(name, markup=False)

    def progress_by(self, images: int) -> None:
        self.progress.advance(self.task, images)
        task = self.progress.tasks[0]
        self.progress.update(self.task, images=f"{task.completed:.0f}/{task.total or 0:.0f} images")

    def epoch(self, done: int, total: int) -> None:
        """How far a training is."""
        self.progress.update(
            self.task, description="fine-tune", total=total, completed=done, images=f"epoch {done}/{total}"
        )
        if not self.console.is_terminal:
            self.console.print(f"epoch {done}/{total}", markup=False)

    def step(self, report: StepReport) -> None:
        self.steps += 1
        self.console.print(step_block(report, self.steps))

    def warning(self, text: str) -> None:
        self.console.print(Text.assemble(("warning: ", "yellow"), printable(text, 2000)))
