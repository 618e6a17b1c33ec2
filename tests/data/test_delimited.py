"""How far records are read ahead. What is made of lines is tested through tables."""

from __future__ import annotations

from collections.abc import Iterator

from bunryu.data.delimited import delimited_records


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
    found = list(records(['"open,1', *["a,2"] * 39], 10))
    assert [read for read, _ in found] == [10] * 10 + list(range(11, 41))
    stray = (1, ['"open', "1"], 1, "stray quote")
    assert [record for _, record in found] == [stray] + [(n, ["a", "2"], 1, "") for n in range(2, 41)]


def test_a_record_may_be_as_long_as_the_longest_and_no_longer() -> None:
    def found(span: int) -> list[tuple[int, list[str], int, str]]:
        return [record for _, record in records(['"a', *["b"] * (span - 2), 'c",1', "d,2"], 10)]

    assert found(10) == [(1, ["a\n" + "b\n" * 8 + "c", "1"], 10, ""), (11, ["d", "2"], 1, "")]
    assert [problem for *_, problem in found(11)] == ["stray quote"] + [""] * 11
    assert [number for number, *_ in found(11)] == list(range(1, 13))


def test_lines_read_ahead_are_records_of_their_own_after_a_stray_quote() -> None:
    found = [(n, fields) for _, (n, fields, *_) in records(['"open,1', "a,2", '"b', 'c",3', "d,4"], 2)]
    assert found == [(1, ['"open', "1"]), (2, ["a", "2"]), (3, ["b\nc", "3"]), (5, ["d", "4"])]
