"""Three files that agree, and a page that needs nothing and runs nothing."""

from __future__ import annotations

import csv
import json
import re
from html.parser import HTMLParser
from pathlib import Path
from typing import Any
from xml.etree import ElementTree

import numpy as np
import pytest

from bunryu import metrics
from bunryu.data.examples import Example
from bunryu.data.table import RowCounts
from bunryu.reports.evaluation import write_evaluation
from helpers.comparing import HOSTILE

CURVES = [
    (0, 10, "train/loss", 0.7),
    (0, 10, "lr", 1e-3),
    (0, 20, "train/loss", 0.5),
    (0, 20, "val/loss", 0.6),
    (0, 20, "val/accuracy", 0.8),
]


class Page(HTMLParser):
    """A page taken apart; raises where a tag is not closed in its turn."""

    def __init__(self, source: str) -> None:
        super().__init__(convert_charrefs=True)
        self.open: list[str] = []
        self.tags: list[tuple[str, dict[str, str | None]]] = []
        self.texts: list[tuple[str, str]] = []
        self.feed(source)
        self.close()
        assert self.open == []

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.handle_startendtag(tag, attrs)
        if tag not in ("meta", "br"):
            self.open.append(tag)

    def handle_startendtag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.tags.append((tag, dict(attrs)))

    def handle_endtag(self, tag: str) -> None:
        assert self.open.pop() == tag

    def handle_data(self, data: str) -> None:
        if data.strip():
            self.texts.append((self.open[-1] if self.open else "", data.strip()))

    def texts_in(self, tag: str) -> list[str]:
        return [text for inside, text in self.texts if inside == tag]


def rows_of(
    labels: list[int], predictions: list[int], classes: int = 2
) -> tuple[list[Example], np.ndarray, np.ndarray]:
    """Documents and logits with the given predictions, each surer than the one before."""
    examples = [Example(row, f"문서 {row}", str(label)) for row, label in enumerate(labels)]
    logits = np.zeros((len(labels), classes), np.float32)
    logits[np.arange(len(labels)), predictions] = 1 + np.arange(len(labels)) / 7
    return examples, np.array(labels), logits


def write(folder: Path, examples: list[Example], labels: np.ndarray, logits: np.ndarray, **more: Any) -> Page:
    names = more.pop("names", ["부정", "긍정"])
    arguments = {"facts": {"run": "r", "data": "test"}, "curves": [], "account": None, **more}
    found = write_evaluation(folder, examples, labels, logits, names, **arguments)
    assert figures(folder) == found or np.isnan(found["loss"])
    return Page((folder / "evaluation.html").read_text("utf-8"))


def figures(folder: Path) -> Any:
    return json.loads((folder / "evaluation.json").read_text("utf-8"))


def predictions_of(folder: Path) -> list[list[str]]:
    with open(folder / "predictions.csv", encoding="utf-8", newline="") as file:
        return list(csv.reader(file))


def test_exactly_three_files_which_the_next_evaluation_replaces(tmp_path: Path) -> None:
    folder = tmp_path / "evaluations/test"
    write(folder, *rows_of([0, 1], [1, 1]))
    examples, labels, logits = rows_of([0, 1, 1, 0], [0, 1, 0, 0])
    write(folder, examples, labels, logits)
    names = ["evaluation.html", "evaluation.json", "predictions.csv"]
    assert sorted(path.name for path in folder.iterdir()) == names
    report = metrics.report(logits, labels, ["부정", "긍정"])
    found = figures(folder)
    assert {name: found[name] for name in report} == report
    assert (found["facts"], found["account"]) == ({"run": "r", "data": "test"}, None)
    assert len(predictions_of(folder)) == 5


def test_predictions_give_the_same_bits_back_in_row_order(tmp_path: Path) -> None:
    generator = np.random.default_rng(3)
    logits = (generator.normal(size=(60, 3)) * 10.0 ** generator.integers(-9, 3, (60, 3))).astype(np.float32)
    labels = generator.integers(0, 3, 60)
    order = generator.permutation(60).tolist()
    examples = [Example(row, f"문서 {row}", str(label)) for row, label in zip(order, labels, strict=True)]
    write(tmp_path, examples, labels, logits, names=["가", "나", "다"])
    header, *rows = predictions_of(tmp_path)
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


@pytest.mark.parametrize(
    "text", ['a,"b"', "lone\rreturn", "two\r\nlines\n", "", " 앞뒤 ", "\u2028\x85", "=1+1"]
)
def test_any_text_comes_back_from_the_csv(tmp_path: Path, text: str) -> None:
    examples = [Example(0, text, "0", text), Example(1, "다음", "1", None)]
    write(tmp_path, examples, np.array([0, 1]), np.eye(2, dtype=np.float32))
    header, *rows = predictions_of(tmp_path)
    assert header[-2:] == ["text", "pair"]
    assert [row[-2:] for row in rows] == [[text, text], ["다음", ""]]


def test_the_worst_mistakes_are_the_surest_wrong_rows(tmp_path: Path) -> None:
    examples, labels, logits = rows_of([0, 1] * 60, [1, 1] * 60)  # every even row is wrong
    logits[100] = logits[98]  # as sure as the row before it
    write(tmp_path, examples, labels, logits)
    worst = figures(tmp_path)["worst_mistakes"]
    assert [mistake["row"] for mistake in worst] == [*range(118, 100, -2), 98, 100, *range(96, 18, -2)]
    assert worst[0] == {
        "row": 118, "label": "부정", "prediction": "긍정", "text": "문서 118", "pair": None,
        "confidence": pytest.approx(1 / (1 + np.exp(-float(logits[118, 1]))), rel=1e-12),
    }  # fmt: skip


def test_logits_that_are_no_numbers_can_be_looked_at(tmp_path: Path) -> None:
    examples, labels, logits = rows_of([1, 1, 1], [0, 1, 0])
    logits[0] = np.nan
    write(tmp_path, examples, labels, logits)
    # the one without a confidence last
    assert [mistake["row"] for mistake in figures(tmp_path)["worst_mistakes"]] == [2, 0]
    assert predictions_of(tmp_path)[1][3:6] == ["nan", "nan", "nan"]


def test_the_page_shows_figures_texts_and_the_account(tmp_path: Path) -> None:
    account = RowCounts(
        "뉴스.tsv", 9, 8, 5, {"blank line": 3}, ["뉴스.tsv:4: blank line"], {"duplicate ids": 2}
    )
    facts = {"run": "한 달", "data": "뉴스.tsv", "unk_rate": 0.0123, "warnings": ["조심"], "none": None}
    data = rows_of([0, 0, 1, 1, 1], [0, 1, 1, 1, 1])
    page = write(tmp_path, *data, account=account, facts=facts, curves=CURVES)
    assert page.texts_in("h1") == ["한 달 · 뉴스.tsv"]
    drawn = ["Confusion matrix", "Classes", "Confidence", "Learning curves"]
    assert page.texts_in("h2") == [*drawn, "Worst mistakes", "Rows of the file", "Facts"]
    assert page.texts_in("dd")[:2] == ["80.00%", "always “긍정”: 60.0%"]
    assert {"1.23%", "3 × blank line", "2 × duplicate ids", "8"} <= set(page.texts_in("dd"))
    assert {"뉴스.tsv:4: blank line", "조심"} <= set(page.texts_in("li"))
    assert {"문서 1", "1", "3"} <= set(page.texts_in("td"))
    assert "none" not in page.texts_in("dt")
    assert figures(tmp_path)["account"] == {
        "file": "뉴스.tsv", "lines": 9, "read": 8, "used": 5, "rejected": {"blank line": 3},
        "rejected_rows": ["뉴스.tsv:4: blank line"], "notes": {"duplicate ids": 2},
    }  # fmt: skip


def test_sections_without_content_are_left_out(tmp_path: Path) -> None:
    page = write(tmp_path, *rows_of([0, 1], [0, 1]), facts={})
    assert page.texts_in("h2") == ["Confusion matrix", "Classes", "Confidence", "Worst mistakes", "Facts"]
    assert page.texts_in("h1") == ["Evaluation"]
    assert "No prediction is wrong." in page.texts_in("p")


def test_the_page_loads_and_runs_nothing_and_its_drawings_are_well_formed_and_named(tmp_path: Path) -> None:
    page = write(tmp_path, *rows_of([0, 1, 0], [0, 1, 1]), curves=CURVES)
    source = (tmp_path / "evaluation.html").read_text("utf-8")
    assert "//" not in source.replace('xmlns="http://www.w3.org/2000/svg"', "")
    assert "url(" not in source
    assert "@import" not in source
    tags = [tag for tag, _ in page.tags]
    assert set(tags) & {"script", "link", "img", "iframe", "object", "embed", "base", "a", "form"} == set()
    assert tags.count("style") == 1
    names = {name for _, attributes in page.tags for name in attributes}
    assert {name for name in names if name.startswith("on") or name in ("src", "href", "style")} == set()
    policies = [a["content"] for _, a in page.tags if a.get("http-equiv") == "Content-Security-Policy"]
    assert policies == ["default-src 'none'; style-src 'unsafe-inline'"]
    drawings = [ElementTree.fromstring(found) for found in re.findall(r'<svg class="chart".*?</svg>', source)]
    assert [drawing[0].text for drawing in drawings] == [
        "Reliability: accuracy over confidence", "Right: 2 of 3 rows", "Wrong: 1 of 3 rows",
        "Loss", "Accuracy", "Learning rate",
    ]  # fmt: skip


def test_markup_in_documents_labels_and_facts_stays_text(tmp_path: Path) -> None:
    examples = [Example(0, HOSTILE, "a", HOSTILE + "pair"), Example(1, HOSTILE * 20, "b")]
    names = [HOSTILE, '"><img src=x onerror=alert(1)>']
    logits = np.eye(2, dtype=np.float32)[[1, 0]]
    account = RowCounts(HOSTILE, 3, 3, 2, {HOSTILE: 1}, [HOSTILE + "row"], {HOSTILE + "note": 1})
    facts = {"run": HOSTILE, "data": "</title>", HOSTILE: HOSTILE, "warnings": [HOSTILE + "warning"]}
    page = write(tmp_path, examples, np.array([0, 1]), logits, names=names, facts=facts, account=account)
    assert {tag for tag, _ in page.tags} & {"script", "img"} == set()
    assert page.texts_in("title")[0] == f"{HOSTILE} · </title>"
    assert {HOSTILE, HOSTILE + "pair"} <= set(page.texts_in("td"))
    assert set(names) == set(page.texts_in("bdi"))
    assert {HOSTILE + "row", HOSTILE + "warning"} <= set(page.texts_in("li"))


def test_long_texts_fold_and_very_long_ones_are_cut_in_the_page_only(tmp_path: Path) -> None:
    text = "가" * 100 + "나" * 100 + "다" * 5000
    examples = [Example(0, text, "0"), Example(1, "짧다", "1")]
    page = write(tmp_path, examples, np.array([0, 1]), np.eye(2, dtype=np.float32)[[1, 1]])
    assert text[:160] in page.texts_in("summary")
    assert text[160:1000] in page.texts_in("details")
    assert "… 5,200 characters in all; predictions.csv has the whole" in page.texts_in("span")
    assert figures(tmp_path)["worst_mistakes"][0]["text"] == text
    assert predictions_of(tmp_path)[1][-1] == text


def test_many_long_rows_and_steps_make_a_small_page(tmp_path: Path) -> None:
    generator = np.random.default_rng(1)
    labels = generator.integers(0, 2, 5_000)
    logits = generator.normal(size=(5_000, 2)).astype(np.float32)
    examples = [Example(row, "긴 글 " * 500, str(label)) for row, label in enumerate(labels)]
    curves = [(0, step, "train/loss", 1 / (step + 1)) for step in range(20_000)]
    write(tmp_path, examples, labels, logits, curves=curves)
    assert (tmp_path / "evaluation.html").stat().st_size < 500_000


@pytest.mark.parametrize(("classes", "cells"), [(40, 1600), (61, 0)])
def test_many_classes_have_a_matrix_and_very_many_a_list(tmp_path: Path, classes: int, cells: int) -> None:
    labels, predictions = [0, 0, 0, *range(classes)], [1, 1, 2, *range(classes)]
    page = write(tmp_path, *rows_of(labels, predictions, classes), names=[f"c{i}" for i in range(classes)])
    kinds = [str(a.get("class", "")) for tag, a in page.tags if tag == "td"]
    assert len([kind for kind in kinds if kind[:1] in ("h", "r", "n") and kind != "number"]) == cells
    assert {"50.0%", "25.0%"} <= set(page.texts_in("td" if classes > 60 else "small"))
    assert len(figures(tmp_path)["confusion"]) == classes
