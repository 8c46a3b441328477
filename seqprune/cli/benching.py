"""``seqprune bench``: files in, a table of times out."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from seqprune.cli.commands import Trust
from seqprune.errors import InputError

Threads = Annotated[
    int | None, typer.Option(show_default="as many as torch uses", help="Of the processor, in every runtime.")
]
Precision = Annotated[str, typer.Option(help="auto: what OpenVINO takes for the fastest on that device; f32: float32.")]
PRECISIONS = ("auto", "f32")


def bench(
    models: Annotated[
        list[str],
        typer.Argument(
            metavar="MODEL...",
            help="Weights (.pt, .safetensors, a .yaml), .onnx, .torchscript, .engine, folders of OpenVINO and NCNN.",
        ),
    ],
    runtime: Annotated[
        str | None,
        typer.Option(
            show_default="all that are installed",
            help="torch, onnxruntime, openvino, ncnn, tensorrt, with commas between.",
        ),
    ] = None,
    imgsz: Annotated[
        int | None, typer.Option(show_default="each network's own, or 640", help="Side of the images in pixels.")
    ] = None,
    batch: Annotated[int, typer.Option(help="Images at a time.")] = 1,
    threads: Threads = None,
    device: Annotated[str, typer.Option(help="cpu, or the number of a GPU.")] = "cpu",
    precision: Precision = "auto",
    runs: Annotated[int, typer.Option(help="Passes of each that count.")] = 20,
    as_json: Annotated[bool, typer.Option("--json", help="Machine-readable.")] = False,
    trust: Trust = False,
) -> None:
    """Time any number of networks and exported files side by side, in every runtime that is installed."""
    from seqprune.cli.console import console
    from seqprune.cli.measuring import show
    from seqprune.engine.listener import Listener
    from seqprune.measure.side_by_side import bench as measure
    from seqprune.report.screen import Screen

    with Screen() as screen:
        found = measure(
            [Path(model) for model in models],
            runtimes=runtime.split(",") if runtime else None,
            imgsz=imgsz,
            batch=batch,
            threads=threads,
            device=device,
            full=is_full(precision),
            runs=runs,
            trust=trust,
            listener=Listener() if as_json else screen.listener,
        )
    if as_json:
        typer.echo(found.to_json(), nl=False)
        return
    show(console(), f"batch {batch}, {runs} runs in turns", *found.cells())
    for about in found.places.values():
        where = f"{about['threads']} threads of {about['processor']}" if device == "cpu" else about["processor"]
        console().print(f"{about['runtime']} {about['version']}, {where}", markup=False)


def is_full(precision: str) -> bool:
    """
    Raises:
        InputError: it is none of the precisions.
    """
    if precision not in PRECISIONS:
        raise InputError(f"--precision {precision}: choose {' or '.join(PRECISIONS)}")
    return precision == "f32"
