"""Any sequence of pruning more, saving, loading, fine-tuning and compacting keeps every promise."""

from __future__ import annotations

import io

import numpy as np
import torch
from detectors import Detector
from hypothesis import settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, initialize, invariant, rule

from seqprune import PrunePlan, compact, count_active_channels, mask, trace, verify
from seqprune.surgery import masker

INPUT = torch.zeros(1, 3, 32, 32, dtype=torch.float64)


class Pruning(RuleBasedStateMachine):
    """A masked model and its plan, and what may happen to them."""

    @initialize()
    def start(self) -> None:
        self.model = Detector().double()
        self.graph = trace(self.model, INPUT)
        self.plan = PrunePlan((), self.graph.inputs)

    @rule(seed=st.integers(0, 2**16), share=st.sampled_from([0.1, 0.3]))
    def prune_more(self, seed: int, share: float) -> None:
        rng = np.random.default_rng(seed)
        gone = self.plan.removed_groups(self.graph)
        open_groups = ~self.graph.pinned & ~gone
        wanted = gone | ((rng.random(len(gone)) < share) & open_groups)
        removed = self.graph.legalise(wanted, rng.random(len(gone)), open_groups)
        plan = PrunePlan.from_removed(self.graph, removed)
        assert plan & self.plan == plan  # nothing comes back
        self.plan = plan
        self.model = mask(self.model, plan, self.graph)

    @rule()
    def save_and_load_the_plan(self) -> None:
        self.plan = PrunePlan.from_json(self.plan.to_json())

    @rule()
    def save_and_load_the_model(self) -> None:
        file = io.BytesIO()
        torch.save(self.model, file)
        file.seek(0)
        self.model = torch.load(file, weights_only=False)

    @rule(seed=st.integers(0, 2**16))
    def fine_tune_a_step(self, seed: int) -> None:
        images = torch.rand(2, 3, 32, 32, dtype=torch.float64, generator=torch.Generator().manual_seed(seed))
        optimizer = torch.optim.SGD(self.model.parameters(), 0.01, momentum=0.9, weight_decay=0.01)
        self.model.train()(images).square().mean().backward()
        optimizer.step()
        masker(self.plan, self.graph)(self.model)
        self.model.eval()

    @rule()
    def trace_again(self) -> None:
        self.graph = trace(self.model, INPUT)

    @invariant()
    def active_channels_are_the_plans(self) -> None:
        for layer in self.graph.all_layers:
            stay = len(self.plan.keep.get(layer.name, range(layer.channels)))
            assert count_active_channels(self.model.get_submodule(layer.name)) == stay

    @invariant()
    def layers_are_front_to_back(self) -> None:
        positions = [self.graph.order[layer.name] for layer in self.plan.layers]
        assert positions == sorted(positions) == [layer.position for layer in self.plan.layers]

    @invariant()
    def compact_computes_what_the_masked_model_computes(self) -> None:
        images = torch.rand(2, 3, 32, 64, dtype=torch.float64, generator=torch.Generator().manual_seed(0))
        verify(self.model, compact(self.model, self.plan, self.graph), images)


TestPruning = Pruning.TestCase
TestPruning.settings = settings(max_examples=6, stateful_step_count=8)
