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

import collections
import enum
import io
import pickle
import re
import struct
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import nn
from ultralytics.utils import IterableSimpleNamespace

from seqprune.errors import UntrustedError
from seqprune.plain import printable, why_no_file
from seqprune.yolo.files.archive import Damaged, legacy, open_archive
from seqprune.yolo.files.known import (
    Refused,
    Token,
    is_transform,
    may_be_filled,
    meaning,
    named,
    plain_key,
    plain_set,
    shown,
)

_DEEPEST = 120  # a network in a network is ten to twenty
_PICKLE = 8 << 20  # bytes
_STEPS = 2_000_000  # YOLOv9e twice and its optimizer take 750,000
Storage = Callable[[str, int, int], torch.UntypedStorage]


class _Short:
    """The part of a file that a pickle may take, which is read instruction by instruction."""

    def __init__(self, file: io.BytesIO) -> None:
        self.file, self.left, self.steps = file, _PICKLE, _STEPS

    def read(self, count: int) -> bytes:
        return self._counted(self.file.read(count))

    def readline(self) -> bytes:
        return self._counted(self.file.readline())

    def _counted(self, found: bytes) -> bytes:
        self.left -= len(found)
        self.steps -= 1
        if self.left < 0 or self.steps < 0:
            raise Damaged(f"its pickle is longer than {_PICKLE >> 20} MiB or {_STEPS:,} steps, which is no network's")
        return found


_Unpickler: Any = vars(pickle)["_Unpickler"]  # Python's own, written in Python: the fast one cannot be extended


class RestrictedUnpickler(_Unpickler):  # type: ignore[misc]
    """An unpickler in which names are tokens and only tokens are called, made or filled.

    Args:
        file: The pickle.
        storage: The bytes of a tensor, by the key of its record, their number, and that of one value.
    """

    def __init__(self, file: Any, storage: Storage | None = None) -> None:
        super().__init__(file, encoding="utf-8")
        self.storage = storage

    def find_class(self, module: str, name: str) -> Any:
        """What a name stands for, see :func:`seqprune.yolo.files.known.meaning`."""
        return meaning(module, name)

    def persistent_load(self, saved: Any) -> Any:
        """A storage, by what stands for it: ``("storage", type, key, location, values)``, and a view of old."""
        if not isinstance(saved, tuple) or not saved or saved[0] not in ("storage", "module"):
            raise Damaged("it refers to something that is no storage")
        if saved[0] == "module" and isinstance(saved[1], Token):
            return saved[1]  # before torch 1.6: a layer's class beside its source, which nobody needs
        kind, key, _, count = saved[1:5]
        if not isinstance(kind, Token) or kind.holds is None or any(saved[5:]):
            raise Refused(f"a storage of a {named(kind)}")
        if not isinstance(key, str) or not re.fullmatch(r"\d{1,20}", key) or type(count) is not int or count < 0:
            raise Damaged("it refers to a storage without a number")
        if self.storage is None:
            raise Damaged("it refers to a storage where there is none")
        found = self.storage(key, count * kind.holds.itemsize, kind.holds.itemsize)
        wrapped: Any = torch.storage.TypedStorage
        return wrapped(wrap_storage=found, dtype=kind.holds, _internal=True)

    def load_global(self) -> None:
        names = [self.readline() for _ in range(2)]
        if not all(name.endswith(b"\n") for name in names):
            raise pickle.UnpicklingError("it ends within a name")  # what is left of it would be refused
        self.append(self.find_class(*(name[:-1].decode() for name in names)))

    def load_reduce(self) -> None:
        arguments = self.stack.pop()
        token = self.stack[-1]
        if not isinstance(token, Token) or not isinstance(arguments, tuple):
            raise Refused(f"a call of {named(token)}")
        if token.call is not None:
            self.stack[-1] = token.call(*arguments)
        elif token.kind is IterableSimpleNamespace and not arguments:
            self.stack[-1] = IterableSimpleNamespace()
        elif isinstance(token.kind, type) and issubclass(token.kind, enum.Enum) and len(arguments) == 1:
            self.stack[-1] = token.kind(arguments[0])
        else:
            raise Refused(f"a call of {named(token)}")

    def load_newobj(self) -> None:
        arguments = self.stack.pop()
        token = self.stack.pop()
        if not isinstance(token, Token) or token.kind is None or arguments:
            raise Refused(f"a new {named(token)} from arguments")
        self.append(token.kind.__new__(token.kind))

    def load_build(self) -> None:
        state, filled = self.stack[-1], self.stack[-2]
        if isinstance(filled, np.dtype) and isinstance(state, tuple) and state[1:2] != (">",):
            self.stack.pop()  # byte order and flags, as they are on every machine that trains networks
            return
        if not may_be_filled(filled):
            raise Refused(f"a state for {type(filled).__name__}")
        if not isinstance(state, dict):
            raise Refused(f"a {type(state).__name__} as the state of {type(filled).__name__}")
        for name in state:
            if not isinstance(name, str) or name.startswith("__") or not name.isidentifier():
                raise Refused(f"a state of {type(filled).__name__} with {shown(name)}")
        if isinstance(filled, collections.OrderedDict) and set(state) - {"_metadata"}:
            raise Refused("a state for OrderedDict")
        super().load_build()

    def load_setitem(self) -> None:
        value, key = self.stack.pop(), self.stack.pop()
        self.last(dict)[plain_key(key)] = value

    def load_setitems(self) -> None:
        items = self.pop_mark()
        filled = self.last(dict)
        for key, value in zip(items[::2], items[1::2], strict=True):
            filled[plain_key(key)] = value

    def load_dict(self) -> None:
        items = self.pop_mark()
        self.append({plain_key(key): value for key, value in zip(items[::2], items[1::2], strict=True)})

    def load_append(self) -> None:
        value = self.stack.pop()
        self.last(list).append(value)

    def load_appends(self) -> None:
        items = self.pop_mark()
        self.last(list).extend(items)

    def load_additems(self) -> None:
        items = self.pop_mark()
        self.last(set).update(plain_set(items))

    def load_frozenset(self) -> None:
        items = self.pop_mark()  # first: it takes the stack that is added to away
        self.append(frozenset(plain_set(items)))

    def last(self, kind: type[Any]) -> Any:
        """What is filled, which must be of Python's own kind: others' methods would be called."""
        if not isinstance(self.stack[-1], kind):
            raise Refused(f"items for a {named(self.stack[-1])}")
        return self.stack[-1]

    def refuse(self) -> None:
        raise Refused("an instruction that checkpoints do not use")


_OURS = "GLOBAL REDUCE NEWOBJ BUILD SETITEM SETITEMS DICT APPEND APPENDS ADDITEMS FROZENSET".split()
_UNUSED = "INST OBJ NEWOBJ_EX EXT1 EXT2 EXT4 BYTEARRAY8 NEXT_BUFFER READONLY_BUFFER".split()
RestrictedUnpickler.dispatch = (
    _Unpickler.dispatch
    | {getattr(pickle, name)[0]: getattr(RestrictedUnpickler, f"load_{name.lower()}") for name in _OURS}
    | {getattr(pickle, name)[0]: RestrictedUnpickler.refuse for name in _UNUSED}
)


_MEANT = (
    ("ultralytics.models.", "torch.save wrote a whole YOLO object: save the network alone, with its save() method; "),
    (
        "torch.nn.utils.prune.",
        "torch.nn.utils.prune left its hooks in the network: call its remove() and save it anew; ",
    ),
)
"""What a name in a file tells of how it was made, and how to go on."""


def read(source: str | Path | io.BytesIO) -> Any:
    """What a checkpoint holds, its tensors on the CPU.

    Args:
        source: Its file, or its bytes.

    Raises:
        UntrustedError: it names something that may run code; the message says what.
        Damaged: it is no checkpoint, or cannot be read.
    """
    name = "the checkpoint" if isinstance(source, io.BytesIO) else str(source)
    try:
        if not isinstance(source, io.BytesIO) and (reason := why_no_file(source)):
            raise Damaged(reason)
        found = _contents(source)
        _check_depth(found)
    except Refused as error:
        meant = next((text for start, text in _MEANT if str(error).startswith(start)), "")
        raise UntrustedError(
            f"{name}: holds {error}, which is neither a layer nor data and may run code; {meant}if you trust who made "
            "the file, load it with --trust (trust=True in Python)"
        ) from error
    except UntrustedError as error:
        raise UntrustedError(f"{name}: {error}") from error
    except (Damaged, *UNREADABLE) as error:
        what = printable(" ".join(str(error).split()) or type(error).__name__, 300)
        raise Damaged(f"{name}: cannot be unpickled ({what}); it is damaged or needs other code") from error
    return found


UNREADABLE = (
    ArithmeticError,
    AssertionError,
    AttributeError,
    BufferError,
    EOFError,
    ImportError,
    LookupError,
    MemoryError,
    OSError,
    RuntimeError,
    SyntaxError,
    TypeError,
    ValueError,
    pickle.UnpicklingError,
    struct.error,
)
"""What a damaged file ends in, wherever it is noticed."""


def _contents(source: str | Path | io.BytesIO) -> Any:
    if isinstance(source, io.BytesIO):
        size, head = len(source.getbuffer()), bytes(source.getbuffer()[:4])
    else:
        with open(source, "rb") as file:
            head, size = file.read(4), Path(source).stat().st_size
    if head == b"PK\3\4":
        records = open_archive(source if isinstance(source, io.BytesIO) else Path(source), size)
        return _unpickled(io.BytesIO(records.pickled), lambda key, count, _: records.storage(key, count))
    if isinstance(source, io.BytesIO):
        return legacy(source, _unpickled, size)
    if head[:1] != b"\x80":
        raise Damaged("it begins as no checkpoint does")
    return legacy(io.BytesIO(Path(source).read_bytes()), _unpickled, size)


def _unpickled(file: io.BytesIO, storage: Storage | None = None) -> Any:
    return RestrictedUnpickler(_Short(file), storage).load()


def _check_depth(found: Any) -> None:
    """Raise Damaged for what is nested deeper than any network: what goes through it later would run out of stack."""
    seen: set[int] = set()
    waiting: list[tuple[Any, int]] = [(found, 0)]
    while waiting:
        value, depth = waiting.pop()
        if id(value) in seen:
            continue
        if isinstance(value, dict):
            parts: Any = (part for pair in value.items() for part in pair)
        elif isinstance(value, list | tuple | set | frozenset):
            parts = value
        elif isinstance(value, nn.Module | IterableSimpleNamespace) or is_transform(value):
            parts = vars(value).values()
        else:
            continue
        seen.add(id(value))
        if depth > _DEEPEST:
            raise Damaged("it is nested without end")
        waiting += ((part, depth + 1) for part in parts)
