"""``seqprune prune``: arguments in, a folder of results out."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Any

import typer

from seqprune.cli.benching import Precision, Threads, is_full
from seqprune.cli.commands import Trust
from seqprune.cli.console import conclude, is_follower, screen_for
from seqprune.cli.resuming import absolute, alone, asked_of, new_run, resumable
from seqprune.errors import InputError, MeasurementError, TrainingError

ASKED: dict[str, Any] = {
    **{"model": str, "data": str, "preset": str, "target": str, "criterion": str, "recover": str, "represent": str},
    **{"match": str, "mode": str, "device": str, "protect": list, "by": list, "layers": (int, list), "blocks": list},
    **{"keep": (str, float, int), "round_to": int, "images": int, "imgsz": int, "batch": int, "cache_bytes": int},
    **{"cache_half": bool, "amp": bool, "finetune": int, "finetune_step": int, "distill": bool, "seed": int},
    **{"val": bool, "classes": list, "runtime": str, "threads": int, "full": bool, "front": bool},
    "int8": bool,
}


def prune(
    model: Annotated[
        str | None, typer.Argument(metavar="MODEL", help="Weights (.pt), or a model .yaml with random weights.")
    ] = None,
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
    by: Annotated[
        str, typer.Option(metavar="MOVES", help="What accurate may do: of channels, factors, size, with commas.")
    ] = "channels",
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
    runtime: Annotated[
        str, typer.Option(help="Where time is measured: torch, onnxruntime, openvino, ncnn or tensorrt.")
    ] = "torch",
    threads: Threads = None,
    precision: Precision = "auto",
    front: Annotated[
        bool | None,
        typer.Option(
            "--front/--no-front",
            show_default="the two nearest sizes, with a target of time",
            help="Measure the unpruned network on smaller images too, all sizes down to the pruned one's cost.",
        ),
    ] = None,
    int8: Annotated[
        bool, typer.Option("--int8", help="Bring it to eight bits too, by the tool of ONNX Runtime or OpenVINO (nncf).")
    ] = False,
    no_val: Annotated[bool, typer.Option("--no-val", help="Do not measure accuracy before and after.")] = False,
    classes: Annotated[
        str | None, typer.Option(help="Keep these of the model's classes: names or numbers, with commas between.")
    ] = None,
    project: Annotated[Path, typer.Option(help="Folder of all runs.")] = Path("runs/prune"),
    name: Annotated[str | None, typer.Option(show_default="the model's name", help="Folder of this run.")] = None,
    resume: Annotated[
        Path | None,
        typer.Option(metavar="RUN", help="Go on with a run that was killed, in its folder: nothing else is given."),
    ] = None,
    trust: Trust = False,
) -> None:
    """Prune a trained network front to back, prove the result, and measure it."""
    from seqprune.select.layers import parse_blocks

    if layer and (layers is not None or blocks is not None):
        raise InputError("--layer names the layers outright: leave out --layers and --blocks, or --layer")
    if resume is not None:
        alone(model, data)
        _run(asked_of(resume, ASKED, "prune"), resume, trust)
        return
    if model is None:
        raise InputError("MODEL is missing: give weights (.pt), or --resume RUN; see `seqprune prune --help`")
    asked = {
        **{"model": model, "data": data, "preset": preset, "target": target, "criterion": criterion},
        **{
            "recover": recover,
            "by": [move.strip() for move in by.split(",")],
            "protect": protect or [],
            "layers": layer or layers,
            "keep": ratio(keep),
        },
        **{"by": [move.strip() for move in by.split(",")]},
        **{"blocks": None if blocks is None else list(parse_blocks(blocks)), "represent": represent, "match": match},
        **{"round_to": round_to, "images": images, "imgsz": imgsz, "batch": batch, "device": device, "mode": mode},
        **{"cache_bytes": cache_bytes, "cache_half": cache_half, "amp": amp, "finetune": finetune},
        **{"finetune_step": finetune_step, "distill": distill, "seed": seed, "val": not no_val},
        **{"runtime": runtime, "threads": threads, "full": is_full(precision), "front": front},
        "int8": int8,
        "classes": None if classes is None else classes.split(","),
    }
    if is_follower():
        _run(asked, None, trust)
        return
    from seqprune.report.folder import free_folder

    with new_run(free_folder(project, name, Path(model).stem or "model"), absolute(asked)) as folder:
        _run(asked, folder, trust)


def _run(asked: dict[str, Any], folder: Path | None, trust: bool) -> None:
    """
    Raises:
        TrainingError, MeasurementError: what was done is saved and said; the work as a whole failed.
    """
    from seqprune import run
    from seqprune.report.result import FILES, PruneResult

    failure: TrainingError | MeasurementError | None = None
    with screen_for(folder is None) as screen, resumable("prune", folder):
        try:
            result = run.prune(**asked, folder=folder, trust=trust, listener=screen.listener)
        except (TrainingError, MeasurementError) as error:
            if not isinstance(error.result, PruneResult):
                raise
            result, failure = error.result, error
        if folder is not None:
            conclude(screen.console, result)
            screen.console.print(f"results in {folder}: {', '.join(FILES)}", markup=False)
        if failure is not None:
            raise failure


def ratio(keep: str | None) -> str | float | None:
    """A share as a number; a word stays: the engine knows which there are."""
    try:
        return keep if keep is None else float(keep)
    except ValueError:
        return keep
