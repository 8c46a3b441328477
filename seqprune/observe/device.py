"""Where to run."""

from __future__ import annotations

import torch

from seqprune.errors import InputError


def as_device(device: str | torch.device) -> torch.device:
    """A torch device from a name such as ``cpu``, ``cuda:0`` or Ultralytics' plain ``0``.

    Raises:
        InputError: There is no such device here.
    """
    name = str(device)
    try:
        found = torch.device(f"cuda:{name}" if name.isdigit() else name)
    except RuntimeError as error:
        raise InputError(f"device={name}: no such device; name one, such as cpu or cuda:0") from error
    if found.type == "cuda" and (found.index or 0) >= torch.cuda.device_count():
        raise InputError(f"device={name}: {torch.cuda.device_count()} CUDA devices are visible here; use cpu")
    return found
