"""Two watches over a running network: the calls it makes, and the operators that run below them."""

from __future__ import annotations

import inspect
import math
import re
from collections.abc import Callable, Iterator, Mapping, Sequence
from functools import partial
from typing import Any

import torch
from torch.overrides import TorchFunctionMode
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_leaves

from seqprune.errors import ModelError
from seqprune.graph.recorder import Recorder
from seqprune.graph.rules import RULES, TAKES_OPAQUE, NoRule
from seqprune.graph.rules.reshaping import VIEWS, views_one_dimension
from seqprune.graph.values import OPAQUE, Value, tensors_in

# Reading these tells nothing of the values in a tensor.
METADATA = frozenset(
    "dim dtype device layout ndim ndimension names storage_offset "
    "element_size get_device is_contiguous is_floating_point is_complex is_cuda is_cpu is_mps is_meta is_leaf "
    "is_quantized is_sparse is_xpu is_nested is_inference is_signed is_conj is_neg requires_grad grad_fn grad "
    "is_mkldnn is_pinned untyped_storage hash repr format class is_xla is_mtia is_maia is_ipu is_vulkan "
    "retains_grad itemsize nbytes".split()
)
# These tell the channel count, which code may use in ways a trace cannot see.
COUNTS = frozenset("size shape numel nelement stride nbytes len".split())
# Keywords that torch takes for its own.
ALIASES = {"axis": "dim", "keepdims": "keepdim"}
# Tensors made in the shape of another one: as many channels, none of its values.
LIKE = frozenset("zeros_like ones_like empty_like full_like rand_like randn_like randint_like".split())
# Tensors made of the type of another one, in a shape that is written out.
NEW = frozenset("new_zeros new_ones new_empty new_full new_tensor new".split())
# The same, where it is the second argument that lends its shape or type.
LENDS_SECOND = frozenset("to type_as expand_as view_as reshape_as".split())


def op_name(function: Callable[..., Any]) -> str:
    """``torch.Tensor.__iadd__`` → ``add``, ``torch.relu_`` → ``relu``, ``torch.Tensor.shape.__get__`` → ``shape``."""
    name = getattr(function, "__name__", None) or str(function)
    if name == "__get__":  # a property of Tensor
        name = function.__self__.__name__  # type: ignore[attr-defined]
    name = name.rsplit(".", 1)[-1]
    if dunder := re.fullmatch(r"__(.+)__", name):
        name = dunder[1]
        return {
            "iadd": "add",
            "radd": "add",
            "imul": "mul",
            "rmul": "mul",
            "isub": "sub",
            "itruediv": "div",
        }.get(name, {"truediv": "div"}.get(name, name))
    return name.rstrip("_")


def _writes_in_place(function: Callable[..., Any], kwargs: Mapping[str, Any]) -> bool:
    name = getattr(function, "__name__", "")
    own = (name.endswith("_") and not name.startswith("__")) or re.fullmatch(r"__i(?!nvert).+__|__setitem__", name)
    return bool(own or kwargs.get("inplace") or kwargs.get("out") is not None)


class WatchedSize(tuple[int, ...]):
    """A shape that tells when the channel count is taken out of it."""

    dim: int
    read: Callable[[], None]

    def __new__(cls, sizes: Sequence[int], dim: int, read: Callable[[], None]) -> WatchedSize:
        self = super().__new__(cls, sizes)
        self.dim, self.read = dim, read
        return self

    def __getitem__(self, index: Any) -> Any:
        taken = range(len(self))[index]
        if self.dim in (taken if isinstance(taken, range) else (taken,)):
            self.read()
        found = super().__getitem__(index)
        return torch.Size(found) if isinstance(index, slice) else found

    def __eq__(self, other: object) -> bool:
        # Where another dimension differs already, the answer tells nothing of the channels.
        if not isinstance(other, tuple) or len(other) != len(self):
            return False
        sizes = list(zip(tuple.__iter__(self), tuple.__iter__(other), strict=True))
        if any(a != b for at, (a, b) in enumerate(sizes) if at != self.dim):
            return False
        self.read()
        return bool(sizes[self.dim][0] == sizes[self.dim][1])

    def __ne__(self, other: object) -> bool:
        return not self == other

    def whole(self) -> tuple[int, ...]:
        """All sizes, the channel count read."""
        self.read()
        return tuple(tuple.__iter__(self))

    def __iter__(self) -> Iterator[int]:
        return iter(self.whole())

    def __hash__(self) -> int:
        return hash(self.whole())

    def __add__(self, other: Any) -> Any:
        return self.whole() + tuple(other)

    def __radd__(self, other: Any) -> Any:
        return tuple(other) + self.whole()

    def __mul__(self, times: Any) -> Any:
        return self.whole() * times

    def __lt__(self, other: Any) -> bool:
        return self.whole() < tuple(other)

    def __gt__(self, other: Any) -> bool:
        return self.whole() > tuple(other)

    def __contains__(self, size: object) -> bool:
        return size in self.whole()

    def count(self, size: Any) -> int:
        return self.whole().count(size)

    def index(self, *arguments: Any) -> int:
        return self.whole().index(*arguments)

    def numel(self) -> int:
        return math.prod(self.whole())


class CallWatch(TorchFunctionMode):
    def __init__(self, recorder: Recorder) -> None:
        super().__init__()
        self.recorder = recorder
        self.inside = 0

    def __torch_function__(
        self,
        func: Callable[..., Any],
        types: Any,
        args: Sequence[Any] = (),
        kwargs: Mapping[str, Any] | None = None,
    ) -> Any:
        kwargs = dict(kwargs or {})
        name = op_name(func)
        if name in ("conv2d", "linear"):
            _check_width(self.recorder, name, args, kwargs)
        self.inside += 1
        try:
            out = func(*args, **kwargs)
            for size in tree_leaves((args, kwargs)):
                if isinstance(size, WatchedSize):
                    size.read()
            if name in COUNTS:
                return self.counted(name, args, kwargs, out)
            if name in LIKE:
                self.recorder.pin_counted(args)
            elif name not in METADATA and (name not in NEW or self.recorder.tracked((args[1:], kwargs))):
                self.record(name, _writes_in_place(func, kwargs), args, kwargs, out)
        finally:
            self.inside -= 1
        return out

    def counted(self, name: str, args: Sequence[Any], kwargs: Mapping[str, Any], out: Any) -> Any:
        """Pins the channels whose number the code reads; sizes of other dimensions are free to read."""
        tensor = args[0] if args else kwargs["input"]
        value = self.recorder.value(tensor)
        if value is None or value.opaque:
            return out
        read = partial(self.recorder.pin_counted, (tensor,), self.recorder.module)
        if isinstance(out, torch.Size):
            return WatchedSize(out, value.dim, read)
        asked = {"size": kwargs.get("dim", args[1] if len(args) > 1 else None), "len": 0}.get(name)
        if asked is None or asked % tensor.dim() == value.dim:
            read()
        return out

    def record(self, name: str, in_place: bool, args: Sequence[Any], kwargs: Mapping[str, Any], out: Any) -> None:
        r = self.recorder
        r.adopt_aliases((args, kwargs), name)
        tracked = r.tracked((args, kwargs))
        if not tracked or (name in LENDS_SECOND and r.value(args[0]) is None):
            if name in VIEWS and views_one_dimension(args, kwargs, out) and r.owners(args[0]):
                r.adopt_view(out, args[0])
            else:
                r.foreign((args, kwargs), name)
            return
        results = tensors_in(out)
        if name != "setitem" and not results:
            raise ModelError(
                f"{r.module or 'the network'} reads values of its input with {name}: which layers run may depend on "
                "the data, so channels cannot be followed; trace the part of the network before it"
            )
        values = self.values(name, tracked, args, kwargs, out)
        if in_place:
            target = args[0]
            if any(v.opaque or not v.zero for v in values):
                r.pin_storage(target, name)
            r.set_value(target, values[0] if values else OPAQUE)
        for tensor, value in zip(results, values, strict=True):
            r.set_value(tensor, value)

    def values(
        self, name: str, tracked: list[torch.Tensor], args: Sequence[Any], kwargs: Mapping[str, Any], out: Any
    ) -> list[Value]:
        r = self.recorder
        opaque = [t for t in tracked if (v := r.value(t)) is not None and v.opaque]
        results = tensors_in(out)
        if kwargs.get("out") is not None or name not in RULES:
            if len(opaque) < len(tracked) or name not in RULES:
                r.barrier(name, (args, kwargs), "no rule for this operator")
            return [OPAQUE] * len(results)
        if opaque and name not in TAKES_OPAQUE:
            if len(opaque) < len(tracked):
                r.barrier(name, (args, kwargs), "joins channels that were lost at an earlier barrier")
            r.foreign((args, kwargs), name)
            return [OPAQUE] * len(results)
        try:
            args, kwargs = _named_as_rules_do(RULES[name], (r, out, *args), kwargs)
            value = RULES[name](*args, **kwargs)
        except NoRule as why:
            r.barrier(name, (args, kwargs), str(why))
            return [OPAQUE] * len(results)
        return value if isinstance(value, list) else [value]


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
    try:
        inspect.signature(rule).bind(*args, **named)
    except TypeError as error:
        raise NoRule(f"called in a way that its rule does not know: {error}") from error
    return args, named


class OperatorWatch(TorchDispatchMode):  # type: ignore[no-untyped-call]
    """Sees what runs below; anything outside a watched call was not recorded."""

    @classmethod
    def _should_skip_dynamo(cls) -> bool:
        # From torch 2.6 on the handler is wrapped for the compiler, which costs seconds of imports nobody needs here.
        return False

    def __init__(self, watch: CallWatch) -> None:
        super().__init__()  # type: ignore[no-untyped-call]
        self.watch = watch

    def __torch_dispatch__(
        self, func: Any, types: Any, args: Sequence[Any] = (), kwargs: Mapping[str, Any] | None = None
    ) -> Any:
        if not self.watch.inside and self.watch.recorder.shares_memory((args, kwargs)):
            where = self.watch.recorder.module or "the network"
            raise ModelError(
                f"{where} runs {func} where no call can be watched, likely in an autograd.Function or compiled code; "
                "trace the plain Python version of the module"
            )
        return func(*args, **(kwargs or {}))


def _check_width(r: Recorder, name: str, args: Sequence[Any], kwargs: Mapping[str, Any]) -> None:
    """A network whose channel counts disagree is named before torch fails on it."""
    x = args[0] if args else kwargs["input"]
    weight = args[1] if len(args) > 1 else kwargs["weight"]
    groups = (args[6] if len(args) > 6 else kwargs.get("groups", 1)) if name == "conv2d" else 1
    dim = x.dim() - 1 if name == "linear" else x.dim() - 3
    takes, gets = weight.shape[1] * groups, x.shape[dim]
    if takes == gets:
        return
    value = r.value(x)
    sources = (
        ""
        if value is None or value.atoms is None
        else " from " + ", ".join(dict.fromkeys(r.layer_of(a) for a in value.atoms.tolist()))
    )
    raise ModelError(
        f"{r.module or 'a layer'} takes {takes} channels, but {gets} reach it{sources}: the model was pruned by "
        "halves, likely by another tool; start from the unpruned weights, or narrow the producer as well"
    )
