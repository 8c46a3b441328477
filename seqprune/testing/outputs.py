"""What a network gives, and how far two are apart: values, tensor by tensor."""

from __future__ import annotations

import warnings

import torch
from torch import nn
from torch.utils._pytree import tree_leaves

from seqprune.graph import outputs, proof
from seqprune.graph.copying import copied
from seqprune.testing.networks import randomise

Tensors = list[torch.Tensor]


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


def run(model: nn.Module, inputs: tuple[torch.Tensor, ...], training: bool = False) -> Tensors:
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


def difference(reference: Tensors, result: Tensors) -> float:
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


def scripted(model: nn.Module, inputs: tuple[torch.Tensor, ...]) -> nn.Module:
    """A copy of a network as TorchScript, as Ultralytics' exporter has it traced."""
    with torch.no_grad(), warnings.catch_warnings():
        warnings.simplefilter("ignore")  # TorchScript says that it is on its way out
        listed = _Listed(_exporters(copied(model).eval()))
        return torch.jit.trace(listed, inputs, check_trace=False, strict=False)  # type: ignore[no-any-return,no-untyped-call]


class _Listed(nn.Module):
    """A network whose outputs are its tensors, one after another: what an export has."""

    def __init__(self, model: nn.Module) -> None:
        super().__init__()
        self.model = model

    def forward(self, *inputs: torch.Tensor) -> tuple[torch.Tensor, ...]:
        return tuple(proof._tensors(outputs.read(self.model, self.model(*inputs))))


def _exporters(model: nn.Module) -> nn.Module:
    """With the forward that Ultralytics' exporter puts in its place; it cuts by a width that modules remember."""
    for module in model.modules():
        if callable(getattr(module, "forward_split", None)):
            module.forward = module.forward_split  # type: ignore[assignment]
    return model
