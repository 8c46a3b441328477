"""Any torch network on any loader: nothing here is a YOLO."""

import torch
from torch import nn
from torch.utils.data import DataLoader, TensorDataset

import seqprune

torch.manual_seed(0)


def network() -> nn.Module:
    return nn.Sequential(
        *(nn.Conv2d(3, 32, 3, padding=1), nn.BatchNorm2d(32), nn.ReLU()),
        *(nn.Conv2d(32, 64, 3, stride=2, padding=1), nn.BatchNorm2d(64), nn.ReLU()),
        *(nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(64, 4)),
    )


loader = DataLoader(TensorDataset(torch.rand(64, 3, 16, 16), torch.arange(64) % 4), batch_size=32)
result = seqprune.prune(network(), loader, target="params=0.7")  # labels measure accuracy, and decide nothing
print(result)

result.save("small.safetensors")  # tensors, no code
small = seqprune.restore(network(), "small.safetensors")
assert sum(p.numel() for p in small.parameters()) == result.after.params
