"""Networks asked as they are in use, and left as they were."""

from __future__ import annotations

import sys
import warnings
from collections.abc import Iterator
from contextlib import contextmanager

import torch
from torch import nn


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
