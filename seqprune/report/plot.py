"""Lines and dots as one page that loads nothing, light and dark."""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping, Sequence

from markupsafe import Markup

from seqprune.plain import on_a_page as escape
from seqprune.report.templating import rendered

Point = tuple[float, float]

_WIDTH, _HEIGHT, _LEFT, _BOTTOM, _EDGE = 560, 320, 56, 44, 12
_HUES = (210, 25, 140, 330, 50, 275, 180, 0)
_DASHES = ("", "6 3", "2 3")


def document(title: str, about: str, *sections: str) -> str:
    """One self-contained HTML page; ``sections`` are HTML already, the rest is escaped."""
    return rendered("base.html", title=title, about=about, sections=[Markup(section) for section in sections])  # noqa: S704


def table(head: Sequence[str], rows: Sequence[Sequence[str]]) -> str:
    """An HTML table, everything escaped."""
    first = "".join(f'<th scope="col">{escape(cell)}</th>' for cell in head)
    body = "\n".join("<tr>" + "".join(f"<td>{escape(cell)}</td>" for cell in row) + "</tr>" for row in rows)
    region = f'<div class="scroll" role="region" aria-label="{escape(head[0])}" tabindex="0">'
    return f'{region}<table class="plain">\n<tr>{first}</tr>\n{body}\n</table></div>'


def key(names: Sequence[str]) -> str:
    """What colour and dash each series has."""
    marks = (
        f'<span><svg class="wide" viewBox="0 0 32 10" aria-hidden="true"><path d="M0 5H32" {_stroke(n)}/></svg> '
        f"{escape(name)}</span>"
        for n, name in enumerate(names)
    )
    return f'<p class="key">{"".join(marks)}</p>'


def lines(
    title: str,
    x_label: str,
    y_label: str,
    series: Mapping[str, Sequence[Point]],
    spans: Sequence[tuple[str, float, float, float]] = (),
) -> str:
    """:func:`curves` under a title."""
    drawn = curves(title, x_label, series, spans)
    return f'<div><h2>{escape(title)}</h2><p class="quiet">{escape(y_label)}</p>{drawn}</div>'


def _numbers(name: str, x: float, y: float) -> str:
    return f"{name}: {x:.4g}, {y:.4g}"


def curves(
    label: str,
    x_label: str,
    series: Mapping[str, Sequence[Point]],
    spans: Sequence[tuple[str, float, float, float]] = (),
    says: Callable[[str, float, float], str] = _numbers,
    zero: bool = True,
) -> str:
    """Series over a number, each point with what it ``says`` where the mouse rests; the same colours as :func:`key`.

    ``spans`` are upright lines: the name of the series, where, from and to. ``zero``: the upright axis begins there.
    """
    points = [p for its in series.values() for p in its]
    x_ticks = _ticks([x for x, _ in points])
    y_ticks = _ticks([*([0.0] if zero else []), *(y for _, y in points), *(high for *_, high in spans)])
    parts = [_grid(x_ticks, y_ticks, x_label)]
    for number, (name, its) in enumerate(series.items()):
        placed = [(_x(x, x_ticks), _y(y, y_ticks), x, y) for x, y in sorted(its)]
        path = "M" + "L".join(f"{x:.1f} {y:.1f}" for x, y, *_ in placed)
        parts.append(f'<path d="{path}" {_stroke(number)}/>' if len(placed) > 1 else "")
        parts += [
            f'<circle cx="{x:.1f}" cy="{y:.1f}" r="3.5" fill="{_colour(number)}">'
            f"<title>{escape(says(name, a, b))}</title></circle>"
            for x, y, a, b in placed
        ]
    names = list(series)
    parts += [
        f'<path class="span" d="M{_x(x, x_ticks):.1f} {_y(low, y_ticks):.1f}V{_y(high, y_ticks):.1f}" '
        f"{_stroke(names.index(name))}><title>{escape(name)}: {low:.4g} to {high:.4g}</title></path>"
        for name, x, low, high in spans
    ]
    return _picture(label, _WIDTH, _HEIGHT, parts)


def dots(x_label: str, rows: Mapping[str, Mapping[str, float]], names: Sequence[str]) -> str:
    """A row for each of ``rows`` with a dot for each of its named values, in the colours of :func:`key`."""
    ticks = _ticks([0.0, *(value for values in rows.values() for value in values.values())])
    left, step, width = 190, 20, _WIDTH + 200
    height = step * len(rows) + 40

    def at(value: float) -> float:
        return left + (value - ticks[0]) / (ticks[-1] - ticks[0]) * (width - left - _EDGE)

    parts = []
    for tick in ticks:
        x = at(tick)
        parts.append(f'<path class="grid" d="M{x:.1f} 4V{height - 36}"/>')
        parts.append(f'<text x="{x:.1f}" y="{height - 20}" text-anchor="middle">{tick:g}</text>')
    for number, (row, values) in enumerate(rows.items()):
        y = step * number + 14
        short = row if len(row) < 27 else f"…{row[-25:]}"  # the ends of paths tell them apart
        parts.append(f'<text x="{left - 12}" y="{y + 4}" text-anchor="end">{escape(short)}</text>')
        parts += [
            f'<circle cx="{at(value):.1f}" cy="{y}" r="4.5" fill="{_colour(names.index(name))}">'
            f"<title>{escape(row)}, {escape(name)}: {value:.4f}</title></circle>"
            for name, value in values.items()
        ]
    parts.append(f'<text x="{width - _EDGE}" y="{height - 4}" text-anchor="end">{escape(x_label)}</text>')
    return _picture(x_label, width, height, parts)


def _picture(label: str, width: int, height: int, parts: Sequence[str]) -> str:
    """A drawing that is moved sideways where it would be too small to be read."""
    named = f'role="img" aria-label="{escape(label)}"'
    drawn = f'<svg class="roomy" viewBox="0 0 {width} {height}" {named}>{"".join(parts)}</svg>'
    return f'<div class="scroll" role="region" aria-label="{escape(label)}" tabindex="0">{drawn}</div>'


def _colour(number: int) -> str:
    return f"hsl({_HUES[number % len(_HUES)]} 65% var(--tone))"


def _stroke(number: int) -> str:
    dash = _DASHES[number % len(_DASHES)]  # lines differ by more than their colour
    return f'fill="none" stroke-width="2" stroke="{_colour(number)}" stroke-dasharray="{dash}"'


def _grid(x_ticks: Sequence[float], y_ticks: Sequence[float], x_label: str) -> str:
    parts = []
    for tick in y_ticks:
        y = _y(tick, y_ticks)
        parts.append(f'<path class="grid" d="M{_LEFT} {y:.1f}H{_WIDTH - _EDGE}"/>')
        parts.append(f'<text x="{_LEFT - 8}" y="{y + 4:.1f}" text-anchor="end">{tick:g}</text>')
    for tick in x_ticks:
        x = _x(tick, x_ticks)
        parts.append(f'<text x="{x:.1f}" y="{_HEIGHT - _BOTTOM + 18}" text-anchor="middle">{tick:g}</text>')
    parts.append(f'<text x="{_WIDTH - _EDGE}" y="{_HEIGHT - 6}" text-anchor="end">{escape(x_label)}</text>')
    return "".join(parts)


def _ticks(values: Sequence[float], count: int = 5) -> list[float]:
    """Round numbers, at least two, from below the least to above the greatest of ``values``."""
    least, most = min(values, default=0.0), max(values, default=1.0)
    if most <= least:
        most = least + (abs(least) or 1.0)
    power = 10.0 ** math.floor(math.log10((most - least) / count))
    step = next(power * factor for factor in (1, 2, 5, 10) if power * factor * count >= most - least)
    first, last = math.floor(least / step), math.ceil(most / step)
    return [round(n * step, 12) for n in range(first, last + 1)]


def _x(value: float, ticks: Sequence[float]) -> float:
    return _LEFT + (value - ticks[0]) / (ticks[-1] - ticks[0]) * (_WIDTH - _LEFT - _EDGE)


def _y(value: float, ticks: Sequence[float]) -> float:
    return _HEIGHT - _BOTTOM - (value - ticks[0]) / (ticks[-1] - ticks[0]) * (_HEIGHT - _BOTTOM - _EDGE)
