"""Networks that classify: one object an image, its vector the mean over the map; the same engine, the same laws."""

from __future__ import annotations

from collections.abc import Iterator

import numpy as np
import pytest
import torch
from torch import nn

from seqprune import compact, trace, verify
from seqprune.engine.sequential import prune_sequentially
from seqprune.engine.steps import Settings
from seqprune.observe.batch import Batch
from seqprune.observe.extract import match_objects, observe
from seqprune.observe.inputs import as_input
from seqprune.observe.patches import Sampler
from seqprune.observe.streaming import Blocks, BlockStream
from seqprune.testing.networks import Unit, randomise

CLASSES, SIDE = 4, 16
CHAIN = Blocks("model", tuple((i - 1,) for i in range(4)), (False,) * 4)


class Classifier(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        head = nn.Sequential(
            nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(16, 24), nn.ReLU(), nn.Linear(24, CLASSES)
        )
        self.model = nn.Sequential(Unit(3, 12, act=1), Unit(12, 20, act=1), Unit(20, 16, act=1), head)
        randomise(self, 0)
        self.eval()

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return self.model(x)


class Pictures:
    """All that the engine asks for: batches that can be gone through again and again, and how many there are."""

    def __len__(self) -> int:
        return 3

    def __iter__(self) -> Iterator[Batch]:
        draw = torch.Generator().manual_seed(0)
        for _ in range(len(self)):
            kinds = torch.randint(0, CLASSES, (16,), generator=draw)
            noise = torch.randint(0, 90, (16, 3, SIDE, SIDE), generator=draw)
            images = (noise + 40 * kinds[:, None, None, None]).to(torch.uint8)
            yield Batch(images, torch.arange(16), kinds)


LAYERS = ["model.0.conv", "model.1.conv", "model.3.2"]


@pytest.mark.parametrize("layer", LAYERS)
def test_an_images_vector_is_the_mean_over_its_map(layer: str) -> None:
    model = Classifier()
    seen = observe(model, [layer], Pictures(), CLASSES).moments[layer]
    outputs: list[torch.Tensor] = []
    model.get_submodule(layer).register_forward_hook(lambda _m, _a, out: outputs.append(out.detach()))
    for batch in Pictures():
        model(as_input(batch.images, model))
    vectors = torch.cat([out.flatten(2).mean(2) if out.dim() > 2 else out for out in outputs])
    kinds = torch.cat([batch.classes for batch in Pictures()])
    for row, kind in enumerate(seen.classes):
        np.testing.assert_allclose(seen.mean[row], vectors[kinds == kind].mean(0), rtol=1e-5, atol=1e-6)
    assert seen.count.sum() == 48


@pytest.mark.parametrize("streamed", [False, True])
def test_it_is_pruned_front_to_back_linear_layers_too(streamed: bool) -> None:
    graph = trace(Classifier(), torch.zeros(1, 3, SIDE, SIDE))
    plan, masked, reports = prune_sequentially(
        Classifier(),
        graph,
        LAYERS,
        Pictures(),
        CLASSES,
        settings=Settings(keep=0.5, match="all"),
        stream=BlockStream(CHAIN) if streamed else None,
    )
    assert [report.status for report in reports] == ["pruned"] * 3
    assert {layer.name: len(layer.keep) for layer in plan.layers} == {LAYERS[0]: 6, LAYERS[1]: 10, LAYERS[2]: 12}
    images = as_input(next(iter(Pictures())).images, masked)
    assert verify(masked, compact(Classifier(), plan, graph), images).max_rel <= 1e-4


def test_an_image_counts_where_its_class_is_predicted() -> None:
    def says(kind: int) -> object:
        return lambda _model, images: [torch.tensor([[0.9, kind]]) for _ in images]

    for kind in range(CLASSES):
        matched = match_objects(Classifier(), says(kind), Pictures())  # type: ignore[arg-type]
        for flags, batch in zip(matched, Pictures(), strict=True):
            assert torch.equal(flags, batch.classes == kind)


def test_streams_on_disk_and_samples_do_without_boxes() -> None:
    stream = BlockStream(CHAIN, 1)
    for layer in LAYERS[:2]:
        on_disk = observe(Classifier(), [layer], Pictures(), CLASSES, stream=stream).moments[layer]
        whole = observe(Classifier(), [layer], Pictures(), CLASSES).moments[layer]
        np.testing.assert_array_equal(on_disk.mean, whole.mean)
    image, row, column = Sampler(20).draw(next(iter(Pictures())), (8, 8)).where
    assert len(image) == len(row) == len(column) == 16 * 20
