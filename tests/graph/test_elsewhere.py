"""What a trace and a proof leave as it was, and where else they look: exporters, other batches, other lengths."""

from __future__ import annotations

import random
from collections.abc import Callable
from contextlib import suppress
from copy import deepcopy
from typing import Any

import numpy as np
import pytest
import torch
from torch import nn
from torch.nn import functional as F  # noqa: N812 - its usual name

from seqprune import compact, mask, trace, verify
from seqprune.errors import ModelError, VerificationError
from seqprune.graph.modes import begin_drawing
from seqprune.testing.networks import random_plan, randomise

X = torch.randn(1, 3, 6, 6, dtype=torch.float64, generator=torch.Generator().manual_seed(0))
Code = Callable[[Any, torch.Tensor], torch.Tensor]


class Net(nn.Module):
    """A convolution, code, and a convolution."""

    def __init__(self, code: Code, **modules: nn.Module) -> None:
        super().__init__()
        self.first, self.last, self.code = nn.Conv2d(3, 8, 1), nn.Conv2d(8, 2, 1), code
        for name, module in modules.items():
            setattr(self, name, module)
        randomise(self, 0)
        self.double().eval()

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return self.last(self.code(self, self.first(x)))


def proved(net: nn.Module, x: torch.Tensor) -> None:
    graph = trace(net, x)
    plan = random_plan(graph, 1)
    verify(mask(net, plan, graph), compact(net, plan, graph), x)


def test_random_numbers_are_left_as_they_were() -> None:
    """A trace trained the network for one pass, and whoever drew next drew other numbers."""

    def code(m: Any, x: torch.Tensor) -> torch.Tensor:
        y = x * random.choice((1.0, 1.0)) * float(np.random.uniform(1, 1))  # noqa: S311, NPY002
        return F.dropout(y, 0.5, m.training)

    net, states = Net(code), []
    for do in (lambda: None, lambda: proved(net, X)):
        torch.manual_seed(0), random.seed(0), np.random.seed(0)  # noqa: NPY002
        do()
        states.append((torch.rand(1).item(), random.random(), np.random.rand()))  # noqa: S311, NPY002
    assert states[0] == states[1]


def test_networks_that_draw_with_python_or_numpy_draw_the_same() -> None:
    """Of torch's numbers alone: a correct result was refused by chance."""
    net = Net(lambda m, x: x * random.uniform(1, 2) * float(np.random.uniform(1, 2)))  # noqa: S311, NPY002
    proved(net, X)


@pytest.mark.parametrize("seed", [0, 1, 2**32 - 1, 2**32 + 1])
def test_any_whole_number_is_a_seed(seed: int) -> None:
    """Those of NumPy end at 2**32; a large batch of images has more numbers than that."""
    begin_drawing(seed)
    drawn = torch.rand(1).item(), random.random(), float(np.random.rand())  # noqa: S311, NPY002
    generator = torch.Generator().manual_seed(seed)
    assert drawn == (
        torch.rand(1, generator=generator).item(),
        random.Random(seed).random(),  # noqa: S311
        float(np.random.RandomState(seed % 4294967296).rand()),
    )


def closure(net: Net) -> None:
    net.code = lambda m, x: net.mid(x)


def replaced(net: Net) -> None:
    old = net.mid.forward
    net.mid.forward = lambda x: old(x) * 2


def hook(net: Net) -> None:
    weight = net.mid[0].weight
    net.mid.register_forward_hook(lambda m, given, out: out * weight.mean())


@pytest.mark.parametrize("reach", [closure, replaced, hook])
def test_layers_that_code_reaches_past_its_copy(reach: Callable[[Net], None]) -> None:
    """A copy ran the layers of the network that was given: its statistics moved, and the pruned network shared them."""
    net = Net(lambda m, x: m.mid(x), mid=nn.Sequential(nn.Conv2d(8, 8, 1), nn.BatchNorm2d(8)).double()).train()
    reach(net)
    before = deepcopy(net.state_dict())
    with pytest.raises(ModelError, match=r"with 0\.weight of the network that was given|with mid\.0\.weight of the"):
        trace(net, X)
    torch.testing.assert_close(net.state_dict(), before, rtol=0, atol=0)


def test_a_number_that_a_pass_counts_is_no_constant() -> None:
    """A buffer that the code adds to in place was folded into a bias as the first pass found it."""

    class Counts(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.register_buffer("times", torch.zeros(1))

        def forward(self, x: torch.Tensor) -> torch.Tensor:
            self.times += 1
            return x + self.times

    layer = trace(Net(lambda m, x: m.counts(x), counts=Counts()), X).by_name["first"]
    assert not layer.free.any()
    assert "not zero once removed" in layer.reason


FLIPS: dict[str, Callable[[torch.Tensor], bool]] = {
    "traced": lambda x: torch.jit.is_tracing(),
    "in an ONNX export": lambda x: torch.onnx.is_in_onnx_export(),
    "three at a time": lambda x: len(x) == 3,
    "more than two": lambda x: len(x) > 2,
}


@pytest.mark.parametrize("name", FLIPS)
@pytest.mark.parametrize("batch", [1, 2])
def test_other_code_is_compared(name: str, batch: int) -> None:
    """What an exporter runs, or a batch of three, was no part of the proof: it was silently another network."""
    flips = FLIPS[name]
    net = Net(lambda m, x: x.roll(1, 1) if flips(x) else x)
    with pytest.raises(
        VerificationError, match="as exported" if name in [*FLIPS][:2] else "another size|another batch"
    ):
        proved(net, X.repeat(batch, 1, 1, 1))


@pytest.mark.parametrize("ask", ["is_compiling", "is_exporting"])
def test_code_for_compilers_is_compared(ask: str) -> None:
    """What torch.compile or torch.export runs was no part of the proof."""
    if not hasattr(torch.compiler, ask):
        pytest.skip(f"this torch has no {ask}")
    net = Net(lambda m, x: x.roll(1, 1) if getattr(torch.compiler, ask)() else x)
    with pytest.raises(VerificationError, match="as compiled"):
        proved(net, X)
    assert not getattr(torch.compiler, ask)()


@pytest.mark.parametrize("asks", [lambda x: len(x) > 2, lambda x: x.shape[2] != 8], ids=["batch", "length"])
def test_sequences_have_other_batches_and_lengths(asks: Callable[[torch.Tensor], bool]) -> None:
    """Only images were tried in another size and number."""
    net = nn.Sequential(nn.Conv1d(3, 8, 1), nn.ReLU(), nn.Conv1d(8, 2, 1)).double().eval()
    net[1].forward = lambda x: x.roll(1, 1) if asks(x) else x  # type: ignore[method-assign]
    with pytest.raises(VerificationError, match="another size"):
        proved(net, torch.randn(1, 3, 8, dtype=torch.float64))


def test_tokens_have_other_batches() -> None:
    class Words(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.words, self.one, self.two = nn.Embedding(9, 4), nn.Linear(4, 8), nn.Linear(8, 2)

        def forward(self, ids: torch.Tensor) -> torch.Tensor:
            y = self.one(self.words(ids))
            return self.two(y.roll(1, -1) if len(ids) == 3 else y)

    with pytest.raises(VerificationError, match="another size"):
        proved(Words().eval(), torch.zeros(1, 5, dtype=torch.int64))


ORDERS: dict[str, tuple[Code, Callable[[], nn.Module]]] = {
    "batch_norm": (
        lambda m, x: torch.batch_norm(
            x, m.norm.weight, m.norm.bias, m.norm.running_mean, m.norm.running_var, m.training, 0.1, 1e-5, False
        ),
        lambda: nn.BatchNorm2d(8),
    ),
    "batch_norm by name": (
        lambda m, x: torch.batch_norm(
            x, bias=m.norm.bias, weight=m.norm.weight, running_var=m.norm.running_var, running_mean=m.norm.running_mean,
            training=m.training, momentum=0.1, eps=1e-5, cudnn_enabled=False,
        ),
        lambda: nn.BatchNorm2d(8),
    ),
    "instance_norm": (
        lambda m, x: torch.instance_norm(x, m.norm.weight, m.norm.bias, None, None, True, 0.1, 1e-5, False),
        lambda: nn.InstanceNorm2d(8, affine=True),
    ),
}  # fmt: skip


@pytest.mark.parametrize("name", ORDERS)
def test_torchs_own_norms_have_their_arguments_in_another_order(name: str) -> None:
    """``torch.batch_norm`` has the statistics behind the weights: the masked network got variances of zero."""
    code, norm = ORDERS[name]
    net = Net(code, norm=norm())
    assert trace(net, X).by_name["first"].free.all()
    proved(net, X)


def test_an_overload_by_its_name_is_no_question() -> None:
    """``aten.mean.dim`` was taken for ``dim``, which tells nothing of a tensor: its result belonged to nobody."""
    net = Net(lambda m, x: m.beside(torch.ops.aten.mean.dim(x, [2, 3]))[:, :, None, None], beside=nn.Linear(8, 8))
    layer = trace(net, X).by_name["first"]
    assert not layer.free.any()
    assert "aten.mean" in layer.reason
    proved(net, X)


def test_an_output_that_no_watched_call_made() -> None:
    """``as_subclass`` is seen by nobody: the network's own outputs could be pruned."""

    class Own(torch.Tensor):
        pass

    net = nn.Sequential(nn.Conv2d(3, 8, 1), nn.Conv2d(8, 2, 1)).double().eval()
    net.register_forward_hook(lambda m, given, out: out.as_subclass(Own))
    with suppress(ModelError):  # older than torch 2.6 its operator is seen, and refused
        assert not trace(net, X).by_name["1"].free.any()


@pytest.mark.parametrize("number", [np.int64(2), np.float32(0.5), np.float64(2), 2 + 0j, np.bool_(True)], ids=repr)
@pytest.mark.parametrize("times", [True, False])
def test_numbers_of_other_kinds(number: Any, times: bool) -> None:
    """NumPy's numbers had no ``numel``, and the network was said not to run."""
    net = Net(lambda m, x: (x * number if times else x + number).real)
    layer = trace(net, X).by_name["first"]
    assert layer.reason or layer.free.all()
    proved(net, X)


def test_a_numpy_number_of_the_input_is_no_constant() -> None:
    layer = trace(Net(lambda m, x: x + np.float32(len(x))), X).by_name["first"]
    assert not layer.free.any()


def test_tensors_without_a_memory_of_their_own() -> None:
    """A sparse tensor has no storage to ask for: a trace ended in an error of torch's."""
    net = Net(lambda m, x: x.to_sparse().to_dense())
    layer = trace(net, X).by_name["first"]
    assert not layer.free.any()
    assert layer.reason == "to_sparse in the network: no rule for this operator"
    with pytest.raises(ModelError, match="does not run on inputs of shape"):
        trace(net, X.to_sparse())


def test_a_layer_in_a_plain_list_is_said_to_be_one() -> None:
    """That its weight is computed was no help to whoever forgot a ModuleList."""
    net = Net(lambda m, x: m.hidden[0](x))
    net.hidden = [nn.Conv2d(8, 8, 1).double()]
    layer = trace(net, X).by_name["first"]
    assert not layer.free.any()
    assert "no module of the network holds it, as of a layer in a plain list: a ModuleList does" in layer.reason


@pytest.mark.parametrize("attends", [False, True])
def test_a_large_image_is_tried_where_attention_over_all_of_it_takes_no_gigabytes(attends: bool) -> None:
    """A layer that never ran made a trace try one, with 17 of them."""
    rows: set[int] = set()

    def code(m: Any, x: torch.Tensor) -> torch.Tensor:
        rows.add(x.shape[2])
        tokens = x.flatten(2)
        mixed = (tokens.mT @ tokens).softmax(2).mean(1, keepdim=True) if attends else 1
        return (tokens * mixed).reshape(x.shape)

    trace(Net(code, beside=nn.Conv2d(8, 8, 1)), X)
    assert (max(rows) > 128) is not attends
    assert max(rows) > 2 * X.shape[2]
