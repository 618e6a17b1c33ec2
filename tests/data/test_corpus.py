"""What is wrong with a corpus, with its counts and places; its fingerprint, and a limit on its rows."""

from __future__ import annotations

import json
from dataclasses import asdict, replace
from pathlib import Path
from typing import Any

import pytest

from bunryu.data.cleaner import NO_CLEANING
from bunryu.data.corpus import Corpus
from bunryu.data.examples import Example
from bunryu.errors import DataError
from helpers.tables import table, write

TRAIN = [(f"글 {n}", n % 2) for n in range(4)]  # lines 2 to 5
TEST = [("새 글", 0), ("딴 글", 1)]  # lines 2 and 3


def read(
    folder: Path, train: list[Any], test: list[Any], header: str = "text\tlabel", **changes: Any
) -> Corpus:
    """A corpus of the files a.tsv and b.tsv that validates on test."""
    test_file = write(folder / "b.tsv", *test, header=header)
    train_file = write(folder / "a.tsv", *train, header=header)
    return table(train_file, test=test_file, **{"validation": "test", **changes}).read()


@pytest.mark.parametrize(
    ("train", "test", "flaws"),
    [
        ([("", 0)], [], ["empty documents: 1 in train; first: a.tsv:6"]),
        ([], [(" \u3000", 1)], ["empty documents: 1 in test; first: b.tsv:4"]),
        ([("글 2", 0)], [], ["duplicate documents: 1 in train; first: a.tsv:4 and a.tsv:6"]),
        (
            [("글 2", 1), ("글 2", 0), ("글 2", 1), ("글 3", 1)], [],
            ["duplicate documents: 4 in train; first: a.tsv:4 and a.tsv:6",
             "documents with several labels: 1 in train; first: a.tsv:4 and a.tsv:6"],
        ),
        (
            [], [("글 1", 1), ("글 1", 1)],
            ["duplicate documents: 1 in test; first: b.tsv:4 and b.tsv:5",
             "documents that also stand in train: 2 in test; first: b.tsv:4 and a.tsv:3"],
        ),
    ],
    ids=["empty", "white space", "duplicate", "conflict", "overlap"],
)  # fmt: skip
def test_doubtful_documents_are_counted_placed_and_refused_if_strict(
    tmp_path: Path, train: list[Any], test: list[Any], flaws: list[str]
) -> None:
    corpus = read(tmp_path, TRAIN + train, TEST + test)
    assert corpus.flaws() == corpus.warnings == corpus.facts()["warnings"] == flaws
    with pytest.raises(DataError) as refused:
        corpus.refuse_flaws()
    assert all(f"\n  - {flaw}" in refused.value.what for flaw in flaws)
    assert "strict_data=false" in refused.value.fix
    assert (len(corpus.train), len(corpus.test)) == (4 + len(train), 2 + len(test))  # kept otherwise


def test_a_corpus_without_flaws_passes_strictness(tmp_path: Path) -> None:
    corpus = read(tmp_path, TRAIN, TEST)
    assert corpus.warnings == []
    corpus.refuse_flaws()


def test_duplicate_ids_are_a_flaw(tmp_path: Path) -> None:
    train, test = [(1, "가", 0), (2, "나", 1), (1, "다", 1)], [(1, "라", 0), (2, "마", 1)]
    assert read(tmp_path, train, test, "id\ttext\tlabel").flaws() == ["a.tsv: 1 of 3 rows repeat an id"]


def test_documents_of_test_and_validation_in_train_both_show(tmp_path: Path) -> None:
    validation = write(tmp_path / "c.tsv", ("글 0", 0), ("새것", 1))
    corpus = read(tmp_path, TRAIN, [("글 3", 0), ("새 글", 1)], validation=validation)
    assert corpus.flaws() == [
        "documents that also stand in train: 1 in validation, 1 in test; first: c.tsv:2 and a.tsv:2"
    ]
    facts = corpus.facts()
    assert (facts["validation_documents_in_train"], facts["test_documents_in_train"]) == (1, 1)


def test_a_pair_is_one_document_and_empty_if_either_part_is(tmp_path: Path) -> None:
    train = [("가", "나", 0), ("가", "다", 1), ("나", "가", 1), ("가", "", 0)]
    test = [("가", "라", 0), ("가", "나", 1)]
    assert read(tmp_path, train, test, "text\tpair\tlabel", pair_column="pair").flaws() == [
        "empty documents: 1 in train; first: a.tsv:5",
        "documents that also stand in train: 1 in test; first: b.tsv:3 and a.tsv:2",
    ]


def test_a_split_of_one_class_and_a_label_without_rows_are_flaws(tmp_path: Path) -> None:
    assert read(tmp_path, TRAIN, [("새 글", 1), ("딴 글", 1)]).flaws() == ["test has only the label ['1']"]
    # a train of two classes of which a limit leaves one
    many = [*((f"글 {n}", 0) for n in range(50)), ("글 51", 1)]
    assert "train has only the label ['0']" in read(tmp_path, many, TEST).limited(1).flaws()
    corpus = read(tmp_path, TRAIN, TEST, label_names={0: "부정", 1: "긍정", 2: "중립"})
    assert corpus.labels == ("0", "1", "2")
    assert corpus.warnings == ["train has no row of the labels ['2']: never predicted"]


def test_the_facts_of_a_messy_file(tmp_path: Path) -> None:
    train = [
        *(("좋다", 1), ("나쁘다", 0)),
        ("라벨이 빈 줄", " "),  # line 4: rejected
        ("짧다",),  # line 5: rejected
        *(("최고", 1), ("최악", 0), ("", 1), (" ", 0)),
        ("좋다", 1),  # line 10: twice the same
        ("최고", 0),  # and with another label
    ]
    corpus = read(tmp_path, train, [("최고", 1), ("나쁘다", 0), ("새 글", 1)])
    facts = corpus.facts()
    assert facts["splits"]["train"] == {
        "rows": 8,
        "labels": {"0": 4, "1": 4},
        "empty_documents": 2,
        "duplicate_documents": 2,
        "conflicting_documents": 1,
    }
    assert (facts["test_documents_in_train"], facts["validation_documents_in_train"]) == (2, 2)
    counts = asdict(corpus.row_counts["train"])
    assert counts == facts["files"]["train"]
    assert counts == {
        "file": "a.tsv",
        "lines": 10,
        "read": 10,
        "used": 8,
        "rejected": {"empty label": 1, "1 fields instead of 2": 1},
        "rejected_rows": ["a.tsv:4: empty label", "a.tsv:5: 1 fields instead of 2"],
        "notes": {},
    }
    assert facts["warnings"] == corpus.warnings
    assert corpus.flaws() == [
        "a.tsv: 2 of 10 rows rejected (1 empty label, 1 1 fields instead of 2); first: a.tsv:4: empty label",
        "empty documents: 2 in train; first: a.tsv:8",
        "duplicate documents: 2 in train; first: a.tsv:2 and a.tsv:10",
        "documents with several labels: 1 in train; first: a.tsv:6 and a.tsv:11",
        "documents that also stand in train: 2 in test; first: b.tsv:2 and a.tsv:6",
    ]
    assert json.loads(json.dumps(facts)) == facts


def test_rows_over_several_lines_are_a_warning_that_names_quoting(tmp_path: Path) -> None:
    train = [('"열고', 1), ("둘", 0), ('닫고"', 0), ("셋", 1), ("넷", 0)]
    corpus = read(tmp_path, train, TEST)
    assert corpus.warnings == [
        "a.tsv: 5 lines gave 3 rows, 1 of them over several lines: right if texts have line breaks; "
        "if it was written without quoting, set corpus.quoting=none"
    ]
    assert corpus.flaws() == []  # such rows may be right
    assert read(tmp_path, train, TEST, quoting="none").warnings == []


def test_limited_draws_rows_from_all_of_a_split_and_keeps_their_order(tmp_path: Path) -> None:
    corpus = read(tmp_path, TRAIN * 30, TEST)
    limited = corpus.limited(20)
    rows = [example.row for example in limited.train]
    assert len(rows) == 20
    assert rows == sorted(rows)
    assert set(limited.train) <= set(corpus.train)
    assert rows[-1] > len(corpus.train) / 2, "not only the first rows"
    assert limited.test == corpus.test
    assert corpus.limited(20) == limited
    assert corpus.limited(None) is corpus


def small(*train: Example) -> Corpus:
    return Corpus(list(train), [], [], ("0", "1"), ("0", "1"), NO_CLEANING, {})


def test_the_fingerprint_changes_with_every_byte_and_place() -> None:
    one, two = Example(0, "가 나", "0"), Example(1, "다", "1", "짝")
    corpora = [
        small(one, two),
        small(one._replace(text="가 너"), two),
        small(one._replace(text="가 나 "), two),
        small(one._replace(label="1"), two),
        small(one, two._replace(pair="짝 ")),
        small(one, two._replace(pair=None)),
        small(one, two._replace(pair="")),
        small(two, one),
        small(one),
        replace(small(one), validation=[two]),
        replace(small(one), test=[two]),
        # nothing in a text can pass for the end of one, or for a label
        small(Example(0, " 나", "0가"), two),
        small(Example(0, "가 나\x1e", "0"), two),
        small(Example(0, '가 나", null]["train", "1", "다', "0", "짝")),
    ]
    assert len({corpus.fingerprint() for corpus in corpora}) == len(corpora)
    moved = small(one._replace(row=5), two)
    assert moved.fingerprint() == corpora[0].fingerprint()  # content, not line numbers
