"""What is public says what it takes, what it gives, and what it raises; the linter holds the form alone."""

from __future__ import annotations

import inspect
import re
from collections.abc import Iterator
from typing import Any

import pytest

import seqprune
from seqprune import errors
from seqprune.engine.settings import Choose, Look, Open, Train

SETTINGS: tuple[Any, ...] = (Look, Choose, Open, Train)
PUBLIC = {name: getattr(seqprune, name) for name in seqprune.__all__} | {kind.__name__: kind for kind in SETTINGS}
CALLED = sorted(name for name, value in PUBLIC.items() if inspect.isfunction(value))
KINDS = sorted(name for name, value in PUBLIC.items() if inspect.isclass(value))
NAMED = re.compile(r"^ {4}((?:\*{0,2}\w+)(?:, \*{0,2}\w+)*):", re.MULTILINE)
RAISED = re.compile(r"^ {4}((?:[A-Z]\w+)(?:, [A-Z]\w+)*):", re.MULTILINE)


def section(text: str, title: str) -> str:
    """What stands under a title of a docstring, without it."""
    found = re.search(rf"^{title}:\n((?: {{4}}.*\n?|\n)*)", text, re.MULTILINE)
    return found[1] if found else ""


def described(text: str, title: str) -> set[str]:
    """The names under a title: ``a, b: what they are``, or ``a: what it is; ``b`` what that is``."""
    found = section(text, title)
    return {name for names in NAMED.findall(found) for name in names.split(", ")} | set(re.findall(r"``(\w+)``", found))


def members(kind: type) -> Iterator[tuple[str, Any]]:
    for name, value in vars(kind).items():
        field = name in getattr(kind, "__dataclass_fields__", {})
        if not (name.startswith("_") or field) and (
            callable(value) or isinstance(value, property | classmethod | staticmethod)
        ):
            yield name, value


@pytest.mark.parametrize("name", CALLED)
def test_every_argument_of_a_public_function_is_described(name: str) -> None:
    flat = {parameter for kind in SETTINGS for parameter in inspect.signature(kind).parameters}
    flat |= {"finetune", "finetune_step", "training", "options", "how"}  # stand in the settings
    taken = set(inspect.signature(PUBLIC[name]).parameters)
    text = inspect.getdoc(PUBLIC[name]) or ""
    own = taken - flat if name == "prune" else taken - {"how"}
    if len(own) > 1:
        assert own <= described(text, "Args"), own - described(text, "Args")
    assert text


@pytest.mark.parametrize("name", CALLED)
def test_what_a_public_function_raises_is_ours(name: str) -> None:
    raised = section(inspect.getdoc(PUBLIC[name]) or "", "Raises")
    for kind in (kind for kinds in RAISED.findall(raised) for kind in kinds.split(", ")):
        assert issubclass(getattr(errors, kind, Exception), errors.SeqPruneError) or kind == "TypeError", kind


@pytest.mark.parametrize("name", ["prune", "compare", "sensitivity", "mask", "compact", "verify", "trace"])
def test_what_can_be_given_wrongly_says_so(name: str) -> None:
    assert RAISED.search(section(inspect.getdoc(PUBLIC[name]) or "", "Raises")), name


@pytest.mark.parametrize("name", KINDS)
def test_every_field_and_member_of_a_public_class_is_described(name: str) -> None:
    kind = PUBLIC[name]
    text = inspect.getdoc(kind) or ""
    fields = {field for field in getattr(kind, "__dataclass_fields__", {}) if not field.startswith("_")}
    told = described(text, "Attributes") | set(re.findall(r"``(\w+)``", text))
    source = inspect.getsource(kind)
    told |= {field for field in fields if re.search(rf'^    {field}\b[^\n]*\n    """', source, re.MULTILINE)}
    assert fields <= told, fields - told
    bare = [member for member, value in members(kind) if not inspect.getdoc(value)]
    assert not bare
