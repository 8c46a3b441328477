"""The larger YOLO12's block, whose residual branch is weighed channel by channel."""

from __future__ import annotations

import torch
from torch import nn
from ultralytics.nn.modules.block import A2C2f

from seqprune import compact, mask, trace, verify
from seqprune.testing.networks import random_plan, randomise


def test_a_weighed_residual_branch_is_followed() -> None:
    """Its parameter is viewed by its length, which the stand-in says with -1."""
    block = A2C2f(128, 128, n=1, a2=True, area=1, residual=True, mlp_ratio=1.5)
    assert block.gamma is not None
    assert block.gamma.shape == (128,)
    model = nn.Sequential(nn.Conv2d(3, 128, 1), block, nn.Conv2d(128, 2, 1))
    randomise(model, 0)
    model.double().eval()
    x = torch.rand(2, 3, 4, 4, dtype=torch.float64)
    graph = trace(model, x)
    assert graph.by_name["0"].free.any(), graph.by_name["0"].reason
    heads = set()
    for seed in range(4):
        plan = random_plan(graph, seed)
        small = compact(model, plan, graph)
        verify(mask(model, plan, graph), small, x)
        attention = small[1].m[0][0].attn
        width = attention.num_heads * attention.head_dim
        assert attention.qkv.conv.out_channels == 3 * width
        assert getattr(attention, "all_head_dim", width) == width, "older releases hold none"
        heads.add(attention.num_heads)
    assert heads == ({1, 2} if hasattr(block.m[0][0].attn, "all_head_dim") else {2}), "before, heads stay"
    assert small[1].gamma.shape == (small[0].out_channels,)
    assert small[0].out_channels < 128
