"""``seqprune bench``: files in, a table of times out."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from seqprune.cli.opening import Trust
from seqprune.cli.options import Precision, Threads, is_full


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
    trust: Trust = False,
) -> None:
    """Time any number of networks and exported files side by side, in every runtime that is installed."""
    from seqprune.cli.console import emit, screen_for
    from seqprune.cli.measuring import show
    from seqprune.measure.side_by_side import bench as measure

    with screen_for() as screen:
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
            listener=screen.listener,
        )
    emit(found.to_json())
    console = screen.console
    show(console, f"batch {batch}, {runs} runs in turns", *found.cells())
    for about in found.places.values():
        used = f"{about['threads']} thread{'s' * (about['threads'] != 1)}"
        where = f"{used} of {about['processor']}" if device == "cpu" else about["processor"]
        console.print(f"{about['runtime']} {about['version']}, {where}", markup=False)
