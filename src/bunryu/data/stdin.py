"""Lines of a stream as rows, as soon as they come."""

from __future__ import annotations

import codecs
from collections.abc import Iterator
from typing import Protocol

from bunryu.data.decoding import newlines_are_bytes
from bunryu.data.rows import Row, RowCounts, unusable
from bunryu.errors import ConfigError, DataError

BLOCK = 1 << 16  # bytes taken at once, at most


class Source(Protocol):
    """A binary stream such as ``sys.stdin.buffer``."""

    def read1(self, size: int, /) -> bytes:
        """What has come, at most ``size`` bytes; waits only if that is nothing. Empty at the end."""


def line_windows(source: Source, encoding: str, pairs: bool, counts: RowCounts) -> Iterator[list[Row]]:
    """Rows of a stream of lines; each list holds the lines that had come when it was asked for.

    So a slow writer gets its answers line by line and a fast one in large lists.

    Args:
        encoding: any in which a newline is one byte.
        pairs: whether a line is two texts with a tab between them.

    Raises:
        ConfigError: if the encoding does not fit.
        DataError: at the end, if more than a tenth of the lines could not be decoded.
    """
    if not newlines_are_bytes(encoding):
        what = f"lines cannot be read as '{encoding}'"
        raise ConfigError(what, where="--encoding", fix="utf-8, cp949, or a file instead")
    rest = b""
    while block := source.read1(BLOCK):
        *lines, rest = (rest + block).split(b"\n")
        if lines:
            yield [_row(line, encoding, pairs, counts) for line in lines]
    if rest:
        yield [_row(rest, encoding, pairs, counts)]
    if (bad := counts.rejected.get(f"not {encoding}", 0)) * 10 > counts.read:
        what = f"{bad} of {counts.read} lines are not {encoding}"
        raise DataError(what, where=counts.file, fix="--encoding cp949, or whatever they are written in")


def _row(line: bytes, encoding: str, pairs: bool, counts: RowCounts) -> Row:
    counts.lines += 1
    counts.read += 1
    number = counts.read
    if number == 1:
        line = line.removeprefix(codecs.BOM_UTF8)
    try:
        text = line.removesuffix(b"\r").decode(encoding)
        problem = "" if text.strip() else "blank line"
    except UnicodeDecodeError:
        text, problem = "", f"not {encoding}"
    values = text.split("\t") if pairs else [text]
    no_pair = f"{len(values)} fields instead of text, tab, text" if pairs and len(values) != 2 else ""
    return counts.row(number, values, problem or unusable(values) or no_pair)
