"""Small charts as SVG text, to be set into a page.

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

Point = tuple[float, float]

WIDTH, HEIGHT = 360, 270  # of the drawing, in its own units; the page scales it
LEFT, RIGHT, TOP, BOTTOM = 52, 20, 52, 44  # room around the plot for ticks, heading, legend and labels
LEGEND = 36  # how far down the legend's text stands
MARKED_POINTS = 40  # a line of no more points than these shows each of them


@dataclass(frozen=True)
class Frame:
    """Where values stand in the drawing: each range is (low, high), low < high."""

    across: Point
    up: Point
    width: float = WIDTH

    def x(self, value: float) -> float:
        """How far from the left a value stands."""
        low, high = self.across
        return round(LEFT + (value - low) / (high - low) * (self.width - LEFT - RIGHT), 2)

    def y(self, value: float) -> float:
        """How far from the top."""
        low, high = self.up
        return round(HEIGHT - BOTTOM - (value - low) / (high - low) * (HEIGHT - TOP - BOTTOM), 2)


def lines(title: str, series: Mapping[str, Sequence[Point]], x_label: str, unit: str = "") -> str:
    """Lines over a common axis, with a legend.

    Args:
        title: what the chart shows; stands above the plot.
        series: name -> (x, y) in the order of x; points that are not finite are left out.
        x_label: what runs along the horizontal axis.
        unit: ``%`` to show shares of 1 as percentages.
    """
    finite = {
        name: [point for point in points if all(map(math.isfinite, point))] for name, points in series.items()
    }
    points = [point for some in finite.values() for point in some]
    x_ticks, y_ticks = round_numbers([x for x, _ in points]), round_numbers([y for _, y in points])
    # round numbers around the values upwards, but no empty end along the steps of a training
    first, last = min((x for x, _ in points), default=0.0), max((x for x, _ in points), default=0.0)
    across = (first, last) if first < last else (x_ticks[0], x_ticks[-1])
    frame = Frame(across, (y_ticks[0], y_ticks[-1]))
    x_ticks = [tick for tick in x_ticks if across[0] <= tick <= across[1]]
    parts = [*heading(title), *grid(frame, y_ticks, unit), *x_axis(frame, x_ticks, x_label)]
    place = LEFT
    for index, (name, some) in enumerate(finite.items()):
        parts.append(f'<path class="line series-{index}" d="M{place} {LEGEND - 4}h24"/>')
        parts += _line([(frame.x(x), frame.y(y)) for x, y in some], index)
        parts.append(f'<text x="{place + 30}" y="{LEGEND}">{escape(name)}</text>')
        place += 52 + 7 * len(name)
    return svg(title, parts)


def bars(title: str, counts: Sequence[int], edges: Sequence[float], x_label: str, kind: int) -> str:
    """A histogram.

    Args:
        title: what the chart shows; stands above the plot.
        counts: the height of each bar.
        edges: where bars begin and end, one more than there are bars; shares of 1.
        x_label: what runs along the horizontal axis.
        kind: which series the bars are painted as.
    """
    y_ticks = round_numbers([0, 4, *counts])
    frame = Frame((edges[0], edges[-1]), (0, y_ticks[-1]))
    parts = [*heading(title), *grid(frame, y_ticks)]
    for count, low, high in zip(counts, edges, edges[1:], strict=False):
        parts.append(
            f'<rect class="bar series-{kind}" {_box(frame, low, high, 0, count)}>'
            f"<title>{low:.1%} to {high:.1%}: {count:,} rows</title></rect>"
        )
    parts += x_axis(frame, edges[:: max(1, len(counts) // 5)], x_label, "%")
    return svg(title, parts)


def reliability(title: str, bins: Sequence[Mapping[str, Any]]) -> str:
    """Accuracy over confidence: a bar a bin, the gap to the bin's mean confidence, and the ideal diagonal.

    Args:
        title: what the chart shows; stands above the plot.
        bins: ``calibration`` of ``metrics.report``; bins without rows are left out.
    """
    frame = Frame((0.0, 1.0), (0.0, 1.0))
    ticks = [0.0, 0.2, 0.4, 0.6, 0.8, 1.0]
    parts = [*heading(title), *grid(frame, ticks, "%")]
    for found in bins:
        low, high, confidence, accuracy = (found[key] for key in ("from", "to", "confidence", "accuracy"))
        if not found["rows"] or not math.isfinite(confidence):
            continue
        said = (
            f"confidence {low:.1%} to {high:.1%}: {found['rows']:,} rows, "
            f"mean confidence {confidence:.1%}, accuracy {accuracy:.1%}"
        )
        parts.append(
            f"<g><title>{said}</title>"
            f'<rect class="bar series-0" {_box(frame, low, high, 0, accuracy)}/>'
            f'<rect class="gap" {_box(frame, low, high, *sorted((confidence, accuracy)))}/></g>'
        )
    parts.append(f'<path class="ideal" d="M{frame.x(0)} {frame.y(0)}L{frame.x(1)} {frame.y(1)}"/>')
    for place, paint, name in ((0, "bar series-0", "accuracy"), (80, "gap", "gap to confidence")):
        parts.append(f'<rect class="{paint}" x="{LEFT + place}" y="{LEGEND - 10}" width="12" height="11"/>')
        parts.append(f'<text x="{LEFT + place + 18}" y="{LEGEND}">{name}</text>')
    parts.append(f'<path class="ideal" d="M{LEFT + 212} {LEGEND - 4}h24"/>')
    parts.append(f'<text x="{LEFT + 242}" y="{LEGEND}">ideal</text>')
    parts += x_axis(frame, ticks, "confidence", "%")
    return svg(title, parts)


def meter(share: float) -> str:
    """A bar of at most its cell's width, beside a figure that says the same; hidden from screen readers."""
    return (
        '<svg class="meter" aria-hidden="true" viewBox="0 0 100 6" preserveAspectRatio="none">'
        f'<rect class="rail" width="100" height="6"/><rect class="bar series-0" width="{100 * share:.1f}" '
        'height="6"/></svg>'
    )


def svg(title: str, parts: Iterable[str], width: float = WIDTH, height: float = HEIGHT) -> str:
    """The drawing that the parts make."""
    return (
        f'<svg class="chart" role="img" xmlns="http://www.w3.org/2000/svg" viewBox="0 0 {width} {height}">'
        f"<title>{escape(title)}</title>{''.join(parts)}</svg>"
    )


def heading(title: str) -> list[str]:
    """What stands above a plot."""
    return [f'<text class="heading" x="{LEFT}" y="14">{escape(title)}</text>']


def _line(drawn: Sequence[Point], index: int) -> list[str]:
    parts = []
    if len(drawn) > 1:
        path = "L".join(f"{x} {y}" for x, y in drawn)
        parts.append(f'<path class="line series-{index}" d="M{path}"/>')
    if len(drawn) <= MARKED_POINTS:
        parts += [f'<circle class="dot series-{index}" cx="{x}" cy="{y}" r="3.5"/>' for x, y in drawn]
    return parts


def grid(frame: Frame, ticks: Sequence[float], unit: str = "") -> list[str]:
    """Lines across the plot, each with its value on the left."""
    parts = []
    for tick in ticks:
        y = frame.y(tick)
        parts.append(f'<path class="grid" d="M{LEFT} {y}H{frame.width - RIGHT}"/>')
        parts.append(f'<text class="end" x="{LEFT - 6}" y="{y + 4:.4g}">{tick_label(tick, unit)}</text>')
    return parts


def x_axis(frame: Frame, ticks: Sequence[float], label: str, unit: str = "") -> list[str]:
    """The line below a plot, with its values and what they are."""
    bottom = HEIGHT - BOTTOM
    parts = [f'<path class="axis" d="M{LEFT} {bottom}H{frame.width - RIGHT}"/>']
    for tick in ticks:
        x = frame.x(tick)
        parts.append(f'<path class="axis" d="M{x} {bottom}v4"/>')
        parts.append(f'<text class="middle" x="{x}" y="{bottom + 17}">{tick_label(tick, unit)}</text>')
    middle = (LEFT + frame.width - RIGHT) / 2
    parts.append(f'<text class="middle label" x="{middle}" y="{HEIGHT - 6}">{escape(label)}</text>')
    return parts


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


def tick_label(value: float, unit: str = "") -> str:
    """A value as an axis shows it."""
    if unit == "%":
        return f"{100 * value:.4g}%"
    return f"{value:,.0f}" if abs(value) >= 1000 else f"{value:.4g}"
