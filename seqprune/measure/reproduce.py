"""The original failure and its end.

Pruning that is applied by halves, on YOLOv8s with random weights and a 352×512 image: a consumer narrowed to
the channels that stay while its producer keeps all of them, and blocks flattened into a sequence to look at a
layer in them. Each ends in the error it always ended in, word for word. Then the same layers, given back to
front, go through the engine without one.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from functools import partial
from typing import Any, cast

import numpy as np
import torch
from torch import nn

from seqprune.errors import SeqPruneError
from seqprune.graph.copying import copied
from seqprune.observe.batch import Batch
from seqprune.observe.extract import observe
from seqprune.plan import PrunePlan
from seqprune.surgery import compact, mask, verify
from seqprune.yolo.files.load import load
from seqprune.yolo.task.tracing import trace_detector

MODEL = "yolov8s.yaml"
HEIGHT, WIDTH = 352, 512
KEPT = 118
HALF_APPLIED = (
    "RuntimeError: Given groups=1, weight of size [256, 118, 1, 1], expected input[1, 256, 22, 32] to have "
    "118 channels, but got 256 channels instead"
)
FLATTENED = (
    "RuntimeError: Given groups=1, weight of size [128, 256, 1, 1], expected input[1, 128, 44, 64] to have "
    "256 channels, but got 128 channels instead"
)
FLATTENED_NECK = "TypeError: cat(): argument 'tensors' (position 1) must be tuple of Tensors, not Tensor"
# Back to front, in five blocks, the producer of the half-applied pruning among them; how many channels stay.
LAYERS = {
    "model.7.conv": 200,
    "model.6.m.0.cv1.conv": 77,
    "model.5.conv": KEPT,
    "model.3.conv": 60,
    "model.1.conv": 31,
}
# In the blocks that could not be observed flattened.
OBSERVED = ("model.4.cv2.conv", "model.12.cv1.conv", "model.21.cv2.conv")
FIRST_CONCAT = 11
_RESULT = "no error, compact equals masked; front to back {}; model.5.conv makes {} channels, model.6.cv1.conv takes {}"

_SEEN = "no error; an object's vector has " + ", ".join(f"{{}} channels of {name}" for name in OBSERVED)


@dataclass(frozen=True)
class Finding:
    """One thing that was to happen.

    Attributes:
        title: what was done.
        expected: what had to come of it.
        seen: what came of it.
    """

    title: str
    expected: str
    seen: str

    @property
    def ok(self) -> bool:
        return self.seen == self.expected


def reproduce(seed: int = 0, on_finding: Callable[[Finding], None] | None = None) -> list[Finding]:
    """Runs everything above.

    Args:
        seed: of the weights, the image and the channels that stay; the findings do not depend on it.
        on_finding: told each finding as it is made.

    Returns:
        The findings, ``ok`` where what was to happen did.
    """
    with torch.random.fork_rng(), torch.no_grad():
        torch.manual_seed(seed)
        network = load(MODEL).model
        image = torch.rand(1, 3, HEIGHT, WIDTH)
        _settle(network, image)
    findings = []
    for make in (half_applied, flattened, flattened_neck, front_to_back, observed):
        findings.append(make(network, image))
        if on_finding is not None:
            on_finding(findings[-1])
    return findings


def half_prune(network: nn.Module) -> nn.Module:
    """The half-applied pruning: ``model.6.cv1.conv`` takes 118 channels, ``model.5.conv`` still makes 256."""
    broken = copied(network)
    consumer = _conv(broken, "model.6.cv1.conv")
    consumer.weight = nn.Parameter(consumer.weight.detach()[:, :KEPT].clone())
    consumer.in_channels = KEPT
    return broken


def mini_net(network: nn.Module, block: int) -> nn.Sequential:
    """The blocks in front of one, then that one's children, as if all of it were a sequence."""
    blocks: Any = network.model
    return nn.Sequential(*blocks[:block], *blocks[block].children())


def half_applied(network: nn.Module, image: torch.Tensor) -> Finding:
    return Finding(
        "narrow model.6.cv1.conv to 118 inputs, leave model.5.conv at 256 outputs, run",
        HALF_APPLIED,
        outcome(lambda: half_prune(network)(image)),
    )


def flattened(network: nn.Module, image: torch.Tensor) -> Finding:
    return Finding(
        "flatten the C2f model.4 into a sequence, run",
        FLATTENED,
        outcome(lambda: mini_net(network, 4)(image)),
    )


def flattened_neck(network: nn.Module, image: torch.Tensor) -> Finding:
    """Every block behind the first ``Concat``: in a sequence that gets one tensor where it needs a list."""
    blocks: Any = network.model
    with torch.no_grad():
        front = blocks[:FIRST_CONCAT](image)  # eleven blocks that are a sequence, run once for all mini-nets
    last = len(blocks) - 1
    nets = [mini_net(network, block)[FIRST_CONCAT:] for block in range(FIRST_CONCAT + 1, last + 1)]
    seen = {outcome(partial(net, front)) for net in nets}
    title = f"flatten model.{FIRST_CONCAT + 1} to model.{last} into sequences, one at a time, run"
    # Older releases of torch word the same refusal of a single tensor in another way.
    refusal = outcome(lambda: torch.cat(front, 1))
    return Finding(title, refusal if "cat()" in refusal else FLATTENED_NECK, " | ".join(sorted(seen)))


def front_to_back(network: nn.Module, image: torch.Tensor) -> Finding:
    """The layers of :data:`LAYERS`, given back to front, through graph, plan, mask, compact and verify."""

    def engine() -> str:
        graph = trace_detector(network)
        draw = np.random.default_rng(0)
        keep = {
            name: np.sort(draw.choice(graph.by_name[name].channels, count, replace=False)).tolist()
            for name, count in LAYERS.items()
        }
        plan = PrunePlan.from_keep(graph, keep)
        small = compact(network, plan, graph)
        verify(mask(network, plan, graph), small, image)  # raises above the tolerance
        producer, consumer = (_conv(small, name) for name in ("model.5.conv", "model.6.cv1.conv"))
        order = ", ".join(layer.name for layer in plan.layers)
        return _RESULT.format(order, producer.weight.shape[0], consumer.weight.shape[1])

    return Finding(
        f"give seqprune {', '.join(LAYERS)}; mask, compact, run both at {HEIGHT}×{WIDTH}, compare",
        _RESULT.format(", ".join(reversed(LAYERS)), KEPT, KEPT),
        outcome(engine),
    )


def observed(network: nn.Module, image: torch.Tensor) -> Finding:
    """Layers inside the blocks that failed as sequences, observed where they are."""

    def engine() -> str:
        box = torch.tensor([[0.25 * WIDTH, 0.25 * HEIGHT, 0.75 * WIDTH, 0.75 * HEIGHT]])
        first = torch.zeros(1, dtype=torch.long)
        moments = observe(network, OBSERVED, [Batch(image, first, first, box)], 1).moments
        return _SEEN.format(*(moments[name].mean.shape[-1] for name in OBSERVED))

    expected = _SEEN.format(*(_conv(network, name).out_channels for name in OBSERVED))
    return Finding(f"observe {', '.join(OBSERVED)} with seqprune", expected, outcome(engine))


def _settle(network: nn.Module, image: torch.Tensor) -> None:
    """Gives every BatchNorm the statistics of ``image``.

    As built, an untrained network shrinks its signal layer by layer, until nothing but biases is left
    to compare.
    """
    norms = [module for module in network.modules() if isinstance(module, nn.BatchNorm2d)]
    momentum = norms[0].momentum
    for norm in norms:
        norm.momentum = 1.0
    network.train()
    network(image)
    network.eval()
    for norm in norms:
        norm.momentum = momentum


def _conv(network: nn.Module, name: str) -> nn.Conv2d:
    return cast(nn.Conv2d, network.get_submodule(name))


def outcome(run: Callable[[], object]) -> str:
    """What a run answers in words, or the error it ends in, as Python would print it."""
    try:
        with torch.no_grad():
            answer = run()
    except (RuntimeError, TypeError, SeqPruneError) as error:
        return f"{type(error).__name__}: {error}"
    return answer if isinstance(answer, str) else "no error"
