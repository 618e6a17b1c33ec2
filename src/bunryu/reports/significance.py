"""Is the best of several groups better than the second, or only luckier with its seeds?

The paired t-test of the best and the second is wrong after choosing these two from k groups: nobody named
them beforehand. Here t is that of ``scipy.stats.ttest_rel``, but it is judged by how large the gap between
the two largest of k means gets by chance (Gutmann and Maymin, "Is the selected population the best?",
Annals of Statistics 15, 1987). With f = seeds - 1, the density χ_f of a chi variable, the standard normal's
density φ and distribution Φ, and group i's true mean μ_i in standard errors of one group's mean:

    p    = ∫ χ_f(c) H(t c √(2 / f)) dc              the gap exceeds t of its own estimated standard errors
    H(g) = Σ_i ∫ φ(x - μ_i) Π_{j≠i} Φ(x - g - μ_j) dx    one mean exceeds all others by g

The μ of the best and the second are taken as equal, the others' where they were seen, shrunk towards all
groups' median as James and Stein shrink (by k + 2 instead of k - 3, so that groups that do not differ at
all count as tied). The unit is the groups' median noise, which one diverged group does not move. With two
groups, or with all others far behind, p is that of the paired t-test.

Of eight groups that do not differ the plain paired test calls 0.4% different, not 5%, and so misses what is
there. With all k taken as equal, 21% would be called different where only two are equal and six are worse.
This calls 4 to 6% in either case, and 12% at its worst, where six are 2.5 standard errors of a mean behind
two equal ones and there are ten seeds. Permutations within three seeds of two groups are eight, too few.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt
from scipy import optimize, special, stats

Floats = npt.NDArray[np.float64]

LEVEL = 0.05
UNUSUAL = 0.01  # probability of noise so small that a pair that has less is not of the common noise
MAX_GAP = 10.0  # of two tied means, in standard errors of one, beyond which no probability is left
X, X_STEP = np.linspace(-7.0, 7.0, 29, retstep=True)  # where H is summed: exact to ten digits
C_NODES, C_WEIGHTS = np.polynomial.legendre.leggauss(32)  # for the integral over c


@dataclass(frozen=True)
class Summary:
    """A group's metric over its seeds: with one seed there is neither deviation nor 95% t interval."""

    n: int
    mean: float
    std: float | None = None
    low: float | None = None
    high: float | None = None


@dataclass(frozen=True)
class PairedComparison:
    """The best against the second over the seeds they share."""

    shared: int  # how many seeds
    difference: float  # mean of the best's advantage, seed by seed
    t: float  # of the paired t-test
    p_pair: float  # of the paired t-test, as if the two had been named beforehand
    p: float  # of the same t among all groups they were chosen from
    smallest: float  # the smallest difference that would be significant with noise like this


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


def compare_best_two(scores: Floats) -> PairedComparison | None:
    """The best group against the second; None for fewer than two seeds, or if their differences do not vary.

    Scores have shape (seeds, groups): larger is better, the best first, then the second. These two share
    every seed; NaN stands where another group lacks it.
    """
    if len(scores) < 2:
        return None
    advantage = scores[:, 0] - scores[:, 1]
    error = float(stats.sem(advantage))
    if error <= 1e-12 * float(np.abs(scores[:, :2]).max()):
        return None
    paired = stats.ttest_rel(scores[:, 0], scores[:, 1])
    t, freedom = float(paired.statistic), len(scores) - 1
    means = estimated_means(scores[:, ~np.isnan(scores).all(0)])

    def p(t: float) -> float:
        return float(p_of_gap(np.array(t), means, freedom)) if t > 0 else 1.0

    log_t = optimize.brentq(lambda log_t: p(np.exp(log_t)) - LEVEL, np.log(1e-3), np.log(1e4))
    difference, smallest = float(advantage.mean()), error * float(np.exp(log_t))
    return PairedComparison(len(scores), difference, t, float(paired.pvalue), p(t), smallest)


def mcnemar(first: npt.NDArray[np.bool_], second: npt.NDArray[np.bool_]) -> tuple[int, int, float]:
    """McNemar's exact test: how many rows only the first got right, how many only the second, and p.

    Both have shape (rows,), True where a classifier was right; p is two-sided.
    """
    won, lost = int((first & ~second).sum()), int((second & ~first).sum())
    return won, lost, float(stats.binomtest(won, won + lost).pvalue) if won + lost else 1.0


def combined(p_values: Sequence[float]) -> float:
    """One p of several that are of the same rows: twice their median.

    That holds however they depend on each other (Rüger 1978; Vovk and Wang, Biometrika 107, 2020), while
    a test over all seeds' rows together would count every row once for each seed.
    """
    return min(1.0, 2 * float(np.median(p_values)))


def estimated_means(scores: Floats) -> Floats:
    """The formula's μ, shape (…, groups), 0 for the best two.

    Scores have shape (…, seeds, groups) as in ``compare_best_two``; no group is all NaN.
    """
    centred = scores - np.nanmedian(scores, axis=-1, keepdims=True)
    means = np.nanmean(centred, axis=-2, keepdims=True)  # over the seeds that a group has
    error = np.sqrt(np.maximum(_noise(scores, centred - means), 1e-300) / scores.shape[-2])[..., None]
    means = means[..., 0, :]
    spread = (((means - np.median(means, axis=-1, keepdims=True)) / error) ** 2).sum(-1, keepdims=True)
    shrunk = np.clip(1 - (means.shape[-1] + 2) / np.maximum(spread, 1e-300), 0, 1)
    behind: Floats = np.minimum(means - means[..., :2].mean(-1, keepdims=True), 0) / error * shrunk
    behind[..., :2] = 0
    return np.asarray(np.maximum(behind, -2 * MAX_GAP))


def _noise(scores: Floats, residuals: Floats) -> Floats:
    """The variance of one score over seeds, shape (…): the groups' median, or the best two's if far less."""
    groups, freedom = scores.shape[-1], scores.shape[-2] - 1
    counts = np.maximum((~np.isnan(scores)).sum(-2) - 1, 1)
    typical = np.median(np.nansum(residuals**2, axis=-2) / counts, axis=-1)
    # the median of such variances is below their mean, and centring each seed takes its share of them
    typical *= freedom / _chi2_quantile(0.5, freedom) * groups / (groups - 1)
    # two configurations that come to nearly the same have a noise of their own
    own = (scores[..., 0] - scores[..., 1]).var(-1, ddof=1) / 2
    is_unusual = own < typical * _chi2_quantile(UNUSUAL, freedom) / freedom
    return np.asarray(np.where(is_unusual, own, typical))


def p_of_gap(t: Floats, means: Floats, freedom: int) -> Floats:
    """The formula's p, shape (…), of t above 0, shape (…), and μ, shape (…, groups); freedom is seeds - 1."""
    scale = np.maximum(t, 1e-9)[..., None] * np.sqrt(2 / freedom)
    ends = _chi2_quantile(1e-10, freedom) ** 0.5, _chi2_quantile(1 - 1e-10, freedom) ** 0.5
    low, high = (np.minimum(end, MAX_GAP / scale) for end in ends)
    c = (low + high) / 2 + (high - low) / 2 * C_NODES
    log_density = (freedom - 1) * np.log(c) - c**2 / 2 - special.gammaln(freedom / 2)
    weights = (high - low) * C_WEIGHTS * np.exp(log_density) * 2 ** (-freedom / 2)
    return np.asarray(np.clip((weights * _exceeded(scale * c, means)).sum(-1), 0, 1))


def _exceeded(gaps: Floats, means: Floats) -> Floats:
    """The formula's H of gaps, shape (…, gaps), for means of shape (…, groups)."""
    means = means[..., None, :, None]
    density = np.exp(-((X - means) ** 2) / 2) / np.sqrt(2 * np.pi)
    log_below = special.log_ndtr(X - gaps[..., None, None] - means)  # shape (…, gaps, groups, X)
    log_others_below = log_below.sum(-2, keepdims=True) - log_below
    return np.asarray((density * np.exp(log_others_below)).sum(axis=(-2, -1)) * X_STEP)


def _chi2_quantile(p: float, freedom: int) -> float:
    return float(2 * special.gammaincinv(freedom / 2, p))
