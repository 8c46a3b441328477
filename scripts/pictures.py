"""Pictures of ``docs/pictures``: the way of the data, and a layer of the demo's detector as preset activation sees it.

``python scripts/pictures.py RUN docs/pictures``, where RUN is what ``seqprune demo --keep-files RUN`` wrote.
"""

from __future__ import annotations

import json
import sys
from pathlib import Path

from markupsafe import escape

from seqprune.report import charts

_STYLE = (
    "<style>svg{background:#fff}text{fill:#444;font:12px system-ui,sans-serif}.grid{stroke:#d9dde1;fill:none}"
    ".line{fill:none;stroke:#0b6aa8;stroke-width:2}.mark{fill:none;stroke:#b45309;stroke-width:2;stroke-dasharray:5 3}"
    ".box{fill:#eef3f7;stroke:#0b6aa8}.arrow{stroke:#5c646d;fill:none}</style>"
)
STAGES = (
    ("trace", "where channels go"),
    ("look", "what they do"),
    ("choose", "what stays"),
    ("take out", "mask, compact"),
    ("repair", "fit the rest"),
    ("prove", "compact = masked"),
    ("measure", "where it runs"),
)


def alone(svg: str) -> str:
    """An SVG as a file of its own."""
    head, _, rest = str(svg).partition(">")  # of Markup each piece would be escaped
    named = head.replace("<svg", '<svg xmlns="http://www.w3.org/2000/svg"', 1)
    return f"{named}>{_STYLE}{rest}\n"


def pipeline() -> str:
    """The stages from left to right."""
    wide, high, gap, parts = 130, 56, 22, []
    for number, (name, about) in enumerate(STAGES):
        x = 4 + number * (wide + gap)
        parts.append(f'<rect class="box" x="{x}" y="6" width="{wide}" height="{high}" rx="6"/>')
        parts.append(f'<text x="{x + wide / 2}" y="30" text-anchor="middle" font-weight="600">{escape(name)}</text>')
        parts.append(f'<text x="{x + wide / 2}" y="48" text-anchor="middle">{escape(about)}</text>')
        if number:
            parts.append(f'<path class="arrow" d="M{x - gap + 2} 34h{gap - 6}m-5-4l5 4l-5 4"/>')
    return charts.picture("stages of a run", len(STAGES) * (wide + gap), high + 12, *parts)


def main(run: Path, out: Path) -> None:
    layers = json.loads((run / "drawn.json").read_text(encoding="utf-8"))["layers"]
    layer = max(layers.values(), key=lambda each: len(each["labels"]))
    found = {
        "pipeline": pipeline(),
        "silhouette": charts.silhouette(layer["scores"], layer["k"]),
        "embedding": charts.embedding(layer["space"], layer["labels"], layer["medoids"], layer["keep"]),
    }
    for name, svg in found.items():
        (out / f"{name}.svg").write_text(alone(svg), encoding="utf-8")


if __name__ == "__main__":
    main(Path(sys.argv[1]), Path(sys.argv[2]))
