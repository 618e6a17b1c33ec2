"""tables.py: every row of a file is read rightly or rejected with its line and a reason."""

from __future__ import annotations

import csv
import io
import json
import tracemalloc
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import pytest
from hypothesis import HealthCheck, example, given, settings
from hypothesis import strategies as st

from bunryu.data import decoding, table
from bunryu.data.table import Row, RowCounts, TableFormat, format_of, read_rows, stream_rows
from bunryu.errors import BunryuError, ConfigError, DataError

COLUMNS = ["text", "label"]
KOREAN = "text\tlabel\n재밌다\t1\n지루하다\t0\n"
KOREAN_ROWS = [(2, ["재밌다", "1"]), (3, ["지루하다", "0"])]

# The folder is written anew by each example, so sharing it between examples is fine.
same_folder = settings(
    max_examples=150, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture]
)


def read(
    path: Path,
    content: str | bytes,
    columns: Sequence[str] = COLUMNS,
    *,
    encoding: str | None = None,
    quoting: str = "csv",
) -> tuple[list[tuple[int, list[Any]]], RowCounts]:
    """Write the content, read it, and hold the account to its promise."""
    path.write_bytes(content if isinstance(content, bytes) else content.encode())
    rows, account = read_rows(path, columns, format_of(path, encoding, quoting))
    assert account.read == account.used + sum(account.rejected.values())
    assert account.used == len(rows)
    return rows, account


def stream(
    path: Path, columns: Sequence[str] = COLUMNS, *, watch_ids: bool = False
) -> tuple[list[Row], RowCounts]:
    """Every row of a file, good or bad; each is counted by the time it is given out."""
    account, rows = RowCounts(path.name), []
    for row in stream_rows(path, columns, format_of(path), account, watch_ids=watch_ids):
        rows.append(row)
        assert (account.read, account.used) == (len(rows), sum(r.values is not None for r in rows))
        assert account.read == account.used + sum(account.rejected.values())
    return rows, account


# Encodings


@pytest.mark.parametrize(
    "raw",
    [
        KOREAN.encode("utf-8-sig"),
        KOREAN.replace("\n", "\r\n").encode(),
        KOREAN.replace("\n", "\r\n").encode("utf-8-sig"),
        KOREAN.encode("utf-16"),
        b"\xfe\xff" + KOREAN.encode("utf-16-be"),
        KOREAN.rstrip("\n").encode(),
    ],
    ids=["bom", "crlf", "bom and crlf", "utf-16", "utf-16 big endian", "no newline at the end"],
)
def test_marks_and_line_ends_are_no_part_of_the_rows(tmp_path: Path, raw: bytes) -> None:
    rows, account = read(tmp_path / "a.tsv", raw)
    assert rows == KOREAN_ROWS
    assert (account.lines, account.read, account.rejected) == (2, 2, {})


def test_cp949_is_refused_with_its_line_and_fix_and_read_once_named(tmp_path: Path) -> None:
    raw = ("text\tlabel\nok\t1\n" + KOREAN.split("\n", 1)[1]).encode("cp949")
    with pytest.raises(DataError) as refused:
        read(tmp_path / "a.tsv", raw)
    assert refused.value.where == f"{tmp_path / 'a.tsv'}:3"
    assert "is not utf-8" in refused.value.what
    assert refused.value.fix.startswith("corpus.encoding=cp949,")
    rows, _ = read(tmp_path / "a.tsv", raw, encoding="cp949")
    assert [values for _, values in rows] == [["ok", "1"], ["재밌다", "1"], ["지루하다", "0"]]


@pytest.mark.parametrize(
    ("encoding", "text"),
    [
        ("utf-16-le", KOREAN),
        ("utf-16-be", KOREAN),
        ("utf-16-le", "text\tlabel\nplain\t1\n"),
        ("utf-16-be", "text\tlabel\nplain\t1\n"),
        ("utf-32", KOREAN),
    ],
)
def test_wide_encodings_without_a_usable_mark_are_refused_by_name(
    tmp_path: Path, encoding: str, text: str
) -> None:
    with pytest.raises(DataError) as refused:
        read(tmp_path / "a.tsv", text.encode(encoding))
    assert refused.value.fix.startswith(f"corpus.encoding={encoding},")
    rows, _ = read(tmp_path / "a.tsv", text.encode(encoding), encoding=encoding)
    assert [number for number, _ in rows] == list(range(2, 2 + len(rows)))
    assert rows[0][1] == text.split("\n")[1].split("\t")


def test_a_mark_is_dropped_also_where_the_encoding_is_named(tmp_path: Path) -> None:
    assert read(tmp_path / "a.tsv", KOREAN.encode("utf-8-sig"), encoding="utf-8")[0] == KOREAN_ROWS


def test_the_line_of_a_bad_byte_in_utf_16_counts_lines_not_bytes(tmp_path: Path) -> None:
    # U+AC0A holds the byte of a newline.
    raw = b"\xff\xfe" + "text\tlabel\n\uac0a\uac0a\t1\n".encode("utf-16-le") + b"\x00\xdc\x00"
    with pytest.raises(DataError) as refused:
        read(tmp_path / "a.tsv", raw)
    assert refused.value.where.endswith(":3")


@pytest.mark.parametrize("encoding", ["utf-9", "hex", "", "a\0b", "undefined"])
def test_an_encoding_that_is_none_is_a_config_error(tmp_path: Path, encoding: str) -> None:
    with pytest.raises(ConfigError, match="unknown encoding") as refused:
        read(tmp_path / "a.tsv", KOREAN, encoding=encoding)
    assert refused.value.where == "corpus.encoding"


# Files as a whole


def test_a_missing_file_an_empty_one_and_a_folder_are_refused(tmp_path: Path) -> None:
    with pytest.raises(DataError, match="No such file"):
        read_rows(tmp_path / "none.tsv", COLUMNS, format_of(tmp_path / "none.tsv"))
    with pytest.raises(DataError, match="the file is empty"):
        read(tmp_path / "a.tsv", b"")
    (tmp_path / "folder.tsv").mkdir()
    with pytest.raises(DataError, match="Is a directory"):
        read_rows(tmp_path / "folder.tsv", COLUMNS, format_of(tmp_path / "folder.tsv"))


def test_a_header_alone_gives_no_rows(tmp_path: Path) -> None:
    rows, account = read(tmp_path / "a.tsv", "text\tlabel\n")
    assert (rows, account.lines, account.read) == ([], 0, 0)


@pytest.mark.parametrize("name", ["a.xlsx", "a", "a.json"])
def test_other_suffixes_are_refused(name: str) -> None:
    with pytest.raises(ConfigError, match=r"\.csv, \.tsv, \.txt, \.jsonl or \.parquet"):
        format_of(Path(name))


@pytest.mark.parametrize("name", ["a.TSV", "a.Csv", "a.txt", "a.JSONL"])
def test_suffixes_are_known_in_any_case(name: str) -> None:
    assert format_of(Path(name)).kind == name.partition(".")[2].lower()


# Headers and columns


def test_a_missing_header_shows_the_first_line_and_the_fix(tmp_path: Path) -> None:
    with pytest.raises(ConfigError) as refused:
        read(tmp_path / "a.tsv", "재밌다\t1\n지루하다\t0\n")
    assert refused.value.what == "no column 'text'; the file has '재밌다', '1'"
    assert refused.value.where == f"{tmp_path / 'a.tsv'}:1"
    assert refused.value.fix.endswith("or give the file a header line")


@pytest.mark.parametrize(
    ("name", "content"),
    [
        ("a.tsv", "id\tdocument\tlabel\n1\t가\t0\n"),
        ("a.csv", "id,document,label\n1,가,0\n"),
        ("a.jsonl", '{"id": 1, "document": "가", "label": 0}\n'),
    ],
)
def test_a_wrong_column_is_answered_with_the_nearest(tmp_path: Path, name: str, content: str) -> None:
    with pytest.raises(ConfigError) as refused:
        read(tmp_path / name, content, ["documnet", "label"])
    assert "no column 'documnet'" in refused.value.what
    assert refused.value.fix.startswith("did you mean 'document'?")


def test_a_column_named_twice_is_refused(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match="two columns are named 'text'"):
        read(tmp_path / "a.tsv", "text\ttext\tlabel\n가\t나\t1\n")


def test_a_header_with_a_stray_quote_is_refused(tmp_path: Path) -> None:
    with pytest.raises(DataError, match="header cannot be read: stray quote") as refused:
        read(tmp_path / "a.tsv", 'text\t"label\n가\t1\n')
    assert refused.value.where.endswith("a.tsv:1")
    assert refused.value.fix == "corpus.quoting=none"


def test_columns_come_in_the_order_asked_for(tmp_path: Path) -> None:
    rows, _ = read(tmp_path / "a.csv", "x,label,pair,text\n0,나쁨,둘,하나\n", ["text", "label", "pair"])
    assert rows == [(2, ["하나", "나쁨", "둘"])]


# Bad rows, each with its line


def test_each_bad_row_of_a_tsv_is_named_by_line_and_reason(tmp_path: Path) -> None:
    lines = ["text\tlabel", "좋다\t1", "", "짧다", "길다\t0\t남음", "널\0\t1", 'ab\t"1', "끝\t0"]
    rows, account = read(tmp_path / "a.tsv", "\n".join(lines) + "\n\n")
    assert rows == [(2, ["좋다", "1"]), (8, ["끝", "0"])]
    assert account.rejected_rows == [
        "a.tsv:3: blank line",
        "a.tsv:4: 1 fields instead of 2",
        "a.tsv:5: 3 fields instead of 2",
        "a.tsv:6: NUL character",
        "a.tsv:7: stray quote",
        "a.tsv:9: blank line",
    ]
    assert account.rejected == {
        "blank line": 2,
        "1 fields instead of 2": 1,
        "3 fields instead of 2": 1,
        "stray quote": 1,
        "NUL character": 1,
    }
    assert (account.lines, account.read, account.used) == (8, 8, 2)


def test_each_bad_row_of_a_jsonl_is_named_by_line_and_reason(tmp_path: Path) -> None:
    lines = [
        '{"text": "좋다", "label": 1}',
        "",
        "{not json",
        "[1, 2]",
        "null",
        '{"text": "라벨 없음"}',
        '{"label": 1}',
        '{"text": "\\u0000", "label": 1}',
        '{"text": "\\ud83d", "label": 1}',
        "[" * 100_000,
        '{"text": "너무 큰 수", "label": ' + "9" * 5000 + "}",
        '{"text": "끝", "label": "나쁨", "other": null}',
    ]
    rows, account = read(tmp_path / "a.jsonl", "\n".join(lines) + "\n")
    assert rows == [(1, ["좋다", 1]), (12, ["끝", "나쁨"])]
    assert account.rejected_rows == [
        "a.jsonl:2: blank line",
        "a.jsonl:3: not JSON",
        "a.jsonl:4: not a JSON object",
        "a.jsonl:5: not a JSON object",
        "a.jsonl:6: no 'label'",
        "a.jsonl:7: no 'text'",
        "a.jsonl:8: NUL character",
        "a.jsonl:9: half a surrogate pair",
        "a.jsonl:10: not JSON",
        "a.jsonl:11: not JSON",
    ]
    assert (account.lines, account.read) == (12, 12)


def test_only_the_first_twenty_bad_rows_are_named_and_all_are_counted(tmp_path: Path) -> None:
    _, account = read(tmp_path / "a.tsv", "text\tlabel\n" + "x\n" * 50 + "좋다\t1\n")
    assert len(account.rejected_rows) == 20
    assert account.rejected == {"1 fields instead of 2": 50}


def test_duplicate_ids_are_counted_and_kept(tmp_path: Path) -> None:
    rows, account = read(tmp_path / "a.tsv", "id\ttext\tlabel\n7\t가\t0\n8\t나\t1\n7\t다\t0\n")
    assert (len(rows), account.notes) == (3, {"duplicate ids": 1})
    lines = [
        {"id": 7, "text": "가", "label": 0},
        {"id": 7, "text": "나", "label": 0},
        {"text": "다", "label": 0},
    ]
    rows, account = read(tmp_path / "a.jsonl", "\n".join(map(json.dumps, lines)))
    assert (len(rows), account.notes) == (3, {"duplicate ids": 1})


# Quotes


def test_quoted_text_may_hold_quotes_delimiters_and_newlines(tmp_path: Path) -> None:
    content = 'text\tlabel\n"그는 ""최고""라고\t말했다\r\n둘째 줄\n셋째"\t1\n다음\t0\n'
    rows, account = read(tmp_path / "a.tsv", content)
    assert rows == [(2, ['그는 "최고"라고\t말했다\r\n둘째 줄\n셋째', "1"]), (5, ["다음", "0"])]
    assert account.notes == {"rows that span lines": 1}
    assert (account.lines, account.read) == (4, 2)


def test_line_separators_that_are_no_newline_stay_in_the_text(tmp_path: Path) -> None:
    text = "하나\u2028둘\u0085셋\u000b넷\u001e다섯"
    assert read(tmp_path / "a.tsv", f"text\tlabel\n{text}\t1\n")[0] == [(2, [text, "1"])]
    line = json.dumps({"text": text, "label": 1}, ensure_ascii=False)
    assert read(tmp_path / "a.jsonl", f"{line}\n")[0] == [(1, [text, 1])]


def test_a_quote_left_open_costs_its_own_row_only(tmp_path: Path) -> None:
    body = "".join(f"문장 {number}\t1\n" for number in range(2000))
    rows, account = read(tmp_path / "a.tsv", f'text\tlabel\n"열린 따옴표\t0\n{body}')
    assert account.rejected_rows == ["a.tsv:2: stray quote"]
    assert len(rows) == 2000


def test_text_behind_a_closing_quote_makes_it_stray(tmp_path: Path) -> None:
    rows, account = read(tmp_path / "a.csv", 'text,label\n"명작" 이다,1\n좋다,1\n')
    assert rows == [(3, ["좋다", "1"])]
    assert account.rejected_rows == ["a.csv:2: stray quote"]


def test_a_quote_within_a_field_is_text(tmp_path: Path) -> None:
    assert read(tmp_path / "a.csv", 'text,label\n이 "명작" 은,1\n')[0] == [(2, ['이 "명작" 은', "1"])]


UNQUOTED = 'text\tlabel\n"열고\t1\n둘\t0\n셋 닫고"\t0\n"전부"\t1\n'


def test_a_file_written_without_quoting_is_read_to_the_letter_with_quoting_none(tmp_path: Path) -> None:
    rows, account = read(tmp_path / "a.tsv", UNQUOTED, quoting="none")
    assert [values for _, values in rows] == [['"열고', "1"], ["둘", "0"], ['셋 닫고"', "0"], ['"전부"', "1"]]
    assert (account.lines, account.read, account.rejected, account.notes) == (4, 4, {}, {})


def test_a_file_written_without_quoting_shows_in_the_account_when_read_with_quoting(tmp_path: Path) -> None:
    rows, account = read(tmp_path / "a.tsv", UNQUOTED)
    assert [number for number, _ in rows] == [2, 5]
    assert (account.lines, account.read) == (4, 2)
    assert account.notes == {"rows that span lines": 1}


def test_a_swallowed_row_of_wrong_length_tells_how_many_lines_it_took(tmp_path: Path) -> None:
    rows, account = read(tmp_path / "a.tsv", 'text\tlabel\n"열고\t1\n둘\t0\n닫고"\n넷\t1\n')
    assert rows == [(5, ["넷", "1"])]
    assert account.rejected_rows == ["a.tsv:2: 1 fields instead of 2 in 3 lines"]


def test_a_document_may_be_long(tmp_path: Path) -> None:
    text = "가" * 300_000
    assert read(tmp_path / "a.csv", f'text,label\n"{text}",1\n')[0] == [(2, [text, "1"])]


# Round trips and garbage

# A text may hold anything a tokenizer takes: no NUL and no half surrogate pair.
anything = st.text(st.characters(exclude_characters="\0", exclude_categories=["Cs"]), max_size=30)
spiky = st.text(st.sampled_from('가a"\t,\n\r\u2028\u0085 \ufeff'), max_size=12)
tables_of_text = st.lists(st.tuples(anything | spiky, st.sampled_from(["0", "1", "좋음", 'a"b'])), max_size=8)


@same_folder
@example(rows=[('"', "0"), ("\r", "1"), ("\n", "0"), ("", "1")], kind="csv", line_end="\n")
@given(rows=tables_of_text, kind=st.sampled_from(["tsv", "csv"]), line_end=st.sampled_from(["\n", "\r\n"]))
def test_what_csv_writes_is_read_back(
    tmp_path: Path, rows: list[tuple[str, str]], kind: str, line_end: str
) -> None:
    written = io.StringIO(newline="")
    # Every text quoted: with "\n" as line end, csv leaves a bare "\r" unquoted.
    writer = csv.writer(
        written, delimiter={"tsv": "\t", "csv": ","}[kind], lineterminator=line_end, quoting=csv.QUOTE_ALL
    )
    writer.writerows([COLUMNS, *rows])
    read_back, account = read(tmp_path / f"a.{kind}", written.getvalue())
    assert [tuple(values) for _, values in read_back] == rows
    assert account.rejected == {}


@same_folder
@given(rows=tables_of_text)
def test_what_csv_writes_with_quotes_only_where_needed_is_read_back(
    tmp_path: Path, rows: list[tuple[str, str]]
) -> None:
    written = io.StringIO(newline="")
    csv.writer(written, delimiter="\t", lineterminator="\r\n").writerows([COLUMNS, *rows])
    read_back, account = read(tmp_path / "a.tsv", written.getvalue())
    assert [tuple(values) for _, values in read_back] == rows
    assert account.rejected == {}


@same_folder
@given(
    rows=st.lists(st.tuples(anything | spiky, st.integers() | anything), max_size=8),
    plain=st.booleans(),
    line_end=st.sampled_from(["\n", "\r\n"]),
)
def test_what_json_writes_is_read_back(
    tmp_path: Path, rows: list[tuple[str, int | str]], plain: bool, line_end: str
) -> None:
    lines = [json.dumps(dict(zip(COLUMNS, row, strict=True)), ensure_ascii=plain) + line_end for row in rows]
    if not rows:
        return
    read_back, account = read(tmp_path / "a.jsonl", "".join(lines))
    assert [tuple(values) for _, values in read_back] == rows
    assert account.rejected == {}


@same_folder
@given(
    content=st.binary(max_size=200) | st.binary(max_size=200).map(lambda raw: b"text\tlabel\n" + raw),
    kind=st.sampled_from(["tsv", "csv", "jsonl"]),
    encoding=st.sampled_from([None, "utf-8", "utf-16", "cp949", "utf-7", "idna", "punycode"]),
    quoting=st.sampled_from(["csv", "none"]),
)
def test_random_bytes_raise_nothing_but_ours(
    tmp_path: Path, content: bytes, kind: str, encoding: str | None, quoting: str
) -> None:
    try:
        read(tmp_path / f"a.{kind}", content, encoding=encoding, quoting=quoting)
    except BunryuError as error:
        assert error.where != ""


garbage_line = st.text(st.sampled_from('가a1\t,"{}[]:\r\0\ufeff'), max_size=10)


@same_folder
@given(
    lines=st.lists(garbage_line | st.just("좋다\t1") | st.just("좋다,1"), max_size=10),
    kind=st.sampled_from(["tsv", "csv"]),
    quoting=st.sampled_from(["csv", "none"]),
)
def test_no_garbage_line_is_lost(tmp_path: Path, lines: list[str], kind: str, quoting: str) -> None:
    header = {"tsv": "text\tlabel", "csv": "text,label"}[kind]
    content = "\n".join([header, *lines, ""])
    rows, account = read(tmp_path / f"a.{kind}", content, quoting=quoting)
    assert account.lines == len(lines)
    if quoting == "none":
        assert account.read == len(lines)
        named = [int(place.split(":")[1]) for place in account.rejected_rows]
        assert sorted(named + [number for number, _ in rows]) == list(range(2, 2 + len(lines)))
    elif account.read < len(lines):  # some lines are inside quotes, and the account says so
        spans = account.notes.get("rows that span lines", 0)
        assert spans + sum(" lines" in reason or "NUL" in reason for reason in account.rejected) > 0


GOOD = '{"text": "가", "label": 1}'


@same_folder
@given(lines=st.lists(garbage_line | st.just(GOOD), min_size=1, max_size=10))
def test_no_line_of_a_jsonl_is_lost(tmp_path: Path, lines: list[str]) -> None:
    rows, account = read(tmp_path / "a.jsonl", "".join(f"{line}\n" for line in [GOOD, *lines]))
    named = [int(place.split(":")[1]) for place in account.rejected_rows]
    assert sorted(named + [number for number, _ in rows]) == list(range(1, 2 + len(lines)))


# Streaming


def test_good_and_bad_rows_stream_in_the_order_of_the_file(tmp_path: Path) -> None:
    path = tmp_path / "a.tsv"
    path.write_text('text\tlabel\n좋다\t1\n짧다\n"두\n줄"\t0\n\n널\0\t1\n"열린\t1\n끝\t0\n', encoding="utf-8")
    rows, account = stream(path)
    assert rows == [
        Row(2, ["좋다", "1"], ""),
        Row(3, None, "1 fields instead of 2"),
        Row(4, ["두\n줄", "0"], ""),
        Row(6, None, "blank line"),
        Row(7, None, "NUL character"),
        Row(8, None, "stray quote"),
        Row(9, ["끝", "0"], ""),
    ]
    assert (account.lines, account.read, account.used) == (8, 7, 3)
    lines = ['{"text": "좋다", "label": 1}', "", "[1]", '{"text": "라벨 없음"}', '{"text": 3, "label": null}']
    path = tmp_path / "a.jsonl"
    path.write_text("\n".join(lines), encoding="utf-8")
    rows, account = stream(path)
    assert rows == [
        Row(1, ["좋다", 1], ""),
        Row(2, None, "blank line"),
        Row(3, None, "not a JSON object"),
        Row(4, None, "no 'label'"),
        Row(5, [3, None], ""),
    ]
    assert (account.lines, account.read, account.used) == (5, 5, 2)


mess = st.text(st.sampled_from('가a1"""\t,\n\n\r\u2028{}[]:'), max_size=60)


@same_folder
@given(
    header=st.sampled_from(["text\tlabel\n", "text,label\n", "id\ttext\tlabel\r\n"]),
    content=mess,
    kind=st.sampled_from(["tsv", "csv"]),
    block=st.integers(1, 20),
)
def test_a_stream_in_small_blocks_gives_what_reading_at_once_gives(
    tmp_path: Path, header: str, content: str, kind: str, block: int
) -> None:
    path = tmp_path / f"a.{kind}"
    path.write_text(header + content, encoding="utf-8", newline="")
    try:
        rows, account = read_rows(path, COLUMNS, format_of(path))
    except ConfigError as refused:
        assert refused.what.startswith("no column 'text'")
        return
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(decoding, "BLOCK", block)
        streamed, counted = stream(path, watch_ids=True)
    assert [(row.line, row.values) for row in streamed if row.values is not None] == rows
    assert counted == account
    assert [row.line for row in streamed] == sorted({row.line for row in streamed})
    assert all((row.values is None) == (row.problem != "") for row in streamed)


@same_folder
@given(rows=tables_of_text, kind=st.sampled_from(["tsv", "csv", "jsonl"]), block=st.integers(1, 40))
def test_what_was_written_streams_back(
    tmp_path: Path, rows: list[tuple[str, str]], kind: str, block: int
) -> None:
    path = tmp_path / f"a.{kind}"
    written = io.StringIO(newline="")
    if kind == "jsonl":
        written.writelines(json.dumps(dict(zip(COLUMNS, row, strict=True))) + "\n" for row in rows)
    else:
        writer = csv.writer(written, delimiter={"tsv": "\t", "csv": ","}[kind], quoting=csv.QUOTE_ALL)
        writer.writerows([COLUMNS, *rows])
    if not written.getvalue():
        return
    path.write_text(written.getvalue(), encoding="utf-8", newline="")
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(decoding, "BLOCK", block)
        streamed, _ = stream(path)
    assert [(tuple(row.values or ()), row.problem) for row in streamed] == [(row, "") for row in rows]


@pytest.mark.parametrize("kind", ["tsv", "jsonl"])
def test_a_file_larger_than_the_memory_used_is_walked(tmp_path: Path, kind: str) -> None:
    path = tmp_path / f"a.{kind}"
    text = "x" * 2000
    line = f"{text}\t1\n" if kind == "tsv" else json.dumps({"text": text, "label": 1}) + "\n"
    with path.open("w", encoding="utf-8") as file:
        file.write("text\tlabel\n" if kind == "tsv" else "")
        file.writelines(line for _ in range(8000))
    account = RowCounts(path.name)
    tracemalloc.start()
    try:
        for row in stream_rows(path, COLUMNS, format_of(path), account):
            assert row.values is not None
            assert row.values[0] == text
        peak = tracemalloc.get_traced_memory()[1]
    finally:
        tracemalloc.stop()
    assert account.used == 8000
    assert path.stat().st_size > 16_000_000
    assert peak < path.stat().st_size / 3


def test_a_row_is_given_out_before_the_rest_of_the_file_is_read(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    path = tmp_path / "a.tsv"
    path.write_bytes(b"text\tlabel\n" + b"good\t1\n" * 1000 + b"\xff\t1\n")
    monkeypatch.setattr(decoding, "BLOCK", 70)
    rows = stream_rows(path, COLUMNS, format_of(path), RowCounts(path.name))
    assert [next(rows).line for _ in range(980)] == list(range(2, 982))
    with pytest.raises(DataError) as refused:
        list(rows)
    assert refused.value.where == f"{path}:1002"


def test_ids_are_watched_only_where_asked(tmp_path: Path) -> None:
    path = tmp_path / "a.tsv"
    path.write_text("id\ttext\tlabel\n7\t가\t0\n7\t나\t1\n", encoding="utf-8")
    assert stream(path)[1].notes == {}
    assert stream(path, watch_ids=True)[1].notes == {"duplicate ids": 1}


def test_an_account_does_not_grow_with_the_number_of_reasons(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(table, "NAMED_REASONS", 3)
    account = RowCounts("a.tsv")
    for line in range(10):
        account.reject(line, f"{line % 5} fields instead of 9")
    named = {f"{count} fields instead of 9": 2 for count in range(3)}
    assert account.rejected == {**named, "other reasons": 4}
    assert account.rejected_rows[4] == "a.tsv:4: 4 fields instead of 9"


# The columns of a file


def test_a_file_without_columns_is_refused(tmp_path: Path) -> None:
    for name, content, what in [
        ("a.tsv", "", "the file is empty"),
        ("a.tsv", 'text\t"label\n', "the header cannot be read: stray quote"),
        ("a.jsonl", "", "the file is empty"),
    ]:
        (tmp_path / name).write_text(content, encoding="utf-8")
        with pytest.raises(DataError, match=what):
            read_rows(tmp_path / name, COLUMNS, format_of(Path(name)))


def test_a_quote_in_the_header_of_one_line_rows_is_text(tmp_path: Path) -> None:
    path = tmp_path / "a.tsv"
    path.write_text('text\tlabel\t"x\n가\t1\t"y\n', encoding="utf-8")
    form = TableFormat("tsv", one_line_rows=True)
    rows, account = read_rows(path, [*COLUMNS, '"x'], form)
    assert (rows, account.notes) == ([(2, ["가", "1", '"y'])], {"stray quotes taken as text": 1})


def test_bytes_that_cannot_be_decoded_may_cost_their_row_only(tmp_path: Path) -> None:
    path = tmp_path / "a.tsv"
    path.write_bytes("text\tlabel\n가\t1\n".encode() + b"\xb0\xa1\t0\n" + '{"나"}\t0\n'.encode())
    form = TableFormat("tsv", undecodable_rows=True)
    rows, account = read_rows(path, COLUMNS, form)
    assert rows == [(2, ["가", "1"]), (4, ['{"나"}', "0"])]
    assert account.rejected_rows == ["a.tsv:3: bytes that cannot be decoded"]
    with pytest.raises(DataError, match="the file is not utf-8: byte 0xb0") as refused:
        read_rows(path, COLUMNS, TableFormat("tsv"))
    assert refused.value.where == f"{path}:3"
