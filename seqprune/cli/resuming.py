"""Folders of runs that can be resumed: what was asked for lies in them, and what refuses its input leaves none."""

from __future__ import annotations

import json
import os
import shutil
from collections.abc import Iterator, Mapping
from contextlib import contextmanager, nullcontext
from pathlib import Path
from typing import Any

from seqprune.atomic import held, write_text
from seqprune.cli.failures import said
from seqprune.cli.interrupts import Interrupted, Stopped, interruptible
from seqprune.cli.opening import OPENED
from seqprune.errors import InputError, LostError, SeqPruneError
from seqprune.plain import UnreadableError, json_of, text_of

RUN = "run.json"
"""In an unfinished run's folder: what was asked for."""
_NOTES = {"settings.json", "network.json", "images.json"}
"""Of a run's state, what it was begun with: no finding."""


@contextmanager
def new_run(target: Path, asked: Mapping[str, Any]) -> Iterator[Path]:
    """A new folder for a run, with what was asked for in it.

    It is gone again, with the folders above it that were made for it, where the input was refused before there was a
    result, or where the work failed before anything was found.

    Args:
        target: see :func:`seqprune.report.folder.free_folder`.
        asked: what :func:`asked_of` reads again.
    """
    from seqprune.report.folder import claimed

    made = [folder for folder in target.absolute().parents if not os.path.lexists(folder)]
    folder = claimed(target)
    write_text(folder / RUN, json.dumps(dict(asked), indent=2) + "\n")
    refused, failed = False, True
    try:
        yield folder
        failed = False
    except (Interrupted, Stopped, LostError):
        failed = False
        raise
    except InputError:
        refused = True
        raise
    finally:
        if _is_bare(folder, but_for_state=refused) and failed:
            _remove(folder, made)


@contextmanager
def resumable(command: str, folder: Path | None) -> Iterator[None]:
    """Work in a run's folder: what it fails at and what interrupts it is said together with how to go on.

    Raises:
        SeqPruneError: the work failed, or another process is at it.
    """
    how = "" if folder is None else f"`seqprune {command} --resume {folder}` goes on from here"
    with interruptible(how):
        try:
            with said(), nullcontext(True) if folder is None else held(folder / RUN) as alone:
                if not alone:
                    raise InputError(f"{folder}: another process works in it; wait until it ends, or end it")
                yield
                if folder is not None:
                    (folder / RUN).unlink()  # it is finished
        except SeqPruneError as error:
            if (not isinstance(error, InputError) or isinstance(error, LostError)) and folder and not _is_bare(folder):
                error.args = (f"{error}; {how}",)
            raise


def asked_of(folder: Path, known: Mapping[str, Any], command: str) -> dict[str, Any]:
    """What a run was asked for, as its folder says.

    Args:
        folder: the run's.
        known: by name of an argument, its type or types; ``model`` among them.
        command: that wrote it.

    Raises:
        InputError: it is no run's folder, or says something that no run is asked for.
    """
    path = folder / RUN
    results = sorted(each.name for each in folder.glob("*.[hjm]*") if each.suffix in (".html", ".json", ".md"))
    if results and not path.exists():
        raise InputError(f"{folder}: this run is finished, nothing is left to resume; see {', '.join(results)}")
    try:
        found = json_of(text_of(path))
    except UnreadableError as error:
        raise InputError(f"{path}: {error}; give the folder of an unfinished run of `seqprune {command}`") from error
    if isinstance(found, dict):  # runs that were begun before these could be asked for go on
        later = dict.fromkeys(OPENED) | {"val_steps": False}
        found = {name: value for name, value in later.items() if name in known} | found
    if not isinstance(found, dict) or set(found) != set(known) or not isinstance(found["model"], str):
        raise InputError(f"{path} is none that `seqprune {command}` wrote: give the folder of a run of it")
    for name, value in found.items():
        if value is not None and not isinstance(value, known[name]):
            raise InputError(f"{path}: {name} is a {type(value).__name__}, as no run has it: begin anew")
    return found


def alone(model: str | None, data: str | None) -> None:
    """
    Raises:
        InputError: something is given beside ``--resume``.
    """
    if model is not None or data is not None:
        raise InputError("--resume goes on with its run's model, data and settings: leave them out")


def absolute(asked: Mapping[str, Any]) -> dict[str, Any]:
    """The same with paths that mean the same from another folder."""
    given = {name: asked.get(name) for name in ("model", "data", "weights")}
    paths = {name: path for name, path in given.items() if path and os.path.exists(path)}
    return dict(asked) | {name: str(Path(path).absolute()) for name, path in paths.items()}


def _is_bare(folder: Path, but_for_state: bool = False) -> bool:
    """Whether nothing was found there yet; ``but_for_state``, nothing that is a result."""
    files = [path for path in folder.rglob("*") if path.is_file() and path.name != RUN]
    return all(path.parent.name == "state" and (but_for_state or path.name in _NOTES) for path in files)


def _remove(folder: Path, made: list[Path]) -> None:
    shutil.rmtree(folder, ignore_errors=True)
    for above in made:  # the nearest first
        try:
            above.rmdir()
        except OSError:
            return  # something else was put there meanwhile
