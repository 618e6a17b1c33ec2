"""What a comparison comes to: each group's figures, whether the best is best, what mattered, the cost."""

from __future__ import annotations

import csv
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import numpy.typing as npt

from bunryu.reports import significance
from bunryu.reports.comparison import Comparison, Group
from bunryu.reports.importance import Importance, importance
from bunryu.reports.significance import LEVEL, PairedComparison, Summary

SPLITS = ("test", "validation")  # the winner was chosen on validation: test is the fairer judge
MANY_SEEDS = "seed=1,2,3,4,5"


@dataclass(frozen=True)
class McNemarResult:
    """McNemar's test of the best group's run against the second's of the same seed.

    Args:
        seed: of both.
        won: rows only the best's got right.
        lost: rows only the second's got right.
        p: two-sided and exact.
    """

    seed: str
    won: int
    lost: int
    p: float


@dataclass(frozen=True)
class Findings:
    """A comparison with all that is computed of it.

    Args:
        comparison: the runs.
        summaries: of each group, in their order.
        gap: the best group against the second over shared seeds, if that can be computed.
        answer: ``yes``, ``no`` or ``cannot tell``: whether the best differs beyond seed noise.
        verdict: the same in sentences.
        split: whose predictions were judged; None if none.
        judged: one for each shared seed.
        on_rows: what McNemar's tests say together, a sentence.
        importance: of each swept key, the greatest first.
        hours: of all runs whose end is known.
        untimed: how many have none.
    """

    comparison: Comparison
    summaries: list[Summary]
    gap: PairedComparison | None
    answer: str
    verdict: str
    split: str | None
    judged: list[McNemarResult]
    on_rows: str
    importance: list[Importance]
    hours: float
    untimed: int


def find(comparison: Comparison) -> Findings:
    """Compute everything a report says of a comparison."""
    groups, metric = comparison.groups, comparison.metric
    summaries = [significance.summary(list(group.scores(metric).values())) for group in groups]
    gap = _gap(comparison)
    answer, verdict = _verdict(comparison, gap)
    split, judged = _judged(groups)
    columns = {**comparison.columns, "seed": [run.seed for run in comparison.ranked]}
    timed = [entry.hours for entry in comparison.entries if entry.hours is not None]
    started = [entry for entry in comparison.entries if entry.status != "waiting"]
    return Findings(
        comparison, summaries, gap, answer, verdict, split, judged, _on_rows(split, judged),
        importance(columns, comparison.scores), sum(timed), len(started) - len(timed),
    )  # fmt: skip


def _shared(groups: Sequence[Group]) -> list[object]:
    """Seeds of both the best and the second."""
    return [seed for seed in groups[0].runs if seed in groups[1].runs] if len(groups) > 1 else []


def _gap(comparison: Comparison) -> PairedComparison | None:
    seeds, metric = _shared(comparison.groups), comparison.metric
    scores = [group.scores(metric) for group in comparison.groups]
    table = [[metric.sign * values.get(seed, float("nan")) for values in scores] for seed in seeds]
    return significance.best_gap(np.array(table)) if table else None


def _verdict(comparison: Comparison, gap: PairedComparison | None) -> tuple[str, str]:
    groups, metric = comparison.groups, comparison.metric
    if not groups:
        return "cannot tell", "Nothing to compare: no run has finished."
    if len(groups) == 1:
        return "cannot tell", "Nothing to compare: all finished runs have one configuration."
    names = f"the best ({groups[0].label}) and the second ({groups[1].label})"
    shared = len(_shared(groups))
    if shared < 2:
        return "cannot tell", (
            f"Cannot tell: {names} share {shared or 'no'} {'seed' if shared == 1 else 'seeds'}, and seed "
            f"noise shows only in two or more. Sweep {MANY_SEEDS} too."
        )
    if gap is None:
        return "cannot tell", (
            f"Cannot tell: {names} differ by the same for each of {shared} shared seeds, so that seed noise "
            "cannot be measured."
        )
    sides = ("lower", "higher") if metric.mode == "min" else ("higher", "lower")
    figures = f"{gap.shared} shared seeds, p = {gap.p:.2g}"
    size = f"{abs(gap.difference):.4g} {sides[gap.difference < 0]} on average"
    if gap.p < LEVEL:
        return "yes", (
            f"Yes: the best ({groups[0].label}) differs from the second ({groups[1].label}) beyond seed "
            f"noise. Its {metric.name} is {size} ({figures})."
        )
    return "no", (
        f"No: {names} do not differ beyond seed noise. {metric.name} of the best is {size} ({figures}); with "
        f"noise like this, {gap.shared} seeds show no difference below {gap.smallest:.2g}."
    )


def _judged(groups: Sequence[Group]) -> tuple[str | None, list[McNemarResult]]:
    """McNemar's tests over the rows that both runs of a seed predicted, on the first split that has any."""
    for split in SPLITS:
        judged = []
        for seed in sorted(_shared(groups), key=str):
            first, second = (_right(group.runs[seed].path, split) for group in groups[:2])
            if first is not None and second is not None and first[0] == second[0]:
                won, lost, p = significance.mcnemar(first[1], second[1])
                judged.append(McNemarResult(str(seed), won, lost, p))
        if judged:
            return split, judged
    return None, []


def _right(run: Path | None, split: str) -> tuple[list[tuple[str, str]], npt.NDArray[np.bool_]] | None:
    """Row and label of each prediction, and where it is right; None where there are none to read."""
    if run is None:
        return None
    try:
        with open(run / "predictions" / f"{split}.csv", encoding="utf-8", newline="") as file:
            rows = [(row["row"], row["label"], row["prediction"]) for row in csv.DictReader(file)]
    except (OSError, ValueError, KeyError, csv.Error):
        return None
    right = np.array([label == predicted for _, label, predicted in rows], dtype=bool)
    return [(row, label) for row, label, _ in rows], right


def _on_rows(split: str | None, judged: Sequence[McNemarResult]) -> str:
    if split is None:
        return "The best's and the second's predictions are not there to be compared row by row."
    p = significance.combined([each.p for each in judged])
    won, lost = sum(each.won for each in judged), sum(each.lost for each in judged)
    differ = "differ" if p < LEVEL else "do not differ"
    seeds = f"{len(judged)} {'seed' if len(judged) == 1 else 'seeds'}"
    how = "p" if len(judged) == 1 else "twice the median of each seed's p"
    return (
        f"Row by row on {split} their predictions {differ} in how many are right: over {seeds}, {won} rows "
        f"are right only for the best and {lost} only for the second (McNemar, exact; {how} = {p:.2g})."
    )
