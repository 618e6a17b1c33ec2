"""Lines to records: fields between delimiters, with quotes that may span lines, and JSON objects."""

from __future__ import annotations

import csv
import json
from collections import deque
from collections.abc import Iterator
from typing import Any


def delimited_records(
    lines: Iterator[str], delimiter: str, *, quotes: bool, longest: int
) -> Iterator[tuple[int, list[str], int, str]]:
    r"""``(line, fields, lines taken, problem)`` of each record, read as they are asked for.

    A quote that opens a field and does not close affects its own line only: the record is that line,
    split at its delimiters, with the problem ``stray quote``.

    Args:
        lines: without their ``\n``; a ``\r`` at the end is dropped.
        quotes: whether ``"`` quotes fields or is a character like any other.
        longest: lines one record may span, and the most that are read ahead.
    """
    csv.field_size_limit(2**31 - 1)  # a document may be longer than csv's 131,072 characters
    ahead: deque[str] = deque()  # lines read while looking for the end of a quote, and not yet used
    number = 1
    while (line := ahead.popleft() if ahead else next(lines, None)) is not None:
        plain = line.removesuffix("\r")
        fields, taken, problem = plain.split(delimiter), 1, ""
        if quotes and '"' in plain:
            quoted, span = _quoted(_with_next(line, ahead, lines, longest), delimiter)
            if span:
                fields, taken = quoted, span
                for _ in range(span - 1):
                    ahead.popleft()
            else:
                problem = "stray quote"
        yield number, fields, taken, problem
        number += taken


def json_object(line: str) -> tuple[dict[str, Any], str]:
    """The object that a line is, or why it is none."""
    if not line.strip():
        return {}, "blank line"
    try:
        row = json.loads(line)
    except (ValueError, RecursionError):  # also a number of more digits than Python converts
        return {}, "not JSON"
    return (row, "") if isinstance(row, dict) else ({}, "not a JSON object")


def _with_next(line: str, ahead: deque[str], lines: Iterator[str], longest: int) -> Iterator[str]:
    """A line and those after it, ``longest`` in all; lines read for it are kept in ``ahead``."""
    yield line
    yield from ahead
    while len(ahead) < longest - 1 and (further := next(lines, None)) is not None:
        ahead.append(further)
        yield further


def _quoted(lines: Iterator[str], delimiter: str) -> tuple[list[str], int]:
    """Fields of the csv record at the beginning of the lines, and how many it takes; 0 if there is none."""
    reader = csv.reader((f"{line}\n" for line in lines), delimiter=delimiter, strict=True)
    try:
        return next(reader), reader.line_num
    except csv.Error:
        return [], 0
