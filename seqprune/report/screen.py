"""A run as it happens, on a console."""

from __future__ import annotations

import threading
import time
from collections.abc import Callable, Mapping

from rich.console import Console
from rich.progress import BarColumn, Progress, SpinnerColumn, TextColumn, TimeElapsedColumn, TimeRemainingColumn
from rich.text import Text

from seqprune.engine.listener import Listener
from seqprune.engine.steps import StepReport
from seqprune.plain import printable
from seqprune.report.console import step_block

EVERY = 5.0
"""Seconds between two lines where nobody watches a bar."""
SILENT = 30.0
"""Seconds after which a stage that has nothing to count says there that it goes on."""


class Screen:
    """Steps as they come, and a progress bar below them where someone is watching.

    Args:
        console: where it is written; standard output without one.
        quiet: warnings alone are shown.
        verbose: how long each stage took is shown too.
        clock: seconds, as :func:`time.monotonic`.
    """

    def __init__(
        self,
        console: Console | None = None,
        *,
        quiet: bool = False,
        verbose: bool = False,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        self.console = console or Console(soft_wrap=True, highlight=False)
        self.quiet, self.verbose, self.clock = quiet, verbose, clock
        self.steps = 0
        self.name, self.kind, self.total, self.done = "", "", 0, 0
        self.began = self.looked = self.spoke = clock()
        self.progress = Progress(
            SpinnerColumn("line"),
            TextColumn("{task.description}"),
            BarColumn(),
            TextColumn("{task.fields[count]}"),
            TimeElapsedColumn(),
            TextColumn("left"),
            TimeRemainingColumn(compact=True),
            console=self.console,
            transient=True,
            disable=quiet or not self.console.is_terminal,
        )
        self.task = self.progress.add_task("start", total=None, count="")
        self.over = threading.Event()

    def __enter__(self) -> Screen:
        if not self.progress.disable:  # stopping prints an empty line otherwise, before rich 14
            self.progress.start()
        if not (self.quiet or self.console.is_terminal):
            threading.Thread(target=self._beats, daemon=True).start()
        return self

    def __exit__(self, *_: object) -> None:
        self.over.set()
        self._ended()
        if not self.progress.disable:
            self.progress.stop()

    @property
    def listener(self) -> Listener:
        return Listener(self.stage, self.progress_by, self.step, self.warning, self.epoch, self.note, self.expect)

    def stage(self, name: str, total: int | None) -> None:
        """What begins, ``kind: part``, and how many images it looks at, where that is known."""
        self._ended()
        now, (kind, _, part) = self.clock(), name.partition(":")
        soon = part and kind == self.kind and now - self.spoke < EVERY  # one of many short parts
        self.name, self.total, self.done, self.kind = printable(name), total or 0, 0, kind
        self.began = self.looked = now
        self.progress.reset(self.task, description=self.name, total=total, count="")
        if not soon:
            self.spoke = now
            self._line(self.name)

    def expect(self, images: int) -> None:
        """How many images the stage looks at, where that was not known when it began."""
        if not self.done:  # what went before was no looking at images
            self.looked = self.clock()
        self.total = images
        self.progress.update(self.task, total=images)

    def progress_by(self, images: int) -> None:
        """How many images were looked at since the last call."""
        self.done += images
        count = f"{self.done}/{self.total} images" if self.total else f"{self.done} images"
        self.progress.update(self.task, completed=self.done, count=count)
        now = self.clock()
        if now - self.spoke >= EVERY and self.done != self.total:
            self.spoke = now
            self._line(f"{self.name} {count}{self._left(now)}")

    def beat(self) -> None:
        """A sign of life, where nothing was said for long."""
        now = self.clock()
        if self.name and now - self.spoke >= SILENT:
            self.spoke = now
            self._line(f"{self.name}, {now - self.began:.0f} s so far")

    def epoch(self, done: int, total: int, losses: Mapping[str, float]) -> None:
        """How far a training is, and what it loses."""
        lost = "".join(f"  {printable(name)} {value:.3f}" for name, value in losses.items())
        count, self.spoke = f"epoch {done}/{total}{lost}", self.clock()
        self.progress.update(self.task, description="fine-tune", total=total, completed=done, count=count)
        self._line(count)

    def step(self, report: StepReport) -> None:
        self.steps += 1
        if not self.quiet:
            self.console.print(step_block(report, self.steps))

    def warning(self, text: str) -> None:
        self.console.print(Text.assemble(("warning: ", "yellow"), printable(text, 2000)))

    def note(self, text: str) -> None:
        if not self.quiet:
            self.console.print(Text.assemble(("note: ", "cyan"), printable(text, 2000)))

    def _beats(self) -> None:
        while not self.over.wait(EVERY):
            self.beat()

    def _line(self, text: str) -> None:
        """For a pipe, where no bar is drawn."""
        if not (self.quiet or self.console.is_terminal):
            self.console.print(text, markup=False)

    def _left(self, now: float) -> str:
        if not self.total or not self.done or self.done > self.total:
            return ""
        return f", about {(now - self.looked) / self.done * (self.total - self.done):.0f} s left"

    def _ended(self) -> None:
        if self.verbose and self.name:
            self.console.print(f"{self.name}: {self.clock() - self.began:.1f} s", markup=False, style="dim")
        self.name = ""
