"""What an evaluation leaves: its figures as JSON, its predictions as CSV, and one page to look at."""

from __future__ import annotations

import csv
import dataclasses
import io
import math
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
from markupsafe import Markup

from bunryu import metrics
from bunryu.data.examples import Example
from bunryu.data.rows import RowCounts
from bunryu.data.spreadsheets import inert_cell
from bunryu.reports import svg
from bunryu.reports.rendering import render
from bunryu.system.files import write_atomically
from bunryu.system.records import write_record

Curve = tuple[int, int, str, float]
Row = dict[str, Any]  # what is known of one document: row, label, prediction, confidence, text, pair

MATRIX_CLASSES = 60  # with more of them the page names the commonest confusions instead of all pairs
MAX_LISTED = 50  # worst mistakes, and commonest confusions
CURVE_POINTS = 200  # of a line in the page

# heading -> name in the legend -> the metrics it may be recorded under, of which the first counts
CURVES: dict[str, dict[str, tuple[str, ...]]] = {
    "Loss": {"train": ("train/loss", "train/loss_epoch"), "validation": ("val/loss",)},
    "Accuracy": {"train": ("train/accuracy", "train/accuracy_epoch"), "validation": ("val/accuracy",)},
    "Learning rate": {"lr": ("lr",)},
}


def write_evaluation(
    folder: Path, examples: Sequence[Example], labels: npt.NDArray[np.int64],
    logits: npt.NDArray[np.float32], names: Sequence[str], facts: Mapping[str, Any],
    curves: Sequence[Curve], account: RowCounts | None, spreadsheet_safe: bool = False,
) -> dict[str, Any]:  # fmt: skip
    """Write predictions.csv, evaluation.html and, as the last, evaluation.json, whose content is returned.

    ``labels`` are true class ids of shape (rows,), ``logits`` of shape (rows, classes), ``names`` the
    classes' shown names in id order; ``facts`` plain values such as ``run`` and ``data``, of which
    ``warnings`` are sentences; ``curves`` the rows of the run's metrics.csv; ``account`` is what became of
    the rows of the file, if one was read.
    """
    predicted, confidence = metrics.most_likely(logits)
    order = sorted(range(len(examples)), key=lambda index: examples[index].row)
    rows = [
        {"row": examples[index].row, "label": names[labels[index]], "prediction": names[predicted[index]],
         "confidence": float(confidence[index]), "text": examples[index].text, "pair": examples[index].pair}
        for index in order
    ]  # fmt: skip
    wrong = [row for row in rows if row["label"] != row["prediction"]]
    # the surest first, one without a confidence last
    wrong.sort(key=lambda row: 0.0 if math.isnan(row["confidence"]) else -row["confidence"])
    found = {
        "facts": dict(facts),
        **metrics.report(logits, labels, names),
        "account": None if account is None else dataclasses.asdict(account),
        "worst_mistakes": wrong[:MAX_LISTED],
    }
    page = _page(found, names, _confidence_charts(confidence, predicted == labels, names), curves)
    folder.mkdir(parents=True, exist_ok=True)
    scores = (logits[index] for index in order)
    write_atomically(folder / "predictions.csv", _as_csv(rows, scores, names, spreadsheet_safe))
    write_atomically(folder / "evaluation.html", page)
    write_record(folder / "evaluation.json", found)
    return found


def _page(
    found: Mapping[str, Any], names: Sequence[str], confidence: Sequence[Markup], curves: Sequence[Curve]
) -> str:
    """The content of evaluation.json as a page, with charts of the confidence and of the training."""
    cells, many = found["confusion"], len(names) > MATRIX_CLASSES
    mistakes = [cell for cell in cells if cell["label"] != cell["prediction"]]
    values = {
        "found": found,
        "facts": found["facts"],
        "names": names,
        "rows": sum(cell["rows"] for cell in cells),
        "mistakes": sum(cell["rows"] for cell in mistakes),
        "commonest": max(found["classes"], key=lambda name: found["classes"][name]["support"]),
        "matrix": None if many else _matrix(cells, names),
        "confusions": sorted(mistakes, key=lambda cell: -int(cell["rows"]))[:MAX_LISTED],
        "reliability": svg.reliability("Reliability: accuracy over confidence", found["calibration"]),
        "confidence_charts": confidence,
        "learning_charts": _learning_charts(curves),
        "open_characters": 160,  # of a text before it folds
        "shown_characters": 1000,  # of a text; evaluation.json and predictions.csv hold all of it
    }
    return render("evaluation.html", values, {"shown": _shown})


def _as_csv(
    rows: Sequence[Row], logits: Iterable[npt.NDArray[np.float32]], names: Sequence[str], safe: bool
) -> str:
    """predictions.csv; a float is written so that reading gives the same bits."""
    texts = ["text", "pair"] if any(row["pair"] is not None for row in rows) else ["text"]
    columns = ["row", "label", "prediction", "confidence"]
    content = io.StringIO(newline="")
    # every text in quotes: a lone carriage return, which csv leaves bare, would read as a row's end
    writer = csv.writer(content, lineterminator="\n", quoting=csv.QUOTE_NONNUMERIC)
    writer.writerow([*columns, *metrics.score_columns(names, "logit"), *texts])
    for row, scores in zip(rows, logits, strict=True):
        known, last = [row[name] for name in columns], [row[name] or "" for name in texts]
        cells = [*known, *metrics.score_fields(scores, names), *last]
        writer.writerow(map(inert_cell, cells) if safe else cells)
    return content.getvalue()


def _matrix(cells: Sequence[Mapping[str, Any]], names: Sequence[str]) -> list[list[int]]:
    """Rows of true classes, each with its counts of predicted ones."""
    counts = {(cell["label"], cell["prediction"]): cell["rows"] for cell in cells}
    return [[counts.get((label, prediction), 0) for prediction in names] for label in names]


def _confidence_charts(
    confidence: npt.NDArray[np.float64], right: npt.NDArray[np.bool_], names: Sequence[str]
) -> list[Markup]:
    """Two histograms over one axis, each on a scale of its own: mistakes are few beside what is right."""
    lowest = 0.5 if len(names) == 2 else 0.0  # of two classes the likelier has at least a half
    edges = np.linspace(lowest, 1.0, 21)  # of 20 bars
    found = []
    for kind, (name, rows) in enumerate((("Right", right), ("Wrong", ~right))):
        counts = np.histogram(confidence[rows & np.isfinite(confidence)], edges)[0].tolist()
        title = f"{name}: {int(rows.sum()):,} of {len(rows):,} rows"
        found.append(svg.bars(title, counts, edges.tolist(), "confidence", kind))
    return found


def _learning_charts(curves: Sequence[Curve]) -> list[Markup]:
    recorded: dict[str, list[svg.Point]] = {}
    for _, step, name, value in curves:
        recorded.setdefault(name, []).append((step, value))
    found = []
    for heading, legend in CURVES.items():
        first = {name: next(filter(recorded.get, places), None) for name, places in legend.items()}
        if series := {name: _averaged(recorded[metric]) for name, metric in first.items() if metric}:
            found.append(svg.lines(heading, series, "step", "%" if heading == "Accuracy" else ""))
    return found


def _averaged(points: Sequence[svg.Point]) -> list[svg.Point]:
    """Means of equally many neighbours, so that the line of a long training is as short as any."""
    size = -(-len(points) // CURVE_POINTS)
    groups = [points[start : start + size] for start in range(0, len(points), size)]
    return [(sum(x for x, _ in some) / len(some), sum(y for _, y in some) / len(some)) for some in groups]


def _shown(value: Any) -> str:
    """A fact as a person reads it."""
    if isinstance(value, bool):
        return "yes" if value else "no"
    if isinstance(value, int | float):
        return f"{value:,}" if isinstance(value, int) else f"{value:.6g}"
    if isinstance(value, Mapping):
        return ", ".join(f"{key}: {_shown(part)}" for key, part in value.items())
    if isinstance(value, Sequence) and not isinstance(value, str):
        return ", ".join(map(_shown, value))
    return str(value)
