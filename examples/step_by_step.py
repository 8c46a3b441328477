"""What `seqprune.prune` is made of: trace, plan, mask, compact, verify."""

import torch
from torch import nn

import seqprune


class Residual(nn.Module):
    """Two convolutions and a shortcut: the channels of both ends are the same channels."""

    def __init__(self) -> None:
        super().__init__()
        self.stem, self.one, self.two = (
            nn.Conv2d(3, 16, 3, padding=1),
            nn.Conv2d(16, 24, 3, padding=1),
            nn.Conv2d(24, 16, 1),
        )
        self.head = nn.Conv2d(16, 5, 1)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        y = self.stem(x).relu()
        return self.head((y + self.two(self.one(y).relu())).relu())


model, example = Residual().eval(), torch.rand(1, 3, 32, 32)
graph = seqprune.trace(model, example)
for layer in graph.all_layers:
    print(layer.name, layer.channels, "coupled with", graph.coupled(layer.name) or "nothing", layer.reason)

plan = seqprune.PrunePlan.from_keep(graph, {"one": range(12), "stem": range(10)})  # any order; `two` follows `stem`
masked = seqprune.mask(model, plan)
small = seqprune.compact(model, plan)
print(seqprune.verify(masked, small, example))
assert small.two.out_channels == 10
