"""What matters is what a probe's gradient says; positions are drawn by it, and none of it changes the network."""

from __future__ import annotations

import pytest
import torch
from detectors import Detector, Images
from torch import nn

from seqprune.engine.findings import relevance_as_tensors, relevance_of_tensors
from seqprune.observe import patches, relevance
from seqprune.observe.batch import Batch
from seqprune.observe.patches import Sampler
from seqprune.observe.reading import reading_of
from seqprune.observe.relevance import Relevance, moved, relevance_of
from seqprune.observe.sources import Places
from seqprune.observe.unit import Unit

NAMES = ["model.0.conv", "model.1.conv", "model.4.cv2.conv", "model.5.0"]


def squares(model: nn.Module, x: torch.Tensor, _random: torch.Generator) -> torch.Tensor:
    value: torch.Tensor = model(x).square().sum()
    return value


def noise(model: nn.Module, x: torch.Tensor, random: torch.Generator) -> torch.Tensor:
    y = model(x)
    value: torch.Tensor = (torch.randn(y.shape, generator=random) * y).sum()
    return value


def test_curvature_is_the_squared_gradient_over_all_images() -> None:
    model = Detector().double()
    images = Images(count=12, batch=6)
    found = relevance_of(model, NAMES, images, squares)
    x = torch.cat([batch.images for batch in images]).double() / 255
    outputs: dict[str, torch.Tensor] = {}
    handles = [
        model.get_submodule(name).register_forward_hook(lambda _m, _i, out, name=name: outputs.update({name: out}))
        for name in NAMES
    ]
    value = model(x.requires_grad_()).square().sum()
    for handle in handles:
        handle.remove()
    for name, gradient in zip(NAMES, torch.autograd.grad(value, [outputs[name] for name in NAMES]), strict=True):
        expected = gradient.square().sum((0, 2, 3))
        torch.testing.assert_close(found.curvature[name], expected, rtol=1e-4, atol=0.0)


def test_noise_on_outputs_gives_every_error_there_its_square() -> None:
    """E[g²] = 1 at the output itself, for each of its positions."""
    found = relevance_of(Detector(), ["model.5.0"], Images(), noise)
    positions = 24 * 32 * 32
    assert found.curvature["model.5.0"] / positions == pytest.approx(torch.ones(7).double().numpy(), rel=0.05)


def test_what_all_positions_lose_adds_up_where_they_are_averaged() -> None:
    """Position by position the last layers of an EfficientNet seemed to matter little, and half of each was cut."""
    images = Images(count=8, batch=4)

    def averages(model: nn.Module, x: torch.Tensor, _random: torch.Generator) -> torch.Tensor:
        value: torch.Tensor = model(x).mean((2, 3)).sum()
        return value

    found = relevance_of(Detector(), ["model.5.0"], images, averages, pooled=True)
    assert relevance_of(Detector(), ["model.5.0"], images, averages).together == {}
    expected = torch.zeros(7)
    for batch in images:
        with torch.no_grad():
            y = Detector()(batch.images.float() / 255)
        expected += (y.mean((2, 3)) - y.mean((0, 2, 3))).square().sum(0)
    torch.testing.assert_close(found.together["model.5.0"], expected.double(), rtol=1e-3, atol=0.0)
    again = relevance_of_tensors(relevance_as_tensors(found))
    assert torch.equal(again.together["model.5.0"], found.together["model.5.0"])  # where a run goes on


def test_outputs_that_are_changed_in_place_can_be_asked() -> None:
    """As heads for key points do: a sigmoid of some channels, then arithmetic on their neighbours, in one tensor."""

    def in_place(model: nn.Module, x: torch.Tensor, _random: torch.Generator) -> torch.Tensor:
        y = model(x).clone()
        y[:, 2::3].sigmoid_()
        y[:, 0::3] = (y[:, 0::3] * 2 + 1) * 3
        value: torch.Tensor = y.square().sum()
        return value

    def apart(model: nn.Module, x: torch.Tensor, _random: torch.Generator) -> torch.Tensor:
        y = model(x)
        value: torch.Tensor = y[:, 2::3].sigmoid().square().sum() + ((y[:, 0::3] * 2 + 1) * 3).square().sum()
        return value + y[:, 1::3].square().sum()

    found, expected = (relevance_of(Detector(), NAMES, Images(), probe).curvature for probe in (in_place, apart))
    for name in NAMES:
        torch.testing.assert_close(found[name], expected[name], rtol=1e-4, atol=0.0)


def test_the_same_every_time_and_the_network_stays_as_it_is() -> None:
    model = Detector()
    before = {name: value.clone() for name, value in model.state_dict().items()}
    one, two = (relevance_of(model, NAMES, Images(), noise) for _ in range(2))
    assert all(torch.equal(one.curvature[name], two.curvature[name]) for name in NAMES)
    assert all(torch.equal(drawn.weight, two.drawn[key].weight) for key, drawn in one.drawn.items())
    assert all(torch.equal(before[name], value) for name, value in model.state_dict().items())
    assert all(parameter.grad is None for parameter in model.parameters())


def test_slopes_are_those_of_the_activation() -> None:
    """ReLU's is 1 or 0, so its mean square is the share of positions that are on; a convolution alone has none."""
    model = Detector()
    unit = model.get_submodule("model.1")
    unit.act = nn.ReLU()
    found = relevance_of(model, NAMES, Images(count=8), lambda m, x, _r: 0 * m(x).sum())
    on = torch.zeros(16)
    for batch in Images(count=8):
        x = model.model[0](batch.images.float() / 255)
        on += (unit(x) > 0).float().mean((2, 3)).sum(0)
    torch.testing.assert_close(found.slope["model.1.conv"].float(), on / 8, rtol=1e-4, atol=1e-5)
    assert "model.5.0" not in found.slope


def test_a_convolution_that_runs_twice_has_no_positions_of_its_own() -> None:
    class Twice(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.first, self.again = nn.Conv2d(3, 4, 1), nn.Conv2d(4, 4, 3, padding=1)

        def forward(self, x: torch.Tensor) -> torch.Tensor:
            y: torch.Tensor = self.again(nn.functional.max_pool2d(self.again(self.first(x)), 2))
            return y

    found = relevance_of(Twice(), ["first", "again"], Images(count=8), noise)
    assert {name for _, name in found.drawn} == {"first"}


def test_positions_go_where_it_matters_and_count_for_what_they_are() -> None:
    batch = Batch(torch.zeros(2, 3, 64, 64), *(torch.zeros(0, dtype=torch.int64),) * 2, torch.zeros(0, 4))
    relevance = torch.zeros(2, 40, 40)
    relevance[0, 3, 5] = 7  # nearly all of it in one cell
    drawn = Sampler(100).draw(batch, (40, 40), relevance)
    image, row, column = drawn.where
    there = (image == 0) & (row == 3) & (column == 5)
    assert there.sum() == 1
    # Half of a hundred draws, against even ones that count once: 50 of 149 in the image.
    assert float(drawn.weight[there]) / float(drawn.weight[image == 0].sum()) == pytest.approx(50 / 149, rel=0.01)
    assert drawn.weight[image == 1].unique().tolist() == [1]
    whole = Sampler(2000).draw(batch, (40, 40), relevance)  # all cells: weights are the chances themselves
    at = (whole.where[0] == 0) & (whole.where[1] == 3) & (whole.where[2] == 5)
    assert float(whole.weight[at]) / 1600 == pytest.approx(0.5 + 0.5 / 1600)


def test_places_of_a_part_are_those_of_the_batch() -> None:
    images = Images()
    found = relevance_of(Detector(), NAMES, images, noise, Sampler(50))
    batch = list(images)[1]
    places = Places(Sampler(50), batch, found)
    whole, part = places.of("model.1.conv", (32, 32), slice(0, 8)), places.of("model.1.conv", (32, 32), slice(4, 8))
    late = whole.where[0] >= 4
    assert torch.equal(part.where[0], whole.where[0][late] - 4)
    assert torch.equal(part.weight, whole.weight[late])
    plain = Places(Sampler(50), batch, Relevance()).of("model.1.conv", (32, 32), slice(0, 8))
    assert plain.weight is None


def test_units_are_found_only_where_nothing_else_stands_between() -> None:
    model = Detector()
    reading = reading_of(model, next(iter(Images())))
    assert reading.unit("model.1.conv").norm == "model.1.bn"
    assert isinstance(reading.unit("model.1.conv").activation, nn.SiLU)
    assert reading.unit("model.5.0") == Unit()


def test_tensors_are_moved_by_one_copy_for_each_type() -> None:
    """Three copies for every convolution kept a GPU waiting some two hundred times a batch."""
    tensors = [torch.rand(2, 3, 4), torch.rand(5).double(), torch.rand(0), torch.rand(()), torch.rand(1, 2).double()]
    copies: list[torch.Tensor] = []

    def move(tensor: torch.Tensor) -> torch.Tensor:
        copies.append(tensor.clone())
        return copies[-1]

    found = moved(tensors, move)
    assert len(copies) == 2
    assert all(torch.equal(a, b) and a.dtype is b.dtype for a, b in zip(found, tensors, strict=True))


def test_no_more_positions_are_drawn_than_all_images_together_need(monkeypatch: pytest.MonkeyPatch) -> None:
    """400 were drawn of every image, however many images there were and however little a layer reads."""
    monkeypatch.setattr(relevance, "ENOUGH", 1)
    monkeypatch.setattr(patches, "LEAST", 40)
    model = Detector()
    found = relevance_of(model, NAMES, Images(count=8), noise)
    for (_, name), drawn in found.drawn.items():
        columns = model.get_submodule(name).weight[0].numel()  # type: ignore[union-attr,index,operator]
        most = -(-max(columns, 40) // 8)
        each = torch.bincount(drawn.where[0].long())
        assert int(each.max()) <= most < 400
