"""The watch over the calls that a running network makes; :mod:`seqprune.graph.below` is the one over operators."""

from __future__ import annotations

import sys
from collections.abc import Callable, Mapping, Sequence
from typing import Any

import torch
from torch.overrides import TorchFunctionMode

from seqprune.errors import ModelError
from seqprune.graph.below import OperatorWatch
from seqprune.graph.computed import JOINS, computed
from seqprune.graph.counts import Count, WatchedSize, counts_among, counts_in, taken, without_counts
from seqprune.graph.names import op_name, writes_in_place
from seqprune.graph.reader import Held, Source, place
from seqprune.graph.recorder import Recorder
from seqprune.graph.rules import RULES, TAKES_OPAQUE, NoRule, check_dims, misfit
from seqprune.graph.rules.reshaping import FOLLOWS_COUNTS, VIEWS, views_one_dimension
from seqprune.graph.values import ANY_FAILURE, OPAQUE, Value, leaves_of, tensors_among, tensors_in

# Reading these, or setting them, tells nothing of the values in a tensor.
METADATA = frozenset(["set requires_grad", "set grad"]) | frozenset(
    "dim dtype device layout ndim ndimension names storage_offset element_size get_device is_contiguous "
    "is_floating_point is_complex is_cuda is_cpu is_mps is_meta is_leaf is_quantized is_sparse is_xpu is_nested "
    "is_inference is_signed is_conj is_neg requires_grad grad_fn grad is_mkldnn is_pinned hash repr format class "
    "is_xla is_mtia is_maia is_ipu is_vulkan retains_grad itemsize result_type is_shared".split()
)
# These tell the channel count, which code may use in ways a trace cannot see.
COUNTS = frozenset("size shape numel nelement stride nbytes untyped_storage len".split())
# Keywords that torch takes for its own.
ALIASES = {"axis": "dim", "keepdims": "keepdim"}
# Tensors made in the shape of another one: as many channels, none of its values.
# What is found decides how much of it there is: code that asks for that may run other layers for other data.
SIZED_BY_DATA = frozenset("nonzero argwhere masked_select unique unique_consecutive bincount nms".split())
LIKE = frozenset("zeros_like ones_like empty_like full_like rand_like randn_like randint_like".split())
# Tensors made of the type of another one, in a shape that is written out.
NEW = frozenset("new_zeros new_ones new_empty new_full new_tensor new".split())
# The same, where it is the second argument that lends its shape or type.
LENDS_SECOND = frozenset("to type_as expand_as view_as reshape_as".split())
LENDS_SHAPE = frozenset("expand_as view_as reshape_as".split())


class CallWatch(TorchFunctionMode):
    """Tells a recorder of every call, where the network makes it."""

    def __init__(self, recorder: Recorder, operators: OperatorWatch) -> None:
        super().__init__()
        self.recorder, self.operators = recorder, operators

    def __torch_function__(
        self,
        func: Callable[..., Any],
        types: Any,
        args: Sequence[Any] = (),
        kwargs: Mapping[str, Any] | None = None,
    ) -> Any:
        kwargs = dict(kwargs or {})
        name = op_name(func)
        handed = leaves_of(*args, *kwargs.values())
        tensors, counts = tensors_among(handed), counts_among(handed)
        self.recorder.reader.settle(counts, place(sys._getframe(1)))
        given = args, kwargs
        if counts:
            args, kwargs = without_counts(given)
        aside = self.operators.stand_aside()
        followed = False
        try:
            if name not in METADATA:
                self.recorder.check_own(tensors)
            out = func(*args, **kwargs)
            if name == "requires_grad" and func.__name__ == "__get__":
                return self.recorder.keeps_gradients(out)
            if name in METADATA or isinstance(out, str):  # the name of a type
                return out
            if name in COUNTS:
                return self.counted(name, args, kwargs, out)
            if name in LIKE and not (name in RULES and self.recorder.knows(args)):
                self.recorder.pin_counted((args, kwargs))
            elif name not in NEW or self.recorder.tracked((args[1:], kwargs)):
                follows = name in FOLLOWS_COUNTS
                seen = given if follows else (args, kwargs)
                in_place = writes_in_place(func, kwargs)
                followed = self.record(in_place, tensors, name, *seen, out) and follows
        except ModelError as error:
            self.recorder.refused = error
            raise
        except ANY_FAILURE as error:
            # Code that catches it does otherwise, as it may not where the call gets fewer channels.
            self.recorder.barrier(name, given, f"it fails, with {type(error).__name__}")
            if name in ("conv2d", "linear"):
                self.recorder.misfit = error, _why_no_fit(self.recorder, name, args, kwargs)
            raise
        finally:
            self.operators.go_on(aside)
            for count in () if followed else counts:
                count.use()
        return out

    def counted(self, name: str, args: Sequence[Any], kwargs: Mapping[str, Any], out: Any) -> Any:
        """What the code gets in the place of ``out``: numbers of channels as counts, other sizes as they are.

        ``len``, ``numel`` and strides give plain numbers, and pin the channels they tell of.
        """
        tensor = args[0] if args else kwargs["input"]
        sources, where, reader = self.sources(tensor), self.recorder.module, self.recorder.reader
        if isinstance(out, torch.Size):
            sizes = [Count(n, sources[at], reader, where) if at in sources else n for at, n in enumerate(out)]
            return WatchedSize(sizes) if sources else out
        asked = {"size": kwargs.get("dim", args[1] if len(args) > 1 else None), "len": 0}.get(name)
        told = sources if asked is None else {asked % tensor.dim()} & sources.keys()
        if name == "size" and told:
            return taken(Count(out, sources[asked % tensor.dim()], reader, where))
        for at in told:
            self.recorder.count_used(sources[at], where)
        return out

    def sources(self, tensor: torch.Tensor) -> dict[int, Source]:
        """By dimension, what the sizes of a tensor count: channels that flow, or those that a module holds."""
        value = self.recorder.value(tensor)
        if value is not None:
            return {} if value.atoms is None else {value.dim: value.atoms}
        parameter = self.recorder.held_in(tensor)[0]
        owners = self.recorder.owners(parameter)
        if not owners:
            return {}
        name = owners[0]
        if parameter is not tensor:  # with dimensions of size one around the only one
            dim = next((at for at, n in enumerate(parameter.shape) if n > 1), 0)
            return {at: Held(name.module, ((name.tensor, dim),)) for at, n in enumerate(tensor.shape) if n > 1}
        return {at: Held(name.module, ((name.tensor, at),)) for at in range(tensor.dim())}

    def record(
        self,
        in_place: bool,
        tensors: list[torch.Tensor],
        name: str,
        args: Sequence[Any],
        kwargs: Mapping[str, Any],
        out: Any,
    ) -> bool:
        """Writes down what a call did with channels; whether they were followed through it."""
        r = self.recorder
        _refuse_transforms(r, tensors)
        tracked = r.reaching(tensors, name)
        if not tracked or (name in LENDS_SECOND and r.value(args[0]) is None):
            return self.untracked(name, in_place, args, kwargs, out)
        results = tensors_in(out)
        if not results and name != "setitem":
            raise ModelError(
                f"{r.module or 'the network'} reads values of its input with {name}: which layers run may depend on "
                "the data, so channels cannot be followed; trace the part of the network before it"
            )
        if name in SIZED_BY_DATA or (name == "getitem" and any(t.dtype == torch.bool for t in tensors_in(args[1:]))):
            r.sized_by_data = name
        found = self.values(name, tracked, results, args, kwargs, out)
        values = r.lost(results) if found is None else found
        if name not in JOINS and (worked_out := list(filter(r.is_computed, tensors))):
            r.foreign(worked_out, name)
        if in_place:
            first = args[0] if args else kwargs.get("input", tensors[0])
            for target in tensors_in(kwargs.get("out")) or tensors_in(first):  # of many in a list, as _foreach_add_
                if found is None or any(v.opaque or not v.zero for v in values):
                    r.pin_storage(target, name)
                r.set_value(target, values[0] if values else OPAQUE)
        for tensor, value in zip(results, values, strict=True):
            r.set_value(tensor, value)
        return found is not None

    def untracked(self, name: str, in_place: bool, args: Sequence[Any], kwargs: Mapping[str, Any], out: Any) -> bool:
        """Writes down what a call does with tensors of the network's own; whether that is followed."""
        r = self.recorder
        if name in VIEWS and args and r.owners(r.held_in(args[0])[0]) and views_one_dimension(name, args, kwargs, out):
            r.adopt_view(out, args[0])
            for count in counts_in(args):
                r.tie_counted(self.sources(args[0])[0], count.source)
            return True
        found = None if in_place else computed(name, args, kwargs, out, r.computed)
        if found is not None:
            if not r.owners(out):
                r.set_computed(out, found)
            return True
        if name in LENDS_SHAPE:
            r.pin_counted((args, kwargs))
        r.foreign((args, kwargs), name)
        return False

    def values(
        self,
        name: str,
        tracked: list[torch.Tensor],
        results: list[torch.Tensor],
        args: Sequence[Any],
        kwargs: Mapping[str, Any],
        out: Any,
    ) -> list[Value] | None:
        """The channels of a call's results, ``None`` where a barrier lost them."""
        r = self.recorder
        opaque = [t for t in tracked if (v := r.value(t)) is not None and v.opaque]
        if kwargs.get("out") is not None or name not in RULES:
            r.barrier(name, (args, kwargs), "no rule for this operator")
            return None
        if opaque and name not in TAKES_OPAQUE:
            if len(opaque) < len(tracked):
                r.barrier(name, (args, kwargs), "joins channels that were lost at an earlier barrier")
            r.foreign((args, kwargs), name)
            return None
        try:
            args, kwargs = _named_as_rules_do(RULES[name], (r, out, *args), kwargs)
            check_dims(name, tracked[0].dim())
            value = RULES[name](*args, **kwargs)
            found = value if isinstance(value, list) else [value]
            _check_values(found, results)
            r.computed_with(name, found, (args[2:], kwargs))
        except NoRule as why:
            r.barrier(name, (args, kwargs), str(why))
            return None
        return found


def _check_values(values: list[Value], results: list[torch.Tensor]) -> None:
    """Raises :class:`NoRule` where a rule says of a tensor what it cannot be.

    This says that the rule does not know what the operator did: pooling took the channels for space.
    """
    for value, tensor in zip(values, results, strict=True):
        if value.atoms is not None and (*tensor.shape,)[value.dim : value.dim + 1] != value.atoms.shape:
            raise NoRule("leaves another number of channels than its rule expects")


def _named_as_rules_do(
    rule: Callable[..., Any], args: tuple[Any, ...], kwargs: Mapping[str, Any]
) -> tuple[tuple[Any, ...], dict[str, Any]]:
    """The arguments of a rule, of which the first two are its own, where a network names them in another way.

    Raises:
        NoRule: the rule has no such argument.
    """
    named = {ALIASES.get(name, name): value for name, value in kwargs.items() if name != "out"}
    if len(args) == 2 and "input" in named:
        args = (*args, named.pop("input"))
    if error := misfit(rule, len(args), tuple(named)):
        raise NoRule(f"called in a way that its rule does not know: {error}")
    return args, named


def _refuse_transforms(r: Recorder, tensors: Sequence[torch.Tensor]) -> None:
    """Inside torch.vmap and torch.func tensors stand for others, with dimensions that code does not see."""
    if any(map(torch._C._functorch.is_functorch_wrapped_tensor, tensors)):
        raise ModelError(
            f"{r.module or 'the network'} computes under torch.vmap or torch.func, where channels cannot be followed; "
            "give a network that calls its layers on whole batches"
        )


def _why_no_fit(r: Recorder, name: str, args: Sequence[Any], kwargs: Mapping[str, Any]) -> ModelError | None:
    """Of a layer that fails, what is to be said where the network's channel counts disagree."""
    x = args[0] if args else kwargs["input"]
    weight = args[1] if len(args) > 1 else kwargs["weight"]
    groups = (args[6] if len(args) > 6 else kwargs.get("groups", 1)) if name == "conv2d" else 1
    dim = x.dim() - 1 if name == "linear" else x.dim() - 3
    if weight.dim() < 2 or dim < 0:
        return None
    takes, gets = weight.shape[1] * groups, x.shape[dim]
    if takes == gets:
        return None
    value = r.value(x)
    sources = (
        ""
        if value is None or value.atoms is None or value.fixed
        else " from " + ", ".join(dict.fromkeys(r.layer_of(a) for a in value.atoms.tolist()))
    )
    if value is not None and not r.has_layers:
        return ModelError(
            f"{r.module or 'a layer'} takes {takes} channels, but the input has {gets}: give inputs as it takes them"
        )
    return ModelError(
        f"{r.module or 'a layer'} takes {takes} channels, but {gets} reach it{sources}: the model was pruned by "
        "halves, likely by another tool; start from the unpruned weights, or narrow the producer as well"
    )
