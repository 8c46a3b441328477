"""The proof that two networks compute the same: on real input, and in what a network runs elsewhere.

In float32 a near tie may fall the other way, as in a head that keeps its best candidates: what float32 finds different
is computed again in float64, whose own tolerance decides. Beyond the forward pass of inference the networks are
compared fused, where they can be, as an exporter asks for them, with gradients on, and on other sizes and another
number of inputs; and both do a first training step.
"""

from __future__ import annotations

import inspect
import math
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, replace
from typing import Any

import torch
from torch import nn

from seqprune.errors import ModelError, VerificationError
from seqprune.graph import outputs
from seqprune.graph.copying import copied
from seqprune.graph.modes import as_compiled, as_exported, begin_drawing, drawing, drawn_so_far, inference
from seqprune.graph.sizes import larger_sizes, other_batches, other_sizes
from seqprune.graph.values import ANY_FAILURE, cloned, doubled, first_line, leaves, map_tensors, tensors_in

TOLERANCE = {torch.float64: 1e-10, torch.float32: 1e-4, torch.float16: 2e-2, torch.bfloat16: 1e-1}
DRAWS = 8
"""Of a network that draws at random in inference: what it runs may hang on them."""


@dataclass(frozen=True)
class Difference:
    """How far two models are apart: ``max_rel`` is ``max_abs`` over the largest reference value, tensor by tensor.

    Attributes:
        precision: in which it was measured.
        tried: what was compared, or done, beside the forward pass.
    """

    max_abs: float
    max_rel: float
    precision: str = "float32"
    tried: tuple[str, ...] = ()


Form = Callable[[nn.Module], nn.Module | None]

FORMS: dict[str, Form] = {}
"""Name -> a function that gives a copy of a network the form in which it runs elsewhere, ``None`` if it has none."""


def register_form(name: str, form: Form) -> None:
    """States a form in which networks of a family run elsewhere, as in their exporter, to be compared in as well."""
    FORMS[name] = form


def fused(model: nn.Module) -> nn.Module | None:
    """The network after its own ``fuse``, which may return another one."""
    fuse = getattr(model, "fuse", None)
    if not callable(fuse):
        return None
    quiet = {"verbose": False} if "verbose" in inspect.signature(fuse).parameters else {}
    found = fuse(**quiet)
    return found if isinstance(found, nn.Module) else model


register_form("fused", fused)


def compare(masked: nn.Module, small: nn.Module, inputs: tuple[Any, ...], tolerance: float | None) -> Difference:
    """The difference of two networks' outputs in inference.

    Raises:
        ModelError: the masked network does not run on this input, or returns nothing to compare.
        VerificationError: the other one does not, or differs by more than is allowed.
    """
    kind = next((p.dtype for p in small.parameters() if p.dtype in TOLERANCE), torch.float32)
    try:
        return _compared(masked, small, inputs, TOLERANCE[kind] if tolerance is None else tolerance, kind)
    except VerificationError:
        if tolerance is not None or kind is torch.float64:
            raise
        try:
            doubled = map_tensors(lambda t: t.double() if t.is_floating_point() else t, inputs)
            one, other = (copied(model).double() for model in (masked, small))
            return _compared(one, other, doubled, TOLERANCE[torch.float64], torch.float64)
        except (VerificationError, ModelError):
            pass  # what was found first is said
        raise


def elsewhere(masked: nn.Module, small: nn.Module, inputs: tuple[Any, ...], tolerance: float | None) -> tuple[str, ...]:
    """What else both networks run, and do alike; what the masked one does not run is left out.

    Raises:
        VerificationError: the compact network does not run what the masked one runs, or differs there.
    """
    tried = []
    least = inputs
    for name, one, other, given in _ways(masked, small, inputs):
        if name in tried:
            continue
        if one is masked:  # in copies too: a network may set its windows by the least size that it has seen
            one, other = copied(masked), copied(small)
        try:
            compare(one, other, given, tolerance)
        except ModelError:
            continue
        except VerificationError as error:
            if given is not inputs and not outputs.taken(lambda at: _outputs(copied(masked), at), inputs, given):
                continue
            raise VerificationError(f"{name}: {error}") from error
        tried.append(name)
        least = min(least, given, key=_numbers)
    with drawing(masked):
        if _train_once(masked, least) is None:
            if (failed := _train_once(small, least)) is not None:
                raise VerificationError(
                    f"a training step fails in the compact model ({first_line(failed)}) and not in the masked one; "
                    "please report this, with the network"
                )
            tried.append("training step")
    return tuple(tried)


def _numbers(inputs: tuple[Any, ...]) -> int:
    return sum(t.numel() for t in tensors_in(inputs))


def _ways(
    masked: nn.Module, small: nn.Module, inputs: tuple[Any, ...]
) -> Iterator[tuple[str, nn.Module, nn.Module, tuple[Any, ...]]]:
    for name, form in FORMS.items():
        try:
            one = form(copied(masked).eval())
        except ANY_FAILURE:
            continue
        if one is None:
            continue
        try:
            other = form(copied(small).eval())
        except ANY_FAILURE as error:
            raise VerificationError(
                f"{name}: the compact model cannot be brought into this form ({first_line(error)}), the masked one "
                "can; please report this, with the network"
            ) from error
        if other is not None:
            yield name, one, other, inputs
    # In copies: what a network keeps of a pass with gradients could not be copied afterwards.
    exported = _AsExported(copied(masked))
    yield "as exported", exported, _AsExported(copied(small)), inputs
    if exported.asks:
        yield "as compiled", _AsCompiled(copied(masked)), _AsCompiled(copied(small)), inputs
    eager = _WithGradients(copied(masked))
    yield "gradients on", eager, _WithGradients(copied(small)), inputs
    if eager.draws:
        yield "other random numbers", _Drawing(copied(masked)), _Drawing(copied(small)), inputs
    for sizes in other_sizes(inputs):
        yield "another size", masked, small, sizes
    for sizes in larger_sizes(inputs):
        yield "a larger size", masked, small, sizes
    for batches in other_batches(inputs):
        yield "another batch", masked, small, batches


class _Asked(nn.Module):
    """A network that is asked to compute in another way, in the mode it is in."""

    def __init__(self, model: nn.Module) -> None:
        super().__init__()
        self.model = model

    def run(self, inputs: tuple[Any, ...]) -> Any:
        return outputs.read(self.model, self.model(*inputs))


class _AsExported(_Asked):
    """As where it is exported."""

    asks = False
    """Whether it asked if it is compiled."""

    def forward(self, *inputs: Any) -> Any:
        with as_exported(), as_compiled(answer=False) as given:
            try:
                return self.run(inputs)
            finally:
                self.asks = bool(given)


class _AsCompiled(_Asked):
    """As where it is compiled."""

    def forward(self, *inputs: Any) -> Any:
        with as_compiled():
            return self.run(inputs)


class _WithGradients(_Asked):
    """As in training."""

    draws = False
    """Whether it drew at random."""

    def forward(self, *inputs: Any) -> Any:
        before = drawn_so_far(self.model)
        with torch.enable_grad():
            found = self.run(inputs)
        self.draws = drawn_so_far(self.model) != before
        return found


class _Drawing(_Asked):
    """Several times, each drawing something else."""

    def forward(self, *inputs: Any) -> Any:
        found = []
        for seed in range(DRAWS):
            begin_drawing(seed)
            found.append(self.run(cloned(inputs)))
        return found


def _train_once(model: nn.Module, inputs: tuple[Any, ...]) -> BaseException | None:
    """A step of training on a copy: its forward pass and the gradients of what it returns; the error, if any."""
    copy = copied(model).train()
    for parameter in copy.parameters():
        parameter.requires_grad_(parameter.is_floating_point())
    try:
        with torch.enable_grad():
            found = [t for t in _tensors(outputs.read(copy, copy(*cloned(doubled(inputs))))) if t.requires_grad]
            torch.stack([t.double().square().mean() for t in found]).sum().backward()  # type: ignore[no-untyped-call]
    except ANY_FAILURE as error:
        return error
    return None


def _compared(
    masked: nn.Module, small: nn.Module, inputs: tuple[Any, ...], limit: float, kind: torch.dtype
) -> Difference:
    try:
        reference = _outputs(masked, inputs)
    except ModelError:
        raise
    except ANY_FAILURE as raised:
        raise ModelError(
            f"the masked model does not run on the example inputs ({first_line(raised)}); check the input"
        ) from raised
    if not reference:
        raise VerificationError("the network returns no floating-point tensor: there is nothing to compare")
    try:
        result = _outputs(small, inputs)
    except ANY_FAILURE as raised:
        raise VerificationError(
            f"the compact model does not run where the masked one does ({first_line(raised)}); please report "
            "this, with the network"
        ) from raised
    if [t.shape for t in reference] != [t.shape for t in result]:
        raise VerificationError(
            "the compact model returns tensors of other shapes than the masked one; please report this"
        )
    found = _difference(reference, result)
    if not found.max_rel <= limit:
        why = (
            "the weights or the input hold values that are not finite"
            if math.isnan(found.max_rel)
            else ("its code may compute with a number of channels; please report this, with the network")
        )
        raise VerificationError(
            f"the compact model differs from the masked one by {found.max_rel:.2e} of the largest value, {limit:.0e} "
            f"is allowed: {why}"
        )
    return replace(found, precision=str(kind).removeprefix("torch."))


def _difference(reference: Sequence[torch.Tensor], result: Sequence[torch.Tensor]) -> Difference:
    max_abs = max_rel = 0.0
    for a, b in zip(reference, result, strict=True):
        if a.numel():
            error = float((a.double() - b.double()).abs().max())
            scale = float(a.double().abs().max())
            max_abs, max_rel = _larger(max_abs, error), _larger(max_rel, error / scale if scale else error)
    return Difference(max_abs, max_rel)


def _larger(one: float, other: float) -> float:
    """Where either is no number neither is the larger: that is no number, and within no tolerance."""
    return other if math.isnan(other) or other > one else one


def _outputs(model: nn.Module, inputs: tuple[Any, ...]) -> list[torch.Tensor]:
    """Of a network that draws at random in inference: both draw the same."""
    with inference(model), drawing(model, seed=_numbers(inputs)):  # of other inputs something else
        out = model(*cloned(inputs))
    return [t.detach() for t in _tensors(outputs.read(model, out))]


def _tensors(out: Any) -> list[torch.Tensor]:
    return [t for t in leaves(out) if isinstance(t, torch.Tensor) and t.is_floating_point()]
