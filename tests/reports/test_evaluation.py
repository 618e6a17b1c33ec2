from __future__ import annotations

import csv
import dataclasses
import json
import re
from pathlib import Path
from typing import Any
from xml.etree.ElementTree import Element, fromstring

import numpy as np
import pytest

from bunryu import metrics
from bunryu.data.examples import Example
from bunryu.data.rows import RowCounts
from bunryu.reports.evaluation import write_evaluation
from helpers.comparing import HOSTILE

CURVES = [(0, 0, "train/loss", 0.7), (0, 0, "lr", 1e-3), (0, 9, "val/loss", 0.5), (0, 9, "val/accuracy", 0.8)]


def rows_of(labels: list[int], predictions: list[int], classes: int = 2) -> tuple[Any, Any, Any]:
    """Documents, labels and logits with the given predictions, each surer than the one before."""
    examples = [Example(row, f"문서 {row}", str(label)) for row, label in enumerate(labels)]
    surety = 1 + np.arange(len(labels), dtype=np.float32)[:, None] / 7
    return examples, np.array(labels), np.eye(classes, dtype=np.float32)[predictions] * surety


def write(folder: Path, examples: Any, labels: Any, logits: Any, **more: Any) -> tuple[Element, Any, Any]:
    """The page, which but for tags without an end is XML, the figures and the predictions, as written."""
    arguments = {"names": ["부정", "긍정"], "facts": {"run": "r"}, "curves": [], "account": None, **more}
    returned = write_evaluation(folder, examples, labels, logits, **arguments)
    figures = json.loads((folder / "evaluation.json").read_text("utf-8"))
    assert figures == returned or np.isnan(figures["loss"])
    with open(folder / "predictions.csv", encoding="utf-8", newline="") as file:
        predictions = list(csv.reader(file))
    source = (folder / "evaluation.html").read_text("utf-8").split("<!doctype html>")[1]
    return fromstring(re.sub(r"<((?:meta|br)\b[^>]*)>", r"<\1/>", source)), figures, predictions


def texts_in(page: Element, tag: str) -> list[str]:
    """What stands in the elements of a tag, but not in others within them."""
    found = (text for each in page.iter(tag) for text in (each.text, *(part.tail for part in each)))
    return [text.strip() for text in found if text and text.strip()]


def test_an_evaluation_replaces_the_last_and_gives_the_same_bits_back_in_row_order(tmp_path: Path) -> None:
    write(tmp_path, *rows_of([0, 1], [1, 1]))
    generator = np.random.default_rng(3)
    logits = (generator.normal(size=(60, 3)) * 10.0 ** generator.integers(-9, 3, (60, 3))).astype(np.float32)
    labels = generator.integers(0, 3, 60)
    order = generator.permutation(60).tolist()
    examples = [Example(row, f"문서 {row}", str(label)) for row, label in zip(order, labels, strict=True)]
    _, found, (header, *rows) = write(tmp_path, examples, labels, logits, names=["가", "나", "다"])
    report = metrics.report(logits, labels, ["가", "나", "다"])
    assert {**found, **report, "facts": {"run": "r"}, "account": None} == found
    assert header == ["row", "label", "prediction", "confidence", "logit:가", "logit:나", "logit:다", "text"]
    place = np.argsort(order)
    assert [[row[0], row[1], row[2], row[7]] for row in rows] == [
        [str(row), "가나다"[labels[at]], "가나다"[logits[at].argmax()], f"문서 {row}"]
        for row, at in enumerate(place)
    ]
    read = np.array([[float(value) for value in row[4:7]] for row in rows], np.float32)
    assert read.tobytes() == logits[place].tobytes()
    confidence = np.array([float(row[3]) for row in rows])
    assert confidence.tobytes() == metrics.softmax(logits).max(axis=1)[place].tobytes()


def test_any_text_comes_back_from_the_csv(tmp_path: Path) -> None:
    texts = ['a,"b"', "lone\rreturn", "two\r\nlines\n", "", " 앞뒤 ", "\u2028\x85", "=1+1"]
    examples = [Example(row, text, "0", text if row else None) for row, text in enumerate(texts)]
    _, _, (header, *rows) = write(tmp_path, examples, np.zeros(7, int), np.zeros((7, 2), np.float32))
    assert header[-2:] == ["text", "pair"]
    assert [row[-2:] for row in rows] == [[texts[0], ""], *([text, text] for text in texts[1:])]


def test_the_worst_mistakes_are_the_surest_wrong_rows(tmp_path: Path) -> None:
    examples, labels, logits = rows_of([0, 1] * 60, [1, 1] * 60)  # every even row is wrong
    logits[100] = logits[98]  # as sure as the row before it
    worst = write(tmp_path, examples, labels, logits)[1]["worst_mistakes"]
    assert [mistake["row"] for mistake in worst] == [*range(118, 100, -2), 98, 100, *range(96, 18, -2)]
    assert worst[0] == {
        "row": 118, "label": "부정", "prediction": "긍정", "text": "문서 118", "pair": None,
        "confidence": pytest.approx(1 / (1 + np.exp(-float(logits[118, 1]))), rel=1e-12),
    }  # fmt: skip
    examples, labels, logits = rows_of([1, 1, 1], [0, 1, 0])
    logits[0] = np.nan  # the one without a confidence last
    _, found, predictions = write(tmp_path, examples, labels, logits)
    assert [mistake["row"] for mistake in found["worst_mistakes"]] == [2, 0]
    assert predictions[1][3:6] == ["nan", "nan", "nan"]


def test_the_page_shows_figures_texts_and_the_account(tmp_path: Path) -> None:
    rejected = {"blank line": 3}, ["뉴스.tsv:4: blank line"]
    account = RowCounts("뉴스.tsv", 9, 8, 5, *rejected, {"duplicate ids": 2})
    facts = {"run": "한 달", "data": "뉴스.tsv", "unk_rate": 0.0123, "warnings": ["조심"], "none": None}
    more = {"account": account, "facts": facts, "curves": CURVES}
    page, found, _ = write(tmp_path, *rows_of([0, 0, 1, 1, 1], [0, 1, 1, 1, 1]), **more)
    assert texts_in(page, "h1") == ["한 달 · 뉴스.tsv"]
    drawn = ["Confusion matrix", "Classes", "Confidence", "Learning curves"]
    assert texts_in(page, "h2") == [*drawn, "Worst mistakes", "Rows of the file", "Facts"]
    assert texts_in(page, "dd")[:2] == ["80.00%", "always “긍정”: 60.0%"]
    assert {"1.23%", "3 × blank line", "2 × duplicate ids", "8"} <= set(texts_in(page, "dd"))
    assert {"뉴스.tsv:4: blank line", "조심"} <= set(texts_in(page, "li"))
    assert {"문서 1", "1", "3"} <= set(texts_in(page, "td"))
    assert "none" not in texts_in(page, "dt")
    assert found["account"] == dataclasses.asdict(account)
    page, *_ = write(tmp_path, *rows_of([0, 1], [0, 1]), facts={})
    assert texts_in(page, "h2") == [*drawn[:3], "Worst mistakes", "Facts"]
    assert texts_in(page, "h1") == ["Evaluation"]
    assert "No prediction is wrong." in texts_in(page, "p")


def test_markup_stays_text_and_the_page_loads_and_runs_nothing_of_it(tmp_path: Path) -> None:
    examples = [Example(0, HOSTILE, "a", HOSTILE + "pair"), Example(1, HOSTILE * 20, "b")]
    names = [HOSTILE, '"><img src=x onerror=alert(1)>']
    account = RowCounts(HOSTILE, 3, 3, 2, {HOSTILE: 1}, [HOSTILE + "row"], {HOSTILE + "note": 1})
    facts = {"run": HOSTILE, "data": "</title>", HOSTILE: HOSTILE, "warnings": [HOSTILE + "warning"]}
    more = {"names": names, "facts": facts, "account": account, "curves": CURVES}
    page, *_ = write(tmp_path, examples, np.array([0, 1]), np.eye(2, dtype=np.float32)[[1, 0]], **more)
    tags = {each.tag.rpartition("}")[2] for each in page.iter()}
    assert tags & {"script", "link", "img", "iframe", "object", "embed", "base", "a", "form"} == set()
    attributes = {name for each in page.iter() for name in each.attrib}
    assert {name for name in attributes if name[:2] == "on" or name in ("src", "href", "style")} == set()
    source = (tmp_path / "evaluation.html").read_text("utf-8")
    assert re.findall("url\\(|@import|//", source.replace("http://www.w3.org/2000/svg", "")) == []
    (policy,) = (each for each in page.iter("meta") if each.get("http-equiv") == "Content-Security-Policy")
    assert policy.attrib["content"] == "default-src 'none'; style-src 'unsafe-inline'"
    assert texts_in(page, "title") == [f"{HOSTILE} · </title>"]
    assert {HOSTILE, HOSTILE + "pair"} <= set(texts_in(page, "td"))
    assert set(names) == set(texts_in(page, "bdi"))
    assert {HOSTILE + "row", HOSTILE + "warning"} <= set(texts_in(page, "li"))
    assert [drawing[0].text for drawing in page.iter() if drawing.get("class") == "chart"] == [
        "Reliability: accuracy over confidence", "Right: 0 of 2 rows", "Wrong: 2 of 2 rows",
        "Loss", "Accuracy", "Learning rate",
    ]  # fmt: skip


def test_long_texts_fold_and_the_page_is_small_after_many_long_rows_and_steps(tmp_path: Path) -> None:
    text = "가" * 100 + "나" * 100 + "다" * 5000
    examples = [Example(row, text, "0") for row in range(200)]
    curves = [(0, step, "train/loss", 1 / (step + 1)) for step in range(20_000)]
    logits = np.eye(2, dtype=np.float32)[[1] * 200]
    page, found, predictions = write(tmp_path, examples, np.zeros(200, int), logits, curves=curves)
    assert text[:160] in texts_in(page, "summary")
    assert text[160:1000] in texts_in(page, "details")
    assert "… 5,200 characters in all; predictions.csv has the whole" in texts_in(page, "span")
    assert found["worst_mistakes"][0]["text"] == predictions[1][-1] == text
    assert (tmp_path / "evaluation.html").stat().st_size < 300_000


@pytest.mark.parametrize(("classes", "cells"), [(40, 1600), (61, 0)])
def test_many_classes_have_a_matrix_and_very_many_a_list(tmp_path: Path, classes: int, cells: int) -> None:
    labels, predictions = [0, 0, 0, *range(classes)], [1, 1, 2, *range(classes)]
    names = [f"c{index}" for index in range(classes)]
    page, found, _ = write(tmp_path, *rows_of(labels, predictions, classes), names=names)
    kinds = [each.get("class", "") for each in page.iter("td")]
    assert len([kind for kind in kinds if kind[:1] in ("h", "r", "n") and kind != "number"]) == cells
    assert {"50.0%", "25.0%"} <= set(texts_in(page, "td" if classes > 60 else "small"))
    assert len(found["confusion"]) == classes + 2
