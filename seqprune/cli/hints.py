"""Arguments as users of Ultralytics type them, ``model=yolov8n.pt``, and what they are called here."""

from __future__ import annotations

import re
from collections.abc import Sequence

_SAME = ("data", "epochs", "imgsz", "batch", "device", "seed", "name", "project", "classes", "patience")
_THEIRS = ("task", "mode")
_TARGETS = ("flops", "params", "latency")
_TASKS = ("detect", "segment", "classify", "pose", "obb")
_OURS = {"train": "finetune", "benchmark": "bench"}
"""What commands of theirs are called here."""
_AS_IT_IS = ("val", "predict", "track", "export")
"""Commands of theirs that a pruned file goes into as any other does."""
_PAIR = re.compile(r"([a-z_][a-z0-9_]*)=(.*)", re.DOTALL)


def hint(args: Sequence[str]) -> str | None:
    """What to write instead of ``args``; ``None`` where they are written as this command line wants them."""
    words = [arg for arg in args if arg not in _TASKS]
    verb = next(iter(words), "")
    if verb in _AS_IT_IS:
        return f"`{verb}` is Ultralytics' own, and takes a pruned .pt as it is: {' '.join(['yolo', *words])}"
    if (meant := rewritten(words)) is not None:
        return f"arguments are not written key=value here; write: {meant}"
    if verb in _OURS:
        return f"`{verb}` is called {_OURS[verb]} here; write: {' '.join(['seqprune', _OURS[verb], *words[1:]])}"
    return None


def rewritten(args: Sequence[str]) -> str | None:
    """The command line that was meant; ``None`` where nothing is written ``key=value``.

    A pair behind an option is that option's value: ``--target flops=0.8``.
    """
    model, written, pairs, behind_option = [], [], 0, False
    for arg in args:
        pair = None if behind_option else _PAIR.fullmatch(arg)
        behind_option = arg.startswith("-") and "=" not in arg
        pairs += pair is not None
        if pair is None:
            written.append(arg)
        elif pair[1] == "model":
            model.append(pair[2])
        elif pair[1] in _TARGETS:
            written += ["--target", arg]
        elif pair[1] in _SAME or args[0] not in ("finetune", "train"):
            written += [f"--{pair[1].replace('_', '-')}", pair[2]] if pair[1] not in _THEIRS else []
        else:
            written += ["--set", arg]
    if not pairs:
        return None
    command = written.pop(0) if written and not written[0].startswith("-") else "prune"
    return " ".join(["seqprune", _OURS.get(command, command), *model, *written])
