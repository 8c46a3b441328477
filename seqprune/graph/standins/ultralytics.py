"""Stand-ins for modules of Ultralytics; nothing of it is imported."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, cast

import torch

from seqprune.graph.standins.operators import as_wide_as, attend_heads, gate_heads, split_sizes

_BLOCK = "ultralytics.nn.modules.block."


def attention(self: Any, x: torch.Tensor) -> torch.Tensor:
    """Attention of PSA, C2PSA and C2fPSA. Its values are viewed in the shape of its input."""
    attended, values = attend_heads(
        self.qkv(x), self.num_heads, self.key_dim, self.head_dim, self.scale, 1, {"value": "head_dim"}
    )
    return cast(torch.Tensor, self.proj(as_wide_as(attended, x) + self.pe(values)))


def area_attention(self: Any, x: torch.Tensor) -> torch.Tensor:
    """Attention of A2C2f. It scales by the width of a head, so a head stays or goes as a whole."""
    width = self.head_dim
    held = {"heads": "num_heads"} | ({"values": "all_head_dim"} if hasattr(self, "all_head_dim") else {})
    attended, values = attend_heads(self.qkv(x), self.num_heads, width, width, width**-0.5, self.area, held)
    if "all_head_dim" not in type(self).forward.__code__.co_names:
        attended = as_wide_as(attended, x)  # Ultralytics 8.3 views the values in the shape of the input
    return cast(torch.Tensor, self.proj(attended + self.pe(values)))


def area_block(self: Any, x: torch.Tensor) -> torch.Tensor:
    """A2C2f, whose larger scales weigh a residual branch by a parameter that the module views by its length."""
    parts = [self.cv1(x)]
    for branch in self.m:
        parts.append(branch(parts[-1]))
    y: torch.Tensor = self.cv2(torch.cat(parts, 1))
    return y if self.gamma is None else x + self.gamma.view(1, -1, 1, 1) * y


def max_sigmoid_attention(self: Any, x: torch.Tensor, guide: torch.Tensor) -> torch.Tensor:
    """Attention of C2fAttn: a text guides one gate a head. Only the gated channels can be followed."""
    batch, height, width = x.shape[0], x.shape[2], x.shape[3]
    guide = self.gl(guide)
    guide = guide.view(batch, guide.shape[1], self.nh, self.hc)
    embed = (x if self.ec is None else self.ec(x)).view(batch, self.nh, self.hc, height, width)
    products = embed.flatten(3).transpose(2, 3) @ guide.permute(0, 2, 3, 1)
    gates = products.max(dim=-1)[0].view(batch, self.nh, height, width) / (self.hc**0.5)
    gates = (gates + self.bias[None, :, None, None]).sigmoid() * self.scale
    return gate_heads(self.proj_conv(x), gates)


def cb_linear(self: Any, x: torch.Tensor) -> tuple[torch.Tensor, ...]:
    """YOLOv9's auxiliary branches: one convolution makes all of them, cut by a list of widths."""
    return split_sizes(self.conv(x), self.c2s, "c2s")


def prompted_head(self: Any, x: list[torch.Tensor], *args: Any, **kwargs: Any) -> Any:
    """YOLOE's heads. Their visual prompts read the same maps, but run only where a user gives some."""
    if hasattr(self, "savpe"):
        first = x[0]
        self.savpe(x[: self.nl], first.new_ones(first.shape[0], 1, first.shape[2], first.shape[3]))
    return type(self).forward(self, x, *args, **kwargs)


STANDINS: dict[str, Callable[..., Any]] = {
    _BLOCK + "Attention": attention,
    _BLOCK + "A2C2f": area_block,
    _BLOCK + "AAttn": area_attention,
    _BLOCK + "MaxSigmoidAttnBlock": max_sigmoid_attention,
    _BLOCK + "CBLinear": cb_linear,
    **{f"ultralytics.nn.modules.head.YOLOE{kind}": prompted_head for kind in ("Detect", "Segment", "Segment26")},
}
