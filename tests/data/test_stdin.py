"""lines.py: lines of a stream as rows, as soon as they come."""

from __future__ import annotations

import pytest

from bunryu.data.stdin import line_windows
from bunryu.data.table import Row, RowCounts
from bunryu.errors import ConfigError


class Blocks:
    """A stream that gives these blocks, one a call."""

    def __init__(self, *blocks: bytes) -> None:
        self.given = 0
        self._blocks = blocks

    def read1(self, size: int, /) -> bytes:
        self.given += 1
        return self._blocks[self.given - 1] if self.given <= len(self._blocks) else b""


def rows(*blocks: bytes, encoding: str = "utf-8", pairs: bool = False) -> tuple[list[Row], RowCounts]:
    account = RowCounts("standard input")
    windows = line_windows(Blocks(*blocks), encoding, pairs, account)
    found = [row for window in windows for row in window]
    assert account.read == account.used + sum(account.rejected.values()) == len(found)
    return found, account


def test_what_has_come_is_given_before_more_is_asked_for() -> None:
    blocks = Blocks("하나\n".encode(), "둘\n셋\n".encode())
    windows = line_windows(blocks, "utf-8", False, RowCounts("standard input"))
    assert next(windows) == [Row(1, ["하나"], "")]
    assert blocks.given == 1
    assert next(windows) == [Row(2, ["둘"], ""), Row(3, ["셋"], "")]


@pytest.mark.parametrize("size", [1, 2, 3, 5])
def test_a_character_may_come_in_parts_and_the_last_line_without_an_end(size: int) -> None:
    content = "재밌다\r\n별로\n끝".encode()
    found, _ = rows(*(content[start : start + size] for start in range(0, len(content), size)))
    assert [row.values for row in found] == [["재밌다"], ["별로"], ["끝"]]


def test_bad_lines_are_rows_with_their_problem() -> None:
    found, account = rows(b"\xef\xbb\xbfa\n\n \nb\xff\nc\0d\ne\n")
    assert found == [
        Row(1, ["a"], ""),
        Row(2, None, "blank line"),
        Row(3, None, "blank line"),
        Row(4, None, "not utf-8"),
        Row(5, None, "NUL character"),
        Row(6, ["e"], ""),
    ]
    assert account.rejected_rows[2] == "standard input:4: not utf-8"


def test_a_pair_is_two_texts_with_a_tab() -> None:
    found, _ = rows("비가 온다\t우산을 쓴다\n하나뿐\na\tb\tc\n".encode(), pairs=True)
    assert found[0].values == ["비가 온다", "우산을 쓴다"]
    assert [row.problem for row in found[1:]] == [
        "1 fields instead of text, tab, text",
        "3 fields instead of text, tab, text",
    ]


def test_without_pairs_a_tab_is_text() -> None:
    assert rows(b"a\tb\n")[0] == [Row(1, ["a\tb"], "")]


def test_another_encoding() -> None:
    assert rows("재밌다\n".encode("cp949"), encoding="cp949")[0] == [Row(1, ["재밌다"], "")]


@pytest.mark.parametrize("encoding", ["utf-16", "no-such"])
def test_an_encoding_without_one_byte_newlines_is_refused(encoding: str) -> None:
    with pytest.raises(ConfigError, match=f"lines cannot be read as '{encoding}'"):
        rows(b"a\n", encoding=encoding)
