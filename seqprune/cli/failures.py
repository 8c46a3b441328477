"""What a machine fails at, said on one line: its memory, its disk, a process that somebody else ended."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager

from seqprune.errors import InputError, SeqPruneError

_MEMORY = (
    "allocate memory",
    "out of memory",
    "insufficient memory",
    "start new thread",
    "could not create a",
    "could not execute a primitive",
    "bad_alloc",
)
_PACKAGES = {"PIL": "pillow", "cv2": "opencv-python", "sklearn": "scikit-learn", "yaml": "pyyaml"}
"""Those that are called otherwise than what is imported."""
_WORKER = ("DataLoader worker", "process pool")


@contextmanager
def said() -> Iterator[None]:
    """
    Raises:
        SeqPruneError: instead of what was no mistake of ours; a bug stays as it is.
        InputError: a package that is needed is not installed.
    """
    try:
        yield
    except ModuleNotFoundError as error:
        name = (error.name or "seqprune").partition(".")[0]
        if name == "seqprune":
            raise
        raise InputError(f"{name} is needed here and not installed: pip install {_PACKAGES.get(name, name)}") from error
    except (OSError, MemoryError, RuntimeError) as error:
        if not (reason := why_failed(error)):
            raise
        raise SeqPruneError(reason) from error


def why_failed(error: OSError | MemoryError | RuntimeError) -> str:
    """What happened and what to do; empty where it was nothing of that kind."""
    text = " ".join(str(error).split())[:300]
    if isinstance(error, MemoryError) or any(words in text.lower() for words in _MEMORY):
        return f"memory ran out ({text or type(error).__name__}): give a smaller --batch or --imgsz, or more memory"
    if isinstance(error, OSError):
        return f"a file cannot be read or written ({text}): check the disk, and whether the data are still there"
    if any(words in text for words in _WORKER):
        return f"a process that reads images died ({text}): most often memory ran out; give a smaller --batch"
    if "PytorchStreamWriter" in text or "inline_container" in text:  # how torch words a full disk
        return f"a file cannot be written ({text}): make room on its disk"
    return ""
