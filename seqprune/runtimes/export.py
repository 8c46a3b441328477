"""A module as a file that a runtime opens."""

from __future__ import annotations

import warnings
from pathlib import Path

import torch
from torch import nn

from seqprune.aside import hushed
from seqprune.errors import ModelError
from seqprune.graph.copying import copied
from seqprune.observe.inputs import Inputs, mapped

OPSET = 17
FORMATS = {"onnxruntime": "onnx", "openvino": "openvino", "ncnn": "ncnn", "tensorrt": "engine"}
"""By runtime, what Ultralytics calls the format that it opens."""


def exported(model: nn.Module, inputs: Inputs, runtime: str, folder: Path) -> Path:
    """Writes a module into a folder, through torch's own exporter.

    Args:
        model: any module, on the CPU; it is copied.
        inputs: what it takes.
        runtime: any but torch.
        folder: an empty one that exists.

    Raises:
        ModelError: it cannot be exported.
    """
    if runtime == "ncnn":
        return _ncnn(model, inputs, folder)
    return to_onnx(model, inputs, folder / "model.onnx")


def to_onnx(model: nn.Module, inputs: Inputs, path: Path) -> Path:
    """
    Raises:
        ModelError: it cannot be exported.
    """
    given = inputs if isinstance(inputs, tuple) else (inputs,)
    try:
        with warnings.catch_warnings(), torch.no_grad():
            warnings.simplefilter("ignore")
            torch.onnx.export(
                copied(model).eval(), mapped(torch.clone, given), str(path), opset_version=OPSET, dynamo=False
            )
    except (RuntimeError, TypeError, ValueError, AttributeError, ImportError) as error:
        said = " ".join(str(error).split())[:300]
        raise ModelError(f"{type(model).__name__} cannot be exported to ONNX ({said}); time it in torch") from error
    return path


def _ncnn(model: nn.Module, inputs: Inputs, folder: Path) -> Path:
    """
    Raises:
        ModelError: pnnx is not installed, or does not know an operator.
    """
    try:
        import pnnx
    except ImportError as error:
        raise ModelError("networks become NCNN's by pnnx: pip install pnnx, or leave that runtime out") from error
    given = inputs if isinstance(inputs, tuple) else (inputs,)
    try:
        with warnings.catch_warnings(), hushed():
            warnings.simplefilter("ignore")
            pnnx.export(copied(model).eval(), str(folder / "model.pt"), mapped(torch.clone, given), fp16=False)
    except SyntaxError:
        pass  # of the program in Python that it writes beside, which nobody needs
    except (RuntimeError, TypeError, ValueError, OSError) as error:
        said = " ".join(str(error).split())[:300]
        raise ModelError(f"{type(model).__name__} cannot be made NCNN's ({said}); leave that runtime out") from error
    if not (folder / "model.ncnn.param").exists():
        raise ModelError(f"{type(model).__name__} holds an operator that pnnx does not know; leave that runtime out")
    return folder
