"""Lines to records: fields between delimiters, with quotes that may span lines, and JSON objects."""

from __future__ import annotations

import csv
import json
import re
from collections import deque
from collections.abc import Iterator
from itertools import chain, islice
from pathlib import Path
from typing import Any

from bunryu.errors import DataError

LONGEST_RECORD = 1 << 24  # characters of one quoted record, in some 100 MB of memory
VAIN_CHARACTERS_PER_READ = 4  # characters that may be looked through in vain for each one that is read
LONG_RECORD_LINES = 1000  # lines; a record that is longer has to look like one
STRAY = "stray quote"
DOUBTFUL = "a quote that opens here closes far below, and every line between looks like a row"
ESCAPED = 'a quote written as \\" and not as ""'
_BETWEEN = re.compile(r"[\s\[\],]*")  # what stands between the objects of an array


def delimited_records(
    lines: Iterator[str], delimiter: str, *, quotes: bool, longest: int = LONGEST_RECORD
) -> Iterator[tuple[int, list[str], int, str]]:
    r"""``(line, fields, lines taken, problem)`` of each record, read as they are asked for.

    A quote that opens a field and does not close affects its own line only: the record is that line,
    split at its delimiters, with the problem ``stray quote``. So does one that closes far away if the
    record had another width than the first one's, or with the problem ``DOUBTFUL`` if rows may be inside.

    Args:
        lines: without their ``\n``; a ``\r`` at the end is dropped.
        quotes: whether ``"`` quotes fields or is a character like any other.
        longest: characters one record may span, and the most that are read ahead; 0 for a line.
    """
    csv.field_size_limit(2**31 - 1)  # a document may be longer than csv's 131,072 characters
    ahead: deque[str] = deque()  # lines read while looking for the end of a quote, and not yet used
    number, width = 1, 0
    size = in_vain = 0  # characters read, and looked through in vain
    while (line := ahead.popleft() if ahead else next(lines, None)) is not None:
        plain = line.removesuffix("\r")
        fields, taken, problem = plain.split(delimiter), 1, ""
        size += len(line)
        if quotes and '"' in plain:
            room = min(longest, longest + VAIN_CHARACTERS_PER_READ * size - in_vain)
            quoted, span = _quoted(_with_next(line, ahead, lines, room), delimiter)
            problem = _doubt(quoted, list(islice(ahead, span - 1)), delimiter, width)
            if not problem:
                fields, taken = quoted, span
                for _ in range(span - 1):
                    ahead.popleft()
            else:
                in_vain += sum(map(len, islice(ahead, span)))
                problem = ESCAPED if problem == STRAY and '\\"' in plain else problem
        width = width or len(fields)
        yield number, fields, taken, problem
        number += taken


def _doubt(fields: list[str], lines: list[str], delimiter: str, width: int) -> str:
    """Why a record is none, or over many lines may be none: its width, or all of them look like rows."""
    if not fields or (len(lines) >= LONG_RECORD_LINES and len(fields) != width):
        return STRAY
    if len(lines) < LONG_RECORD_LINES or width == 1:
        return ""
    alike = [line.count(delimiter) == width - 1 for line in lines]
    return DOUBTFUL if alike[-1] and sum(alike) * 10 > len(alike) * 9 else ""


def json_rows(lines: Iterator[str], path: Path) -> Iterator[tuple[int, dict[str, Any], str]]:
    """``(line, object, problem)`` of each line; of a file that is an array, or objects over lines, of each.

    Of those, the whole is held, and refused with a DataError if it is not JSON.
    """
    first = next(lines)
    if not first.lstrip().startswith("[") and first.strip() != "{":
        yield from ((number, *json_object(line)) for number, line in enumerate(chain([first], lines), 1))
        return
    text = "\n".join(chain([first], lines))
    decoder, place, number = json.JSONDecoder(), 0, 1
    while (start := _BETWEEN.match(text, place).end()) < len(text):  # type: ignore[union-attr]
        number += text.count("\n", place, start)
        try:
            value, place = decoder.raw_decode(text, start)
        except (ValueError, RecursionError) as error:
            raise DataError(f"the file is not JSON: {error}", where=f"{path}:{number}") from None
        yield number, *_as_object(value)
        number += text.count("\n", start, place)
    if text.lstrip().startswith("[") and not text.rstrip().endswith("]"):
        raise DataError("the array is cut off", where=f"{path}:{number}")


def json_object(line: str) -> tuple[dict[str, Any], str]:
    """The object that a line is, or why it is none."""
    if not line.strip():
        return {}, "blank line"
    try:
        row = json.loads(line)
    except (ValueError, RecursionError):  # also a number of more digits than Python converts
        return {}, "not JSON"
    return _as_object(row)


def _as_object(row: Any) -> tuple[dict[str, Any], str]:
    """The object with what objects in it hold as further keys, ``outer.inner``; or why it is none."""
    if not isinstance(row, dict):
        return {}, "not a JSON object"
    inner = {f"{key}.{k}": v for key, part in row.items() if isinstance(part, dict) for k, v in part.items()}
    return {**inner, **row}, ""


def _with_next(line: str, ahead: deque[str], lines: Iterator[str], room: int) -> Iterator[str]:
    """A line and those after it, ``room`` characters; lines read for it are kept in ``ahead``."""
    yield line
    room -= len(line)
    for known in ahead:
        if room <= 0:
            return
        room -= len(known) + 1
        yield known
    while room > 0 and (further := next(lines, None)) is not None:
        ahead.append(further)
        room -= len(further) + 1
        yield further


def _quoted(lines: Iterator[str], delimiter: str) -> tuple[list[str], int]:
    """Fields of the csv record at the beginning of the lines, and how many it takes.

    No fields if there is none, and how many lines were looked through.
    """
    reader = csv.reader((f"{line}\n" for line in lines), delimiter=delimiter, strict=True)
    try:
        return next(reader), reader.line_num
    except csv.Error:
        return [], reader.line_num
