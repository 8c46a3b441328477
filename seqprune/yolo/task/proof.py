"""The proof for detectors that choose: near ties in their top-k may come out either way, and nothing depends on it.

A head that picks the best of its cells or queries returns them in the order of their scores. Where two are as good but
for rounding, the masked and the compact network may name them in another order, or one in the place of the other, and
a correct result differs from itself. So what is chosen is compared as a set, and where even that differs both networks
are run in float64, in which random ties are none. The tolerance stays what it is.
"""

from __future__ import annotations

from typing import Any

import numpy as np
import torch
from torch import nn
from ultralytics.nn.modules import Detect, RTDETRDecoder

from seqprune.errors import SeqPruneError, VerificationError
from seqprune.graph import outputs
from seqprune.graph.copying import copied
from seqprune.graph.proof import compare
from seqprune.graph.values import cloned, leaves
from seqprune.surgery import TOLERANCE, Difference, verify
from seqprune.yolo.files.contained import one_line

AS_IT_IS, AS_SETS, DOUBLE = "float32", "float32, detections as sets", "float64"
Tensors = list[torch.Tensor]


def prove(masked: nn.Module, small: nn.Module, images: torch.Tensor) -> tuple[Difference, str]:
    """Measures whether both networks compute the same in inference, and says how that was seen.

    Args:
        masked: the reference.
        small: the compact network.
        images: real input, ``[B, C, H, W]``.

    Returns:
        The difference, and one of ``AS_IT_IS``, ``AS_SETS``, ``DOUBLE``.

    Raises:
        VerificationError: as :func:`seqprune.surgery.verify`, whichever way they are compared; or what the exporter
            puts in the place of a module's forward computes something else.
    """
    found = _compared(masked, small, images)
    check_split(masked, small, images)
    return found


def check_split(masked: nn.Module, small: nn.Module, images: torch.Tensor) -> None:
    """Compare a network with itself as Ultralytics' exporter runs it: C2f and its like by ``forward_split``.

    That code alone reads a width which the module remembers, so a wrong one shows nowhere before. A subclass may
    compute something else than the code it inherits: of a module that does so in the masked network nothing is asked.

    Raises:
        VerificationError: they differ, or the exporter's way does not run.
    """
    paths = [path for path, module in small.named_modules() if callable(getattr(module, "forward_split", None))]
    if not paths or _differs(small, paths, images) is None:
        return
    asked = [path for path in paths if _differs(masked, [path], images) is None]
    if (error := _differs(small, asked, images)) is not None:
        wrong = [path for path in asked if _differs(small, [path], images) is not None] or asked  # together they may
        kinds = ", ".join(sorted({type(small.get_submodule(path)).__name__ for path in wrong}))
        raise VerificationError(
            f"export would run {kinds} by forward_split, which splits at a width that was not updated "
            f"({one_line(error)}): state the widths that your modules remember, see docs/modules.md"
        ) from error


def _differs(model: nn.Module, paths: list[str], images: torch.Tensor) -> Exception | None:
    """Why a network computes something else where modules of it run as the exporter runs them; ``None`` where not."""
    split = copied(model)
    for module in map(split.get_submodule, paths):
        module.forward = module.forward_split  # type: ignore[assignment]
    try:
        compare(model, split, (images,), None)
    except (RuntimeError, SeqPruneError) as error:
        return error
    return None


def _compared(masked: nn.Module, small: nn.Module, images: torch.Tensor) -> tuple[Difference, str]:
    try:
        found = verify(masked, small, images)
        return found, AS_IT_IS if found.precision == AS_IT_IS else DOUBLE
    except VerificationError:
        if not chosen(masked, 1):
            raise
    limit = TOLERANCE[next(small.parameters()).dtype]
    reference, result = (_outputs(model, images) for model in (masked, small))
    sets = difference_of_sets(reference, result, chosen(masked, len(reference)))
    if sets is not None and sets.max_rel <= limit:
        return sets, AS_SETS
    return verify(copied(masked).double(), copied(small).double(), images.double()), DOUBLE


def chosen(model: nn.Module, count: int) -> tuple[tuple[int, ...], ...]:
    """Which of a network's outputs hold what its head chose, row by row; rows of one group belong together.

    Args:
        model: of Ultralytics'.
        count: how many outputs it has.
    """
    for module in model.modules():
        if isinstance(module, RTDETRDecoder):  # detections; then boxes and scores of queries, chosen from the cells
            return ((0,), tuple(range(1, count)))
        if isinstance(module, Detect) and module.end2end:
            return ((0,),)
    return ()


def difference_of_sets(reference: Tensors, result: Tensors, groups: tuple[tuple[int, ...], ...]) -> Difference | None:
    """How far outputs are apart where the order of rows ``[..., rows, values]`` means nothing in some of them.

    Rows are paired so that the differences are least in all; each tensor's is relative to its largest value, as
    :func:`seqprune.surgery.verify` takes it.

    Args:
        reference: outputs of one network.
        result: of the other.
        groups: which of them are rows, those of a group in the same order.

    Returns:
        ``None`` where shapes differ or a value is not finite.
    """
    if [t.shape for t in reference] != [t.shape for t in result]:
        return None
    if not all(bool(t.isfinite().all()) for t in (*reference, *result)):
        return None
    paired = list(result)
    for group in groups:
        mine = [index for index in group if index < len(reference)]
        if mine:
            for index, tensor in zip(
                mine, _paired([reference[i] for i in mine], [result[i] for i in mine]), strict=True
            ):
                paired[index] = tensor
    errors = [(float((a - b).abs().max()), float(a.abs().max())) for a, b in zip(reference, paired, strict=True)]
    return Difference(
        max((error for error, _ in errors), default=0.0),
        max((error / scale if scale else error for error, scale in errors), default=0.0),
    )


def _paired(reference: Tensors, result: Tensors) -> Tensors:
    """``result`` with its rows in the order of the reference's that they are nearest to."""
    from scipy.optimize import linear_sum_assignment

    images = next(t.shape[-3] for t in reference)
    ordered = [tensor.clone() for tensor in result]
    for image in range(images):
        mine, theirs = (_rows(tensors, reference, image) for tensors in (reference, result))
        distance = torch.cdist(mine, theirs, p=torch.inf).numpy()
        order = torch.from_numpy(np.asarray(linear_sum_assignment(distance)[1]))
        for tensor, given in zip(ordered, result, strict=True):
            tensor[..., image, :, :] = given[..., image, order, :]
    return ordered


def _rows(tensors: Tensors, scales: Tensors, image: int) -> torch.Tensor:
    """``[rows, values]`` of one image, all tensors beside each other, each relative to its largest value."""
    parts = []
    for tensor, scale in zip(tensors, scales, strict=True):
        part = tensor[..., image, :, :].double() / scale.double().abs().max().clamp(min=1e-30)
        parts.append(part.reshape(-1, *part.shape[-2:]).transpose(0, 1).flatten(1))
    return torch.cat(parts, 1)


def _outputs(model: nn.Module, images: torch.Tensor) -> Tensors:
    """Floating-point outputs in inference, on the CPU in float64."""
    with torch.no_grad():
        out: Any = copied(model).eval()(*cloned((images,)))
    found = (t for t in leaves(outputs.read(model, out)) if isinstance(t, torch.Tensor) and t.is_floating_point())
    return [tensor.cpu().double() for tensor in found]
