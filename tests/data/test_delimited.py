"""How far records are read ahead. What is made of lines is tested through tables."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import pytest

from bunryu.data import delimited
from bunryu.data.delimited import DOUBTFUL, ESCAPED, delimited_records


def records(lines: list[str], longest: int) -> Iterator[tuple[int, tuple[int, list[str], int, str]]]:
    """Each record with how many lines had been read when it was given out."""
    read = 0

    def counted() -> Iterator[str]:
        nonlocal read
        for line in lines:
            read += 1
            yield line

    for record in delimited_records(counted(), ",", quotes=True, longest=longest):
        yield read, record


def test_lines_without_quotes_are_not_read_ahead_of() -> None:
    assert list(records(["a,b"] * 50, 10)) == [(n, (n, ["a", "b"], 1, "")) for n in range(1, 51)]


def test_an_open_quote_is_looked_for_in_the_longest_record_only() -> None:
    found = list(records(['"open,1', *["a,2"] * 39], 40))
    assert [read for read, _ in found] == [10] * 10 + list(range(11, 41))
    stray = (1, ['"open', "1"], 1, "stray quote")
    assert [record for _, record in found] == [stray] + [(n, ["a", "2"], 1, "") for n in range(2, 41)]


def test_a_record_may_be_as_long_as_the_longest_and_no_longer() -> None:
    def found(span: int) -> list[tuple[int, list[str], int, str]]:
        return [record for _, record in records(['"a', *["b"] * (span - 2), 'c",1', "d,2"], 20)]

    assert found(10) == [(1, ["a\n" + "b\n" * 8 + "c", "1"], 10, ""), (11, ["d", "2"], 1, "")]
    assert [problem for *_, problem in found(12)] == ["stray quote"] + [""] * 12
    assert [number for number, *_ in found(12)] == list(range(1, 14))


def test_lines_read_ahead_are_records_of_their_own_after_a_stray_quote() -> None:
    found = [(n, fields) for _, (n, fields, *_) in records(['"open,1', "a,2", '"b', 'c",3', "d,4"], 9)]
    assert found == [(1, ['"open', "1"]), (2, ["a", "2"]), (3, ["b\nc", "3"]), (5, ["d", "4"])]


HEADER = "text,label"
PROSE = ["첫 줄", "둘째, 줄"] * 1000


@pytest.mark.parametrize(
    ("lines", "taken", "problem"),
    [
        pytest.param([HEADER, '"보고', *PROSE, '끝",나쁨', "좋다,좋음"], 2002, "", id="a long record"),
        pytest.param([HEADER, '"보고', *["글,좋음"] * 2000, '끝",나쁨'], 1, DOUBTFUL, id="rows inside"),
        pytest.param(
            [HEADER, '"보고', *["글,좋음"] * 2000, '끝, 끝",나쁨'], 2002, "", id="no row at the end"
        ),
        pytest.param([HEADER, '"보고', *PROSE, '끝",나쁨,또'], 1, "stray quote", id="another width"),
        pytest.param([HEADER, '"보고', *PROSE, '"끝",나쁨'], 1, "stray quote", id="a quote amid text"),
        pytest.param(["text", '"보고', *PROSE, '끝"'], 2002, "", id="one column, where all look like rows"),
        pytest.param([HEADER, r'"그는 \"좋다\" 했다",좋음'], 1, ESCAPED, id="backslashes"),
    ],
)
def test_a_long_record_is_told_from_a_stray_quote(lines: list[str], taken: int, problem: str) -> None:
    found = list(delimited_records(iter(lines), ",", quotes=True))
    assert (found[1][2], found[1][3]) == (taken, problem)
    assert sum(record[2] for record in found) == len(lines)


@pytest.mark.parametrize("block", [['"열고,1', *["글,1"] * 400, '그는 ""참"" 했다,1'], ['a","'] * 400])
def test_stray_quotes_are_looked_for_in_linear_time(
    block: list[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    looked, found_next = 0, delimited._with_next

    def counted(*arguments: Any) -> Iterator[str]:
        nonlocal looked
        for line in found_next(*arguments):
            looked += 1
            yield line

    monkeypatch.setattr(delimited, "_with_next", counted)
    lines = [HEADER, *block * 50]
    found = delimited_records(iter(lines), ",", quotes=True, longest=50_000)
    assert [record[0] for record in found] == list(range(1, len(lines) + 1))
    assert looked < 9 * len(lines)
