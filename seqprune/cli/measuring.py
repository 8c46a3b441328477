"""Commands that measure: arguments in, tables out. The command line registers them."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer
from rich.console import Console
from rich.table import Table

from seqprune.cli.commands import first_the_file
from seqprune.errors import InputError

Model = Annotated[str, typer.Argument(metavar="MODEL", help="Weights (.pt), or a model .yaml with random weights.")]
Images = Annotated[int | None, typer.Option(show_default="all", help="A seeded sample of so many val images.")]
Size = Annotated[int, typer.Option(help="Longer side of the images in pixels.")]
BatchSize = Annotated[int, typer.Option("--batch", help="Images at a time.")]
Device = Annotated[str, typer.Option(help="cpu, or the number of a GPU.")]
Seed = Annotated[int, typer.Option(help="Of every random choice.")]


def sensitivity(
    model: Model,
    data: Annotated[
        str | None, typer.Option(help="Dataset YAML with labelled val images.", show_default="required")
    ] = None,
    layers: Annotated[
        str | None, typer.Option(show_default="all that can be pruned", help="Module paths, with commas between.")
    ] = None,
    ratios: Annotated[str, typer.Option(help="Shares of a layer's channels that stay, with commas between.")] = (
        "0.5,0.25"
    ),
    criterion: Annotated[str, typer.Option(help="Which channels stay.")] = "l2",
    images: Images = None,
    imgsz: Size = 640,
    batch: BatchSize = 16,
    device: Device = "cpu",
    seed: Seed = 0,
    out: Annotated[
        Path | None, typer.Option(metavar="FILE", help="Write the numbers here (JSON), and a plot beside it (.html).")
    ] = None,
) -> None:
    """Prune one layer at a time at several ratios and show what each costs."""
    data = _both(model, data)
    shares = _numbers(ratios, "--ratios")
    if out is not None and (
        out.suffix != ".json" or not out.parent.is_dir() or out.exists() or out.with_suffix(".html").exists()
    ):
        raise InputError(
            f"--out {out}: give a new file that ends in .json, in a folder that exists and holds no .html of that name"
        )

    from seqprune.measure.sensitivity import sensitivity as measure
    from seqprune.report.screen import Screen

    with Screen() as screen:
        found = measure(
            model,
            data,
            layers=layers.split(",") if layers else None,
            ratios=shares,
            criterion=criterion,
            images=images,
            imgsz=imgsz,
            batch=batch,
            device=device,
            seed=seed,
            listener=screen.listener,
        )
    _show(screen.console, f"unpruned mAP50-95 {found.map50_95:.4f}", *found.rows())
    if out is not None:
        numbers, page = found.write(out)
        screen.console.print(f"numbers in {numbers}, plot in {page}", markup=False)


def compare(
    model: Model,
    data: Annotated[
        str | None,
        typer.Option(help="Dataset YAML: methods look at train, accuracy is measured on val.", show_default="required"),
    ] = None,
    target: Annotated[str, typer.Option(help="Shares that stay: params=0.8,0.6, or flops=0.8.")] = "params=0.8",
    methods: Annotated[
        str,
        typer.Option(help="With commas: accurate, criteria (l1, obs-global …), clusters, topk-l1, tp-magnitude …"),
    ] = "accurate,random,l1,bn,fpgm,lamp,taylor,topk-l1,clusters",
    images: Annotated[int, typer.Option(help="A seeded sample of so many train images.")] = 128,
    imgsz: Size = 640,
    batch: BatchSize = 16,
    device: Device = "cpu",
    seed: Seed = 0,
    subsets: Annotated[
        int, typer.Option(help="Prune with so many samples of --images; the table shows mean and spread.")
    ] = 1,
    finetune: Annotated[int, typer.Option(metavar="EPOCHS", help="Fine-tune alike what each method leaves.")] = 0,
    out: Annotated[Path, typer.Option(help="A new folder for the table, the numbers and the plot.")] = Path(
        "runs/compare"
    ),
) -> None:
    """Prune with several methods to equal parameters and measure them on the same images, fine-tuned alike or not."""
    from seqprune.report.folder import fill, free_folder

    data = _both(model, data)
    unit, _, shares = target.partition("=")
    if unit not in ("params", "flops"):
        raise InputError(
            f"--target {target}: methods are compared at equal parameters, write params=0.8,0.6, or flops=0.8"
        )
    targets = _numbers(shares, "--target")
    folder = free_folder(out.parent, None, out.name)

    from seqprune.measure.compare import compare as measure
    from seqprune.report.screen import Screen

    with Screen() as screen:
        found = measure(
            model,
            data,
            targets=targets,
            methods=[name for name in methods.split(",") if name],
            count=unit,
            images=images,
            imgsz=imgsz,
            batch=batch,
            device=device,
            seed=seed,
            subsets=subsets,
            finetune=finetune,
            listener=screen.listener,
            on_row=lambda row: screen.console.print(str(row), markup=False),  # a machine may stop before the last one
        )
    _show(screen.console, f"fine-tuned for {finetune} epochs" if finetune else "no training", *found.cells())
    written = fill(folder, found.write)
    screen.console.print(f"results in {written}: compare.json, compare.md, compare.html", markup=False)


def _both(model: str, data: str | None) -> str:
    """
    Raises:
        InputError: there is no data; a file of weights that is missing too is named first.
    """
    if data is None:
        raise InputError(first_the_file(model, "--data is missing: name the images that accuracy is measured on"))
    return data


def _numbers(text: str, option: str) -> list[float]:
    try:
        return [float(part) for part in text.split(",")]
    except ValueError as error:
        raise InputError(f"{option} {text!r}: give numbers in (0, 1) with commas between, 0.5,0.25") from error


def _show(console: Console, caption: str, head: list[str], rows: list[list[str]]) -> None:
    shown = Table(box=None, caption=caption, pad_edge=False)
    for number, title in enumerate(head):
        width = max(len(cells[number]) for cells in (head, *rows))  # else a narrow console cuts numbers short
        shown.add_column(title, justify="right" if number else "left", no_wrap=True, min_width=width)
    for row in rows:
        shown.add_row(*row)
    console.print(shown, crop=False)
