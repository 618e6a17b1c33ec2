"""Lines of a stream as rows, as soon as they come."""

from __future__ import annotations

import codecs
from collections.abc import Iterator
from typing import Protocol

from bunryu.data.table import Row, RowCounts, unusable
from bunryu.errors import ConfigError

BLOCK = 1 << 16  # bytes taken at once, at most


class Source(Protocol):
    """A binary stream that gives what is there without waiting for more."""

    def read1(self, size: int, /) -> bytes:
        """At least one byte unless the stream ended, at most ``size``."""


def line_windows(source: Source, encoding: str, pairs: bool, account: RowCounts) -> Iterator[list[Row]]:
    """Rows of a stream of lines; each list holds the lines that had come when it was asked for.

    So a slow writer gets its answers line by line and a fast one in large lists.

    Args:
        source: such as ``sys.stdin.buffer``.
        encoding: any in which a newline is one byte.
        pairs: whether a line is two texts with a tab between them.
        account: counts the rows, and names the rejected ones.

    Raises:
        ConfigError: if the encoding does not fit.
    """
    _check(encoding)
    rest = b""
    while block := source.read1(BLOCK):
        *lines, rest = (rest + block).split(b"\n")
        if lines:
            yield [_row(line, encoding, pairs, account) for line in lines]
    if rest:
        yield [_row(rest, encoding, pairs, account)]


def _check(encoding: str) -> None:
    try:
        if "\n".encode(encoding) == b"\n":
            return
    except (LookupError, ValueError):
        pass
    raise ConfigError(
        f"lines cannot be read as '{encoding}'", where="--encoding", fix="utf-8, cp949, or a file instead"
    )


def _row(line: bytes, encoding: str, pairs: bool, account: RowCounts) -> Row:
    account.lines += 1
    account.read += 1
    number = account.read
    if number == 1:
        line = line.removeprefix(codecs.BOM_UTF8)
    try:
        text = line.removesuffix(b"\r").decode(encoding)
    except UnicodeDecodeError:
        text, problem = "", f"not {encoding}"
    else:
        problem = "" if text.strip() else "blank line"
    values = text.split("\t") if pairs else [text]
    problem = problem or unusable(values)
    if not problem and pairs and len(values) != 2:
        problem = f"{len(values)} fields instead of text, tab, text"
    if problem:
        account.reject(number, problem)
        return Row(number, None, problem)
    account.used += 1
    return Row(number, values, "")
