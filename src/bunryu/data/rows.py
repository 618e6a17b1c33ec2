"""The rows of a table as they are read, what became of them, and where one stands."""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any, NamedTuple

NAMED_ROWS = 20  # rejected rows named one by one; the rest is only counted
NAMED_REASONS = 1000  # reasons and columns told apart, so that no file fills the memory with them
SPANNING = "rows that span lines"  # the note that may also mean: a file written without quoting

_UNUSABLE = re.compile("[\0\ud800-\udfff]")  # among what is not printable


class Row(NamedTuple):
    """One row of a file: its values, or the problem it was rejected for.

    ``line`` counts the file's lines from 1, header included; in a parquet file, its rows.
    """

    line: int
    values: list[Any] | None
    problem: str


@dataclass
class RowCounts:
    """What became of the rows of one file: ``read`` equals ``used`` plus all of ``rejected``.

    ``lines`` counts the file's lines after its header: if there are more than rows, some are inside quotes.
    A parquet file has rows only: there, each counts as a line.
    """

    file: str
    lines: int = 0
    read: int = 0
    used: int = 0
    rejected: dict[str, int] = field(default_factory=dict)
    rejected_rows: list[str] = field(default_factory=list)
    notes: dict[str, int] = field(default_factory=dict)

    def row(self, line: int, values: list[Any], problem: str) -> Row:
        """The row, counted as used, or as rejected if there is a problem."""
        if problem:
            self.reject(line, problem)
            return Row(line, None, problem)
        self.used += 1
        return Row(line, values, "")

    def reject(self, line: int, reason: str) -> None:
        """Count one rejected row and remember where it stands."""
        if len(self.rejected_rows) < NAMED_ROWS:
            self.rejected_rows.append(f"{place(self.file, line)}: {reason}")
        _count(self.rejected, reason, "other reasons")

    def note(self, what: str) -> None:
        """Count something worth knowing about a row that is used all the same."""
        _count(self.notes, what, "other notes")


def _count(counts: dict[str, int], what: str, other: str) -> None:
    what = what if what in counts or len(counts) < NAMED_REASONS else other
    counts[what] = counts.get(what, 0) + 1


def place(file: str, line: int) -> str:
    """Where a row stands, for messages."""
    return f"{file}, row {line}" if file.lower().endswith(".parquet") else f"{file}:{line}"


def unusable(values: Sequence[Any]) -> str:
    """Why a tokenizer could not take a value; empty if it can take them all."""
    for value in values:
        if isinstance(value, str) and not value.isprintable() and (found := _UNUSABLE.search(value)):
            if found[0] == "\0":
                return "NUL character"
            undecodable = 0xDC80 <= ord(found[0]) <= 0xDCFF  # as decoded_lines marks them
            return "bytes that cannot be decoded" if undecodable else "half a surrogate pair"
    return ""
