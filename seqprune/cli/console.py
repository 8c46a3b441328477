"""What commands write to, and how much: for people, for machines, or next to nothing."""

from __future__ import annotations

import inspect
import json
import os
import sys
from collections.abc import Callable
from contextvars import ContextVar
from dataclasses import dataclass
from functools import wraps
from importlib import metadata
from typing import TYPE_CHECKING, Annotated, Any

import typer
from rich.console import Console, RenderableType

if TYPE_CHECKING:
    from seqprune.report.result import PruneResult
    from seqprune.report.screen import Screen


@dataclass(frozen=True)
class Voice:
    """How a command speaks.

    Attributes:
        as_json: one JSON document on standard output at the end, all else on standard error.
        quiet: warnings, errors and the result alone.
        verbose: how long each stage took, and what libraries warn of.
    """

    as_json: bool = False
    quiet: bool = False
    verbose: bool = False


_PLAIN = Voice()
_VOICE: ContextVar[Voice] = ContextVar("voice", default=_PLAIN)
AsJson = Annotated[bool, typer.Option("--json", help="The result as JSON on standard output; all else goes to error.")]
Quiet = Annotated[bool, typer.Option("--quiet", "-q", help="Warnings, errors and the result alone.")]
Verbose = Annotated[bool, typer.Option("--verbose", "-v", help="How long each stage took, and what libraries warn of.")]


def _version(wanted: bool) -> None:
    if wanted:
        console().print(f"seqprune {metadata.version('seqprune')}")
        raise typer.Exit


Version = Annotated[
    bool, typer.Option("--version", help="Show the version and exit.", is_eager=True, callback=_version)
]


def spoken(command: Callable[..., None]) -> Callable[..., None]:
    """The same command with ``--json``, ``--quiet``, ``--verbose`` and ``--version``."""
    extra: dict[str, Any] = {"as_json": AsJson, "quiet": Quiet, "verbose": Verbose, "version": Version}

    @wraps(command)
    def speaking(*args: Any, **named: Any) -> None:
        said = {name: named.pop(name, False) for name in extra}
        token = _VOICE.set(Voice(said["as_json"], said["quiet"], said["verbose"]))
        try:
            command(*args, **named)
        finally:
            _VOICE.reset(token)

    kind = inspect.Parameter.KEYWORD_ONLY
    more = [inspect.Parameter(name, kind, default=False, annotation=hint) for name, hint in extra.items()]
    known = inspect.signature(command)
    # Python 3.10's get_type_hints wraps what defaults to None once more, and arguments become options.
    hints = inspect.get_annotations(command, eval_str=True)
    own = [entry.replace(annotation=hints[name]) for name, entry in known.parameters.items()]
    vars(speaking)["__signature__"] = known.replace(parameters=[*own, *more])
    speaking.__annotations__ = hints | extra
    return speaking


def console(plain: bool = False) -> Console:
    return Console(soft_wrap=True, highlight=False, color_system=None if plain else "auto", stderr=_VOICE.get().as_json)


def screen_for(silent: bool = False) -> Screen:
    """Progress on the console, or none."""
    from seqprune.report.screen import Screen

    voice = _VOICE.get()
    return Screen(Console(quiet=True) if silent else console(), quiet=voice.quiet, verbose=voice.verbose)


def answer(shown: RenderableType, plain: Any) -> None:
    """A command's result: as people read it, or, with ``--json``, as machines do."""
    if _VOICE.get().as_json:
        emit(plain)
    else:
        console().print(shown, markup=False)


def emit(plain: Any) -> None:
    """The one JSON document of ``--json``, plain data or text that is JSON already; nothing without it."""
    if _VOICE.get().as_json:
        text = plain if isinstance(plain, str) else json.dumps(plain, indent=2, allow_nan=False, default=str) + "\n"
        sys.stdout.write(text)


def is_follower() -> bool:
    """Whether this is one of several processes of ``torchrun`` and not the first, which speaks and writes."""
    return int(os.environ.get("WORLD_SIZE", "1")) > 1 and os.environ.get("RANK", "0") != "0"


def conclude(console: Console, result: PruneResult) -> None:
    """The table before and after, and the proof."""
    from seqprune.report.console import before_after, beside, verdict

    console.print()
    console.print(before_after(result.record))
    console.print()
    if result.record.front:
        console.print(beside(result.record))
        console.print()
    console.print(verdict(result.record))
