"""metrics.py: figures worked out by hand, and PyTorch's own."""

from __future__ import annotations

import math

import numpy as np
import pytest
import torch

from bunryu.metrics import NAMES, confusion, scores


def logits_for(predictions: list[int], classes: int) -> np.ndarray:
    return np.eye(classes, dtype=np.float32)[predictions]


def test_two_rows_by_hand() -> None:
    found = scores(np.array([[0.0, math.log(3.0)], [0.0, 0.0]], np.float64), np.array([1, 1]))
    assert tuple(found) == NAMES
    # -log(3/4) and -log(1/2); the tie goes to class 0, so one of two is right.
    assert found["loss"] == pytest.approx((math.log(4 / 3) + math.log(2)) / 2, abs=1e-15)
    assert found["accuracy"] == 0.5
    # class 0: never true, predicted once, F1 0; class 1: precision 1, recall 1/2, F1 2/3.
    assert found["f1_macro"] == pytest.approx(1 / 3, abs=1e-15)


def test_three_classes_by_hand() -> None:
    labels = np.array([0, 0, 0, 1, 1, 2, 2, 2, 2, 2])
    predicted = [0, 0, 1, 1, 2, 2, 2, 2, 0, 1]
    matrix = confusion(labels, np.array(predicted), 3)
    assert matrix.tolist() == [[2, 1, 0], [0, 1, 1], [1, 1, 3]]
    found = scores(logits_for(predicted, 3), labels)
    assert found["accuracy"] == 0.6
    # F1 = 2 hits / (true + predicted): 4/6, 2/5, 6/9.
    assert found["f1_macro"] == pytest.approx((4 / 6 + 2 / 5 + 6 / 9) / 3, abs=1e-15)


def test_a_class_neither_true_nor_predicted_is_left_out_of_f1() -> None:
    labels = np.array([0, 0, 2, 2])
    assert scores(logits_for([0, 0, 2, 2], 4), labels)["f1_macro"] == 1.0
    assert scores(logits_for([0, 0, 0, 2], 4), labels)["f1_macro"] == pytest.approx((4 / 5 + 2 / 3) / 2)


def test_a_class_predicted_but_never_true_counts_as_zero() -> None:
    assert scores(logits_for([0, 1], 2), np.array([0, 0]))["f1_macro"] == pytest.approx((2 / 3 + 0) / 2)


@pytest.mark.parametrize("classes", [2, 5])
def test_the_loss_is_torchs_cross_entropy(classes: int) -> None:
    generator = np.random.default_rng(classes)
    logits = generator.normal(scale=8.0, size=(257, classes)).astype(np.float32)
    labels = generator.integers(0, classes, 257)
    wanted = torch.nn.functional.cross_entropy(torch.tensor(logits).double(), torch.tensor(labels)).item()
    found = scores(logits, labels)
    assert found["loss"] == pytest.approx(wanted, rel=1e-13)
    assert found["accuracy"] == (logits.argmax(1) == labels).mean()


def test_large_logits_neither_overflow_nor_round_away() -> None:
    found = scores(np.array([[1e4, 0.0], [-1e4, 1e4]], np.float32), np.array([1, 1]))
    assert found["loss"] == 5000.0


def test_sixteen_bit_logits_are_summed_in_double() -> None:
    logits = np.tile(np.array([[0.0, 1.0]], np.float16), (100_000, 1))
    loss = scores(logits, np.ones(100_000, np.uint8))["loss"]
    assert loss == pytest.approx(math.log(1 + math.exp(-1)), rel=1e-12)


def test_a_loss_that_is_not_finite_shows() -> None:
    assert math.isnan(scores(np.array([[math.nan, 0.0]]), np.array([0]))["loss"])


def test_confusion_has_a_row_and_a_column_for_every_class_whatever_the_integer_type() -> None:
    labels = np.array([0, 99, 99], np.uint8)
    matrix = confusion(labels, np.array([0, 99, 0]), 100)
    assert matrix.shape == (100, 100)
    assert (matrix[0, 0], matrix[99, 99], matrix[99, 0], matrix.sum()) == (1, 1, 1, 3)
