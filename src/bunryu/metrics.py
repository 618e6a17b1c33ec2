"""Scores of a classifier from its logits, in float64 numpy: the same figures in training and afterwards."""

from __future__ import annotations

import numpy as np
import numpy.typing as npt

NAMES = ("loss", "accuracy", "f1_macro")


def scores(logits: npt.NDArray[np.floating], labels: npt.NDArray[np.integer]) -> dict[str, float]:
    """Mean cross-entropy, accuracy and macro F1.

    A class that stands neither in the labels nor in the predictions is left out of macro F1, as
    scikit-learn does by default.

    Args:
        logits: shape (rows, classes).
        labels: shape (rows,), class ids.
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


def _f1_macro(matrix: npt.NDArray[np.int64]) -> float:
    hits = np.diag(matrix)
    total = matrix.sum(axis=0) + matrix.sum(axis=1)
    present = total > 0
    return float(np.mean(2 * hits[present] / total[present]))
