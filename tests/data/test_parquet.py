"""Parquet files, alone and as tables and corpora: as jsonl, row by row."""

from __future__ import annotations

import datetime
import json
import math
import tracemalloc
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import pyarrow as pa
import pytest
from hypothesis import given
from hypothesis import strategies as st
from pyarrow.parquet import ParquetWriter, write_table

from bunryu.data import parquet
from bunryu.data.examples import Example, read_examples
from bunryu.data.rows import Row, RowCounts
from bunryu.data.table import format_of, stream_rows
from bunryu.errors import ConfigError, DataError
from helpers.tables import same_folder, table

COLUMNS = ["text", "label"]
FORMAT = format_of(Path("a.parquet"))
ROWS = [("재밌다", 1), ("지루하다", 0), ("최고", 1), ("최악", 0)]


def write(path: Path, columns: dict[str, Any], **options: Any) -> Path:
    write_table(pa.table(columns), path, **options)
    return path


def small(path: Path) -> Path:
    return write(path, {"text": [text for text, _ in ROWS], "label": [label for _, label in ROWS]})


def as_json(path: Path, columns: dict[str, Any]) -> Path:
    rows = (dict(zip(columns, values, strict=True)) for values in zip(*columns.values(), strict=True))
    path.write_text("".join(json.dumps(row) + "\n" for row in rows), encoding="utf-8")
    return path


def stream(
    path: Path, columns: Sequence[str] = COLUMNS, watch_ids: bool = True
) -> tuple[list[Row], RowCounts]:
    counts = RowCounts(path.stem)
    return list(stream_rows(path, columns, format_of(path), counts, watch_ids=watch_ids)), counts


def values(path: Path, columns: Sequence[str] = COLUMNS) -> list[Any]:
    return [row.values for row in stream(path, columns)[0]]


# Rows


@same_folder
@given(
    rows=st.lists(
        st.tuples(st.text(max_size=20), st.integers(-(2**63), 2**63 - 1), st.none() | st.integers(0, 3)),
        min_size=1,
        max_size=12,
    ),
    group=st.integers(1, 5),
    batch=st.integers(1, 5),
    labels_are_text=st.booleans(),
)
def test_parquet_gives_what_jsonl_gives(
    tmp_path: Path, rows: list[tuple[str, int, int | None]], group: int, batch: int, labels_are_text: bool
) -> None:
    labels = [str(label) if labels_are_text else label for _, label, _ in rows]
    columns = {"id": [row[2] for row in rows], "label": labels, "text": [row[0] for row in rows]}
    as_parquet = write(tmp_path / "a.parquet", columns, row_group_size=group)
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(parquet, "BATCH", batch)
        found = stream(as_parquet)
    assert found == stream(as_json(tmp_path / "a.jsonl", columns))


TEXTS = ["가", "나", None, "가"]


@pytest.mark.parametrize(
    "column",
    [
        pa.array(TEXTS),
        pa.array(TEXTS, pa.large_string()),
        pa.array(TEXTS, pa.string_view()),
        pa.array(TEXTS).dictionary_encode(),
        pa.chunked_array([TEXTS[:1], TEXTS[1:]]),
    ],
    ids=["string", "large", "view", "dictionary", "chunks"],
)
def test_texts_of_every_layout_are_read(tmp_path: Path, column: Any) -> None:
    path = write(tmp_path / "a.parquet", {"text": column, "label": [1, 2, 3, 4]})
    assert values(path) == [["가", 1], ["나", 2], [None, 3], ["가", 4]]


WRONG = {
    "label": ([math.nan, math.inf], [b"1", b"2"], [[1], [2]], [None, ""]),
    "text": ([1, 2], [b"a", b"b"], [{"a": 1}, {"a": 2}], pa.array([None, None], pa.string())),
}


@pytest.mark.parametrize(("column", "wrong"), [(name, wrong) for name in WRONG for wrong in WRONG[name]])
def test_values_of_wrong_types_are_rejected(tmp_path: Path, column: str, wrong: Any) -> None:
    path = write(tmp_path / "a.parquet", {"text": ["가", "나"], "label": [1, 2], column: wrong})
    with pytest.raises(DataError, match="no row of the file can be used") as refused:
        read_examples(path, COLUMNS, FORMAT)
    why = {"text": "text is not a string", "label": "label is neither text nor a number"}[column]
    assert refused.value.fix.startswith(f"a.parquet, row 1: {why}; a.parquet, row 2: ")


def test_bad_rows_stream_in_order_with_their_row(tmp_path: Path) -> None:
    raw = pa.array(["좋다".encode(), b"\xed\xa0\xbd", b"\xff", "끝".encode()]).view(pa.string())
    texts = pa.chunked_array([raw, pa.array(["널\0", "둘"])])
    path = write(tmp_path / "a.parquet", {"text": texts, "label": list(range(6))})
    rows, counts = stream(path)
    assert rows == [
        Row(1, ["좋다", 0], ""),
        Row(2, [None, 1], ""),  # bytes that are no UTF-8 are no text: read_examples rejects them
        Row(3, [None, 2], ""),
        Row(4, ["끝", 3], ""),
        Row(5, None, "NUL character"),
        Row(6, ["둘", 5], ""),
    ]
    assert counts.rejected == {"NUL character": 1}
    assert (counts.lines, counts.read, counts.used) == (6, 6, 5)


def test_ids_are_noted_and_what_python_cannot_hold_is_no_id(tmp_path: Path) -> None:
    columns = {"text": ["가", "나", "다"], "label": [1, 1, 1]}
    path = write(tmp_path / "a.parquet", {"id": [7, None, 7], **columns})
    assert stream(path)[1].notes == {"duplicate ids": 1}
    assert stream(path, watch_ids=False)[1].notes == {}
    far = pa.array([2**62, 2**62, 0], pa.timestamp("us"))  # beyond the year 9999
    path = write(tmp_path / "a.parquet", {"id": far, **columns})
    assert values(path, ["id"]) == [[None], [None], [datetime.datetime(1970, 1, 1)]]
    assert stream(path)[1].notes == {}


def test_columns_come_in_the_order_asked_for_and_as_often(tmp_path: Path) -> None:
    path = write(tmp_path / "a.parquet", {"label": [1], "a.b": ["점"], "a": ["하나"], "text": ["둘"]})
    assert values(path, ["text", "text", "a", "label"]) == [["둘", "둘", "하나", 1]]
    assert values(path, ["a.b", "a"]) == [["점", "하나"]]


def test_a_file_of_no_rows_gives_none(tmp_path: Path) -> None:
    columns = {"text": pa.array([], pa.string()), "label": pa.array([], pa.int8())}
    assert stream(write(tmp_path / "a.parquet", columns)) == ([], RowCounts("a"))


def test_a_row_group_is_never_held_whole(tmp_path: Path) -> None:
    path = tmp_path / "a.parquet"
    texts = [f"{number:07}" * 100 for number in range(20_000)]
    schema = pa.schema([("text", pa.string()), ("label", pa.int8())])
    with ParquetWriter(path, schema, compression="none", use_dictionary=False) as writer:
        writer.write_table(pa.table({"text": texts, "label": [1] * len(texts)}, schema), len(texts))
    held = pa.total_allocated_bytes()
    highest = 0
    tracemalloc.start()  # pyarrow reads into Python's bytes and decodes into memory of its own
    try:
        for row in stream_rows(path, COLUMNS, FORMAT, RowCounts(path.name)):
            assert row.values == [texts[row.line - 1], 1]
            highest = max(highest, pa.total_allocated_bytes() - held)
        peak = tracemalloc.get_traced_memory()[1]
    finally:
        tracemalloc.stop()
    assert path.stat().st_size > 14_000_000
    assert 0 < highest < path.stat().st_size / 3
    assert peak < path.stat().st_size / 3


# Files as a whole


def test_what_is_no_parquet_file_or_is_cut_off_is_refused(tmp_path: Path) -> None:
    path = small(tmp_path / "a.parquet")
    whole = path.read_bytes()
    for raw in (b"", b"text,label\n1,2\n", whole[:-1], whole[: len(whole) // 2]):
        path.write_bytes(raw)
        with pytest.raises(DataError, match="no parquet file, or it is cut off or damaged") as refused:
            stream(path)
        assert refused.value.where == str(path)
        assert refused.value.fix.startswith("write it again, or rename it")
    path.write_bytes(whole[:4] + b"\0" * 20 + whole[24:])  # a good footer, and damage in the rows
    with pytest.raises(DataError, match="cut off or damaged"):
        stream(path)
    (tmp_path / "folder.parquet").mkdir()
    for name, what in [("none.parquet", "No such file"), ("folder.parquet", "Is a directory")]:
        with pytest.raises(DataError, match=f"cannot read the file: {what}"):
            stream(tmp_path / name)


@same_folder
@given(place=st.floats(0, 1, exclude_max=True), byte=st.integers(0, 255), cut=st.booleans())
def test_damage_raises_nothing_but_ours(tmp_path: Path, place: float, byte: int, cut: bool) -> None:
    raw = bytearray(small(tmp_path / "a.parquet").read_bytes())
    index = int(place * len(raw))
    raw[index] = byte
    (tmp_path / "a.parquet").write_bytes(raw[:index] if cut else raw)
    try:
        rows, _ = stream(tmp_path / "a.parquet")
    except DataError as refused:
        assert refused.where == str(tmp_path / "a.parquet")
    except ConfigError as refused:  # the damage is in a column's name
        assert refused.what.startswith("no column")
    else:
        assert not cut
        assert len(rows) <= len(ROWS)


def test_a_missing_column_and_one_named_twice_are_refused(tmp_path: Path) -> None:
    path = small(tmp_path / "a.parquet")
    with pytest.raises(ConfigError) as refused:
        stream(path, ["txet", "label"])
    assert refused.value.what == "no column 'txet'; the file has 'text', 'label'"
    assert refused.value.where == str(path)
    assert refused.value.fix == "did you mean 'text'? set corpus.text_column and corpus.label_column"
    write_table(pa.Table.from_arrays([pa.array(["가"]), pa.array(["나"])], ["text", "text"]), path)
    with pytest.raises(ConfigError, match="two columns are named 'text'") as refused:
        stream(path, ["text"])
    assert refused.value.where == str(path)


def test_an_encoding_quoting_or_delimiter_of_a_parquet_file_is_refused() -> None:
    for key, value in (("encoding", "utf-8"), ("quoting", "none"), ("delimiter", ";")):
        with pytest.raises(ConfigError) as refused:
            format_of(Path("a.parquet"), **{key: value})
        assert refused.value.what == f"a.parquet is a parquet file: it has no {key}"
        assert refused.value.where == f"corpus.{key}={value}"


def test_a_corpus_of_parquet_files_is_that_of_jsonl(tmp_path: Path) -> None:
    columns = {"text": [text for text, _ in ROWS], "pair": ["짝", "", "둘", "셋"], "label": [1, 0, 1, 0]}
    paths = [as_json(tmp_path / "a.jsonl", columns), write(tmp_path / "A.PARQUET", columns)]
    of_json, read = (table(str(path), validation=str(path), pair_column="pair").read() for path in paths)
    assert of_json.fingerprint() == read.fingerprint()
    assert read.train[0] == Example(0, "재밌다", "1", "짝")
    assert read.row_counts["train"].lines == 4
    assert read.place("train", read.train[1]) == "A.PARQUET, row 2"
