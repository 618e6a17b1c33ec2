"""Is the best of several groups better than the second, or only luckier with its seeds? Figures are scipy's.

The paired t of the best and the second alone is wrong after choosing them from k groups: nobody drew
these two beforehand. Here t is what ``scipy.stats.ttest_rel`` gives, but its tail is that of the gap
between the two largest of k means (Gutmann and Maymin, "Is the selected population the best?", Annals of
Statistics 15, 1987): the best and the second tied, the others where they were seen. Their distances are
shrunk towards all groups' median before, as James and Stein shrink (by k + 2 instead of k - 3, so that
groups that do not differ at all count as tied), in units of the groups' median noise, which one diverged
group does not move. With two groups, or with all others far behind, this is the paired t-test exactly.

Why not the plain paired test: of eight groups that do not differ it calls 0.4% different, not 5%, and so
misses what is there. Why not tie all k: where only two are tied and six are worse it would call 21%
different. This calls 4 to 6% in either case, and 12% at its worst, where six are 2.5 standard errors of a
mean behind two that are tied and there are ten seeds. Why not permutations within seeds: three seeds and
two groups have eight, too few for any 5%.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt
from scipy import optimize, special, stats

Floats = npt.NDArray[np.float64]

LEVEL = 0.05
UNLIKELY = 0.01  # a pair less noisy than this is not of the groups' common noise
WIDEST = 10.0  # gap of two tied means, in standard errors of one, beyond which nothing is left
NORMAL = np.arange(-7.0, 7.1, 0.5)  # where a standard normal is summed: exact to ten digits
GAPS, GAP_WEIGHTS = np.polynomial.legendre.leggauss(32)


@dataclass(frozen=True)
class Summary:
    """A group's metric over its seeds.

    Args:
        n: how many seeds.
        mean: over them.
        std: with n - 1 below the line; None for one seed.
        low: where the 95% t interval of the mean begins; None for one seed.
        high: where it ends.
    """

    n: int
    mean: float
    std: float | None = None
    low: float | None = None
    high: float | None = None


@dataclass(frozen=True)
class PairedComparison:
    """The best against the second over the seeds they share.

    Args:
        shared: how many seeds.
        difference: mean of the best's advantage, seed by seed.
        t: of the paired t-test.
        p_pair: of the paired t-test, as if the two had been named beforehand.
        p: the same t among all groups they were chosen from.
        smallest: the smallest difference that noise like this would have let through.
    """

    shared: int
    difference: float
    t: float
    p_pair: float
    p: float
    smallest: float


def summary(values: Sequence[float]) -> Summary:
    """Mean, standard deviation and 95% t interval of at least one value."""
    n, mean = len(values), float(np.mean(values))
    if n < 2:
        return Summary(n, mean)
    std = float(np.std(values, ddof=1))
    if std == 0.0:
        return Summary(n, mean, 0.0, mean, mean)
    low, high = stats.t.interval(1 - LEVEL, n - 1, mean, stats.sem(values))
    return Summary(n, mean, std, float(low), float(high))


def best_gap(scores: Floats) -> PairedComparison | None:
    """Compare the best group with the second.

    Args:
        scores: shape (seeds, groups), larger is better: best first, then the second. Every seed is one
            that these two share; NaN where another group lacks it.

    Returns:
        None if there are fewer than two seeds, or if the differences do not vary.
    """
    if len(scores) < 2:
        return None
    advantage = scores[:, 0] - scores[:, 1]
    error = float(np.std(advantage, ddof=1)) / len(advantage) ** 0.5
    if error <= 1e-12 * float(np.abs(scores[:, :2]).max()):
        return None
    paired = stats.ttest_rel(scores[:, 0], scores[:, 1])
    seen = scores[None][:, :, ~np.isnan(scores).all(0)]
    offsets, freedom = _offsets(seen), len(scores) - 1

    def excess(log_t: float) -> float:
        return float(_tail(np.exp([log_t]), offsets, freedom)[0]) - LEVEL

    smallest = error * float(np.exp(optimize.brentq(excess, np.log(1e-3), np.log(1e4))))
    t = float(paired.statistic)
    p = 1.0 if t <= 0 else float(_tail(np.array([t]), offsets, freedom)[0])
    return PairedComparison(len(scores), float(advantage.mean()), t, float(paired.pvalue), p, smallest)


def gap_p_values(scores: Floats) -> Floats:
    """``best_gap``'s p of many sweeps at once, to see what it does to sweeps one knows.

    Args:
        scores: shape (sweeps, seeds, groups), larger is better, in any order, none missing.
    """
    order = np.argsort(-scores.mean(1), axis=1)
    scores = np.take_along_axis(scores, order[:, None, :], axis=2)
    advantage = scores[:, :, 0] - scores[:, :, 1]
    n = scores.shape[1]
    t = advantage.mean(1) / (advantage.std(1, ddof=1) / n**0.5)
    return _tail(t, _offsets(scores), n - 1)


def mcnemar(first: npt.NDArray[np.bool_], second: npt.NDArray[np.bool_]) -> tuple[int, int, float]:
    """McNemar's exact test of two classifiers on the same rows.

    Args:
        first: shape (rows,), where the first was right.
        second: likewise.

    Returns:
        Rows only the first got right, rows only the second did, and the two-sided p.
    """
    won, lost = int((first & ~second).sum()), int((second & ~first).sum())
    return won, lost, float(stats.binomtest(won, won + lost).pvalue) if won + lost else 1.0


def combined(p_values: Sequence[float]) -> float:
    """One p of several that are of the same rows: twice their median.

    That holds however they depend on each other (Rüger 1978; Vovk and Wang, Biometrika 107, 2020), while
    a test over all seeds' rows together would count every row once for each seed.
    """
    return min(1.0, 2 * float(np.median(p_values)))


def _offsets(scores: Floats) -> Floats:
    """How far behind the best two each group is taken to be, in standard errors of a mean; the best two 0.

    Args:
        scores: shape (sweeps, seeds, groups), the best two first.
    """
    seeds, groups = scores.shape[1:]
    centred = scores - np.nanmedian(scores, axis=2, keepdims=True)
    residual = centred - np.nanmean(centred, axis=1, keepdims=True)
    counts = np.maximum((~np.isnan(scores)).sum(1) - 1, 1)
    variances = np.nansum(residual**2, axis=1) / counts
    # the median of such variances is below their mean, and centring each seed takes its share of them
    typical = np.median(variances, axis=1) / (stats.chi2.median(seeds - 1) / (seeds - 1))
    typical *= groups / (groups - 1)
    # two configurations that come to nearly the same have a noise of their own
    own = (scores[:, :, 0] - scores[:, :, 1]).var(1, ddof=1) / 2
    noise = np.where(own < typical * stats.chi2.ppf(UNLIKELY, seeds - 1) / (seeds - 1), own, typical)
    error = np.sqrt(np.maximum(noise, 1e-300) / seeds)[:, None]
    # a group that lacks seeds is compared over those it has
    means = np.nanmean(centred, axis=1)
    spread = ((means - np.median(means, axis=1, keepdims=True)) / error) ** 2
    kept = np.clip(1 - (groups + 2) / np.maximum(spread.sum(1, keepdims=True), 1e-300), 0, 1)
    tied = means[:, :2].mean(1, keepdims=True)
    offsets = np.minimum(means - tied, 0) / error * kept
    offsets[:, :2] = 0
    bounded: Floats = np.maximum(offsets, -2 * WIDEST)
    return bounded


def _tail(t: Floats, offsets: Floats, freedom: int) -> Floats:
    """How often the gap of the two largest of k normal means exceeds t of its own standard errors.

    The error is estimated from the pair alone, with ``freedom`` degrees, so that the gap has to exceed
    t times a chi: summed over what the chi may be.

    Args:
        t: shape (sweeps,), above 0.
        offsets: shape (sweeps, groups): true means, in standard errors of one mean.
        freedom: seeds - 1.
    """
    low, high = (np.sqrt(2 * special.gammaincinv(freedom / 2, p)) for p in (1e-10, 1 - 1e-10))
    scale = np.maximum(t, 1e-9) * np.sqrt(2 / freedom)
    first, last = np.minimum(scale * low, WIDEST), np.minimum(scale * high, WIDEST)
    gaps = (first + last)[:, None] / 2 + (last - first)[:, None] / 2 * GAPS
    density = stats.chi.pdf(gaps / scale[:, None], freedom) / scale[:, None]
    weights = (last - first)[:, None] / 2 * GAP_WEIGHTS
    tail: Floats = np.clip((weights * density * _exceeded(gaps, offsets)).sum(1), 0, 1)
    return tail


def _exceeded(gaps: Floats, offsets: Floats) -> Floats:
    """P(the largest of k normals exceeds all others by at least the gap), for shape (sweeps, gaps)."""
    below = NORMAL - gaps[:, :, None]
    shares = [special.ndtr(below - offset[:, None, None]) for offset in offsets.T]
    before = [np.ones_like(below)]
    for share in shares[:-1]:
        before.append(before[-1] * share)
    after: Floats = np.ones_like(below)
    total: Floats = np.zeros(gaps.shape)
    for index in reversed(range(len(shares))):
        density = stats.norm.pdf(NORMAL - offsets[:, index, None]) * (NORMAL[1] - NORMAL[0])
        total += (density[:, None, :] * before[index] * after).sum(-1)
        after = after * shares[index]
    return total
