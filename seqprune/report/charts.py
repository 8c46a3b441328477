"""What a page draws, as SVG that loads nothing: colours of the page, a title on every mark."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

from markupsafe import Markup, escape

from seqprune.plain import printable

Point = Sequence[float]
# Okabe and Ito's, which those who see colours otherwise can tell apart; the same on light and dark ground.
COLOURS = ("#0072b2", "#d55e00", "#009e73", "#cc79a7", "#e69f00", "#56b4e9", "#8a6fd1", "#7f7f00")
_WIDTH, _HEIGHT, _LEFT, _BOTTOM, _EDGE = 420, 260, 40, 34, 10


def picture(label: str, width: float, height: float, *parts: str, style: str = "") -> Markup:
    """An SVG of parts that are escaped already."""
    name = escape(printable(label, 300))
    kind = f' class="{style}"' if style else ""
    return Markup(  # noqa: S704 - parts are numbers, and text that was escaped
        f'<svg{kind} viewBox="0 0 {width:g} {height:g}" role="img" aria-label="{name}">{"".join(parts)}</svg>'
    )


def title(text: str) -> str:
    """What is shown where the mouse rests."""
    return f"<title>{escape(printable(text, 300))}</title>"


def words(x: float, y: float, text: str, anchor: str = "start", style: str = "") -> str:
    kind = f' class="{style}"' if style else ""
    return f'<text{kind} x="{x:.1f}" y="{y:.1f}" text-anchor="{anchor}">{escape(printable(text, 80))}</text>'


def swatch(kind: str) -> Markup:
    """What a class of marks looks like, for a key."""
    return Markup(  # noqa: S704 - escaped
        f'<svg viewBox="0 0 1 1" aria-hidden="true"><rect class="{escape(kind)}" width="1" height="1"/></svg>'
    )


def key(*entries: tuple[str, str]) -> Markup:
    """Classes of marks and what they mean."""
    return Markup("").join(Markup("<span>{}{}</span>").format(swatch(kind), text) for kind, text in entries)


def bar(label: str, before: float, after: float) -> Markup:
    """How much of something is left: both bars on one scale, the later one over the earlier one."""
    whole = max(before, after) or 1.0
    return Markup(  # noqa: S704
        f'<svg viewBox="0 0 100 8" preserveAspectRatio="none" role="img" aria-label="{escape(printable(label, 300))}">'
        f'<rect class="was" width="{100 * before / whole:.2f}" height="8"/>'
        f'<rect class="now" width="{100 * after / whole:.2f}" height="8"/></svg>'
    )


def block(name: str, layers: Sequence[tuple[str, int, int]], widest: int) -> Markup:
    """One block of a network: a bar for every layer, as wide as its channels were, filled as far as they stay."""
    step, parts = 7, []
    for row, (layer, before, after) in enumerate(layers):
        was, now = (max(1.0, 100 * (count / widest) ** 0.5) for count in (before, after))
        y = row * step
        parts.append(
            f'<g><rect class="was" x="{50 - was / 2:.2f}" y="{y}" width="{was:.2f}" height="5" rx="1"/>'
            f'<rect class="now" x="{50 - now / 2:.2f}" y="{y}" width="{now:.2f}" height="5" rx="1"/>'
            f"{title(f'{layer}: {after} of {before} channels')}</g>"
        )
    return picture(f"{name}: {len(layers)} layers", 100, max(step * len(layers) - 2, 5), *parts)


def silhouette(scores: Sequence[float], k: int) -> Markup:
    """Mean simplified silhouette over the number of clusters, and the knee where it was cut."""
    ks = [n + 2 for n in range(len(scores))]
    low, high = min(0.0, *scores), max(1.0, *scores)

    def at(count: float, score: float) -> tuple[float, float]:
        x = _LEFT + (count - ks[0]) / max(ks[-1] - ks[0], 1) * (_WIDTH - _LEFT - _EDGE)
        return x, _HEIGHT - _BOTTOM - (score - low) / (high - low) * (_HEIGHT - _BOTTOM - _EDGE)

    parts = []
    for tick in (low, (low + high) / 2, high):
        y = at(ks[0], tick)[1]
        parts += [
            f'<path class="grid" d="M{_LEFT} {y:.1f}H{_WIDTH - _EDGE}"/>',
            words(_LEFT - 6, y + 4, f"{tick:g}", "end"),
        ]
    for count in sorted({ks[0], k, ks[-1]}):
        parts.append(words(at(count, low)[0], _HEIGHT - 14, str(count), "middle"))
    path = "L".join(f"{x:.1f} {y:.1f}" for x, y in (at(n, score) for n, score in zip(ks, scores, strict=True)))
    knee = at(k, low)[0]
    parts += [f'<path class="line" d="M{path}"/>', f'<path class="mark" d="M{knee:.1f} {_HEIGHT - _BOTTOM}V{_EDGE}"/>']
    parts.append(words(knee + 6, _HEIGHT - _BOTTOM - 8, f"knee: {k} clusters"))
    return picture(f"silhouette over clusters, knee at {k}", _WIDTH, _HEIGHT, *parts)


def embedding(space: Sequence[Point], labels: Sequence[int], medoids: Sequence[int], keep: Sequence[int]) -> Markup:
    """Channels as t-SNE lays them out: a line from each to the middle of its cluster, those that stay as large dots."""
    side, stay, parts = 360.0, set(keep), []
    places = [(12 + (side - 24) * x, 12 + (side - 24) * y) for x, y in space]
    for (x, y), label in zip(places, labels, strict=True):
        middle = places[medoids[label]]
        colour = COLOURS[label % len(COLOURS)]
        parts.append(f'<path d="M{x:.1f} {y:.1f}L{middle[0]:.1f} {middle[1]:.1f}" stroke="{colour}" opacity=".6"/>')
    for number, ((x, y), label) in enumerate(zip(places, labels, strict=True)):
        kept = number in stay
        look = "" if kept else 'fill-opacity="0" '
        says = title(f"channel {number}, cluster {label}: {'stays' if kept else 'leaves'}")
        colour = COLOURS[label % len(COLOURS)]
        parts.append(
            f'<circle cx="{x:.1f}" cy="{y:.1f}" r="{4.5 if kept else 2.5}" fill="{colour}" stroke="{colour}" {look}>'
            f"{says}</circle>"
        )
    return picture(f"{len(space)} channels in {len(medoids)} clusters", side, side, *parts)


def apart(names: Sequence[str], matrix: Sequence[Sequence[float]], most: float, label: str) -> Markup:
    """Classes against classes: the darker, the better the channels tell the two apart; ``most`` is the darkest."""
    size, edge = max(12.0, 220 / max(len(names), 1)), 100.0
    parts, whole = [], edge + size * len(names)
    for row, (name, values) in enumerate(zip(names, matrix, strict=True)):
        parts.append(words(edge - 6, edge + size * (row + 0.5) + 4, name[:13], "end"))
        x = edge + size * (row + 0.5) + 4
        parts.append(f'<g transform="rotate(-90 {x:.1f} {edge - 6})">{words(x, edge - 6, name[:13])}</g>')
        for column, value in enumerate(values):
            shade = min(max(value / (most or 1), 0.04), 1)
            if row != column:
                parts.append(
                    f'<rect class="now" x="{edge + size * column:.1f}" y="{edge + size * row:.1f}" '
                    f'width="{size - 1:.1f}" height="{size - 1:.1f}" fill-opacity="{shade:.2f}">'
                    f"{title(f'{name} and {names[column]}: {value:.2f} of 2')}</rect>"
                )
    return picture(label, whole, whole, *parts)


def dumbbells(rows: Mapping[str, tuple[float, float]], label: str) -> Markup:
    """A line a row, from a ring where it was to a dot where it is now; between 0 and 1."""
    left, step, width = 120.0, 20, 420.0
    height = step * len(rows) + 26

    def at(value: float) -> float:
        return left + min(max(value, 0.0), 1.0) * (width - left - _EDGE)

    parts = []
    for tick in (0.0, 0.25, 0.5, 0.75, 1.0):
        parts += [
            f'<path class="grid" d="M{at(tick):.1f} 0V{height - 22}"/>',
            words(at(tick), height - 6, f"{tick:g}", "middle"),
        ]
    for number, (name, (before, after)) in enumerate(rows.items()):
        y = step * number + 12
        says = title(f"{name}: {before:.3f} before, {after:.3f} after")
        parts += [
            words(left - 8, y + 4, name if len(name) < 17 else f"{name[:15]}…", "end"),
            f'<g>{says}<path class="line" d="M{at(before):.1f} {y}H{at(after):.1f}"/>'
            f'<circle cx="{at(before):.1f}" cy="{y}" r="5" class="was"/>'
            f'<circle cx="{at(after):.1f}" cy="{y}" r="4" class="now"/></g>',
        ]
    return picture(label, width, height, *parts)


def course(points: Sequence[tuple[str, float]], label: str) -> Markup:
    """Something measured again and again, the first on top: a row a measurement, with its value."""
    left, step, width, right = 130.0, 26, 420.0, 62.0
    low, high = min(0.0, *(value for _, value in points)), max(value for _, value in points)

    def at(value: float) -> float:
        return left + (value - low) / ((high - low) or 1.0) * (width - left - right)

    places = [(at(value), step * number + 14) for number, (_, value) in enumerate(points)]
    parts = [f'<path class="grid" d="M{at(0.0):.1f} 0V{step * len(points)}"/>']
    parts.append(f'<path class="line" d="M{"L".join(f"{x:.1f} {y}" for x, y in places)}"/>')
    for (name, value), (x, y) in zip(points, places, strict=True):
        parts += [
            words(left - 8, y + 4, name if len(name) < 19 else f"…{name[-17:]}", "end"),
            f'<circle cx="{x:.1f}" cy="{y}" r="4.5" class="now">{title(f"{name}: {value:.4f}")}</circle>',
            words(x + 9, y + 4, f"{value:.4f}", style="value"),
        ]
    return picture(label, width, step * len(points) + 4, *parts)


def detections(
    jpeg: str, width: int, height: int, found: Sequence[Sequence[object]], kinds: Sequence[str], label: str
) -> Markup:
    """An image with boxes in it.

    Args:
        jpeg: base64.
        width, height: of the image in pixels.
        found: ``x1 y1 x2 y2``, confidence and class name of each; of an image that is classified the last two.
        kinds: class names, each of which has a colour.
        label: what it shows.
    """
    image = f'<image href="data:image/jpeg;base64,{escape(jpeg)}" width="{width}" height="{height}"/>'
    parts = [image]
    for row in found:
        name, confidence = str(row[-1]), float(str(row[-2]))
        colour = COLOURS[kinds.index(name) % len(COLOURS)]
        tag = f"{name[:20]} {confidence:.2f}"
        if len(row) == 2:
            parts.append(words(6, height - 8, tag, style="tag"))
            continue
        x1, y1, x2, y2 = (float(str(value)) for value in row[:4])
        parts.append(
            f'<rect class="box" x="{x1:.1f}" y="{y1:.1f}" width="{x2 - x1:.1f}" height="{y2 - y1:.1f}" '
            f'stroke="{colour}">{title(tag)}</rect>'
            f"{_tag(x1 + 2, max(y1 - 3, 11), tag, width)}"
        )
    return picture(label, width, height, *parts)


def _tag(x: float, y: float, text: str, width: float) -> str:
    """Words that begin at ``x``, or end at the edge where they would go beyond it."""
    beyond = x + 7 * len(text) > width
    return words(width - 2 if beyond else x, y, text, "end" if beyond else "start", "tag")
