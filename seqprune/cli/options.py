"""Options that several commands share, or that one command has many of: each name with its words."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from seqprune.errors import InputError

Device = Annotated[str, typer.Option(help="cpu, or the number of a GPU.")]
Seed = Annotated[int, typer.Option(help="Of every random choice.")]
BatchSize = Annotated[int, typer.Option("--batch", help="Images at a time.")]
Size = Annotated[
    int | None,
    typer.Option(show_default="as trained; 640 or 224", help="Longer side of the images in pixels."),
]
Name = Annotated[str | None, typer.Option(show_default="the model's name", help="Folder of this run.")]
Classes = Annotated[
    str | None, typer.Option(help="Keep these of the model's classes: names or numbers, with commas between.")
]
Resume = Annotated[
    Path | None,
    typer.Option(metavar="RUN", help="Go on with a run that was ended, in its folder; nothing else is given."),
]

# Of ``seqprune prune``.
Data = Annotated[
    str | None,
    typer.Option(
        help="Dataset YAML with labelled train and val images; of classes, a folder with those two; with --trust "
        "package.module:function. fast prunes without.",
        show_default=False,
    ),
]
Preset = Annotated[
    str | None,
    typer.Option(
        show_default="accurate with --target, fast with --criterion, else activation",
        help="accurate: the whole network to a target. fast: the same by the weights alone, without images. "
        "activation: a few layers, front to back, by what their channels do at objects.",
    ),
]
Target = Annotated[
    str | None, typer.Option(help="What stays, with accurate or fast: params=0.8, flops=0.6 or latency=0.7.")
]
Criterion = Annotated[
    str | None, typer.Option(show_default="lamp", help="What scores channels, with fast: lamp, l1, taylor, obs …")
]
Recover = Annotated[
    str | None, typer.Option(show_default="ls with accurate", help="Repairs without training: ls, bias, bn or none.")
]
Moves = Annotated[
    str | None,
    typer.Option(
        metavar="MOVES",
        show_default="channels,factors; with size for latency without --imgsz",
        help="What accurate may do: of channels, factors, blocks, size, with commas.",
    ),
]
Protect = Annotated[list[str] | None, typer.Option(help="Module path to spare; may be repeated.")]
Layers = Annotated[int | None, typer.Option(show_default="3", help="How many layers to choose from the blocks.")]
Blocks = Annotated[str | None, typer.Option(show_default="1-5", help="Blocks to choose from: 1-5 or 1-3,6.")]
OneLayer = Annotated[list[str] | None, typer.Option(help="Name a layer outright; may be repeated.")]
Keep = Annotated[str | None, typer.Option(help="knee, interpolated-knee, or the share of channels that stay.")]
Represent = Annotated[str | None, typer.Option(help="Who stays of a cluster: weight, medoid or gamma.")]
Match = Annotated[str | None, typer.Option(help="Objects that count: once, each or all.")]
RoundTo = Annotated[
    int | None,
    typer.Option(show_default="8 with a ratio or a target, else 1", help="Round channel counts up to a multiple."),
]
Images = Annotated[int | None, typer.Option(show_default="all", help="Look at this many training images.")]
Mode = Annotated[str, typer.Option(help="compact takes channels out, mask zeroes them.")]
CacheBytes = Annotated[
    int, typer.Option(help="Memory for block outputs, so that all layers cost one pass; more goes to disk; 0: off.")
]
CacheHalf = Annotated[bool, typer.Option("--cache-half", help="Keep block outputs in half precision.")]
Amp = Annotated[bool, typer.Option("--amp", help="Observe with automatic mixed precision.")]
Finetune = Annotated[int, typer.Option(metavar="EPOCHS", help="Fine-tune afterwards in the pruned shape.")]
FinetuneStep = Annotated[
    int, typer.Option(metavar="EPOCHS", help="Fine-tune after each pruned layer, before the next is looked at.")
]
Distill = Annotated[bool, typer.Option("--distill", help="The unpruned model is the teacher of the fine-tuning.")]
NoVal = Annotated[bool, typer.Option("--no-val", help="Do not measure accuracy before and after.")]
ValSteps = Annotated[
    bool, typer.Option("--val-steps", help="Measure accuracy after every pruned layer too, with activation.")
]
Project = Annotated[Path, typer.Option(help="Folder of all runs.")]
Runtime = Annotated[str, typer.Option(help="Where time is measured: torch, onnxruntime, openvino, ncnn or tensorrt.")]
Threads = Annotated[
    int | None, typer.Option(show_default="as many as torch uses", help="Of the processor, in every runtime.")
]
Precision = Annotated[str, typer.Option(help="auto: what OpenVINO takes for the fastest on that device; f32: float32.")]
Front = Annotated[
    bool | None,
    typer.Option(
        "--front/--no-front",
        show_default="the two nearest sizes, with a target of time",
        help="Measure the unpruned network on smaller images too, all sizes down to the pruned one's cost.",
    ),
]
Int8 = Annotated[
    bool,
    typer.Option(
        "--int8",
        help="Bring it to eight bits too, by the tool of ONNX Runtime or OpenVINO (nncf); a target of time is that of "
        "the file in them.",
    ),
]
PRECISIONS = ("auto", "f32")


def is_full(precision: str) -> bool:
    """
    Raises:
        InputError: it is none of the precisions.
    """
    if precision not in PRECISIONS:
        raise InputError(f"--precision {precision}: choose {' or '.join(PRECISIONS)}")
    return precision == "f32"
