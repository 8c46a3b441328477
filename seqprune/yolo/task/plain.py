"""What plain Ultralytics makes of a file, seqprune's reader left out."""

from __future__ import annotations

from pathlib import Path
from typing import cast

from torch import nn
from ultralytics import YOLO

from seqprune.yolo.files.contained import contained


def opened(path: Path) -> nn.Module:
    """The network in a checkpoint of one's own, as ``ultralytics.YOLO`` reads it: a pickle, so none of a stranger's."""
    with contained():
        return cast(nn.Module, YOLO(str(path)).model)
