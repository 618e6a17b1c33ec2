"""Validation is drawn from train the same way everywhere, and labels are in a fixed order."""

from __future__ import annotations

from collections import Counter
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from bunryu.data.examples import Example
from bunryu.data.splits import sort_labels, split_validation
from bunryu.errors import ConfigError
from helpers.tables import same_folder


def examples(labels: str) -> list[Example]:
    """One example a letter, the letter being its label."""
    return [Example(row, f"text {row}", label) for row, label in enumerate(labels)]


def rows_of(split: list[Example]) -> list[int]:
    return [example.row for example in split]


@same_folder
@given(
    labels=st.text("abc", min_size=2, max_size=60),
    share=st.floats(0.01, 0.99),
    seed=st.integers(0, 2**32),
)
def test_the_split_is_complete_disjoint_ordered_and_stratified(labels: str, share: float, seed: int) -> None:
    everything = examples(labels)
    try:
        train, validation = split_validation(everything, [], share, seed)
    except ConfigError as error:
        assert error.where == "corpus.validation"
        assert all(count == 1 or count * share < 0.5 for count in Counter(labels).values())
        return
    assert sorted(train + validation) == everything
    assert rows_of(train) == sorted(rows_of(train))
    assert rows_of(validation) == sorted(rows_of(validation))
    kept, drawn = (Counter(example.label for example in split) for split in (train, validation))
    for label, count in Counter(labels).items():
        assert kept[label] >= 1
        assert abs(drawn[label] - count * share) <= 0.5 or (drawn[label], kept[label]) == (count - 1, 1)


def test_the_draw_of_a_label_does_not_depend_on_the_order_of_the_others() -> None:
    def drawn(labels: str) -> list[int]:
        return [e.row for e in split_validation(examples(labels), [], 0.5, 7)[1] if e.label == "a"]

    assert drawn("abcabcabcabc") == drawn("acbabbaccacb") == drawn("abbabbabbabb")
    assert len(drawn("abcabcabcabc")) == 2


def test_the_draw_moves_with_the_seed_and_only_with_it() -> None:
    everything = examples("ab" * 50)
    draws = [rows_of(split_validation(everything, [], 0.2, seed)[1]) for seed in range(10)]
    assert {len(draw) for draw in draws} == {20}
    assert len({tuple(draw) for draw in draws}) == 10
    # Written down: the same rows on every machine and in every version, or figures stop being comparable.
    assert rows_of(split_validation(examples("ab" * 10), [], 0.3, 42)[1]) == [0, 2, 5, 9, 18, 19]


def test_validation_test_is_the_test_split() -> None:
    train, test = examples("abab"), examples("ba")
    assert split_validation(train, test, "test", 1) == (train, test)
    with pytest.raises(ConfigError, match="no test split") as refused:
        split_validation(train, [], "test", 1)
    assert refused.value.where == "corpus.validation=test"


@pytest.mark.parametrize("share", [0.0, 1.0, -0.1, 1.5, float("nan"), "half", True, 1, None])
def test_what_is_no_share_is_refused(share: Any) -> None:
    with pytest.raises(ConfigError) as refused:
        split_validation(examples("abab"), [], share, 1)
    assert refused.value.what == f"validation is {share!r}"
    assert refused.value.fix == "a share between 0 and 1, or 'test'"


def test_a_share_that_gives_no_row_is_refused() -> None:
    with pytest.raises(ConfigError, match=r"0\.1 of 4 rows leaves none to validate on") as refused:
        split_validation(examples("aabb"), [], 0.1, 1)
    assert refused.value.fix.startswith("corpus.validation=0.25 or more")
    assert split_validation(examples("aabb"), [], 0.25, 1)[1] != []


def test_integer_labels_are_sorted_by_value_and_text_by_code_point() -> None:
    assert sort_labels(["10", "9", "-1", "9"]) == ("-1", "9", "10")
    assert sort_labels(["긍정", "부정", "10", "9"]) == ("10", "9", "긍정", "부정")
    assert sort_labels(["01", "1", "0"]) == sort_labels(["1", "01", "0"]) == ("0", "01", "1")
    assert sort_labels(["9" * 5000, "1"]) == ("1", "9" * 5000)
