"""Networks that cannot be copied or watched as they are: handled around it, or refused in one line that says how."""

from __future__ import annotations

import copyreg
import gc
import threading
import warnings
from collections.abc import Callable
from copy import deepcopy
from functools import partial
from typing import Any
from weakref import ref

import pytest
import torch
from exactness import exact_on
from torch import nn
from torch.nn.utils import parametrizations, parametrize, prune

from seqprune import PrunePlan, compact, mask, trace, verify
from seqprune.errors import ModelError, PlanError, SeqPruneError, VerificationError
from seqprune.graph.copying import copied
from seqprune.graph.unwatched import wrap_scripted
from seqprune.testing.networks import random_plan, randomise

X = torch.randn(2, 3, 6, 6, dtype=torch.float64, generator=torch.Generator().manual_seed(1))


class Keeping(nn.Module):
    """Convolution, something, convolution; keeps what it computed last, as for a loss or a picture of it."""

    def __init__(self, between: nn.Module | None = None) -> None:
        super().__init__()
        self.first, self.last = nn.Conv2d(3, 8, 3, padding=1), nn.Conv2d(8, 2, 1)
        self.between = between or nn.ReLU()
        self.seen: Any = None
        randomise(self, 0)
        self.double().eval()

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        y = self.between(self.first(x))
        self.seen = {"last": [y]}
        return self.last(y)


exact = partial(exact_on, X)


def test_a_network_that_keeps_an_activation() -> None:
    """``Only Tensors created explicitly by the user support the deepcopy protocol``, raw, after one training step."""
    model = Keeping()
    model.train()(X).mean().backward()
    assert exact(model.eval()).by_name["first"].free.all()
    assert torch.equal(copied(model).seen["last"][0], model.seen["last"][0])


@pytest.mark.parametrize("history", [False, True])
def test_tensors_beside_the_parameters_keep_what_they_are(history: bool) -> None:
    """A sparse one has no memory to look at; what needs a gradient still does, what is laid out turned still is."""
    model = Keeping()
    model.sparse, model.leaf = torch.eye(3).to_sparse(), torch.ones(2, requires_grad=True)
    model.turned, model.grown, model.named = torch.rand(3, 4).T, torch.ones(2, requires_grad=True), torch.ones(2)
    model.grown.grad, model.named.about = torch.ones(2), "kept"
    model.frozen = torch.ones(2, requires_grad=True)
    model.frozen.grad = torch.ones(2)
    model.frozen.requires_grad_(False)
    model.strange = torch.rand(4).as_strided((2, 2), (0, 1))
    model.seen = model.leaf * 2 if history else None
    twin = copied(model)
    assert twin.strange.stride() == (0, 1)
    assert torch.equal(twin.sparse.to_dense(), torch.eye(3))
    assert twin.leaf.requires_grad
    assert twin.leaf.is_leaf
    assert twin.turned.stride() == model.turned.stride()
    assert twin.grown.grad is not None
    assert twin.frozen.grad is not None
    assert twin.named.about == "kept"
    assert all(getattr(twin, name) is not getattr(model, name) for name in ("leaf", "turned", "grown", "named"))


def test_what_stands_in_the_place_of_a_tensor() -> None:
    model, other = Keeping(), nn.Parameter(torch.zeros(8))
    twin = copied(model, {id(model.first.bias): other})
    assert twin.first.bias is other
    assert torch.equal(twin.first.weight, model.first.weight)
    assert copied(model, {id(model.first.bias): model.first.bias}).first.bias is model.first.bias


def test_a_circle_of_objects_beside_what_has_no_copy() -> None:
    model = Keeping()
    model.lock, model.ring = threading.Lock(), Ring()
    twin = copied(model)
    assert twin.lock is model.lock
    assert twin.ring.ring is twin.ring is not model.ring


class Reduced(nn.ReLU):
    """Says itself how it is made again."""

    def __init__(self, number: int, *state: dict[str, Any]) -> None:
        super().__init__()
        self.number, self.state = number, state

    def __reduce__(self) -> Any:
        return Reduced, (self.number,), *self.state


@pytest.mark.parametrize("state", [(), ({"more": 1},)])
def test_a_module_that_says_how_it_is_made(state: tuple[dict[str, Any], ...]) -> None:
    twin = copied(nn.Sequential(Reduced(7, *state), nn.ReLU()))
    assert twin[0].number == 7
    assert getattr(twin[0], "more", 0) == len(state)


def test_what_a_tuple_holds_is_copied_too() -> None:
    model = Keeping()
    model.pair, model.numbers, model.named = ([1], model.first), (1, "two"), {model.first: 1}
    twin = copied(model)
    assert twin.pair[0] == [1]
    assert twin.pair[0] is not model.pair[0]
    assert twin.pair[1] is twin.first
    assert twin.numbers == (1, "two")
    assert [*twin.named] == [twin.first]


def test_tensors_of_one_memory_share_it_whichever_comes_first() -> None:
    model, whole = Keeping(), torch.arange(4.0)
    model.part, model.whole = whole[1:3], whole
    twin = copied(model)
    assert torch.equal(twin.whole, whole)
    twin.whole += 1
    assert twin.part.tolist() == [2, 3]
    assert model.part.tolist() == [1, 2]


class Items(nn.ReLU, list[int]):
    __hash__ = nn.Module.__hash__


class Names(nn.ReLU, dict[str, int]):
    __hash__ = nn.Module.__hash__


def test_a_module_that_is_a_list_or_a_dictionary_keeps_what_it_holds() -> None:
    model = nn.Sequential(Items(), Names())
    model[0].extend([1, 2])
    model[1]["one"] = 1
    twin = copied(model)
    assert [*twin[0]] == [1, 2]
    assert {**twin[1]} == {"one": 1}


def test_a_module_whose_copies_are_made_as_copyreg_says(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(copyreg.dispatch_table, Ringed, lambda module: (Ringed, (module.rings + 1,)))
    assert copied(nn.Sequential(Ringed(1)))[0].rings == 2


class Ringed(nn.ReLU):
    def __init__(self, rings: int) -> None:
        super().__init__()
        self.rings = rings


class Ring:
    """Knows itself."""

    def __init__(self) -> None:
        self.ring = self


class Itself(nn.ReLU):
    def __deepcopy__(self, memo: Any) -> Itself:
        return self


class Shallow(nn.Conv2d):
    def __deepcopy__(self, memo: Any) -> Shallow:
        other = Shallow.__new__(Shallow)
        other.__dict__ = dict(self.__dict__)
        return other


class Refusing(nn.ReLU):
    def __deepcopy__(self, memo: Any) -> Refusing:
        raise OwnError("there is one")


class OwnError(Exception):
    """As a library has its own."""


@pytest.mark.parametrize(
    ("between", "reason"),
    [
        (Itself(), r"a copy of between is, or shares its weights with, the original \(Itself.__deepcopy__ likely\)"),
        (nn.Sequential(Shallow(8, 8, 1)), r"a copy of between\.0 is, or shares .* \(Shallow.__deepcopy__ likely\)"),
        (Refusing(), r"cannot be copied \(OwnError: there is one\)"),
    ],
)
def test_a_network_whose_copy_is_none_is_refused(between: nn.Module, reason: str) -> None:
    """The original lost its channels, or ``IndexError: index 14 is out of bounds``, raw."""
    model = Keeping(between)
    with pytest.raises(ModelError, match=reason):
        trace(model, X)


def test_what_has_no_copy_is_shared_and_the_rest_is_not() -> None:
    """``cannot pickle '_thread.lock' object``, raw."""
    model = Keeping()
    model.lock = threading.Lock()
    model.held = {"locks": [threading.RLock(), threading.Condition()], "numbers": [1, 2]}
    model.stream = (number for number in range(3))
    assert exact(model).by_name["first"].free.all()
    twin = copied(model)
    assert twin.lock is model.lock
    assert twin.held["locks"][0] is model.held["locks"][0]
    assert twin.held["numbers"] is not model.held["numbers"]
    assert twin.first.weight is not model.first.weight
    assert list(model.stream) == [0, 1, 2]


class Refusing:
    """Says nothing of what it holds, and has no copy."""

    def __deepcopy__(self, memo: dict[int, Any]) -> Refusing:
        raise TypeError("no copy\nof me")


class Hiding(nn.Module):
    """A module whose own way of being copied fails."""

    def __deepcopy__(self, memo: dict[int, Any]) -> Hiding:
        raise TypeError("no copy\nof me")

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return x


def test_what_refuses_to_be_copied() -> None:
    model = Keeping()
    model.first.held = Refusing()
    assert exact(model).by_name["first"].free.all()
    with pytest.raises(ModelError, match=r"^the network cannot be copied \(TypeError: no copy\); ".replace(";", ":")):
        trace(Keeping(Hiding()), X)


def test_parameters_of_a_copy_are_trained_as_those_of_the_network() -> None:
    model = Keeping()
    model.first.weight.requires_grad_(False)
    assert [p.requires_grad for p in copied(model).parameters()] == [p.requires_grad for p in model.parameters()]


@pytest.mark.parametrize("structured", [False, True])
def test_hooks_of_torch_prune_are_refused_with_the_way_on(structured: bool) -> None:
    """The hook makes the weight anew in every call: what surgery does to it would be undone."""
    model = Keeping()
    if structured:
        prune.ln_structured(model.first, "weight", 0.5, n=2, dim=0)
    else:
        prune.l1_unstructured(model.first, "weight", 0.5)
    model(X)
    with pytest.raises(ModelError, match=r"first makes its weight anew.*torch.nn.utils.prune.remove\(module, 'weight'"):
        trace(model, X)
    prune.remove(model.first, "weight")
    assert exact(model).by_name["first"].free.all()


@pytest.mark.parametrize(
    ("name", "undo"),
    [("weight_norm", nn.utils.remove_weight_norm), ("spectral_norm", nn.utils.remove_spectral_norm)],
)
def test_hooks_that_compute_a_weight_pin_it_and_say_how_to_go_on(name: str, undo: Callable[..., Any]) -> None:
    model = Keeping()
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # torch recommends parametrizations in their place
        getattr(nn.utils, name)(model.first)
    model.train()(X)
    layer = exact(model.eval()).all_layers
    assert [each.name for each in layer] == ["last"]
    barrier = trace(model, X).barriers[0]
    assert f"a hook of {name}; torch.nn.utils.remove_{name}" in barrier.reason
    undo(model.first)
    assert exact(model).by_name["first"].free.all()


@pytest.mark.parametrize("name", ["weight_norm", "spectral_norm", "orthogonal"])
def test_parametrizations_pin_and_say_how_to_go_on(name: str) -> None:
    model = Keeping()
    getattr(parametrizations, name)(model.first)
    model.double()
    assert "remove_parametrizations" in exact(model).barriers[0].reason
    parametrize.remove_parametrizations(model.first, "weight")
    assert exact(model).by_name["first"].free.all()


class Scriptable(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.conv = nn.Conv2d(8, 8, 1)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return self.conv(x) + x


@pytest.mark.parametrize("how", [torch.jit.script, lambda m: torch.jit.trace(m, torch.randn(1, 8, 4, 4))])
def test_a_scriptmodule_inside_pins_what_reaches_it(how: Callable[[nn.Module], nn.Module]) -> None:
    """``register_forward_pre_hook is not supported on ScriptModules``, raw."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", DeprecationWarning)
        scripted = how(Scriptable())
    model = nn.Sequential(nn.Conv2d(3, 4, 1), nn.ReLU(), Keeping(scripted), nn.Conv2d(2, 2, 1)).double().eval()
    model[2].first = nn.Conv2d(4, 8, 1).double()
    graph = exact(model)
    assert graph.by_name["0"].free.all()
    assert not graph.by_name["2.first"].free.any()
    assert "ScriptModule" in graph.by_name["2.first"].reason
    plan = random_plan(graph, 0)
    small = compact(model, plan, graph)
    assert isinstance(small.get_submodule("2.between"), torch.jit.ScriptModule)
    assert all(p.requires_grad for p in small.parameters())


def test_a_scriptmodule_that_shares_its_weights_keeps_its_own() -> None:
    """``zip() argument 2 is longer than argument 1``, raw: its copy shares them with nobody."""

    class Shares(Keeping):
        def forward(self, x: torch.Tensor) -> tuple[torch.Tensor, ...]:  # type: ignore[override]
            return super().forward(x), self.scripted(x)

    model = Shares()
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", DeprecationWarning)
        model.scripted = torch.jit.script(model.first)
    model.double().eval().first.weight.requires_grad_(False)
    assert model.scripted.weight is model.first.weight
    graph = exact(model)
    assert graph.by_name["first"].free.all()
    small = compact(model, random_plan(graph, 0), graph)
    assert torch.equal(small.scripted.weight, model.first.weight)
    assert [small.scripted.weight.requires_grad, small.scripted.bias.requires_grad] == [False, True]


class Written(nn.Module):
    """Runs on its own size of images alone."""

    def __init__(self) -> None:
        super().__init__()
        self.first, self.second, self.last = nn.Conv2d(3, 8, 1), nn.Conv2d(8, 4, 1), nn.Linear(144, 2)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return self.last(self.second(self.first(x).relu()).view(x.shape[0], 144))


def test_torch_fx_prints_nothing_of_what_is_tried(capfd: pytest.CaptureFixture[str]) -> None:
    """Its tracebacks of passes that fail on another size or mode stood on the standard error of a fine trace."""
    model = torch.fx.symbolic_trace(Written().double()).eval()
    graph = trace(model, X)
    plan = PrunePlan.from_keep(graph, {"first": [0, 5]})
    verify(mask(model, plan, graph), compact(model, plan, graph), X)
    assert capfd.readouterr() == ("", "")
    with pytest.raises(RuntimeError):
        model(X[..., :3])
    assert "FX-traced Module" in capfd.readouterr().err  # the caller's own failures are told as ever


class Slotted(nn.Module):
    """What its slots hold is not in its ``__dict__``."""

    __slots__ = ("rows", "unset")

    def __init__(self) -> None:
        super().__init__()
        self.first, self.last, self.rows = nn.Conv2d(3, 8, 1), nn.Conv2d(8, 2, 1), [6]

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        y = self.first(x)
        return self.last(y.view(len(x), -1, self.rows[0], 6))


def test_a_module_with_slots_is_copied_whole() -> None:
    """Its copy had none of what they hold: ``AttributeError`` in its own code, said to be of the input size."""
    model = Slotted().double().eval()
    copy = copied(model)
    assert copy.rows == [6]
    assert copy.rows is not model.rows
    assert not hasattr(copy, "unset")
    graph = trace(model, X)
    plan = PrunePlan.from_keep(graph, {"first": [0, 5]})
    verify(mask(model, plan), compact(model, plan), X)


class Anew(nn.Conv2d):
    """Copies itself by making another."""

    def __deepcopy__(self, memo: dict[int, Any]) -> Anew:
        size: Any = self.kernel_size
        copy = Anew(self.in_channels, self.out_channels, size, dtype=self.weight.dtype)
        copy.load_state_dict(self.state_dict())
        return copy.train(self.training)


def test_a_module_that_copies_itself_in_its_own_way_is_cut() -> None:
    model = nn.Sequential(Anew(3, 8, 1), nn.ReLU(), Anew(8, 2, 1)).double().eval()
    graph = exact(model)
    assert compact(model, PrunePlan.from_keep(graph, {"0": [1, 4]}), graph)[0].weight.shape == (2, 3, 1, 1)
    model[0].weight.requires_grad_(False)
    assert [p.requires_grad for p in copied(model).parameters()] == [False, True, True, True]


def test_a_module_that_copies_itself_beside_what_keeps_an_activation() -> None:
    model = nn.Sequential(Anew(3, 8, 1).double())
    model.seen = model(X)
    assert copied(model)[0].weight.dtype is torch.float64


def test_a_scriptmodule_may_be_called_by_names() -> None:
    class Weighs(nn.Module):
        def forward(self, x: torch.Tensor, by: float) -> torch.Tensor:
            return x * by

    class Calls(Keeping):
        def forward(self, x: torch.Tensor) -> torch.Tensor:
            assert self.between.original_name == "Weighs"  # what it holds is asked for as ever
            return self.last(self.between(self.first(x), by=2.0))

    with warnings.catch_warnings():
        warnings.simplefilter("ignore", DeprecationWarning)
        scripted = torch.jit.script(Weighs())
    assert not trace(Calls(scripted), X).by_name["first"].free.any()


def test_what_shares_memory_with_what_a_scriptmodule_is_given_stays() -> None:
    """It may write into it."""

    class Beside(Keeping):
        def forward(self, x: torch.Tensor) -> torch.Tensor:
            left, right = self.first(x).chunk(2, 1)
            return self.last(torch.cat([self.between(left), right], 1))

    with warnings.catch_warnings():
        warnings.simplefilter("ignore", DeprecationWarning)
        scripted = torch.jit.script(nn.ReLU())
    assert not trace(Beside(scripted), X).by_name["first"].free.any()


def test_a_scripted_network_is_refused() -> None:
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", DeprecationWarning)
        scripted = torch.jit.script(Scriptable())
    with pytest.raises(ModelError, match=r"the network is a ScriptModule .*give the plain module"):
        trace(scripted, torch.randn(1, 8, 4, 4))


class Auxiliary(nn.Module):
    """Runs one layer more where gradients are on."""

    def __init__(self) -> None:
        super().__init__()
        self.first, self.last, self.aux = nn.Conv2d(3, 8, 3), nn.Conv2d(8, 4, 1), nn.Conv2d(8, 2, 1)
        self.loss: Any = None

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        y = self.first(x)
        if torch.is_grad_enabled():
            self.loss = self.aux(y).mean()
        return self.last(y)


class Teaching(Keeping):
    """Copies a part of itself while it runs, in every pass or in the first one, as for a target that follows slowly."""

    once = True

    def forward(self, x: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
        if self.seen is None or not self.once:
            self.seen = deepcopy(self.first)
        y, target = self.between(self.first(x)), self.seen(x)
        return self.last(y), target.mean(1)


@pytest.mark.parametrize("once", [False, True])
def test_a_network_that_copies_a_part_of_itself_while_it_runs(once: bool) -> None:
    """``KeyError: Conv2d(3, 8, ...)``, "check the weights and the input size": the copy had the hooks of the trace."""
    model = Teaching()
    model.once = once
    graph = exact(model)
    assert "reads the parameter" in graph.by_name["first"].reason


def test_what_runs_only_with_gradients_is_seen() -> None:
    """The compact network failed in its first training step: ``aux`` still read eight channels."""
    model = Auxiliary().double().eval()
    graph = exact(model)
    small = compact(model, random_plan(graph, 0), graph).train()
    (small(X).mean() + small.loss).backward()
    assert small.aux.weight.grad is not None
    assert small.aux.in_channels == small.first.out_channels < 8


class Failing(nn.Module):
    def __init__(self, at: int) -> None:
        super().__init__()
        self.layer, self.at = nn.Conv2d(3, at, 1), at

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        y = self.layer(x)
        if y.shape[1] != 4:
            raise KeyError("two\nlines")
        return y


@pytest.mark.parametrize(("at", "kind", "who"), [(3, ModelError, "masked"), (4, VerificationError, "compact")])
def test_a_network_that_fails_in_its_proof(at: int, kind: type[SeqPruneError], who: str) -> None:
    with pytest.raises(kind, match=rf"^the {who} model does not run .*KeyError.*") as caught:
        verify(Failing(at), Failing(3), torch.randn(1, 3, 2, 2))
    assert "\n" not in str(caught.value)


def test_a_network_with_lazy_layers_is_refused_with_the_way_on() -> None:
    """It was a ValueError of torch's, with its traceback."""
    with pytest.raises(ModelError, match=r"^0 has no shape yet .* run the network once"):
        trace(nn.Sequential(nn.LazyConv2d(4, 1), nn.ReLU()), torch.randn(1, 3, 4, 4))


def test_inputs_in_lists_need_the_graph() -> None:
    """A plan keeps the shapes of its inputs, not how they lie in lists: the line blamed the weights and the input."""

    class Joined(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.first, self.last = nn.Conv2d(6, 8, 1), nn.Conv2d(8, 2, 1)

        def forward(self, images: list[torch.Tensor]) -> torch.Tensor:
            return self.last(self.first(torch.cat(images, 1)))

    images = ([torch.randn(1, 3, 4, 4), torch.randn(1, 3, 4, 4)],)
    graph = trace(Joined(), images)
    plan = random_plan(graph, 0)
    verify(mask(model := Joined(), plan, graph), compact(model, plan, graph), images)
    for act in (mask, compact):
        with pytest.raises(ModelError, match=r"^without its graph .* give the graph that trace returned"):
            act(model, plan)


class Experts(nn.Module):
    """Of four layers the two run that the input asks for."""

    def __init__(self) -> None:
        super().__init__()
        self.gate, self.last = nn.Linear(3, 4), nn.Conv2d(4, 2, 1)
        self.experts = nn.ModuleList(nn.Sequential(nn.Conv2d(3, 8, 1), nn.Conv2d(8, 4, 1)) for _ in range(4))

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        chosen = self.gate(x.mean((2, 3))).topk(2, 1).indices
        out = x.new_zeros(len(x), 4, *x.shape[2:])
        for number, expert in enumerate(self.experts):
            at = (chosen == number).any(1).nonzero().flatten()
            if len(at):
                out = out.index_add(0, at, expert(x[at]))
        return self.last(out)


def test_layers_that_the_data_choose_need_the_graph() -> None:
    """The plan was said to be another model's."""
    model = Experts().eval()
    with torch.no_grad():
        model.gate.weight.copy_(torch.tensor([[1.0, 1, 1], [1, 1, 1], [0, 0, 0], [0, 0, 0]]))
        model.gate.bias.copy_(torch.tensor([0.0, 0, 0.1, 0.1]))
    x = torch.rand(2, 3, 4, 4) + 1
    with pytest.raises(ModelError, match=r"^experts.2.0, .* never ran, and which layers run .* a larger batch"):
        trace(model, x)  # those that read what another layer loses would have failed on other data
    x[1] *= -1
    graph = trace(model, x)
    plan = PrunePlan.from_keep(graph, {"experts.1.0": [0, 3]})
    verify(mask(model, plan, graph), compact(model, plan, graph), x)
    for act in (mask, compact):
        with pytest.raises(PlanError, match=r"^without its graph .* never ran, .* give the graph that trace"):
            act(model, plan)


def test_layers_that_run_on_what_a_mask_picks_need_an_example_that_it_picks() -> None:
    class Picks(Keeping):
        def forward(self, x: torch.Tensor) -> torch.Tensor:
            y = self.first(x)
            bright = y[x.mean((1, 2, 3)) > self.least]
            return torch.cat([self.last(y), *([self.other(bright)] if len(bright) else [])])

    model = Picks()
    model.other, model.least = nn.Conv2d(8, 2, 1).double(), 9.0
    with pytest.raises(ModelError, match=r"^other never ran, and which layers run may depend on how much getitem"):
        trace(model, X)
    model.least = -9.0
    assert trace(model, X).by_name["other"]


def test_an_index_into_a_mask_picks_as_much_of_any_data() -> None:
    model = Keeping()
    model.other, model.between.forward = nn.Conv2d(8, 2, 1).double(), lambda x: x * (x > 0)[:, :, :1]
    assert trace(model, X).notes == ("1 modules with parameters never ran: other",)


def test_a_scripted_function_is_named_for_what_it_is() -> None:
    """``The following operation failed in the TorchScript interpreter.``"""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")

        @torch.jit.script
        def swish(x: torch.Tensor) -> torch.Tensor:
            return x * torch.sigmoid(x)

        @torch.jit.script
        def moved(x: torch.Tensor, by: torch.Tensor) -> torch.Tensor:
            return by + x

    class Moved(nn.Module):
        def forward(self, x: torch.Tensor) -> torch.Tensor:
            return moved(x, torch.ones(1))

    class Swish(nn.Module):
        def forward(self, x: torch.Tensor) -> torch.Tensor:
            return swish(x)

    with pytest.raises(ModelError, match=r"^1 runs aten.* where no call can be watched, .*torch\.jit"):
        trace(nn.Sequential(nn.Conv2d(3, 4, 1), Swish()), torch.randn(1, 3, 4, 4))
    for alone in (Swish(), Moved()):
        with pytest.raises(ModelError, match=r"^the network runs aten"):
            trace(alone, torch.randn(1, 3, 4, 4))


class Stateful(nn.Module):
    """Says itself what a copy of it holds."""

    def __init__(self) -> None:
        super().__init__()
        self.conv, self.seen = nn.Conv2d(3, 4, 1), [1]

    def __getstate__(self) -> dict[str, object]:
        return {**self.__dict__, "seen": []}


def test_a_copy_module_by_module_holds_together_what_deepcopy_does() -> None:
    """What modules share, what points back, tensors that share memory, and a state of its own."""
    net = nn.Sequential(Stateful(), nn.BatchNorm2d(4), nn.Conv2d(4, 4, 1))
    net.append(net[2])
    net[1].beside = [net[0], net]
    net[1].view = net[1].running_mean[:2]
    net[1].register_buffer("square", net[1].running_mean.view(2, 2))
    net[1].running_var.note = "of a tensor"
    net[2].notes = net[0].notes = {}
    for copy in (copied(net), deepcopy(net)):
        assert copy[3] is copy[2] is not net[2]
        assert copy[1].beside[0] is copy[0]
        assert copy[1].beside[1] is copy
        assert copy[1].view.data_ptr() == copy[1].running_mean.data_ptr() != net[1].running_mean.data_ptr()
        assert copy[1].square.data_ptr() == copy[1].running_mean.data_ptr()
        assert copy[1].running_var.note == "of a tensor"
        assert copy[1].running_var.data_ptr() != net[1].running_var.data_ptr()
        assert copy[2].notes is copy[0].notes is not net[0].notes
        assert copy[0].seen == []
        assert all(torch.equal(a, b) for a, b in zip(net.parameters(), copy.parameters(), strict=True))


class Packed(nn.ReLU):
    """Its state is no dictionary."""

    def __getstate__(self) -> tuple[dict[str, Any], str]:  # type: ignore[override]
        return dict(self.__dict__), "packed"

    def __setstate__(self, state: tuple[dict[str, Any], str]) -> None:  # type: ignore[override]
        super().__setstate__(state[0])
        self.how = state[1]


def test_a_module_whose_state_is_no_dictionary_is_copied() -> None:
    twin = copied(nn.Sequential(Packed(), nn.ReLU()))
    assert twin[0].how == "packed"
    assert twin[0](torch.tensor([-1.0, 2.0])).tolist() == [0.0, 2.0]


def test_numbers_that_the_code_keeps_outside_are_numbers_when_the_trace_has_ended() -> None:
    """As einops keeps what it made of a shape."""

    kept: dict[str, int] = {}

    class Halved(nn.Module):
        def forward(self, x: torch.Tensor) -> torch.Tensor:
            one, other = x.split(int(kept.setdefault("width", x.shape[1])) // 2, 1)
            return torch.cat([other, one], 1)

    net = nn.Sequential(nn.Conv2d(3, 4, 1), nn.Conv2d(4, 6, 1), Halved(), nn.Conv2d(6, 2, 1)).double().eval()
    for seed in range(2):
        graph = trace(net, X)
        assert graph.by_name["0"].free.all()
        assert not graph.by_name["1"].free.any()
        plan = random_plan(graph, seed)
        verify(mask(net, plan, graph), compact(net, plan, graph), X)


def test_the_copy_that_a_trace_runs_is_gone_when_it_ends() -> None:
    """Its counts knew the recorder and that the copy: as many weights again stayed until they were collected."""
    held: list[ref[nn.Module]] = []

    class Noted(nn.Conv2d):
        def forward(self, x: torch.Tensor) -> torch.Tensor:
            held.append(ref(self))
            return super().forward(x)

    gc.collect()
    gc.disable()
    try:
        trace(nn.Sequential(Noted(3, 4, 1), nn.BatchNorm2d(4), nn.Conv2d(4, 2, 1)), torch.zeros(1, 3, 8, 8))
        assert held
        assert all(each() is None for each in held)
    finally:
        gc.enable()


@pytest.mark.parametrize(
    ("given", "said"), [(nn.ReLU, "not a type"), ("net.pt", "not a str"), (None, "not a NoneType")]
)
def test_what_is_no_network_is_said(given: Any, said: str) -> None:
    with pytest.raises(ModelError, match=f"a network is a torch.nn.Module, {said}(Type)?: give the built module"):
        trace(given, X)


def test_script_modules_are_wrapped_wherever_they_lie() -> None:
    script = torch.jit.script(nn.ReLU())
    model = nn.Sequential(nn.Sequential(nn.Identity(), nn.Sequential(script)), script)
    model.register_module("none", None)
    for _ in range(2):
        wrap_scripted(model)
        assert [type(each).__name__ for each in (model[0][1][0], model[1], model[0][0])] == [
            *("Scripted", "Scripted", "Identity")
        ]
    assert model[1].wrapped is script
