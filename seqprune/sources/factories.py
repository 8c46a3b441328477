"""Networks by the name of what builds them: ``timm:NAME``, ``torchvision:NAME``, ``package.module:function``.

Nothing is downloaded: the first two are built with random weights. A function of the caller's is code, which runs only
where it is trusted.
"""

from __future__ import annotations

import re
import sys
from collections.abc import Callable, Sequence
from difflib import get_close_matches
from importlib import import_module
from inspect import signature
from typing import Any

import torch
from torch import nn

from seqprune.errors import InputError, ModelError, UntrustedError
from seqprune.plain import printable
from seqprune.sources.shown import Shown, of_timm, of_torchvision

# A module of one letter would be the drive of a path.
_NAME = re.compile(r"([A-Za-z_]\w+|[A-Za-z_]\w*(?:\.\w+)+):([A-Za-z_][\w.-]*)")
FAILS = (ArithmeticError, AssertionError, AttributeError, ImportError, LookupError, NameError, OSError, RuntimeError,
         SyntaxError, TypeError, ValueError)  # fmt: skip
"""What code of others' fails with."""


def is_factory(name: object) -> bool:
    """Whether a name is one of what builds a network, or gives data."""
    return isinstance(name, str) and _NAME.fullmatch(name) is not None


def built(name: str, *, trust: bool = False, seed: int = 0) -> tuple[nn.Module, Shown]:
    """The network in inference mode, with random weights, and how images are shown to it.

    Args:
        name: see above.
        trust: whether a function of the caller's may run.
        seed: of the weights.

    Raises:
        UntrustedError: it names a function, and is not trusted.
        InputError: there is no such network or function, or it builds none.
    """
    where, what = _parts(name)
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        if where == "timm":
            model, shown = _of_timm(what)
        elif where == "torchvision":
            model, shown = _of_torchvision(what)
        else:
            model, shown = called(name, trust), Shown()
    if not isinstance(model, nn.Module):
        raise ModelError(f"{name} returns a {type(model).__name__}: it has to return a torch.nn.Module")
    return model.eval(), shown


def called(name: str, trust: bool) -> Any:
    """What a function of the caller's returns; modules of the folder that this is called in are found too.

    Raises:
        UntrustedError: it is not trusted.
        InputError: there is no such function, or it fails.
    """
    where, what = _parts(name)
    if not trust:
        raise UntrustedError(
            f"{name} is a function, and its code would run: give --trust (trust=True in Python) where it is yours; "
            "networks of libraries are timm:NAME and torchvision:NAME"
        )
    sys.path.insert(0, "")
    try:
        function: Callable[[], Any] = getattr(import_module(where), what)
        return function()
    except FAILS as error:
        why = printable(" ".join(f"{type(error).__name__}: {error}".split()), 300)
        raise InputError(f"{name} cannot be used ({why}): name a function that takes nothing") from error
    finally:
        sys.path.remove("")


def _parts(name: str) -> tuple[str, str]:
    found = _NAME.fullmatch(name)
    if found is None:
        raise InputError(f"{name!r} names nothing: write timm:NAME, torchvision:NAME or package.module:function")
    return found[1], found[2]


def _of_timm(name: str) -> tuple[nn.Module, Shown]:
    try:
        import timm
    except ImportError as error:
        raise _missing("timm", "'seqprune[timm]'", error) from error
    if not timm.is_model(name):
        raise _unknown("timm", name, timm.list_models())
    model: nn.Module = timm.create_model(name, pretrained=False)
    return model, of_timm(model)


def _of_torchvision(name: str) -> tuple[nn.Module, Shown]:
    try:
        from torchvision import models
    except ImportError as error:
        raise _missing("torchvision", "torchvision", error) from error
    known = models.list_models()
    if name not in known:
        raise _unknown("torchvision", name, known)
    builder = models.get_model_builder(name)
    options: dict[str, Any] = {"weights": None}
    if "weights_backbone" in signature(builder).parameters:
        options["weights_backbone"] = None  # else they are downloaded
    model: nn.Module = builder(**options)
    return model, of_torchvision(models.get_model_weights(name))


def _missing(library: str, package: str, error: ImportError) -> InputError:
    """It is not installed, or something that it needs is not."""
    needs = (error.name or library).partition(".")[0]
    if needs == library:
        return InputError(f"{library} is missing: pip install {package}")
    return InputError(f"{library} does not work without {needs} ({printable(error, 200)}): pip install {needs}")


def _unknown(library: str, name: str, known: Sequence[str]) -> InputError:
    near = get_close_matches(name, known, 3)
    return InputError(f"{library} has no network {printable(name, 80)!r}: {_such(near)}")


def _such(near: Sequence[str]) -> str:
    return f"did you mean {' or '.join(near)}?" if near else "check its spelling"
