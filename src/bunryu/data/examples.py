"""The labelled documents of a file, each row used or rejected with its reason."""

from __future__ import annotations

import math
import re
from array import array
from collections.abc import Sequence
from decimal import Decimal
from pathlib import Path
from typing import NamedTuple

from bunryu.data.normalisation import name_of, normalised, spelt_out
from bunryu.data.rows import SPANNING, RowCounts
from bunryu.data.table import TableFormat, stream_rows
from bunryu.errors import DataError

# Numbers as programs write them that have only such with a fraction: 1.0, 1.000e+00.
_NUMBER = re.compile(r"[-+]?[0-9]+\.[0-9]*([eE][-+]?[0-9]{1,2})?|-0")


class Example(NamedTuple):
    """One labelled document; ``row`` counts the rows of its file that are used, from 0."""

    row: int
    text: str
    label: str
    pair: str | None = None


class FileExamples(NamedTuple):
    """The examples of a file; ``lines[example.row]`` is an example's line."""

    examples: list[Example]
    counts: RowCounts
    lines: Sequence[int]


def read_examples(
    path: Path, columns: Sequence[str], format: TableFormat, allowed: Sequence[str] | None = None
) -> FileExamples:
    """Examples of a file whose columns are text, label and, as a third, the pair.

    A document may be empty: it is used and counted. A row is rejected if its text is not a string, or its
    label is empty, neither text nor a number, or not among ``allowed``. Texts are composed, and labels that
    look alike are one, as ``normalisation`` has it; the counts note both.

    Raises:
        DataError: if no row can be used.
    """
    counts = RowCounts(path.name)
    examples: list[Example] = []
    lines = array("Q")
    for line, values, _ in stream_rows(path, columns, format, counts, watch_ids=True):
        if values is None:
            continue
        text, label, *pairs = values
        if not all(isinstance(part, str) for part in (text, *pairs)):
            counts.reject(line, "text is not a string")
        elif (name := label_of(label)) is None:
            counts.reject(line, "label is neither text nor a number")
        elif name == "":
            counts.reject(line, "empty label")
        elif allowed is not None and name not in allowed:
            counts.reject(line, f"unknown label '{spelt_out(name[:40])}'")
        else:
            composed, *others = (normalised(part) for part in (text, *pairs))
            if composed != text or others != pairs:
                counts.note("texts composed (NFC)")
            if name != label and isinstance(label, str) and name_of(label) != (written := label.strip(" ")):
                counts.note(f"label '{spelt_out(written)}' taken as '{name}'")
            examples.append(Example(len(examples), composed, name, *others))
            lines.append(line)
    counts.used = len(examples)
    if not examples:
        reasons = "; ".join(counts.rejected_rows[:3]) or "it has a header only"
        raise DataError("no row of the file can be used", where=str(path), fix=reasons)
    return FileExamples(examples, counts, lines)


def label_of(value: object) -> str | None:
    """A label as text: whole numbers without a point, true and false as JSON has them; None for no label."""
    if isinstance(value, bool):
        return str(value).lower()
    if isinstance(value, str) and _NUMBER.fullmatch(text := name_of(value)):
        number = Decimal(text)
        return str(int(number)) if number == int(number) else text
    if isinstance(value, float | Decimal) and math.isfinite(value):
        return str(int(value)) if value == int(value) else str(float(value))
    return name_of(str(value)) if isinstance(value, str | int) else None


def row_flaws(counts: RowCounts) -> list[str]:
    """Rows of a file that were rejected, labels respelt and ids it repeats, each in a sentence."""
    found = []
    if counts.rejected:
        reasons = ", ".join(f"{count} {reason}" for reason, count in counts.rejected.items())
        rejected = f"{sum(counts.rejected.values())} of {counts.read} rows rejected ({reasons})"
        found.append(f"{counts.file}: {rejected}; first: {counts.rejected_rows[0]}")
    respelt = [f"{what} ({rows} rows)" for what, rows in counts.notes.items() if what.startswith("label")]
    found += [f"{counts.file}: {', '.join(respelt[:10])}"] if respelt else []
    if repeated := counts.notes.get("duplicate ids"):
        found.append(f"{counts.file}: {repeated} of {counts.read} rows repeat an id")
    return found


def quoting_hint(counts: RowCounts) -> list[str]:
    """A sentence if quotes may have joined lines that are rows of their own; they may also be right."""
    if "stray quote" not in counts.rejected and SPANNING not in counts.notes:
        return []
    return [
        f"{counts.file}: {counts.lines} lines gave {counts.read} rows, "
        f"{counts.notes.get(SPANNING, 0)} of them over several lines: right if texts have line breaks; "
        "if it was written without quoting, set corpus.quoting=none"
    ]
