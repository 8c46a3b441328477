"""What Ultralytics changes in the whole process, put back.

Its constructor of networks leaves an environment variable and, before 8.4.190, the activation that all later networks
get (after ``yolov6n.yaml``, ReLU); its devices set torch's threads, its trainer seeds every generator and switches
deterministic algorithms on. Whoever calls us keeps their own.
"""

from __future__ import annotations

import os
import random
import warnings
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from typing import Any

import numpy as np
import torch
from torch import nn


@contextmanager
def unchanged() -> Iterator[None]:
    """Put back at the end: activations of layers, torch's switches, random states, environment and warning filters.

    Networks are built with Ultralytics' own activation (SiLU) meanwhile, whatever an older release left behind of a
    network before. The state is global, so this is not for concurrent threads.
    """
    with ExitStack() as stack:
        stack.enter_context(warnings.catch_warnings())
        stack.callback(_restore_environment, dict(os.environ))
        stack.callback(_restore_switches, _switches())
        stack.enter_context(_random_state())
        for kind in _with_activation():
            stack.callback(setattr, kind, "default_act", kind.default_act)
            kind.default_act = nn.SiLU()
        yield


def _with_activation() -> list[Any]:
    """Classes of layers that hold the activation of those to come."""
    from ultralytics.nn.modules import conv

    return [kind for kind in vars(conv).values() if isinstance(kind, type) and "default_act" in vars(kind)]


def _restore_environment(before: dict[str, str]) -> None:
    for name in os.environ.keys() - before.keys():
        del os.environ[name]
    for name, value in before.items():
        if os.environ.get(name) != value:
            os.environ[name] = value


def _switches() -> dict[str, Any]:
    return {
        "threads": torch.get_num_threads(),
        "type": torch.get_default_dtype(),
        "matmul": torch.get_float32_matmul_precision(),
        "deterministic": torch.are_deterministic_algorithms_enabled(),
        "warn_only": torch.is_deterministic_algorithms_warn_only_enabled(),
        "fill": torch.utils.deterministic.fill_uninitialized_memory,  # type: ignore[attr-defined]
        "cudnn": (torch.backends.cudnn.deterministic, torch.backends.cudnn.benchmark),
        "device": torch.cuda.current_device() if _uses_gpus() else None,
    }


def _uses_gpus() -> bool:
    return bool(torch.cuda.is_initialized())  # type: ignore[no-untyped-call]


def _restore_switches(before: dict[str, Any]) -> None:
    now = _switches()
    if now["threads"] != before["threads"]:
        torch.set_num_threads(before["threads"])
    if now["matmul"] != before["matmul"]:
        torch.set_float32_matmul_precision(before["matmul"])
    torch.set_default_dtype(before["type"])
    torch.use_deterministic_algorithms(before["deterministic"], warn_only=before["warn_only"])
    torch.utils.deterministic.fill_uninitialized_memory = before["fill"]  # type: ignore[attr-defined]
    torch.backends.cudnn.deterministic, torch.backends.cudnn.benchmark = before["cudnn"]
    if before["device"] is not None and now["device"] != before["device"]:
        torch.cuda.set_device(before["device"])


@contextmanager
def _random_state() -> Iterator[None]:
    """Put the random generators back; those of GPUs where they were in use."""
    plain, array = random.getstate(), np.random.get_state()  # noqa: NPY002 - the one that Ultralytics seeds
    gpus = range(torch.cuda.device_count()) if _uses_gpus() else ()
    with torch.random.fork_rng(devices=list(gpus)):
        try:
            yield
        finally:
            random.setstate(plain)
            np.random.set_state(array)  # noqa: NPY002
