"""Any network on any data: what the engine asks for is small, written down, and checked."""

from __future__ import annotations

import copy
import re
from collections.abc import Callable, Iterator
from pathlib import Path
from threading import Lock
from typing import Any, cast

import pytest
import torch
from torch import nn
from torch.utils.data import DataLoader, SubsetRandomSampler, TensorDataset

import seqprune
from seqprune.engine.batches import Batches
from seqprune.engine.listener import Listener
from seqprune.errors import DataError, InputError, ModelError, PlanError
from seqprune.observe.extract import observe
from seqprune.testing.networks import Unit, randomise

PAGE = Path(__file__).parents[2] / "docs" / "modules.md"
CLASSES, SIDE, BATCH = 3, 16, 12


class Network(nn.Module):
    """A residual block and a map of classes, four pixels a cell."""

    def __init__(self) -> None:
        super().__init__()
        self.stem = Unit(3, 12, act=1)
        self.down = nn.Conv2d(12, 16, 3, stride=4, padding=1)
        self.block = Unit(16, 16, act=1)
        self.head = nn.Conv2d(16, CLASSES, 1)
        randomise(self, 0)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        x = self.down(self.stem(x)).relu()
        return self.head(x + self.block(x))


LAYERS = ["block.conv", "stem.conv", "down"]


def batches() -> Iterator[tuple[torch.Tensor, ...]]:
    """Noise in which every object is a bright pixel of its class's colour, two to an image."""
    draw = torch.Generator().manual_seed(0)
    for _ in range(3):
        inputs = torch.rand(BATCH, 3, SIDE, SIDE, generator=draw)
        places = torch.stack(
            [torch.arange(2 * BATCH) % BATCH, *torch.randint(0, SIDE, (2, 2 * BATCH), generator=draw)], 1
        )
        kinds = torch.randint(0, CLASSES, (2 * BATCH,), generator=draw)
        inputs[places[:, 0], kinds, places[:, 1], places[:, 2]] += 3
        yield inputs, kinds, places


def whole() -> Iterator[tuple[torch.Tensor, ...]]:
    for inputs, kinds, _ in batches():
        yield inputs, kinds[:BATCH]


def outputs(model: nn.Module, layer: nn.Module, samples: Any) -> list[torch.Tensor]:
    """What a layer returns for whole batches."""
    maps: list[torch.Tensor] = []
    hook = layer.register_forward_hook(lambda _m, _a, out: maps.append(out))
    with torch.no_grad():
        for inputs, *_ in samples:
            model(inputs)
    hook.remove()
    return maps


@pytest.mark.parametrize("samples", [batches, whole])
def test_layers_are_pruned_front_to_back_compact_and_verified(samples: Callable[[], Any]) -> None:
    model = Network()
    before = {name: tensor.clone() for name, tensor in model.state_dict().items()}
    told: list[str] = []
    listener = Listener(step=lambda step: told.append(step.layer))
    result = seqprune.prune(model, samples, layers=LAYERS, keep=0.5, listener=listener)
    assert told == ["stem.conv", "down", "block.conv"]
    assert result.steps[2].reason == "decided together with down"
    assert {layer.name: len(layer.keep) for layer in result.plan.layers} == {"stem.conv": 8, "down": 8, "block.conv": 8}
    assert result.model.get_submodule("down").weight.shape == (8, 8, 3, 3)
    inputs = next(samples())[0]
    assert seqprune.verify(seqprune.mask(model, result.plan), result.model, inputs).max_rel <= 1e-4
    again = seqprune.compact(model, result.plan).state_dict()
    assert all(torch.equal(tensor, again[name]) for name, tensor in result.model.state_dict().items())
    assert all(torch.equal(tensor, before[name]) for name, tensor in model.state_dict().items())
    assert model.training


def test_an_object_is_seen_at_the_cell_under_its_place() -> None:
    """Places are in pixels of the input; a cell of this layer is four pixels wide."""
    model, given = Network().eval(), list(batches())
    found = observe(model, ["down"], Batches(batches), CLASSES).moments["down"]
    maps = outputs(model, model.down, given)
    vectors = [out[p[:, 0], :, p[:, 1] // 4, p[:, 2] // 4] for out, (_, _, p) in zip(maps, given, strict=True)]
    kinds = torch.cat([kinds for _, kinds, _ in given])
    for row, kind in enumerate(found.classes):
        expected = torch.cat(vectors)[kinds == kind].double().mean(0)
        torch.testing.assert_close(torch.from_numpy(found.mean[row]), expected)


def test_a_pruned_network_is_pruned_again_and_trains() -> None:
    once = seqprune.prune(Network(), batches, layers=LAYERS, keep=0.5, round_to=1).model
    twice = seqprune.prune(once, batches, layers=LAYERS, keep=0.5, round_to=1).model
    assert twice.get_submodule("down").weight.shape == (4, 3, 3, 3)
    twice.train()(next(batches())[0]).square().mean().backward()
    assert all(parameter.grad is not None for parameter in twice.parameters())


def test_signals_without_height_are_observed_by_their_mean() -> None:
    model = nn.Sequential(nn.Conv1d(2, 16, 3), nn.ReLU(), nn.AdaptiveAvgPool1d(1), nn.Flatten(), nn.Linear(16, 2))
    kinds = torch.arange(40) % 2
    signals = torch.rand(40, 2, 9) + kinds[:, None, None]
    result = seqprune.prune(model, lambda: [(signals, kinds)], layers=["0"], keep=0.5)
    assert result.model[0].out_channels == 8  # type: ignore[index]


X, KINDS, PLACES = next(batches())
BAD: dict[str, tuple[Any, type[Exception], str]] = {
    "an iterator": (batches(), InputError, "data is a generator, which can end"),
    "nothing": (lambda: (), DataError, "gave no batch"),
    "no tensor": (lambda: [("cat.jpg", 1)], DataError, "without a tensor in front"),
    "too few classes": (lambda: [(X, KINDS[:3])], DataError, "3 classes for 12 inputs"),
    "a strange class": (lambda: [(X, KINDS[:BATCH] - 1)], DataError, "a class of -1"),
    "places of two": (lambda: [(X, KINDS, PLACES[:, 1:])], DataError, r"places of \[24, 2\]"),
    "no classes": (lambda: [X], InputError, "no layer could be pruned"),
    "places elsewhere": (lambda: [(X, KINDS, PLACES + 9)], DataError, "a place outside"),
    "second batch": (lambda: [(X, KINDS, PLACES), (X, KINDS, -PLACES - 1)], DataError, "batch 1 has a place"),
    "a number": (5, InputError, "data is a int: give a loader"),
    "no numbers": (lambda: [X, X * float("nan")], DataError, "batch 1 of the data holds NaN or infinite numbers"),
    "another shape": (lambda: [(X[:, :2], KINDS, PLACES)], ModelError, "takes 3 channels, but the input has 2"),
}


@pytest.mark.parametrize("case", BAD)
def test_what_cannot_be_used_is_refused_on_one_line(case: str) -> None:
    samples, kind, said = BAD[case]
    with pytest.raises(kind, match=said) as caught:
        seqprune.prune(Network(), samples, layers=LAYERS, keep=0.5)
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize(
    ("options", "kind", "said"),
    [
        ({"layers": ["nowhere"]}, PlanError, "nowhere"),
        ({"layers": ["head"]}, PlanError, "head"),
        ({"layers": []}, InputError, "none was named"),
        ({"keep": 1.0}, InputError, "all of its channels stay"),
        ({"keep": 2.0}, InputError, "outside"),
        ({"represent": "best"}, InputError, "represent='best'"),
        ({"seed": "one"}, InputError, "seed='one': give a whole number"),
        ({"target": 0.7}, InputError, "target 0.7 is not understood"),
    ],
)
def test_names_and_numbers_are_checked(options: dict[str, Any], kind: type[Exception], said: str) -> None:
    with pytest.raises(kind, match=said):
        seqprune.prune(Network(), batches, **{"layers": LAYERS, **options})


class Keeps(nn.Module):
    """Two layers, with what has no copy: a lock, and what was computed last."""

    def __init__(self, kind: Callable[..., nn.Module] = nn.Conv2d) -> None:
        super().__init__()
        self.first, self.last = kind(3, 16, 3), kind(16, 4, 3)
        self.lock, self.seen = Lock(), torch.zeros(1)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        with self.lock:
            self.seen = self.last(self.first(x).relu())
            return self.seen


@pytest.mark.parametrize("preset", ["accurate", "fast"])
def test_a_network_that_has_no_copy_of_its_own_is_pruned(preset: str) -> None:
    """``cannot pickle '_thread.lock' object``, raw."""
    model = Keeps()
    model(torch.rand(1, 3, 8, 8))
    found = seqprune.prune(model, [torch.rand(2, 3, 8, 8)], preset=preset, target="params=0.7", round_to=1)
    assert found.record.verify.max_rel < 1e-5
    assert found.plan.layers


@pytest.mark.skipif(not hasattr(torch.compiler, "set_stance"), reason="torch has this from 2.6 on")
def test_a_compiled_network_is_pruned_as_plain_python() -> None:
    """The compiler compiled the hooks that look at layers, anew for each, and came to no end."""
    model = torch.compile(nn.Sequential(nn.Conv2d(3, 16, 3), nn.ReLU(), nn.Conv2d(16, 4, 1)), backend=_never)
    samples = [torch.rand(2, 3, 8, 8)]
    found = seqprune.prune(cast(nn.Module, model), samples, preset="fast", target="params=0.7", round_to=1)
    assert found.plan.layers
    with pytest.raises(Exception, match="compiled after all"):
        found.model(samples[0])


def _never(*_: object) -> Callable[..., object]:
    raise NotImplementedError("compiled after all")


def test_a_network_of_layers_that_the_best_preset_does_not_read() -> None:
    """``inputs argument to grad() cannot be empty``, raw; the quick one prunes it."""
    samples = [torch.rand(2, 3, 8, 8)]
    why = "first: its kernel is not its stride"
    with pytest.raises(
        InputError, match=rf"preset accurate can read no layer of this network \({why}\): choose preset fast"
    ):
        seqprune.prune(Keeps(nn.ConvTranspose2d), samples, target="params=0.7")
    found = seqprune.prune(Keeps(nn.ConvTranspose2d), samples, preset="fast", target="params=0.7", round_to=1)
    assert found.plan.layers


@pytest.mark.parametrize(
    ("model", "said"),
    [
        (nn.Identity(), "Identity has no parameters: there is nothing to prune"),
        (nn.BatchNorm2d(3), "BatchNorm2d has no layer whose channels can be followed"),
        (nn.Conv2d(3, 4, 1), "weight holds NaN or infinite numbers"),
    ],
)
def test_networks_in_which_there_is_nothing_to_prune(model: nn.Module, said: str) -> None:
    """``StopIteration``, and ``need at least one array to concatenate``, raw."""
    if isinstance(model, nn.Conv2d):
        model.weight.data[0] = torch.inf
    with pytest.raises(ModelError, match=said):
        seqprune.prune(model, [torch.rand(2, 3, 8, 8)], preset="fast", target="params=0.7")


@pytest.mark.parametrize("how", [{"preset": "accurate"}, {"preset": "fast", "recover": "ls"}], ids=["accurate", "fast"])
def test_what_a_layer_reads_may_be_too_large_to_fit_to(how: dict[str, Any]) -> None:
    """A factorisation of torch's failed, far from the layer."""
    model = nn.Sequential(nn.Conv2d(3, 8, 1), nn.ReLU(), nn.Conv2d(8, 8, 1), nn.AdaptiveAvgPool2d(1), nn.Flatten())
    with pytest.raises(ModelError, match=r"what [02] reads is NaN, infinite or too large for its products"):
        seqprune.prune(model.eval(), [torch.rand(4, 3, 8, 8) * 1e30] * 4, target="flops=0.7", round_to=1, **how)


@pytest.mark.parametrize("preset", ["fast", "accurate"])
def test_a_target_for_a_network_of_which_nothing_can_leave_says_why(preset: str) -> None:
    """It was told to take a greater target, or to protect less."""
    model = nn.Sequential(nn.Conv2d(3, 4, 3), nn.LayerNorm([4, 6, 6]), nn.Conv2d(4, 2, 1))
    with pytest.raises(InputError, match=r"no channel of any layer can leave, those of 0 since layer_norm in 1"):
        seqprune.prune(model, [torch.randn(4, 3, 8, 8)] * 2, preset=preset, target="params=0.7", round_to=1)


@pytest.mark.parametrize(
    ("model", "classes", "said"),
    [
        (nn.Sequential(nn.Conv2d(3, 4, 3), nn.ReLU(), nn.Conv2d(4, 2, 1)), 2, r"\[4, 2, 6, 6\]"),
        (nn.Sequential(nn.Flatten(), nn.Linear(192, 8), nn.ReLU(), nn.Linear(8, 2)), 3, "classes go up to 2"),
    ],
)
def test_taylor_of_outputs_that_are_no_logits_of_the_classes(model: nn.Module, classes: int, said: str) -> None:
    """Torch's own error came out."""
    data = [(torch.randn(4, 3, 8, 8), torch.arange(4) % classes)] * 2
    with pytest.raises(ModelError, match=f"criterion taylor .*{said}"):
        seqprune.prune(model, data, preset="fast", criterion="taylor", target="params=0.7", round_to=1)


def test_the_page_runs_as_it_stands(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    code = re.findall(r"```python\n(.*?)```", PAGE.read_text(encoding="utf-8"), re.S)
    assert len(code) == 6  # the last one is run by tests/graph/test_widths.py
    names: dict[str, Any] = {}
    for part in code[:2]:
        exec(compile(part, str(PAGE), "exec"), names)  # noqa: S102
    kept = {layer.name: len(layer.keep) for layer in names["result"].plan.layers}
    assert kept == {"0": 8, "3": 16, "8": 16}  # half, rounded up to eights
    inputs = names["images"][:4]
    assert torch.equal(names["again"](inputs), names["result"].model(inputs))
    exec(compile(code[2], str(PAGE), "exec"), names)  # noqa: S102
    assert names["result"].model[0].out_channels == 8
    exec(compile(code[3], str(PAGE), "exec"), names)  # noqa: S102
    record = names["result"].record
    assert record.after.params <= 0.7 * record.before.params
    restored = seqprune.restore(copy.deepcopy(names["model"]), "small.safetensors").eval()
    inputs = names["loader"].dataset.tensors[0][:4]
    assert torch.equal(restored(inputs), names["result"].model(inputs))
    exec(compile(code[4], str(PAGE), "exec"), names)  # noqa: S102
    assert [(row.method, row.reason) for row in names["found"].rows[1:]] == [("accurate", ""), ("lamp-global", "")]


class Permuted(nn.Module):
    """Linear layers on rows and columns, as in ConvNeXt: their channels lie last."""

    def __init__(self) -> None:
        super().__init__()
        self.stem, self.wide, self.last = nn.Conv2d(3, 6, 3, padding=1), nn.Linear(6, 12), nn.Linear(12, CLASSES)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        y: torch.Tensor = self.last(self.wide(self.stem(x).permute(0, 2, 3, 1)).relu())
        return y.permute(0, 3, 1, 2)


@pytest.mark.parametrize("samples", [batches, whole])
def test_a_linear_layers_channels_are_its_last_dimension(samples: Callable[[], Any]) -> None:
    model = Permuted().eval()
    found = observe(model, ["wide"], Batches(samples), CLASSES).moments["wide"]
    vectors, kinds = [], []
    for out, (_, kind, *places) in zip(outputs(model, model.wide, samples()), samples(), strict=True):
        vectors.append(out[places[0][:, 0], places[0][:, 1], places[0][:, 2]] if places else out.mean((1, 2)))
        kinds.append(kind)
    for row, kind in enumerate(found.classes):
        expected = torch.cat(vectors)[torch.cat(kinds) == kind].double().mean(0)
        torch.testing.assert_close(torch.from_numpy(found.mean[row]), expected)
    result = seqprune.prune(Permuted(), samples, layers=["wide"], keep=0.5)
    assert result.model.get_submodule("wide").weight.shape == (8, 6)


def test_a_layer_that_does_not_keep_images_apart_is_refused() -> None:
    class Windows(Permuted):
        def forward(self, x: torch.Tensor) -> torch.Tensor:
            y = self.stem(x).permute(0, 2, 3, 1).reshape(4 * len(x), SIDE // 4, SIDE, 6)
            return self.last(self.wide(y).relu()).reshape(len(x), SIDE, SIDE, CLASSES).permute(0, 3, 1, 2)

    with pytest.raises(ModelError, match=r"for \d+ images, so that an object's place in it is not known"):
        observe(Windows().eval(), ["wide"], Batches(batches), CLASSES)


def test_a_network_that_works_in_place_leaves_the_samples_alone() -> None:
    class InPlace(Network):
        def forward(self, x: torch.Tensor) -> torch.Tensor:
            return super().forward(x.mul_(0.5))

    given = list(batches())
    before = [inputs.clone() for inputs, *_ in given]
    result = seqprune.prune(InPlace(), lambda: given, layers=LAYERS, keep=0.5)
    assert all(torch.equal(inputs, was) for (inputs, *_), was in zip(given, before, strict=True))
    assert result.record.verify.max_rel <= 1e-4


def kinds_seen(loader: Any, seed: int) -> list[int]:
    found = Batches(loader, batch=8, images=24, seed=seed)
    assert found.image_count == 24
    for batch in found:
        assert torch.equal(batch.images[:, 0], batch.classes.float())  # every image has kept its own
    return sorted(int(kind) for batch in found for kind in batch.classes)


@pytest.mark.parametrize("kind", ["loader", "sampler", "list"])
def test_so_many_images_are_a_seeded_sample(kind: str) -> None:
    """They were the first, of a list sorted by class the first few classes."""
    kinds = torch.arange(240) // 24
    data = TensorDataset(torch.stack([kinds.float(), torch.rand(240)], 1), kinds)
    loader: Any = DataLoader(data, batch_size=30, shuffle=kind == "loader")
    if kind == "sampler":
        loader = DataLoader(data, batch_size=30, sampler=SubsetRandomSampler(range(0, 240, 2)))
    if kind == "list":
        loader = list(loader)
    assert len(set(kinds_seen(loader, 0))) > 6
    assert kinds_seen(loader, 0) == kinds_seen(loader, 0) != kinds_seen(loader, 1)


def test_what_may_never_end_is_read_from_its_front() -> None:
    def endless() -> Iterator[torch.Tensor]:
        while True:
            yield torch.rand(5, 3)

    assert Batches(endless, images=12).image_count == 12


def test_random_numbers_of_the_caller_are_as_if_no_loader_had_been_read() -> None:
    """Every look through a ``DataLoader`` draws a seed for its workers, of the one generator that all share."""
    loader = DataLoader(TensorDataset(torch.rand(8, 3, 4, 4), torch.arange(8) % 2), batch_size=4, shuffle=True)
    before = torch.get_rng_state()
    for images in (None, 4):
        Batches(loader, images=images)
    assert torch.equal(torch.get_rng_state(), before)
