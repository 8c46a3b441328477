"""The teacher of a fine-tuning: read as data, and held against the network that is to learn from it.

Ultralytics' ``distill_model`` compares what the two feed their detection heads, level by level, each level of the
student brought to the teacher's width by a projector of its own; so widths may differ, levels may not. It would read
the teacher's file by itself, whatever the file holds: here it is read first, and handed over in its place.
"""

from __future__ import annotations

from collections.abc import Callable
from contextlib import AbstractContextManager
from pathlib import Path
from typing import Any

import ultralytics
from torch import nn
from ultralytics.nn.modules import Detect
from ultralytics.utils import DEFAULT_CFG_DICT

from seqprune.errors import InputError
from seqprune.yolo.files.contained import replaced
from seqprune.yolo.files.load import load
from seqprune.yolo.files.networks import distilling

SINCE = "8.4.77"
"""The release of Ultralytics that brought ``distill_model``."""


def check_student(student: nn.Module) -> None:
    """Raise InputError where this Ultralytics cannot teach, or this network cannot be taught."""
    if "distill_model" not in DEFAULT_CFG_DICT:
        raise InputError(
            f"Ultralytics {ultralytics.__version__} has no distillation, which came with {SINCE}: "
            f"pip install 'ultralytics>={SINCE}', or leave the teacher out"
        )
    if not any(isinstance(module, Detect) for module in student.modules()):
        raise InputError(
            f"this network for {getattr(student, 'task', 'detect')} has no detection head, before which teacher and "
            "student are compared; leave the teacher out"
        )


def load_teacher(source: str | Path, student: Any, *, trust: bool = False) -> nn.Module:
    """The teacher for a network: for the same task, classes and strides, of any widths, pruned or masked itself.

    Args:
        source: What :func:`seqprune.yolo.files.load.load` takes for trained weights.
        student: The network that learns, of Ultralytics'.
        trust: Read a ``.pt`` whatever it holds.

    Raises:
        InputError: ``source`` cannot be loaded or cannot teach this network, or nothing can.
    """
    check_student(student)
    loaded = load(source, tasks=(getattr(student, "task", "detect"),), trust=trust)
    teacher: Any = loaded.model
    check_student(teacher)
    if loaded.checkpoint is None:
        raise InputError(f"{source}: has no trained weights to teach; give the .pt of the unpruned network")
    mine, theirs = _names(student), _names(teacher)
    # A name may have been spelt anew since; where none is the same, or one is missing, it is another detector.
    if len(mine) != len(theirs) or not set(mine) & set(theirs):
        raise InputError(
            f"{source}: was trained on other classes ({_some(theirs)}) than the network ({_some(mine)}); give the "
            "unpruned network as the teacher"
        )
    if _seen(teacher) != _seen(student):
        raise InputError(f"{source}: has {_seen(teacher)}, the network {_seen(student)}; give one of its family")
    return teacher  # type: ignore[no-any-return]


def handed_over(teacher: Callable[[], nn.Module | None]) -> AbstractContextManager[None]:
    """Let Ultralytics have this teacher, for a while, where it would read one from a file."""
    return replaced(distilling, "load_checkpoint", lambda *_: (teacher(), None))


def _names(network: Any) -> list[str]:
    return list(network.names.values() if isinstance(network.names, dict) else network.names)


def _seen(network: Any) -> str:
    """What the levels of two networks have to agree in."""
    strides = ", ".join(f"{stride:g}" for stride in network.stride.tolist())
    return f"strides {strides} and {network.yaml.get('channels', 3)} input channels"


def _some(names: list[str]) -> str:
    return ", ".join(names[:3]) + (f" and {len(names) - 3} more" if len(names) > 3 else "")
