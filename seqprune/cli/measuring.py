"""Commands that measure: arguments in, tables out. The command line registers them."""

from __future__ import annotations

import shutil
from contextlib import nullcontext
from pathlib import Path
from typing import Annotated, Any

import typer
from rich.console import Console
from rich.table import Table

from seqprune.cli.commands import first_the_file
from seqprune.cli.console import emit, is_follower, screen_for
from seqprune.cli.opening import OPENED, Mean, Model, Std, Trust, Weights, numbers, opening
from seqprune.cli.options import BatchSize, Device, Resume, Seed, Size, Threads
from seqprune.cli.resuming import absolute, alone, asked_of, new_run, resumable
from seqprune.errors import InputError

_COMMON: dict[str, Any] = {"model": str, "data": str, "imgsz": int, "batch": int, "device": str, "seed": int} | OPENED
SENSITIVITY = _COMMON | {"layers": list, "ratios": list, "criterion": str, "images": int, "out": str}
COMPARE = _COMMON | {"targets": list, "count": str, "methods": list, "images": int, "subsets": int, "finetune": int}
COMPARE |= {"runtimes": list, "threads": int}
Images = Annotated[int | None, typer.Option(show_default="all", help="A seeded sample of so many val images.")]


def sensitivity(
    model: Model = None,
    data: Annotated[str | None, typer.Option(help="Dataset YAML with labelled val images.", show_default=False)] = None,
    layers: Annotated[
        str | None, typer.Option(show_default="all that can be pruned", help="Module paths, with commas between.")
    ] = None,
    ratios: Annotated[str, typer.Option(help="Shares of a layer's channels that stay, with commas between.")] = (
        "0.5,0.25"
    ),
    criterion: Annotated[str, typer.Option(help="Which channels stay.")] = "l2",
    images: Images = None,
    imgsz: Size = None,
    batch: BatchSize = 16,
    device: Device = "cpu",
    seed: Seed = 0,
    out: Annotated[
        Path | None,
        typer.Option(
            metavar="FILE",
            help="Write the numbers here (JSON), and a plot beside it (.html); meanwhile to FILE.run, see --resume.",
        ),
    ] = None,
    resume: Resume = None,
    weights: Weights = None,
    mean: Mean = None,
    std: Std = None,
    trust: Trust = False,
) -> None:
    """Prune one layer at a time at several ratios and show what each costs."""
    if resume is not None:
        alone(model, data)
        _sensitivity(asked_of(resume, SENSITIVITY, "sensitivity"), resume, trust)
        return
    asked: dict[str, Any] = {"layers": layers.split(",") if layers else None}
    asked |= {"ratios": numbers(ratios, "--ratios", "0.5,0.25")}
    asked |= {"criterion": criterion, "images": images, "out": None if out is None else str(out.absolute())}
    asked |= _common(model, data, imgsz, batch, device, seed) | opening(weights, mean, std)
    if out is None:
        _sensitivity(asked, None, trust)
        return
    if out.suffix != ".json" or not out.parent.is_dir() or out.exists() or out.with_suffix(".html").exists():
        raise InputError(
            f"--out {out}: give a new file that ends in .json, in a folder that exists and holds no .html of that name"
        )
    target = out.with_name(f"{out.name}.run")
    if target.exists():
        raise InputError(f"{target} is an unfinished run: `seqprune sensitivity --resume {target}`, or another --out")
    with new_run(target, absolute(asked)) as folder:
        _sensitivity(asked, folder, trust)


def _sensitivity(asked: dict[str, Any], folder: Path | None, trust: bool) -> None:
    from seqprune.engine.state import State
    from seqprune.measure.sensitivity import sensitivity as measure

    out = asked.pop("out")
    with screen_for() as screen, resumable("sensitivity", folder):
        state = State(None if folder is None else folder / "state")
        found = measure(**asked, trust=trust, listener=screen.listener, state=state)
        show(screen.console, found.caption, *found.rows())
        if out is not None:
            numbers, page = found.write(out)
            screen.console.print(f"numbers in {numbers}, plot in {page}", markup=False)
        emit(found.to_json())
    if folder is not None:
        shutil.rmtree(folder, ignore_errors=True)


def compare(
    model: Model = None,
    data: Annotated[
        str | None,
        typer.Option(help="Dataset YAML: methods look at train, accuracy is measured on val.", show_default=False),
    ] = None,
    target: Annotated[str, typer.Option(help="Shares that stay: params=0.8,0.6, or flops=0.8.")] = "params=0.8",
    methods: Annotated[
        str,
        typer.Option(
            help="With commas: accurate, criteria (l1, obs-global …), clusters, imgsz, tp-magnitude …, "
            "another network's file; int8: every row in eight bits too, by the tool of a --runtime."
        ),
    ] = "accurate,random,l1,bn,fpgm,lamp,taylor,topk-l1,clusters",
    images: Annotated[int, typer.Option(help="A seeded sample of so many train images.")] = 128,
    imgsz: Size = None,
    batch: BatchSize = 16,
    device: Device = "cpu",
    seed: Seed = 0,
    subsets: Annotated[
        int, typer.Option(help="Prune with so many samples of --images; the table shows mean and spread.")
    ] = 1,
    finetune: Annotated[int, typer.Option(metavar="EPOCHS", help="Fine-tune alike what each method leaves.")] = 0,
    runtime: Annotated[
        str | None, typer.Option(help="Time every row in these too: onnxruntime,openvino,ncnn …", show_default=False)
    ] = None,
    threads: Threads = None,
    out: Annotated[Path, typer.Option(help="A new folder for the table, the numbers and the plot.")] = Path(
        "runs/compare"
    ),
    resume: Resume = None,
    weights: Weights = None,
    mean: Mean = None,
    std: Std = None,
    trust: Trust = False,
) -> None:
    """Prune with several methods to equal parameters and measure them on the same images, fine-tuned alike or not."""
    if resume is not None:
        alone(model, data)
        _compare(asked_of(resume, COMPARE, "compare"), None if is_follower() else resume, trust)
        return
    from seqprune.report.folder import free_folder

    unit, _, shares = target.partition("=")
    if unit not in ("params", "flops"):
        raise InputError(
            f"--target {target}: methods are compared at equal parameters, write params=0.8,0.6, or flops=0.8"
        )
    asked: dict[str, Any] = {
        "targets": numbers(shares, "--target", "params=0.8,0.6"),
        "count": unit,
        "methods": [n for n in methods.split(",") if n],
    }
    asked |= {"images": images, "subsets": subsets, "finetune": finetune}
    asked |= {"runtimes": runtime.split(",") if runtime else [], "threads": threads}
    asked |= _common(model, data, imgsz, batch, device, seed) | opening(weights, mean, std)
    first = nullcontext() if is_follower() else new_run(free_folder(out.parent, None, out.name), absolute(asked))
    with first as folder:
        _compare(asked, folder, trust)


def _compare(asked: dict[str, Any], folder: Path | None, trust: bool) -> None:
    """In a folder, which the first of several processes has."""
    from seqprune.engine.state import State
    from seqprune.measure.compare import compare as measure

    with screen_for(folder is None) as screen, resumable("compare", folder):
        state = State(folder and folder / "state")
        found = measure(
            **asked,
            trust=trust,
            listener=screen.listener,
            on_row=lambda row: screen.console.print(str(row), markup=False),  # a machine may stop before the last one
            state=state,
        )
        if folder is None:
            return
        epochs = asked["finetune"]
        show(screen.console, f"fine-tuned for {epochs} epochs" if epochs else "no training", *found.cells())
        found.write(folder)
        state.clear()
        screen.console.print(f"results in {folder}: compare.json, compare.md, compare.html", markup=False)
        emit(found.to_json())


def _common(
    model: str | None, data: str | None, imgsz: int | None, batch: int, device: str, seed: int
) -> dict[str, Any]:
    """
    Raises:
        InputError: there is no network, or there are no images.
    """
    if model is None:
        raise InputError("MODEL is missing: give weights (.pt) and a dataset YAML, or --resume RUN")
    if data is None:
        raise InputError(first_the_file(model, "--data is missing: name the images that accuracy is measured on"))
    return {"model": model, "data": data, "imgsz": imgsz, "batch": batch, "device": device, "seed": seed}


def show(console: Console, caption: str, head: list[str], rows: list[list[str]]) -> None:
    shown = Table(box=None, caption=caption, pad_edge=False)
    widths = [max(len(cells[number]) for cells in (head, *rows)) for number in range(len(head))]
    shown.width = sum(widths) + 2 * (len(head) - 1)  # else a narrow console cuts numbers short, and columns away
    for number, (title, width) in enumerate(zip(head, widths, strict=True)):
        shown.add_column(title, justify="right" if number else "left", no_wrap=True, min_width=width)
    for row in rows:
        shown.add_row(*row)
    console.print(shown, crop=False)
