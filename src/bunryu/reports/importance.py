"""How much of a metric's variance each swept key explains."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt

from bunryu.reports.comparison import is_numeric

MAX_LEVELS = 8  # a number with more values than this is cut into fifths


@dataclass(frozen=True)
class Importance:
    """The part of the metric's variance over all runs that one key explains."""

    key: str
    share: float  # from 0 to 1
    chance: float  # the share that a key of no effect has on average
    levels: int  # how many values, or fifths of them, the key had


def importance(columns: Mapping[str, Sequence[Any]], scores: Sequence[float]) -> list[Importance]:
    """The main effect of each key, the greatest first; columns are key -> its value in each run.

    It is the variance of the means at each of a key's values over the variance of all runs: the
    first-order term of a functional analysis of variance (Hutter, Hoos and Leyton-Brown, ICML 2014), on
    the runs themselves rather than on a model of them. On a full grid the shares add up to at most 1, and
    what is missing is interaction and noise; where runs are missing they may overlap.
    """
    if len(scores) < 2:
        return []
    centred = np.asarray(scores, dtype=np.float64) - np.mean(scores)
    total = float((centred**2).sum())
    found = []
    for key, column in columns.items():
        levels = _levels(column)
        sizes = np.bincount(levels)
        if len(sizes) > 1 and total > 0.0:
            between = float((np.bincount(levels, centred) ** 2 / sizes).sum())
            chance = (len(sizes) - 1) / (len(centred) - 1)
            found.append(Importance(key, between / total, chance, len(sizes)))
    return sorted(found, key=lambda each: -each.share)


def _levels(column: Sequence[Any]) -> npt.NDArray[np.int64]:
    """Each run's level of a key, counted from 0."""
    if is_numeric(column) and len(set(column)) > MAX_LEVELS:
        edges = np.quantile(column, np.linspace(0, 1, 6)[1:-1])
        column = np.searchsorted(edges, column, side="right").tolist()
    return np.unique(list(map(repr, column)), return_inverse=True)[1]
