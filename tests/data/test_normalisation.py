"""Names that look alike are compared as equal, and told apart in messages by their code points."""

from __future__ import annotations

import time
import unicodedata

import pytest

from bunryu.data.normalisation import name_of, normalised, spelt_out


@pytest.mark.parametrize(
    "written",
    [
        unicodedata.normalize("NFD", "긍정"),
        "긍정\u200b",
        "\ufeff긍정",
        "긍\u00ad정",
        "\u00a0긍정 ",
        "긍정\u2060",
    ],
)
def test_a_name_is_compared_without_what_does_not_show(written: str) -> None:
    assert name_of(written) == "긍정"
    assert spelt_out(written.strip(" ")) != "긍정"


def test_blanks_inside_a_name_are_one_space() -> None:
    assert name_of("매우\u00a0 긍정") == name_of("매우\t긍정") == "매우 긍정"


def test_texts_are_composed_and_keep_everything_else() -> None:
    assert normalised(unicodedata.normalize("NFD", "좋아요\u200b  !")) == "좋아요\u200b  !"


def test_what_does_not_show_is_named_by_its_code_point() -> None:
    assert spelt_out("긍정\u200b\u00a0") == "긍정<U+200B><U+00A0>"


def test_more_combining_marks_than_any_language_has_cost_no_time_and_change_nothing() -> None:
    marks = "가" + "\u0301\u0323" * 20_000  # out of order: to sort them takes the square of their number
    start = time.perf_counter()
    assert (normalised(marks) == marks) is True  # else pytest would show both
    assert time.perf_counter() - start < 1
    assert normalised("e\u0301" * 2000) == "é" * 2000
