"""The command line: arguments, progress, exit codes.

0 done; 1 the work failed; 2 bad usage or input; 130 interrupted. Every error is one line on standard error, a
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
from importlib import metadata
from pathlib import Path
from types import TracebackType
from typing import TYPE_CHECKING, Annotated, cast

import typer
from rich.console import Console
from rich.text import Text

from seqprune.cli import commands, measuring
from seqprune.errors import InputError, SeqPruneError, TrainingError
from seqprune.plain import printable

if TYPE_CHECKING:
    from seqprune.report.screen import Screen
    from seqprune.run import PruneResult

app = typer.Typer(
    name="seqprune",
    add_completion=False,
    pretty_exceptions_enable=False,
)
# ClickException, the base of all usage errors: typer brings its own copy of click or uses an installed one,
# depending on its version, and gives away only this name.
_UsageError = cast(type[typer.BadParameter], typer.BadParameter.__mro__[2])

_INTERRUPTED = 130
_FILES = ("weights/pruned.pt", "plan.json", "report.json", "report.html")


def _version(wanted: bool) -> None:
    if wanted:
        _console().print(f"seqprune {metadata.version('seqprune')}")
        raise typer.Exit


@app.callback()
def _globals(
    debug: Annotated[bool, typer.Option("--debug", help="Show the traceback of an error.")] = False,
    version: Annotated[
        bool, typer.Option("--version", help="Show the version and exit.", is_eager=True, callback=_version)
    ] = False,
) -> None:
    """Front-to-back channel pruning of trained detectors."""


@app.command()
def prune(
    model: Annotated[str, typer.Argument(metavar="MODEL", help="Weights (.pt), or a model .yaml with random weights.")],
    data: Annotated[
        str | None,
        typer.Option(
            help="Dataset YAML with labelled train and val images; of classes, a folder with those two. "
            "fast prunes without.",
            show_default=False,
        ),
    ] = None,
    preset: Annotated[
        str,
        typer.Option(
            help="seed: a few layers, front to back. accurate: the whole network to a target. "
            "fast: the same by the weights alone, without images."
        ),
    ] = "seed",
    target: Annotated[
        str | None, typer.Option(help="What stays, with accurate or fast: params=0.8, flops=0.6 or latency=0.7.")
    ] = None,
    criterion: Annotated[
        str | None, typer.Option(show_default="lamp", help="What scores channels, with fast: lamp, l1, taylor, obs …")
    ] = None,
    recover: Annotated[
        str | None,
        typer.Option(show_default="ls with accurate", help="Repairs without training: ls, bias, bn or none."),
    ] = None,
    protect: Annotated[list[str] | None, typer.Option(help="Module path to spare; may be repeated.")] = None,
    layers: Annotated[
        int | None, typer.Option(show_default="3", help="How many layers to choose from the blocks.")
    ] = None,
    blocks: Annotated[str | None, typer.Option(show_default="1-5", help="Blocks to choose from: 1-5 or 1-3,6.")] = None,
    layer: Annotated[list[str] | None, typer.Option(help="Name a layer outright; may be repeated.")] = None,
    keep: Annotated[
        str | None, typer.Option(help="knee, interpolated-knee, or the share of channels that stay.")
    ] = None,
    represent: Annotated[str | None, typer.Option(help="Who stays of a cluster: weight, medoid or gamma.")] = None,
    match: Annotated[str | None, typer.Option(help="Objects that count: once, each or all.")] = None,
    round_to: Annotated[
        int | None,
        typer.Option(show_default="8 with a ratio or a target, else 1", help="Round channel counts up to a multiple."),
    ] = None,
    images: Annotated[int | None, typer.Option(show_default="all", help="Look at this many training images.")] = None,
    imgsz: Annotated[
        int | None, typer.Option(show_default="640; 224 to classify", help="Longer side of the images in pixels.")
    ] = None,
    batch: Annotated[int, typer.Option(help="Images at a time.")] = 16,
    device: Annotated[str, typer.Option(help="cpu, or the number of a GPU.")] = "cpu",
    mode: Annotated[str, typer.Option(help="compact takes channels out, mask zeroes them.")] = "compact",
    cache_bytes: Annotated[
        int, typer.Option(help="Memory for block outputs, so that all layers cost one pass; more goes to disk; 0: off.")
    ] = 4 << 30,
    cache_half: Annotated[bool, typer.Option("--cache-half", help="Keep block outputs in half precision.")] = False,
    amp: Annotated[bool, typer.Option("--amp", help="Observe with automatic mixed precision.")] = False,
    finetune: Annotated[int, typer.Option(metavar="EPOCHS", help="Fine-tune afterwards in the pruned shape.")] = 0,
    finetune_step: Annotated[
        int, typer.Option(metavar="EPOCHS", help="Fine-tune after each pruned layer, before the next is looked at.")
    ] = 0,
    distill: Annotated[
        bool, typer.Option("--distill", help="The unpruned model is the teacher of the fine-tuning.")
    ] = False,
    seed: Annotated[int, typer.Option(help="Of every random choice.")] = 0,
    no_val: Annotated[bool, typer.Option("--no-val", help="Do not measure accuracy before and after.")] = False,
    project: Annotated[Path, typer.Option(help="Folder of all runs.")] = Path("runs/prune"),
    name: Annotated[str | None, typer.Option(show_default="the model's name", help="Folder of this run.")] = None,
    trust: commands.Trust = False,
) -> None:
    """Prune a trained network front to back, prove the result, and measure it."""
    from seqprune.report.folder import fill, free_folder
    from seqprune.select.layers import parse_blocks

    if layer and (layers is not None or blocks is not None):
        raise InputError("--layer names the layers outright: leave out --layers and --blocks, or --layer")
    silent = _is_follower()
    folder = free_folder(project, name, Path(model).stem or "model")
    numbers = None if blocks is None else parse_blocks(blocks)

    from seqprune import run
    from seqprune.engine.settings import Mode

    failure: TrainingError | None = None
    with _screen(silent) as screen:
        try:
            result = run.prune(
                model,
                data,
                preset=preset,
                layers=layer or layers,
                blocks=numbers,
                keep=_ratio(keep),
                represent=represent,
                match=match,
                round_to=round_to,
                target=target,
                criterion=criterion,
                recover=recover,
                protect=protect or (),
                images=images,
                imgsz=imgsz,
                batch=batch,
                device=device,
                mode=cast(Mode, mode),
                cache_bytes=cache_bytes,
                cache_half=cache_half,
                amp=amp,
                finetune=finetune,
                finetune_step=finetune_step,
                distill=distill,
                seed=seed,
                val=not no_val,
                trust=trust,
                listener=screen.listener,
            )
        except TrainingError as error:
            if not isinstance(error.result, run.PruneResult):
                raise
            result, failure = error.result, error
    if silent:
        return
    _conclude(screen.console, result)
    written = fill(folder, lambda folder: _write(result, folder))
    screen.console.print(f"results in {written}: {', '.join(_FILES)}", markup=False)
    if failure is not None:
        raise failure  # what was done is saved and said; the work as a whole failed


app.command()(commands.finetune)


@app.command()
def demo(
    keep_files: Annotated[Path | None, typer.Option(help="Keep data and results in this new folder.")] = None,
    seed: Annotated[int, typer.Option(help="Of every random choice.")] = 0,
) -> None:
    """The same job on a small detector and images made on the spot; nothing is downloaded."""
    if keep_files is not None and os.path.lexists(keep_files):
        raise InputError(f"{keep_files} exists and is left as it is: give another --keep-files")

    from seqprune.demo.run import demo as run_demo

    with tempfile.TemporaryDirectory(prefix="seqprune-demo-") as temporary:
        folder = keep_files or Path(temporary)
        done = False
        try:
            with _screen() as screen:
                result = run_demo(folder, seed=seed, listener=screen.listener)
            _conclude(screen.console, result)
            if keep_files is not None:
                _write(result, folder)
                screen.console.print(f"files in {folder}: digits, {', '.join(_FILES)}", markup=False)
            done = True
        finally:
            if not done:
                shutil.rmtree(folder, ignore_errors=True)  # nothing was there before


@app.command()
def reproduce(
    no_colour: Annotated[bool, typer.Option("--no-colour", "--no-color", help="Plain text.")] = False,
) -> None:
    """Show the original failure of half-applied pruning, word for word, and its end."""
    from seqprune.measure.reproduce import Finding
    from seqprune.measure.reproduce import reproduce as findings

    console = _console(no_colour)

    def show(finding: Finding) -> None:
        colour = "green" if finding.ok else "red"
        text = Text.assemble((finding.title + "\n", "bold"), f"  {finding.seen}\n")
        text.append("  as expected" if finding.ok else f"  NOT as expected: {finding.expected}", colour)
        console.print(text)

    failed = [finding for finding in findings(on_finding=show) if not finding.ok]
    if failed:
        raise SeqPruneError(f"{len(failed)} of the findings were not as expected: see above")
    console.print("the original failures came back, and the same layers were pruned without one")


@app.command()
def inspect(
    model: Annotated[str, typer.Argument(metavar="MODEL", help="Weights (.pt), or a model .yaml.")],
    as_json: Annotated[bool, typer.Option("--json", help="Machine-readable.")] = False,
    trust: commands.Trust = False,
) -> None:
    """List layers front to back, what is coupled or constrained, and what is pinned and why."""
    import json

    from seqprune.report.console import graph_json, graph_text
    from seqprune.yolo.files.load import load
    from seqprune.yolo.files.networks import NETWORKS
    from seqprune.yolo.task.tracing import trace_detector

    graph = trace_detector(load(model, tasks=NETWORKS, trust=trust).model)
    if as_json:
        _console().print(json.dumps(graph_json(graph, model), indent=2), markup=False)
    else:
        _console().print(graph_text(graph, model))


def main() -> None:
    """The entry point."""
    sys.exit(call(sys.argv[1:]))


def call(args: Sequence[str]) -> int:
    """Runs one command line and returns its exit code; an exception that is a bug surfaces."""
    debug = "--debug" in args
    args = [arg for arg in args if arg != "--debug"]  # allowed anywhere, behind the command too
    _prepare(debug)
    try:
        command = typer.main.get_command(app)
        code = int(command.main(args, prog_name="seqprune", standalone_mode=False) or 0)
    except (typer.Abort, KeyboardInterrupt):
        code = _INTERRUPTED  # what typer of later versions answers by itself
    except _UsageError as error:
        where = getattr(getattr(error, "ctx", None), "command_path", "seqprune")
        return _fail(f"{error.format_message().rstrip('.')}; see `{where} --help`", 2, debug)
    except InputError as error:
        return _fail(str(error), 2, debug)
    except SeqPruneError as error:
        return _fail(str(error), 1, debug)
    return _fail("interrupted", code, debug) if code == _INTERRUPTED else code


def _prepare(debug: bool) -> None:
    """Silences what others log and warn; ``--debug`` leaves it, and Python's own tracebacks."""
    for stream in (sys.stdout, sys.stderr):
        if hasattr(stream, "reconfigure"):
            stream.reconfigure(errors="replace")  # a console that cannot show × is no reason to fail
    if not debug:
        os.environ.setdefault("YOLO_VERBOSE", "False")  # read when Ultralytics is imported
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


def _console(plain: bool = False) -> Console:
    return Console(soft_wrap=True, highlight=False, color_system=None if plain else "auto")


def _screen(silent: bool = False) -> Screen:
    from seqprune.report.screen import Screen

    return Screen(Console(quiet=True) if silent else _console())


def _is_follower() -> bool:
    """Whether this is one of several processes of ``torchrun`` and not the first, which speaks and writes."""
    return int(os.environ.get("WORLD_SIZE", "1")) > 1 and os.environ.get("RANK", "0") != "0"


def _ratio(keep: str | None) -> str | float | None:
    try:
        return keep if keep is None else float(keep)
    except ValueError:
        return keep  # a word: the engine knows which there are


def _conclude(console: Console, result: PruneResult) -> None:
    from seqprune.report.console import before_after, verdict

    console.print()
    console.print(before_after(result.record))
    console.print()
    console.print(verdict(result.record))


def _write(result: PruneResult, folder: Path) -> None:
    (folder / "weights").mkdir(exist_ok=True)
    weights, plan, *reports = (folder / file for file in _FILES)
    result.save(weights)
    result.plan.save(plan)
    for report in reports:
        result.report(report)


for _command in (measuring.sensitivity, measuring.compare):
    app.command()(_command)
