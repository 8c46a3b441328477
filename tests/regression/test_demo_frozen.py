"""The demo's plan is frozen: layers, what was decided together, objects, classes and counts; no timings.

t-SNE's last digits depend on the processor and the release of scikit-learn, and move a knee by a channel or two, so
counts may differ by 4. To accept a new plan on purpose, write what the failure prints into ``demo_plan.json``.
"""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from seqprune.demo.run import demo

pytestmark = pytest.mark.regression
FROZEN = Path(__file__).parent / "demo_plan.json"
SLACK = 4


@pytest.mark.slow
def test_the_demo_prunes_as_it_always_did(tmp_path: Path) -> None:
    result = demo(tmp_path, finetune=0, val=False)
    seen = [
        {
            "layer": s.layer,
            "members": list(s.members),
            "objects": s.objects,
            "classes": len(s.classes),
            "channels": s.channels,
            "stay": s.active_after,
        }
        for s in result.steps
    ]
    frozen = json.loads(FROZEN.read_text())
    hint = "to accept on purpose, write this into demo_plan.json:\n" + json.dumps(seen, indent=2)
    assert all(s.status == "pruned" for s in result.steps), hint
    assert len(seen) == len(frozen), hint
    for now, then in zip(seen, frozen, strict=True):
        assert abs(now.pop("stay") - then.pop("stay")) <= SLACK, hint
        assert now == then, hint
    assert result.record.verify.max_rel <= 1e-4
