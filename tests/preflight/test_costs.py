"""The lines that show what jobs take."""

from __future__ import annotations

from bunryu.preflight.costs import duration, over_budget


def test_a_budget_that_is_too_small_is_refused_with_both_figures() -> None:
    refused = over_budget(3 * 3600.0, 2.0)
    assert refused is not None
    assert (refused.what, refused.where) == ("the estimate is 3 hours, the budget 2", "budget_hours=2")
    assert over_budget(2 * 3600.0, 2.0) is None
    assert over_budget(1e9, None) is None


def test_durations_read_well() -> None:
    assert [duration(s) for s in (0.04, 59.9, 61.4, 3599.6, 90061)] == [
        "0.0 s", "59.9 s", "0:01:01", "1:00:00", "25:01:01",
    ]  # fmt: skip
