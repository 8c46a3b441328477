"""Choosing channels: each stage apart, and all of them from raw samples to the keep set.

Floors: one exponential of every entry for the separability; the bare t-SNE, on one thread and from the same start, for
the embedding and for the whole; confirming the partitions that were found for the sweep; the polynomial fit for the
knee. The predecessor is run where it ends within a minute, with ``--full`` up to 512 channels.
"""

from __future__ import annotations

from dataclasses import dataclass
from functools import cache, partial
from typing import Any

import kmedoids
import numpy as np
import pytest
import torch
from sklearn.manifold import TSNE, trustworthiness
from threadpoolctl import threadpool_limits

from benchmarks import predecessor
from benchmarks.timing import Once, in_turns, ratio_to_slow
from seqprune.select.choose import choose
from seqprune.select.clustering import distances, sweep
from seqprune.select.embedding import PERPLEXITY, embed, principal_coordinates
from seqprune.select.knee import knee
from seqprune.select.moments import ClassMoments, FloatArray
from seqprune.select.separability import jeffries_matusita

SEED = 0
SAMPLES = 20  # of every class
SMALL = ((64, 3), (64, 20), (256, 20))
LARGE = ((256, 80), (512, 80), (1024, 80))


@dataclass(frozen=True)
class Case:
    """Channels that respond to fewer hidden features, and what the earlier stages make of them."""

    samples: FloatArray
    labels: FloatArray
    importance: FloatArray

    @property
    def channels(self) -> int:
        return len(self.importance)

    @property
    def moments(self) -> ClassMoments:
        return ClassMoments.from_samples(self.samples, self.labels)


def named(channels: int, classes: int, *marks: Any) -> Any:
    return pytest.param((channels, classes), id=f"{channels} channels, {classes} classes", marks=marks)


every_size = pytest.mark.parametrize(
    "size", [named(*size) for size in SMALL] + [named(*size, pytest.mark.full) for size in LARGE], scope="module"
)
predecessors_sizes = pytest.mark.parametrize(
    "size", [named(*size) for size in SMALL] + [named(*size, pytest.mark.full) for size in LARGE[:2]], scope="module"
)


@cache
def case(size: tuple[int, int]) -> Case:
    channels, classes = size
    rng = np.random.default_rng([SEED, *size])
    features = channels // 8
    mixing = rng.normal(size=(features, channels)) * (rng.random((features, channels)) < 3 / features)
    centres = np.repeat(rng.normal(size=(classes, features)) @ mixing, SAMPLES, axis=0)
    samples = centres + rng.normal(size=centres.shape) * rng.uniform(0.5, 1.5, channels)
    return Case(samples.astype(np.float32), np.repeat(np.arange(classes), SAMPLES), rng.random(channels))


@cache
def matrix(size: tuple[int, int]) -> FloatArray:
    return jeffries_matusita(case(size).moments)


@cache
def points(size: tuple[int, int]) -> FloatArray:
    return embed(matrix(size), SEED)


def bare_tsne(size: tuple[int, int]) -> FloatArray:
    return _tsne(*_start(size))


@cache
def _start(size: tuple[int, int]) -> tuple[FloatArray, FloatArray]:
    start = principal_coordinates(matrix(size))
    return matrix(size).astype(np.float32), (start / start[:, 0].std() * 1e-4).astype(np.float32)


def _tsne(rows: FloatArray, start: FloatArray) -> FloatArray:
    with threadpool_limits(limits=1):
        tsne = TSNE(perplexity=PERPLEXITY, init=start, learning_rate="auto", random_state=SEED, n_jobs=1)
        return np.asarray(tsne.fit_transform(rows))


def few(size: tuple[int, int]) -> int:
    """Rounds of what takes a second or more."""
    return 3 if size[0] <= 256 else 1


def slow(size: tuple[int, int], full: bool) -> bool:
    """Whether the predecessor is not worth waiting for."""
    return size not in (*SMALL, *(LARGE[:2] if full else ()))


class TestSeparability:
    key = "separability"

    @predecessors_sizes
    def test_the_predecessors_way(self, benchmark: Any, size: tuple[int, int], once: Once, cpu: torch.device) -> None:
        c = case(size)
        benchmark.group = f"separability, {size}"
        action = partial(predecessor.separability, c.samples, c.labels)
        benchmark.pedantic(partial(once.fresh, (self.key, size), action, cpu))

    @every_size
    def test_of_every_channel_and_pair_of_classes(
        self, benchmark: Any, size: tuple[int, int], once: Once, cpu: torch.device, full: bool
    ) -> None:
        c, moments = case(size), case(size).moments
        benchmark.group = f"separability, {size}"
        exponents = -matrix(size)
        turns = in_turns(
            benchmark,
            partial(jeffries_matusita, moments),
            beside={"floor": partial(np.exp, exponents)},
            device=cpu,
            rounds=10,
        )
        if not slow(size, full):
            theirs = once.get((self.key, size), partial(predecessor.separability, c.samples, c.labels), cpu)
            ratio_to_slow(benchmark, "predecessor", turns.best("ours"), theirs)
            difference = float(np.abs(turns.results["ours"] - theirs.result).max())
            benchmark.extra_info["largest_difference"] = difference
            assert difference < 1e-4  # it summed in single precision


class TestEmbedding:
    @every_size
    def test_of_channels_in_the_plane(
        self, benchmark: Any, size: tuple[int, int], cpu: torch.device, full: bool
    ) -> None:
        benchmark.group = f"embedding, {size}"
        rows = matrix(size)
        ways = {"floor": partial(bare_tsne, size)}
        if not slow(size, full):
            ways["predecessor"] = partial(predecessor.embed, rows, SEED)
        _start(size)
        turns = in_turns(benchmark, partial(embed, rows, SEED), beside=ways, device=cpu, rounds=few(size), warm_up=0)
        for name, found in turns.results.items():
            benchmark.extra_info[f"{name}_trustworthiness"] = float(trustworthiness(rows, found))


class TestSweep:
    key = "sweep"

    @predecessors_sizes
    def test_the_predecessors_way(self, benchmark: Any, size: tuple[int, int], once: Once, cpu: torch.device) -> None:
        benchmark.group = f"sweep, {size}"
        action = partial(predecessor.sweep, points(size), SEED)
        benchmark.pedantic(partial(once.fresh, (self.key, size), action, cpu))

    @every_size
    def test_over_every_number_of_clusters(
        self, benchmark: Any, size: tuple[int, int], once: Once, cpu: torch.device, full: bool
    ) -> None:
        benchmark.group = f"sweep, {size}"
        space = points(size)
        apart = distances(space)
        coarse = (apart / apart.max()).astype(np.float32)
        found = sweep(apart, SEED)

        def confirm() -> None:
            for each in found.clusterings:
                kmedoids.fasterpam(coarse, each.medoids.astype(np.int64), n_cpu=1)

        turns = in_turns(
            benchmark,
            lambda: sweep(distances(space), SEED),
            beside={"floor": confirm},
            device=cpu,
            rounds=few(size),
        )
        benchmark.extra_info["k"] = knee(found.ks, found.scores)
        if not slow(size, full):
            theirs = once.get((self.key, size), partial(predecessor.sweep, space, SEED), cpu)
            ratio_to_slow(benchmark, "predecessor", turns.best("ours"), theirs)
            losses = [float(apart[:, each.medoids].min(1).sum()) for each in found.clusterings]
            benchmark.extra_info["predecessor_k"] = predecessor.knee(theirs.result.scores)
            # Its distances are rounded, so its losses are counted anew with ours.
            other = [float(apart[:, medoids].min(1).sum()) for medoids in theirs.result.medoids]
            both = min(len(losses), len(other))
            benchmark.extra_info["loss_to_predecessor"] = sum(losses[:both]) / sum(other[:both])
            assert sum(losses[:both]) <= 1.01 * sum(other[:both])


class TestKnee:
    @every_size
    def test_of_the_scores(self, benchmark: Any, size: tuple[int, int], cpu: torch.device) -> None:
        benchmark.group = f"knee, {size}"
        found = sweep(distances(points(size)), SEED)
        turns = in_turns(
            benchmark,
            partial(knee, found.ks, found.scores),
            beside={
                "floor": partial(np.polyfit, found.ks, found.scores, 2),
                "predecessor": partial(predecessor.knee, found.scores),
            },
            device=cpu,
            rounds=10,
        )
        benchmark.extra_info["k"] = turns.results["ours"]
        assert turns.results["ours"] == turns.results["predecessor"]


class TestTheWholeSelection:
    key = "whole"

    @predecessors_sizes
    def test_the_predecessors_way(self, benchmark: Any, size: tuple[int, int], once: Once, cpu: torch.device) -> None:
        c = case(size)
        benchmark.group = f"the whole selection, {size}"
        action = partial(predecessor.select, c.samples, c.labels, c.importance, SEED)
        found = benchmark.pedantic(partial(once.fresh, (self.key, size), action, cpu))
        benchmark.extra_info["kept_channels"] = len(found.result.keep)

    @every_size
    def test_from_samples_to_the_keep_set(
        self, benchmark: Any, size: tuple[int, int], once: Once, cpu: torch.device, full: bool
    ) -> None:
        c = case(size)
        benchmark.group = f"the whole selection, {size}"
        _start(size)
        turns = in_turns(
            benchmark,
            lambda: choose([c.moments], c.importance, seed=SEED),
            beside={"floor": partial(bare_tsne, size)},
            device=cpu,
            rounds=few(size),
            warm_up=0,
        )
        ours = turns.results["ours"]
        benchmark.extra_info["kept_channels"] = len(ours.keep)
        assert 2 <= len(ours.keep) < c.channels
        if not slow(size, full):
            action = partial(predecessor.select, c.samples, c.labels, c.importance, SEED)
            theirs = once.get((self.key, size), action, cpu)
            ratio_to_slow(benchmark, "predecessor", turns.best("ours"), theirs)
            benchmark.extra_info["predecessor_kept_channels"] = len(theirs.result.keep)
            benchmark.extra_info["kept_by_both"] = len({*ours.keep} & {*theirs.result.keep})
