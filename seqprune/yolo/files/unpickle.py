"""Checkpoints read without running what is in them.

A ``.pt`` is a pickle: a program that may call any function of any module. Here it may name the classes of torch's,
torchvision's and Ultralytics' layers, which are made without calling their constructors and filled with plain data,
and a short list of functions that rebuild tensors and numbers. Everything else is refused by its name, unmade.

``torch.load(weights_only=True)`` with an allow-list would not do: a class on the list may also be *called* there, and
Ultralytics' networks evaluate text in the YAML their constructor is given. Nor would scanning for names: a name that is
allowed in one place is not in another. So names become tokens here, which nothing but this unpickler can turn into what
they stand for; a token left in the data is inert.
"""

from __future__ import annotations

import codecs
import collections
import enum
import importlib
import pickle
import re
import zipfile
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from types import ModuleType
from typing import IO, Any

import numpy as np
import torch
from torch import nn
from torch.fx import GraphModule
from ultralytics.nn import tasks
from ultralytics.utils import IterableSimpleNamespace

from seqprune.errors import UntrustedError
from seqprune.yolo.files.contained import replaced

_LAYERS = (
    "torch.nn.modules.",
    "ultralytics.nn.modules",
    "ultralytics.nn.tasks",
    "torchvision.ops.",
    "torchvision.models.",
)
_LOSSES = ("ultralytics.utils.loss", "ultralytics.utils.tal", "ultralytics.nn.distill_model")
_TRANSFORMS = "torchvision.transforms."
_COMPILED = (GraphModule, torch.jit.ScriptModule)  # modules that carry code
_RENAMED = {
    "__builtin__": "builtins",
    "numpy.core.multiarray": "numpy._core.multiarray",
    "pathlib._local": "pathlib",
    "torch.tensor": "torch._tensor",
    "ultralytics.yolo.utils": "ultralytics.utils",
    "ultralytics.yolo.utils.loss": "ultralytics.utils.loss",
    "ultralytics.yolo.utils.tal": "ultralytics.utils.tal",
}
_RENAMED_CLASSES = {
    "ultralytics.nn.modules.block.Silence": nn.Identity,
    "ultralytics.nn.tasks.YOLOv10DetectionModel": tasks.DetectionModel,
}


@dataclass(frozen=True)
class _Token:
    """A name in a checkpoint that may be used: ``make`` a bare instance of, ``call`` with plain data, or both."""

    name: str
    kind: Any = None
    call: Callable[..., Any] | None = None


class _Refused(pickle.UnpicklingError):
    """A checkpoint names what is on no list; the file's name is not known yet."""


def _attribute(owner: Any, name: Any) -> Any:
    """``getattr`` as old checkpoints need it: a member of an enumeration, or the ``forward`` of a layer's class."""
    kind = owner.kind if isinstance(owner, _Token) else None
    if isinstance(kind, type) and issubclass(kind, enum.Enum) and name in kind.__members__:
        return kind[name]
    if isinstance(kind, type) and issubclass(kind, nn.Module) and name in ("forward", "forward_fuse"):
        return getattr(kind, name)
    raise _Refused(f"builtins.getattr({getattr(owner, 'name', type(owner).__name__)}, {str(name)[:40]!r})")


def _text(value: str, encoding: str) -> bytes:
    """``codecs.encode`` for how bytes are written in protocol 2."""
    return codecs.encode(value, encoding if encoding == "latin1" else "ascii")


def _dtype(name: str, *_: object) -> np.dtype[Any]:
    """A dtype of numbers or text; one of objects or records could carry more."""
    if not isinstance(name, str) or not re.fullmatch(r"[?bcfiuSU]\d*", name):
        raise _Refused(f"numpy.dtype({str(name)[:40]!r})")
    return np.dtype(name)


_scalar: Any = np.float64(0).__reduce__()[0]
_CALLS: dict[str, Callable[..., Any]] = {
    "_codecs.encode": _text,
    "builtins.bytearray": bytearray,
    "builtins.complex": complex,
    "builtins.frozenset": frozenset,
    "builtins.getattr": _attribute,
    "builtins.set": set,
    "builtins.slice": slice,
    "collections.OrderedDict": collections.OrderedDict,
    "numpy._core.multiarray.scalar": _scalar,
    "numpy.dtype": _dtype,
    "pathlib.PosixPath": Path,
    "pathlib.PurePosixPath": Path,
    "pathlib.WindowsPath": Path,
    "torch.Size": torch.Size,
    "torch.device": torch.device,
    "torch._utils._rebuild_parameter": torch._utils._rebuild_parameter,
    "torch._utils._rebuild_tensor": torch._utils._rebuild_tensor,
    "torch._utils._rebuild_tensor_v2": torch._utils._rebuild_tensor_v2,
}
_Unpickler: Any = vars(pickle)["_Unpickler"]  # Python's own, written in Python: the fast one cannot be extended
# What a BUILD instruction may fill: plain data, by the methods of these classes.
_FILLED = (nn.Module, IterableSimpleNamespace, collections.OrderedDict)


class RestrictedUnpickler(_Unpickler):  # type: ignore[misc]
    """An unpickler in which names are tokens and only tokens are called, made or filled."""

    def find_class(self, module: str, name: str) -> Any:
        """What a name stands for.

        Raises:
            _Refused: it is on no list.
        """
        full = f"{_RENAMED.get(module, module)}.{name}"
        if full in _CALLS:
            return _Token(full, call=_CALLS[full])
        if full == "torch.storage.UntypedStorage":
            return torch.storage.UntypedStorage  # torch compares with it, nothing calls it
        if module == "torch" and isinstance(found := getattr(torch, name, None), torch.dtype | torch.memory_format):
            return found
        if (kind := _class(_RENAMED.get(module, module), name, full)) is None:
            raise _Refused(full)
        return _Token(full, kind=kind)

    def load_global(self) -> None:
        names = [self.readline() for _ in range(2)]
        if not all(name.endswith(b"\n") for name in names):
            raise pickle.UnpicklingError("it ends within a name")  # what is left of it would be refused
        self.append(self.find_class(*(name[:-1].decode() for name in names)))

    def load_reduce(self) -> None:
        arguments = self.stack.pop()
        token = self.stack[-1]
        if isinstance(token, _Token) and token.call is not None:
            self.stack[-1] = token.call(*arguments)
        elif isinstance(token, _Token) and token.kind is IterableSimpleNamespace and not arguments:
            self.stack[-1] = IterableSimpleNamespace()
        elif isinstance(token, _Token) and token.kind is not None and issubclass(token.kind, enum.Enum):
            self.stack[-1] = token.kind(*arguments)
        else:
            raise _Refused(f"a call of {getattr(token, 'name', type(token).__name__)}")

    def load_newobj(self) -> None:
        arguments = self.stack.pop()
        token = self.stack.pop()
        if not isinstance(token, _Token) or token.kind is None or arguments:
            raise _Refused(f"a new {getattr(token, 'name', type(token).__name__)} from arguments")
        self.append(token.kind.__new__(token.kind))

    def load_build(self) -> None:
        state, filled = self.stack[-1], self.stack[-2]
        if isinstance(filled, np.dtype) and state[1] != ">":
            self.stack.pop()  # byte order and flags, as they are on every machine that trains networks
            return
        if not isinstance(filled, _FILLED) and type(filled).__module__ not in _LOSSES and not _is_transform(filled):
            raise _Refused(f"a state for {type(filled).__name__}")
        if not isinstance(state, dict):
            raise _Refused(f"a {type(state).__name__} as the state of {type(filled).__name__}")
        super().load_build()

    def refuse(self) -> None:
        raise _Refused("an instruction that checkpoints do not use")


RestrictedUnpickler.dispatch = (
    _Unpickler.dispatch
    | {
        pickle.GLOBAL[0]: RestrictedUnpickler.load_global,
        pickle.REDUCE[0]: RestrictedUnpickler.load_reduce,
        pickle.NEWOBJ[0]: RestrictedUnpickler.load_newobj,
        pickle.BUILD[0]: RestrictedUnpickler.load_build,
    }
    | {
        code[0]: RestrictedUnpickler.refuse
        for code in (
            pickle.INST,
            pickle.OBJ,
            pickle.NEWOBJ_EX,
            pickle.EXT1,
            pickle.EXT2,
            pickle.EXT4,
            pickle.NEXT_BUFFER,
        )
        if code
    }
)


def _class(module: str, name: str, full: str) -> Any:
    """A layer, a loss or a transform, ``None`` for what is neither; imports only torch's and Ultralytics' own."""
    if full in _RENAMED_CLASSES:
        return _RENAMED_CLASSES[full]
    if full == "ultralytics.utils.IterableSimpleNamespace":
        return IterableSimpleNamespace
    if not module.startswith((*_LAYERS, *_LOSSES, _TRANSFORMS)) or "." in name:
        return None
    try:
        found = getattr(importlib.import_module(module), name, None)
    except ImportError:
        return None
    if not isinstance(found, type) or not found.__module__.startswith(module.partition(".")[0] + "."):
        return None
    if issubclass(found, _COMPILED):
        return None
    if issubclass(found, nn.Module) or module in _LOSSES or module.startswith(_TRANSFORMS):
        return found
    return None


def _is_transform(value: object) -> bool:
    return type(value).__module__.startswith(_TRANSFORMS)


def _load(file: IO[bytes], **options: Any) -> Any:
    return RestrictedUnpickler(file, **options).load()


_PICKLE = ModuleType("seqprune_restricted_pickle")
_PICKLE.Unpickler, _PICKLE.load = RestrictedUnpickler, _load  # type: ignore[attr-defined]


def _is_program(path: str | Path) -> bool:
    if not zipfile.is_zipfile(path):
        return False
    with zipfile.ZipFile(path) as file:
        return any(name.endswith("/constants.pkl") for name in file.namelist())


def read(path: str | Path) -> Any:
    """What a checkpoint holds, its tensors on the CPU.

    Raises:
        UntrustedError: it names something that may run code; the message says what.
    """
    if _is_program(path):
        raise UntrustedError(f"{path}: is a TorchScript program, not a checkpoint; give the .pt it was exported from")
    try:
        return torch.load(path, map_location="cpu", pickle_module=_PICKLE, weights_only=False)
    except _Refused as error:
        raise UntrustedError(
            f"{path}: holds {error}, which is neither a layer nor data and may run code; if you trust who made the "
            "file, load it with --trust (trust=True in Python)"
        ) from error


@contextmanager
def guarded(trust: bool) -> Iterator[None]:
    """Let Ultralytics read checkpoints this way for a while, unless they are trusted."""
    if trust:
        yield
        return

    def safe_load(weight: str | Path, *_: object, **__: object) -> tuple[dict[str, Any], str]:
        file = tasks.attempt_download_asset(weight) if hasattr(tasks, "attempt_download_asset") else _fetched(weight)
        found = read(file)
        return (found if isinstance(found, dict) else {"model": found}), str(file)

    with replaced(tasks, "torch_safe_load", safe_load):
        yield


def _fetched(weight: str | Path) -> str:
    """The file of official weights, downloaded where it is missing."""
    from ultralytics.utils.downloads import attempt_download_asset

    return str(attempt_download_asset(weight))
