"""Options that say what a command opens: a network, how it is built, and its images."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Any

import typer

from seqprune.errors import InputError

OPENED: dict[str, Any] = {"weights": str, "mean": list, "std": list}
"""What a run's folder holds of them."""
Model = Annotated[
    str | None,
    typer.Argument(
        metavar="MODEL",
        help="Weights (.pt), or a model .yaml with random weights; timm:NAME, torchvision:NAME, or, with --trust, "
        "package.module:function.",
    ),
]
Weights = Annotated[
    Path | None,
    typer.Option(metavar="FILE", help="Of a network that is built: .safetensors, or a .pt with tensors by name."),
]
Mean = Annotated[
    str | None, typer.Option(show_default="the network's", help="Of images in a folder, in [0, 1]: 0.5,0.5,0.5.")
]
Std = Annotated[str | None, typer.Option(show_default="the network's", help="The same, what they are divided by.")]
Trust = Annotated[
    bool,
    typer.Option(
        "--trust",
        help="Load a .pt whatever it holds, and call package.module:function; whoever made them put the code there.",
    ),
]


def opening(weights: Path | None, mean: str | None, std: str | None) -> dict[str, Any]:
    """As they are kept in a run's folder.

    Raises:
        InputError: something that is no number.
    """
    return {
        "weights": None if weights is None else str(weights),
        "mean": numbers(mean, "--mean", "0.5,0.5,0.5"),
        "std": numbers(std, "--std", "0.5,0.5,0.5"),
    }


def numbers(text: str | None, option: str, such: str) -> list[float] | None:
    """
    Raises:
        InputError: something that is no number.
    """
    try:
        return None if text is None else [float(part) for part in text.split(",")]
    except ValueError as error:
        raise InputError(f"{option} {text!r}: give numbers with commas between, {such}") from error


def stem_of(model: str) -> str:
    """What a run is called after: the name of a file, or of what builds a network."""
    return Path(model.rpartition(":")[2]).stem or "model"
