"""What a checkpoint may name, and what those names stand for here.

The classes of torch's, torchvision's and Ultralytics' layers, losses and transforms, which are made without calling
their constructors, and a short list of functions that rebuild tensors and numbers, each of which takes plain data only.
"""

from __future__ import annotations

import codecs
import collections
import enum
import importlib
import pickle
import re
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from types import FunctionType, MethodType
from typing import Any

import numpy as np
import torch
from torch import nn
from torch.fx import GraphModule
from ultralytics.nn import tasks
from ultralytics.utils import IterableSimpleNamespace

from seqprune.plain import printable
from seqprune.yolo.files.archive import Damaged

_LAYERS = (
    "torch.nn.modules.",
    "ultralytics.nn.modules.",
    "ultralytics.nn.tasks",
    "torchvision.ops.",
    "torchvision.models.",
)
_LOSSES = (
    "ultralytics.utils.loss",
    "ultralytics.utils.tal",
    "ultralytics.models.utils.loss",
    "ultralytics.models.utils.ops",
    "ultralytics.nn.distill_model",
)
_TRANSFORMS = "torchvision.transforms."
_STORAGES = {
    "DoubleStorage": torch.float64,
    "FloatStorage": torch.float32,
    "HalfStorage": torch.float16,
    "BFloat16Storage": torch.bfloat16,
    "LongStorage": torch.int64,
    "IntStorage": torch.int32,
    "ShortStorage": torch.int16,
    "CharStorage": torch.int8,
    "ByteStorage": torch.uint8,
    "BoolStorage": torch.bool,
    "ComplexDoubleStorage": torch.complex128,
    "ComplexFloatStorage": torch.complex64,
    "UntypedStorage": torch.uint8,
}
_COMPILED = (GraphModule, torch.jit.ScriptModule)  # modules that carry code
# What Ultralytics 8.0 wrote into classifiers beside torchvision's.
_OLD_TRANSFORMS = "ultralytics.data.augment"
_OLD_NAMES = ("CenterCrop", "ClassifyLetterBox", "LetterBox", "ToTensor")
_RENAMED = {
    "__builtin__": "builtins",
    "ultralytics.yolo.data.augment": "ultralytics.data.augment",
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
class Token:
    """A name in a checkpoint that may be used: to make a bare ``kind``, to ``call``, for a storage that ``holds``."""

    name: str
    kind: Any = None
    call: Callable[..., Any] | None = None
    holds: torch.dtype | None = None


class Refused(pickle.UnpicklingError):
    """A checkpoint names what is on no list; the file's name is not known yet."""


def _attribute(owner: Any, name: Any) -> Any:
    """``getattr`` as old checkpoints need it: a member of an enumeration, or the ``forward`` of a layer's class."""
    kind = owner.kind if isinstance(owner, Token) else None
    if isinstance(kind, type) and issubclass(kind, enum.Enum) and name in kind.__members__:
        return kind[name]
    if isinstance(kind, type) and issubclass(kind, nn.Module) and name in FORWARDS:
        return getattr(kind, name)
    if (
        isinstance(owner, nn.Module)
        and name in FORWARDS
        and isinstance(method := getattr(type(owner), name), FunctionType)
    ):
        return MethodType(method, owner)  # what fuse() leaves on a convolution
    raise Refused(f"builtins.getattr({named(owner)}, {shown(name)})")


def named(value: object) -> str:
    return value.name if isinstance(value, Token) else type(value).__name__


def shown(value: object) -> str:
    """A value of a checkpoint in a message; only a text is written out: what lists hold of each other has no end."""
    return repr(printable(value, 40)) if isinstance(value, str) else type(value).__name__


def _text(value: str, encoding: str = "ascii") -> bytes:
    """``codecs.encode`` for how bytes are written in protocol 2."""
    return codecs.encode(value, "latin1" if encoding == "latin1" else "ascii")


def _bytearray(value: bytes = b"") -> bytearray:
    """Of bytes alone; of a number it would fill the memory."""
    if not isinstance(value, bytes):
        raise Refused(f"builtins.bytearray({shown(value)})")
    return bytearray(value)


def plain_key(value: object) -> object:
    """A key or a member of a set: plain, since the hash of tuples that hold each other takes forever."""
    parts = value if isinstance(value, tuple) else (value,)
    if any(isinstance(part, tuple | frozenset) for part in parts):
        raise Refused(f"a {type(value).__name__} of tuples as a key")
    return value


def plain_set(values: Any = ()) -> set[Any]:
    return {plain_key(value) for value in values}


def _ordered(pairs: Any = ()) -> collections.OrderedDict[Any, Any]:
    return collections.OrderedDict((plain_key(key), value) for key, value in pairs)


def _tensor(
    storage: Any,
    offset: int,
    size: Any,
    stride: Any,
    requires_grad: bool = False,
    hooks: Any = None,
    metadata: Any = None,
) -> torch.Tensor:
    """A tensor over the bytes that the file has for it, no more: each value is in the file once."""
    if not isinstance(storage, torch.storage.TypedStorage) or hooks or metadata:
        raise Refused("a tensor with hooks" if hooks or metadata else f"a tensor of a {type(storage).__name__}")
    numbers = [offset, *size, *stride]
    if len(size) != len(stride) or len(size) > 16 or any(type(n) is not int or not 0 <= n < 2**48 for n in numbers):
        raise Damaged("a tensor has no shape")
    spread = sorted((step, side) for side, step in zip(size, stride, strict=True) if side > 1)
    reach = 1
    for step, side in spread:
        if step < reach:
            raise Damaged("a tensor repeats its values without end")
        reach = step * (side - 1) + reach
    held = storage._untyped_storage.nbytes() // storage.dtype.itemsize
    if 0 not in size and offset + reach > held:
        raise Damaged(f"a tensor needs {offset + reach} values where the file holds {held}")
    made = torch.empty((0,), dtype=storage.dtype).set_(
        storage._untyped_storage, offset if 0 not in size else 0, tuple(size), tuple(stride)
    )
    if requires_grad is True and (made.is_floating_point() or made.is_complex()):
        made.requires_grad_(True)
    return made


def _parameter(data: Any, requires_grad: bool = True, hooks: Any = None) -> nn.Parameter:
    if not isinstance(data, torch.Tensor) or hooks:
        raise Refused("a parameter with hooks" if hooks else f"a parameter of a {type(data).__name__}")
    return nn.Parameter(data, requires_grad is True)


def _dtype(name: str, *_: object) -> np.dtype[Any]:
    """A dtype of numbers or text; one of objects or records could carry more."""
    if not isinstance(name, str) or not re.fullmatch(r"[<=|]?[?bcfiuSU]\d{0,3}", name):
        raise Refused(f"numpy.dtype({shown(name)})")
    return np.dtype(name)


FORWARDS = ("forward", "forward_fuse")
_scalar: Any = np.float64(0).__reduce__()[0]
_CALLS: dict[str, Callable[..., Any]] = {
    "_codecs.encode": _text,
    "builtins.bytearray": _bytearray,
    "builtins.complex": complex,
    "builtins.frozenset": lambda values=(): frozenset(plain_set(values)),
    "builtins.getattr": _attribute,
    "builtins.set": plain_set,
    "builtins.slice": slice,
    "collections.OrderedDict": _ordered,
    "numpy._core.multiarray.scalar": _scalar,
    "numpy.dtype": _dtype,
    "pathlib.PosixPath": Path,
    "pathlib.PurePosixPath": Path,
    "pathlib.WindowsPath": Path,
    "torch.Size": torch.Size,
    "torch.device": torch.device,
    "torch._utils._rebuild_parameter": _parameter,
    "torch._utils._rebuild_tensor": _tensor,
    "torch._utils._rebuild_tensor_v2": _tensor,
}


def _class(module: str, name: str, full: str) -> Any:
    """A layer, a loss or a transform, ``None`` for what is neither; imports only torch's and Ultralytics' own."""
    if full in _RENAMED_CLASSES:
        return _RENAMED_CLASSES[full]
    if full == "ultralytics.utils.IterableSimpleNamespace":
        return IterableSimpleNamespace
    is_old = module == _OLD_TRANSFORMS and name in _OLD_NAMES
    if not is_old and not f"{module}.".startswith((*_LAYERS, *_LOSSES, _TRANSFORMS)):
        return None
    if not re.fullmatch(r"\w+(\.\w+)*", module, re.ASCII):
        return None
    try:
        found = getattr(importlib.import_module(module), name, None)
    except ImportError:
        return None
    if not isinstance(found, type) or not found.__module__.startswith(module.partition(".")[0] + "."):
        return None
    if issubclass(found, _COMPILED):
        return None
    if issubclass(found, nn.Module) or is_old or module in _LOSSES or module.startswith(_TRANSFORMS):
        return found
    return None


def is_transform(value: object) -> bool:
    return type(value).__module__.startswith((_TRANSFORMS, _OLD_TRANSFORMS))


def meaning(module: str, name: str) -> Any:
    """What a name in a checkpoint stands for: a token, or a dtype.

    Raises:
        Refused: it is on no list.
    """
    full = f"{_RENAMED.get(module, module)}.{name}"
    if full in _CALLS:
        return Token(full, call=_CALLS[full])
    if module in ("torch", "torch.cuda", "torch.storage") and name in _STORAGES:
        return Token(full, holds=_STORAGES[name])
    if module == "torch" and isinstance(found := getattr(torch, name, None), torch.dtype | torch.memory_format):
        return found
    if (kind := _class(_RENAMED.get(module, module), name, full)) is None:
        raise Refused(printable(full, 120))
    return Token(full, kind=kind)


def may_be_filled(value: object) -> bool:
    """Whether a BUILD instruction may fill it: plain data, by the methods of its class."""
    filled = (nn.Module, IterableSimpleNamespace, collections.OrderedDict)
    return isinstance(value, filled) or type(value).__module__ in _LOSSES or is_transform(value)
