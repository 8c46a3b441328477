"""What a run has found so far, in its folder: a run that was killed goes on from there, to the same bits.

Every finding is one file, there whole or not at all: numbers and words as JSON, tensors as safetensors. Nothing in them
is run. Without a folder nothing is kept.
"""

from __future__ import annotations

import json
import math
import shutil
import time
from collections.abc import Callable, Mapping
from contextlib import suppress
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, TypeVar

import torch
from safetensors import SafetensorError, safe_open
from safetensors.torch import save_file
from torch import nn

from seqprune.atomic import atomic, write_text
from seqprune.errors import InputError, SeqPruneError
from seqprune.plain import UnreadableError, json_of, text_of

T = TypeVar("T")
Tensors = Mapping[str, torch.Tensor]
_NO_NUMBER = "no number"
EVERY = 20.0
"""Seconds between two savings of a network that is being fitted."""


@dataclass
class State:
    """
    Attributes:
        folder: where findings are; made when there is something to keep.
    """

    folder: Path | None = None
    _last: float = field(default_factory=time.monotonic, repr=False)

    def __post_init__(self) -> None:
        if not isinstance(self.folder, Path | None):
            raise InputError(f"the folder of a state is a {type(self.folder).__name__}: give a Path, or leave it out")

    @property
    def is_empty(self) -> bool:
        """Whether nothing was found yet."""
        return self.folder is None or not self.folder.is_dir() or not any(self.folder.iterdir())

    def number(self, name: str, make: Callable[[], float]) -> float:
        """A number that was found under that name before, or is now."""
        return float(self.plain(name, make))

    def plain(self, name: str, make: Callable[[], T]) -> T:
        """What JSON can hold: found under that name before, or made now."""
        known = self.read_plain(name)
        if known is not None:
            found: T = known["found"]
            return found
        made = make()
        self.write_plain(name, {"found": made})
        return made

    def read_plain(self, name: str) -> Any:
        """The JSON under a name; ``None`` where there is none.

        Raises:
            InputError: it is damaged.
        """
        path = self._path(name, "json")
        if path is None or not path.exists():
            return None
        try:
            return _decoded(json_of(text_of(path)))
        except UnreadableError as error:
            raise _damaged(path, error) from error

    def write_plain(self, name: str, value: Any) -> None:
        """
        Raises:
            SeqPruneError: the disk is full, or the folder is gone.
        """
        path = self._made(name, "json")
        if path is not None:
            try:
                write_text(path, json.dumps(_encoded(value)))
            except OSError as error:
                raise _unwritten(path, error) from error

    def read_tensors(self, name: str) -> tuple[dict[str, torch.Tensor], Any] | None:
        """Tensors under a name, and what was said of them; ``None`` where there are none.

        Raises:
            InputError: they are damaged.
        """
        path = self._path(name, "safetensors")
        if path is None or not path.exists():
            return None
        try:
            with safe_open(path, "pt") as file:
                about = _decoded(json_of((file.metadata() or {}).get("about", "null")))
                return {key: file.get_tensor(key) for key in file.keys()}, about  # noqa: SIM118
        except (SafetensorError, UnreadableError, OSError) as error:
            raise _damaged(path, error) from error

    def write_tensors(self, name: str, tensors: Tensors, about: Any = None) -> None:
        """
        Raises:
            SeqPruneError: the disk is full, or the folder is gone.
        """
        path = self._made(name, "safetensors")
        if path is None:
            return
        whole = {key: tensor.detach().cpu().contiguous().clone() for key, tensor in tensors.items()}
        try:
            with atomic(path) as temporary:
                save_file(whole, temporary, metadata={"about": json.dumps(_encoded(about))})
        except (OSError, SafetensorError) as error:
            raise _unwritten(path, error) from error

    def fitted(self, name: str, model: nn.Module, fit: Callable[[int, Callable[[int], None]], object]) -> None:
        """Fits a network in place, from where an earlier run of it stopped.

        Args:
            name: of the fit.
            model: what is fitted.
            fit: is told how many stages are done, and tells how many are after each.
        """
        known = self.read_tensors(name)
        start = 0
        if known is not None:
            tensors, about = known
            give(model, tensors)
            if about["whole"]:
                return
            start = int(about["stages"])

        def save(stages: int, whole: bool = False) -> None:
            if whole or time.monotonic() - self._last > EVERY:
                self.write_tensors(name, model.state_dict(), {"whole": whole, "stages": stages})
                self._last = time.monotonic()

        if self.folder is None:
            fit(start, lambda _stages: None)
        else:
            fit(start, save)
            save(-1, whole=True)

    def same(self, name: str, value: str, what: str) -> None:
        """Notes what a run began with, or holds what it goes on with to that.

        Raises:
            InputError: it is something else.
        """
        if self.plain(name, lambda: value) != value:
            raise InputError(f"{self.folder}: {what} is not what this run began with: give the same, or begin anew")

    def clear(self) -> None:
        """Forgets everything, at once: the run is over, also where it is ended on the way."""
        if self.folder is None:
            return
        gone = self.folder.with_name(f".{self.folder.name}.gone")
        shutil.rmtree(gone, ignore_errors=True)  # of a run that was ended there
        with suppress(OSError):  # a system that keeps files which are open: then one by one
            self.folder.rename(gone)
        for folder in (gone, self.folder):
            shutil.rmtree(folder, ignore_errors=True)

    def _path(self, name: str, suffix: str) -> Path | None:
        return None if self.folder is None else self.folder / f"{name}.{suffix}"

    def _made(self, name: str, suffix: str) -> Path | None:
        path = self._path(name, suffix)
        if path is not None:
            try:
                path.parent.mkdir(parents=True, exist_ok=True)
            except OSError as error:
                raise _unwritten(path, error) from error
        return path


def give(model: nn.Module, tensors: Tensors) -> None:
    """Gives a network, in place, the tensors of one of the same shapes.

    Raises:
        InputError: they are another network's.
    """
    own = model.state_dict()
    if {name: t.shape for name, t in own.items()} != {name: t.shape for name, t in tensors.items()}:
        raise InputError("the run's folder holds the weights of another network: begin anew")
    with torch.no_grad():
        for name, tensor in tensors.items():
            own[name].copy_(tensor)


def _encoded(value: Any) -> Any:
    """The same with what JSON has no number for in words."""
    if isinstance(value, dict):
        return {key: _encoded(entry) for key, entry in value.items()}
    if isinstance(value, list | tuple):
        return [_encoded(entry) for entry in value]
    return {_NO_NUMBER: str(value)} if isinstance(value, float) and not math.isfinite(value) else value


def _decoded(value: Any) -> Any:
    if isinstance(value, dict):
        if set(value) == {_NO_NUMBER}:
            return float(value[_NO_NUMBER])
        return {key: _decoded(entry) for key, entry in value.items()}
    return [_decoded(entry) for entry in value] if isinstance(value, list) else value


def _damaged(path: Path, error: Exception) -> InputError:
    return InputError(f"{path}: is damaged ({error}); remove it, and the run does that part anew")


def _unwritten(path: Path, error: Exception) -> SeqPruneError:
    return SeqPruneError(f"{path} cannot be written ({error}): make room on its disk; the run can be resumed")


def began(state: object) -> State:
    """The state that a caller gives; where it is left out, one that keeps nothing.

    Raises:
        InputError: it is none.
    """
    if not isinstance(state, State | None):
        raise InputError(f"the state is a {type(state).__name__}: give a seqprune.engine.state.State, or leave it out")
    return state or State()
