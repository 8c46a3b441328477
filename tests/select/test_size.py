"""Which sizes of images are tried, and which is taken."""

from __future__ import annotations

import math
from itertools import pairwise
from pathlib import Path
from typing import Any

import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from seqprune.budget.size import (
    CHANCE,
    HOPELESS,
    LEAST_LEFT,
    MOST_FITTED,
    MOST_HELD,
    MOST_KNOWN,
    MOST_LEFT,
    MOST_ON_CURVE,
    Candidate,
    along,
    best,
    candidates,
    chance,
    curve,
    folds,
)
from seqprune.errors import InputError


def area(size: int) -> float:
    return float(size**2)


@pytest.mark.parametrize("target", [0.9, 0.81, 0.72, 0.64, 0.5, 0.42, 0.3])
def test_each_candidate_comes_to_the_target_and_the_size_alone_is_one(target: float) -> None:
    found = candidates(640, target, area)
    for each in found[:-1]:
        assert LEAST_LEFT <= each.left <= MOST_LEFT
        assert each.left * area(each.imgsz) == pytest.approx(target * area(640))
    assert found[-1].left == 1
    assert area(found[-1].imgsz) <= target * area(640) < area(found[-1].imgsz + 32)
    assert [each.imgsz for each in found] == sorted((each.imgsz for each in found), reverse=True)


def test_a_size_that_leaves_next_to_nothing_to_others_is_not_tried() -> None:
    """They would save less than the sizes are apart: 0.88 leaves 0.975 at 608 pixels."""
    assert [each.imgsz for each in candidates(640, 0.88, area)] == [640, 576]


def test_a_target_below_the_smallest_size_is_refused() -> None:
    with pytest.raises(InputError, match="take a greater target"):
        candidates(64, 0.01, area)


def test_the_best_is_taken_and_what_cannot_be_measured_is_not() -> None:
    found = [Candidate(640, 0.72), Candidate(608, 0.8), Candidate(576, 0.9), Candidate(544, 1.0)]
    worths = {640: 0.3, 608: 0.5, 576: math.nan, 544: 0.4}
    assert best(found, lambda each: worths[each.imgsz], CHANCE / 16).imgsz == 608
    assert best(found, lambda each: math.nan, CHANCE / 16).left == 0.8  # nothing to choose by: the middle
    assert best(found, lambda each: math.nan if each.left > 0.9 else -math.inf, CHANCE / 16).left > 0.9
    with pytest.raises(InputError, match="at none of the sizes tried the target can be met"):
        best(found, lambda each: -math.inf, CHANCE / 16)


def test_no_size_above_a_hopeless_one_is_tried() -> None:
    """Of four sizes at half of the time the two largest took most of the run and kept 63 and 89 % of the best."""
    worths = {544: 0.2286, 512: 0.3243, 480: 0.3635, 448: 0.3543}
    asked: list[int] = []

    def worth(each: Candidate) -> float:
        asked.append(each.imgsz)
        return worths[each.imgsz]

    found = [Candidate(544, 0.71), Candidate(512, 0.75), Candidate(480, 0.92), Candidate(448, 1.0)]
    assert best(found, worth, CHANCE / 16).imgsz == 480
    assert asked == [448, 480, 512]


def test_beyond_a_size_that_does_nearly_as_well_others_are_tried() -> None:
    worths = {640: 0.6, 608: HOPELESS * 0.5, 576: 0.5}
    found = [Candidate(640, 0.72), Candidate(608, 0.8), Candidate(576, 1.0)]
    assert best(found, lambda each: worths[each.imgsz], CHANCE / 16).imgsz == 640


@given(st.lists(st.one_of(st.floats(0.01, 1), st.just(math.nan), st.just(-math.inf)), min_size=1, max_size=6))
def test_what_is_taken_was_tried_and_nothing_that_was_tried_is_clearly_worth_more(worths: list[float]) -> None:
    found = [Candidate(32 * (len(worths) - at), 0.7 + 0.3 * at / len(worths)) for at in range(len(worths))]
    seen: dict[int, float] = {}

    def worth(each: Candidate) -> float:
        seen[each.imgsz] = worths[found.index(each)]
        return seen[each.imgsz]

    if all(value == -math.inf for value in worths):
        with pytest.raises(InputError):
            best(found, worth, CHANCE / 16)
        return
    taken = best(found, worth, CHANCE / 16)
    known = [value for value in seen.values() if math.isfinite(value)]
    assert (1 + CHANCE / 16) * seen[taken.imgsz] >= max(known) if known else seen[taken.imgsz] != -math.inf


@pytest.mark.parametrize(
    ("images", "worths", "taken"),
    [
        (32, {576: 0.4440, 544: 0.4429}, 544),
        (32, {480: 0.3575, 448: 0.3543}, 480),
        (8, {480: 0.3575, 448: 0.3543}, 448),
    ],
)
def test_more_is_done_to_a_network_only_where_that_is_better_than_by_chance(
    images: int, worths: dict[int, float], taken: int
) -> None:
    """Two thousandths on 32 images decided for pairs, which other images did not confirm."""
    larger, alone = worths
    assert (
        best(
            [Candidate(larger, 0.94), Candidate(alone, 1)], lambda each: worths[each.imgsz], CHANCE / images**0.5
        ).imgsz
        == taken
    )


def test_of_two_sizes_that_do_as_well_the_smaller_is_taken() -> None:
    found = [Candidate(608, 0.8), Candidate(576, 1.0)]
    assert best(found, lambda _: 0.4, 0.0).imgsz == 576


ALONE = {640: 0.4330, 576: 0.4196, 544: 0.4196, 512: 0.4140, 480: 0.4062, 448: 0.3949, 416: 0.3785}
"""YOLOv8n on 128 train images, by objects."""


def test_a_smaller_image_loses_a_bit_more_with_every_step_whatever_a_few_images_say() -> None:
    """As measured 576 px lose nothing more to 544, and 448 more to 416 than what 96 % of the next size brings."""
    alone = curve(ALONE)
    steps = [alone(smaller) / alone(larger) for larger, smaller in pairwise(sorted(ALONE, reverse=True))]
    assert all(0.95 < step < 0.995 for step in steps)
    assert steps[1:] == sorted(steps[1:], reverse=True)
    assert alone(640) == pytest.approx(ALONE[640], rel=0.02)


@given(
    st.floats(0.01, 1),
    st.floats(0, 1),
    st.floats(-1, 0),
    st.lists(st.sampled_from(range(320, 672, 32)), min_size=4, max_size=9, unique=True),
)
def test_what_is_a_curve_comes_back_as_it_is(whole: float, slope: float, bend: float, sizes: list[int]) -> None:
    def true(size: int) -> float:
        return whole * math.exp(slope * math.log(size / 640) + bend * math.log(size / 640) ** 2)

    alone = curve({size: true(size) for size in sizes})
    for size in range(min(sizes), max(sizes) + 1, 32):
        assert alone(size) == pytest.approx(true(size), rel=1e-6)


def test_few_sizes_are_as_measured_and_where_nothing_is_found_nothing_is_known() -> None:
    assert curve({640: 0.4})(640) == pytest.approx(0.4)
    assert curve({640: 0.4, 608: 0.3})(608) == pytest.approx(0.3)
    assert curve({400: 0.4, 100: 0.1})(200) == pytest.approx(0.2)
    assert math.isnan(curve({640: 0.4, 608: 0.0})(640))
    assert math.isnan(curve({640: math.nan, 608: 0.3})(608))


def test_the_curve_bends_alike_everywhere_whatever_was_measured() -> None:
    """A parabola of logarithms: its third differences are zero."""
    alone = curve(dict(zip((100, 200, 300, 400, 800), (0.2, 0.35, 0.3, 0.45, 0.4), strict=True)))
    first, second, third, last = (math.log(alone(size)) for size in (100, 200, 400, 800))
    assert last - 3 * third + 3 * second - first == pytest.approx(0, abs=1e-9)


@given(st.integers(64, 1600), st.sampled_from([0.9, 0.81, 0.5, 0.3]))
def test_the_curve_goes_from_the_size_in_use_past_every_candidate(imgsz: int, target: float) -> None:
    try:
        found = candidates(imgsz, target, area)
    except InputError:
        return
    sizes = along(found, imgsz)
    assert sizes == sorted(set(sizes), reverse=True)
    assert sizes[0] == imgsz
    assert 32 <= sizes[-1] <= found[-1].imgsz
    assert 2 <= len(sizes) <= MOST_ON_CURVE
    assert all(size % 32 == 0 for size in sizes[1:])


def test_the_curve_goes_down_to_two_thirds_of_the_size_or_to_the_smallest_candidate() -> None:
    assert along([Candidate(608, 1.0)], 640)[-1] == 416
    assert along([Candidate(320, 1.0)], 640) == [640, 576, 512, 448, 384, 320], "six at most"
    assert along([Candidate(32, 1.0)], 32) == [32]


Counts = st.tuples(st.integers(8, 400), st.integers(0, 400))


@given(Counts, st.sets(st.integers(0, 800), min_size=1), st.randoms(use_true_random=False))
def test_what_judges_has_labels_and_is_apart_from_what_is_fitted(counts: Any, labelled: set[int], random: Any) -> None:
    """Of 512 train images 221 had none: what was found there counted as wrong, and sizes were chosen by that."""
    files = [Path(f"{number:03}.jpg") for number in range(sum(counts))]
    random.shuffle(files)
    known = {file for file in files if int(file.stem) in labelled}
    found = folds(files[: counts[0]], known)
    assert bool(found) == bool(known)
    for fold in found:
        assert fold.held, "one image at least"
        assert not set(fold.fitted) & set(fold.held)
        assert (fold.fitted, fold.held) == (sorted(fold.fitted), sorted(fold.held)), "whatever order they came in"
        assert set(fold.held) <= known
        assert len(set(fold.fitted)) == len(fold.fitted) <= MOST_FITTED
        assert len(set(fold.held)) == len(fold.held) <= MOST_HELD


@given(Counts)
@example((8, 4))
def test_all_images_judge_once_or_half_as_many_as_are_fitted_to(counts: tuple[int, int]) -> None:
    looked_at, left = counts
    files = [Path(f"{number:03}.jpg") for number in range(looked_at + left)]
    found = folds(files[:looked_at], files)
    fitted = min(looked_at, MOST_FITTED)
    spare = looked_at + left - fitted
    if len(found) == 1:
        assert 2 * spare >= fitted == len(found[0].fitted)
        assert len(found[0].held) == min(spare, MOST_HELD)
    else:
        one, two = found
        assert 2 * spare < fitted
        assert (one.fitted, one.held) == (two.held, two.fitted)
        assert sorted([*one.fitted, *two.fitted]) == files


def test_images_with_labels_are_shared_out_between_the_folds() -> None:
    """Where every other one has some, a fold of those would leave none to judge by."""
    files = [Path(f"{number:03}.jpg") for number in range(40)]
    found = folds(files, files[::2])
    assert [len(fold.held) for fold in found] == [10, 10]


def test_two_folds_leave_nothing_to_chance() -> None:
    """Fits to 64 images lost 0.5 % more than those to 128: at 0.56 of the operations that hid what pairs bring."""
    files = [Path(f"{number:03}.jpg") for number in range(384)]
    assert chance(folds(files[:128], files)) == pytest.approx(CHANCE / 16)
    assert chance(folds(files[:128], files[:128])) == 0


def test_as_many_images_choose_a_size_as_took_little_time_and_told_enough() -> None:
    """Of 1,024 train images the labels are read, 128 are fitted to, 256 others judge."""
    files = [Path(f"{number:04}.jpg") for number in range(4000)]
    (only,) = folds(files, files)
    assert (len(only.fitted), len(only.held), MOST_KNOWN) == (128, 256, 1024)


def test_too_few_images_to_do_both_are_refused() -> None:
    with pytest.raises(InputError, match="too few"):
        folds([Path(f"{number}.jpg") for number in range(7)], [Path("8.jpg"), Path("9.jpg")])


def test_images_are_taken_from_all_parts_of_the_data_however_they_are_ordered() -> None:
    """Images come sorted by their aspect ratio: the 256 narrowest judged."""
    others = [Path(f"{number:04}.jpg") for number in range(4 * MOST_HELD)]
    seen = [Path(f"seen-{number:04}.jpg") for number in range(4 * MOST_FITTED)]
    for given_ones in (others, others[::-1]):
        (only,) = folds(seen[::-1], [*given_ones, *seen])
        assert only.fitted == seen[2::4]
        held = [int(file.stem) for file in only.held if file in others]
        assert max(after - before for before, after in pairwise(held)) <= 6
