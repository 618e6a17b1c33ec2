from __future__ import annotations

import numpy as np
import pytest

from bunryu.reports.importance import importance


def test_importance_is_the_share_of_variance_between_a_keys_values() -> None:
    columns = {"small": ["a", "b", "a", "b"], "large": [1, 1, 2, 2], "same": [1] * 4, "uneven": [1, 2, 2, 2]}
    found = importance(columns, [1.0, 2.0, 5.0, 6.0])
    # around the mean of 3.5 a total of 17; 1.5 and 5.5: 16; 1 and three times 13/3: 25/3; 3 and 4: 1
    assert [(each.key, each.levels) for each in found] == [("large", 2), ("uneven", 2), ("small", 2)]
    assert [each.share for each in found] == pytest.approx([16 / 17, 25 / 51, 1 / 17])
    assert found[0].chance == pytest.approx(1 / 3)


def test_many_numbers_are_cut_into_fifths() -> None:
    values = list(np.linspace(0, 1, 100))
    (found,) = importance({"lr": values}, values)
    assert (found.levels, found.share) == (5, pytest.approx(0.96, abs=0.005))
    assert importance({"lr": values}, [1.0] * 100) == []
