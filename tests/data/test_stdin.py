"""Lines of a stream as rows, as soon as they come."""

from __future__ import annotations

import pytest

from bunryu.data.rows import Row, RowCounts
from bunryu.data.stdin import line_windows
from bunryu.errors import ConfigError, DataError


class Blocks:
    """A stream that gives these blocks, one a call."""

    def __init__(self, *blocks: bytes) -> None:
        self.given = 0
        self._blocks = blocks

    def read1(self, size: int, /) -> bytes:
        self.given += 1
        return self._blocks[self.given - 1] if self.given <= len(self._blocks) else b""


def rows(*blocks: bytes, encoding: str = "utf-8", pairs: bool = False) -> tuple[list[Row], RowCounts]:
    counts = RowCounts("standard input")
    found = [row for window in line_windows(Blocks(*blocks), encoding, pairs, counts) for row in window]
    assert counts.read == counts.lines == counts.used + sum(counts.rejected.values()) == len(found)
    return found, counts


def test_what_has_come_is_given_before_more_is_asked_for() -> None:
    blocks = Blocks("하나\n".encode(), "둘\n셋\n".encode())
    windows = line_windows(blocks, "utf-8", False, RowCounts("standard input"))
    assert next(windows) == [Row(1, ["하나"], "")]
    assert blocks.given == 1
    assert next(windows) == [Row(2, ["둘"], ""), Row(3, ["셋"], "")]


@pytest.mark.parametrize("size", [1, 2, 3, 5])
@pytest.mark.parametrize("encoding", ["utf-8", "cp949"])
def test_a_character_may_come_in_parts_and_the_last_line_without_an_end(size: int, encoding: str) -> None:
    content = "재밌다\r\n별로\n끝".encode(encoding)
    blocks = [content[start : start + size] for start in range(0, len(content), size)]
    assert [row.values for row in rows(*blocks, encoding=encoding)[0]] == [["재밌다"], ["별로"], ["끝"]]


def test_bad_lines_are_rows_with_their_problem() -> None:
    found, counts = rows(b"\xef\xbb\xbfa\tb\n\n \nb\xff\nc\0d\n" + b"e\n" * 5)
    assert found[:6] == [
        Row(1, ["a\tb"], ""),  # without pairs a tab is text
        Row(2, None, "blank line"),
        Row(3, None, "blank line"),
        Row(4, None, "not utf-8"),
        Row(5, None, "NUL character"),
        Row(6, ["e"], ""),
    ]
    assert counts.rejected_rows[2] == "standard input:4: not utf-8"


def test_a_pair_is_two_texts_with_a_tab() -> None:
    found, _ = rows("비가 온다\t우산을 쓴다\n하나뿐\na\tb\tc\n".encode(), pairs=True)
    assert found == [
        Row(1, ["비가 온다", "우산을 쓴다"], ""),
        Row(2, None, "1 fields instead of text, tab, text"),
        Row(3, None, "3 fields instead of text, tab, text"),
    ]


@pytest.mark.parametrize("encoding", ["utf-16", "no-such"])
def test_an_encoding_without_one_byte_newlines_is_refused(encoding: str) -> None:
    with pytest.raises(ConfigError, match=f"lines cannot be read as '{encoding}'"):
        rows(b"a\n", encoding=encoding)


@pytest.mark.parametrize(("good", "bad"), [(1, 3), (0, 1), (8, 1)])
def test_more_than_a_tenth_in_another_encoding_is_refused_at_the_end(good: int, bad: int) -> None:
    with pytest.raises(DataError, match=f"{bad} of {good + bad} lines are not utf-8") as refused:
        rows(b"plain\n" * good + "재밌다\n".encode("cp949") * bad)
    assert refused.value.fix.startswith("--encoding cp949")
    rows(b"plain\n" * 9 * bad + "재밌다\n".encode("cp949") * bad)
