"""corpora.py and splits.py: files to splits, labels in a fixed order, and what became of every row."""

from __future__ import annotations

import json
from collections import Counter
from dataclasses import asdict, replace
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from bunryu.data.cleaner import NO_CLEANING, Cleaner
from bunryu.data.corpora import Corpus, Nsmc, Sample
from bunryu.data.examples import Example
from bunryu.data.splits import sort_labels, split_validation
from bunryu.errors import ConfigError, DataError
from helpers.tables import table

NAMES = {0: "부정", 1: "긍정"}
derandomized = settings(max_examples=100, derandomize=True, deadline=None)


def examples(labels: str) -> list[Example]:
    """One example a letter, the letter being its label."""
    return [Example(row, f"text {row}", label) for row, label in enumerate(labels)]


def rows_of(split: list[Example]) -> list[int]:
    return [example.row for example in split]


def write(path: Path, *rows: tuple[object, ...], header: str = "text\tlabel") -> str:
    lines = [header, *("\t".join(map(str, row)) for row in rows)]
    path.write_text("".join(f"{line}\n" for line in lines), encoding="utf-8")
    return str(path)


TWO_CLASSES = [("좋다", 1), ("나쁘다", 0), ("최고", 1), ("최악", 0)]


# Carving


@derandomized
@given(
    labels=st.text("abc", min_size=2, max_size=60),
    share=st.floats(0.01, 0.99),
    seed=st.integers(0, 2**32),
)
def test_carving_is_complete_disjoint_ordered_and_stratified(labels: str, share: float, seed: int) -> None:
    everything = examples(labels)
    try:
        train, validation = split_validation(everything, [], share, seed)
    except ConfigError as error:
        assert error.where == "corpus.validation"
        assert all(count == 1 or count * share < 0.5 for count in Counter(labels).values())
        return
    assert sorted(train + validation) == everything
    assert rows_of(train) == sorted(rows_of(train))
    assert rows_of(validation) == sorted(rows_of(validation))
    kept, drawn = (Counter(example.label for example in split) for split in (train, validation))
    for label, count in Counter(labels).items():
        assert kept[label] >= 1
        assert abs(drawn[label] - count * share) <= 0.5 or (drawn[label], kept[label]) == (count - 1, 1)


def test_carving_a_label_does_not_depend_on_the_order_of_the_others() -> None:
    def drawn(labels: str) -> list[int]:
        return [e.row for e in split_validation(examples(labels), [], 0.5, 7)[1] if e.label == "a"]

    assert drawn("abcabcabcabc") == drawn("acbabbaccacb") == drawn("abbabbabbabb")
    assert len(drawn("abcabcabcabc")) == 2


def test_the_draw_moves_with_the_seed_and_only_with_it() -> None:
    everything = examples("ab" * 50)
    draws = [rows_of(split_validation(everything, [], 0.2, seed)[1]) for seed in range(10)]
    assert {len(draw) for draw in draws} == {20}
    assert len({tuple(draw) for draw in draws}) == 10
    assert draws[3] == rows_of(split_validation(everything, [], 0.2, 3)[1])
    # Written down: the same rows on every machine and in every version, or figures stop being comparable.
    assert rows_of(split_validation(examples("ab" * 10), [], 0.3, 42)[1]) == [0, 2, 5, 9, 18, 19]


def test_validation_test_is_the_test_split() -> None:
    train, test = examples("abab"), examples("ba")
    assert split_validation(train, test, "test", 1) == (train, test)
    with pytest.raises(ConfigError, match="no test split") as refused:
        split_validation(train, [], "test", 1)
    assert refused.value.where == "corpus.validation=test"


@pytest.mark.parametrize("share", [0.0, 1.0, -0.1, 1.5, float("nan"), "half", True, 1, None])
def test_what_is_no_share_is_refused(share: Any) -> None:
    with pytest.raises(ConfigError) as refused:
        split_validation(examples("abab"), [], share, 1)
    assert refused.value.what == f"validation is {share!r}"
    assert refused.value.fix == "a share between 0 and 1, or 'test'"


def test_a_share_that_gives_no_row_is_refused() -> None:
    with pytest.raises(ConfigError, match=r"0\.1 of 4 rows leaves none to validate on"):
        split_validation(examples("aabb"), [], 0.1, 1)


# Labels


def test_integer_labels_are_sorted_by_value_and_text_by_code_point() -> None:
    assert sort_labels(["10", "9", "-1", "9"]) == ("-1", "9", "10")
    assert sort_labels(["긍정", "부정", "10", "9"]) == ("10", "9", "긍정", "부정")
    assert sort_labels(["01", "1", "0"]) == sort_labels(["1", "01", "0"]) == ("0", "01", "1")
    assert sort_labels(["9" * 5000, "1"]) == ("1", "9" * 5000)


def test_a_table_with_three_text_labels(tmp_path: Path) -> None:
    rows = [(f"글 {number}", label) for number, label in enumerate(["혐오", "일반", "공격"] * 4)]
    corpus = table(write(tmp_path / "a.tsv", *rows)).read()
    assert corpus.labels == corpus.names == ("공격", "일반", "혐오")
    assert [len(corpus.split(name)) for name in ("train", "validation", "test")] == [6, 6, 0]
    assert [corpus.labels[index] for index in corpus.label_ids("train")] == [e.label for e in corpus.train]
    assert corpus.facts()["splits"]["validation"]["labels"] == {"공격": 2, "일반": 2, "혐오": 2}


def test_integer_labels_of_json_and_of_text_are_the_same(tmp_path: Path) -> None:
    labels = [10, 9, 10, 9]
    lines = [json.dumps({"text": f"글 {row}", "label": label}) for row, label in enumerate(labels)]
    (tmp_path / "a.jsonl").write_text("\n".join(lines), encoding="utf-8")
    from_json = table(str(tmp_path / "a.jsonl")).read()
    from_tsv = table(
        write(tmp_path / "a.tsv", *((f"글 {row}", label) for row, label in enumerate(labels)))
    ).read()
    assert from_json.labels == from_tsv.labels == ("9", "10")
    assert from_json.train == from_tsv.train
    assert from_json.fingerprint() == from_tsv.fingerprint()


def test_label_names_give_names_and_order(tmp_path: Path) -> None:
    path = write(tmp_path / "a.tsv", *TWO_CLASSES)
    corpus = table(path, label_names={1: "긍정", 0: "부정"}).read()
    assert (corpus.labels, corpus.names) == (("1", "0"), ("긍정", "부정"))
    assert corpus.label_ids("train") == [int(example.label == "0") for example in corpus.train]
    assert table(path, label_names={0: 10, 1: 20}).read().names == ("10", "20")


def test_two_labels_of_one_name_are_refused(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match="two labels share a name") as refused:
        table(write(tmp_path / "a.tsv", *TWO_CLASSES), label_names={0: "같다", 1: "같다"}).read()
    assert refused.value.where == "corpus.label_names"


def test_a_named_label_without_rows_is_a_warning(tmp_path: Path) -> None:
    names = {0: "부정", 1: "긍정", 2: "중립"}
    corpus = table(write(tmp_path / "a.tsv", *TWO_CLASSES), label_names=names).read()
    assert corpus.labels == ("0", "1", "2")
    assert corpus.warnings == ["train has no row of the labels ['2']: never predicted"]


def test_a_label_that_train_lacks_is_refused_in_test_and_validation(tmp_path: Path) -> None:
    train = write(tmp_path / "a.tsv", *TWO_CLASSES)
    other = write(tmp_path / "b.tsv", ("글", 1), ("글", 7))
    for split in ("test", "validation"):
        with pytest.raises(DataError) as refused:
            table(train, **{split: other}).read()
        assert f"labels that {split} has" in refused.value.what
        assert refused.value.what.endswith("has not: ['7']; first: b.tsv:3")
        assert refused.value.where == f"corpus.{split}"


def test_a_label_that_label_names_lacks_is_refused(tmp_path: Path) -> None:
    rows = [*TWO_CLASSES, ("그저 그렇다", 2), ("보통", 2)]
    with pytest.raises(DataError, match=r"label_names has not: \['2'\]"):
        table(write(tmp_path / "a.tsv", *rows), label_names=NAMES).read()


def test_a_single_class_is_refused(tmp_path: Path) -> None:
    with pytest.raises(DataError, match=r"train has only the label \['1'\]"):
        table(write(tmp_path / "a.tsv", ("가", 1), ("나", 1))).read()
    with pytest.raises(DataError, match=r"train has only the label \['1'\]"):
        table(write(tmp_path / "a.tsv", ("가", 1), ("나", 1)), label_names=NAMES).read()


# A user's table


def test_files_of_their_own_for_each_split(tmp_path: Path) -> None:
    paths = {
        name: write(tmp_path / f"{name}.tsv", (f"{name} 하나", 0), (f"{name} 둘", 1))
        for name in ("train", "validation", "test")
    }
    corpus = table(**paths).read()
    for name in paths:
        assert corpus.split(name) == [Example(0, f"{name} 하나", "0"), Example(1, f"{name} 둘", "1")]
        assert corpus.accounts[name].read == 2
    assert list(corpus.facts()["files"]) == ["train", "test", "validation"]


def test_a_table_validates_on_test_where_asked(tmp_path: Path) -> None:
    test = write(tmp_path / "b.tsv", ("가", 0), ("나", 1))
    corpus = table(write(tmp_path / "a.tsv", *TWO_CLASSES), validation="test", test=test).read()
    assert corpus.validation == corpus.test == [Example(0, "가", "0"), Example(1, "나", "1")]
    assert len(corpus.train) == 4


def test_pairs_of_sentences(tmp_path: Path) -> None:
    rows = [("질문", "답", 1), ("질문", "딴소리", 0)]
    path = write(tmp_path / "a.tsv", *rows, header="q\ta\tlabel")
    corpus = table(path, text_column="q", pair_column="a", validation=path).read()
    assert corpus.train == [Example(0, "질문", "1", "답"), Example(1, "질문", "0", "딴소리")]
    assert corpus.facts()["splits"]["train"]["duplicate_documents"] == 0


def test_cp949_and_quoting_none_are_passed_on(tmp_path: Path) -> None:
    path = tmp_path / "a.csv"
    path.write_bytes('text,label\n"명작,1\n"최악",0\n'.encode("cp949"))
    corpus = table(str(path), encoding="cp949", quoting="none", validation=str(path)).read()
    assert [example.text for example in corpus.train] == ['"명작', '"최악"']


@pytest.mark.parametrize("key", ["train", "validation", "test"])
def test_a_missing_file_is_refused_before_anything_is_read(tmp_path: Path, key: str) -> None:
    path = write(tmp_path / "a.tsv", *TWO_CLASSES)
    changes = {"train": path, key: str(tmp_path / "none.tsv")}
    with pytest.raises(ConfigError, match="no such file") as refused:
        table(**changes)
    assert refused.value.where == f"corpus.{key}={tmp_path / 'none.tsv'}"


def test_bad_choices_of_a_table_are_refused(tmp_path: Path) -> None:
    path = write(tmp_path / "a.tsv", *TWO_CLASSES)
    with pytest.raises(ConfigError, match="'double' is no quoting"):
        table(path, quoting="double")
    with pytest.raises(ConfigError, match="the label column 'text' is also a text column"):
        table(path, label_column="text")
    with pytest.raises(ConfigError) as refused:
        table(path, label_column="lable").read()
    assert "no column 'lable'; the file has 'text', 'label'" in refused.value.what
    assert refused.value.fix.startswith("did you mean 'label'?")


# What became of the rows


def test_the_account_of_a_messy_file(tmp_path: Path) -> None:
    train = write(
        tmp_path / "a.tsv",
        *TWO_CLASSES,  # lines 2 to 5
        ("", 1),  # an empty document is kept
        (" ", 0),
        ("좋다", 1),  # twice the same
        ("최고", 0),  # and with another label
        ("라벨이 빈 줄", " "),  # line 10: rejected
        ("짧다",),  # line 11: rejected
    )
    test = write(tmp_path / "b.tsv", ("최고", 1), ("나쁘다", 0), ("새 글", 1))
    corpus = table(train, test=test, validation=test).read()
    facts = corpus.facts()
    assert facts["splits"]["train"] == {
        "rows": 8,
        "labels": {"0": 4, "1": 4},
        "empty_documents": 2,
        "duplicate_documents": 2,
        "conflicting_documents": 1,
    }
    assert (facts["test_documents_in_train"], facts["validation_documents_in_train"]) == (2, 2)
    account = asdict(corpus.accounts["train"])
    assert account == {
        "file": "a.tsv",
        "lines": 10,
        "read": 10,
        "used": 8,
        "rejected": {"1 fields instead of 2": 1, "empty label": 1},
        "rejected_rows": ["a.tsv:11: 1 fields instead of 2", "a.tsv:10: empty label"],
        "notes": {},
    }
    assert facts["files"]["train"] == account
    assert corpus.warnings == [
        "a.tsv: 2 of 10 rows rejected (1 1 fields instead of 2, 1 empty label); "
        "first: a.tsv:11: 1 fields instead of 2",
        "empty documents: 2 in train; first: a.tsv:6",
        "duplicate documents: 2 in train; first: a.tsv:2 and a.tsv:8",
        "documents with several labels: 1 in train; first: a.tsv:4 and a.tsv:9",
        "documents that also stand in train: 2 in test; first: b.tsv:2 and a.tsv:4",
    ]
    assert facts["warnings"] == corpus.warnings
    assert json.loads(json.dumps(facts)) == facts


def test_json_values_of_wrong_types_are_rejected_one_by_one(tmp_path: Path) -> None:
    values = [
        ("가", "0"),
        (3, "0"),
        (None, "0"),
        ("나", 1.5),
        ("다", True),
        ("라", None),
        ("마", [1]),
        ("바", 1),
    ]
    lines = [json.dumps({"text": text, "label": label}) for text, label in values]
    path = tmp_path / "a.jsonl"
    path.write_text("\n".join(lines), encoding="utf-8")
    corpus = table(str(path), validation=str(path)).read()
    assert corpus.train == [Example(0, "가", "0"), Example(1, "바", "1")]
    account = corpus.accounts["train"]
    assert account.rejected == {"text is not a string": 2, "label is neither text nor an integer": 4}
    assert (account.read, account.used) == (8, 2)


def test_a_file_without_a_usable_row_names_why(tmp_path: Path) -> None:
    with pytest.raises(DataError, match="no row of the file can be used") as refused:
        table(write(tmp_path / "a.tsv", ("글", ""), ("글",))).read()
    assert "a.tsv:2: empty label" in refused.value.fix
    with pytest.raises(DataError) as refused:
        table(write(tmp_path / "a.tsv")).read()
    assert refused.value.fix == "it has a header only"


def test_rows_over_several_lines_are_a_warning_that_names_quoting(tmp_path: Path) -> None:
    rows = [('"열고', 1), ("둘", 0), ('닫고"', 0), ("셋", 1), ("넷", 0)]
    path = write(tmp_path / "a.tsv", *rows)
    other = write(tmp_path / "b.tsv", ("다섯", 0), ("여섯", 1))
    corpus = table(path, validation=other).read()
    assert corpus.warnings == [
        "a.tsv: 5 lines gave 3 rows, 1 of them over several lines; "
        "if it was written without quoting, set corpus.quoting=none"
    ]
    assert corpus.flaws() == []  # such rows may be right
    assert table(path, validation=other, quoting="none").read().warnings == []


def test_limited_draws_rows_from_all_of_a_split_and_keeps_their_order(tmp_path: Path) -> None:
    corpus = table(write(tmp_path / "a.tsv", *TWO_CLASSES * 30)).read()
    limited = corpus.limited(20)
    rows = [example.row for example in limited.train]
    assert len(rows) == 20
    assert rows == sorted(rows)
    assert set(limited.train) <= set(corpus.train)
    assert rows[-1] > len(corpus.train) / 2, "not only the first rows"
    assert corpus.limited(20) == limited
    assert corpus.limited(None) is corpus


# The fingerprint


def small(*train: Example) -> Corpus:
    return Corpus(list(train), [], [], ("0", "1"), ("0", "1"), NO_CLEANING, {})


def test_the_fingerprint_changes_with_every_byte_and_place() -> None:
    one, two = Example(0, "가 나", "0"), Example(1, "다", "1", "짝")
    corpus = small(one, two)
    others = [
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
        # nothing in a text can pass for the end of one
        small(Example(0, "가 나\x1e", "0"), two),
        small(Example(0, '가 나", null]["train", "1", "다', "0", "짝")),
    ]
    prints = [other.fingerprint() for other in [corpus, *others]]
    assert len(set(prints)) == len(prints)
    assert small(one._replace(row=5), two).fingerprint() == corpus.fingerprint()  # content, not line numbers


def test_one_byte_of_a_file_changes_the_fingerprint(tmp_path: Path) -> None:
    path = write(tmp_path / "a.tsv", *TWO_CLASSES)
    before = table(path).read().fingerprint()
    assert table(path).read().fingerprint() == before
    raw = Path(path).read_bytes()
    Path(path).write_bytes(raw.replace("최악".encode(), "최앙".encode()))
    assert sum(a != b for a, b in zip(raw, Path(path).read_bytes(), strict=True)) == 1
    assert table(path).read().fingerprint() != before


# NSMC's format


def nsmc(root: Path, **changes: Any) -> Nsmc:
    given: dict[str, Any] = {
        "name": "nsmc",
        "root_dir": str(root),
        "force_download": False,
        "validation": "test",
        "split_seed": 42,
        "label_names": NAMES,
    }
    return Nsmc(**{**given, **changes})


def write_nsmc(root: Path, train: str, test: str) -> None:
    (root / "nsmc").mkdir()
    for split, body in (("train", train), ("test", test)):
        (root / "nsmc" / f"ratings_{split}.txt").write_text(f"id\tdocument\tlabel\n{body}", encoding="utf-8")


def test_nsmc_rows_never_span_lines_and_unknown_labels_are_rejected(tmp_path: Path) -> None:
    train = '1\t"그는 ""최고"""\t1\n2\t"열린 따옴표\t0\n3\t보통\t0\n4\t모름\t2\n5\t닫고"\t1\n'
    write_nsmc(tmp_path, train, "6\t좋다\t1\n6\t나쁘다\t0\n")
    corpus = nsmc(tmp_path).read()
    assert [example.text for example in corpus.train] == ['그는 "최고"', '"열린 따옴표', "보통", '닫고"']
    account = corpus.accounts["train"]
    assert account.rejected_rows == ["ratings_train.txt:5: unknown label '2'"]
    assert account.notes == {"stray quotes taken as text": 1}
    assert corpus.accounts["test"].notes == {"duplicate ids": 1}
    assert (corpus.labels, corpus.names) == (("0", "1"), ("부정", "긍정"))
    # what differs from the published files is said, with figures
    assert [warning.partition(":")[0] for warning in corpus.warnings] == [
        "ratings_train.txt",
        "ratings_test.txt",
        "ratings_train.txt is not the published file",
        "ratings_test.txt is not the published file",
    ]
    assert corpus.warnings[1] == "ratings_test.txt: 1 of 2 rows repeat an id"
    assert "; 5 rows instead of 150,000; figures are not comparable" in corpus.warnings[2]


def test_nsmc_without_its_header_is_refused(tmp_path: Path) -> None:
    write_nsmc(tmp_path, "1\t좋다\t1\n", "2\t나쁘다\t0\n")
    path = tmp_path / "nsmc" / "ratings_train.txt"
    path.write_text("1\t좋다\t1\n", encoding="utf-8")
    with pytest.raises(ConfigError, match="no column 'document'") as refused:
        nsmc(tmp_path).read()
    assert refused.value.where == f"{path}:1"


def test_the_real_reviews_are_read_to_the_last_row(shared: Path) -> None:
    corpus = nsmc(shared / "corpora").read()
    accounts = corpus.accounts
    assert [(accounts[name].read, accounts[name].used) for name in ("train", "test")] == [
        (150_000, 150_000),
        (50_000, 50_000),
    ]
    facts = corpus.facts()
    assert facts["splits"]["train"]["empty_documents"] == 5
    assert facts["splits"]["test"]["empty_documents"] == 3
    assert sum(facts["splits"]["test"]["labels"].values()) == 50_000
    assert round(facts["test_documents_in_train"] / 50_000, 2) == 0.03
    assert facts["labels"] == ["부정", "긍정"]
    assert [warning.partition(" instead")[0].rpartition(" ")[0] for warning in corpus.warnings[:2]] == [
        "ratings_train.txt is not the published file: checksum",
        "ratings_test.txt is not the published file: checksum",
    ]
    assert [warning.partition(";")[0] for warning in corpus.warnings[2:]] == [
        "empty documents: 5 in train, 3 in test",
        "duplicate documents: 3,744 in train, 857 in test",
        "documents with several labels: 171 in train, 34 in test",
        f"documents that also stand in train: {facts['test_documents_in_train']:,} in test",
    ]


def test_the_real_reviews_give_a_stratified_twentieth(shared: Path) -> None:
    corpus = nsmc(shared / "corpora", validation=0.05).read()
    assert (len(corpus.train), len(corpus.validation)) == (142_500, 7_500)
    assert not {e.row for e in corpus.train} & {e.row for e in corpus.validation}
    counts = Counter(example.label for example in corpus.validation)
    whole = counts + Counter(example.label for example in corpus.train)
    assert all(abs(counts[label] - whole[label] * 0.05) <= 0.5 for label in ("0", "1"))


def test_the_sample_is_split_by_share_and_keeps_its_cleaner() -> None:
    cleaner = Cleaner(remove_urls=True)
    corpus = Sample("sample", 0.1, 42, NAMES, cleaner).read()
    sizes = {name: len(corpus.split(name)) for name in ("train", "validation", "test")}
    assert sizes["validation"] == round((sizes["train"] + sizes["validation"]) * 0.1)
    assert corpus.cleaner == cleaner
    assert corpus.warnings == []
    assert corpus.accounts["train"].rejected == corpus.accounts["test"].rejected == {}
