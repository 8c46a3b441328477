"""Pages from templates: one file that loads nothing, everything from a record escaped."""

from __future__ import annotations

from functools import cache
from typing import Any

from jinja2 import Environment, PackageLoader, StrictUndefined
from markupsafe import Markup

from seqprune.plain import printable

_LONGEST = 20_000


def rendered(template: str, **context: Any) -> str:
    """One self-contained HTML document.

    Args:
        template: its name in ``report/templates``.
        context: what it is filled with; text is escaped, ``Markup`` is HTML already.
    """
    return _environment().get_template(template).render(context)


def _shown(value: Any) -> Any:
    """Text without control characters, and not without end."""
    return printable(value, _LONGEST) if isinstance(value, str) and not isinstance(value, Markup) else value


@cache
def _environment() -> Environment:
    return Environment(
        loader=PackageLoader("seqprune.report"),
        autoescape=True,  # names in data sets, paths and messages come from elsewhere
        undefined=StrictUndefined,
        finalize=_shown,
        trim_blocks=True,
        lstrip_blocks=True,
    )
