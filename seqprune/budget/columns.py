"""One input tensor while channels leave it: what each would cost now, with all that reads it fitted anew.

Nothing is computed again that did not change. The inverse of the second moments stays as it was: what removals took
from it are the rows of ``U``, ``H⁻¹ − UᵀU``, and only the blocks on its diagonal, which costs are made of, and the rows
of a channel that leaves are ever worked out. An output that leaves takes its own share of the costs along. Once a
quarter of the columns are gone all of it is written anew without them. In float64, as differences decide, but for the
inversion at the start where float32 is enough.
"""

from __future__ import annotations

import math
from collections.abc import Iterator
from dataclasses import dataclass

import numpy as np
import torch

from seqprune.graph.channels import BoolArray, IntArray
from seqprune.select.moments import FloatArray

MOST_FITTED = 0.9
"""Effective parameters for a sample, at most: beyond, all that is known of an error is that it is large."""
GONE = 0.25
"""Share of the columns that may be gone before the others are copied together."""


@dataclass(frozen=True)
class Reader:
    """One convolution that reads a source.

    Attributes:
        weight: ``[outputs, K]``, rows scaled by what an error in that output matters.
        groups: ``[outputs]``, the channel group each output belongs to.
        samples: as how many its fit has; without end, it does as well elsewhere.
    """

    weight: torch.Tensor
    groups: IntArray
    samples: float = math.inf


@dataclass(frozen=True)
class Source:
    """One input tensor as some convolutions of equal geometry read it.

    Attributes:
        products: ``[K, K]`` covariance of its patches, ``K`` = channels × kernel.
        groups: ``[channels]``, the channel group of each channel.
        readers: the convolutions.
    """

    products: torch.Tensor
    groups: IntArray
    readers: tuple[Reader, ...]


def effective_parameters(inverse: torch.Tensor, penalty: float) -> float:
    """Of a ridge regression on inputs of covariance ``H`` ``[K, K]``: tr(H (H + λ I)⁻¹) = K − λ tr((H + λ I)⁻¹).

    Between 0 and K. ``inverse`` is (H + λ I)⁻¹, ``penalty`` is λ. (T. Hastie, R. Tibshirani, J. Friedman, "The elements
    of statistical learning", 2009, section 3.4.1.)
    """
    return len(inverse) - penalty * float(inverse.diagonal().sum())


def unseen(parameters: float, samples: float) -> float:
    """How many times the error of a fit is on samples that it has not seen: (n + d) / (n − d), 1 or more.

    With ``d`` effective parameters and ``n`` samples the error shrinks by 1 − d/n where the fit has looked, and grows
    by 1 + d/n elsewhere (H. Akaike, "Statistical predictor identification", 1970: the final prediction error).
    """
    share = min(parameters / samples, MOST_FITTED)
    return (1 + share) / (1 - share)


WELL_POSED = 1e5
"""Condition number up to which single precision inverts to 1 % at worst; it is 1 + K / ridge at most."""


@dataclass
class _Alike:
    """Groups with equally many columns each.

    Attributes:
        groups: ``[n]``.
        index: ``[n, size]``, the columns of each.
        blocks: ``[n, size, size]``, its block of the inverse.
        losses: ``[n, outputs]``, what its removal would cost in each output.
    """

    groups: IntArray
    index: torch.Tensor
    blocks: torch.Tensor
    losses: torch.Tensor


class Columns:
    """A source while channels leave it.

    Args:
        source: its second moments and what reads it.
        free: ``[group_count]``, groups that may be removed.
        gone: ``[group_count]``, groups that are removed already.
        ridge: added to the diagonal, relative to its mean.
    """

    def __init__(self, source: Source, free: BoolArray, gone: BoolArray, ridge: float) -> None:
        kernel = len(source.products) // len(source.groups)
        stays = ~gone[source.groups]
        stay = torch.from_numpy(np.flatnonzero(np.repeat(stays, kernel))).to(source.products.device)
        covariance = source.products.double()
        covariance = covariance[stay][:, stay] if len(stay) < len(covariance) else covariance.clone()
        mean = float(covariance.diagonal().mean())
        # Where nothing varies the inverse means nothing, and nothing that reads it is charged: its rows are zero.
        penalty = ridge * mean if mean > 0 else 1.0
        covariance.diagonal().add_(penalty)
        if len(covariance) <= WELL_POSED * ridge:
            covariance = covariance.float()
        self.inverse = torch.cholesky_inverse(torch.linalg.cholesky(covariance)).double()
        parameters = effective_parameters(self.inverse, penalty)
        weights = []
        for reader in source.readers:
            weight = reader.weight.to(stay.device).double()[:, stay] * unseen(parameters, reader.samples) ** 0.5
            weight[torch.from_numpy(gone[reader.groups])] = 0
            weights.append(weight)
        self.weight = torch.cat(weights).T.contiguous()  # [K, outputs]: the rows of a group lie together
        self.rows = np.concatenate([reader.groups for reader in source.readers])
        self.columns: dict[int, torch.Tensor] = {}
        groups = source.groups[stays]
        for group in np.unique(groups[free[groups]]).tolist():
            channels = torch.from_numpy(np.flatnonzero(groups == group))
            self.columns[group] = (channels[:, None] * kernel + torch.arange(kernel)).flatten().to(stay.device)
        self.taken, self.count = self.inverse.new_empty(len(self.inverse), 0), 0  # Uᵀ, in a place that grows
        self._begin()

    def costs(self) -> Iterator[tuple[IntArray, FloatArray]]:
        """Groups, and what the removal of each alone would cost now; of those that are gone it says nothing."""
        for alike in self.alike:
            yield alike.groups, alike.losses.sum(1).cpu().numpy()

    def remove_inputs(self, group: int) -> None:
        """Takes columns out; the weights that stay are the refitted ones. :meth:`rescore` afterwards."""
        columns = self.columns.pop(group)
        taken = self.taken[:, : self.count]
        block_rows = self.inverse[:, columns].addmm_(taken, taken[columns].T, alpha=-1)
        factor = torch.linalg.cholesky(block_rows[columns])
        new = torch.linalg.solve_triangular(factor, block_rows.T, upper=False)  # H⁻¹ loses newᵀ new
        step = torch.linalg.solve_triangular(factor, self.weight[columns], upper=False)
        self.weight.addmm_(new.T, step, alpha=-1)
        self._append(new.T)
        self.gone[columns] = True
        for alike in self.alike:
            part = new[:, alike.index.flatten()].reshape(len(columns), *alike.index.shape).permute(1, 2, 0)
            alike.blocks.baddbmm_(part, part.mT, alpha=-1)
            if alike.index.shape[1] == len(columns):
                alike.blocks[np.flatnonzero(alike.groups == group)] = torch.eye(len(columns)).to(new)

    def remove_outputs(self, group: int) -> None:
        """What a removed output would have computed does not matter any more: costs are less by its own."""
        rows = torch.from_numpy(np.flatnonzero(self.rows == group))
        self.weight[:, rows], self.silent[rows] = 0, True
        for alike in self.alike:
            alike.losses[:, rows] = 0

    def rescore(self) -> None:
        """The losses of all groups anew, after :meth:`remove_inputs`."""
        if self.gone.sum() > GONE * len(self.gone):
            self._shrink()
            return
        for alike in self.alike:
            alike.losses = self._losses(alike.index, alike.blocks)

    def _losses(self, index: torch.Tensor, blocks: torch.Tensor) -> torch.Tensor:
        """tr(W_S (H⁻¹_SS)⁻¹ W_Sᵀ) of each ``S``, one by one for the outputs."""
        size = index.shape[1]
        weight = self.weight[index.flatten()].reshape(*index.shape, -1)
        if size == 1:
            return weight[:, 0].square_().div_(blocks[:, 0])
        one = torch.eye(size, dtype=weight.dtype, device=weight.device).expand_as(blocks)
        whiten = torch.linalg.solve_triangular(torch.linalg.cholesky(blocks), one, upper=False)
        losses: torch.Tensor = (whiten @ weight).square_().sum(1)
        return losses

    def _append(self, more: torch.Tensor) -> None:
        end = self.count + more.shape[1]
        if end > self.taken.shape[1]:
            most = int(GONE * len(more)) + more.shape[1]  # written anew beyond that
            wider = more.new_empty(len(more), max(end, min(2 * self.count, most)))
            wider[:, : self.count] = self.taken[:, : self.count]
            self.taken = wider
        self.taken[:, self.count : end] = more
        self.count = end

    def _begin(self) -> None:
        """With nothing gone."""
        self.gone = torch.zeros(len(self.inverse), dtype=torch.bool, device=self.inverse.device)
        self.silent = torch.zeros(self.weight.shape[1], dtype=torch.bool, device=self.inverse.device)
        by_size: dict[int, list[int]] = {}
        for group, columns in self.columns.items():
            by_size.setdefault(len(columns), []).append(group)
        self.alike = []
        for groups in by_size.values():
            index = torch.stack([self.columns[group] for group in groups])
            blocks = self.inverse[index[:, :, None], index[:, None, :]]
            self.alike.append(_Alike(np.array(groups, np.intp), index, blocks, self._losses(index, blocks)))

    def _shrink(self) -> None:
        """All of it without the columns and outputs that are gone."""
        stay = torch.nonzero(~self.gone).flatten()
        live = torch.nonzero(~self.silent).flatten()
        place = torch.cumsum(~self.gone, 0) - 1
        taken = self.taken[stay, : self.count]
        self.inverse = self.inverse[stay][:, stay].addmm_(taken, taken.T, alpha=-1)
        self.taken, self.count = self.inverse.new_empty(len(self.inverse), 0), 0
        self.weight = self.weight[stay][:, live]
        self.rows = self.rows[live.cpu().numpy()]
        self.columns = {group: place[columns] for group, columns in self.columns.items()}
        self._begin()
