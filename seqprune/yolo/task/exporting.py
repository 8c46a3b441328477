"""An Ultralytics network as it is run elsewhere: through Ultralytics' own exporter, or fused, as it predicts."""

from __future__ import annotations

import warnings
from collections.abc import Mapping
from importlib.util import find_spec
from pathlib import Path
from typing import Any

from torch import nn
from ultralytics import YOLO

from seqprune.aside import hushed
from seqprune.errors import ModelError
from seqprune.graph.copying import copied
from seqprune.runtimes.export import FORMATS
from seqprune.yolo.files.contained import contained, one_line
from seqprune.yolo.files.networks import names_of
from seqprune.yolo.files.save import save_pt

NEEDS = {"openvino": ("openvino",), "onnx": ("onnx",), "ncnn": ("ncnn", "pnnx"), "engine": ("tensorrt", "onnx")}
"""By format, packages that its export needs; Ultralytics would install them."""


def runnable(
    model: nn.Module, runtime: str, folder: Path, *, imgsz: int, batch: int = 1, device: str = "cpu"
) -> nn.Module | Path:
    """The network as that runtime runs it.

    Args:
        model: of Ultralytics'; it is copied.
        runtime: see :data:`seqprune.runtimes.where.RUNTIMES`.
        folder: an empty one that exists.
        imgsz: side of the images in pixels, fixed.
        batch: images at a time, fixed.
        device: where an engine is built.

    Returns:
        A module for torch, with its BatchNorm layers fused away; else a file or a folder in ``folder``.

    Raises:
        ModelError: it cannot be exported.
    """
    if runtime == "torch":
        fused = copied(model).float().eval()
        with contained():
            return fused.fuse(verbose=False)  # type: ignore[operator,no-any-return]
    form = FORMATS[runtime]
    if missing := [package for package in NEEDS[form] if find_spec(package) is None]:
        raise ModelError(f"the export for {runtime} needs {missing[0]}: pip install {missing[0]}, or leave it out")
    names: Mapping[int, str] = names_of(model)
    path = save_pt(model, folder / "network.pt", names=names)
    options: dict[str, Any] = {"simplify": find_spec("onnxslim") is not None} if form in ("onnx", "engine") else {}
    try:
        with warnings.catch_warnings(), contained(), hushed():
            warnings.simplefilter("ignore")
            made = YOLO(str(path)).export(
                format=form, imgsz=imgsz, batch=batch, device=device, verbose=False, **options
            )
    except (RuntimeError, TypeError, ValueError, KeyError, OSError, ImportError, AssertionError) as error:
        raise ModelError(f"Ultralytics cannot export this network for {runtime} ({one_line(error)})") from error
    path.unlink()
    return Path(made)


__all__ = ["runnable"]
