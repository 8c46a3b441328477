"""What a caller may say of a run, by flat keywords: each stands in one of the settings, which say what it means."""

from __future__ import annotations

from collections.abc import Collection, Iterable, Mapping, Sequence
from dataclasses import MISSING, Field, fields
from inspect import Parameter
from pathlib import Path
from typing import Any, TypedDict, TypeVar

from seqprune.engine.modules import Evaluate
from seqprune.engine.outputs import Outputs
from seqprune.engine.presets import preset_of
from seqprune.engine.settings import Choose, Look, Mode, Open, Train
from seqprune.observe.inputs import Inputs

Kind = TypeVar("Kind")
_TRAIN = {"epochs": "finetune", "step_epochs": "finetune_step", "arguments": "training"}
"""Fields that are called otherwise among so many."""


class Opening(TypedDict, total=False):
    """Of :class:`seqprune.engine.settings.Open`."""

    trust: bool
    classes: Collection[str | int] | None
    example_inputs: Inputs
    evaluate: Evaluate | None
    outputs: Outputs
    fixed: Sequence[str]
    weights: str | Path | None
    mean: Sequence[float] | None
    std: Sequence[float] | None


class Options(Opening, total=False):
    """Of :class:`Look`, :class:`Choose` and :class:`Train` in :mod:`seqprune.engine.settings`, and those above."""

    images: int | None
    imgsz: int | None
    batch: int
    device: str | int
    cache_bytes: int
    cache_half: bool
    amp: bool
    val: bool
    val_steps: bool
    runtime: str
    threads: int | None
    full: bool
    front: bool | None
    int8: bool
    preset: str | None
    layers: int | Sequence[str] | None
    blocks: Iterable[int] | None
    keep: str | float | None
    represent: str | None
    match: str | None
    round_to: int | None
    target: str | None
    recover: str | None
    protect: Sequence[str]
    criterion: str | None
    by: Sequence[str] | None
    mode: Mode
    seed: int
    finetune: int
    finetune_step: int
    distill: bool
    training: Mapping[str, Any] | None


def settings_of(options: Mapping[str, Any]) -> tuple[Look, Choose, Train, Open]:
    """The settings that keywords stand for, checked; what is not said is as it is by default.

    Raises:
        InputError: a value that cannot be used.
        TypeError: there is no such keyword.
    """
    options = {**options, "preset": preset_of(*(options.get(name) for name in ("preset", "target", "criterion")))}
    if strange := sorted(set(options) - {parameter.name for parameter in parameters()}):
        raise TypeError(f"prune() got an unexpected keyword argument {strange[0]!r}")
    return _of(Look, options), _of(Choose, options), _of(Train, options), _of(Open, options)


def parameters() -> list[Parameter]:
    """All keywords with their defaults, as ``help`` shows them."""
    return [
        Parameter(_name(entry), Parameter.KEYWORD_ONLY, default=_default(entry), annotation=entry.type)
        for kind in (Choose, Look, Train, Open)
        for entry in fields(kind)
    ]


def _of(kind: type[Kind], options: Mapping[str, Any]) -> Kind:
    known: Any = fields(kind)  # type: ignore[arg-type]
    given = {entry.name: options[_name(entry)] for entry in known if _name(entry) in options}
    return kind(**given)


def _name(entry: Field[Any]) -> str:
    return _TRAIN.get(entry.name, entry.name)


def _default(entry: Field[Any]) -> Any:
    """That of the settings; of what follows from other keywords, ``None``."""
    return None if entry.default is MISSING or entry.name == "preset" else entry.default
