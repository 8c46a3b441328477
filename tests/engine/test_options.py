"""Flat keywords stand for settings: all of them, once, with the defaults of the settings."""

from __future__ import annotations

import inspect
from dataclasses import fields

import pytest

import seqprune
from seqprune.engine.options import Options, parameters, settings_of
from seqprune.engine.settings import Choose, Look, Open, Train, as_plain, check_together
from seqprune.errors import InputError

KINDS = (Look, Choose, Train, Open)


def test_every_field_of_the_settings_is_a_keyword_and_no_other() -> None:
    names = [parameter.name for parameter in parameters()]
    assert len(names) == len(set(names)) == sum(len(fields(kind)) for kind in KINDS)
    assert set(names) == set(Options.__annotations__)


def test_what_is_not_said_is_as_by_default() -> None:
    assert settings_of({}) == (Look(), Choose(), Train(), Open())
    defaults = {parameter.name: parameter.default for parameter in parameters()}
    assert settings_of(defaults) == settings_of({})


def test_keywords_become_the_fields_that_they_stand_for() -> None:
    look, choose, train, how = settings_of(
        {"imgsz": 64, "preset": "fast", "protect": ["a"], "finetune": 3, "training": {"lr0": 0.1}, "fixed": ["b"]}
    )
    assert (look.imgsz, choose.protect, how.fixed) == (64, ("a",), ("b",))
    assert (train.epochs, train.arguments) == (3, {"lr0": 0.1})


def test_a_keyword_that_there_is_not_is_pythons_error() -> None:
    with pytest.raises(TypeError, match="unexpected keyword argument 'pretest'"):
        settings_of({"pretest": "fast"})
    with pytest.raises(InputError, match="there is no preset 'fats'"):
        settings_of({"preset": "fats"})


def test_help_shows_all_keywords() -> None:
    shown = inspect.signature(seqprune.prune).parameters
    assert list(shown)[:5] == ["model", "data", "folder", "listener", "progress"]
    assert shown["batch"].default == 16
    assert {"target", "evaluate", "weights", "finetune"} <= set(shown)


def test_a_target_of_time_in_eight_bits_is_met_in_one_process() -> None:
    """Each process would time eight bits by itself, and prune to a target of its own."""
    small, whole = (Look(int8=int8, runtime="onnxruntime") for int8 in (True, False))
    timed, counted = (Choose(preset="accurate", target=target) for target in ("latency=0.5", "flops=0.5"))
    with pytest.raises(InputError, match="in eight bits is met in one process"):
        check_together(small, timed, Train(), 2, has_data=True)
    for look, choose, processes in ((small, timed, 1), (small, counted, 2), (whole, timed, 2)):
        check_together(look, choose, Train(), processes, has_data=True)


def test_eight_bits_are_a_setting_of_a_run_where_a_target_is_met_in_them() -> None:
    """A run begun without them went on with them, to another target."""
    plain = [
        as_plain(Look(int8=int8, runtime="onnxruntime"), Choose(preset="accurate", target=target), Train())
        for target in ("latency=0.5", "flops=0.5")
        for int8 in (True, False)
    ]
    assert [each.get("int8") for each in plain] == [True, None, None, None]
    assert plain[2] == plain[3]
