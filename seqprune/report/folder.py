"""The folder a run's results go into: chosen before the work, and taken by it."""

from __future__ import annotations

import os
from itertools import count
from pathlib import Path

from seqprune.errors import InputError


def free_folder(project: Path, name: str | None, stem: str) -> Path:
    """Where the results of a run may go; nothing is made yet.

    Args:
        project: the folder of all runs; made later where it is missing.
        name: the run's folder in it; without one, the first of ``stem``, ``stem-2``, … that is free.
        stem: what an unnamed run is called after.

    Raises:
        InputError: the named folder exists, the name is a path, or ``project`` cannot be written to.
    """
    if name is not None and (name in ("", ".", "..") or Path(name).name != name):
        raise InputError(f"--name {name!r} is no folder name: give one without slashes, the rest as --project")
    if name is not None and os.path.lexists(project / name):
        raise InputError(f"{project / name} exists and is left as it is: give another --name")
    there = next(folder for folder in (project, *project.absolute().parents) if os.path.lexists(folder))
    if not there.is_dir() or not os.access(there, os.W_OK | os.X_OK):
        raise InputError(f"{project}: {there} is no folder that can be written to; give another --project")
    return project / name if name is not None else _next_free(project, stem)


def claimed(target: Path) -> Path:
    """Makes a new folder for a run: ``target``, or, where something took that name meanwhile, the next free one.

    Raises:
        InputError: it cannot be made.
    """
    try:
        target.parent.mkdir(parents=True, exist_ok=True)
        while True:
            free = target if not os.path.lexists(target) else _next_free(target.parent, target.name)
            try:
                free.mkdir()
            except FileExistsError:
                continue
            return free
    except OSError as error:
        raise InputError(f"{target} cannot be made ({error}): give another --project") from error


def _next_free(project: Path, stem: str) -> Path:
    names = (stem if number == 1 else f"{stem}-{number}" for number in count(1))
    return next(project / name for name in names if not os.path.lexists(project / name))
