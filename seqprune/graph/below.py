"""The watch over operators that run where a network makes no call that could be watched."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from torch.utils._python_dispatch import TorchDispatchMode, _get_current_dispatch_mode, _pop_mode, _push_mode

from seqprune.errors import ModelError
from seqprune.graph.recorder import Recorder


class OperatorWatch(TorchDispatchMode):  # type: ignore[no-untyped-call]
    """Sees what runs below; anything outside a watched call was not recorded."""

    @classmethod
    def _should_skip_dynamo(cls) -> bool:
        # From torch 2.6 on the handler is wrapped for the compiler, which costs seconds of imports nobody needs here.
        return False

    def __init__(self, recorder: Recorder) -> None:
        super().__init__()  # type: ignore[no-untyped-call]
        self.recorder = recorder
        self.inside = 0

    def stand_aside(self) -> bool:
        """A watched call begins, in which every operator would be let pass; whether torch asks no more meanwhile."""
        self.inside += 1
        innermost = _get_current_dispatch_mode() is self
        if innermost:
            _pop_mode()
        return innermost

    def go_on(self, aside: bool) -> None:
        """The call ends."""
        self.inside -= 1
        if aside:
            _push_mode(self)

    def __torch_dispatch__(
        self, func: Any, types: Any, args: Sequence[Any] = (), kwargs: Mapping[str, Any] | None = None
    ) -> Any:
        if not self.inside and self.recorder.shares_memory((args, kwargs)):
            where = self.recorder.module or "the network"
            self.recorder.refused = ModelError(
                f"{where} runs {func} where no call can be watched, likely in an autograd.Function, a function of "
                "torch.jit, or compiled code; trace the plain Python version of the module"
            )
            raise self.recorder.refused
        return func(*args, **(kwargs or {}))
