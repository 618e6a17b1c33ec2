"""Names that look alike are compared as equal, and told apart in messages by their code points."""

from __future__ import annotations

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
    assert spelt_out("é") == "é" != spelt_out(unicodedata.normalize("NFD", "é")) == "e<U+0301>"


def test_what_shows_is_named_as_it_is() -> None:
    for name in ("제목·본문", "가격(₩) – “값”", "😀 좋음", "日本語, الف"):
        assert spelt_out(name) == name


def test_more_combining_marks_than_any_language_has_are_not_put_in_order() -> None:
    marks = "가" + "\u0301\u0323" * 500  # to sort them takes the square of their number
    assert (normalised(marks) == marks) is True  # else pytest would show both
    assert normalised(marks[:-1]) != marks[:-1]
    assert normalised("e\u0301" * 2000) == "é" * 2000
