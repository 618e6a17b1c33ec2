"""What a comparison shows: each group's figures, whether the best is best, what mattered, the cost."""

from __future__ import annotations

import csv
import io
import math
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np
import numpy.typing as npt

from bunryu.errors import ModelError
from bunryu.reports import significance
from bunryu.reports.comparison import Comparison, Group, counted
from bunryu.reports.entries import RunSummary
from bunryu.reports.importance import Importance, importance
from bunryu.reports.significance import LEVEL, PairedComparison, Summary
from bunryu.system.records import read_table

SPLITS = ("test", "validation")  # the winner was chosen on validation: test is the fairer judge


@dataclass(frozen=True)
class McNemarResult:
    """McNemar's exact two-sided test of the best group's run against the second's of the same seed."""

    seed: str
    won: int  # rows only the best's run got right
    lost: int  # rows only the second's run got right
    p: float


@dataclass(frozen=True)
class Findings:
    """A comparison with all that is computed of it."""

    comparison: Comparison
    summaries: list[Summary]  # of each group, in their order
    test: str  # the metric of test that is shown beside the one that decides; empty if there is none
    on_test: list[Summary | None]  # of it, for each group
    gap: PairedComparison | None  # the best group against the second, if that can be computed
    answer: str  # "yes", "no" or "cannot tell": whether the best differs beyond seed noise
    verdict: str  # the same in sentences
    split: str | None  # whose predictions were compared row by row; None if none could be
    mcnemar: list[McNemarResult]  # of each shared seed
    row_verdict: str  # what these tests say together, a sentence
    importance: list[Importance]  # of each swept key, the greatest first
    hours: float  # of all runs whose end is known
    untimed: int  # how many other runs were started


def find(comparison: Comparison) -> Findings:
    """Compute everything a report says of a comparison."""
    comparison = replace(comparison, notes=[*comparison.notes, *_learnt_nothing(comparison.ranked)])
    groups, metric = comparison.groups, comparison.metric
    test = _test_metric(comparison)
    tested = [[run.metrics[test] for run in group.runs.values() if test in run.metrics] for group in groups]
    summaries = [significance.summary(list(group.scores(metric).values())) for group in groups]
    table = [
        [metric.goodness(group.scores(metric).get(seed, math.nan)) for group in groups]
        for seed in _shared_seeds(groups)
    ]
    gap = significance.compare_best_two(np.array(table)) if table else None
    answer, verdict = _verdict(comparison, gap)
    split, mcnemar = _mcnemar(groups)
    columns = {**comparison.columns, "seed": [run.seed for run in comparison.ranked]}
    timed = [entry.hours for entry in comparison.entries if entry.hours is not None]
    started = [entry for entry in comparison.entries if entry.status != "waiting"]
    return Findings(
        comparison, summaries, test, [significance.summary(some) if some else None for some in tested], gap,
        answer, verdict, split, mcnemar, _row_verdict(split, mcnemar),
        importance(columns, comparison.scores), sum(timed), len(started) - len(timed),
    )  # fmt: skip


def _test_metric(comparison: Comparison) -> str:
    """The test split's twin of the metric that decides, accuracy instead of loss, if any run has it."""
    metric = comparison.metric.name
    twin = "test/accuracy" if metric.endswith("loss") else f"test/{metric.rpartition('/')[2]}"
    return twin if twin != metric and any(twin in run.metrics for run in comparison.ranked) else ""


def _learnt_nothing(ranked: Sequence[RunSummary]) -> list[str]:
    """Sentences about runs of which none does better than the same answer for every row."""
    classes = set()
    for run in ranked:
        found = _predictions(run.path, "test") or _predictions(run.path, "validation")
        if not found or found[1].sum() > max(Counter(label for _, label in found[0]).values(), default=0):
            return []
        classes.add(len(found[2]))
    said = ["no run beats always answering the commonest label", "every run predicts one class only"]
    return said[: 2 if classes == {1} else 1] if ranked else []


def _shared_seeds(groups: Sequence[Group]) -> list[object]:
    """Seeds of both the best and the second."""
    return [seed for seed in groups[0].runs if seed in groups[1].runs] if len(groups) > 1 else []


def _verdict(comparison: Comparison, gap: PairedComparison | None) -> tuple[str, str]:
    groups, metric = comparison.groups, comparison.metric
    if not groups:
        return "cannot tell", "Nothing to compare: no run has finished."
    if len(groups) == 1:
        return "cannot tell", "Nothing to compare: all finished runs have one configuration."
    names = f"the best ({groups[0].label}) and the second ({groups[1].label})"
    shared = len(_shared_seeds(groups))
    if shared < 2:
        why = f"share {counted(shared or 'no', 'seed')}, and seed noise shows only in two or more."
        return "cannot tell", f"Cannot tell: {names} {why} Sweep seed=1,2,3,4,5 too."
    if gap is None:
        why = f"differ by the same for each of {shared} shared seeds, so that seed noise cannot be measured."
        return "cannot tell", f"Cannot tell: {names} {why}"
    side = "lower" if metric.lower_is_better == (gap.difference >= 0) else "higher"
    figures = f"{gap.shared} shared seeds, p = {gap.p:.2g}"
    size = f"{abs(gap.difference):.4g} {side} on average"
    if gap.p < LEVEL:
        return "yes", (
            f"Yes: the best ({groups[0].label}) differs from the second ({groups[1].label}) beyond seed "
            f"noise. Its {metric.name} is {size} ({figures})."
        )
    return "no", (
        f"No: {names} do not differ beyond seed noise. {metric.name} of the best is {size} ({figures}); with "
        f"noise like this, {gap.shared} seeds show no difference below {gap.smallest:.2g}."
    )


def _mcnemar(groups: Sequence[Group]) -> tuple[str | None, list[McNemarResult]]:
    """McNemar's tests over the rows that both runs of a seed predicted, on the first split that has any."""
    for split in SPLITS:
        results = []
        for seed in sorted(_shared_seeds(groups), key=str):
            first, second = (_predictions(group.runs[seed].path, split) for group in groups[:2])
            if first is not None and second is not None and first[0] == second[0]:
                results.append(McNemarResult(str(seed), *significance.mcnemar(first[1], second[1])))
        if results:
            return split, results
    return None, []


def _predictions(
    run: Path | None, split: str
) -> tuple[list[tuple[str, str]], npt.NDArray[np.bool_], set[str]] | None:
    """Row and label of each prediction, where it is right, and the labels predicted; None without any."""
    if run is None:
        return None
    try:
        table = csv.DictReader(io.StringIO(read_table(run / "predictions" / f"{split}.csv"), newline=""))
        rows = [(row["row"], row["label"], row["prediction"]) for row in table]
    except (ModelError, ValueError, KeyError, csv.Error):
        return None
    right = np.array([label == predicted for _, label, predicted in rows], dtype=bool)
    return [(row, label) for row, label, _ in rows], right, {predicted for _, _, predicted in rows}


def _row_verdict(split: str | None, results: Sequence[McNemarResult]) -> str:
    if split is None:
        return "The best's and the second's predictions are not there to be compared row by row."
    p = significance.combined([each.p for each in results])
    won, lost = sum(each.won for each in results), sum(each.lost for each in results)
    differ = "differ" if p < LEVEL else "do not differ"
    how = "p" if len(results) == 1 else "twice the median of each seed's p"
    return (
        f"Row by row on {split} their predictions {differ} in how many are right: over "
        f"{counted(len(results), 'seed')}, {won} rows are right only for the best and {lost} only for the "
        f"second (McNemar, exact; {how} = {p:.2g})."
    )
