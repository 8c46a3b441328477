"""What commands write to."""

from __future__ import annotations

import os
from typing import TYPE_CHECKING

from rich.console import Console

if TYPE_CHECKING:
    from seqprune.report.result import PruneResult
    from seqprune.report.screen import Screen


def console(plain: bool = False) -> Console:
    return Console(soft_wrap=True, highlight=False, color_system=None if plain else "auto")


def screen_for(silent: bool = False) -> Screen:
    """Progress on the console, or none."""
    from seqprune.report.screen import Screen

    return Screen(Console(quiet=True) if silent else console())


def is_follower() -> bool:
    """Whether this is one of several processes of ``torchrun`` and not the first, which speaks and writes."""
    return int(os.environ.get("WORLD_SIZE", "1")) > 1 and os.environ.get("RANK", "0") != "0"


def conclude(console: Console, result: PruneResult) -> None:
    """The table before and after, and the proof."""
    from seqprune.report.console import before_after, verdict

    console.print()
    console.print(before_after(result.record))
    console.print()
    console.print(verdict(result.record))
