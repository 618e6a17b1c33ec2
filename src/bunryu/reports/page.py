"""The report as one page that needs nothing else and runs nothing."""

from __future__ import annotations

from collections.abc import Sequence
from importlib import resources
from itertools import combinations

from jinja2 import Environment, StrictUndefined
from markupsafe import Markup

from bunryu.reports import charts as report_charts
from bunryu.reports import svg, tables
from bunryu.reports.axes import bounds
from bunryu.reports.comparison import Comparison, shown
from bunryu.reports.findings import Findings

CURVE_POINTS = 60  # of a run's line
MOST_KEYS = 6  # that are drawn, the most important ones
MOST_HEAT_MAPS = 3
TRAINING = "train/loss"


def page(findings: Findings, title: str, winner: str) -> str:
    """The page.

    Args:
        findings: what it shows.
        title: of the page.
        winner: the winner's experiment, as text; empty if nothing won.
    """
    text = resources.files("bunryu.reports").joinpath("templates/report.html").read_text("utf-8")
    environment = Environment(
        autoescape=True, undefined=StrictUndefined, trim_blocks=True, lstrip_blocks=True
    )
    environment.filters["meter"] = lambda share: Markup(svg.meter(share))
    comparison = findings.comparison
    drawn = _drawn_keys(findings)
    return environment.from_string(text).render(
        findings=findings,
        comparison=comparison,
        title=title,
        winner=winner,
        tables=tables,
        shown=shown,
        whiskers=_whiskers(findings),
        over_keys=[Markup(chart) for chart in _over_keys(comparison, drawn)],
        curves=[Markup(chart) for chart in _curves(comparison)],
        heat_maps=[Markup(chart) for chart in _heat_maps(comparison, drawn)],
        parallel=Markup(_parallel(comparison, drawn)) if len(drawn) > 1 else None,
        left_out=len(comparison.keys) - len(drawn),
    )


def _drawn_keys(findings: Findings) -> list[str]:
    """Swept keys, the most important first."""
    return [each.key for each in findings.importance if each.key != "seed"][:MOST_KEYS]


def _whiskers(findings: Findings) -> list[Markup]:
    """Each group's mean and interval on a common scale."""
    edges = [
        value
        for each in findings.summaries
        for value in (each.low, each.mean, each.high)
        if value is not None
    ]
    within = bounds(edges, findings.comparison.metric.mode == "min")
    return [
        Markup(report_charts.whisker(each.mean, each.low, each.high, within)) for each in findings.summaries
    ]


def _over_keys(comparison: Comparison, keys: Sequence[str]) -> list[str]:
    name, low = comparison.metric.name, comparison.metric.mode == "min"
    columns, scores = comparison.columns, comparison.scores
    return [
        report_charts.over_key(f"{name} over {short}", key, columns[key], scores, low)
        for key, short in zip(keys, tables.short_keys(keys), strict=True)
    ]


def _curves(comparison: Comparison) -> list[str]:
    """The metric and the training loss, step by step, of all runs that recorded them."""
    found = []
    for metric in dict.fromkeys((comparison.metric.name, TRAINING)):
        lines, low = [], metric == TRAINING or comparison.metric.mode == "min"
        for index, run in enumerate(comparison.ranked):
            points = run.curve(metric) or run.curve(f"{metric}_epoch")
            if points:
                lines.append((index / len(comparison.ranked), thinned(points)))
        if lines:
            found.append(report_charts.curves(f"{metric} of {len(lines)} runs", lines, "step", low))
    return found


def thinned(points: Sequence[svg.Point]) -> list[svg.Point]:
    """At most so many of a line's points, its last among them."""
    step = -(-len(points) // CURVE_POINTS)
    return [*points[:-1:step], points[-1]]


def _heat_maps(comparison: Comparison, keys: Sequence[str]) -> list[str]:
    low, columns, scores = comparison.metric.mode == "min", comparison.columns, comparison.scores
    name, short = comparison.metric.name, dict(zip(keys, tables.short_keys(keys), strict=True))
    maps = []
    for across, up in list(combinations(keys, 2))[:MOST_HEAT_MAPS]:
        sides = (across, columns[across]), (short[up], columns[up])
        if max(len(set(map(repr, column))) for _, column in sides) <= 30:
            maps.append(report_charts.heat(f"{name}: {short[up]} by {short[across]}", *sides, scores, low))
    return maps


def _parallel(comparison: Comparison, keys: Sequence[str]) -> str:
    columns = dict(zip(tables.short_keys(keys), (comparison.columns[key] for key in keys), strict=True))
    low = comparison.metric.mode == "min"
    return report_charts.parallel(
        "Parallel coordinates", columns, comparison.scores, comparison.metric.name, low
    )
