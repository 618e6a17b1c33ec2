"""The labelled documents of a file, each row used or rejected with its reason."""

from __future__ import annotations

from array import array
from collections.abc import Sequence
from pathlib import Path
from typing import NamedTuple

from bunryu.data.table import SPANNING, RowCounts, TableFormat, read_rows
from bunryu.errors import DataError


class Example(NamedTuple):
    """One labelled document; ``row`` is its place in its file, counted from 0 over the rows used."""

    row: int
    text: str
    label: str
    pair: str | None = None


class LocatedExamples(NamedTuple):
    """The examples of a file with their places: ``lines[example.row]`` is an example's line."""

    examples: list[Example]
    lines: Sequence[int]
    account: RowCounts


def read_examples(
    path: Path, columns: Sequence[str], form: TableFormat, allowed: Sequence[str] | None = None
) -> tuple[list[Example], RowCounts]:
    """Examples of a file whose columns are text, label and, as a third, the pair.

    A document may be empty: it is used and counted. A row is rejected if its text is no text, or its
    label is empty, neither text nor integer, or not among ``allowed``.

    Raises:
        DataError: if no row can be used.
    """
    located = locate_examples(path, columns, form, allowed)
    return located.examples, located.account


def locate_examples(
    path: Path, columns: Sequence[str], form: TableFormat, allowed: Sequence[str] | None = None
) -> LocatedExamples:
    """As ``read_examples``, with the line of each example."""
    rows, account = read_rows(path, columns, form)
    examples: list[Example] = []
    lines = array("Q")
    for line, values in rows:
        text, label = values[0], values[1]
        pair = values[2] if len(values) > 2 else None
        if not all(isinstance(part, str) for part in (text, *values[2:])):
            account.reject(line, "text is not a string")
        elif not isinstance(label, str | int) or isinstance(label, bool):
            account.reject(line, "label is neither text nor an integer")
        elif (name := str(label).strip()) == "":
            account.reject(line, "empty label")
        elif allowed is not None and name not in allowed:
            account.reject(line, f"unknown label '{name[:40]}'")
        else:
            examples.append(Example(len(examples), text, name, pair))
            lines.append(line)
    account.used = len(examples)
    if not examples:
        reasons = "; ".join(account.rejected_rows[:3]) or "it has a header only"
        raise DataError("no row of the file can be used", where=str(path), fix=reasons)
    return LocatedExamples(examples, lines, account)


def row_flaws(account: RowCounts) -> list[str]:
    """The rows of a file that were rejected, and the ids it repeats, each in a sentence."""
    found = []
    if account.rejected:
        reasons = ", ".join(f"{count} {reason}" for reason, count in account.rejected.items())
        found.append(
            f"{account.file}: {sum(account.rejected.values())} of {account.read} rows rejected ({reasons}); "
            f"first: {account.rejected_rows[0]}"
        )
    if repeated := account.notes.get("duplicate ids"):
        found.append(f"{account.file}: {repeated} of {account.read} rows repeat an id")
    return found


def quoting_hint(account: RowCounts) -> list[str]:
    """A sentence if quoting may have joined lines that are rows of their own; such rows may be right, too."""
    if "stray quote" not in account.rejected and SPANNING not in account.notes:
        return []
    return [
        f"{account.file}: {account.lines} lines gave {account.read} rows, "
        f"{account.notes.get(SPANNING, 0)} of them over several lines; "
        "if it was written without quoting, set corpus.quoting=none"
    ]
