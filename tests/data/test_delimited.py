"""records.py: how far it reads ahead. What it makes of lines is tested through tables.py."""

from __future__ import annotations

from collections.abc import Iterator

from bunryu.data.delimited import delimited_records


class Lines:
    """Lines that count how many of them were taken."""

    def __init__(self, lines: list[str]) -> None:
        self.taken = 0
        self._lines = lines

    def __iter__(self) -> Iterator[str]:
        for line in self._lines:
            self.taken += 1
            yield line


def test_lines_without_quotes_are_not_read_ahead_of() -> None:
    lines = Lines(["a,b"] * 50)
    for number, fields, taken, problem in delimited_records(iter(lines), ",", quotes=True, longest=10):
        assert (number, fields, taken, problem) == (lines.taken, ["a", "b"], 1, "")
    assert lines.taken == 50


def test_an_open_quote_is_looked_for_in_the_longest_record_only() -> None:
    lines = Lines(['"open,1', *["a,2"] * 39])
    taken_at, found = [], []
    for number, fields, _, problem in delimited_records(iter(lines), ",", quotes=True, longest=10):
        taken_at.append(lines.taken)
        found.append((number, fields, problem))
    assert taken_at == [10] * 10 + list(range(11, 41))
    assert found == [(1, ['"open', "1"], "stray quote")] + [(n, ["a", "2"], "") for n in range(2, 41)]


def test_a_record_may_be_as_long_as_the_longest_and_no_longer() -> None:
    def lines_of(span: int) -> Iterator[str]:
        return iter(['"a', *["b"] * (span - 2), 'c",1', "d,2"])

    ten = list(delimited_records(lines_of(10), ",", quotes=True, longest=10))
    assert ten == [(1, ["a\n" + "b\n" * 8 + "c", "1"], 10, ""), (11, ["d", "2"], 1, "")]
    eleven = list(delimited_records(lines_of(11), ",", quotes=True, longest=10))
    assert [problem for *_, problem in eleven] == ["stray quote"] + [""] * 11
    assert [number for number, *_ in eleven] == list(range(1, 13))


def test_lines_read_ahead_are_records_of_their_own_after_a_stray_quote() -> None:
    lines = ['"open,1', "a,2", '"b', 'c",3', "d,4"]
    found = [(n, fields) for n, fields, *_ in delimited_records(iter(lines), ",", quotes=True, longest=2)]
    assert found == [(1, ['"open', "1"]), (2, ["a", "2"]), (3, ["b\nc", "3"]), (5, ["d", "4"])]
