"""What a caller is told while a job runs."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass

from seqprune.engine.steps import StepReport
from seqprune.errors import InputError


@dataclass
class Listener:
    """Called as the job goes; the default hears nothing.

    Attributes:
        stage: the name of what begins, and how many images it will look at, where that is known.
        progress: how many images were looked at since the last call.
        step: the report of a layer that was decided.
        warning: one line of text.
        epoch: how many epochs of a training are done, of how many, and the mean losses of the last one by name.
        expect: how many images a stage looks at that did not know when it began.
        note: the same, of what is worth knowing and nothing to worry about.
    """

    stage: Callable[[str, int | None], None] = lambda _name, _total: None
    progress: Callable[[int], None] = lambda _done: None
    step: Callable[[StepReport], None] = lambda _report: None
    warning: Callable[[str], None] = lambda _text: None
    epoch: Callable[[int, int, Mapping[str, float]], None] = lambda _done, _total, _losses: None
    note: Callable[[str], None] = lambda _text: None
    expect: Callable[[int], None] = lambda _total: None

    def __post_init__(self) -> None:
        for name, called in vars(self).items():
            if not callable(called):
                raise InputError(f"{name} of a Listener is a {type(called).__name__}: give a function")


def heard(listener: object) -> Listener:
    """The listener that a caller gives; where it is left out, one that hears nothing.

    Raises:
        InputError: it is none.
    """
    if listener is None:
        return Listener()
    if not isinstance(listener, Listener):
        raise InputError(f"the listener is a {type(listener).__name__}: give a seqprune.Listener, or leave it out")
    return listener


def within(told: Listener, where: str) -> Listener:
    """For a try inside of a job: it says ``where`` its stages are and how far it is, and no more."""

    def stage(name: str, total: int | None) -> None:
        told.stage(f"{where}: {name}", total)

    return Listener(stage=stage, progress=told.progress, expect=told.expect)


def together(*listeners: Listener) -> Listener:
    """One that tells all of them."""

    def tell(name: str) -> Callable[..., None]:
        def call(*what: object) -> None:
            for listener in listeners:
                getattr(listener, name)(*what)

        return call

    return Listener(
        tell("stage"), tell("progress"), tell("step"), tell("warning"), tell("epoch"), tell("note"), tell("expect")
    )
