"""How much of a metric's variance each swept key explains."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

MOST_LEVELS = 8  # a number with more values than this is cut into fifths
FIFTHS = 5


@dataclass(frozen=True)
class Importance:
    """One key's part.

    Args:
        key: the key.
        share: of the metric's variance over all runs, 0 to 1.
        chance: the share that a key of no effect has on average.
        levels: how many values, or fifths of them, it was seen at.
    """

    key: str
    share: float
    chance: float
    levels: int


def importance(columns: Mapping[str, Sequence[Any]], scores: Sequence[float]) -> list[Importance]:
    """The main effect of each key, the greatest first.

    It is the variance of the means at each of a key's values over the variance of all runs: the
    first-order term of a functional analysis of variance (Hutter, Hoos and Leyton-Brown, ICML 2014), on
    the runs themselves rather than on a model of them. On a full grid the shares add up to at most 1, and
    what is missing is interaction and noise; where runs are missing they may overlap.

    Args:
        columns: key -> its value in each run.
        scores: shape (runs,), the metric.
    """
    values = np.asarray(scores, dtype=np.float64)
    if len(values) < 2:
        return []
    total = float(((values - values.mean()) ** 2).sum())
    found = []
    for key, column in columns.items():
        levels = _levels(column)
        count = int(levels.max()) + 1
        if count < 2 or total == 0.0:
            continue
        sizes = np.bincount(levels)
        means = np.bincount(levels, values) / sizes
        between = float((sizes * (means - values.mean()) ** 2).sum())
        found.append(Importance(key, between / total, (count - 1) / (len(values) - 1), count))
    return sorted(found, key=lambda item: -item.share)


def _levels(column: Sequence[Any]) -> np.typing.NDArray[np.int64]:
    """Each run's level, counted from 0."""
    names = {name: index for index, name in enumerate(dict.fromkeys(map(repr, column)))}
    numbers = all(isinstance(value, int | float) and not isinstance(value, bool) for value in column)
    if numbers and len(names) > MOST_LEVELS:
        edges = np.quantile(column, np.linspace(0, 1, FIFTHS + 1)[1:-1])
        return np.unique(np.searchsorted(edges, column, side="right"), return_inverse=True)[1]
    return np.array([names[repr(value)] for value in column])
