"""What a network gives, and how far two are apart: values, tensor by tensor."""

from __future__ import annotations

import torch
from torch import nn
from torch.utils._pytree import tree_leaves

from seqprune.graph import outputs
from seqprune.testing.networks import randomise


def prepare(model: nn.Module) -> None:
    """Weights and statistics under which a wrong channel shows, and no randomness in the forward pass.

    Dropout and stochastic depth draw by shape, so a smaller network would draw other numbers. Parameters that start as
    one number, above all the 1e-6 of ConvNeXt's residual branches, would hide what they are multiplied with.
    """
    randomise(model, 0)
    generator = torch.Generator().manual_seed(0)
    for parameter in model.parameters():
        if parameter.eq(parameter.flatten()[0]).all():
            parameter.data.uniform_(0.5, 1.5, generator=generator)
    for module in model.modules():
        if isinstance(module, nn.modules.dropout._DropoutNd) or type(module).__name__ == "StochasticDepth":
            module.p = 0.0  # type: ignore[assignment]


def run(model: nn.Module, inputs: tuple[torch.Tensor, ...], training: bool = False) -> list[torch.Tensor]:
    """The floating-point outputs, on a batch of two in training mode, as BatchNorm needs it; statistics stay."""
    statistics = {name: buffer.clone() for name, buffer in model.named_buffers()}
    if training:
        inputs = tuple(torch.cat([t, t.flip(-1)]) for t in inputs)
    torch.manual_seed(0)
    with torch.no_grad():
        out = model.train(training)(*inputs)
        for name, buffer in model.named_buffers():
            if buffer.shape == statistics[name].shape:
                buffer.copy_(statistics[name])
    model.eval()
    return [t for t in tree_leaves(outputs.read(model, out)) if isinstance(t, torch.Tensor) and t.is_floating_point()]


def difference(reference: list[torch.Tensor], result: list[torch.Tensor]) -> float:
    """Greatest difference relative to the largest value of each output; infinite where shapes or NaNs differ."""
    if [t.shape for t in reference] != [t.shape for t in result]:
        return float("inf")
    worst = 0.0
    for a, b in zip(reference, result, strict=True):
        if not torch.equal(a, b):
            worst = max(worst, float((a - b).abs().max() / a.abs().max()))
            if worst != worst:
                return float("inf")
    return worst
