"""What a network does on other inputs than the example: other images, other batches, gradients to keep."""

from __future__ import annotations

import json
import sys
from collections.abc import Callable
from typing import Any

import numpy as np
import pytest
import torch
from torch import nn
from torch.nn import functional as F  # noqa: N812 - its usual name

from seqprune import compact, mask, trace, verify
from seqprune.errors import ModelError, VerificationError
from seqprune.graph import ChannelGraph
from seqprune.graph.capture import _elsewhere
from seqprune.graph.modes import uncompiled
from seqprune.graph.remembered import Remembered, Storages
from seqprune.graph.sizes import other_batches, other_sizes
from seqprune.graph.tensors import Tensors
from seqprune.graph.values import Value
from seqprune.testing.networks import random_plan, randomise

WIDTH = 8
Code = Callable[[Any, torch.Tensor], torch.Tensor]


class Net(nn.Module):
    """A convolution, code, and a convolution; one beside them that the code may run."""

    def __init__(self, code: Code) -> None:
        super().__init__()
        self.first, self.beside, self.last = nn.Conv2d(3, WIDTH, 1), nn.Conv2d(WIDTH, WIDTH, 1), nn.Conv2d(WIDTH, 2, 1)
        self.code, self.kept = code, None
        randomise(self, 0)
        self.double().eval()

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return self.last(self.code(self, self.first(x)))


def images(batch: int = 1, side: int = 8) -> torch.Tensor:
    return torch.randn(batch, 3, side, side, dtype=torch.float64, generator=torch.Generator().manual_seed(side))


def pruned(model: nn.Module, x: torch.Tensor, graph: ChannelGraph) -> tuple[nn.Module, nn.Module]:
    plan = random_plan(graph, 1)
    masked, small = mask(model, plan, graph), compact(model, plan, graph)
    verify(masked, small, x)
    return masked, small


def pruned_in_training(code: Code) -> Any:
    """A network whose training was traced too, and whose layer beside the others was pruned with the first."""
    model = Net(code)
    graph = trace(model, images())
    assert graph.notes == ()
    _, small = pruned(model, images(), graph)
    assert small.beside.in_channels == small.first.out_channels < WIDTH
    return small


BRANCHES: dict[str, tuple[Code, torch.Tensor]] = {
    "larger images": (lambda m, x: m.beside(x) if x.shape[3] >= 64 else x, images(1, 64)),
    "larger images in inference": (lambda m, x: x if m.training or x.shape[3] < 64 else m.beside(x), images(1, 64)),
    "smaller images": (lambda m, x: m.beside(x) if x.shape[2] <= 4 else x, images(1, 4)),
    "odd sides": (lambda m, x: m.beside(x) if x.shape[2] % 2 else x, images(1, 17)),
    "a larger batch": (lambda m, x: m.beside(x) if len(x) > 3 else x, images(4)),
}


@pytest.mark.parametrize("name", BRANCHES)
def test_a_branch_that_the_example_does_not_take(name: str) -> None:
    """The layer of the other branch still read all channels: the compact network failed on the first such image."""
    code, other = BRANCHES[name]
    model = Net(code)
    graph = trace(model, images())
    assert graph.notes == ()
    assert graph.by_name["first"].free.all()
    masked, small = pruned(model, images(), graph)
    torch.testing.assert_close(small(other), masked(other))
    assert small.beside.in_channels == small.first.out_channels < WIDTH


@pytest.mark.parametrize(("batch", "side", "large"), [(1, 8, 129), (2, 70, 141)])
def test_other_inputs_are_other_batches_then_other_sizes(batch: int, side: int, large: int) -> None:
    shapes = [tuple(given[0].shape) for given in _elsewhere((images(batch, side), torch.zeros(3)))]
    other = 5 if batch == 1 else 1
    half = side // 2
    assert shapes == [
        (other, 3, side, side),
        (3 if batch == 1 else 1, 3, half, half),
        (batch, 3, half, half),
        (3 if batch == 1 else 1, 3, side, side),
        (batch, 3, side + 33, side + 65),
        (batch, 3, side + 32, side + 64),
        (batch, 3, large, large),
    ]
    assert [tuple(given[0].shape) for given in _elsewhere((torch.zeros(1, 4),))] == [(5, 4), (3, 4)]


def test_a_batch_of_two_is_three_at_half_the_size_and_as_large() -> None:
    assert [tuple(made[0].shape) for made in other_batches((images(2),))] == [(3, 3, 4, 4), (3, 3, 8, 8)]
    assert [*other_batches((images(1),)), *other_batches((images(3),))] == []


def test_what_holds_no_number_has_no_size() -> None:
    assert [[tuple(t.shape) for t in made] for made in other_sizes((torch.zeros(0, 4, 4), torch.zeros(1, 3)))] == [
        [(0, 4, 4), (1, 3)]
    ]


def test_no_side_is_halved_to_nothing() -> None:
    shapes = [tuple(made[0].shape) for made in other_sizes((torch.zeros(1, 3, 1, 3),))]
    assert shapes[:2] == [(3, 3, 1, 1), (1, 3, 1, 1)]
    assert [tuple(made[0].shape) for made in other_sizes((torch.zeros(1, 3, 4, 5, 1),))][:2] == [
        *((3, 3, 2, 2, 1), (1, 3, 2, 2, 1))
    ]
    assert [tuple(made[0].shape) for made in other_batches((torch.zeros(2, 3, 1, 3),))] == [(3, 3, 1, 1), (3, 3, 1, 3)]


def test_a_batch_of_one_is_doubled_for_norms_of_one_pixel() -> None:
    model = Net(lambda m, x: m.beside(F.adaptive_avg_pool2d(x, 1)))
    model.beside = nn.BatchNorm2d(WIDTH).double()
    assert trace(model, images()).notes == ()


def test_whole_numbers_are_no_images() -> None:
    """A mask beside an image has other sides, and may be one for many."""
    given = torch.zeros(5, 1, 20, 20, dtype=torch.int64), images(1)
    assert [tuple(made[1].shape) for made in other_sizes(given)][:2] == [(3, 3, 4, 4), (1, 3, 4, 4)]
    assert [len(made[0]) for made in other_sizes(given)][:2] == [5, 5]
    rows = (torch.zeros(1, 4, 4, dtype=torch.int64),)
    assert [tuple(made[0].shape) for made in other_sizes(rows)] == [(3, 4, 4)]


def test_hooks_of_the_networks_own_run_in_a_trace_whatever_their_numbers() -> None:
    seen = []
    model = Net(lambda m, x: x)
    for number in (0, 1):
        model.first._forward_hooks[number] = lambda *_, number=number: seen.append(number)
        model.first._forward_pre_hooks[number] = lambda *_, number=number: seen.append(number)
    trace(model, images())
    assert seen[:4] == [0, 1, 0, 1]


def test_a_module_that_runs_without_its_parameter_ran() -> None:
    class Spare(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.unused = nn.Parameter(torch.ones(1))

        def forward(self, x: torch.Tensor) -> torch.Tensor:
            return x

    model = Net(lambda m, x: m.beside(x))
    model.beside, model.idle = Spare(), nn.ReLU()
    assert trace(model, images()).notes == ()


def test_a_branch_that_nothing_takes_is_noted() -> None:
    graph = trace(Net(lambda m, x: m.beside(x) if x.shape[2] == 12345 else x), images())
    assert [note.split(":")[0] for note in graph.notes] == ["1 modules with parameters never ran"]


@pytest.mark.parametrize(
    "gamma", [nn.ParameterList([torch.rand(WIDTH)]), nn.ParameterDict({"0": torch.rand(WIDTH)})], ids=["list", "dict"]
)
def test_lists_of_parameters_do_not_run(gamma: Any) -> None:
    """They were noted as modules that never ran, and so were layers whose weights the code hands to a function."""
    model = Net(lambda m, x: F.conv2d(x * next(m.gamma.parameters()).view(1, -1, 1, 1), m.beside.weight))
    model.gamma = gamma.double()
    assert trace(model, images()).notes == ()
    model.code = lambda m, x: x * next(m.gamma.parameters()).exp().view(1, -1, 1, 1) + m.beside.weight.sum()
    assert trace(model, images()).notes == ()


NUMBERS: dict[str, Code] = {
    "the batch": lambda m, x: x + len(x),
    "the height": lambda m, x: x + x.shape[2] / 8,
    "a factor": lambda m, x: x.sigmoid() * (x.shape[3] / 8),
    "an exponent": lambda m, x: x.sigmoid() ** (x.shape[0] + 1),
    "a limit": lambda m, x: x.clamp(min=x.shape[2] / 80),
    "the mode": lambda m, x: x + (1.0 if m.training else 2.0),
}


@pytest.mark.parametrize("name", NUMBERS)
@pytest.mark.parametrize("batch", [1, 2])
def test_a_number_that_hangs_on_the_input_is_no_constant(name: str, batch: int) -> None:
    """It was folded into a bias as the example gave it: on two images the compact network was another, unnoticed."""
    model = Net(NUMBERS[name])
    del model.beside  # for which other inputs would be tried in any case
    layer = trace(model, images(batch)).by_name["first"]
    assert not layer.free.any()
    assert "adds another number" in layer.reason


@pytest.mark.parametrize(
    "code",
    [
        lambda m, x: x.clamp(0, x.shape[2]),
        lambda m, x: x * (F.avg_pool2d(x.sigmoid(), 3, 1, 1) * (x.shape[2] / 8)),
    ],
    ids=["a limit", "a factor of what is no constant"],
)
def test_a_number_that_hangs_on_the_input_keeps_zero(code: Code) -> None:
    model = Net(code)
    graph = trace(model, images())
    assert graph.by_name["first"].free.all(), graph.by_name["first"].reason
    masked, small = pruned(model, images(), graph)
    torch.testing.assert_close(small(images(2, 3)), masked(images(2, 3)))


def test_a_number_that_is_always_the_same_is_a_constant() -> None:
    model = Net(lambda m, x: (x + 0.5) * 3 + 0.25)
    graph = trace(model, images())
    assert graph.by_name["first"].free.all()
    masked, small = pruned(model, images(), graph)
    torch.testing.assert_close(small(images(5, 31)), masked(images(5, 31)))


def test_the_proof_tries_another_batch() -> None:
    class Counting(nn.Module):
        def __init__(self, scale: float) -> None:
            super().__init__()
            self.scale = scale
            self.layer = nn.Conv2d(3, 2, 1)
            randomise(self, 0)

        def forward(self, x: torch.Tensor) -> torch.Tensor:
            return self.layer(x) * (1 if len(x) == 1 else self.scale)

    with pytest.raises(VerificationError, match="another size"):
        verify(Counting(1.0), Counting(2.0), torch.rand(1, 3, 8, 8))
    with pytest.raises(VerificationError, match="another size"):
        verify(Counting(2.0).eval(), Counting(1.0), torch.rand(1, 3, 8, 8))


@pytest.mark.parametrize(
    "asks", [lambda m, x: x.requires_grad, lambda m, x: m.first.weight.requires_grad], ids=["activation", "weight"]
)
def test_what_runs_only_where_gradients_are_kept_is_seen(asks: Callable[[Any, torch.Tensor], bool]) -> None:
    """``if x.requires_grad`` is as good as ``torch.is_grad_enabled()``: the first training step failed."""

    def code(m: Any, x: torch.Tensor) -> torch.Tensor:
        if asks(m, x) and m.training:
            m.kept = m.beside(x)
        return x

    small = pruned_in_training(code)
    small.train()(images())
    assert small.kept is not None


def test_code_that_asks_for_gradients_of_its_input_is_traced_in_training() -> None:
    """As Wav2Vec2 does, which "reads values of its input with set": its training was not looked at."""

    def code(m: Any, x: torch.Tensor) -> torch.Tensor:
        given = x.detach()
        if m.training:
            given.requires_grad, given.grad = True, None
            m.kept = m.beside(given)
        return x

    pruned_in_training(code)


def test_code_that_fails_where_a_gradient_is_missing_is_seen_with_gradients_on() -> None:
    """It is told of gradients that a trace does not keep, and runs again untold; not without gradients at once."""

    def code(m: Any, x: torch.Tensor) -> torch.Tensor:
        if m.training and x.requires_grad:
            raise RuntimeError("where is the gradient")
        if torch.is_grad_enabled():
            m.kept = m.beside(x)
        return x

    pruned_in_training(code)


def test_a_network_is_told_the_truth_of_what_it_makes_itself() -> None:
    told = []

    def code(_m: Any, x: torch.Tensor) -> torch.Tensor:
        assert torch.ones(1, requires_grad=True).requires_grad
        with torch.no_grad():
            told.append((2 * x).requires_grad)
        return x

    assert trace(Net(code), images()).by_name["first"].free.all()
    assert told
    assert not any(told)


def test_of_memory_that_is_another_tensors_by_now_nothing_is_known() -> None:
    memory, known = np.zeros(4), Storages()
    tensor = torch.from_numpy(memory)
    known.add(tensor, Value(np.arange(4)))
    assert len(known.of(tensor[1:])) == len(known.of(tensor)) == 1
    del tensor
    other, value = torch.from_numpy(memory), Value(np.arange(2))
    assert known.of(other) == []
    known.add(other, value)
    assert known.of(other) == [value]


def test_of_a_tensor_that_has_the_name_of_another_nothing_is_known() -> None:
    """The ``id`` of one that is gone is soon that of a new one."""
    known: Remembered[int] = Remembered()
    tensor = torch.zeros(1)
    known.set(tensor, 1)
    assert known.get(tensor) == 1
    del tensor
    assert known.alive() == []
    others = [torch.zeros(1) for _ in range(99)]
    assert [known.get(each) for each in others] == [None] * 99


def test_what_takes_the_place_of_a_buffer_is_none() -> None:
    """Its name may be that of the one that it replaced."""
    model = nn.BatchNorm1d(4)
    known = Tensors(model)
    model.running_mean = torch.zeros(4)
    others = [torch.zeros(4) for _ in range(99)]
    assert not any(known.owners(each) for each in (model.running_mean, *others))


def test_hooks_on_gradients_do_not_stop_a_trace() -> None:
    """As Grad-CAM sets them: no gradient is kept in a trace, so there is nothing to hook."""

    def code(m: Any, x: torch.Tensor) -> torch.Tensor:
        if x.requires_grad:
            x.register_hook(lambda gradient: None)
        return x

    graph = trace(Net(code), images())
    assert not [note for note in graph.notes if "training" in note]
    assert graph.by_name["first"].free.all()


def test_code_that_keeps_gradients_of_its_own() -> None:
    graph = trace(Net(lambda m, x: x.detach().requires_grad_() * 2), images())
    assert graph.notes == ("1 modules with parameters never ran: beside",)
    assert graph.by_name["first"].free.all()


def test_code_under_vmap_is_refused_for_what_it_is() -> None:
    """The line blamed the weights and the input: ``Cannot access storage of BatchedTensorImpl``."""
    model = Net(lambda m, x: torch.vmap(lambda image: m.beside(image[None])[0])(x))
    with pytest.raises(ModelError, match=r"torch\.vmap .*give"):
        trace(model, images())


def test_inputs_of_one_dimension_and_of_whole_numbers() -> None:
    row = nn.Sequential(nn.Linear(8, WIDTH), nn.ReLU(), nn.Linear(WIDTH, 2)).double()
    assert trace(row, torch.rand(8, dtype=torch.float64)).by_name["0"].free.all()

    class Words(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.words, self.first, self.last = nn.Embedding(9, 4), nn.Linear(4, WIDTH), nn.Linear(WIDTH, 2)

        def forward(self, x: torch.Tensor) -> torch.Tensor:
            return self.last(self.first(self.words(x)))

    numbers = torch.arange(6).view(2, 3)
    graph = trace(model := Words().double(), numbers)
    assert graph.by_name["first"].free.all()
    pruned(model, numbers, graph)


def test_whole_numbers_of_the_input_are_not_followed() -> None:
    class Masked(Net):
        def forward(self, x: torch.Tensor, mask: torch.Tensor) -> torch.Tensor:  # type: ignore[override]
            torch.cat([mask, mask], 1)
            return self.last(self.first(x) * mask)

    given = images(), torch.ones(1, 1, 8, 8, dtype=torch.int64)
    graph = trace(Masked(lambda m, x: x), given)
    assert "joins channels that were not followed" in [barrier.reason for barrier in graph.barriers]
    layer = graph.by_name["first"]
    assert not layer.free.any()
    assert "joins channels that were lost at an earlier barrier" in layer.reason


def test_training_that_runs_without_gradients_alone_is_traced() -> None:
    def code(m: Any, x: torch.Tensor) -> torch.Tensor:
        if m.training:
            assert not torch.is_grad_enabled()
            return x + m.beside(x).mean()
        return x

    assert trace(Net(code), images()).notes == ()


def test_training_code_that_takes_plain_numbers_alone_gets_them() -> None:
    """JSON's encoder, in C, knows no number but Python's own."""

    def code(m: Any, x: torch.Tensor) -> torch.Tensor:
        return x * len(json.dumps([m.beside.in_channels])) if m.training else x

    assert not [note for note in trace(Net(code), images()).notes if "training" in note]


def test_training_code_that_takes_plain_numbers_gets_gradients_too() -> None:
    def code(m: Any, x: torch.Tensor) -> torch.Tensor:
        if m.training and json.dumps([m.beside.in_channels]) and torch.is_grad_enabled():
            m.kept = m.beside(x)
        return x

    assert trace(Net(code), images()).notes == ()


def test_other_calls_of_one_operator_in_one_module_add_other_numbers() -> None:
    model = Net(lambda m, x: ((x + 0.5).relu() + 0.25) * 2 * 3)
    assert trace(model, images()).by_name["first"].free.all()


def test_without_a_compiler_nothing_is_said_to_it(monkeypatch: pytest.MonkeyPatch) -> None:
    """Older ones of torch cannot be told; one that was never imported is not for that."""
    ran = []
    monkeypatch.setattr(torch.compiler, "set_stance", ran.append, raising=False)
    monkeypatch.delitem(sys.modules, "torch._dynamo", raising=False)
    with uncompiled():
        assert ran == []
    monkeypatch.setitem(sys.modules, "torch._dynamo", torch)
    monkeypatch.delattr(torch.compiler, "set_stance")
    with uncompiled():
        ran.append("asked")
    assert ran == ["asked"]
