"""Networks asked as they are in use, and left as they were."""

from __future__ import annotations

import random
import sys
import warnings
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any

import numpy as np
import torch
from torch import nn
from torch.fx import graph_module


@contextmanager
def inference(model: nn.Module) -> Iterator[None]:
    """In inference mode and without gradients; every module is in its own mode again afterwards."""
    modes = {module: module.training for module in model.modules()}
    try:
        with torch.no_grad():
            model.eval()
            yield
    finally:
        for module, training in modes.items():
            module.training = training


@contextmanager
def drawing(model: nn.Module, seed: int | None = None) -> Iterator[None]:
    """What is drawn at random meanwhile, by torch, NumPy or Python, leaves the caller's generators as they were.

    Args:
        model: says on which devices it draws.
        seed: what it draws from meanwhile; as it would have drawn where left out.
    """
    devices = {parameter.device for parameter in model.parameters() if parameter.is_cuda}
    states = random.getstate(), np.random.get_state()  # noqa: NPY002 - what a network's code may draw from
    try:
        with torch.random.fork_rng(devices=devices):
            if seed is not None:
                begin_drawing(seed)
            yield
    finally:
        random.setstate(states[0])
        np.random.set_state(states[1])  # noqa: NPY002


def begin_drawing(seed: int) -> None:
    """Sets what a network's code may draw from."""
    torch.manual_seed(seed)
    random.seed(seed)
    np.random.seed(seed % 2**32)  # noqa: NPY002


def drawn_so_far(model: nn.Module) -> tuple[object, ...]:
    """What changes where something is drawn meanwhile."""
    devices = sorted({str(parameter.device) for parameter in model.parameters() if parameter.is_cuda})
    states = [torch.get_rng_state(), *map(torch.cuda.get_rng_state, devices)]
    _, numbers, *at = np.random.get_state()  # noqa: NPY002
    return random.getstate(), np.asarray(numbers).tobytes(), at, [state.numpy().tobytes() for state in states]


@contextmanager
def as_exported() -> Iterator[None]:
    """Code that asks whether it is traced, or exported to ONNX, is told so meanwhile; its numbers stay numbers."""
    onnx = sys.modules.get("torch.onnx")
    asked = [(torch._C, "_is_tracing"), *([] if onnx is None else [(onnx, "is_in_onnx_export")])]
    with _replaced(asked, lambda: True):
        yield


@contextmanager
def as_compiled(answer: bool = True) -> Iterator[list[bool]]:
    """Code that asks torch.compiler whether it is compiled is told ``answer`` meanwhile; yields the answers given."""
    given: list[bool] = []

    def told() -> bool:
        given.append(answer)
        return answer

    names = ("is_compiling", "is_dynamo_compiling", "is_exporting")
    with _replaced([(torch.compiler, name) for name in names if hasattr(torch.compiler, name)], told):
        yield given


@contextmanager
def _replaced(functions: list[tuple[Any, str]], by: Callable[[], bool]) -> Iterator[None]:
    before = [getattr(module, name) for module, name in functions]
    try:
        for module, name in functions:
            setattr(module, name, by)
        yield
    finally:
        for (module, name), function in zip(functions, before, strict=True):
            setattr(module, name, function)


@contextmanager
def uncompiled() -> Iterator[None]:
    """What ``torch.compile`` made runs as plain Python meanwhile.

    A compiler that meets hooks and watches compiles them too, anew for each, without an end in sight. Torch has this
    from 2.6 on; where its compiler was never imported nothing is compiled.
    """
    stance = getattr(torch.compiler, "set_stance", None)
    if stance is None or "torch._dynamo" not in sys.modules:
        yield
        return
    with stance("force_eager"), warnings.catch_warnings():
        # That hooks on all modules see the compiled one as well: they look for layers, which it is not.
        warnings.filterwarnings("ignore", r"Using `torch\.compile", UserWarning)
        yield


@contextmanager
def untold() -> Iterator[None]:
    """Hides what torch.fx prints of a network that fails, a traceback: it is tried on what it need not take."""
    prints = vars(graph_module)
    known = "print" in prints
    prints.setdefault("print", lambda *_args, **_names: None)
    try:
        yield
    finally:
        if not known:
            del prints["print"]
