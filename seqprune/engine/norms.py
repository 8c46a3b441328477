"""How large the channels of a layer are: what stands for a cluster of them."""

from __future__ import annotations

import numpy as np
import numpy.typing as npt
from torch import nn

from seqprune.errors import LayerSkipped
from seqprune.graph.active import weight_rows
from seqprune.graph.channels import ChannelGraph

FloatArray = npt.NDArray[np.float64]


def weight_norm(model: nn.Module, _graph: ChannelGraph, name: str) -> FloatArray:
    """``[channels]``, L1 norm of the weights of each output channel."""
    rows = weight_rows(model.get_submodule(name))
    norms: FloatArray = rows.double().abs().sum(1).cpu().numpy()
    return norms


def gamma(model: nn.Module, graph: ChannelGraph, name: str) -> FloatArray:
    """``[channels]``, absolute BatchNorm weight behind a layer.

    Raises:
        SeqPruneError: no BatchNorm follows it.
    """
    groups = graph.by_name[name].groups
    for cut in graph.slices:
        module = model.get_submodule(cut.module)
        if isinstance(module, nn.modules.batchnorm._BatchNorm) and cut.tensor == "weight":
            parent = name.rpartition(".")[0]
            if cut.module.rpartition(".")[0] == parent and np.array_equal(cut.groups, groups):
                values: FloatArray = module.weight.detach().double().abs().cpu().numpy()
                return values
    raise LayerSkipped(f"no BatchNorm follows {name}: choose --represent weight or medoid")
