"""Files to splits and labels: a user's tables, NSMC's format, the sample."""

from __future__ import annotations

import json
import math
import unicodedata
from decimal import Decimal
from pathlib import Path

import pytest

from bunryu.data.cleaner import Cleaner
from bunryu.data.corpora import Nsmc, Sample
from bunryu.data.examples import Example, label_of
from bunryu.errors import ConfigError, DataError
from helpers.tables import table, write

NAMES = {0: "부정", 1: "긍정"}
TWO_CLASSES = [("좋다", 1), ("나쁘다", 0), ("최고", 1), ("최악", 0)]


# Labels


def test_a_table_with_three_text_labels(tmp_path: Path) -> None:
    rows = [(f"글 {number}", label) for number, label in enumerate(["혐오", "일반", "공격"] * 4)]
    corpus = table(write(tmp_path / "a.tsv", *rows)).read()
    assert corpus.labels == corpus.label_names == ("공격", "일반", "혐오")
    assert [len(corpus.split(name)) for name in ("train", "validation", "test")] == [6, 6, 0]
    assert [corpus.labels[index] for index in corpus.label_ids("train")] == [e.label for e in corpus.train]
    assert corpus.facts()["splits"]["validation"]["labels"] == {"공격": 2, "일반": 2, "혐오": 2}


def test_integer_labels_of_json_and_of_text_are_the_same(tmp_path: Path) -> None:
    rows = [(f"글 {row}", label) for row, label in enumerate([10, 9, 10, 9])]
    lines = [json.dumps({"text": text, "label": label}) for text, label in rows]
    (tmp_path / "a.jsonl").write_text("\n".join(lines), encoding="utf-8")
    from_json = table(str(tmp_path / "a.jsonl")).read()
    from_tsv = table(write(tmp_path / "a.tsv", *rows)).read()
    assert from_json.labels == from_tsv.labels == ("9", "10")
    assert from_json.train == from_tsv.train
    assert from_json.fingerprint() == from_tsv.fingerprint()


@pytest.mark.parametrize(
    ("written", "label"),
    [
        (True, "true"), (1.0, "1"), (-0.0, "0"), (1e0, "1"), (1e22, "1" + "0" * 22), (2**70, str(2**70)),
        (Decimal("1.00"), "1"), (Decimal("0.50"), "0.5"), (0.5, "0.5"), ("1.0", "1"), ("-0", "0"),
        ("1.000e+00", "1"), ("2.50e1", "25"), ("0.5", "0.5"), (" 010 ", "010"), ("1e5", "1e5"),
        ("1.0.0", "1.0.0"), ("1.0e999999", "1.0e999999"), ("True", "True"),
        (math.nan, None), (None, None), ([1], None),
    ],
)  # fmt: skip
def test_a_label_is_what_it_means(written: object, label: str | None) -> None:
    assert label_of(written) == label


def test_labels_of_csv_json_and_parquet_that_mean_the_same_are_the_same(tmp_path: Path) -> None:
    train = write(tmp_path / "a.tsv", ("가", "1.0"), ("나", "0.0"), ("다", "1.0"), ("라", "0.0"))
    test = tmp_path / "b.jsonl"
    test.write_text('{"text": "마", "label": 1}\n{"text": "바", "label": 0.0}\n', "utf-8")
    corpus = table(train, test=str(test), label_names={1.0: "긍정", "0": "부정"}).read()
    assert (corpus.labels, corpus.label_ids("test")) == (("1", "0"), [0, 1])


@pytest.mark.parametrize(
    ("labels", "what"),
    [
        ([f"{n / 10:.2f}" for n in range(25)] * 2, "25 labels are numbers from 0 to 2.4: scores, no classes"),
        (["0.2", "0.20", "1.5"] * 10, "3 labels are numbers from 0.2 to 1.5: scores, no classes"),
        ([f"글 {n}" for n in range(40)], "40 rows have 40 different labels: texts or ids, no classes"),
    ],
)
def test_labels_that_are_no_classes_are_refused_unless_they_are_named(
    tmp_path: Path, labels: list[str], what: str
) -> None:
    path = write(tmp_path / "a.tsv", *((f"글 {n}", label) for n, label in enumerate(labels)))
    with pytest.raises(DataError, match=what) as refused:
        table(path).read()
    assert refused.value.where == "corpus.label_column"
    named = {label: f"이름 {number}" for number, label in enumerate(dict.fromkeys(labels))}
    assert len(table(path, validation=path, label_names=named).read().labels) == len(named)


def test_ratings_by_half_stars_are_classes(tmp_path: Path) -> None:
    rows = [(f"글 {n}", f"{n % 11 / 2}") for n in range(44)]
    assert table(write(tmp_path / "a.tsv", *rows)).read().labels[:4] == ("0", "0.5", "1", "1.5")


def test_label_names_give_names_and_order(tmp_path: Path) -> None:
    path = write(tmp_path / "a.tsv", *TWO_CLASSES)
    corpus = table(path, label_names={1: "긍정", 0: "부정"}).read()
    assert (corpus.labels, corpus.label_names) == (("1", "0"), ("긍정", "부정"))
    assert corpus.label_ids("train") == [int(example.label == "0") for example in corpus.train]
    assert table(path, label_names={0: 10, 1: 20}).read().label_names == ("10", "20")
    for label_names, what in [({0: "같다", 1: "같다"}, "share a name"), ({0: "a", "0": "b"}, "label twice")]:
        with pytest.raises(ConfigError, match=what) as refused:
            table(path, label_names=label_names).read()
        assert refused.value.where == "corpus.label_names"


@pytest.mark.parametrize("split", ["test", "validation", "train"])
def test_an_unknown_label_is_refused_by_split_file_and_line(tmp_path: Path, split: str) -> None:
    train = write(tmp_path / "a.tsv", *TWO_CLASSES)
    files = {
        "train": train,
        "validation": train,
        split: write(tmp_path / "b.tsv", ("글", 1), ("글", 7), ("글", 0)),
    }
    with pytest.raises(DataError) as refused:
        table(**files, label_names=NAMES if split == "train" else None).read()
    assert refused.value.what == (
        f"labels that {split} has and train or corpus.label_names has not: ['7']; first: b.tsv:3"
    )
    assert refused.value.where == f"corpus.{split}"


@pytest.mark.parametrize("label_names", [None, NAMES])
def test_a_single_class_is_refused(tmp_path: Path, label_names: dict[int, str] | None) -> None:
    with pytest.raises(DataError, match=r"train has only the label \['1'\]: there is nothing to classify"):
        table(write(tmp_path / "a.tsv", ("가", 1), ("나", 1)), label_names=label_names).read()


def test_labels_that_look_alike_are_one_and_their_spellings_are_told(tmp_path: Path) -> None:
    labels = [
        "긍정",
        "긍정\u200b",
        "\u00a0긍정",
        unicodedata.normalize("NFD", "긍정"),
        "아주 나쁨",
        "아주\u00a0나쁨",
    ]
    path = write(tmp_path / "a.tsv", *((f"글 {row}", label) for row, label in enumerate(labels * 2)))
    corpus = table(path).read()
    assert corpus.labels == ("긍정", "아주 나쁨")
    assert corpus.facts()["splits"]["validation"]["labels"] == {"긍정": 4, "아주 나쁨": 2}
    assert corpus.warnings == [
        "a.tsv: label '긍정<U+200B>' taken as '긍정' (2 rows), "
        "label '<U+00A0>긍정' taken as '긍정' (2 rows), "
        "label '<U+1100><U+1173><U+11BC><U+110C><U+1165><U+11BC>' taken as '긍정' (2 rows), "
        "label '아주<U+00A0>나쁨' taken as '아주 나쁨' (2 rows)"
    ]
    named = {unicodedata.normalize("NFD", "긍정"): "좋음", "아주\u00a0나쁨": "나쁨"}
    assert table(path, label_names=named).read().label_ids("train") == corpus.label_ids("train")
    with pytest.raises(ConfigError, match="label twice"):
        table(path, label_names={"긍정": "a", "긍정\u200b": "b"}).read()


def test_texts_are_composed_and_counted(tmp_path: Path) -> None:
    rows = [("좋다", 1), (unicodedata.normalize("NFD", "나쁘다"), 0)] * 2
    corpus = table(write(tmp_path / "a.tsv", *rows)).read()
    assert {example.text for example in corpus.train} == {"좋다", "나쁘다"}
    assert corpus.facts()["files"]["train"]["notes"] == {"texts composed (NFC)": 2}


def test_a_name_that_no_row_has_may_be_a_number_that_yaml_made(tmp_path: Path) -> None:
    path = write(tmp_path / "a.tsv", ("가", "010"), ("나", "02"), ("다", "010"), ("라", "02"))
    with pytest.raises(DataError, match="'010'") as refused:
        table(path, label_names={8: "서울", 2: "경기"}).read()
    assert refused.value.fix.endswith(
        "(no row has ['8', '2']: YAML reads an unquoted 010 as 8, so quote it, '010')"
    )


# A user's table


def test_files_of_their_own_for_each_split(tmp_path: Path) -> None:
    names = ("train", "validation", "test")
    paths = {name: write(tmp_path / f"{name}.tsv", (f"{name} 하나", 0), (f"{name} 둘", 1)) for name in names}
    corpus = table(**paths).read()
    for name in paths:
        assert corpus.split(name) == [Example(0, f"{name} 하나", "0"), Example(1, f"{name} 둘", "1")]
        assert corpus.row_counts[name].read == 2
    assert list(corpus.facts()["files"]) == ["train", "test", "validation"]
    corpus = table(**{**paths, "validation": "test"}).read()
    assert corpus.validation == corpus.test == [Example(0, "test 하나", "0"), Example(1, "test 둘", "1")]


def test_pairs_of_sentences(tmp_path: Path) -> None:
    path = write(tmp_path / "a.tsv", ("질문", "답", 1), ("질문", "딴소리", 0), header="q\ta\tlabel")
    corpus = table(path, text_column="q", pair_column="a", validation=path).read()
    assert corpus.train == [Example(0, "질문", "1", "답"), Example(1, "질문", "0", "딴소리")]


def test_cp949_and_quoting_none_are_passed_on(tmp_path: Path) -> None:
    path = tmp_path / "a.csv"
    path.write_bytes('text,label\n"명작,1\n"최악",0\n'.encode("cp949"))
    corpus = table(str(path), encoding="cp949", quoting="none", validation=str(path)).read()
    assert [example.text for example in corpus.train] == ['"명작', '"최악"']


@pytest.mark.parametrize("key", ["train", "validation", "test"])
def test_a_missing_file_is_refused_before_anything_is_read(tmp_path: Path, key: str) -> None:
    path = write(tmp_path / "a.tsv", *TWO_CLASSES)
    with pytest.raises(ConfigError, match="no such file") as refused:
        table(**{"train": path, key: str(tmp_path / "none.tsv")})
    assert refused.value.where == f"corpus.{key}={tmp_path / 'none.tsv'}"


def test_bad_choices_of_a_table_are_refused(tmp_path: Path) -> None:
    path = write(tmp_path / "a.tsv", *TWO_CLASSES)
    for changes, what in [
        ({"quoting": "double"}, "'double' is no quoting"),
        ({"label_column": "text"}, "the label column 'text' is also a text column"),
        ({"validation": 1.5}, r"validation is 1\.5"),
        ({"test": str(tmp_path)}, "no such file"),
        ({"label_column": ["a", "b"]}, r"several columns, \['a', 'b'\]: a row has one label"),
        ({"delimiter": "::"}, "'::' is no delimiter"),
        ({"text_column": "txet"}, "no column 'txet'"),
        ({"encoding": "hex"}, "unknown encoding 'hex'"),
    ]:
        with pytest.raises(ConfigError, match=what):
            table(path, **changes)
    with pytest.raises(ConfigError, match="no label is shown as '좋음': "):
        table(path, positive="좋음").read()
    with pytest.raises(ConfigError, match="validation is 'half'"):
        Sample("sample", "half", 42, NAMES)


def test_json_values_of_wrong_types_are_rejected_one_by_one(tmp_path: Path) -> None:
    texts = [("가", "0"), (3, "0"), (None, "0")]
    labels = [("나", {}), ("다", math.nan), ("라", None), ("마", [1]), ("바", 1)]
    lines = [json.dumps({"text": text, "label": label}) for text, label in texts + labels]
    path = tmp_path / "a.jsonl"
    path.write_text("\n".join(lines), encoding="utf-8")
    corpus = table(str(path), validation=str(path)).read()
    assert corpus.train == [Example(0, "가", "0"), Example(1, "바", "1")]
    counts = corpus.row_counts["train"]
    assert counts.rejected == {"text is not a string": 2, "label is neither text nor a number": 4}
    assert (counts.read, counts.used) == (8, 2)


def test_a_file_without_a_usable_row_names_why(tmp_path: Path) -> None:
    for rows, fix in [
        ([("글", ""), ("글",)], "a.tsv:2: empty label; a.tsv:3: 1 fields instead of 2"),
        ([], "it has a header only"),
    ]:
        with pytest.raises(DataError, match="no row of the file can be used") as refused:
            table(write(tmp_path / "a.tsv", *rows)).read()
        assert refused.value.fix == fix


# NSMC's format


def nsmc(root: Path, validation: float | str = "test") -> Nsmc:
    return Nsmc("nsmc", str(root), False, validation, 42, NAMES)


def write_nsmc(root: Path, train: str, test: str) -> None:
    (root / "nsmc").mkdir()
    for split, body in (("train", train), ("test", test)):
        (root / "nsmc" / f"ratings_{split}.txt").write_text(f"id\tdocument\tlabel\n{body}", encoding="utf-8")


def test_nsmc_rows_never_span_lines_and_unknown_labels_are_rejected(tmp_path: Path) -> None:
    train = '1\t"그는 ""최고"""\t1\n2\t"열린 따옴표\t0\n3\t보통\t0\n4\t모름\t2\n5\t닫고"\t1\n'
    write_nsmc(tmp_path, train, "6\t좋다\t1\n6\t나쁘다\t0\n")
    corpus = nsmc(tmp_path).read()
    assert [example.text for example in corpus.train] == ['그는 "최고"', '"열린 따옴표', "보통", '닫고"']
    counts = corpus.row_counts["train"]
    assert counts.rejected_rows == ["ratings_train.txt:5: unknown label '2'"]
    assert counts.notes == {"stray quotes taken as text": 1}
    assert (corpus.labels, corpus.label_names) == (("0", "1"), ("부정", "긍정"))
    rejected, repeated, train_differs, test_differs = corpus.warnings
    assert rejected.startswith("ratings_train.txt: 1 of 5 rows rejected (1 unknown label '2')")
    assert repeated == "ratings_test.txt: 1 of 2 rows repeat an id"
    # what differs from the published files is said, with figures
    assert train_differs.startswith("ratings_train.txt is not the published file: checksum")
    assert "; 5 rows instead of 150,000; figures are not comparable" in train_differs
    assert test_differs.startswith("ratings_test.txt is not the published file")


def test_nsmc_without_its_header_is_refused(tmp_path: Path) -> None:
    write_nsmc(tmp_path, "", "2\t나쁘다\t0\n")
    path = tmp_path / "nsmc" / "ratings_train.txt"
    path.write_text("1\t좋다\t1\n", encoding="utf-8")
    with pytest.raises(ConfigError, match="no column 'document'") as refused:
        nsmc(tmp_path).read()
    assert refused.value.where == f"{path}:1"


def test_the_real_reviews_are_read_to_the_last_row(shared: Path) -> None:
    corpus = nsmc(shared / "corpora").read()
    counts = [(corpus.row_counts[name].read, corpus.row_counts[name].used) for name in ("train", "test")]
    assert counts == [(150_000, 150_000), (50_000, 50_000)]
    facts = corpus.facts()
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


def test_the_sample_is_split_by_share_and_keeps_its_cleaner() -> None:
    cleaner = Cleaner(remove_urls=True)
    corpus = Sample("sample", 0.1, 42, NAMES, cleaner).read()
    assert len(corpus.validation) == round((len(corpus.train) + len(corpus.validation)) * 0.1)
    assert corpus.cleaner == cleaner
