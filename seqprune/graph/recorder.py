"""What a trace states while the network runs: rules call this, and so does the watch over the calls."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from copy import copy
from dataclasses import dataclass
from threading import get_ident
from typing import Any

import numpy as np
import torch
from torch import nn

from seqprune.errors import ModelError
from seqprune.graph.channels import Barrier, IntArray
from seqprune.graph.counts import Part
from seqprune.graph.held import unwatch
from seqprune.graph.reader import Held, Reader, Source
from seqprune.graph.tensors import held_by
from seqprune.graph.values import FIXED, OPAQUE, Value, leaves_of, tensors_among, tensors_in
from seqprune.graph.written import Written


@dataclass
class Recorder(Written):
    """Collects facts during a run; :meth:`finish` turns them into a :class:`ChannelGraph`.

    Rules call ``value``, ``new_layer``, ``cut``, ``tie``, ``pin``, ``balance`` and ``width``; nothing else writes.
    """

    def __post_init__(self) -> None:
        super().__post_init__()
        self.with_gradients = False
        self.thread = get_ident()
        # Kept, since the network's code may catch it and go on, and an interpreter make another error of it.
        self.refused: ModelError | None = None
        # The call that failed last, and why where channel counts disagree: the network's code may catch that as well.
        self.misfit: tuple[BaseException, ModelError | None] | None = None
        self.failed_in = ""
        self._failure: BaseException | None = None
        self.sized_by_data = ""  # the last operator whose result has as many entries as the data say
        self.reader = Reader(self.count_used, self.counts_agree)
        self._originals: dict[int, tuple[str, torch.Tensor]] = {}

    def keep_apart(self, model: nn.Module) -> None:
        """Of these tensors a copy that is traced has its own."""
        for owner, tensor in held_by(dict(model.named_modules())):
            self._originals.setdefault(id(tensor), (f"{owner.module}.{owner.tensor}".lstrip("."), tensor))

    def check_own(self, tensors: Iterable[torch.Tensor]) -> None:
        """
        Raises:
            ModelError: a call takes a tensor of the network that was copied, as every copy of it would.
        """
        for tensor in tensors:
            if found := self._originals.get(id(tensor)):
                raise ModelError(
                    f"{self.module or 'the network'} computes with {found[0]} of the network that was given, as its "
                    "copies would: a function, a hook or a bound method of its code keeps it; let the code reach it "
                    "through self"
                )

    def enter(self, path: str) -> None:
        """A module starts.

        Raises:
            ModelError: it does in another thread.
        """
        if get_ident() != self.thread:
            self.refused = ModelError(
                f"{path} runs in a thread of its own, where calls cannot be watched; let it run where the network does"
            )
            raise self.refused
        self.ran.add(path)
        self.stack.append(path)

    def leave(self, path: str, failure: BaseException | None = None) -> None:
        """A module ends, with an error that its code did not catch where there is one.

        One that was refused when it started, is not on the stack.
        """
        if self.module != path or not self.stack:
            return
        if failure is not None and failure is not self._failure:
            self._failure, self.failed_in = failure, self.module  # the innermost, which is left first
        self.stack.pop()

    @staticmethod
    def fixed(channels: int) -> IntArray:
        """Atoms of channels that are no layer's output."""
        return np.full(channels, FIXED)

    def begin(self) -> None:
        """A pass starts."""
        self.refused = self.misfit = self._failure = None
        self.failed_in = ""
        self.stack.clear()
        self.constants.begin()

    def let_go(self) -> None:
        """Frees the copy now: the counts in its modules know the recorder, a cycle that stays till it is collected."""
        self.reader.end()
        vars(self).clear()

    def reads(self, weight: torch.Tensor) -> None:
        """States that a layer reads with this weight."""
        self.constants.reads(id(weight))

    def fold(self, weight: torch.Tensor, atoms: IntArray) -> None:
        """States that channels which are constant once removed go into the bias of the layer with this weight."""
        if why_not := self.constants.fold(id(weight), atoms):
            self.pin(atoms, why_not)

    def facts(self) -> dict[str, Any]:
        """What is written down so far, to go back to."""
        kept = "_ties _pins _cuts _layers _balances _widths _barriers _foreign ran".split()
        own = {"_deferred": self._deferred.copy(), "constants": self.constants.copy()}
        return {name: copy(getattr(self, name)) for name in kept} | own

    def forget(self, facts: dict[str, Any]) -> None:
        """Goes back to what was written down then: a pass that failed tells nothing."""
        vars(self).update(facts)

    def computed_with(self, op: str, made: Iterable[Value], given: Sequence[Any]) -> None:
        """Pins what is constant once removed, where the numbers that made it are others in another pass."""
        leaves = leaves_of(*given)
        held = [id(part) for tensor in tensors_among(leaves) for part in self.held_in(tensor) if self.owners(part)]
        for atoms in self.constants.unsteady(self.module, op, made, [*leaves, *held]):
            self.pin(atoms, f"{op} in {self.module or 'the network'} adds another number in another pass")

    def keeps_gradients(self, required: bool) -> bool:
        """What ``requires_grad`` is to say: a trace keeps no gradients, and runs what code does where some are."""
        return required or (self.with_gradients and torch.is_grad_enabled())

    def barrier(self, op: str, args: Any, reason: str) -> None:
        """Pins all that reaches an operator, and says so."""
        tensors = self.tracked(args)
        for tensor in tensors:
            value = self.followed(tensor)
            if value.atoms is not None:
                self.pin(value.atoms, f"{op} in {self.module or 'the network'}: {reason}")
        shape = tuple(tensors[0].shape) if tensors else ()
        self._barriers.setdefault((op, self.module, reason), Barrier(op, self.module, shape, reason))
        self.foreign(args, op)

    def foreign(self, args: Any, op: str) -> None:
        """Remembers parameters that an operator without a rule reads: their shape must not change."""
        for tensor in (held for each in tensors_in(args) for held in self.held_in(each)):
            if id(tensor) in self._owners:
                self._foreign.setdefault(id(tensor), f"{op} in {self.module or 'the network'} reads the parameter")

    def lost(self, made: Sequence[torch.Tensor]) -> list[Value]:
        """What is known of the results of a barrier: all that reached it stays, so nothing in them can leave."""
        return [self.without_channels(tensor) if tensor.dim() else OPAQUE for tensor in made]

    def without_channels(self, made: torch.Tensor) -> Value:
        """Of a result along none of whose dimensions channels lie that may leave."""
        dim = min(1, made.dim() - 1)
        return Value(self.fixed(made.shape[dim]), dim)

    def reaching(self, tensors: Iterable[torch.Tensor], op: str) -> list[torch.Tensor]:
        """Those that depend on the network's input.

        Pins what an operator gets through an object that no watched call made, as autograd.Function hands it on.
        """
        found = []
        for tensor in tensors:
            if self.value(tensor) is None:
                if self.owners(tensor) or not self._storages.of(tensor):
                    continue
                self.pin_storage(tensor, op)
                self.set_value(tensor, OPAQUE)
            found.append(tensor)
        return found

    def knows(self, args: Sequence[Any]) -> bool:
        """Whether the channels of what a call takes first are followed, and may leave."""
        value = self.value(args[0]) if args else None
        return value is not None and not value.opaque and not value.fixed

    def pin_counted(self, tree: Any) -> None:
        """Pins channels whose number the code reads: what it does with the number cannot be seen."""
        for tensor in self.tracked(tree):
            value = self.followed(tensor)
            if value.atoms is not None:
                self.count_used(value.atoms, self.module)

    def stop_watching(self) -> None:
        """From here on the modules of the copy hold plain numbers."""
        unwatch(self.model)
        self._deferred.blind = self.reader.eager = True

    def counts_equal(self, left: Source, right: Source) -> None:
        """As many channels stay here as there, since the code hands one number on for both."""
        where = self.module or "the network"
        self._deferred.equal.append((left, right, f"{where} splits them by a width it holds"))

    def is_part_of(self, atoms: IntArray, part: Part) -> bool:
        """Whether these channels are what a part was made of; of a number that a module holds it is, if as many."""
        if not isinstance(part.source, Held):
            return np.array_equal(atoms, part.channels)
        if len(atoms) != part.whole:
            return False
        self.counts_equal(atoms, part.source)
        return True

    def count_used(self, source: Source, module: str) -> None:
        """Pins what is counted by a number that the code of ``module`` computes with."""
        self._deferred.used.append((source, f"the code of {module or 'the network'} reads their number"))

    def counts_agree(self, left: Source, right: Source, module: str) -> None:
        """As many channels stay here as there, since code compares their numbers and found them equal."""
        self._deferred.equal.append((left, right, f"{module or 'the network'} compares their numbers"))

    def tie_counted(self, left: Source, right: Source) -> None:
        """Ties channels to those whose number the code hands on for them."""
        self._deferred.tied.append((left, right, f"{self.module or 'the network'} gives them the number of others"))

    def reads_of(self, module: str) -> bool:
        """Whether a call read a tensor of a module."""
        foreign = {owner.module for key in self._foreign for owner in self._owners[key]}
        return module in foreign or any(path == module for path, _, _ in self._cuts)

    def pin_storage(self, tensor: torch.Tensor, op: str) -> None:
        """Pins whatever shares memory with a tensor that was overwritten in place."""
        for value in self._storages.of(tensor):
            if value.atoms is not None:
                self.pin(
                    value.atoms,
                    f"{op} in {self.module or 'the network'} shares its memory in a way that is not followed",
                )
