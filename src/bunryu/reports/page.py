"""The report as one page that needs nothing else and runs nothing."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from itertools import combinations, islice

from markupsafe import Markup

from bunryu.reports import charts, tables
from bunryu.reports.axes import bounds
from bunryu.reports.comparison import Comparison, shown
from bunryu.reports.findings import Findings
from bunryu.reports.rendering import render
from bunryu.reports.svg import Point

CURVE_POINTS = 60  # of a run's line
MAX_HEAT_VALUES = 30  # of a key, in a heat map
TRAINING = "train/loss"


def page(findings: Findings, title: str, winner: str) -> str:
    """The report as HTML; winner is the winner's experiment as YAML, empty if nothing won."""
    comparison = findings.comparison
    keys = [each.key for each in findings.importance if each.key != "seed"][:6]
    names = dict(zip(keys, tables.short_keys(keys), strict=True))
    values = {
        "findings": findings,
        "comparison": comparison,
        "title": title,
        "winner": winner,
        "tables": tables,
        "shown": shown,
        "whiskers": _whiskers(findings),
        "over_keys": _over_keys(comparison, names),
        "curves": _curves(comparison),
        "heat_maps": _heat_maps(comparison, names),
        "parallel": _parallel(comparison, names) if len(keys) > 1 else None,
        "left_out": len(comparison.keys) - len(keys),
    }
    return render("report.html", values, {})


def _whiskers(findings: Findings) -> list[Markup]:
    """Each group's mean and interval on a common scale."""
    ends = [end for each in findings.summaries for end in (each.low, each.mean, each.high) if end is not None]
    within = bounds(ends, findings.comparison.metric.lower_is_better)
    return [charts.whisker(each.mean, each.low, each.high, within) for each in findings.summaries]


def _over_keys(comparison: Comparison, names: Mapping[str, str]) -> list[Markup]:
    metric, columns, scores = comparison.metric, comparison.columns, comparison.scores
    return [
        charts.over_key(f"{metric.name} over {name}", key, columns[key], scores, metric.lower_is_better)
        for key, name in names.items()
    ]


def _curves(comparison: Comparison) -> list[Markup]:
    """The metric and the training loss, step by step, of all runs that recorded them."""
    found = []
    for name in dict.fromkeys((comparison.metric.name, TRAINING)):
        lines = []
        for index, run in enumerate(comparison.ranked):
            if points := run.curve(name) or run.curve(f"{name}_epoch"):
                lines.append((index / len(comparison.ranked), thinned(points)))
        if lines:
            lower_is_better = name == TRAINING or comparison.metric.lower_is_better
            found.append(charts.curves(f"{name} of {len(lines)} runs", lines, "step", lower_is_better))
    return found


def thinned(points: Sequence[Point]) -> list[Point]:
    """About CURVE_POINTS of a line's points, its last among them."""
    return [*points[: -1 : -(-len(points) // CURVE_POINTS)], points[-1]]


def _heat_maps(comparison: Comparison, names: Mapping[str, str]) -> list[Markup]:
    metric, columns = comparison.metric, comparison.columns
    maps = []
    for across, up in islice(combinations(names, 2), 3):
        sides = (across, columns[across]), (names[up], columns[up])
        if all(len(set(map(repr, column))) <= MAX_HEAT_VALUES for _, column in sides):
            title = f"{metric.name}: {names[up]} by {names[across]}"
            maps.append(charts.heat(title, *sides, comparison.scores, metric.lower_is_better))
    return maps


def _parallel(comparison: Comparison, names: Mapping[str, str]) -> Markup:
    metric, columns, title = comparison.metric, comparison.columns, "Parallel coordinates"
    named = {name: columns[key] for key, name in names.items()}
    return charts.parallel(title, named, comparison.scores, metric.name, metric.lower_is_better)
