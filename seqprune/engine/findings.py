"""What a run finds on its way, as tensors and plain values that a file can hold, and back."""

from __future__ import annotations

from dataclasses import asdict
from typing import Any, cast

import numpy as np
import torch

from seqprune.engine.steps import Done, StepReport
from seqprune.observe.patches import Drawn
from seqprune.observe.relevance import Relevance

Tensors = dict[str, torch.Tensor]


def relevance_as_tensors(found: Relevance) -> Tensors:
    """By kind, layer and, of positions, batch: image, row and column ``[3, N]`` and their weights."""
    tensors: Tensors = {f"curvature:{name}": t for name, t in found.curvature.items()}
    tensors |= {f"slope:{name}": t for name, t in found.slope.items()}
    tensors |= {f"together:{name}": t for name, t in found.together.items()}
    for (number, name), drawn in found.drawn.items():
        tensors[f"where:{number}:{name}"] = torch.stack(drawn.where)
        if drawn.weight is not None:
            tensors[f"weight:{number}:{name}"] = drawn.weight
    return tensors


def relevance_of_tensors(tensors: Tensors) -> Relevance:
    found = Relevance()
    for key, tensor in tensors.items():
        kind, _, name = key.partition(":")
        if kind == "curvature":
            found.curvature[name] = tensor
        elif kind == "slope":
            found.slope[name] = tensor
        elif kind == "together":
            found.together[name] = tensor
        elif kind == "where":
            number, _, layer = name.partition(":")
            image, row, column = tensor
            found.drawn[int(number), layer] = Drawn((image, row, column), tensors.get(f"weight:{name}"))
    return found


def done_as_tensors(done: Done) -> tuple[Tensors, Any]:
    """Of a sequential run: what was removed, which objects count, and the reports."""
    tensors: Tensors = {"removed": torch.from_numpy(done.removed.copy())}
    tensors |= {f"matched:{number}": t for number, t in enumerate(done.matched or ())}
    about = {
        "steps": [asdict(step) for step in done.steps],
        "decided_by": [[group, name] for group, name in done.decided_by.items()],
        "matched": None if done.matched is None else len(done.matched),
    }
    return tensors, about


def done_of_tensors(tensors: Tensors, about: Any) -> Done:
    steps = [
        StepReport(**(step | {"classes": tuple(step["classes"]), "members": tuple(step["members"])}))
        for step in about["steps"]
    ]
    matched = None if about["matched"] is None else [tensors[f"matched:{n}"] for n in range(about["matched"])]
    decided = {int(group): str(name) for group, name in about["decided_by"]}
    return Done(steps, cast("np.ndarray[Any, np.dtype[np.bool_]]", tensors["removed"].numpy()), decided, matched)
