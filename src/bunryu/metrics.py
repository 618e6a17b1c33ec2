"""Scores of a classifier from its logits, in float64 numpy: the same figures in training and afterwards."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
import numpy.typing as npt

CALIBRATION_BINS = 15  # as many as Guo et al. 2017 take


def scores(logits: npt.NDArray[np.floating], labels: npt.NDArray[np.integer]) -> dict[str, float]:
    """Mean cross-entropy, accuracy and macro F1.

    Logits have shape (rows, classes), labels, class ids, shape (rows,). A class that stands neither in the
    labels nor in the predictions is left out of macro F1, as scikit-learn does by default.
    """
    wide = logits.astype(np.float64)
    top = wide.max(axis=1, keepdims=True)
    log_sum = top[:, 0] + np.log(np.exp(wide - top).sum(axis=1))
    rows = np.arange(len(labels))
    predicted = wide.argmax(axis=1)
    return {
        "loss": float(np.mean(log_sum - wide[rows, labels])),
        "accuracy": float(np.mean(predicted == labels)),
        "f1_macro": _f1_macro(confusion(labels, predicted, wide.shape[1])),
    }


def confusion(
    labels: npt.NDArray[np.integer], predicted: npt.NDArray[np.integer], classes: int
) -> npt.NDArray[np.int64]:
    """Counts, shape (classes, classes): true class in rows, predicted class in columns."""
    pairs = labels.astype(np.int64) * classes + predicted
    return np.bincount(pairs, minlength=classes * classes).reshape(classes, classes).astype(np.int64)


def softmax(logits: npt.NDArray[np.floating]) -> npt.NDArray[np.float64]:
    """Probabilities, shape (rows, classes) as the logits, worked out in float64."""
    wide = logits.astype(np.float64)
    powers = np.exp(wide - wide.max(axis=1, keepdims=True))
    return np.asarray(powers / powers.sum(axis=1, keepdims=True), np.float64)


def most_likely(logits: npt.NDArray[np.floating]) -> tuple[npt.NDArray[np.int64], npt.NDArray[np.float64]]:
    """The class predicted for each row of logits, the first of equals, and its probability."""
    # from the logits: two of them that differ may have one and the same probability
    predicted = logits.argmax(axis=1)
    return predicted.astype(np.int64), softmax(logits)[np.arange(len(logits)), predicted]


def report(
    logits: npt.NDArray[np.floating], labels: npt.NDArray[np.integer], names: Sequence[str]
) -> dict[str, Any]:
    """Everything there is to say in figures about one file of predictions, as plain values.

    Where precision, recall or F1 would divide by zero it is 0.0, as scikit-learn has it by default: the
    precision of a class never predicted, the recall of one that no row has.

    Args:
        logits: shape (rows, classes), at least one row.
        labels: shape (rows,), class ids.
        names: the classes' names in id order, all different.

    Returns:
        The ``scores``; ``f1_micro`` (with one label a row: the accuracy); ``expected_calibration_error``
        (Naeini et al. 2015, with the bins of Guo et al. 2017); ``classes``: precision, recall, f1 and
        support by name; ``confusion``: a list of rows; ``calibration``: the bins that error is summed over.
    """
    predicted, confidence = most_likely(logits)
    matrix = confusion(labels, predicted, len(names))
    bins = _calibration(confidence, predicted == labels)
    return {
        **scores(logits, labels),
        "f1_micro": float(np.diag(matrix).sum() / matrix.sum()),
        "expected_calibration_error": _calibration_error(bins, len(labels)),
        "classes": dict(zip(names, _by_class(matrix), strict=True)),
        "confusion": matrix.tolist(),
        "calibration": bins,
    }


def _by_class(matrix: npt.NDArray[np.int64]) -> list[dict[str, Any]]:
    hits, support, taken = np.diag(matrix), matrix.sum(axis=1), matrix.sum(axis=0)
    return [
        {
            "precision": _share(hits[index], taken[index]),
            "recall": _share(hits[index], support[index]),
            "f1": _share(2 * hits[index], taken[index] + support[index]),
            "support": int(support[index]),
        }
        for index in range(len(matrix))
    ]


def _share(part: np.int64, whole: np.int64) -> float:
    return float(part / whole) if whole else 0.0


def _calibration(
    confidence: npt.NDArray[np.float64], right: npt.NDArray[np.bool_]
) -> list[dict[str, float | int | None]]:
    """Bins of equal width, each without its lower edge and with its upper; an empty one's means are None."""
    edges = np.arange(CALIBRATION_BINS + 1) / CALIBRATION_BINS
    # a confidence that is no number sorts behind all edges; in the last bin it shows as such
    places = np.minimum(np.searchsorted(edges, confidence, side="left"), CALIBRATION_BINS) - 1
    bins: list[dict[str, float | int | None]] = []
    for place in range(CALIBRATION_BINS):
        inside = places == place
        rows = int(inside.sum())
        bins.append(
            {
                "from": float(edges[place]),
                "to": float(edges[place + 1]),
                "rows": rows,
                "confidence": float(confidence[inside].mean()) if rows else None,
                "accuracy": float(right[inside].mean()) if rows else None,
            }
        )
    return bins


def _calibration_error(bins: Sequence[Mapping[str, Any]], rows: int) -> float:
    """The mean over all rows of how far their bin's accuracy is from its confidence."""
    return float(sum(b["rows"] * abs(b["accuracy"] - b["confidence"]) for b in bins if b["rows"]) / rows)


def _f1_macro(matrix: npt.NDArray[np.int64]) -> float:
    hits = np.diag(matrix)
    total = matrix.sum(axis=0) + matrix.sum(axis=1)
    present = total > 0
    return float(np.mean(2 * hits[present] / total[present]))
