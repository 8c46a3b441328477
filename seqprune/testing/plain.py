"""The contract about files of Ultralytics' networks; other networks owe no file."""

from __future__ import annotations

import tempfile
from pathlib import Path

from torch import nn

from seqprune.graph.copying import copied
from seqprune.testing.outputs import difference, run
from seqprune.testing.trial import ContractError, NotApplicable, Trial, attempt


def is_ultralytics(model: nn.Module) -> bool:
    """Whether a network is one of Ultralytics'."""
    return any(kind.__module__.split(".")[0] == "ultralytics" for kind in type(model).__mro__)


def plain(trial: Trial) -> None:
    """Saved as a ``.pt``, plain Ultralytics loads it, and it computes the same."""
    if not is_ultralytics(trial.unpruned):
        raise NotApplicable("it is no network of Ultralytics'")
    from seqprune.yolo.files.networks import names_of
    from seqprune.yolo.files.save import save_pt
    from seqprune.yolo.task.plain import opened

    small = copied(trial.pruned).float().eval()
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "pruned.pt"
        attempt("plain", "it is not saved", lambda: save_pt(small, path, names=names_of(small), half=False))
        loaded = attempt("plain", "Ultralytics does not load it", lambda: opened(path))
    inputs = tuple(t.float() for t in trial.inputs)
    found = difference(run(small, inputs), run(loaded.eval(), inputs))
    if found:
        raise ContractError("plain", f"what Ultralytics loads differs by {found:.2e} of the largest value")
