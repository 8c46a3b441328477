"""Objects by ``package.module:name``."""

from __future__ import annotations

import sys
from importlib import import_module
from pathlib import Path

from seqprune.errors import InputError


def named(name: str) -> object:
    """What ``package.module:name`` is; the current folder is looked in as well, which plain ``pytest`` leaves out.

    Raises:
        InputError: there is no such thing.
    """
    module, _, attribute = name.partition(":")
    here = str(Path.cwd())
    if here not in sys.path:
        sys.path.append(here)
    try:
        found: object = getattr(import_module(module), attribute)
    except (ImportError, AttributeError, ValueError) as error:
        raise InputError(
            f"{name} is not found ({error}); write package.module:function, importable from here"
        ) from error
    return found
