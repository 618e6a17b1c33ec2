"""Where the values of a key stand along an axis: in proportion, by their logarithms, or by name."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from statistics import median
from typing import Any

from bunryu.reports.comparison import is_numeric, shown
from bunryu.reports.svg import Point, round_numbers

MAX_LABELS = 8
OUTLIER_FACTOR = 4.0  # times the median distance to the best value, beyond which one is off the scale


@dataclass(frozen=True)
class Axis:
    """Where a key's values stand, from 0 to 1."""

    places: dict[str, float]  # repr of a value -> its place
    ticks: list[tuple[float, str]]  # place and label of what the axis shows

    @classmethod
    def of(cls, values: Sequence[Any]) -> Axis:
        """Numbers stand in proportion or by their logarithms, names at equal distances."""
        distinct = ordered(values)
        if not is_numeric(values):
            places = {name: (index + 0.5) / len(distinct) for index, name in enumerate(distinct)}
            return cls(places, [(places[name], shortened(shown(distinct[name]))) for name in distinct])
        numbers = list(distinct.values())
        low, high = numbers[0], numbers[-1]
        by_log = low > 0 and high / low >= 8.0

        def place(value: float) -> float:
            if low == high:
                return 0.5
            return math.log(value / low, high / low) if by_log else (value - low) / (high - low)

        ticks: list[tuple[float, str]] = []
        for value in numbers if len(numbers) <= MAX_LABELS else _ticks(low, high, by_log):
            if not ticks or place(value) - ticks[-1][0] >= 0.11:  # else labels would touch
                ticks.append((place(value), shown(value)))
        return cls({name: place(value) for name, value in distinct.items()}, ticks)

    def place(self, value: Any) -> float:
        return self.places[repr(value)]


def _ticks(low: float, high: float, by_log: bool) -> list[float]:
    found = round_numbers([low, high])
    if by_log:
        powers = range(math.floor(math.log10(low)), math.ceil(math.log10(high)) + 1)
        factors = (1,) if len(powers) > 3 else (1, 2, 5)
        found = [10.0**power * factor for power in powers for factor in factors]
    return [tick for tick in found if low <= tick <= high]


def bounds(values: Sequence[float], lower_is_better: bool) -> Point:
    """Lowest and highest value, without those much further from the best than most: diverged runs."""
    finite = [value for value in values if math.isfinite(value)]
    if not finite:
        return 0.0, 1.0
    best = min(finite) if lower_is_better else max(finite)
    usual = median(abs(value - best) for value in finite) or math.inf
    kept = [value for value in finite if abs(value - best) <= OUTLIER_FACTOR * usual]
    return min(kept), max(kept)


def clamped(value: float, ticks: Sequence[float]) -> float:
    """The value, or the end of the axis that it lies beyond."""
    return min(max(value, ticks[0]), ticks[-1])


def ordered(values: Sequence[Any]) -> dict[str, Any]:
    """repr -> value of the distinct values: numbers by size, others by their repr."""
    by_size = is_numeric(values)
    distinct = {repr(value): value for value in values}
    return dict(sorted(distinct.items(), key=lambda item: item[by_size]))


def shortened(text: str, length: int = 14) -> str:
    return text if len(text) <= length else f"{text[: length - 1]}…"
