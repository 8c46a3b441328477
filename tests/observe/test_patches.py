"""Patches are what a convolution multiplies its weights with; positions are drawn where objects are."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import nn
from torch.nn import functional

from seqprune.observe.batch import Batch
from seqprune.observe.patches import Drawn, Sampler, SecondMoments, patches


def everywhere(images: int, hw: tuple[int, int]) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor]:
    grid = torch.meshgrid(torch.arange(images), torch.arange(hw[0]), torch.arange(hw[1]), indexing="ij")
    return grid[0].flatten(), grid[1].flatten(), grid[2].flatten()


def batch(boxes: list[list[float]], images: int = 2) -> Batch:
    index = torch.zeros(len(boxes), dtype=torch.int64)
    pixels = torch.zeros(images, 3, 64, 64, dtype=torch.uint8)
    return Batch(pixels, index, index, torch.tensor(boxes).reshape(-1, 4))


@settings(max_examples=40)
@given(
    kernel=st.sampled_from([(1, 1), (3, 3), (1, 5), (3, 1)]),
    stride=st.integers(1, 3),
    padding=st.tuples(st.integers(0, 2), st.integers(0, 2)),
    dilation=st.integers(1, 2),
    groups=st.sampled_from([1, 2, 6]),
)
def test_weights_times_patches_are_the_output(
    kernel: tuple[int, int], stride: int, padding: tuple[int, int], dilation: int, groups: int
) -> None:
    torch.manual_seed(0)
    conv = nn.Conv2d(6, 12, kernel, stride, padding, dilation, groups, bias=False).double()
    x = torch.randn(2, 6, 11, 13, dtype=torch.float64)
    output = conv(x)
    hw = (output.shape[2], output.shape[3])
    found = patches(conv, x, everywhere(2, hw), output)
    weight = conv.weight.reshape(groups, 12 // groups, -1)
    again = torch.einsum("gnk,gok->ngo", found, weight).reshape(2, *hw, 12).permute(0, 3, 1, 2)
    torch.testing.assert_close(again, output)
    if groups == 1:
        unfolded = functional.unfold(x, kernel, dilation, padding, stride).transpose(1, 2).reshape(-1, found.shape[2])
        assert torch.equal(found[0], unfolded)


@pytest.mark.parametrize("weighted", [False, True])
def test_moments_are_those_of_all_samples_together(weighted: bool) -> None:
    draw = torch.Generator().manual_seed(0)
    seen = torch.randn(1, 900, 5, generator=draw, dtype=torch.float64) * 3 + 100
    target = seen @ torch.randn(1, 5, 2, generator=draw, dtype=torch.float64) + 7
    weight = torch.rand(900, generator=draw) if weighted else None
    moments = SecondMoments()
    for start, stop in ((0, 100), (100, 137), (137, 900)):
        moments.update(seen[:, start:stop], target[:, start:stop], None if weight is None else weight[start:stop])
    each = np.ones(900) if weight is None else weight.numpy()
    both = np.cov(torch.cat([seen, target], 2)[0].numpy(), rowvar=False, bias=True, aweights=each)
    assert moments.count == pytest.approx(each.sum())
    np.testing.assert_allclose(moments.products[0] / moments.count, both[:5, :5], rtol=1e-4, atol=1e-4)
    np.testing.assert_allclose(moments.cross[0] / moments.count, both[5:, :5], rtol=1e-4, atol=1e-3)
    np.testing.assert_allclose(moments.mean[0], np.average(seen[0], axis=0, weights=each), rtol=1e-6)


def test_positions_are_seeded_distinct_and_on_the_map() -> None:
    labelled = batch([[0, 0, 16, 16]])
    draws = [Sampler(50, seed=3).draw(labelled, (12, 10)).where for _ in range(2)]
    assert all(torch.equal(a, b) for a, b in zip(*draws, strict=True))
    image, row, column = draws[0]
    assert len(set(zip(image.tolist(), row.tolist(), column.tolist(), strict=True))) == 100
    assert (row.max() < 12) & (column.max() < 10) & (min(row.min(), column.min()) >= 0)
    other = Sampler(50, seed=4).draw(labelled, (12, 10)).where
    assert not torch.equal(other[1], row)


def test_small_maps_are_taken_whole() -> None:
    image, row, column = Sampler(400).draw(batch([]), (3, 5)).where
    assert sorted(zip(image.tolist(), row.tolist(), column.tolist(), strict=True)) == sorted(
        zip(*(t.tolist() for t in everywhere(2, (3, 5))), strict=True)
    )


@pytest.mark.parametrize(("share", "least", "most"), [(0.0, 0.0, 0.2), (0.9, 0.8, 1.0)])
def test_a_share_of_the_positions_lies_on_objects(share: float, least: float, most: float) -> None:
    """A box of a sixteenth of the image."""
    image, row, column = Sampler(100, share).draw(batch([[16, 32, 32, 48]]), (64, 64)).where
    inside = (image == 0) & (row >= 32) & (row < 48) & (column >= 16) & (column < 32)
    assert least <= float(inside.sum()) / 100 <= most


def test_boxes_that_reach_over_the_border_are_no_error() -> None:
    Sampler(10).draw(batch([[-30, -30, 400, 400], [70, 70, 90, 90], [5, 5, 5, 5]]), (8, 8))


@pytest.mark.parametrize("most", [1, 3, 7, 50])
def test_a_thinner_draw_takes_as_many_of_every_image_with_their_weights(most: int) -> None:
    """A depthwise filter of 25 weights was fitted to 400 samples of every image."""
    weight = torch.arange(60) + 1.0
    drawn = Drawn((torch.arange(3).repeat_interleave(20), torch.arange(60) % 20, torch.arange(60)), weight)
    thin = drawn.thinned(3, most)
    image, row, column = thin.where
    counts = torch.bincount(image, minlength=3)
    assert counts.min() == counts.max() <= max(most, 1)
    assert counts.max() > min(most, 20) / 2
    assert torch.equal(thin.weight, column + 1.0)  # its own
    assert torch.equal(row, column % 20)


def test_products_by_strips_are_the_whole_ones_and_the_same_on_both_sides() -> None:
    draw = torch.Generator().manual_seed(0)
    seen = torch.randn(2, 50, 301, generator=draw)
    weight = torch.rand(50, generator=draw)
    moments = SecondMoments()
    moments.update(seen, seen[:, :, :0], weight)
    centred = seen.double() - moments.mean[:, None]
    expected = (centred * weight.double()[None, :, None]).transpose(1, 2) @ centred
    torch.testing.assert_close(moments.products, expected, rtol=1e-4, atol=1e-3)
    apart = moments.products - moments.products.transpose(1, 2)
    assert float(apart[:, :75, 75:].abs().max()) == 0
