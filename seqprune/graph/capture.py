"""Runs a network once and follows its channels.

The calls are watched where the network makes them (``TorchFunctionMode``): ``chunk`` and ``split`` are still
apart there, sizes stand as the code wrote them, the names are the same from torch 2.4 on, and a trace costs one
small forward pass. A second watch sits below (``TorchDispatchMode``): an operator that runs without a watched
call around it, as inside an ``autograd.Function``, is an error and never overlooked. So is a value of the network's
input that leaves the tensors (``item``, ``if x.sum() > 0``): the channels of the branch not taken are unknown.

The network is run as for inference and as for training, since a head may read other channels then.
"""

from __future__ import annotations

import math
import re
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from copy import deepcopy
from typing import Any

import torch
from torch import nn
from torch.overrides import TorchFunctionMode
from torch.utils._python_dispatch import TorchDispatchMode

from seqprune import outputs
from seqprune.errors import ModelError
from seqprune.graph.channels import ChannelGraph
from seqprune.graph.recorder import OPAQUE, Recorder, Value, tensors_in
from seqprune.graph.rules import RULES, TAKES_OPAQUE, NoRule

# Reading these tells nothing of the values in a tensor.
METADATA = frozenset(
    "dim dtype device layout ndim ndimension names len storage_offset "
    "element_size get_device is_contiguous is_floating_point is_complex is_cuda is_cpu is_mps is_meta is_leaf "
    "is_quantized is_sparse is_xpu is_nested is_inference is_signed is_conj is_neg requires_grad grad_fn grad "
    "is_mkldnn is_pinned untyped_storage hash repr format class is_xla is_mtia is_maia is_ipu is_vulkan "
    "retains_grad itemsize nbytes".split()
)
# These tell the channel count, which code may use in ways a trace cannot see.
COUNTS = frozenset("size shape numel nelement stride nbytes".split())
# Tensors made after the shape or type of another one, not after its values.
CONSTANTS = frozenset(
    "zeros_like ones_like empty_like full_like rand_like randn_like new_zeros new_ones new_empty new_full "
    "new_tensor new".split()
)
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


class _WatchedSize(tuple[int, ...]):
    """A shape that tells when the channel count is taken out of it."""

    _dim: int
    _read: Callable[[], None]

    def __new__(cls, sizes: Sequence[int], dim: int, read: Callable[[], None]) -> _WatchedSize:
        self = super().__new__(cls, sizes)
        self._dim, self._read = dim, read
        return self

    def __getitem__(self, index: Any) -> Any:
        taken = range(len(self))[index]
        if self._dim in (taken if isinstance(taken, range) else (taken,)):
            self._read()
        return super().__getitem__(index)

    def __iter__(self) -> Iterator[int]:
        self._read()
        return super().__iter__()

    def __eq__(self, other: object) -> bool:
        # Where another dimension differs already, the answer tells nothing of the channels.
        if not isinstance(other, tuple) or len(other) != len(self):
            return False
        sizes = list(zip(tuple.__iter__(self), tuple.__iter__(other), strict=True))
        if any(a != b for at, (a, b) in enumerate(sizes) if at != self._dim):
            return False
        self._read()
        return bool(sizes[self._dim][0] == sizes[self._dim][1])

    def __ne__(self, other: object) -> bool:
        return not self == other

    def __hash__(self) -> int:
        self._read()
        return super().__hash__()

    def __add__(self, other: Any) -> Any:
        self._read()
        return super().__add__(other)

    def numel(self) -> int:
        return math.prod(self)


class _Watch(TorchFunctionMode):
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
            if name in COUNTS:
                return self.counted(name, args, out)
            if name not in METADATA and name not in CONSTANTS:
                self.record(name, _writes_in_place(func, kwargs), args, kwargs, out)
        finally:
            self.inside -= 1
        return out

    def counted(self, name: str, args: Sequence[Any], out: Any) -> Any:
        """Pins the channels whose number the code reads; sizes of other dimensions are free to read."""
        value = self.recorder.value(args[0])
        if value is None or value.atoms is None:
            return out
        atoms, module = value.atoms, self.recorder.module or "the network"

        def read() -> None:
            self.recorder.pin(atoms, f"the code of {module} reads their number")

        if isinstance(out, torch.Size):
            return _WatchedSize(out, value.dim, read)
        if name != "size" or args[1] % args[0].dim() == value.dim:
            read()
        return out

    def record(self, name: str, in_place: bool, args: Sequence[Any], kwargs: Mapping[str, Any], out: Any) -> None:
        r = self.recorder
        r.adopt_aliases((args, kwargs), name)
        tracked = r.tracked((args, kwargs))
        if not tracked or (name in LENDS_SECOND and r.value(args[0]) is None):
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
            value = RULES[name](r, out, *args, **kwargs)
        except NoRule as why:
            r.barrier(name, (args, kwargs), str(why))
            return [OPAQUE] * len(results)
        return value if isinstance(value, list) else [value]


class _Guard(TorchDispatchMode):  # type: ignore[no-untyped-call]
    """Sees what runs below; anything outside a watched call was not recorded."""

    @classmethod
    def _should_skip_dynamo(cls) -> bool:
        # From torch 2.6 on the handler is wrapped for the compiler, which costs seconds of imports nobody needs here.
        return False

    def __init__(self, watch: _Watch) -> None:
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


def trace(model: nn.Module, example_inputs: torch.Tensor | tuple[Any, ...]) -> ChannelGraph:
    """Follows the channels of a network through one inference and one training pass.

    Args:
        model: any module that runs on ``example_inputs``; it is copied, never changed.
        example_inputs: what the network takes; dimension 1 of each floating-point tensor holds its channels.
            Small images do; a batch of one is doubled for the training pass.

    Raises:
        ModelError: the model cannot be run, its channel counts disagree, or its control flow depends on data.
    """
    inputs = example_inputs if isinstance(example_inputs, tuple) else (example_inputs,)
    copy = deepcopy(model).eval()
    recorder = Recorder(copy)
    with _paths(copy, recorder):
        _run(copy, inputs, recorder)
        notes = _run_training(copy, inputs, recorder)
    unrun = [n for n, m in copy.named_modules() if m._parameters and n not in recorder.ran]
    if unrun:
        notes += (f"{len(unrun)} modules with parameters never ran: {', '.join(unrun[:5])}{' …' * (len(unrun) > 5)}",)
    shapes = tuple((tuple(t.shape), str(t.dtype).removeprefix("torch.")) for t in tensors_in(inputs))
    return recorder.finish(shapes, notes)


def _run(model: nn.Module, inputs: tuple[Any, ...], recorder: Recorder) -> None:
    recorder.stack.clear()
    for tensor in tensors_in(inputs):
        if tensor.is_floating_point() and tensor.dim() > 1:
            recorder.set_value(tensor, Value(recorder.fixed(tensor.shape[1])))
        else:
            recorder.set_value(tensor, OPAQUE)
    watch = _Watch(recorder)
    try:
        with torch.no_grad(), _Guard(watch), watch:
            out = model(*inputs)
    except (RuntimeError, TypeError, ValueError, IndexError) as error:
        where = recorder.failed_in or "the network"
        first = str(error).splitlines()[0] if str(error) else type(error).__name__
        raise ModelError(
            f"the model does not run on inputs of shape {[tuple(t.shape) for t in tensors_in(inputs)]}: {where} raised "
            f"{type(error).__name__}: {first}; check the weights and the input size"
        ) from error
    for tensor in recorder.tracked(outputs.read(model, out)):
        value = recorder.value(tensor)
        if value is not None and value.atoms is not None:
            recorder.pin(value.atoms, "network output")


def _run_training(model: nn.Module, inputs: tuple[Any, ...], recorder: Recorder) -> tuple[str, ...]:
    """The same in training mode, on a batch of two, which BatchNorm needs where an image shrinks to one pixel."""
    model.train()
    doubled = tuple(torch.cat([t, t]) if isinstance(t, torch.Tensor) and t.shape[:1] == (1,) else t for t in inputs)
    try:
        _run(model, doubled, recorder)
    except ModelError as error:
        return (f"training mode was not traced: {error}",)
    return ()


@contextmanager
def _paths(model: nn.Module, recorder: Recorder) -> Iterator[None]:
    """Keeps the recorder's stack of module paths while the model runs."""
    handles = []
    for path, module in model.named_modules():

        def enter(_m: nn.Module, _a: Any, path: str = path) -> None:
            recorder.enter(path)

        def leave(_m: nn.Module, _a: Any, _o: Any) -> None:
            recorder.leave()

        handles += [module.register_forward_pre_hook(enter), module.register_forward_hook(leave)]
    try:
        yield
    finally:
        for handle in handles:
            handle.remove()
