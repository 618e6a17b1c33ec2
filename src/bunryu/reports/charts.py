"""A report's charts: a metric over a key, many runs' curves, parallel coordinates, heat maps."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from html import escape
from itertools import pairwise
from typing import Any

from markupsafe import Markup

from bunryu.reports import svg
from bunryu.reports.axes import MAX_LABELS, Axis, bounds, clamped, ordered, shortened
from bunryu.reports.comparison import shown
from bunryu.reports.svg import BOTTOM, HEIGHT, LEFT, WIDTH, Frame, Point

PARALLEL_WIDTH = 2.9 * WIDTH
PARALLEL_TOP, PARALLEL_BOTTOM = 34, HEIGHT - 14
AXIS_MARGIN = 0.07  # of a key's axis, left free at each end
HEAT_LEFT = 78  # room for the labels of rows


def over_key(
    title: str, key: str, values: Sequence[Any], scores: Sequence[float], lower_is_better: bool
) -> Markup:
    """A dot for every run, the score over the key's value, and a line through the means of few values."""
    axis, ticks = Axis.of(values), svg.round_numbers(bounds(scores, lower_is_better))
    frame = Frame((-AXIS_MARGIN, 1 + AXIS_MARGIN), (ticks[0], ticks[-1]))
    parts = [svg.heading(title), *svg.grid(frame, svg.labelled(ticks)), *svg.x_axis(frame, axis.ticks, key)]
    by_value: dict[float, list[float]] = {}
    for value, score in zip(values, scores, strict=True):
        by_value.setdefault(axis.place(value), []).append(score)
        x, y = frame.x(axis.place(value)), frame.y(clamped(score, ticks))
        off = " off" if not ticks[0] <= score <= ticks[-1] else ""
        parts.append(svg.dot(f"series-0 faint{off}", x, y, note=f"{shown(value)}: {score:.4g}"))
    if len(by_value) <= MAX_LABELS:
        means = sorted((place, sum(some) / len(some)) for place, some in by_value.items())
        points = [f"{frame.x(x)} {frame.y(clamped(y, ticks))}" for x, y in means]
        parts.append(svg.line("series-1", points))
    return svg.drawing(title, parts)


def curves(
    title: str, runs: Sequence[tuple[float, Sequence[Point]]], x_label: str, lower_is_better: bool
) -> Markup:
    """A line for every run, the best on top; runs are ranks, from 0 to 1, and points, the best first."""
    points = [point for _, some in runs for point in some]
    ticks = svg.round_numbers(bounds([y for _, y in points], lower_is_better))
    first, last = min(x for x, _ in points), max(x for x, _ in points)
    frame = Frame((first, last) if first < last else (first - 1, last + 1), (ticks[0], ticks[-1]))
    x_ticks = svg.labelled(tick for tick in svg.round_numbers([first, last]) if first <= tick <= last)
    parts = [svg.heading(title), *svg.grid(frame, svg.labelled(ticks)), *svg.x_axis(frame, x_ticks, x_label)]
    for rank, some in reversed(runs):
        drawn = [(f"{frame.x(x):g}", f"{frame.y(clamped(y, ticks)):.5g}") for x, y in some]
        if len(drawn) == 1:
            parts.append(svg.dot(_rank_class(rank), *drawn[0], radius=2.5))
        else:
            parts.append(svg.line(_rank_class(rank), map(" ".join, drawn)))
    return svg.drawing(title, parts)


def parallel(
    title: str, columns: Mapping[str, Sequence[Any]], scores: Sequence[float], metric: str,
    lower_is_better: bool,
) -> Markup:  # fmt: skip
    """Parallel coordinates: an axis a key, the metric last with its best on top, a line for every run.

    Columns are key -> its value in each run; scores are of the metric, the best run's first.
    """
    axes = {key: Axis.of(values) for key, values in columns.items()}
    ticks = svg.round_numbers(bounds(scores, lower_is_better))

    def metric_place(score: float) -> float:
        share = (clamped(score, ticks) - ticks[0]) / (ticks[-1] - ticks[0])
        return 1 - share if lower_is_better else share

    gap = (PARALLEL_WIDTH - 2 * LEFT - 20) / len(axes)
    # a line stops at an axis and goes on behind the axis's labels
    wide = [min(gap / 2, 12 + 7 * max(len(label) for _, label in axis.ticks)) for axis in axes.values()]
    parts = []
    for index, score in reversed(list(enumerate(scores))):
        # runs of one value side by side, the better ones above, or they would hide each other
        aside = 0.06 * (0.5 - index / len(scores))
        places = [axes[key].place(values[index]) + aside for key, values in columns.items()]
        places.append(metric_place(score))
        steps = [
            f"{LEFT + gap * at + wide[at]:g} {_down(place):g}L{LEFT + gap * (at + 1):g} {_down(then):g}"
            for at, (place, then) in enumerate(pairwise(places))
        ]
        parts.append(svg.path(f"line {_rank_class(index / len(scores))}", f"M{'M'.join(steps)}"))
    named = [(key, axis.ticks) for key, axis in axes.items()]
    named.append((metric, [(metric_place(tick), label) for tick, label in svg.labelled(ticks)]))
    for at, (name, labels) in enumerate(named):
        x = round(LEFT + gap * at, 1)
        parts.append(svg.path("axis", f"M{x} {PARALLEL_TOP}V{PARALLEL_BOTTOM}"))
        parts.append(svg.text("middle label", x, 16, shortened(name, 24)))
        parts += [svg.text("", x + 6, _down(place) + 4, label) for place, label in labels]
    return svg.drawing(title, parts, round(PARALLEL_WIDTH, 1))


def _down(place: float) -> float:
    return round(PARALLEL_BOTTOM - place * (PARALLEL_BOTTOM - PARALLEL_TOP), 1)


def _rank_class(rank: float) -> str:
    """The style of a run's line: the best's for rank 0, else that of its fifth of all runs."""
    return f"faint rank-{int(rank * 5)}" if rank else "best"


def heat(
    title: str, across: tuple[str, Sequence[Any]], up: tuple[str, Sequence[Any]], scores: Sequence[float],
    lower_is_better: bool,
) -> Markup:  # fmt: skip
    """A cell for each pair of two keys' values: the mean score of its runs, deeper where it is better.

    Across and up are each a key and its value in each run.
    """
    xs, ys = ordered(across[1]), ordered(up[1])
    frame = Frame((0, len(xs)), (0, len(ys)), left=HEAT_LEFT, right=6, top=28)
    cells: dict[tuple[str, str], list[float]] = {}
    for x, y, score in zip(across[1], up[1], scores, strict=True):
        cells.setdefault((repr(x), repr(y)), []).append(score)
    return svg.drawing(title, [
        svg.heading(title),
        *_heat_cells(frame, xs, ys, cells, lower_is_better),
        *(svg.text("middle", f"{frame.x(at):.1f}", HEIGHT - BOTTOM + 16, name) for at, name in _some(xs, 10)),
        *(svg.text("end", HEAT_LEFT - 6, f"{frame.y(at) + 4:.1f}", name) for at, name in _some(ys, 9)),
        svg.text("middle label", (HEAT_LEFT + WIDTH) / 2, HEIGHT - 6, across[0]),
        svg.text("label", 2, HEIGHT - 6, f"{shortened(up[0], 16)} ↑"),
    ])  # fmt: skip


def _heat_cells(
    frame: Frame, xs: Mapping[str, Any], ys: Mapping[str, Any],
    cells: Mapping[tuple[str, str], Sequence[float]], lower_is_better: bool,
) -> list[str]:  # fmt: skip
    means = {pair: sum(some) / len(some) for pair, some in cells.items()}
    low, high = bounds(list(means.values()), lower_is_better)
    width, height = frame.x(1) - frame.x(0), frame.y(0) - frame.y(1)
    parts = []
    for (x, y), mean in means.items():
        share = (clamped(mean, (low, high)) - low) / (high - low) if high > low else 0.5
        level = round(20 * ((1 - share) if lower_is_better else share))
        left, top = frame.x(list(xs).index(x)), frame.y(list(ys).index(y) + 1)
        note = f"{shown(xs[x])}, {shown(ys[y])}: {mean:.4g}, {len(cells[x, y])} runs"
        parts.append(
            f'<rect class="cell h{level}" x="{left + 1:.1f}" y="{top + 1:.1f}" '
            f'width="{max(width - 2, 1):.1f}" height="{max(height - 2, 1):.1f}" rx="3">'
            f"<title>{escape(note)}</title></rect>"
        )
        if width > 40 and height > 16:
            middle = f"{left + width / 2:.1f}", f"{top + height / 2 + 4:.1f}"
            parts.append(svg.text("middle value", *middle, f"{mean:.4g}"))
    return parts


def _some(values: Mapping[str, Any], length: int) -> list[tuple[float, str]]:
    """The middle of a cell and the label of at most MAX_LABELS values."""
    labels = [(index + 0.5, shortened(shown(value), length)) for index, value in enumerate(values.values())]
    return labels[:: -(-len(labels) // MAX_LABELS)]


def whisker(mean: float, low: float | None, high: float | None, within: Point) -> Markup:
    """A mean with its interval, for a cell beside the figures that say the same."""

    def x(value: float) -> float:
        return round(4 + 152 * (clamped(value, within) - within[0]) / ((within[1] - within[0]) or 1), 1)

    bar = "" if low is None or high is None else svg.path("interval", f"M{x(low)} 7H{x(high)}")
    return Markup(
        '<svg class="whisker" aria-hidden="true" viewBox="0 0 160 14">'
        f"{svg.path('grid', 'M4 7H156')}{bar}{svg.dot('series-0', x(mean), 7, radius=4)}</svg>"
    )
