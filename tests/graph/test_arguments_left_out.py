"""What a call leaves out is for a trace what torch takes for it."""

from __future__ import annotations

from collections.abc import Callable

import pytest
import torch
from exactness import exact_on
from torch import nn

from seqprune import trace
from seqprune.testing.networks import randomise

Call = Callable[[torch.Tensor], torch.Tensor]
X = torch.randn(2, 3, 6, 6, dtype=torch.float64, generator=torch.Generator().manual_seed(1))


class Net(nn.Module):
    """A convolution, a call, and a convolution."""

    def __init__(self, call: Call) -> None:
        super().__init__()
        self.first, self.last, self.call = nn.Conv2d(3, 4, 3, padding=1), nn.Conv2d(4, 2, 1), call
        randomise(self, 0)
        self.double().eval()

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return self.last(self.call(self.first(x)))


FOLLOWED: dict[str, Call] = {
    "joined along the batch": lambda x: torch.cat([x, x.relu()])[: len(x)],
    "stacked to a batch": lambda x: torch.stack([x[0], x[-1]]),
    "halves of a batch": lambda x: torch.cat(x.chunk(2)),
    "a batch one by one": lambda x: torch.cat(x.split(1)),
    "a batch taken apart": lambda x: torch.stack(x.unbind()),
    "an image as one row": lambda x: x[:1].flatten().view(1, -1, *x.shape[2:]),
    "rows in order": lambda x: x.sort()[0],
    "the greatest of each row": lambda x: x.topk(2)[0],
    "the greatest of all rows": lambda x: x.max(2)[0][:, :, None],
    "the middle of all rows": lambda x: x.median(2)[0][:, :, None],
    "a mean of rows": lambda x: x.mean(2)[:, :, None],
    "a sum of rows": lambda x: x.sum(2)[:, :, None],
    "a norm of rows": lambda x: x.norm(dim=2)[:, :, None],
    "a vector's norm of rows": lambda x: torch.linalg.vector_norm(x, dim=2)[:, :, None],
    "an exponent's sum of rows": lambda x: x * x.logsumexp(2)[:, :, None],
    "a deviation of rows": lambda x: x.std(2)[:, :, None],
    "slopes that are not drawn": torch.rrelu,
    "as many dimensions as there may be": lambda x: x.view(len(x), -1, *[1] * 60, *x.shape[2:]).relu().view(x.shape),
}


REDUCED: dict[str, Call] = {
    "mean": lambda x: x.mean(0),
    "sum": lambda x: x.sum(0),
    "nansum": lambda x: x.nansum(0),
    "norm": lambda x: x.norm(dim=0),
    "vector norm": lambda x: torch.linalg.vector_norm(x, dim=0),
    "exponents": lambda x: x.logsumexp(0),
    "greatest": lambda x: x.max(0)[0],
    "middle": lambda x: x.median(0)[0],
    "deviation": lambda x: x.std(0, correction=0),
}


@pytest.mark.parametrize("name", REDUCED)
def test_a_dimension_in_front_of_the_channels_is_gone(name: str) -> None:
    """``keepdim`` is not said."""
    layer = exact_on(X, Net(lambda x: x * REDUCED[name](x)), plans=1).by_name["first"]
    assert layer.free.all(), layer.reason


@pytest.mark.parametrize("name", FOLLOWED)
def test_channels_are_followed(name: str) -> None:
    layer = exact_on(X, Net(FOLLOWED[name]), plans=1).by_name["first"]
    assert layer.free.all(), layer.reason


@pytest.mark.parametrize("call", [lambda x: x.sort()[0], lambda x: x.topk(4)[0]], ids=["sort", "topk"])
def test_along_the_last_dimension_lie_the_channels_of_rows(call: Call) -> None:
    layer = trace(Net(lambda x: call(x.permute(0, 2, 3, 1)).permute(0, 3, 1, 2)), X).by_name["first"]
    assert not layer.free.any()
    assert "mixes channels" in layer.reason
