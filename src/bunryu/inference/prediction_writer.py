"""Predictions as csv, tsv or jsonl, one row for every row that was read."""

from __future__ import annotations

import csv
import json
from collections.abc import Iterator, Sequence
from typing import Any, TextIO

import numpy as np
import numpy.typing as npt

from bunryu.data.table import DELIMITERS, Row
from bunryu.metrics import score_columns, score_fields, softmax

FORMATS = ("csv", "tsv", "jsonl")


class PredictionWriter:
    """Writes rows with their label and probabilities, and rejected rows with their reason.

    Probabilities are written with the digits that tell one 32-bit number from the next.

    Args:
        file: where to.
        kind: csv, tsv or jsonl.
        labels: names of the classes in id order.
        texts: names of each row's first values: the text's column, and the pair's if there is one.
        kept: names of the values that follow.
    """

    def __init__(
        self, file: TextIO, kind: str, labels: Sequence[str], texts: Sequence[str], kept: Sequence[str]
    ) -> None:
        self._file, self._labels, self._texts = file, labels, len(texts)
        shares = score_columns(labels, "probability")
        self._header = ["line", *kept, "prediction", "confidence", *shares, *texts, "error"]
        self._csv = None
        if kind != "jsonl":
            # Told of \r\n, csv quotes a text with a lone \r too, at which readers would break the row.
            self._csv = csv.writer(_UnixLines(file), delimiter=DELIMITERS[kind], lineterminator="\r\n")
            self._csv.writerow(self._header)

    def write(self, rows: Sequence[Row], logits: npt.NDArray[np.float32]) -> None:
        """Write rows in their order.

        Args:
            rows: all rows, the rejected ones among them.
            logits: shape (rows that are not rejected, classes).
        """
        predicted = iter(softmax(logits).astype(np.float32))
        for row in rows:
            fields = self._fields(row, predicted)
            if self._csv is not None:
                self._csv.writerow(fields)
            else:
                self._file.write(json.dumps(dict(zip(self._header, fields, strict=True)), ensure_ascii=False))
                self._file.write("\n")
        self._file.flush()

    def _fields(self, row: Row, predicted: Iterator[npt.NDArray[np.float32]]) -> list[Any]:
        if row.values is None:
            return [row.line, *[None] * (len(self._header) - 2), row.problem]
        found = next(predicted)
        shares, best = score_fields(found, self._labels, lambda share: float(str(share))), int(found.argmax())
        texts, kept = row.values[: self._texts], row.values[self._texts :]
        return [row.line, *kept, self._labels[best], float(str(found[best])), *shares, *texts, None]


class _UnixLines:
    """Writes each row of a csv writer with a newline alone at its end."""

    def __init__(self, file: TextIO) -> None:
        self._file = file

    def write(self, row: str) -> None:
        self._file.write(row.removesuffix("\r\n") + "\n")
