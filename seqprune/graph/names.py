"""What a call is called in the table of rules, however the code of a network makes it."""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping
from functools import cache
from typing import Any

import torch

# Named as functions of torch.nn.functional whose arguments have another order.
APART = {torch.batch_norm: "torch.batch_norm", torch.instance_norm: "torch.instance_norm"}


@cache
def op_name(function: Callable[..., Any]) -> str:
    """``torch.Tensor.__iadd__`` → ``add``, ``torch.relu_`` → ``relu``, ``torch.Tensor.shape.__get__`` → ``shape``.

    ``torch.Tensor.data.__set__`` is ``set data``.
    """
    if isinstance(function, torch._ops.OpOverload | torch._ops.OpOverloadPacket):
        library, name = str(function).split(".")[:2]
        return f"aten.{name}" if library == "aten" else name  # the arguments of aten's have an order of their own
    if function in APART:
        return APART[function]
    name = getattr(function, "__name__", None) or str(function)
    if name == "__get__":  # a property of Tensor
        name = function.__self__.__name__  # type: ignore[attr-defined]
    elif name == "__set__":
        return f"set {function.__self__.__name__}"  # type: ignore[attr-defined]
    name = name.rsplit(".", 1)[-1]
    if dunder := re.fullmatch(r"__(.+)__", name):
        name = dunder[1]
        return {
            "iadd": "add",
            "radd": "add",
            "imul": "mul",
            "rmul": "mul",
            "isub": "sub",
            "idiv": "div",  # as torch calls __itruediv__
            "truediv": "div",
        }.get(name, name)
    return name.rstrip("_")


def writes_in_place(function: Callable[..., Any], kwargs: Mapping[str, Any]) -> bool:
    """Whether a call changes a tensor that it is given."""
    return bool(_named_in_place(function) or kwargs.get("inplace") or kwargs.get("out") is not None)


@cache
def _named_in_place(function: Callable[..., Any]) -> bool:
    name = getattr(function, "__name__", "").partition(".")[0]  # of an overload
    own = (name.endswith("_") and not name.startswith("__")) or re.fullmatch(r"__i(?!nvert).+__|__setitem__", name)
    return bool(own)
