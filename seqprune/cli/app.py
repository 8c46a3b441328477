"""The command line: arguments, progress, exit codes.

0 done; 1 the work failed; 2 bad usage or input; 130, 143, 129 interrupted. Every error is one line on standard error, a
traceback only with ``--debug``. Nothing heavy is imported before a command needs it.
"""

from __future__ import annotations

import logging
import os
import shutil
import sys
import tempfile
import traceback
import warnings
from collections.abc import Sequence
from dataclasses import asdict
from pathlib import Path
from types import TracebackType
from typing import Annotated, cast

import typer
from rich.console import Console
from rich.text import Text

from seqprune.cli import benching, commands, measuring
from seqprune.cli.console import Version, answer, conclude, emit, screen_for, spoken
from seqprune.cli.console import console as console_for
from seqprune.cli.failures import said
from seqprune.cli.hints import hint
from seqprune.cli.interrupts import Stopped, leave
from seqprune.cli.opening import Trust
from seqprune.cli.prune import prune as prune_command
from seqprune.errors import InputError, LostError, SeqPruneError
from seqprune.plain import printable

app = typer.Typer(
    name="seqprune",
    context_settings={"help_option_names": ["-h", "--help"]},
    pretty_exceptions_enable=False,
)
# ClickException, the base of all usage errors: typer brings its own copy of click or uses an installed one,
# depending on its version, and gives away only this name.
_UsageError = cast(type[typer.BadParameter], typer.BadParameter.__mro__[2])

_INTERRUPTED = 130


@app.callback()
def _globals(
    debug: Annotated[bool, typer.Option("--debug", help="Show the traceback of an error.")] = False,
    version: Version = False,
) -> None:
    """Front-to-back channel pruning of trained detectors."""


def demo(
    keep_files: Annotated[Path | None, typer.Option(help="Keep data and results in this new folder.")] = None,
    seed: Annotated[int, typer.Option(help="Of every random choice.")] = 0,
) -> None:
    """The same job on a small detector and images made on the spot; nothing is downloaded."""
    if keep_files is not None and os.path.lexists(keep_files):
        raise InputError(f"{keep_files} exists and is left as it is: give another --keep-files")

    from seqprune.demo.run import demo as run_demo
    from seqprune.report.result import FILES, write

    with tempfile.TemporaryDirectory(prefix="seqprune-demo-") as temporary:
        folder = keep_files or Path(temporary)
        done = False
        try:
            with screen_for() as screen:
                result = run_demo(folder, seed=seed, listener=screen.listener)
            conclude(screen.console, result)
            if keep_files is not None:
                write(result, folder)
                screen.console.print(f"files in {folder}: digits, {', '.join(FILES)}", markup=False)
            emit(result.record.plain())
            done = True
        finally:
            if not done:
                shutil.rmtree(folder, ignore_errors=True)  # nothing was there before


def reproduce(
    no_colour: Annotated[bool, typer.Option("--no-colour", "--no-color", help="Plain text.")] = False,
) -> None:
    """Show the original failure of half-applied pruning, word for word, and its end."""
    from seqprune.measure.reproduce import Finding
    from seqprune.measure.reproduce import reproduce as findings

    console = console_for(no_colour)

    def show(finding: Finding) -> None:
        colour = "green" if finding.ok else "red"
        text = Text.assemble((finding.title + "\n", "bold"), f"  {finding.seen}\n")
        text.append("  as expected" if finding.ok else f"  NOT as expected: {finding.expected}", colour)
        console.print(text)

    found = list(findings(on_finding=show))
    emit([asdict(finding) | {"ok": finding.ok} for finding in found])
    failed = [finding for finding in found if not finding.ok]
    if failed:
        raise SeqPruneError(f"{len(failed)} of the findings were not as expected: see above")
    console.print("the original failures came back, and the same layers were pruned without one")


def inspect(
    model: Annotated[
        str, typer.Argument(metavar="MODEL", help="Weights (.pt), a model .yaml, timm:NAME, torchvision:NAME …")
    ],
    data: Annotated[
        str | None, typer.Option(help="What gives its inputs, package.module:function; of images none are needed.")
    ] = None,
    trust: Trust = False,
) -> None:
    """List layers front to back, what is coupled or constrained, and what is pinned and why."""
    from seqprune.measure.inspecting import inspect as look
    from seqprune.report.console import graph_text

    found = look(model, data, trust=trust)
    answer(graph_text(found.graph, found.source, found.blocks), found.to_json())


def main() -> None:
    """The entry point."""
    code = call(sys.argv[1:])
    if code > 128:
        leave(code)
    sys.exit(code)


def call(args: Sequence[str]) -> int:
    """Runs one command line and returns its exit code; an exception that is a bug surfaces."""
    debug = "--debug" in args
    args = [arg for arg in args if arg != "--debug"]  # allowed anywhere, behind the command too
    _prepare(debug, "--verbose" in args or "-v" in args)
    if (instead := hint(args)) is not None:
        return _fail(instead, 2, debug=False)
    try:
        command = typer.main.get_command(app)
        with said():
            code = int(command.main(args, prog_name="seqprune", standalone_mode=False) or 0)
    except (typer.Abort, KeyboardInterrupt):
        code = _INTERRUPTED  # what typer of later versions answers by itself
    except Stopped as stopped:
        return _fail(f"ended by {stopped}", stopped.code, debug)
    except _UsageError as error:
        where = getattr(getattr(error, "ctx", None), "command_path", "seqprune")
        return _fail(f"{error.format_message().rstrip('.')}; see `{where} --help`", 2, debug)
    except LostError as error:
        return _fail(str(error), 1, debug)
    except InputError as error:
        return _fail(str(error), 2, debug)
    except SeqPruneError as error:
        return _fail(str(error), 1, debug)
    return _fail("interrupted", code, debug) if code == _INTERRUPTED else code


def _prepare(debug: bool, verbose: bool = False) -> None:
    """Silences what others log and warn; ``--debug`` leaves it, and Python's own tracebacks."""
    for stream in (sys.stdout, sys.stderr):
        if hasattr(stream, "reconfigure"):
            stream.reconfigure(errors="replace")  # a console that cannot show × is no reason to fail
    if not debug:
        os.environ.setdefault("YOLO_VERBOSE", "False")  # read when Ultralytics is imported
        if not verbose:
            warnings.simplefilter("ignore")
        # What is worth telling comes through the listener; without a handler Python prints log records.
        logging.getLogger("seqprune").addHandler(logging.NullHandler())
        sys.excepthook = _report_bug


def _report_bug(kind: type[BaseException], error: BaseException, trace: TracebackType | None) -> None:
    """One line instead of a traceback; Python exits with 1."""
    what = f"unexpected {kind.__name__}: {error}"
    _fail(f"{what}; this is a bug, run again with --debug and report it", 1, False)


def _fail(message: str, code: int, debug: bool) -> int:
    console = Console(stderr=True, soft_wrap=True, highlight=False)
    if debug:
        console.print(traceback.format_exc(), markup=False)
    console.print(Text.assemble(("error: ", "red"), printable(" ".join(message.split()), 2000)))
    return code


for _command in (
    *(prune_command, commands.finetune, demo, commands.report, inspect, benching.bench),
    *(measuring.compare, measuring.sensitivity, reproduce),
):
    app.command()(spoken(_command))
