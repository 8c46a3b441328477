"""Networks of Ultralytics' as they run elsewhere: exported by Ultralytics itself, run by the runtime itself."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import nn
from ultralytics import YOLO

from seqprune.errors import InputError, ModelError
from seqprune.yolo.files.contained import contained, one_line
from seqprune.yolo.files.networks import names_of
from seqprune.yolo.files.save import save_pt

Runner = Callable[[torch.Tensor], torch.Tensor]


def exported(network: nn.Module, runtime: str, imgsz: int, folder: Path) -> Runner:
    """A function from an image ``[1, channels, imgsz, imgsz]`` in float32 to the network's first output, in a runtime.

    Args:
        network: one of Ultralytics'; copied.
        runtime: of :data:`RUNTIMES`; ``torch`` runs it as it is.
        imgsz: side in pixels that it is exported for.
        folder: an existing one, where the files are.

    Raises:
        InputError: there is no such runtime, or it is not installed.
        ModelError: it cannot be exported.
    """
    if runtime not in RUNTIMES:
        raise InputError(f"there is no runtime {runtime!r}: choose {', '.join(RUNTIMES)}")
    name, start = RUNTIMES[runtime]
    if not name:
        return start(network)
    path = save_pt(network.float().eval(), folder / f"{runtime}.pt", names=names_of(network), half=False)
    options = {"simplify": False, "opset": 17} if name == "onnx" else {}
    try:
        with contained():
            made = YOLO(str(path)).export(format=name, imgsz=imgsz, device="cpu", verbose=False, **options)
        return start(Path(made))
    except ImportError as error:
        raise InputError(f"{runtime} is missing ({one_line(error)}): pip install 'seqprune[export]'") from error
    except (RuntimeError, ValueError, TypeError, AttributeError, OSError, AssertionError) as error:
        raise ModelError(f"Ultralytics does not export this network to {name} ({one_line(error)})") from error


def _torch(network: Any) -> Runner:
    model = network.float().eval()

    def run(image: torch.Tensor) -> torch.Tensor:
        with torch.inference_mode():
            return _first(model(image))

    return run


def _torchscript(path: Path) -> Runner:
    model = torch.jit.load(str(path))  # type: ignore[no-untyped-call]

    def run(image: torch.Tensor) -> torch.Tensor:
        with torch.inference_mode():
            return _first(model(image))

    return run


def _onnx(path: Path) -> Runner:
    import onnxruntime

    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads = torch.get_num_threads()
    session = onnxruntime.InferenceSession(str(path), options, providers=["CPUExecutionProvider"])
    name = session.get_inputs()[0].name
    return lambda image: torch.from_numpy(np.asarray(session.run(None, {name: image.numpy()})[0]))


def _openvino(path: Path) -> Runner:
    import openvino

    precise = {"INFERENCE_PRECISION_HINT": "f32", "INFERENCE_NUM_THREADS": str(torch.get_num_threads())}
    compiled = openvino.Core().compile_model(next(path.glob("*.xml")), "CPU", precise)
    return lambda image: torch.from_numpy(np.array(compiled(image.numpy())[0]))


def _first(out: Any) -> torch.Tensor:
    while not isinstance(out, torch.Tensor):
        out = out[0]
    return out


RUNTIMES: dict[str, tuple[str, Callable[..., Runner]]] = {
    "torch": ("", _torch),
    "torchscript": ("torchscript", _torchscript),
    "onnxruntime": ("onnx", _onnx),
    "openvino": ("openvino", _openvino),
}
"""By name, Ultralytics' format and how it is started."""
