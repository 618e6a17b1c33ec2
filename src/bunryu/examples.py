"""The labelled documents of a file, each row used or rejected with its reason."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import NamedTuple

from bunryu.errors import DataError
from bunryu.tables import Account, TableFormat, read_rows


class Example(NamedTuple):
    """One labelled document; ``row`` is its place in its file, counted from 0 over the rows used."""

    row: int
    text: str
    label: str
    pair: str | None = None


def read_examples(
    path: Path, columns: Sequence[str], form: TableFormat, allowed: Sequence[str] | None = None
) -> tuple[list[Example], Account]:
    """Examples of a file whose columns are text, label and, as a third, the pair.

    A document may be empty: it is used and counted. A row is rejected if its text is no text, or its
    label is empty, neither text nor integer, or not among ``allowed``.

    Raises:
        DataError: if no row can be used.
    """
    rows, account = read_rows(path, columns, form)
    examples: list[Example] = []
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
    account.used = len(examples)
    if not examples:
        reasons = "; ".join(account.rejected_rows[:3]) or "it has a header only"
        raise DataError("no row of the file can be used", where=str(path), fix=reasons)
    return examples, account
