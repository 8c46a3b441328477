"""Small drawings as inline SVG, coloured by the page they stand on.

Both axes of size are logarithmic: twice as long is the same step everywhere, and what floors and predecessors are apart
fits on one line.
"""

from __future__ import annotations

import math
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from html import escape
from typing import Literal

WIDTH, HEIGHT, PAD = 200, 46, 6
CROWDED = 40
"""Beyond so many points only the last one and the marked ones are drawn."""

Mark = Literal["", "worse", "better"]


@dataclass(frozen=True)
class Dot:
    """A point of a line: ``place`` from 0, a value above 0, whether it is marked, and its noise, relative."""

    place: int
    value: float
    text: str
    mark: Mark = ""
    spread: float = 0.0


@dataclass(frozen=True)
class Line:
    """Points that may be joined, and the shape they have: lines of different shapes cannot be compared."""

    dots: tuple[Dot, ...]
    shape: Literal["main", "other"] = "main"


def number(value: float) -> str:
    """Three figures, without the exponent where that stays short."""
    if value == 0:
        return "0"
    if not 1e-4 <= abs(value) < 1e5:
        mantissa, exponent = f"{value:.1e}".split("e")
        return f"{mantissa}e{int(exponent)}"
    if abs(value) >= 999.5:
        return f"{float(f'{value:.3g}'):,.0f}"
    digits = max(0, 2 - math.floor(math.log10(abs(value))))
    text = f"{value:.{digits}f}"
    return text.rstrip("0").rstrip(".") if "." in text else text


def seconds(value: float) -> str:
    """A time in the unit people would say it in."""
    if value >= 120:
        return f"{number(value / 60)} min"
    for unit, size in (("s", 1.0), ("ms", 1e-3), ("µs", 1e-6)):
        if value >= size * 0.9995:
            return f"{number(value / size)} {unit}"
    return f"{number(value / 1e-9)} ns"


def over_commits(lines: Sequence[Line], places: int, title: str, *, one: bool = False) -> str:
    """Lines over commits, the latest at the right; nothing where there is one commit only.

    The axis spans at least a factor of two, so that noise looks as small as it is. ``one`` draws the line where both
    sides of a ratio are equal, if that is in sight.
    """
    if places < 2:
        return ""
    values = [value for line in lines for dot in line.dots for value in _reach(dot)]
    low, high = _span(values)
    drawn = [f'<path class="decade" d="M0 {HEIGHT - 0.5}H{WIDTH}"/>']
    if one and low < 1 < high:
        drawn.append(f'<path class="one" d="M0 {_y(1.0, low, high)}H{WIDTH}"/>')
    total = sum(len(line.dots) for line in lines)
    last = max((dot.place for line in lines for dot in line.dots), default=0)
    for line in lines:
        band = [(_x(dot.place, places), *(_y(value, low, high) for value in _reach(dot))) for dot in line.dots]
        if len(band) > 1 and any(top != bottom for _, top, bottom in band):
            edge = [f"{x} {top}" for x, top, _ in band] + [f"{x} {bottom}" for x, _, bottom in reversed(band)]
            drawn.append(f'<path class="band" d="M{" ".join(edge)}Z"/>')
    for line in sorted(lines, key=lambda each: each.shape == "main"):
        at = [(_x(dot.place, places), _y(dot.value, low, high)) for dot in line.dots]
        if len(at) > 1:
            drawn.append(f'<path class="line {line.shape}" d="M{" ".join(f"{x} {y}" for x, y in at)}"/>')
        for dot, (x, y) in zip(line.dots, at, strict=True):
            if total <= CROWDED or dot.mark or dot.place == last:
                drawn.append(_dot(dot, x, y, line.shape, dot.place == last))
    return _svg(WIDTH, HEIGHT, title, "".join(drawn), "chart")


def _reach(dot: Dot) -> tuple[float, float]:
    """The ends of the band around a point, the greater first."""
    return dot.value * (1 + dot.spread), dot.value / (1 + dot.spread)


def side_by_side(ours: float, beside: Mapping[str, float], span: tuple[float, float], title: str) -> str:
    """Ours and what it was held against on one axis of time, marked by shape."""
    low, high = span
    steps = range(math.ceil(math.log10(low) - 1e-9), math.floor(math.log10(high) + 1e-9) + 1)
    drawn = [f'<path class="decade" d="M{_along(10.0**step, low, high)} 4V32"/>' for step in steps]
    everything = [ours, *beside.values()]
    start, end = (_along(value, low, high) for value in (min(everything), max(everything)))
    drawn.append(f'<path class="reach" d="M{start} 18H{end}"/>')
    for name, value in sorted(beside.items()):
        x = _along(value, low, high)
        shape = _SHAPES.get(name, _SHAPES["predecessor"]).format(x=x, left=_round(x - 5), right=_round(x + 5))
        drawn.append(f'<g class="mark {escape(name)}"><title>{escape(name)}: {seconds(value)}</title>{shape}</g>')
    drawn.append(
        f'<circle class="now" cx="{_along(ours, low, high)}" cy="18" r="5"><title>{seconds(ours)}</title></circle>'
    )
    labels = [steps[0], steps[-1]] if len(steps) > 1 else list(steps)
    for step in labels:
        x = _along(10.0**step, low, high)
        drawn.append(f'<text x="{x}" y="44" text-anchor="middle">{seconds(10.0**step)}</text>')
    return _svg(WIDTH, HEIGHT, title, "".join(drawn), "chart beside")


_SHAPES = {
    "floor": '<path d="M{x} 9V27"/>',
    "predecessor": '<path d="M{left} 18L{x} 13 {right} 18 {x} 23Z"/>',
    "unpruned": '<path d="M{left} 13H{right}V23H{left}Z"/>',
}


def key(name: str) -> str:
    """A mark of `side_by_side` as it stands in the explanation."""
    shape = '<circle class="now" cx="8" cy="18" r="5"/>'
    if name in _SHAPES:
        shape = f'<g class="mark {name}">{_SHAPES[name].format(x=8, left=3, right=13)}</g>'
    return f'<svg class="sign" viewBox="0 9 16 18" aria-hidden="true">{shape}</svg>'


def decades(values: Iterable[float]) -> tuple[float, float]:
    """Powers of ten around all values: the axis that a group of benchmarks shares."""
    values = tuple(values)
    low, high = math.floor(math.log10(min(values))), math.ceil(math.log10(max(values)))
    return 10.0**low, 10.0 ** max(high, low + 1)


def _dot(dot: Dot, x: float, y: float, shape: str, last: bool) -> str:
    title = f"<title>{escape(dot.text)}</title>"
    if dot.mark == "worse":
        return f'<path class="worse" d="M{_round(x - 5)} {_round(y + 4)}h10l-5 -9z">{title}</path>'
    if dot.mark == "better":
        return f'<path class="better" d="M{_round(x - 5)} {_round(y - 4)}h10l-5 9z">{title}</path>'
    if shape == "other":
        return f'<path class="point other" d="M{_round(x - 2.5)} {_round(y - 2.5)}h5v5h-5z">{title}</path>'
    return f'<circle class="point{" last" if last else ""}" cx="{x}" cy="{y}" r="{4 if last else 2.2}">{title}</circle>'


def _svg(width: int, height: int, title: str, content: str, style: str) -> str:
    text = escape(title)
    return f'<svg class="{style}" viewBox="0 0 {width} {height}" role="img" aria-label="{text}">{content}</svg>'


def _span(values: Sequence[float]) -> tuple[float, float]:
    low, high = min(values), max(values)
    widen = max(1.0, math.sqrt(2 * low / high)) * 1.05
    return low / widen, high * widen


def _x(place: int, places: int) -> float:
    return _round(PAD + (WIDTH - 2 * PAD) * place / (places - 1))


def _y(value: float, low: float, high: float) -> float:
    return _round(HEIGHT - PAD - (HEIGHT - 2 * PAD) * (math.log(value / low) / math.log(high / low)))


def _along(value: float, low: float, high: float) -> float:
    return _round(18 + (WIDTH - 36) * (math.log(value / low) / math.log(high / low)))


def _round(value: float) -> float:
    found = round(value, 1)
    return int(found) if found == int(found) else found
