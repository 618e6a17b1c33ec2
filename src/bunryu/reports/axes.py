"""Where the values of any key stand along an axis: in proportion, by their logarithms, or by name."""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from statistics import median
from typing import Any

from bunryu.reports.comparison import shown
from bunryu.reports.svg import Point, round_numbers

MOST_LABELS = 8
APART = 0.11  # of an axis' length: what lies between two labels at least
LOGARITHMIC = 8.0  # largest over smallest from which numbers stand by their logarithms
FAR = 4.0  # times the median distance to the best: what lies beyond is off the scale
LONGEST = 14  # characters of a label


@dataclass(frozen=True)
class Axis:
    """Where a key's values stand: 0 to 1.

    Args:
        places: repr of each value -> its place.
        ticks: (place, label).
    """

    places: Mapping[str, float]
    ticks: Sequence[tuple[float, str]]

    @classmethod
    def of(cls, values: Sequence[Any]) -> Axis:
        """An axis for values: numbers in proportion, or by their logarithms; else equally far apart."""
        distinct = {repr(value): value for value in values}
        if not all(isinstance(value, int | float) and not isinstance(value, bool) for value in values):
            order = sorted(distinct)
            places = {name: (index + 0.5) / len(order) for index, name in enumerate(order)}
            return cls(places, [(places[name], shortened(shown(distinct[name]))) for name in order])
        numbers = sorted(distinct.values())
        low, high = numbers[0], numbers[-1]
        by_log = low > 0 and high / low >= LOGARITHMIC

        def place(value: float) -> float:
            if low == high:
                return 0.5
            if by_log:
                return math.log(value / low) / math.log(high / low)
            return float((value - low) / (high - low))

        at = numbers if len(numbers) <= MOST_LABELS else _ticks(low, high, by_log)
        return cls({name: place(value) for name, value in distinct.items()}, _apart(at, place))

    def place(self, value: Any) -> float:
        """Where one of the values stands."""
        return self.places[repr(value)]


def _ticks(low: float, high: float, by_log: bool) -> list[float]:
    if not by_log:
        return [tick for tick in round_numbers([low, high]) if low <= tick <= high]
    powers = range(math.floor(math.log10(low)), math.ceil(math.log10(high)) + 1)
    many = len(powers) > 3
    found = [10.0**power * factor for power in powers for factor in ((1,) if many else (1, 2, 5))]
    return [tick for tick in found if low <= tick <= high]


def _apart(values: Sequence[float], place: Callable[[float], float]) -> list[tuple[float, str]]:
    """Ticks at the values, but for those too close to the one before."""
    kept: list[tuple[float, str]] = []
    for value in values:
        if not kept or place(value) - kept[-1][0] >= APART:
            kept.append((place(value), shown(float(value)) if isinstance(value, float) else str(value)))
    return kept


def bounds(values: Sequence[float], best_low: bool) -> Point:
    """Best and worst in order, without what lies much further from the best than most: a diverged run."""
    finite = [value for value in values if math.isfinite(value)]
    if not finite:
        return 0.0, 1.0
    best = min(finite) if best_low else max(finite)
    usual = median(abs(value - best) for value in finite) or math.inf
    kept = [value for value in finite if abs(value - best) <= FAR * usual]
    return min(kept), max(kept)


def clamped(value: float, ticks: Sequence[float]) -> float:
    """The value, or the end of the axis that it lies beyond."""
    return min(max(value, ticks[0]), ticks[-1])


def ordered(values: Sequence[Any]) -> dict[str, Any]:
    """Distinct values in order, by their repr."""
    distinct = {repr(value): value for value in values}
    numbers = all(isinstance(value, int | float) for value in values)
    return dict(sorted(distinct.items(), key=lambda item: item[1] if numbers else item[0]))


def shortened(text: str, most: int = LONGEST) -> str:
    """A label of at most so many characters."""
    return text if len(text) <= most else f"{text[: most - 1]}…"
