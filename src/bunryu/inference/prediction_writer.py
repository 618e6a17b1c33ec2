"""Predictions as csv, tsv or jsonl, one row for every row that was read."""

from __future__ import annotations

import base64
import csv
import json
import re
from collections.abc import Iterator, Sequence
from contextlib import suppress
from datetime import date, time, timedelta
from pathlib import Path
from typing import Any, TextIO

import numpy as np
import numpy.typing as npt

from bunryu.data.rows import Row
from bunryu.data.spreadsheets import inert_cell
from bunryu.data.table import DELIMITERS
from bunryu.metrics import score_columns, score_fields, softmax

FORMATS = ("csv", "tsv", "jsonl")

_OURS = re.compile(rb'(\{"line": \d+, |line[,\t]).*\bprediction\b.*\bconfidence\b')


def is_predictions(path: Path) -> bool:
    """Whether a file is empty or begins as those that are written here."""
    with open(path, "rb") as file:
        head = file.readline(1 << 20)
    return not head or _OURS.match(head) is not None


class PredictionWriter:
    """Writes rows with their label and probabilities, and rejected rows with their reason.

    Probabilities are written with the digits that tell one 32-bit number from the next. ``texts`` names each
    row's first values, the text and perhaps its pair, and ``kept`` those that follow; a name like one of
    ours gets ``input:`` before it. Cells of csv and tsv are inert for spreadsheets if ``spreadsheet_safe``.
    """

    def __init__(
        self, file: TextIO, kind: str, labels: Sequence[str], texts: Sequence[str], kept: Sequence[str],
        *, header: bool = True, spreadsheet_safe: bool = False,
    ) -> None:  # fmt: skip
        self._file, self._labels, self._texts = file, labels, len(texts)
        ours = ["prediction", "confidence", *score_columns(labels, "probability")]
        taken = {"line", *ours, "error"}
        kept, texts = ([f"input:{n}" if n in taken else n for n in names] for names in (kept, texts))
        self._header = ["line", *kept, *ours, *texts, "error"]
        self._csv, self._cell = None, inert_cell if spreadsheet_safe else lambda value: value
        if kind != "jsonl":
            # Told of \r\n, csv quotes a text with a lone \r too, at which readers would break the row.
            self._csv = csv.writer(_UnixLines(file), delimiter=DELIMITERS[kind], lineterminator="\r\n")
            if header:
                self._csv.writerow(map(self._cell, self._header))

    def write(self, rows: Sequence[Row], logits: npt.NDArray[np.float32]) -> None:
        """Write rows in their order, given logits of shape (rows that are not rejected, classes)."""
        predicted = zip(logits.argmax(axis=1).tolist(), softmax(logits).astype(np.float32), strict=True)
        for row in rows:
            fields = self._fields(row, predicted)
            if self._csv is not None:
                flat = (
                    json.dumps(f, ensure_ascii=False) if isinstance(f, dict | list) else f for f in fields
                )
                self._csv.writerow(map(self._cell, flat))
            else:
                named = dict(zip(self._header, fields, strict=True))
                self._file.write(json.dumps(named, ensure_ascii=False, allow_nan=False) + "\n")
        self._file.flush()

    def _fields(self, row: Row, predicted: Iterator[tuple[int, npt.NDArray[np.float32]]]) -> list[Any]:
        if row.values is None:
            return [row.line, *[None] * (len(self._header) - 2), row.problem]
        best, probabilities = next(predicted)
        shares = score_fields(probabilities, self._labels, lambda share: _plain(float(str(share))))
        texts, kept = row.values[: self._texts], map(_plain, row.values[self._texts :])
        confidence = _plain(float(str(probabilities[best])))
        return [row.line, *kept, self._labels[best], confidence, *shares, *texts, None]


def _plain(value: Any) -> Any:
    """A value as JSON has it, with null for numbers that are not finite."""
    if value is None or isinstance(value, str | int):
        return value
    with suppress(RecursionError):  # null for a list nested a thousand times, too
        return json.loads(json.dumps(value, default=_as_text), parse_constant=lambda name: None)


def _as_text(value: Any) -> str:
    """Dates, times and durations in ISO 8601, bytes in base64, decimals with all their digits."""
    if isinstance(value, bytes):
        return base64.b64encode(value).decode()
    if isinstance(value, timedelta):
        return f"PT{value.total_seconds()}S"
    return str(value.isoformat() if isinstance(value, date | time) else value)


class _UnixLines:
    """Writes each row of a csv writer with a newline alone at its end."""

    def __init__(self, file: TextIO) -> None:
        self._file = file

    def write(self, row: str) -> None:
        self._file.write(row.removesuffix("\r\n") + "\n")
