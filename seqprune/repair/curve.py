"""The fit of a convolution goes on to what comes out of its activation, which forgives errors where it is flat.

After the linear fit, each round weighs every output of every sample by the squared slope of the secant between what is
computed and what is wanted, and makes a step of Newton's towards the weighted least squares:

    min over W, d   Σ w s² ‖y − W u − d‖² + λ ‖W − W₀‖²,    s = (a(z) − a(z₀)) / (z − z₀),

``z`` and ``z₀`` the outputs behind the BatchNorm, ``a`` the activation. After the rounds ``s`` is the secant of the
solution, so that what was minimised is the error behind the activation. (Fitting through the nonlinearity: X. Zhang et
al., "Accelerating very deep convolutional networks for classification and detection", TPAMI 2016, who solve ReLU's.
Slopes of all samples and the curvature of some: R. H. Byrd et al., "On the use of stochastic Hessian information in
optimization methods for machine learning", SIAM Journal on Optimization 2011.)
"""

from __future__ import annotations

from dataclasses import dataclass, field
from math import ceil

import torch

from seqprune.graph.channels import BoolArray
from seqprune.observe.patches import SecondMoments
from seqprune.observe.unit import Curve, slope_of
from seqprune.repair.solve import columns_of

ROUNDS, STEPS = 2, 8
SETTLED = 0.01
"""Steps end where the last one gained less than this share of what all have."""
FEW, LEAST = 4, 1 << 11
"""Samples for every weight of a row, and at least, that say how curved the error is."""
FLATTEST = 0.02
"""Least squared slope: an output that is lost in the flat part could otherwise go anywhere."""
SAMPLES, NUMBERS = 1 << 15, 1 << 26
"""Of one convolution, kept for this: so many samples, and so many numbers in them."""


@dataclass
class Samples:
    """An even share of the samples of every batch, so that memory does not grow with the images.

    Attributes:
        curve: what follows the convolution.
        batches: that will come.
        seen: ``[N, K]`` float32, patches, batch by batch.
        wanted: ``[N, outputs]`` float32.
        weight: ``[N]`` float32.
    """

    curve: Curve
    batches: int
    seen: list[torch.Tensor] = field(default_factory=list)
    wanted: list[torch.Tensor] = field(default_factory=list)
    weight: list[torch.Tensor] = field(default_factory=list)

    def add(self, seen: torch.Tensor, wanted: torch.Tensor, weight: torch.Tensor | None) -> None:
        room = min(SAMPLES, NUMBERS // seen.shape[1]) // max(self.batches, 1)
        step = ceil(len(seen) / max(room, 1))
        self.seen.append(seen[::step].float().clone())
        self.wanted.append(wanted[::step].float().clone())
        self.weight.append(torch.ones(len(self.seen[-1])) if weight is None else weight[::step].float())


def bend(
    weight: torch.Tensor,
    fitted: torch.Tensor,
    offset: torch.Tensor,
    moments: SecondMoments,
    samples: Samples,
    inputs: BoolArray | None,
    ridge: float,
    outputs: BoolArray | None = None,
) -> tuple[torch.Tensor, torch.Tensor]:
    """Weights and offsets that reproduce what comes out of the activation.

    Args:
        weight: ``[outputs, K]`` float64, the original ones.
        fitted, offset: ``[outputs, K]`` and ``[outputs]`` float64, the linear fit, from which this one begins.
        moments: of all patches; what preconditions.
        samples: of a convolution in one group.
        inputs: ``[channels]``, which inputs stay; all where it is left out.
        ridge: relative to the mean variance of the patches.
        outputs: ``[outputs]``, which of them matter; the others keep the linear fit.

    Returns:
        As ``fitted`` and ``offset``; those themselves where there are fewer than two samples for every weight of a row,
        or nothing varies.
    """
    stay = columns_of(inputs, weight.shape[1]).to(weight.device)
    products = (moments.products[0] / moments.count)[stay][:, stay]
    penalty = ridge * float(products.diagonal().mean()) if len(products) else 0.0
    count = sum(len(part) for part in samples.seen)
    if penalty <= 0 or count < 2 * len(products):
        return fitted, offset
    mean = moments.mean[0][stay].float()
    seen = samples.seen if bool(stay.all()) else [part[:, stay] for part in samples.seen]
    u = torch.cat(seen).sub_(mean)
    live = torch.ones(len(weight), dtype=torch.bool) if outputs is None else torch.from_numpy(outputs)
    live = live.to(weight.device)
    y, each = torch.cat(samples.wanted)[:, live], torch.cat(samples.weight).to(u.device)
    each = (each / each.sum())[:, None]
    first, rows = weight[live][:, stay].float(), fitted[live][:, stay].float()
    shift = offset[live].float() + rows @ mean
    curve = samples.curve
    scale, move = (t.float().to(u.device)[live] for t in (curve.scale, curve.shift))
    aim = y * scale + move
    now = u @ rows.T + shift
    few, even = max(count // max(FEW * len(products), LEAST), 1), _root(products, penalty)
    for _ in range(ROUNDS):
        counts = each * _secant(curve, now * scale + move, aim).square().clamp(min=FLATTEST)
        more, further, reached = _weighted(u, y - now, counts, penalty, first - rows, even, few)
        rows, shift, now = rows + more, shift + further, now + reached
    fitted, offset = fitted.clone(), offset.clone()
    fitted[live.nonzero(), stay.nonzero()[:, 0]] = rows.double()
    offset[live] = (shift - rows @ mean).double()
    return fitted, offset


def _root(products: torch.Tensor, penalty: float) -> torch.Tensor:
    """Cholesky factor, float32, of what ``u``'s products would be with even weights, the penalty included."""
    least = max(penalty, 1e-5 * float(products.diagonal().mean()))  # products are taken in float32
    one = torch.eye(len(products), dtype=products.dtype, device=products.device)
    root: torch.Tensor = torch.linalg.cholesky(products + least * one)
    return root.float()


def _secant(curve: Curve, now: torch.Tensor, aim: torch.Tensor) -> torch.Tensor:
    """Slope of the activation between two points; its derivative where they are one."""
    apart = now - aim
    near = apart.abs() < 1e-3
    return torch.where(near, slope_of(curve, aim), (curve(now) - curve(aim)) / torch.where(near, 1.0, apart))


def _weighted(
    u: torch.Tensor,
    missing: torch.Tensor,
    counts: torch.Tensor,
    penalty: float,
    pull: torch.Tensor,
    even: torch.Tensor,
    few: int = 1,
) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor]:
    """A step of Newton's, all rows at once, each with weights of its own.

    The slope is that of all samples; for the way to go, every ``few``-th says enough of the curvature. How far to go
    is asked of all again.

    Args:
        u: ``[N, K]``, centred.
        missing: ``[N, outputs]``, what is to be added to the outputs.
        counts: ``[N, outputs]``, weights.
        penalty: of the weights' distance from ``pull``.
        pull: ``[outputs, K]``.
        even: ``[K, K]``, see :func:`_root`.
        few: one sample in so many.

    Returns:
        What is added to the weights ``[outputs, K]``, to the offsets ``[outputs]``, and thereby to the outputs
        ``[N, outputs]``: nothing in rows that are no better for it. Where the linear fit left but rounding errors, the
        steps have nothing to go by and can diverge.
    """
    total = counts.sum(0)
    # What pulls is scaled as the samples are: a row whose outputs hardly count is not tied down for that.
    tie = penalty * total[:, None]
    left = counts * missing
    rows, shift = left.T @ u + tie * pull, left.sum(0)
    some = counts[::few]
    ahead, beyond = _way(u[::few], some * (total / some.sum(0).clamp(min=1e-30)), tie, rows, shift, even, total)
    reached = u @ ahead.T + beyond
    gain = (rows * ahead).sum(1) + shift * beyond
    step = gain / ((counts * reached.square()).sum(0) + tie[:, 0] * ahead.square().sum(1))
    step = torch.where((gain > 0) & step.isfinite(), step, 0.0)[:, None]  # not where it is nan
    found = torch.where(step > 0, step * ahead, 0.0), torch.where(step[:, 0] > 0, step[:, 0] * beyond, 0.0)
    return *found, torch.where(step.T > 0, step.T * reached, 0.0)


def _way(
    u: torch.Tensor,
    counts: torch.Tensor,
    tie: torch.Tensor,
    rows: torch.Tensor,
    shift: torch.Tensor,
    even: torch.Tensor,
    total: torch.Tensor,
) -> tuple[torch.Tensor, torch.Tensor]:
    """Steps of preconditioned conjugate gradients from a slope to where it ends, until they gain next to nothing."""

    def conditioned(slope: torch.Tensor) -> torch.Tensor:
        return torch.cholesky_solve(slope.T, even).T / total[:, None]

    found, further = torch.zeros_like(rows), torch.zeros_like(shift)
    ahead, beyond = conditioned(rows), shift / total
    size, gained = (rows * ahead).sum(1) + shift * beyond, torch.zeros_like(shift)
    for _ in range(STEPS):
        reached = counts * (u @ ahead.T + beyond)
        curved, moved = reached.T @ u + tie * ahead, reached.sum(0)
        step = size / ((ahead * curved).sum(1) + beyond * moved).clamp(min=1e-30)
        found, further = found + step[:, None] * ahead, further + step * beyond
        gained = gained + step * size
        if float((step * size).sum()) < SETTLED * float(gained.sum()):
            break
        rows, shift = rows - step[:, None] * curved, shift - step * moved
        way, onward = conditioned(rows), shift / total
        before, size = size, (rows * way).sum(1) + shift * onward
        turn = size / before.clamp(min=1e-30)
        ahead, beyond = way + turn[:, None] * ahead, onward + turn * beyond
    return found, further
