"""Commands of the command line beside pruning itself; :mod:`seqprune.cli.app` runs them."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer
import yaml  # type: ignore[import-untyped,unused-ignore]

from seqprune.cli.console import answer, screen_for
from seqprune.cli.opening import Trust
from seqprune.cli.options import Classes, Name
from seqprune.errors import InputError

if TYPE_CHECKING:
    from seqprune.engine.record import Trained
    from seqprune.report.screen import Screen


def finetune(
    model: Annotated[str, typer.Argument(metavar="MODEL", help="Pruned weights (.pt); with --resume, a last.pt.")],
    data: Annotated[
        str | None,
        typer.Option(help="Dataset YAML with labelled train and val images; of classes, a folder with those two."),
    ] = None,
    epochs: Annotated[int | None, typer.Option(help="Passes over the training images.")] = None,
    imgsz: Annotated[
        int | None,
        typer.Option(show_default="as trained; 640 or 224", help="Side of the images in pixels."),
    ] = None,
    batch: Annotated[int | None, typer.Option(show_default="16", help="Images a step.")] = None,
    device: Annotated[str | None, typer.Option(help="cpu, the number of a GPU, or of several: 0,1.")] = None,
    patience: Annotated[
        int | None, typer.Option(show_default="100", help="Stop after this many epochs without gain.")
    ] = None,
    distill: Annotated[
        str | None, typer.Option(metavar="TEACHER", help="Learn from these weights too: the unpruned network's.")
    ] = None,
    set_: Annotated[
        list[str] | None, typer.Option("--set", metavar="NAME=VALUE", help="Any training argument of Ultralytics'.")
    ] = None,
    seed: Annotated[int | None, typer.Option(show_default="0", help="Of every random choice.")] = None,
    resume: Annotated[bool, typer.Option("--resume", help="Go on with an interrupted run; give its --data.")] = False,
    project: Annotated[Path | None, typer.Option(show_default="runs/finetune", help="Folder of all runs.")] = None,
    name: Name = None,
    classes: Classes = None,
    trust: Trust = False,
) -> None:
    """Train a pruned network on in the shape it has; a masked one stays masked."""
    if resume and (epochs, project, name, classes) != (None,) * 4:
        raise InputError(
            "--resume goes on with its run's epochs, classes and folder: leave out --epochs, --name, --project, "
            "--classes"
        )
    if not resume and (data is None or epochs is None):
        missing = "--data and --epochs are missing: name the images and the passes over them, or --resume a run"
        raise InputError(first_the_file(model, missing))
    given = {"imgsz": imgsz, "batch": batch, "device": device, "patience": patience, "seed": seed}
    given["distill_model"] = distill
    arguments = {key: value for key, value in given.items() if value is not None} | settings(set_ or ())
    if resume:
        _resume(model, data, arguments, trust)
    else:
        _train(model, data or "", epochs or 0, arguments, classes, (project, name), trust)


def _resume(model: str, data: str | None, arguments: dict[str, Any], trust: bool) -> None:
    from seqprune.yolo.train.job import resume

    def go_on(screen: Screen) -> Trained:
        return resume(model, data, arguments=arguments, on_epoch=screen.epoch, trust=trust)

    _shown(go_on, Path(model).parent.parent, model, data, arguments)


def _train(
    model: str,
    data: str,
    epochs: int,
    arguments: dict[str, Any],
    classes: str | None,
    where: tuple[Path | None, str | None],
    trust: bool,
) -> None:
    from seqprune.report.folder import free_folder
    from seqprune.yolo.train.job import train

    project, name = where
    folder = free_folder(project or Path("runs/finetune"), name, Path(model).stem or "model")

    def begin(screen: Screen) -> Trained:
        told: dict[str, Any] = {"arguments": arguments, "on_epoch": screen.epoch, "trust": trust}
        kept = None if classes is None else classes.split(",")
        return train(model, data, folder, epochs=epochs, classes=kept, warn=screen.warning, **told)

    _shown(begin, folder, model, data, arguments)


def _shown(
    work: Callable[[Screen], Trained], folder: Path, model: str, data: str | None, arguments: dict[str, Any]
) -> None:
    """Training on the screen, and its page; where it is interrupted, it is said how it goes on."""
    from seqprune.report.console import trained
    from seqprune.report.html import write_training

    with screen_for() as screen:
        try:
            result = work(screen)
        except KeyboardInterrupt:
            last = folder / "weights" / "last.pt"
            if last.exists():
                distill = arguments.get("distill_model")
                teacher = f" --distill {distill}" if distill else ""
                how = f"`seqprune finetune {last} --resume --data {data}{teacher}` goes on from here"
                screen.console.print(how, markup=False)
            raise
    write_training(result, model, str(data))
    answer(trained(result), {"folder": str(result.folder), "best": str(result.best), "metrics": result.metrics})


def first_the_file(model: str, missing: str) -> str:
    """What is missing; a file of weights that does not exist is named before anything else."""
    if Path(model).exists():
        return missing
    from seqprune.yolo.files.load import check_there

    try:
        check_there(model)
    except InputError as error:
        return f"{error}; {missing}"
    return missing


def settings(given: list[str] | tuple[str, ...]) -> dict[str, Any]:
    """``NAME=VALUE`` as YAML reads the value.

    Raises:
        InputError: there is no ``=``, or the value is no YAML.
    """
    found: dict[str, Any] = {}
    for text in given:
        name, equals, value = text.partition("=")
        try:
            found[name] = yaml.safe_load(value)
        except yaml.YAMLError as error:
            raise InputError(f"--set {text}: {value!r} is no YAML value; write --set lr0=0.001") from error
        if not equals or not name:
            raise InputError(f"--set {text}: no name and value; write --set lr0=0.001")
    return found


def report(
    folder: Annotated[
        Path, typer.Argument(metavar="RUN", help="Folder of a finished run of `seqprune prune` or `finetune`.")
    ],
    out: Annotated[
        Path | None, typer.Option(metavar="FILE", show_default="report.html in the run", help="The page.")
    ] = None,
) -> None:
    """Make the page of a run anew from the numbers in its folder."""
    from seqprune.report.html import page_of_folder

    page = out or folder / "report.html"
    page_of_folder(folder, page)
    answer(f"page in {page}", {"page": str(page)})
