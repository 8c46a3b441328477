"""Networks and exported files as passes that can be timed, runtime by runtime."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import nn

from seqprune.errors import InputError, ModelError
from seqprune.graph.copying import copied
from seqprune.observe.device import as_device
from seqprune.observe.inputs import Inputs, call, mapped, tensors
from seqprune.plain import json_of, text_of, yaml_of
from seqprune.runtimes.engines import tensorrt_program
from seqprune.runtimes.program import Free, Program, arrays_of, shapes_of
from seqprune.runtimes.where import Where

READS = {
    "torch": ("torchscript",),
    "onnxruntime": ("onnx",),
    "openvino": ("openvino", "onnx"),
    "ncnn": ("ncnn",),
    "tensorrt": ("engine", "onnx"),
}
"""By runtime, kinds of files that it opens; see :func:`kind_of`."""


def kind_of(path: Path) -> str:
    """What a file or folder is, by its name and what lies in it; empty for what no runtime opens."""
    if path.is_dir():
        for ending, kind in ((".xml", "openvino"), (".ncnn.param", "ncnn")):
            if any(file.name.endswith(ending) for file in path.iterdir()):
                return kind
        return ""
    kinds = {".xml": "openvino", ".onnx": "onnx", ".torchscript": "torchscript", ".engine": "engine", ".param": "ncnn"}
    return kinds.get(path.suffix.lower(), "")


def size_of(path: Path) -> int:
    """Bytes of a file, or of all files in a folder."""
    files = [file for file in path.rglob("*") if file.is_file()] if path.is_dir() else [path]
    return sum(file.stat().st_size for file in files)


def opened(network: nn.Module | Path, where: Where, inputs: Inputs | Free) -> Program:
    """A network in a runtime.

    Args:
        network: a module for torch, in inference mode; else a file or folder that the runtime opens.
        where: settled.
        inputs: what it is given in every pass; of a file it may be left to it.

    Raises:
        InputError: the runtime does not open such a file.
        ModelError: the file is damaged, or takes something else.
    """
    if isinstance(network, nn.Module):
        if where.runtime != "torch":
            raise InputError(f"a module runs in torch, not in {where.runtime}: export it first")
        return _module(network, where, inputs)
    kind = kind_of(network)
    if kind not in READS[where.runtime]:
        raise InputError(f"{network}: {where.runtime} opens {' and '.join(READS[where.runtime])}, not this")
    with _named(network, where):
        return _OPEN[where.runtime](network, where, inputs)


@contextmanager
def threads_of(where: Where) -> Iterator[None]:
    """As many threads for torch as are asked for; the others are told when they are opened."""
    before = torch.get_num_threads()
    torch.set_num_threads(where.threads or before)
    try:
        with torch.inference_mode():
            yield
    finally:
        torch.set_num_threads(before)


@contextmanager
def _named(network: Path, where: Where) -> Iterator[None]:
    """
    Raises:
        ModelError: in place of what the runtime raises, each another.
    """
    try:
        yield
    except (RuntimeError, ValueError, OSError, TypeError, KeyError, IndexError) as error:
        said = " ".join(str(error).split())[:300]
        raise ModelError(f"{network}: {where.runtime} does not run it ({said}); export it anew") from error


def _module(network: nn.Module, where: Where, inputs: Inputs) -> Program:
    device = as_device(where.device)
    copy = copied(network).eval().to(device)
    given = mapped(lambda each: each.to(device, copy=True), inputs)

    def run() -> None:
        call(copy, given)
        if device.type == "cuda":
            torch.cuda.synchronize(device)

    precision = str(next((p.dtype for p in copy.parameters()), torch.float32)).removeprefix("torch.")
    return Program(run, tuple(tuple(tensor.shape) for tensor in tensors(given)), precision)


def _torchscript(path: Path, where: Where, inputs: Inputs | Free) -> Program:
    about = {"config.txt": ""}  # Ultralytics' metadata
    module = torch.jit.load(str(path), as_device(where.device), about)  # type: ignore[no-untyped-call]
    found = json_of(about["config.txt"]) if about["config.txt"] else {}
    side, batch = found.get("imgsz", (0, 0)), found.get("batch", 0)
    arrays = arrays_of(inputs, [((batch, found.get("channels", 0), *side), np.float32)])
    return _module(module, where, tuple(torch.from_numpy(array) for array in arrays))


def _onnxruntime(path: Path, where: Where, inputs: Inputs | Free) -> Program:
    import onnxruntime

    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads, options.inter_op_num_threads = where.threads, 1
    options.log_severity_level = 4
    providers: list[Any] = ["CPUExecutionProvider"]
    if not where.on_cpu:
        providers.insert(0, ("CUDAExecutionProvider", {"device_id": where.number}))
        if "CUDAExecutionProvider" not in onnxruntime.get_available_providers():
            raise InputError("this ONNX Runtime has no GPU: pip install onnxruntime-gpu, or leave the device out")
    kinds = {"tensor(float)": np.float32, "tensor(float16)": np.float16, "tensor(double)": np.float64}
    try:
        session = onnxruntime.InferenceSession(str(path), options, providers=providers)
        declared = session.get_inputs()
        arrays = arrays_of(inputs, [(each.shape, kinds.get(each.type, np.int64)) for each in declared])
        feed = dict(zip([each.name for each in declared], arrays, strict=True))
        session.run(None, feed)
    except _failures(onnxruntime) as error:
        raise RuntimeError(str(error)) from error
    precision = "float16" if any(each.type == "tensor(float16)" for each in declared) else "float32"
    return Program(lambda: session.run(None, feed), shapes_of(arrays), precision)


def _failures(onnxruntime: Any) -> tuple[type[Exception], ...]:
    """What it raises: a dozen kinds without a base of their own."""
    kinds = vars(onnxruntime.capi.onnxruntime_pybind11_state).values()
    return tuple(kind for kind in kinds if isinstance(kind, type) and issubclass(kind, Exception))


def _openvino(path: Path, where: Where, inputs: Inputs | Free) -> Program:
    import openvino

    settings: dict[str, Any] = {"PERFORMANCE_HINT": "LATENCY"}  # as Ultralytics opens it
    if where.on_cpu:
        settings["INFERENCE_NUM_THREADS"] = where.threads
    if where.full:
        settings["INFERENCE_PRECISION_HINT"] = "f32"
    file = next(iter(sorted(path.glob("*.xml")))) if path.is_dir() else path
    core = openvino.Core()
    compiled = core.compile_model(core.read_model(file), "CPU" if where.on_cpu else f"GPU.{where.number}", settings)
    declared = [(list(each.partial_shape), each.element_type.to_dtype()) for each in compiled.inputs]
    known = [([int(d.get_length()) if d.is_static else -1 for d in shape], kind) for shape, kind in declared]
    arrays = arrays_of(inputs, known)
    request = compiled.create_infer_request()

    def run() -> Any:
        # As a compiled model is called: what goes in and out is not copied, which a single layer would mostly wait for.
        return request.infer(arrays, share_inputs=True, share_outputs=True)

    run()
    precision = str(compiled.get_property("INFERENCE_PRECISION_HINT")).partition("'")[2].rstrip("'>")
    return Program(run, shapes_of(arrays), precision or "float32")


def _ncnn(path: Path, where: Where, inputs: Inputs | Free) -> Program:
    import ncnn

    file = next(iter(sorted(path.glob("*.param")))) if path.is_dir() else path
    net = ncnn.Net()
    net.opt.num_threads = where.threads
    if net.load_param(str(file)) or net.load_model(str(file.with_suffix(".bin"))):
        raise ValueError("its parameters or weights cannot be read")
    arrays = arrays_of(inputs, [((0, 0, *_side(file)), np.float32)])
    if any(len(array) != 1 for array in arrays):
        raise ValueError("it takes one image at a time")
    names, results = list(net.input_names()), list(net.output_names())
    images = [ncnn.Mat(np.ascontiguousarray(array[0])) for array in arrays]

    def run() -> None:
        extractor = net.create_extractor()
        for name, image in zip(names, images, strict=True):
            extractor.input(name, image)
        for name in results:
            failed, _ = extractor.extract(name)
            if failed:
                raise ValueError(f"its output {name} is not computed")

    run()
    return Program(run, shapes_of(arrays), "float16 where it is faster")


def _side(file: Path) -> tuple[int, int]:
    """Height and width, as Ultralytics' metadata beside a file say; 0 where there are none."""
    about = file.parent / "metadata.yaml"
    found = yaml_of(text_of(about)) if about.exists() else {}
    side = found.get("imgsz") if isinstance(found, dict) else None
    return (int(side[0]), int(side[1])) if isinstance(side, list) and len(side) == 2 else (0, 0)


_OPEN: Mapping[str, Callable[[Path, Where, Inputs | Free], Program]] = {
    "torch": _torchscript,
    "onnxruntime": _onnxruntime,
    "openvino": _openvino,
    "ncnn": _ncnn,
    "tensorrt": tensorrt_program,
}
