"""A report's charts as SVG text: a metric over a key, many runs' curves, parallel coordinates, heat maps."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from html import escape
from typing import Any

from bunryu.reports.axes import MOST_LABELS, Axis, bounds, clamped, ordered, shortened
from bunryu.reports.comparison import shown
from bunryu.reports.svg import (
    BOTTOM,
    HEIGHT,
    LEFT,
    WIDTH,
    Frame,
    Point,
    grid,
    heading,
    round_numbers,
    svg,
    tick_label,
    x_axis,
)

WIDE = 2.9 * WIDTH  # of parallel coordinates
PAINTS = 5  # from the best fifth of the runs to the worst
LEVELS = 20  # of a heat map's cells
MARGIN = 0.07  # of an axis' length, at its ends
SPREAD = 0.06  # of an axis' height, over which runs of one value are laid side by side


def over_key(
    title: str, key: str, values: Sequence[Any], scores: Sequence[float], best_low: bool
) -> str:  # fmt: skip
    """A dot for every run, and the means at each value where there are few.

    Args:
        title: what stands above the plot.
        key: what runs along the horizontal axis.
        values: each run's value of the key.
        scores: each run's metric.
        best_low: whether a lower score is better.
    """
    axis, (low, high) = Axis.of(values), bounds(scores, best_low)
    ticks = round_numbers([low, high])
    frame = Frame((-MARGIN, 1 + MARGIN), (ticks[0], ticks[-1]))
    parts = [*heading(title), *grid(frame, ticks), *_named_axis(frame, axis, key)]
    by_value: dict[str, list[float]] = {}
    for value, score in zip(values, scores, strict=True):
        by_value.setdefault(repr(value), []).append(score)
        off = " off" if not ticks[0] <= score <= ticks[-1] else ""
        parts.append(
            f'<circle class="dot series-0 faint{off}" cx="{frame.x(axis.place(value))}" '
            f'cy="{frame.y(clamped(score, ticks))}" r="3.5">'
            f"<title>{escape(shown(value))}: {score:.4g}</title></circle>"
        )
    if len(by_value) <= MOST_LABELS:
        means = sorted((axis.places[name], sum(some) / len(some)) for name, some in by_value.items())
        path = "L".join(f"{frame.x(x)} {frame.y(clamped(y, ticks))}" for x, y in means)
        parts.append(f'<path class="line series-1" d="M{path}"/>')
    return svg(title, parts)


def curves(title: str, runs: Sequence[tuple[float, Sequence[Point]]], x_label: str, best_low: bool) -> str:
    """A line for every run, the best on top.

    Args:
        title: what stands above the plot.
        runs: the best first: its place among all, 0 to 1, and its (x, y).
        x_label: what runs along the horizontal axis.
        best_low: whether a lower value is better.
    """
    points = [point for _, some in runs for point in some]
    low, high = bounds([y for _, y in points], best_low)
    ticks = round_numbers([low, high])
    first, last = min(x for x, _ in points), max(x for x, _ in points)
    frame = Frame((first, last) if first < last else (first - 1, last + 1), (ticks[0], ticks[-1]))
    x_ticks = [tick for tick in round_numbers([first, last]) if first <= tick <= last]
    parts = [*heading(title), *grid(frame, ticks), *x_axis(frame, x_ticks, x_label)]
    for index, (place, some) in reversed(list(enumerate(runs))):
        drawn = [f"{frame.x(x):g} {frame.y(clamped(y, ticks)):.5g}" for x, y in some]
        paint = "best" if index == 0 else f"faint rank-{_paint(place)}"
        if len(drawn) > 1:
            parts.append(f'<path class="line {paint}" d="M{"L".join(drawn)}"/>')
        elif drawn:
            x, y = drawn[0].split()
            parts.append(f'<circle class="dot {paint}" cx="{x}" cy="{y}" r="2.5"/>')
    return svg(title, parts)


def parallel(
    title: str, columns: Mapping[str, Sequence[Any]], scores: Sequence[float], metric: str, best_low: bool
) -> str:
    """Parallel coordinates: an axis a key, the metric last with its best on top, a line for every run.

    Args:
        title: what it shows.
        columns: key -> its value in each run; runs are in order, the best first.
        scores: each run's metric.
        metric: its name.
        best_low: whether a lower score is better.
    """
    axes = {key: Axis.of(values) for key, values in columns.items()}
    low, high = bounds(scores, best_low)
    ticks = round_numbers([low, high])
    gap = (WIDE - 2 * LEFT - 20) / len(axes)
    top, bottom = 34, HEIGHT - 14

    def down(place: float) -> float:
        return round(bottom - place * (bottom - top), 1)

    def metric_place(score: float) -> float:
        share = (clamped(score, ticks) - ticks[0]) / (ticks[-1] - ticks[0])
        return 1 - share if best_low else share

    lines = []
    for index, score in reversed(list(enumerate(scores))):
        # runs of one value side by side, the better ones above, or they would hide each other
        aside = SPREAD * (0.5 - index / len(scores))
        spots = [axes[key].place(values[index]) + aside for key, values in columns.items()]
        spots.append(metric_place(score))
        path = "L".join(f"{LEFT + gap * across:g} {down(place):g}" for across, place in enumerate(spots))
        paint = "best" if index == 0 else f"faint rank-{_paint(index / len(scores))}"
        lines.append(f'<path class="line {paint}" d="M{path}"/>')
    named = [(key, axis.ticks) for key, axis in axes.items()]
    named.append((metric, [(metric_place(tick), tick_label(tick)) for tick in ticks]))
    parts = list(lines)
    for across, (name, some) in enumerate(named):
        x = round(LEFT + gap * across, 1)
        parts.append(f'<path class="axis" d="M{x} {top}V{bottom}"/>')
        parts.append(f'<text class="middle label" x="{x}" y="16">{escape(shortened(name, 24))}</text>')
        for place, label in some:
            parts.append(f'<text class="halo" x="{x + 6}" y="{down(place) + 4}">{escape(label)}</text>')
    return svg(title, parts, round(WIDE, 1))


def heat(
    title: str, across: tuple[str, Sequence[Any]], up: tuple[str, Sequence[Any]], scores: Sequence[float],
    best_low: bool,
) -> str:  # fmt: skip
    """A cell for each pair of two keys' values: the mean of its runs, deeper where it is better.

    Args:
        title: what stands above the plot.
        across: a key and its value in each run.
        up: another.
        scores: each run's metric.
        best_low: whether a lower score is better.
    """
    xs, ys = ordered(across[1]), ordered(up[1])
    cells: dict[tuple[str, str], list[float]] = {}
    for x, y, score in zip(across[1], up[1], scores, strict=True):
        cells.setdefault((repr(x), repr(y)), []).append(score)
    means = {pair: sum(some) / len(some) for pair, some in cells.items()}
    low, high = bounds(list(means.values()), best_low)
    left, top = 78, 28
    width, height = (WIDTH - left - 6) / len(xs), (HEIGHT - top - BOTTOM) / len(ys)
    parts = heading(title)
    for (x, y), mean in means.items():
        share = (clamped(mean, (low, high)) - low) / (high - low) if high > low else 0.5
        level = round(LEVELS * ((1 - share) if best_low else share))
        column, row = list(xs).index(x), list(ys).index(y)
        place = left + column * width, HEIGHT - BOTTOM - (row + 1) * height
        said = f"{shown(xs[x])}, {shown(ys[y])}: {mean:.4g}, {len(cells[x, y])} runs"
        parts.append(
            f'<rect class="cell h{level}" x="{place[0] + 1:.1f}" y="{place[1] + 1:.1f}" '
            f'width="{max(width - 2, 1):.1f}" height="{max(height - 2, 1):.1f}" rx="3">'
            f"<title>{escape(said)}</title></rect>"
        )
        if width > 40 and height > 16:
            parts.append(
                f'<text class="middle value" x="{place[0] + width / 2:.1f}" '
                f'y="{place[1] + height / 2 + 4:.1f}">{mean:.4g}</text>'
            )
    for index, value in enumerate(xs.values()):
        if index % -(-len(xs) // MOST_LABELS) == 0:
            x_place = left + (index + 0.5) * width
            parts.append(
                f'<text class="middle" x="{x_place:.1f}" y="{HEIGHT - BOTTOM + 16}">'
                f"{escape(shortened(shown(value), 10))}</text>"
            )
    for index, value in enumerate(ys.values()):
        if index % -(-len(ys) // MOST_LABELS) == 0:
            y_place = HEIGHT - BOTTOM - (index + 0.5) * height + 4
            label = escape(shortened(shown(value), 9))
            parts.append(f'<text class="end" x="{left - 6}" y="{y_place:.1f}">{label}</text>')
    parts.append(
        f'<text class="middle label" x="{(left + WIDTH) / 2}" y="{HEIGHT - 6}">{escape(across[0])}</text>'
        f'<text class="label" x="2" y="{HEIGHT - 6}">{escape(shortened(up[0], 16))} ↑</text>'
    )
    return svg(title, parts)


def whisker(mean: float, low: float | None, high: float | None, within: Point) -> str:
    """A mean with its interval, in a cell beside the figures that say the same."""

    def x(value: float) -> float:
        return round(4 + 152 * (clamped(value, within) - within[0]) / ((within[1] - within[0]) or 1), 1)

    bar = "" if low is None or high is None else f'<path class="interval" d="M{x(low)} 7H{x(high)}"/>'
    return (
        '<svg class="whisker" aria-hidden="true" viewBox="0 0 160 14"><path class="grid" d="M4 7H156"/>'
        f'{bar}<circle class="dot series-0" cx="{x(mean)}" cy="7" r="4"/></svg>'
    )


def _named_axis(frame: Frame, axis: Axis, label: str) -> list[str]:
    bottom = HEIGHT - BOTTOM
    parts = x_axis(frame, [], label)
    for place, name in axis.ticks:
        x = frame.x(place)
        parts.append(f'<path class="axis" d="M{x} {bottom}v4"/>')
        parts.append(f'<text class="middle" x="{x}" y="{bottom + 17}">{escape(name)}</text>')
    return parts


def _paint(place: float) -> int:
    return min(int(place * PAINTS), PAINTS - 1)
