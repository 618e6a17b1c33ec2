"""predictions.py: one row out for every row in."""

from __future__ import annotations

import csv
import io
import json
from datetime import UTC, date, datetime, timedelta
from decimal import Decimal

import numpy as np
import pytest

from bunryu.data.rows import Row
from bunryu.inference.prediction_writer import PredictionWriter

ROWS = [Row(2, ['그는 "배우"다', 17], ""), Row(3, None, "stray quote"), Row(5, ["a\nb", None], "")]
LOGITS = np.array([[0.0, 3.0], [2.0, -1.0]], dtype=np.float32)
HEADER = ["line", "id", "prediction", "confidence", "probability:부정", "probability:긍정", "text", "error"]


def written(kind: str) -> str:
    file = io.StringIO()
    PredictionWriter(file, kind, ["부정", "긍정"], ["text"], ["id"]).write(ROWS, LOGITS)
    return file.getvalue()


@pytest.mark.parametrize(("kind", "delimiter"), [("csv", ","), ("tsv", "\t")])
def test_delimited_rows_stand_in_order_the_rejected_one_with_its_reason(kind: str, delimiter: str) -> None:
    header, first, rejected, last = csv.reader(io.StringIO(written(kind)), delimiter=delimiter)
    assert header == HEADER
    assert first == ["2", "17", "긍정", "0.95257413", "0.047425874", "0.95257413", '그는 "배우"다', ""]
    assert rejected == ["3", "", "", "", "", "", "", "stray quote"]
    assert last[:3] == ["5", "", "부정"]
    assert last[-2:] == ["a\nb", ""]


@pytest.mark.parametrize("text", ["a\rb", "a\r\nb", "\r", "a\tb", 'a"b', "a\n", " a,b "])
@pytest.mark.parametrize(("kind", "delimiter"), [("csv", ","), ("tsv", "\t")])
def test_any_text_comes_back_when_it_is_read(text: str, kind: str, delimiter: str) -> None:
    file = io.StringIO(newline="")
    PredictionWriter(file, kind, ["부정", "긍정"], ["text"], []).write([Row(1, [text], "")], LOGITS[:1])
    rows = list(csv.reader(io.StringIO(file.getvalue(), newline=""), delimiter=delimiter))
    assert [row[-2] for row in rows] == ["text", text]
    assert file.getvalue().endswith("\n") and not file.getvalue().endswith("\r\n")


def test_json_rows_have_the_same_fields() -> None:
    first, rejected, last = map(json.loads, written("jsonl").splitlines())
    assert list(first) == HEADER
    assert (first["id"], first["prediction"], first["confidence"]) == (17, "긍정", 0.95257413)
    assert rejected == {**dict.fromkeys(HEADER), "line": 3, "error": "stray quote"}
    assert last["text"] == "a\nb"


KEPT = {
    "when": (datetime(2024, 1, 1, 12, 0, 1, 5, UTC), "2024-01-01T12:00:01.000005+00:00"),
    "day": (date(2024, 1, 1), "2024-01-01"),
    "took": (timedelta(days=1, seconds=2), "PT86402.0S"),
    "back": (-timedelta(seconds=1.5), "PT-1.5S"),
    "price": (Decimal("1.10"), "1.10"),
    "raw": (b"\xff\x00", "/wA="),
    "no number": (float("nan"), None),
    "big": (9223372036854775807, 9223372036854775807),
    "nested": ({"a": [float("-inf"), b"\xff", ("나", None)]}, {"a": [None, "/w==", ["나", None]]}),
}


def test_kept_values_of_every_kind_are_strict_json() -> None:
    file = io.StringIO()
    row = Row(1, ["가", *(given for given, _ in KEPT.values())], "")
    PredictionWriter(file, "jsonl", ["부정", "긍정"], ["text"], list(KEPT)).write([row], LOGITS[:1])
    found = json.loads(file.getvalue(), parse_constant=pytest.fail)
    assert {name: found[name] for name in KEPT} == {name: wanted for name, (_, wanted) in KEPT.items()}


def test_kept_values_in_csv_are_the_same_as_text() -> None:
    file = io.StringIO(newline="")
    row = Row(1, ["가", *(given for given, _ in KEPT.values())], "")
    PredictionWriter(file, "csv", ["부정", "긍정"], ["text"], list(KEPT)).write([row], LOGITS[:1])
    (found,) = csv.DictReader(io.StringIO(file.getvalue()))
    assert [found[name] for name in ("when", "raw", "no number", "nested")] == [
        KEPT["when"][1], "/wA=", "", '{"a": [null, "/w==", ["나", null]]}'
    ]  # fmt: skip


def test_logits_that_are_not_finite_have_no_probabilities() -> None:
    file = io.StringIO()
    logits = np.array([[np.nan, 1.0]], dtype=np.float32)
    PredictionWriter(file, "jsonl", ["부정", "긍정"], ["text"], []).write([Row(1, ["가"], "")], logits)
    found = json.loads(file.getvalue(), parse_constant=pytest.fail)
    assert (found["confidence"], found["probability:긍정"], found["text"]) == (None, None, "가")


def test_cells_that_begin_like_formulas_are_inert_for_spreadsheets_if_asked() -> None:
    rows = [Row(1, ['=HYPERLINK("http://evil")', "-_-", -3], ""), Row(2, ["가=1", "-3.5", "@여기"], "")]
    for safe, mark in ((True, "'"), (False, "")):
        file = io.StringIO(newline="")
        writer = PredictionWriter(
            file, "csv", ["+부정", "긍정"], ["text"], ["=a", "b"], spreadsheet_safe=safe
        )
        writer.write(rows, np.array([[1, 0], [0, 1]], np.float32))
        header, first, second = csv.reader(io.StringIO(file.getvalue(), newline=""))
        assert header[:4] == ["line", f"{mark}=a", "b", "prediction"]
        assert [*first[1:4], first[-2]] == [
            f"{mark}-_-", "-3", f"{mark}+부정", f'{mark}=HYPERLINK("http://evil")'
        ]  # fmt: skip
        assert [*second[1:4], second[-2]] == ["-3.5", f"{mark}@여기", "긍정", "가=1"]


def test_probabilities_keep_32_bits() -> None:
    shares = np.exp(LOGITS[0].astype(np.float64)) / np.exp(LOGITS[0].astype(np.float64)).sum()
    first = json.loads(written("jsonl").splitlines()[0])
    assert np.float32(first["probability:긍정"]) == np.float32(shares[1])


def test_of_very_many_classes_the_likeliest_stand_in_a_row() -> None:
    file, names = io.StringIO(), [f"c{index}" for index in range(101)]
    logits = np.zeros((1, 101), np.float32)
    logits[0, [5, 50]] = 9.0, 8.0
    PredictionWriter(file, "csv", names, ["text"], []).write([Row(1, ["a"], ""), Row(2, None, "bad")], logits)
    first, rejected = csv.DictReader(io.StringIO(file.getvalue()))
    assert len(first) == len(rejected) == 25
    assert (first["prediction"], first["label:1"], first["label:2"], first["label:3"]) == (
        "c5",
        "c5",
        "c50",
        "c0",
    )
    assert first["confidence"] == first["probability:1"] > first["probability:2"]
    assert (first["text"], rejected["error"]) == ("a", "bad")
