"""What an evaluation leaves: its figures as JSON, its predictions as csv, and one page to look at."""

from __future__ import annotations

import csv
import dataclasses
import io
import json
from collections.abc import Mapping, Sequence
from importlib import resources
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
from jinja2 import Environment, StrictUndefined
from markupsafe import Markup

from bunryu import metrics
from bunryu.data.examples import Example
from bunryu.data.table import RowCounts
from bunryu.reports import svg
from bunryu.system.files import write_atomically

Curve = tuple[int, int, str, float]

WORST_MISTAKES = 50
MATRIX_CLASSES = 60  # with more of them the page names the commonest confusions instead of all pairs
COMMON_CONFUSIONS = 50
SHOWN_CHARACTERS = 1000  # of a text in the page; evaluation.json and predictions.csv hold all of it
OPEN_CHARACTERS = 160  # of a text in the page before it folds
CURVE_POINTS = 200  # of a line in the page
HISTOGRAM_BARS = 20

# heading -> what is drawn: name in the legend -> the metrics it may be under, the first one recorded counts
CURVES: dict[str, dict[str, tuple[str, ...]]] = {
    "Loss": {"train": ("train/loss", "train/loss_epoch"), "validation": ("val/loss",)},
    "Accuracy": {"train": ("train/accuracy", "train/accuracy_epoch"), "validation": ("val/accuracy",)},
    "Learning rate": {"lr": ("lr",)},
}


def write_evaluation(
    folder: Path,
    examples: Sequence[Example],
    labels: npt.NDArray[np.int64],
    logits: npt.NDArray[np.float32],
    names: Sequence[str],
    facts: Mapping[str, Any],
    curves: Sequence[Curve],
    account: RowCounts | None,
) -> dict[str, Any]:
    """Write predictions.csv, evaluation.html and, as the last, evaluation.json.

    Args:
        folder: where to; made if missing, its files of these names replaced.
        examples: the documents, in the order of the logits.
        labels: shape (rows,), true class ids.
        logits: shape (rows, classes).
        names: the classes' shown names in id order.
        facts: plain values that tell what was evaluated: ``run``, ``data``, ``model``, ``checkpoint``, …;
            ``warnings`` is a list of sentences.
        curves: the rows of the run's metrics.csv: epoch, step, name, value; may be empty.
        account: what became of the rows of the file, if one was read.

    Returns:
        The content of evaluation.json.
    """
    predicted, confidence = metrics.most_likely(logits)
    found = {
        "facts": dict(facts),
        **metrics.report(logits, labels, names),
        "account": None if account is None else dataclasses.asdict(account),
        "worst_mistakes": _worst_mistakes(examples, labels, predicted, confidence, names),
    }
    right = predicted == labels
    page = _page(found, names, _learning_charts(curves), _confidence_charts(confidence, right, names))
    folder.mkdir(parents=True, exist_ok=True)
    table = _predictions(examples, labels, predicted, confidence, logits, names)
    write_atomically(folder / "predictions.csv", table)
    write_atomically(folder / "evaluation.html", page)
    write_atomically(folder / "evaluation.json", json.dumps(found, ensure_ascii=False, indent=2) + "\n")
    return found


def _page(
    found: Mapping[str, Any], names: Sequence[str], learning: Sequence[str], confidence: Sequence[str]
) -> str:
    """The page: the content of evaluation.json and charts of the training and of the confidence."""
    text = resources.files("bunryu.reports").joinpath("templates/evaluation.html").read_text("utf-8")
    environment = Environment(
        autoescape=True, undefined=StrictUndefined, trim_blocks=True, lstrip_blocks=True
    )
    environment.filters["shown"] = _shown
    environment.filters["meter"] = lambda share: Markup(svg.meter(share))
    matrix = np.array(found["confusion"])
    reliability = svg.reliability("Reliability: accuracy over confidence", found["calibration"])
    return environment.from_string(text).render(
        found=found,
        facts=found["facts"],
        names=names,
        rows=int(matrix.sum()),
        mistakes=int(matrix.sum() - np.diag(matrix).sum()),
        commonest=max(found["classes"], key=lambda name: found["classes"][name]["support"]),
        matrix=matrix.tolist() if len(names) <= MATRIX_CLASSES else None,
        confusions=_common_confusions(matrix, names) if len(names) > MATRIX_CLASSES else [],
        reliability=Markup(reliability),
        confidence_charts=[Markup(chart) for chart in confidence],
        learning_charts=[Markup(chart) for chart in learning],
        open_characters=OPEN_CHARACTERS,
        shown_characters=SHOWN_CHARACTERS,
    )


def _predictions(
    examples: Sequence[Example],
    labels: npt.NDArray[np.int64],
    predicted: npt.NDArray[np.int64],
    confidence: npt.NDArray[np.float64],
    logits: npt.NDArray[np.float32],
    names: Sequence[str],
) -> str:
    """predictions.csv in row order; a float is written so that reading gives the same bits."""
    paired = any(example.pair is not None for example in examples)
    content = io.StringIO(newline="")
    # every text in quotes: a lone carriage return, which csv leaves bare, would read as a row's end
    writer = csv.writer(content, lineterminator="\n", quoting=csv.QUOTE_NONNUMERIC)
    columns = ["row", "label", "prediction", "confidence", *(f"logit:{name}" for name in names), "text"]
    writer.writerow([*columns, "pair"] if paired else columns)
    for index in _in_row_order(examples):
        example = examples[index]
        texts = [example.text, example.pair or ""] if paired else [example.text]
        shown = names[labels[index]], names[predicted[index]]
        writer.writerow([example.row, *shown, float(confidence[index]), *logits[index].tolist(), *texts])
    return content.getvalue()


def _worst_mistakes(
    examples: Sequence[Example],
    labels: npt.NDArray[np.int64],
    predicted: npt.NDArray[np.int64],
    confidence: npt.NDArray[np.float64],
    names: Sequence[str],
) -> list[dict[str, Any]]:
    """The wrong rows the model was surest of, the surest first."""
    wrong = [index for index in _in_row_order(examples) if predicted[index] != labels[index]]
    surest = np.nan_to_num(confidence, nan=0.0)
    wrong.sort(key=lambda index: -surest[index])
    return [
        {
            "row": examples[index].row,
            "label": names[labels[index]],
            "prediction": names[predicted[index]],
            "confidence": float(confidence[index]),
            "text": examples[index].text,
            "pair": examples[index].pair,
        }
        for index in wrong[:WORST_MISTAKES]
    ]


def _in_row_order(examples: Sequence[Example]) -> list[int]:
    return sorted(range(len(examples)), key=lambda index: examples[index].row)


def _common_confusions(matrix: npt.NDArray[np.int64], names: Sequence[str]) -> list[dict[str, Any]]:
    """The pairs of a class and another it was taken for, the most frequent first."""
    rows, columns = np.nonzero(matrix - np.diag(np.diag(matrix)))
    pairs = sorted(zip(rows.tolist(), columns.tolist(), strict=True), key=lambda pair: -matrix[pair])
    return [
        {
            "label": names[label],
            "prediction": names[prediction],
            "rows": int(matrix[label, prediction]),
            "share": float(matrix[label, prediction] / matrix[label].sum()),
        }
        for label, prediction in pairs[:COMMON_CONFUSIONS]
    ]


def _confidence_charts(
    confidence: npt.NDArray[np.float64], right: npt.NDArray[np.bool_], names: Sequence[str]
) -> list[str]:
    """Two histograms over one axis, each on a scale of its own: mistakes are few beside what is right."""
    lowest = 0.5 if len(names) == 2 else 0.0  # of two classes the likelier has at least a half
    edges = np.linspace(lowest, 1.0, HISTOGRAM_BARS + 1)
    found = []
    for kind, (name, rows) in enumerate({"Right": right, "Wrong": ~right}.items()):
        finite = confidence[rows & np.isfinite(confidence)]
        counts = np.histogram(finite, edges)[0].tolist()
        title = f"{name}: {int(rows.sum()):,} of {len(rows):,} rows"
        found.append(svg.bars(title, counts, edges.tolist(), "confidence", kind))
    return found


def _learning_charts(curves: Sequence[Curve]) -> list[str]:
    recorded: dict[str, list[svg.Point]] = {}
    for _, step, name, value in curves:
        recorded.setdefault(name, []).append((step, value))
    found = []
    for heading, legend in CURVES.items():
        series = {
            name: _thinned(next((recorded[metric] for metric in places if metric in recorded), []))
            for name, places in legend.items()
        }
        if any(series.values()):
            drawn = {name: points for name, points in series.items() if points}
            unit = "%" if heading == "Accuracy" else ""
            found.append(svg.lines(heading, drawn, "step", unit))
    return found


def _thinned(points: Sequence[svg.Point]) -> list[svg.Point]:
    """The means of equally many neighbours, so that a long training is no longer a line than a short one."""
    size = -(-len(points) // CURVE_POINTS)
    if size <= 1:
        return list(points)
    groups = [points[start : start + size] for start in range(0, len(points), size)]
    return [(sum(x for x, _ in some) / len(some), sum(y for _, y in some) / len(some)) for some in groups]


def _shown(value: Any) -> str:
    """A fact as a person reads it."""
    if isinstance(value, bool):
        return "yes" if value else "no"
    if isinstance(value, int):
        return f"{value:,}"
    if isinstance(value, float):
        return f"{value:.6g}"
    if isinstance(value, Mapping):
        return ", ".join(f"{key}: {_shown(part)}" for key, part in value.items())
    if isinstance(value, Sequence) and not isinstance(value, str):
        return ", ".join(_shown(part) for part in value)
    return str(value)
