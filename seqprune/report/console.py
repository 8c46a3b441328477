"""What a run looks like on a terminal: pure renderings, nothing is printed here."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
from rich.table import Table
from rich.text import Text

from seqprune.engine.record import Record, Trained
from seqprune.engine.steps import StepReport
from seqprune.graph.channels import ChannelGraph, Layer
from seqprune.repair.recover import Repair
from seqprune.report.front import cells
from seqprune.report.record import compare


def step_block(step: StepReport, number: int) -> Text:
    """A few lines on one step, in the manner of a pruning log."""
    block = "" if step.block is None else f"  block {step.block}"
    text = Text()
    text.append(f"step {number}{block}  {step.layer}\n", "bold")
    if step.status == "skipped":
        text.append(f"  skipped: {step.reason}\n", "yellow")
    text.append(f"  original channels {step.channels}  keep {step.active_after}  remove {step.removed}")
    text.append(f"  kept {step.active_after / step.channels:.3f}  active/total {step.active_after}/{step.channels}\n")
    if step.objects or step.status == "skipped":
        text.append(f"  objects {step.objects}  classes {len(step.classes)}  k {step.k}  {step.seconds:.1f} s")
    others = [name for name in step.members if name != step.layer]
    if step.status == "pruned" and step.reason:
        text.append(f"\n  {step.reason}")
    if others:
        text.append(f"\n  decided together with {', '.join(others)}")
    text.rstrip()
    return text


def before_after(record: Record) -> Table:
    """The table at the end of a run."""
    table = Table(title=None, show_edge=False, pad_edge=False)
    table.add_column("")
    for title in ("before", "after", "change"):
        table.add_column(title, justify="right")
    for line in compare(record.before, record.after):
        table.add_row(line.what, line.before, line.after, line.change)
    return table


def beside(record: Record) -> Table:
    """The pruned network and the trivial ways to less, a row each."""
    head, rows = cells(record.front)
    table = Table(title=None, show_edge=False, pad_edge=False)
    for number, title in enumerate(head):
        table.add_column(title, justify="right" if number else "left")
    for row in rows:
        table.add_row(*row)
    return table


def verdict(record: Record) -> str:
    """What became of the repairs, and the proof that the small model computes what the masked one does."""
    relative, absolute = record.verify.max_rel, record.verify.max_abs
    lines = [repair_line(repair) for repair in record.repairs]
    proof = f"verify: compact and masked model differ by max_rel {relative:.1e}, max_abs {absolute:.1e}"
    how = record.settings.get("verified_as", "float32")
    lines.append(f"{proof} on {'images' if record.data else 'noise'}{'' if how == 'float32' else f', in {how}'}")
    return "\n".join(lines)


def repair_line(repair: Repair) -> str:
    """``recovery: ls kept, held-out loss 8.10 -> 4.20``."""
    seen = "nothing was held out"
    if repair.before is not None and repair.after is not None:
        seen = f"held-out loss {repair.before:.2f} -> {repair.after:.2f}"
    return f"recovery: {repair.step} {'kept' if repair.kept else 'left out'}, {seen}"


def trained(result: Trained) -> Text:
    """What a training left, and how good it is."""
    text = Text()
    for name, value in result.metrics.items():
        text.append(f"{name.removeprefix('metrics/')}  {value:.4f}\n")
    shape = "the shape it had" if result.plan is None else "the plan's shape"
    files = f"{result.best.relative_to(result.folder)}, results.csv, report.html"
    text.append(f"{shape} was kept; results in {result.folder}: {files}")
    return text


def constraints(graph: ChannelGraph, layer: Layer) -> list[str]:
    """Why channels of a layer are counted together with others, one reason a balance that touches it."""
    touching = (b.reason for b in graph.balances if any(np.isin(layer.groups, s).any() for s in b.sections))
    return list(dict.fromkeys(touching))


def graph_text(graph: ChannelGraph, source: str, blocks: Sequence[str] = ()) -> Text:
    """Layers front to back, then blocks that may be left out, what pins channels, and where."""
    text = Text()
    total, free = len(graph.all_layers), len(graph.layers)
    text.append(f"{source}: {total} layers front to back, {free} of them prunable; ")
    text.append(f"{len(graph.barriers)} barriers\n\n")
    wide = max((len(layer.name) for layer in graph.all_layers), default=5)
    text.append(f"{'layer':<{wide}}  channels  free  notes\n", "bold")
    for layer in graph.all_layers:
        count = int(layer.free.sum())
        notes = [f"with {', '.join(graph.coupled(layer.name))}"] if graph.coupled(layer.name) else []
        notes += [f"equal halves: {reason}" for reason in constraints(graph, layer)]
        notes += [f"pinned: {layer.reason}"] if layer.reason else []
        line = f"{layer.name:<{wide}}  {layer.channels:>8}  {count:>4}  {'; '.join(notes)}"
        text.append(line.rstrip() + "\n", "" if count else "dim")
    if blocks:
        text.append("\nblocks that may be left out whole (--by blocks)\n", "bold")
        text.append("".join(f"  {block}\n" for block in blocks))
    if graph.barriers:
        text.append("\nbarriers, through which channels are not followed\n", "bold")
        text.append("".join(f"  {barrier}\n" for barrier in graph.barriers))
    if graph.notes:
        text.append("\nnotes\n", "bold")
        text.append("".join(f"  {note}\n" for note in graph.notes))
    text.rstrip()
    return text


def graph_json(graph: ChannelGraph, source: str, blocks: Sequence[str] = ()) -> dict[str, Any]:
    """The same as plain data."""
    return {
        "model": source,
        "layers": [
            {
                "name": layer.name,
                "kind": layer.kind,
                "channels": layer.channels,
                "free": int(layer.free.sum()),
                "coupled": list(graph.coupled(layer.name)),
                "constraints": constraints(graph, layer),
                "reason": layer.reason,
            }
            for layer in graph.all_layers
        ],
        "blocks": list(blocks),
        "barriers": [
            {"op": b.op, "module": b.module, "shape": list(b.shape), "reason": b.reason} for b in graph.barriers
        ],
        "notes": list(graph.notes),
    }
