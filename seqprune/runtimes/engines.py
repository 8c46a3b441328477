"""Engines of TensorRT, and ONNX files built to them."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import torch

from seqprune.observe.device import as_device
from seqprune.observe.inputs import Inputs
from seqprune.runtimes.program import Free, Program, arrays_of, shapes_of
from seqprune.runtimes.where import Where


def tensorrt_program(path: Path, where: Where, inputs: Inputs | Free) -> Program:
    import tensorrt

    device = as_device(where.device)
    logger = tensorrt.Logger(tensorrt.Logger.ERROR)
    with torch.cuda.device(device):
        plan: Any = _planned(tensorrt, logger, path) if path.suffix == ".onnx" else _plan_in(path.read_bytes())
        engine = tensorrt.Runtime(logger).deserialize_cuda_engine(plan)
        if engine is None:
            raise ValueError("it was built by another version, or for another GPU")
        context, stream = engine.create_execution_context(), torch.cuda.current_stream(device)
        names = [engine.get_tensor_name(number) for number in range(engine.num_io_tensors)]
        inward = [name for name in names if engine.get_tensor_mode(name) == tensorrt.TensorIOMode.INPUT]
        types = {name: tensorrt.nptype(engine.get_tensor_dtype(name)) for name in names}
        arrays = arrays_of(inputs, [(tuple(engine.get_tensor_shape(name)), types[name]) for name in inward])
        held = {name: torch.from_numpy(array).to(device) for name, array in zip(inward, arrays, strict=True)}
        for name in inward:
            context.set_input_shape(name, tuple(held[name].shape))
        for name in (name for name in names if name not in held):
            kind = torch.from_numpy(np.empty(0, types[name])).dtype
            held[name] = torch.empty(tuple(context.get_tensor_shape(name)), dtype=kind, device=device)
        for name, tensor in held.items():
            context.set_tensor_address(name, tensor.data_ptr())

    def run() -> dict[str, torch.Tensor]:
        context.execute_async_v3(stream.cuda_stream)
        stream.synchronize()
        return held  # their memory is what it works on

    return Program(run, shapes_of(arrays))


def _plan_in(data: bytes) -> bytes:
    """What TensorRT wrote, of a file that may begin with Ultralytics' metadata: their length, and JSON."""
    length = int.from_bytes(data[:4], "little")
    return data[4 + length :] if data[4:5] == b"{" and 4 + length < len(data) else data


def _planned(tensorrt: Any, logger: Any, path: Path) -> Any:
    builder = tensorrt.Builder(logger)
    network = builder.create_network(0)
    parser = tensorrt.OnnxParser(network, logger)
    if not parser.parse(path.read_bytes()):
        raise ValueError(str(parser.get_error(0)))
    plan = builder.build_serialized_network(network, builder.create_builder_config())
    if plan is None:
        raise ValueError("TensorRT builds no engine of it")
    return plan
