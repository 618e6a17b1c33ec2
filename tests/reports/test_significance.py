from __future__ import annotations

import math
from typing import Any

import numpy as np
import pytest
from scipy import stats

from bunryu.reports import significance
from bunryu.reports.significance import LEVEL, compare_best_two, mcnemar, summary

FIRST = [0.90, 0.88, 0.91, 0.89]
SECOND = [0.87, 0.86, 0.86, 0.88]


def sweeps(groups: int, seeds: int, ahead: tuple[float, ...] = (), count: int = 1000) -> np.ndarray:
    """Normal scores with an effect of the seed; ``ahead`` is added to the first groups."""
    random = np.random.default_rng(1000 * groups + seeds)
    scores = random.normal(size=(count, seeds, groups)) + 2 * random.normal(size=(count, seeds, 1))
    scores[:, :, : len(ahead)] += ahead
    return scores


def p_values(scores: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Of each sweep's best against its second: p among all groups, and p as if these two had been named."""
    order = np.argsort(-scores.mean(1), axis=1)
    scores = np.take_along_axis(scores, order[:, None, :], axis=2)
    t, p_pair = stats.ttest_rel(scores[:, :, 0], scores[:, :, 1], axis=1)
    return significance.p_of_gap(t, significance.estimated_means(scores), scores.shape[1] - 1), p_pair


def called(scores: np.ndarray) -> float:
    """The share of sweeps whose best is called different from the second; 5% are meant to be by chance."""
    return float((p_values(scores)[0] < LEVEL).mean())


def compared(*groups: list[float]) -> Any:
    return compare_best_two(np.array(groups).T)


def test_a_summary_by_hand() -> None:
    found = summary([1.0, 2.0, 3.0, 4.0])
    assert (found.n, found.mean, found.std) == (4, 2.5, pytest.approx(math.sqrt(5 / 3), abs=1e-12))
    # 2.5 -+ 3.182446 * 1.290994 / 2
    assert (found.low, found.high) == (pytest.approx(0.445739, abs=1e-5), pytest.approx(4.554261, abs=1e-5))
    assert (summary([0.5]).n, summary([0.5]).std, summary([0.5]).low) == (1, None, None)
    assert (summary([0.5, 0.5]).std, summary([0.5, 0.5]).low, summary([0.5, 0.5]).high) == (0.0, 0.5, 0.5)


def test_two_groups_are_a_paired_t_test() -> None:
    found, paired = compared(FIRST, SECOND), stats.ttest_rel(FIRST, SECOND)
    # differences 0.03, 0.02, 0.05, 0.01: mean 0.0275, std 0.0170783
    assert (found.shared, found.difference) == (4, pytest.approx(0.0275, abs=1e-12))
    assert found.t == pytest.approx(0.0275 / (0.01707825 / 2), rel=1e-5)
    assert (found.p_pair, found.p) == (paired.pvalue, pytest.approx(paired.pvalue, abs=1e-8))
    assert found.smallest == pytest.approx(stats.t.ppf(0.975, 3) * 0.01707825 / 2, rel=1e-6)
    # a best that trails on the shared seeds is not better
    assert (compared(SECOND, FIRST).p, compared(SECOND, FIRST).difference) == (1.0, -found.difference)


@pytest.mark.parametrize("seeds", [2, 3, 5, 30])
def test_groups_far_behind_change_nothing(seeds: int) -> None:
    near = sweeps(2, seeds, count=200)
    far = np.concatenate([near, near.mean(2, keepdims=True) - 1e4 + sweeps(4, seeds, count=200)], axis=2)
    p, p_pair = p_values(near)
    assert p == pytest.approx(p_pair, abs=1e-7)
    assert p_values(far)[0] == pytest.approx(p_pair, abs=1e-3)


def test_the_gap_among_tied_groups_is_that_of_simulated_ones() -> None:
    random = np.random.default_rng(3)
    means = np.sort(random.normal(size=(400_000, 5)), axis=1)
    noise = np.sqrt(random.chisquare(3, 400_000) / 3)
    simulated = (means[:, -1] - means[:, -2]) / (math.sqrt(2) * noise)
    # five groups with one and the same mean, so that all count as tied
    scores = np.array([[1.0, -1.0, 0.5, -0.5]] * 5).T[None] * [1.0, 1.1, 0.9, 1.2, 0.8]
    shifted = scores + np.array([0.4, 0, 0, 0, 0])
    t = stats.ttest_rel(shifted[0, :, 0], shifted[0, :, 1]).statistic
    assert p_values(shifted)[0] == pytest.approx((simulated > t).mean(), abs=2e-3)


@pytest.mark.parametrize("seeds", [3, 5, 10])
@pytest.mark.parametrize("groups", [2, 3, 5, 8])
def test_of_sweeps_in_which_nothing_differs_five_percent_are_called(groups: int, seeds: int) -> None:
    assert 0.03 <= called(sweeps(groups, seeds)) <= 0.07


def test_about_five_percent_of_ties_are_called_whatever_the_other_groups_are_like() -> None:
    assert 0.03 <= called(sweeps(8, 10, (5.0, 5.0))) <= 0.07  # worse
    diverged = sweeps(5, 5, (4.0, 4.0))
    diverged[:, :, 4] = 100 * sweeps(1, 5)[:, :, 0] - 300
    assert 0.03 <= called(diverged) <= 0.08
    pairs = sweeps(6, 5)  # of configurations that come to nearly the same, with little noise of their own
    pairs[:, :, 1::2] = pairs[:, :, ::2] + 1e-3 * sweeps(3, 5)
    pairs[:, :, 1::2] -= 1e-3 * sweeps(3, 5).mean(2, keepdims=True)
    assert 0.03 <= called(pairs) <= 0.08  # 15% if the others' noise were theirs


def test_a_better_best_is_found_though_others_are_much_worse() -> None:
    assert called(sweeps(3, 5, (12.0, 10.0))) > 0.6
    assert called(sweeps(8, 5, (13.0, 10.0))) > 0.75


def test_groups_are_compared_over_the_seeds_they_have_if_the_difference_varies_over_two() -> None:
    third = [0.5, math.nan, 0.6, 0.55]
    found = compared(FIRST, SECOND, third)
    assert found == compared(FIRST, SECOND, third, [math.nan] * 4)
    assert found.p == pytest.approx(found.p_pair, rel=0.05)
    for scores in ([[0.9, 0.8]], [[0.9, 0.8], [0.7, 0.6]], [[0.5, 0.5, 0.1], [0.6, 0.6, 0.2]]):
        assert compare_best_two(np.array(scores)) is None


def test_mcnemar_counts_rows_that_only_one_got_right_and_twice_the_median_counts_of_several() -> None:
    first = np.array([True] * 9 + [False] * 3)
    second = np.array([True] * 2 + [False] * 7 + [True] + [False] * 2)
    # 2 * (C(8,0) + C(8,1)) / 2^8
    assert mcnemar(first, second) == (7, 1, pytest.approx(2 * 9 / 256, abs=1e-12))
    assert mcnemar(first, first) == (0, 0, 1.0)
    assert significance.combined([0.001, 0.02, 0.9]) == pytest.approx(0.04)
    assert significance.combined([0.8, 0.9]) == 1.0
