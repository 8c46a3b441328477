"""How far two networks may be apart, in each precision."""

from __future__ import annotations

import pytest
import torch
from torch import nn

from seqprune import verify
from seqprune.errors import VerificationError


@pytest.mark.parametrize(
    ("precision", "within", "beyond"),
    [
        (torch.float64, 5e-11, 5e-10),
        (torch.float32, 5e-5, 5e-4),
        (torch.float16, 1e-2, 5e-2),
        (torch.bfloat16, 5e-2, 3e-1),
    ],
)
def test_each_precision_has_a_tolerance_of_its_own(precision: torch.dtype, within: float, beyond: float) -> None:
    def net(more: float) -> nn.Module:
        layer = nn.Linear(4, 2, bias=False, dtype=precision)
        nn.init.constant_(layer.weight, 1 + more)
        return layer

    x = torch.ones(1, 4, dtype=precision)
    assert verify(net(0), net(within), x).max_rel > 0
    with pytest.raises(VerificationError, match="differs from the masked one"):
        verify(net(0), net(beyond), x)
