"""Scores of a classifier from its logits, in float64 numpy: the same figures in training and afterwards."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import Any

import numpy as np
import numpy.typing as npt

CALIBRATION_BINS = 15  # as many as Guo et al. 2017 take
BLOCK = 1 << 22  # logits widened at once: their rows are independent of each other
MANY_CLASSES = 100  # beyond, a row of predictions has the scores of its LIKELIEST classes alone
LIKELIEST = 10

Counts = npt.NDArray[np.int64]  # of each class: rows rightly predicted, with it as label, as prediction


def scores(logits: npt.NDArray[np.floating], labels: npt.NDArray[np.integer]) -> dict[str, float]:
    """Mean cross-entropy, accuracy and macro F1.

    Logits have shape (rows, classes), labels, class ids, shape (rows,). A class that stands neither in the
    labels nor in the predictions is left out of macro F1, as scikit-learn does by default.
    """
    predicted = logits.argmax(axis=1)
    return {
        "loss": float(np.mean(_by_blocks(_losses, logits, labels))),
        "accuracy": float(np.mean(predicted == labels)),
        "f1_macro": _f1_macro(_counts(labels, predicted, logits.shape[1])),
    }


def _by_blocks(function: Callable[..., Any], logits: Any, classes: Any) -> npt.NDArray[np.float64]:
    """A function's value for each row of logits and the class of that row, shape (rows,)."""
    size = max(1, BLOCK // logits.shape[1])
    starts = range(0, max(1, len(logits)), size)
    return np.concatenate([function(logits[at : at + size], classes[at : at + size]) for at in starts])


def _losses(logits: npt.NDArray[np.floating], labels: npt.NDArray[np.integer]) -> Any:
    wide = logits.astype(np.float64)
    top = wide.max(axis=1, keepdims=True)
    log_sum = top[:, 0] + np.log(np.exp(wide - top).sum(axis=1))
    return log_sum - wide[np.arange(len(labels)), labels]


def _counts(labels: npt.NDArray[np.integer], predicted: npt.NDArray[np.integer], classes: int) -> Counts:
    found = (labels[labels == predicted], labels, predicted)
    return np.stack([np.bincount(each, minlength=classes).astype(np.int64) for each in found])


def softmax(logits: npt.NDArray[np.floating]) -> npt.NDArray[np.float64]:
    """Probabilities, shape (rows, classes) as the logits, worked out in float64."""
    wide = logits.astype(np.float64)
    powers = np.exp(wide - wide.max(axis=1, keepdims=True))
    return np.asarray(powers / powers.sum(axis=1, keepdims=True), np.float64)


def most_likely(logits: npt.NDArray[np.floating]) -> tuple[npt.NDArray[np.int64], npt.NDArray[np.float64]]:
    """The class predicted for each row of logits, the first of equals, and its probability."""
    # from the logits: two of them that differ may have one and the same probability
    predicted = logits.argmax(axis=1)
    shares = _by_blocks(lambda part, own: softmax(part)[np.arange(len(own)), own], logits, predicted)
    return predicted.astype(np.int64), shares


def score_columns(names: Sequence[str], score: str) -> list[str]:
    """Names of the columns of a row's scores: of every class, beyond ``MANY_CLASSES`` of the likeliest."""
    if len(names) <= MANY_CLASSES:
        return [f"{score}:{name}" for name in names]
    return [f"{part}:{place}" for place in range(1, LIKELIEST + 1) for part in ("label", score)]


def score_fields(
    scores: npt.NDArray[np.float32], names: Sequence[str], number: Callable[[Any], float] = float
) -> list[Any]:
    """What stands in these columns for a row's scores, shape (classes,)."""
    if len(names) <= MANY_CLASSES:
        return list(map(number, scores))
    found = np.flatnonzero(~(scores < np.partition(scores, -LIKELIEST)[-LIKELIEST]))
    best = found[np.argsort(-scores[found], kind="stable")][:LIKELIEST]
    return [field for index in best.tolist() for field in (names[index], number(scores[index]))]


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
        support by name; ``confusion``: how many rows have a label and a prediction, where there are any;
        ``calibration``: the bins that error is summed over.
    """
    predicted, confidence = most_likely(logits)
    counts = _counts(labels, predicted, len(names))
    cells, rows = np.unique(labels.astype(np.int64) * len(names) + predicted, return_counts=True)
    pairs = zip(*(part.tolist() for part in (*divmod(cells, len(names)), rows)), strict=True)
    bins = _calibration(confidence, predicted == labels)
    return {
        **scores(logits, labels),
        "f1_micro": float(counts[0].sum() / len(labels)),
        "expected_calibration_error": _calibration_error(bins, len(labels)),
        "classes": dict(zip(names, _by_class(counts), strict=True)),
        "confusion": [{"label": names[one], "prediction": names[two], "rows": n} for one, two, n in pairs],
        "calibration": bins,
    }


def _by_class(counts: Counts) -> list[dict[str, Any]]:
    return [
        {
            "precision": _share(hits, taken),
            "recall": _share(hits, support),
            "f1": _share(2 * hits, taken + support),
            "support": int(support),
        }
        for hits, support, taken in counts.T
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
    return [
        {
            "from": float(edges[place]),
            "to": float(edges[place + 1]),
            "rows": int(inside.sum()),
            "confidence": float(confidence[inside].mean()) if inside.any() else None,
            "accuracy": float(right[inside].mean()) if inside.any() else None,
        }
        for place, inside in ((place, places == place) for place in range(CALIBRATION_BINS))
    ]


def _calibration_error(bins: Sequence[Mapping[str, Any]], rows: int) -> float:
    """The mean over all rows of how far their bin's accuracy is from its confidence."""
    return float(sum(b["rows"] * abs(b["accuracy"] - b["confidence"]) for b in bins if b["rows"]) / rows)


def _f1_macro(counts: Counts) -> float:
    hits, total = counts[0], counts[1] + counts[2]
    present = total > 0
    return float(np.mean(2 * hits[present] / total[present]))
