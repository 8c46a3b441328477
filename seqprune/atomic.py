"""Files that are there whole or not at all: written under another name beside their place, brought to disk, renamed."""

from __future__ import annotations

import os
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

try:
    import fcntl
except ImportError:  # Windows
    fcntl = None  # type: ignore[assignment,unused-ignore]


@contextmanager
def atomic(path: str | Path) -> Iterator[Path]:
    """A name to write to, in the folder of ``path``, which takes the place of ``path`` at the end of the block.

    A process that dies leaves the old file or the new one and never a part of it; at worst a hidden ``.NAME-….tmp``
    beside it. Where the block fails, ``path`` is as it was and nothing is left.

    Raises:
        OSError: the file cannot be written there.
    """
    path = Path(path)
    handle, name = tempfile.mkstemp(dir=path.parent, prefix=f".{path.name}-", suffix=".tmp")
    os.close(handle)
    temporary = Path(name)
    try:
        yield temporary
        _synced(temporary)
        temporary.chmod(0o666 & ~umask())  # temporary files are private, results are not
        os.replace(temporary, path)
    finally:
        temporary.unlink(missing_ok=True)
    if os.name == "posix":
        _synced(path.parent)  # the new name, too, has to outlive a failure of power


def write_text(path: str | Path, text: str) -> None:
    """``text`` in UTF-8.

    Raises:
        OSError: the file cannot be written there.
    """
    with atomic(path) as temporary:
        temporary.write_text(text, encoding="utf-8")


@contextmanager
def held(path: str | Path) -> Iterator[bool]:
    """Whether this process alone holds a file, for as long as the block lasts.

    The system lets go of it however a process ends. Where it has no such locks, everyone holds it.

    Raises:
        OSError: there is no such file.
    """
    with open(path, "rb") as file:
        if fcntl is not None:
            try:
                fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
            except BlockingIOError:
                yield False
                return
        yield True


def umask() -> int:
    """Permissions that new files do not get."""
    mask = os.umask(0)
    os.umask(mask)
    return mask


def _synced(path: Path) -> None:
    opened = os.open(path, os.O_RDONLY)
    try:
        os.fsync(opened)
    finally:
        os.close(opened)
