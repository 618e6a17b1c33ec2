from __future__ import annotations

import json
import math

import numpy as np
import pytest

from bunryu import metrics
from bunryu.metrics import most_likely, report, score_columns, score_fields, scores, softmax


def test_scores_by_hand() -> None:
    found = scores(np.array([[0.0, math.log(3.0)], [0.0, 0.0]], np.float64), np.array([1, 1]))
    assert tuple(found) == ("loss", "accuracy", "f1_macro")
    # -log(3/4) and -log(1/2); the tie goes to class 0, so one of two is right.
    assert found["loss"] == pytest.approx((math.log(4 / 3) + math.log(2)) / 2, abs=1e-15)
    assert found["accuracy"] == 0.5
    # class 0: never true, predicted once, F1 0; class 1: precision 1, recall 1/2, F1 2/3.
    assert found["f1_macro"] == pytest.approx(1 / 3, abs=1e-15)
    # classes 1 and 3 are neither true nor predicted: left out
    absent = scores(np.eye(4, dtype=np.float32)[[0, 0, 0, 2]], np.array([0, 0, 2, 2]))["f1_macro"]
    assert absent == pytest.approx((4 / 5 + 2 / 3) / 2, abs=1e-15)


def test_large_and_narrow_numbers_neither_overflow_nor_round_away() -> None:
    assert scores(np.array([[1e4, 0.0], [-1e4, 1e4]], np.float32), np.array([1, 1]))["loss"] == 5000.0
    logits = np.tile(np.array([[0.0, 1.0]], np.float16), (100_000, 1))
    loss = scores(logits, np.ones(100_000, np.uint8))["loss"]
    assert loss == pytest.approx(math.log(1 + math.exp(-1)), rel=1e-12)
    assert math.isnan(scores(np.array([[math.nan, 0.0]]), np.array([0]))["loss"])
    # whatever the integer type
    many = report(np.eye(100)[[0, 99, 0]], np.array([0, 99, 99], np.uint8), [f"{n}" for n in range(100)])
    assert [tuple(cell.values()) for cell in many["confusion"]] == [
        ("0", "0", 1),
        ("99", "0", 1),
        ("99", "99", 1),
    ]


def test_softmax_by_hand_far_from_zero_and_widened_before_it_subtracts() -> None:
    logits = np.array([[0.1, -3.7, 2.2], [-1e4, 1e4, -1e4]], np.float32)
    powers = [math.exp(float(value)) for value in logits[0]]
    found = softmax(logits).tolist()
    assert found == [pytest.approx([power / sum(powers) for power in powers], rel=1e-14), [0.0, 1.0, 0.0]]


def test_the_prediction_is_the_larger_logit_though_probabilities_are_equal() -> None:
    larger = np.nextafter(np.float32(1e-30), np.float32(1))
    found = most_likely(np.array([[1e-30, larger], [2.0, 2.0]], np.float32))
    assert [each.tolist() for each in found] == [[1, 0], [0.5, 0.5]]


def test_a_report_by_hand() -> None:
    labels = np.array([0, 0, 0, 1, 1, 2, 2, 2, 2, 2])
    found = report(np.eye(3, dtype=np.float32)[[0, 0, 1, 1, 2, 2, 2, 2, 0, 1]], labels, ["가", "나", "다"])
    assert found["confusion"][:2] == [
        {"label": "가", "prediction": "가", "rows": 2},
        {"label": "가", "prediction": "나", "rows": 1},
    ]
    cells = {(cell["label"], cell["prediction"]): cell["rows"] for cell in found["confusion"]}
    assert [[cells.get((a, b)) for b in "가나다"] for a in "가나다"] == [
        [2, 1, None],
        [None, 1, 1],
        [1, 1, 3],
    ]
    assert found["f1_micro"] == 0.6
    assert found["classes"] == {  # F1 = 2 hits / (true + predicted)
        "가": {"precision": 2 / 3, "recall": 2 / 3, "f1": 4 / 6, "support": 3},
        "나": {"precision": 1 / 3, "recall": 1 / 2, "f1": 2 / 5, "support": 2},
        "다": {"precision": 3 / 4, "recall": 3 / 5, "f1": 6 / 9, "support": 5},
    }
    # every row has the one confidence e / (e + 2) = 0.576, in the bin from 8/15 to 9/15
    confidence = math.e / (math.e + 2)
    (full,) = [found_bin for found_bin in found["calibration"] if found_bin["rows"]]
    assert (full["from"], full["to"], full["rows"], full["accuracy"]) == (8 / 15, 9 / 15, 10, 0.6)
    assert full["confidence"] == pytest.approx(confidence, abs=1e-15)
    assert found["expected_calibration_error"] == pytest.approx(0.6 - confidence, abs=1e-15)
    # c is never predicted and d no row's label: what would divide by zero is zero
    found = report(np.eye(4, dtype=np.float32)[[0, 0, 3]], np.array([0, 2, 0]), list("abcd"))["classes"]
    assert found["c"] == {"precision": 0.0, "recall": 0.0, "f1": 0.0, "support": 1}
    assert found["d"] == {"precision": 0.0, "recall": 0.0, "f1": 0.0, "support": 0}


def test_a_report_holds_the_very_scores_and_an_error_summed_over_bins() -> None:
    generator = np.random.default_rng(11)
    logits = generator.normal(scale=2.0, size=(400, 3)).astype(np.float32)
    labels = generator.integers(0, 3, 400)
    found = report(logits, labels, ["a", "b", "c"])
    assert json.loads(json.dumps(found)) == found
    assert {**found, **scores(logits, labels)} == found
    shares = softmax(logits)
    assert found["loss"] == pytest.approx(-np.log(shares[range(400), labels]).mean(), rel=1e-13)
    errors = (logits.argmax(axis=1) == labels) - shares.max(axis=1)
    places = np.ceil(shares.max(axis=1) * 15).astype(int) - 1
    assert [each["rows"] for each in found["calibration"]] == np.bincount(places, minlength=15).tolist()
    gap = np.abs(np.bincount(places, errors)).sum() / 400
    assert found["expected_calibration_error"] == pytest.approx(gap, abs=1e-13)


def test_a_bin_of_the_calibration_has_its_upper_edge_and_not_its_lower() -> None:
    # 1/3 is the edge between the fifth and the sixth of fifteen bins; 1 is the end of the last
    logits = np.array([[0.0, 0.0, 0.0], [9999.0, 0.0, 0.0]])
    bins = report(logits, np.array([0, 0]), list("abc"))["calibration"]
    assert [place for place, found in enumerate(bins) if found["rows"]] == [4, 14]
    assert (bins[4]["to"], bins[14]["to"]) == (1 / 3, 1.0)
    assert bins[0] == {"from": 0.0, "to": 1 / 15, "rows": 0, "confidence": None, "accuracy": None}
    # a logit that is no number shows
    found = report(np.array([[math.nan, 0.0], [0.0, 1.0]]), np.array([0, 1]), ["a", "b"])
    assert math.isnan(found["expected_calibration_error"])
    assert sum(found_bin["rows"] for found_bin in found["calibration"]) == 2


def test_many_rows_are_worked_out_in_blocks_to_the_same_bits(monkeypatch: pytest.MonkeyPatch) -> None:
    generator = np.random.default_rng(5)
    logits = generator.normal(scale=3.0, size=(211, 37)).astype(np.float32)
    labels = generator.integers(0, 37, 211)
    names = [f"c{index}" for index in range(37)]
    whole = report(logits, labels, names)
    for block in (1, 37 * 4, 37 * 210):
        monkeypatch.setattr(metrics, "BLOCK", block)
        assert report(logits, labels, names) == whole


def test_beyond_a_hundred_classes_the_likeliest_have_a_score() -> None:
    names = [f"c{index}" for index in range(101)]
    scores = np.zeros(101, np.float32)
    scores[[7, 3, 100]] = 1.5, 2.5, 0.1
    fields = score_fields(scores, names)
    assert score_columns(names, "logit")[:4] == ["label:1", "logit:1", "label:2", "logit:2"]
    assert fields[:8] == [
        "c3",
        2.5,
        "c7",
        1.5,
        "c100",
        float(np.float32(0.1)),
        "c0",
        0.0,
    ]  # the first of equals
    assert len(fields) == len(score_columns(names, "logit")) == 20
    assert len(score_fields(np.full(101, np.nan, np.float32), names)) == 20
    assert score_columns(names[:100], "logit") == [f"logit:c{index}" for index in range(100)]
    assert score_fields(scores[:100], names[:100]) == scores[:100].tolist()
