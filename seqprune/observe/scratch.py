"""Temporary folders that the next run finds and removes when the process that they belong to was killed.

A process holds a lock in its folder for as long as it lives; the system lets go of it however the process ends. That is
surer than a process's number, which another may have by now, or may have in another container beside this one.
"""

from __future__ import annotations

import os
import shutil
import tempfile
from collections.abc import Callable
from pathlib import Path
from typing import IO

try:
    import fcntl
except ImportError:  # Windows
    fcntl = None  # type: ignore[assignment,unused-ignore]

PREFIX = "seqprune-blocks-"
_LOCK = "in-use"


class Scratch:
    """A folder in the system's temporary folder, gone at the end of the process at the latest."""

    def __init__(self) -> None:
        self._folder = tempfile.TemporaryDirectory(prefix=f"{PREFIX}{os.getpid()}-")
        self.path = Path(self._folder.name)
        # Locked before it has its name, or it would be found unlocked.
        unnamed = self.path / f".{_LOCK}"
        self._lock = unnamed.open("wb")
        if fcntl is not None:
            fcntl.flock(self._lock, fcntl.LOCK_EX)
            unnamed.rename(self.path / _LOCK)

    def remove(self) -> None:
        self._lock.close()
        self._folder.cleanup()


def remove_leftovers(told: Callable[[str], None]) -> None:
    """Removes the folders of this user's processes that were killed, and tells of each what it took; never an error."""
    for folder in sorted(Path(tempfile.gettempdir()).glob(f"{PREFIX}*")):
        if fcntl is None or (lock := _lock_of(folder)) is None:
            continue
        with lock:
            try:
                fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
            except OSError:  # held: its process lives
                continue
            size = sum(file.stat().st_size for file in folder.iterdir())
            shutil.rmtree(folder, ignore_errors=True)
            told(f"removed {folder}, {size:,} bytes that a run which was killed had left")


def _lock_of(folder: Path) -> IO[bytes] | None:
    """The lock in a folder of ours, open; ``None`` where there is none."""
    try:
        if folder.is_symlink() or folder.stat().st_uid != os.getuid():
            return None
        return os.fdopen(os.open(folder / _LOCK, os.O_RDWR | os.O_NOFOLLOW), "rb+")
    except OSError:  # it went meanwhile, or was made by something else
        return None
