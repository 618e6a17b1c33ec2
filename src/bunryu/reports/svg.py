"""Small charts as SVG, to be set into a page.

They carry classes instead of colours, so that the page's own style paints them, in light and in dark:
``axis`` and ``grid`` for lines, ``series-0``, ``series-1`` … for what is drawn. Every chart has a title
for those who cannot see it, and what stands in it is escaped.
"""

from __future__ import annotations

import math
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from html import escape
from typing import Any

from markupsafe import Markup

Point = tuple[float, float]

WIDTH, HEIGHT = 360, 270  # of the drawing, in its own units; the page scales it
LEFT, RIGHT, TOP, BOTTOM = 52, 20, 52, 44  # room around the plot for ticks, heading, legend and labels
LEGEND_Y = 36


@dataclass(frozen=True)
class Frame:
    """The plot inside the drawing: where values stand in it; across and up are its axes' (low, high)."""

    across: Point
    up: Point
    left: float = LEFT
    right: float = RIGHT
    top: float = TOP

    def x(self, value: float) -> float:
        low, high = self.across
        return round(self.left + (value - low) / (high - low) * (WIDTH - self.left - self.right), 2)

    def y(self, value: float) -> float:
        low, high = self.up
        return round(HEIGHT - BOTTOM - (value - low) / (high - low) * (HEIGHT - self.top - BOTTOM), 2)


def lines(title: str, series: Mapping[str, Sequence[Point]], x_label: str, unit: str = "") -> Markup:
    """Lines over a common axis, with a legend.

    Series are name -> (x, y) in the order of x, of which points that are not finite are left out; unit is
    ``%`` to show y, shares of 1, as percentages.
    """
    finite = {name: [each for each in some if all(map(math.isfinite, each))] for name, some in series.items()}
    points = [point for some in finite.values() for point in some]
    x_ticks, y_ticks = round_numbers([x for x, _ in points]), round_numbers([y for _, y in points])
    # the vertical axis ends at round numbers, the horizontal one where the training ends
    first, last = min((x for x, _ in points), default=0.0), max((x for x, _ in points), default=0.0)
    across = (first, last) if first < last else (x_ticks[0], x_ticks[-1])
    frame = Frame(across, (y_ticks[0], y_ticks[-1]))
    inside = labelled(tick for tick in x_ticks if across[0] <= tick <= across[1])
    parts = [heading(title), *grid(frame, labelled(y_ticks, unit)), *x_axis(frame, inside, x_label)]
    left = LEFT
    for index, (name, some) in enumerate(finite.items()):
        style, drawn = f"series-{index}", [(frame.x(x), frame.y(y)) for x, y in some]
        parts.append(path(f"line {style}", f"M{left} {LEGEND_Y - 4}h24"))
        if len(drawn) > 1:
            parts.append(line(style, [f"{x} {y}" for x, y in drawn]))
        if len(drawn) <= 40:  # more would hide the line
            parts += [dot(style, x, y) for x, y in drawn]
        parts.append(text("", left + 30, LEGEND_Y, name))
        left += 52 + 7 * len(name)
    return drawing(title, parts)


def bars(title: str, counts: Sequence[int], edges: Sequence[float], x_label: str, kind: int) -> Markup:
    """A histogram in the colour of series ``kind``; edges, shares of 1, are one more than counts."""
    y_ticks = round_numbers([0, 4, *counts])
    frame = Frame((edges[0], edges[-1]), (0, y_ticks[-1]))
    parts = [heading(title), *grid(frame, labelled(y_ticks))]
    for count, low, high in zip(counts, edges, edges[1:], strict=False):
        parts.append(
            f'<rect class="bar series-{kind}" {_box(frame, low, high, 0, count)}>'
            f"<title>{low:.1%} to {high:.1%}: {count:,} rows</title></rect>"
        )
    x_ticks = labelled(edges[:: max(1, len(counts) // 5)], "%")
    return drawing(title, [*parts, *x_axis(frame, x_ticks, x_label)])


def reliability(title: str, bins: Sequence[Mapping[str, Any]]) -> Markup:
    """Accuracy over confidence: a bar a bin, the gap to the bin's mean confidence, and the ideal diagonal.

    Bins are the ``calibration`` of ``metrics.report``; those without rows are left out.
    """
    frame = Frame((0.0, 1.0), (0.0, 1.0))
    ticks = labelled([0.0, 0.2, 0.4, 0.6, 0.8, 1.0], "%")
    parts = [heading(title), *grid(frame, ticks)]
    for found in bins:
        low, high, confidence, accuracy = (found[key] for key in ("from", "to", "confidence", "accuracy"))
        if not found["rows"] or not math.isfinite(confidence):
            continue
        parts.append(
            f"<g><title>confidence {low:.1%} to {high:.1%}: {found['rows']:,} rows, "
            f"mean confidence {confidence:.1%}, accuracy {accuracy:.1%}</title>"
            f'<rect class="bar series-0" {_box(frame, low, high, 0, accuracy)}/>'
            f'<rect class="gap" {_box(frame, low, high, *sorted((confidence, accuracy)))}/></g>'
        )
    parts.append(path("ideal", f"M{frame.x(0)} {frame.y(0)}L{frame.x(1)} {frame.y(1)}"))
    for left, style, name in ((LEFT, "bar series-0", "accuracy"), (LEFT + 80, "gap", "gap to confidence")):
        parts.append(f'<rect class="{style}" x="{left}" y="{LEGEND_Y - 10}" width="12" height="11"/>')
        parts.append(text("", left + 18, LEGEND_Y, name))
    parts += [path("ideal", f"M{LEFT + 212} {LEGEND_Y - 4}h24"), text("", LEFT + 242, LEGEND_Y, "ideal")]
    return drawing(title, [*parts, *x_axis(frame, ticks, "confidence")])


def meter(share: float) -> Markup:
    """A bar of at most its cell's width, beside a figure that says the same; hidden from screen readers."""
    return Markup(
        '<svg class="meter" aria-hidden="true" viewBox="0 0 100 6" preserveAspectRatio="none">'
        f'<rect class="rail" width="100" height="6"/><rect class="bar series-0" width="{100 * share:.1f}" '
        'height="6"/></svg>'
    )


def drawing(title: str, parts: Iterable[str], width: float = WIDTH) -> Markup:
    """The whole drawing, which a template need not escape any more."""
    return Markup(
        f'<svg class="chart" role="img" xmlns="http://www.w3.org/2000/svg" viewBox="0 0 {width} {HEIGHT}">'
        f"<title>{escape(title)}</title>{''.join(parts)}</svg>"
    )


def heading(title: str) -> str:
    return text("heading", LEFT, 14, title)


def text(style: str, x: float | str, y: float | str, words: str) -> str:
    named = f' class="{style}"' if style else ""
    return f'<text{named} x="{x}" y="{y}">{escape(words)}</text>'


def path(style: str, d: str) -> str:
    return f'<path class="{style}" d="{d}"/>'


def line(style: str, points: Iterable[str]) -> str:
    """A line through points, each written as "x y"."""
    return path(f"line {style}", f"M{'L'.join(points)}")


def dot(style: str, x: float | str, y: float | str, radius: float = 3.5, note: str = "") -> str:
    """A dot, with a note that shows when the mouse rests on it."""
    start = f'<circle class="dot {style}" cx="{x}" cy="{y}" r="{radius}"'
    return f"{start}><title>{escape(note)}</title></circle>" if note else f"{start}/>"


def grid(frame: Frame, ticks: Iterable[tuple[float, str]]) -> list[str]:
    """Lines across the plot, each with its label on the left."""
    parts = []
    for tick, label in ticks:
        y = frame.y(tick)
        parts.append(path("grid", f"M{LEFT} {y}H{WIDTH - RIGHT}"))
        parts.append(text("end", LEFT - 6, f"{y + 4:.4g}", label))
    return parts


def x_axis(frame: Frame, ticks: Iterable[tuple[float, str]], label: str) -> list[str]:
    """The line below a plot, with its values and what they are."""
    bottom = HEIGHT - BOTTOM
    parts = [path("axis", f"M{LEFT} {bottom}H{WIDTH - RIGHT}")]
    for tick, name in ticks:
        x = frame.x(tick)
        parts.append(path("axis", f"M{x} {bottom}v4"))
        parts.append(text("middle", x, bottom + 17, name))
    parts.append(text("middle label", (LEFT + WIDTH - RIGHT) / 2, HEIGHT - 6, label))
    return parts


def labelled(ticks: Iterable[float], unit: str = "") -> list[tuple[float, str]]:
    """Each value with the text that an axis shows for it."""
    if unit == "%":
        return [(tick, f"{100 * tick:.4g}%") for tick in ticks]
    return [(tick, f"{tick:,.0f}" if abs(tick) >= 1000 else f"{tick:.4g}") for tick in ticks]


def _box(frame: Frame, left: float, right: float, bottom: float, top: float) -> str:
    """A rectangle's place, with a little air between it and its neighbours."""
    x, y = frame.x(left), frame.y(top)
    width, height = max(frame.x(right) - x - 1.5, 0.5), frame.y(bottom) - y
    return f'x="{x + 0.75:.2f}" y="{y}" width="{width:.2f}" height="{height:.2f}"'


def round_numbers(values: Sequence[float]) -> list[float]:
    """About five round numbers that enclose the values, at least two."""
    low, high = (min(values), max(values)) if values else (0.0, 1.0)
    if high - low <= 1e-9 * max(abs(low), abs(high)):  # one value, or rounding apart from it
        low, high = low - (abs(low) / 2 or 0.5), high + (abs(high) / 2 or 0.5)
    rough = (high - low) / 4
    power = 10.0 ** math.floor(math.log10(rough))
    step = next(power * factor for factor in (1, 2, 5, 10) if power * factor >= rough * 0.999)
    first, last = math.floor(low / step + 1e-9), math.ceil(high / step - 1e-9)
    return [index * step for index in range(first, last + 1)]
