"""The same bits for any number of threads and any batch; modules of one lane are no other's."""

from __future__ import annotations

import time
from collections.abc import Iterator
from dataclasses import replace

import numpy as np
import pytest
import torch
from detectors import CLASSES, Detector, Images, find_all
from torch import nn

from seqprune import trace
from seqprune.engine.sequential import prune_sequentially
from seqprune.engine.steps import Settings
from seqprune.observe.batch import Batch
from seqprune.observe.extract import observe
from seqprune.observe.forward import Forward
from seqprune.observe.lanes import Joined, Lanes, joined, together
from seqprune.observe.ranks import ALONE
from seqprune.observe.running import RunningMoments
from seqprune.observe.streaming import Blocks, BlockStream
from seqprune.select.moments import ClassMoments

CHAIN = Blocks("model", tuple((i - 1,) for i in range(6)), (False,) * 6)
LAYERS = ["model.1.conv", "model.2.cv1.conv", "model.3.conv"]
COUNT = 28


@pytest.fixture(autouse=True)
def threads() -> Iterator[None]:
    before = torch.get_num_threads()
    yield
    torch.set_num_threads(before)


def split(size: int) -> Images:
    """The same images in batches of another size."""
    (whole,) = Images(count=COUNT, batch=COUNT)
    images = Images(count=0)
    for at in range(0, COUNT, size):
        mine = (whole.image_index >= at) & (whole.image_index < at + size)
        part = whole.select(mine)
        index = part.image_index - at
        images.batches.append(
            replace(part, images=whole.images[at : at + size], image_index=index, number=len(images.batches))
        )
    return images


def moments(count: int, size: int, streamed: bool) -> list[ClassMoments]:
    torch.set_num_threads(count)
    model, stream = Detector(), BlockStream(CHAIN) if streamed else None
    images = joined(split(size), model, ALONE)
    return [observe(model, [layer], images, CLASSES, stream=stream).moments[layer] for layer in LAYERS]


@pytest.mark.parametrize("streamed", [False, True])
@pytest.mark.parametrize(("count", "size"), [(1, 5), (2, COUNT), (2, 8), (4, COUNT), (4, 3), (3, 1)])
def test_moments_are_the_same_bits(count: int, size: int, streamed: bool) -> None:
    """With two threads instead of one, 302 of 483 channels that YOLOv8n kept were others: t-SNE made that of 1e-6."""
    for seen, expected in zip(moments(count, size, streamed), moments(1, COUNT, streamed), strict=True):
        assert seen.classes == expected.classes
        for name in ("count", "mean", "m2"):
            np.testing.assert_array_equal(getattr(seen, name), getattr(expected, name))


@pytest.mark.parametrize("match", ["once", "each", "all"])
def test_the_plan_is_the_same(match: str) -> None:
    def plan(count: int, size: int) -> object:
        torch.set_num_threads(count)
        graph = trace(Detector(), torch.zeros(1, 3, 32, 32))
        settings = Settings(match=match)  # type: ignore[arg-type]
        about = (Detector(), graph, LAYERS, split(size), CLASSES)
        return prune_sequentially(*about, settings=settings, predict=find_all)[0]

    expected = plan(1, COUNT)
    assert all(plan(count, size) == expected for count, size in ((2, COUNT), (4, 8), (2, 3)))


def test_a_batch_alone_does_differ() -> None:
    """The images and the network of these tests are such that sums do depend on what lies beside an image."""
    model, x = Detector(), next(iter(split(COUNT))).images / 255
    torch.set_num_threads(1)
    with torch.no_grad():
        ways = [torch.cat([model(part) for part in x.split(size)]) for size in (1, 2, 4, 8, COUNT)]
    assert any(not torch.equal(ways[0], other) for other in ways[1:])


def test_several_at_a_time_by_their_size() -> None:
    sizes = [together(torch.zeros(1, 0, side, side)) for side in (32, 224, 256, 320, 480, 640, 1280)]
    assert sizes == [8, 8, 4, 4, 1, 1, 1]
    assert together(torch.zeros(40, 2, 9)) == together(torch.zeros(40, 6)) == 8


def test_batches_of_one_size_are_joined_and_filled_up() -> None:
    kept = list(Joined(split(5), lanes=1))
    assert [(len(batch.images), batch.filler) for batch in kept] == [(24, 4), (8, 0)]
    assert sum(len(batch.classes) for batch in kept) == 3 * COUNT
    (whole,) = split(COUNT)
    seen = torch.cat([batch.images[: len(batch.images) - batch.filler] for batch in kept])
    assert torch.equal(seen, whole.images)
    assert torch.equal(torch.cat([kept[0].image_index, kept[1].image_index + 20]), whole.image_index)
    assert whole.boxes is not None
    assert torch.equal(torch.cat([batch.boxes for batch in kept if batch.boxes is not None]), whole.boxes)
    assert torch.equal(kept[0].images[-1], kept[0].images[19])


def test_more_lanes_are_given_more_and_shares_are_only_filled_up() -> None:
    assert [len(batch.images) for batch in Joined(split(2), lanes=3)] == [24, 8]
    assert [len(batch.images) for batch in Joined(split(10), lanes=0)] == [16, 16, 8]


def test_other_sizes_are_not_joined() -> None:
    images = split(14)
    images.batches[1] = replace(images.batches[1], images=images.batches[1].images[..., :16])
    assert [len(batch.images) for batch in Joined(images, lanes=9)] == [16, 16]


def test_filler_is_no_progress() -> None:
    done: list[int] = []
    model = Detector()
    for stream in (None, BlockStream(CHAIN)):
        seen = observe(model, LAYERS[:1], Joined(split(5), 1), CLASSES, stream=stream, progress=done.append)
        assert seen.objects == 3 * COUNT
    assert sum(done) == 2 * COUNT


class Remembers(nn.Module):
    """A network whose first module keeps what a later one takes."""

    def __init__(self) -> None:
        super().__init__()
        self.conv = nn.Conv2d(3, 4, 1)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        self.kept = x.mean((1, 2, 3))
        time.sleep(0.01)
        return self.kept


def test_what_a_module_keeps_is_not_mixed_up_between_lanes() -> None:
    torch.set_num_threads(4)
    x, model = torch.rand(64, 3, 32, 32), Remembers()
    means = Lanes(model, Forward())(x, lambda lane, part: lane(x[part]))
    torch.testing.assert_close(torch.cat(means), x.mean((1, 2, 3)))
    assert torch.get_num_threads() == 4


def test_an_error_in_a_lane_comes_through_and_gives_the_threads_back() -> None:
    def fails(_lane: nn.Module, part: slice) -> None:
        if part.start:
            raise ValueError("no")

    torch.set_num_threads(2)
    with pytest.raises(ValueError, match="no"):
        Lanes(Remembers(), Forward())(torch.rand(16, 3, 32, 32), fails)
    assert torch.get_num_threads() == 2


def test_lanes_share_every_tensor_and_no_module() -> None:
    torch.set_num_threads(2)
    model = Detector()
    seen = Lanes(model, Forward())(torch.rand(16, 3, 32, 32), lambda lane, _part: (time.sleep(0.05), lane)[1])
    assert len({id(lane) for lane in seen}) == 2
    for lane in seen:
        assert all(a is b for a, b in zip(lane.parameters(), model.parameters(), strict=True))
        assert all(a is b for a, b in zip(lane.buffers(), model.buffers(), strict=True))


@pytest.mark.parametrize("offset", [0.0, 1e4])
def test_running_moments_do_not_depend_on_how_objects_come(offset: float) -> None:
    draw = torch.Generator().manual_seed(0)
    vectors = torch.rand(300, 7, generator=draw) + offset
    kinds = torch.randint(0, 5, (300,), generator=draw)
    found = []
    for size in (300, 1, 13):
        running = RunningMoments(6, 7, torch.device("cpu"))
        for rows, of in zip(vectors.split(size), kinds.split(size), strict=True):
            running.add(rows, of)
        found.append(running.result())
    expected = ClassMoments.from_samples(vectors.double().numpy(), kinds.numpy())
    for seen in found:
        assert seen.classes == expected.classes
        np.testing.assert_array_equal(seen.mean, found[0].mean)
        np.testing.assert_array_equal(seen.m2, found[0].m2)
        np.testing.assert_allclose(seen.mean, expected.mean, rtol=1e-12)
        np.testing.assert_allclose(seen.m2, expected.m2, rtol=1e-9)


def test_equal_vectors_have_no_variance_at_all() -> None:
    """A constant that is summed and squared leaves a rounding error that passes for a variance."""
    running = RunningMoments(1, 1, torch.device("cpu"))
    for _ in range(7):
        running.add(torch.full((3, 1), 0.1), torch.zeros(3, dtype=torch.int64))
    assert running.result().m2[0, 0] == 0


def test_a_batch_without_objects_changes_nothing() -> None:
    images = split(14)
    empty = images.batches[0].select(torch.zeros(len(images.batches[0].classes), dtype=torch.bool))
    assert isinstance(empty, Batch)
    with_empty = Images(count=0)
    with_empty.batches = [empty, *images.batches]
    model = Detector()
    a, b = (observe(model, LAYERS[:1], which, CLASSES).moments[LAYERS[0]] for which in (images, with_empty))
    np.testing.assert_array_equal(a.mean, b.mean)
