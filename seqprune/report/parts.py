"""Sections of the page of a run, made of ``report.json``: what is not there, or was not measured, is left out."""

from __future__ import annotations

import math
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from itertools import groupby
from typing import Any

from markupsafe import Markup

from seqprune.report import charts
from seqprune.report.record import difference, titled

Plain = Mapping[str, Any]
MOST_CLASSES = 40
"""Classes that are drawn, those first that changed most."""
_EMBEDDED = (
    "Channels that tell the classes apart alike lie together; lines lead to the middle of a cluster; full dots stay, "
    "rings leave."
)
_SCORED = "How well the clusters are apart (mean simplified silhouette) for every number of them."
_BASE64 = re.compile(r"[A-Za-z0-9+/]+={0,2}")


@dataclass(frozen=True)
class Cell:
    """Text of a table's cell, and the class it is styled by."""

    text: str
    style: str = ""


@dataclass(frozen=True)
class Part:
    """One section; which of its fields are used, its ``id`` says."""

    id: str
    title: str
    about: str = ""
    lines: Sequence[str] = ()
    picture: Markup | None = None
    head: Sequence[Cell] = ()
    rows: Sequence[Sequence[Cell]] = ()
    key: Markup | None = None
    cards: Sequence[Plain] = ()
    blocks: Sequence[Plain] = ()
    layers: Sequence[Plain] = ()
    images: Sequence[Plain] = ()
    groups: Sequence[tuple[str, Sequence[tuple[str, str]]]] = ()


def number(value: object) -> float | None:
    """A finite number; ``None`` for anything else, which was not measured."""
    good = isinstance(value, int | float) and not isinstance(value, bool) and math.isfinite(value)
    return float(value) if good else None  # type: ignore[arg-type]


def glance(report: Plain) -> Part:
    """Before and after in a few cards."""
    before, after = report["before"], report["after"]
    sizes: tuple[tuple[str, str, str, float], ...] = (
        ("parameters", "params", "{:,.0f}", 1),
        ("file", "file_bytes", "{:.2f} MB", 1e-6),
    )
    sizes += (("operations", "gflops", "{:.2f} GFLOPs", 1), (_timed_in(report), "latency_ms", "{:.1f} ms", 1))
    cards = [_card(what, before.get(name), after.get(name), form, scale) for what, name, form, scale in sizes]
    was, now = (dict(size) | dict(size.get("accuracy") or {}) for size in (before, after))
    sized = {"params", "file_bytes", "gflops", "latency_ms"}
    for name in (name for name in was if name not in sized):
        cards.append(_card(titled(name), was.get(name), now.get(name), "{:.4f}", 1, share=False))
    found = [card for card in cards if card is not None]
    measured = any(
        number(was.get(name)) is not None and number(now.get(name)) is not None for name in was if name not in sized
    )
    return Part("glance", "Before and after", "" if measured else "Accuracy was not measured.", cards=found)


def _timed_in(report: Plain) -> str:
    timed = report.get("timed") or {}
    return f"time in {timed.get('runtime', 'torch')}{', eight bits' if timed.get('bits') == 8 else ''}"


def _card(what: str, before: object, after: object, form: str, scale: float, share: bool = True) -> Plain | None:
    was, now = number(before), number(after)
    if was is None or now is None:
        return None
    change = difference(was, now) if not share else f"{100 * (now / was - 1):+.1f} %" if was else "no share"
    texts = [form.format(value * scale) for value in (was, now)]
    label = f"{what}: {texts[1]} from {texts[0]}"
    return {"what": what, "before": texts[0], "after": texts[1], "change": change, "bar": charts.bar(label, was, now)}


def network(report: Plain) -> Part | None:
    """The network front to back, a card a block."""
    layers = report.get("network") or ()
    if not layers:
        return None
    widest = max(int(layer["before"]) for layer in layers)
    blocks = []
    for name, group in groupby(layers, _block):
        own = [(str(layer["name"]), int(layer["before"]), int(layer["after"])) for layer in group]
        was, now = sum(each[1] for each in own), sum(each[2] for each in own)
        text = f"{was} channels" if was == now else f"{now} of {was} channels"
        blocks.append({"name": name, "text": text, "picture": charts.block(name, own, widest)})
    about = f"{len(layers)} layers, each as wide as the root of its channels; what left is the light part."
    return Part("network", "The network", about, key=charts.key(("now", "stays"), ("was", "left")), blocks=blocks)


def _block(layer: Plain) -> str:
    kind = str(layer.get("block_kind") or "")
    place = layer.get("block")
    return f"{str(layer['name']).split('.')[0] if place is None else place} {kind}".strip()


def _form(layer: Plain) -> str:
    if layer.get("left_out"):
        return "left out with its block"
    return "" if layer.get("rank") is None else f"pair with {layer['rank']} between"


def layers(report: Plain) -> Part | None:
    """Every layer that changed: channels, operations, form."""
    rows = []
    for layer in report.get("network") or ():
        before, after, rank = int(layer["before"]), int(layer["after"]), layer.get("rank")
        was, now = number(layer.get("gflops_before")), number(layer.get("gflops_after"))
        if before == after and rank is None and (was is None or now is None or now > 0.999 * was):
            continue
        operations = (
            ("", "", "")
            if not was or now is None
            else (f"{1e3 * was:.1f}", f"{1e3 * now:.1f}", f"{100 * (now / was - 1):+.1f} %")
        )
        rows.append(
            [
                Cell(str(layer["name"]), "name"),
                Cell(f"{after} / {before}", "number"),
                *(Cell(text, "number") for text in operations),
                Cell(_form(layer), "name"),
            ]
        )
    if not rows:
        return None
    if not any(_form(layer) for layer in report["network"]):
        rows = [row[:-1] for row in rows]
    titles = ("channels stay", "MFLOPs before", "after", "change")
    head = [Cell("layer"), *(Cell(text, "number") for text in titles), Cell("form")][: len(rows[0])]
    return Part("layers", "Layer by layer", "Layers whose channels, inputs or form changed.", head=head, rows=rows)


def steps(report: Plain) -> Part | None:
    """What was decided, front to back; figures of preset activation where there are any."""
    found = [step for step in report["steps"] if step.get("objects") or step.get("status") == "skipped"]
    if not found:
        return None
    rows = []
    for step in found:
        skipped = step.get("status") == "skipped"
        others = ", ".join(name for name in step.get("members") or () if name != step["layer"])
        notes = [f"skipped: {step['reason']}" if skipped else str(step.get("reason") or "")]
        notes += [f"decided together with {others}"] if others else []
        seen = [str(step["objects"]), str(len(step["classes"])), str(step["k"])] if step.get("objects") else [""] * 3
        rows.append(
            [
                Cell(str(step["layer"]), "name"),
                *(Cell(text, "number") for text in seen),
                Cell(f"{step['active_after']} / {step['channels']}", "number"),
                Cell(f"{step['seconds']:.1f}" if step.get("seconds") else "", "number"),
                Cell("; ".join(filter(None, notes)), "why warn" if skipped else "why"),
            ]
        )
    titles = ("objects", "classes", "clusters", "channels stay", "seconds")
    head = [Cell("layer"), *(Cell(text, "number") for text in titles), Cell("")]
    return Part("steps", "Steps, front to back", head=head, rows=rows)


def seen(drawn: Plain, names: Mapping[int, str]) -> Part | None:
    """What preset activation saw of each layer."""
    found = []
    for name, layer in (drawn.get("layers") or {}).items():
        classes = [names.get(kind, f"class {kind}") for kind in layer["classes"]]
        middle = charts.embedding(layer["space"], layer["labels"], layer["medoids"], layer["keep"])
        plots = [{"picture": middle, "caption": _EMBEDDED}]
        if layer["scores"]:
            curve = charts.silhouette(layer["scores"], layer["k"])
            plots.insert(0, {"picture": curve, "caption": _SCORED})
        most = max((value for when in ("before", "after") for row in layer[when] for value in row), default=0.0)
        for when, text in (("before", "all channels"), ("after", "those that stay")):
            label = f"how well {text} tell classes apart"
            caption = (
                f"How well two classes are told apart (Jeffries-Matusita), mean of {text}; darkest {most:.2f} of 2."
            )
            plots.append({"picture": charts.apart(classes, layer[when], most, label), "caption": caption})
        text = f"{len(layer['keep'])} of {len(layer['labels'])} channels stay, one for each of {layer['k']} clusters"
        found.append({"name": name, "text": text, "plots": plots})
    about = "Each layer as it was seen, on the network pruned so far."
    return Part("seen", "What the channels do", about, layers=found) if found else None


def along(report: Plain) -> Part | None:
    """Accuracy step by step, where it was measured between the first and the last."""
    measured = report.get("along") or ()
    name = next(iter(measured[0]["accuracy"]), None) if measured else None
    if name is None:
        return None
    was, now = (dict(size) | dict(size.get("accuracy") or {}) for size in (report["before"], report["after"]))
    end = "fine-tuned" if report["finetune"] else "as it is saved"
    found = [("unpruned", was), *((str(each["what"]), each["accuracy"]) for each in measured), (end, now)]
    points = [(what, value) for what, accuracy in found if (value := number(accuracy.get(name))) is not None]
    about = f"{titled(name)} on the validation images after each step that was measured, the first on top."
    return Part("along", "Accuracy along the steps", about, picture=charts.course(points, "accuracy along the steps"))


def classes(report: Plain) -> Part | None:
    """Accuracy of each class."""
    measured = report.get("classes") or {}
    before, after = measured.get("before") or {}, measured.get("after") or {}
    both = {name: (was, now) for name, value in before.items() if (was := number(value)) is not None
            and (now := number(after.get(name))) is not None}  # fmt: skip
    if not both:
        return None
    ordered = sorted(both.items(), key=lambda each: each[1][1] - each[1][0])
    few = dict(ordered[:MOST_CLASSES])
    about = "mAP50-95 of each class on the validation images, from before (light) to after; those that lost most first."
    if len(few) < len(both):
        about += f" {len(few)} of {len(both)} are drawn."
    return Part("classes", "Class by class", about, picture=charts.dumbbells(few, "accuracy of each class"))


def pictures(drawn: Plain) -> Part | None:
    """The same images before and after."""
    found = []
    for image in drawn.get("pictures") or ():
        jpeg, width, height = str(image["jpeg"]), int(image["width"]), int(image["height"])
        if not _BASE64.fullmatch(jpeg):
            continue
        shown, kinds = {}, sorted({str(row[-1]) for when in ("before", "after") for row in image[when]})
        for when in ("before", "after"):
            label = f"{image['name']} {when}: {len(image[when])} found"
            shown[when] = charts.detections(jpeg, width, height, image[when], kinds, label)
        text = f"{image['name']}: {len(image['before'])} found before, {len(image['after'])} after"
        found.append({**shown, "caption": f"{text}; {len(image['labels'])} labelled" if image["labels"] else text})
    about = "A sample of the validation images: the unpruned network left, the pruned one right."
    return Part("pictures", "What is detected", about, images=found) if found else None


def repairs(report: Plain) -> Part | None:
    """What was repaired and what not, what could not be pruned, and why."""
    lines = []
    for repair in report.get("repairs") or ():
        was, now = number(repair.get("before")), number(repair.get("after"))
        held = (
            "nothing was held out to judge it"
            if was is None or now is None
            else f"held-out loss {was:.2f} to {now:.2f}"
        )
        lines.append(f"Repair {repair['step']} was {'kept' if repair['kept'] else 'left out'}: {held}.")
    for name, images in (("of the training images", "unreadable"), ("of the validation images", "unreadable_val")):
        if left_out := report.get(images):
            lines.append(f"Unreadable images, left out {name}, {len(left_out)}: {', '.join(map(str, left_out))}.")
    pinned = [layer for layer in report.get("network") or () if layer.get("pinned")]
    rows = [[Cell(str(layer["name"]), "name"), Cell(str(layer["pinned"]), "why")] for layer in pinned]
    if not (lines or rows):
        return None
    about = "Layers in the table stay whole, for the reason given." if rows else ""
    return Part("repairs", "Repaired, refused", about, lines, head=[Cell("layer"), Cell("why")], rows=rows)


def made(report: Plain) -> Part:
    """How it can be done again."""
    how = {name: value for name, value in (report.get("made") or {}).items() if value is not None}
    settings = {"preset": report["preset"], "seed": report["seed"], "mode": report["mode"]}
    settings |= {"finetune": report["finetune"], **report["settings"]}
    return grouped([("Run", how), ("Settings", settings), ("Versions", report["versions"])])


def grouped(groups: Sequence[tuple[str, Plain]]) -> Part:
    """The section of what a run was made with: titles, and names with their values."""
    texts = [(name, [(str(key), _text(value)) for key, value in values.items()]) for name, values in groups if values]
    return Part("made", "How it was made", groups=texts)


def _text(value: object) -> str:
    if value is None or value == []:
        return "none"
    return ", ".join(map(str, value)) if isinstance(value, list) else str(value)
