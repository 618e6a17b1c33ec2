from __future__ import annotations

import numpy as np
import pytest
from scipy import stats

from bunryu.reports.importance import importance


def test_importance_is_the_share_of_variance_between_a_keys_values() -> None:
    scores = [1.0, 2.0, 5.0, 6.0]
    found = importance({"small": ["a", "b", "a", "b"], "large": [1, 1, 2, 2], "same": [1] * 4}, scores)
    # total 17; means 1.5 and 5.5 around 3.5: 16; means 3 and 4: 1
    assert [(each.key, each.levels) for each in found] == [("large", 2), ("small", 2)]
    assert [each.share for each in found] == pytest.approx([16 / 17, 1 / 17])
    assert found[0].chance == pytest.approx(1 / 3)


def test_importance_is_what_an_f_test_is_made_of() -> None:
    random = np.random.default_rng(5)
    groups = [random.normal(mean, 1, 20) for mean in (0, 0.5, 2)]
    share = importance({"key": ["a"] * 20 + ["b"] * 20 + ["c"] * 20}, [*np.concatenate(groups)])[0].share
    assert share / 2 / ((1 - share) / 57) == pytest.approx(stats.f_oneway(*groups).statistic, rel=1e-9)


def test_many_numbers_are_cut_into_fifths() -> None:
    values = list(np.linspace(0, 1, 100))
    (found,) = importance({"lr": values}, values)
    assert found.levels == 5
    assert found.share == pytest.approx(0.96, abs=0.005)
    assert importance({"lr": values}, [1.0] * 100) == []
