"""The lines that show what jobs take."""

from __future__ import annotations

from bunryu.preflight.costs import duration, duration_of, over_budget


def test_durations_and_a_budget_that_is_too_small() -> None:
    assert [duration(s) for s in (0.04, 59.9, 61.4, 3599.6, 90061)] == [
        "0.0 s", "59.9 s", "0:01:01", "1:00:00", "25:01:01",
    ]  # fmt: skip
    # of jobs: as many rounds of average ones as there is room for, or the longest one
    assert duration_of([5.0, 1.0, 1.0, 4.0], 1) == 11.0
    assert duration_of([4.0, 4.0, 4.0], 2) == 8.0
    assert duration_of([9.0, 1.0, 1.0, 1.0], 4) == 9.0
    refused = over_budget(3 * 3600.0, 2.0)
    assert refused is not None
    assert (refused.what, refused.where) == ("the estimate is 3 hours, the budget 2", "budget_hours=2")
    assert over_budget(2 * 3600.0, 2.0) is over_budget(1e9, None) is None
