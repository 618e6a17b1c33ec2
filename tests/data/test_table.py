"""Every row of a file is read rightly or rejected with its line and a reason."""

from __future__ import annotations

import csv
import gzip
import io
import json
import tracemalloc
import unicodedata
import zipfile
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet
import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from bunryu.data import decoding, rows
from bunryu.data.rows import Row, RowCounts
from bunryu.data.table import TableFormat, format_of, stream_rows
from bunryu.errors import BunryuError, ConfigError, DataError
from helpers.tables import same_folder

COLUMNS = ["text", "label"]


def stream(
    path: Path, columns: Sequence[str] = COLUMNS, format: TableFormat | None = None, watch_ids: bool = True
) -> tuple[list[Row], RowCounts]:
    """Every row of a file, good or bad; each is counted by the time it is given out."""
    counts, rows, used = RowCounts(path.name), [], 0
    for row in stream_rows(path, columns, format or format_of(path), counts, watch_ids=watch_ids):
        rows.append(row)
        used += row.values is not None
        assert (counts.read, counts.used, sum(counts.rejected.values())) == (
            len(rows), used, len(rows) - used,
        )  # fmt: skip
    return rows, counts


def read(
    path: Path, content: str | bytes, columns: Sequence[str] = COLUMNS, **options: Any
) -> tuple[list[tuple[int, list[Any]]], RowCounts]:
    """Write the content, and read the line and values of each good row."""
    path.write_bytes(content if isinstance(content, bytes) else content.encode())
    rows, counts = stream(path, columns, format_of(path, **options))
    return [(row.line, row.values) for row in rows if row.values is not None], counts


def test_bytes_that_cannot_be_decoded_may_cost_their_row_only(tmp_path: Path) -> None:
    path = tmp_path / "a.tsv"
    path.write_bytes("text\tlabel\n가\t1\n".encode() + b"\xb0\xa1\t0\n" + '{"나"}\t0\n'.encode())
    rows, counts = stream(path, format=TableFormat("tsv", undecodable_rows=True))
    assert [row.values for row in rows] == [["가", "1"], None, ['{"나"}', "0"]]
    assert counts.rejected_rows == ["a.tsv:3: bytes that cannot be decoded"]


# Files as a whole, and headers


def test_a_missing_file_an_empty_one_and_a_folder_are_refused(tmp_path: Path) -> None:
    (tmp_path / "folder.tsv").mkdir()
    for name, what in [("none.tsv", "No such file"), ("folder.tsv", "Is a directory")]:
        with pytest.raises(DataError, match=what):
            stream(tmp_path / name)
    for name in ("a.tsv", "a.jsonl"):
        with pytest.raises(DataError, match="the file is empty"):
            read(tmp_path / name, b"")
    rows, counts = read(tmp_path / "a.tsv", "text\tlabel\n")  # a header alone is none of these
    assert (rows, counts.lines, counts.read) == ([], 0, 0)


def test_the_suffix_is_the_format_in_any_case(tmp_path: Path) -> None:
    for name in ("a.TSV", "a.Csv", "a.txt", "a.JSONL", "a.parquet"):
        assert format_of(Path(name)).kind == name.partition(".")[2].lower()
    assert format_of(Path("a.json")).kind == format_of(Path("a.jsonl.GZ")).kind == "jsonl"
    for name, fix in (("a.xlsx", "save it as 'CSV UTF-8'"), ("a", "rename"), ("a.parquet.gz", "rename")):
        with pytest.raises(ConfigError, match="a table is a") as refused:
            format_of(Path(name))
        assert fix in refused.value.fix
    with pytest.raises(ConfigError, match="unknown encoding 'hex'"):
        format_of(Path("a.tsv"), "hex")


@pytest.mark.parametrize(
    ("name", "content", "error", "what", "fix"),
    [
        ("a.tsv", "id\tdocument\tlabel\n1\t가\t0\n", ConfigError, "no column 'text'; the file has", "set"),
        ("a.tsv", "재밌다\t1\n", ConfigError, "no column 'text'; the file has '재밌다', '1'", "set"),
        ("a.csv", "txet,label\n가,0\n", ConfigError, "no column 'text'", "did you mean 'txet'? set"),
        ("a.jsonl", '{"txet": "가", "label": 0}\n', ConfigError, "no column 'text'", "did you mean 'txet'?"),
        ("a.tsv", "text\ttext\tlabel\n가\t나\t1\n", ConfigError, "two columns are named 'text'", "rename"),
        ("a.tsv", 'text\t"label\n', DataError, "header cannot be read: stray quote", "corpus.quoting=none"),
    ],
)
def test_a_header_that_does_not_fit_is_refused_with_its_place_and_fix(
    tmp_path: Path, name: str, content: str, error: type[BunryuError], what: str, fix: str
) -> None:
    with pytest.raises(error) as refused:
        read(tmp_path / name, content)
    assert what in refused.value.what
    assert refused.value.where == f"{tmp_path / name}:1"
    assert refused.value.fix.startswith(fix)
    assert refused.value.fix.endswith("or give the file a header line") == (
        "no column" in what and name != "a.jsonl"
    )


TWO_ROWS = [(2, ["가", "1"]), (3, ["나", "0"])]


@pytest.mark.parametrize(
    ("name", "content", "options", "skipped"),
    [
        ("a.csv", "text;label\n가;1\n나;0\n", {}, 0),
        ("a.csv", "text\tlabel\n가\t1\n나\t0\n", {}, 0),
        ("a.tsv", "text,label\n가,1\n나,0\n", {}, 0),
        ("a.txt", "text|label\n가|1\n나|0\n", {}, 0),
        ("a.csv", "\ufeffsep=;\r\ntext;label\r\n가;1\r\n나;0\r\n", {}, 1),
        ("a.csv", "text:label\n가:1\n나:0\n", {"delimiter": ":"}, 0),
        ("a.csv", "text\tlabel\n가\t1\n나\t0\n", {"delimiter": "tab"}, 0),
        ("a.csv", "text,label\r가,1\r나,0\r", {}, 0),
    ],
)
def test_what_delimits_fields_and_rows_is_seen_where_it_is_certain(
    tmp_path: Path, name: str, content: str, options: dict[str, str], skipped: int
) -> None:
    rows, counts = read(tmp_path / name, content, **options)
    assert rows == [(line + skipped, values) for line, values in TWO_ROWS]
    assert (counts.lines, counts.rejected) == (2, {})


def test_a_delimiter_that_is_not_certain_is_named_and_a_wrong_one_refused(tmp_path: Path) -> None:
    for content, fix in [("글;분류\n", "corpus.delimiter=';'"), ("글\t분류\n", "corpus.delimiter='tab'")]:
        with pytest.raises(ConfigError, match="no column 'text'") as refused:
            read(tmp_path / "a.csv", content)
        assert refused.value.fix.endswith(fix)
    for delimiter in ("ab", "", '"', "\n"):
        with pytest.raises(ConfigError, match="is no delimiter") as refused:
            format_of(Path("a.csv"), delimiter=delimiter)
        assert refused.value.where == "corpus.delimiter"


CSV = "text,label\n가,1\n나,0\n".encode()


def zipped(**files: bytes) -> bytes:
    with io.BytesIO() as packed:
        with zipfile.ZipFile(packed, "w", zipfile.ZIP_DEFLATED) as archive:
            for name, content in files.items():
                archive.writestr(name, content)
        return packed.getvalue()


def test_packed_files_are_read_by_their_content(tmp_path: Path) -> None:
    packed = gzip.compress(CSV)
    for name, content in [
        ("a.csv.gz", packed),
        ("a.csv", packed),  # under a name that does not say so
        ("a.csv.gz", CSV),  # unpacked by a browser
        ("a.zip", zipped(**{"folder/": b"", "folder/a.csv": CSV, "__MACOSX/folder/._a.csv": b"x"})),
    ]:
        assert read(tmp_path / name, content)[0] == TWO_ROWS
    two = zipped(**{"a.csv": CSV, "b.csv": CSV})
    for name, content, what in [
        ("a.csv.gz", packed[:-9], "ended before the end-of-stream"),
        ("a.csv.gz", packed[:10] + b"\xff" * 20, "Error -3"),
        ("a.zip", zipped(**{"a.csv": CSV})[:40], "not a zip file"),
        ("a.zip", two, "the archive holds 2 files: a.csv, b.csv"),
        ("a.csv", zipped(**{"[Content_Types].xml": b"", "xl/a.xml": b""}), "an Excel workbook"),
    ]:
        with pytest.raises(DataError, match=what) as refused:
            read(tmp_path / name, content)
        assert refused.value.where == str(tmp_path / name)


@pytest.mark.parametrize(
    ("content", "begin"),
    [
        ('[{"text": "가", "label": 1}, {"text": "나", "label": 0}]', [1, 1]),
        ('[\n  {\n    "text": "가",\n    "label": 1\n  },\n  {"text": "나", "label": 0}\n]\n', [2, 6]),
        ('{\n  "text": "가",\n  "label": 1\n}\n{\n  "text": "나",\n  "label": 0\n}\n', [1, 5]),
    ],
)
def test_an_array_and_objects_over_several_lines_are_rows(
    tmp_path: Path, content: str, begin: list[int]
) -> None:
    rows, counts = read(tmp_path / "a.json", content)
    assert [values for _, values in rows] == [["가", 1], ["나", 0]]
    assert [line for line, _ in rows] == begin
    assert (counts.read, counts.rejected) == (2, {})


@pytest.mark.parametrize(
    ("content", "what", "line"),
    [
        ('[{"text": "가", "label": 1},\n{"text": ', "the file is not JSON", 2),
        ('[{"text": "가", "label": 1},\n{"text": "나", "label": 1}', "the array is cut off", 2),
        ("[" * 100_000, "not JSON|cut off", 1),
    ],
)
def test_a_damaged_array_is_refused(tmp_path: Path, content: str, what: str, line: int) -> None:
    with pytest.raises(DataError, match=what) as refused:
        read(tmp_path / "a.json", content)
    assert refused.value.where == f"{tmp_path / 'a.json'}:{line}"


def test_a_key_inside_a_key_is_a_dotted_column(tmp_path: Path) -> None:
    line = '{"data": {"text": "가", "label": 1}}\n'
    assert read(tmp_path / "a.jsonl", line, ["data.text", "data.label"])[0] == [(1, ["가", 1])]
    with pytest.raises(ConfigError, match=r"no column 'text'; the file has 'data', 'data\.label'") as refused:
        read(tmp_path / "a.jsonl", line)
    assert refused.value.fix.startswith("did you mean 'data.text'?")


@pytest.mark.parametrize("name", ["a.csv", "a.jsonl", "a.parquet"])
def test_columns_are_found_by_what_shows(tmp_path: Path, name: str) -> None:
    path, text = tmp_path / name, unicodedata.normalize("NFD", "문장")
    record = {f"{text}\u200b": "가", "label ": "1"}
    if name == "a.parquet":
        pyarrow.parquet.write_table(pa.table({key: [value] for key, value in record.items()}), path)
    elif name == "a.jsonl":
        path.write_text(json.dumps(record), "utf-8")
    else:
        path.write_text(",".join(record) + "\n" + ",".join(record.values()) + "\n", "utf-8")
    assert [row.values for row in stream(path, ["문장", unicodedata.normalize("NFD", "label")])[0]] == [
        ["가", "1"]
    ]


def test_columns_that_look_alike_are_two_of_one_name_and_told_apart(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match="two columns are named 'text': 'text', 'text<U\\+200B>'"):
        read(tmp_path / "a.csv", "text,text\u200b,label\n가,나,1\n")
    with pytest.raises(ConfigError, match="no column 'text'; the file has 'te<U\\+0301>xt', 'label'"):
        read(tmp_path / "a.csv", "te\u0301xt,label\n가,1\n")


def test_a_header_inside_the_file_is_named_and_no_row(tmp_path: Path) -> None:
    rows, counts = read(tmp_path / "a.csv", "text,label\r\n가,1\r\n\ufefftext,label\r\n나,0\r\ntext,1\r\n")
    assert rows == [(2, ["가", "1"]), (4, ["나", "0"]), (5, ["text", "1"])]
    assert counts.rejected_rows == ["a.csv:3: the header once more: two files joined?"]
    rows, _ = read(tmp_path / "b.csv", "text\ntext\n", ["text"])  # of one column: a word like any other
    assert rows == [(2, ["text"])]


def test_columns_come_in_the_order_asked_for(tmp_path: Path) -> None:
    rows, _ = read(tmp_path / "a.csv", "x,label,pair,text\n0,나쁨,둘,하나\n", ["text", "label", "pair"])
    assert rows == [(2, ["하나", "나쁨", "둘"])]


# Rows, good and bad


def test_the_rows_of_a_tsv_come_in_order_the_bad_ones_with_their_reason(tmp_path: Path) -> None:
    content = 'text\tlabel\n좋다\t1\n짧다\n"두\n줄"\t0\n\n널\0\t1\n"열린\t1\n길다\t0\t남음\n끝\t0\n\n'
    path = tmp_path / "a.tsv"
    path.write_text(content, encoding="utf-8")
    rows, counts = stream(path)
    assert rows == [
        Row(2, ["좋다", "1"], ""),
        Row(3, None, "1 fields instead of 2"),
        Row(4, ["두\n줄", "0"], ""),
        Row(6, None, "blank line"),
        Row(7, None, "NUL character"),
        Row(8, None, "stray quote"),
        Row(9, None, "3 fields instead of 2"),
        Row(10, ["끝", "0"], ""),
        Row(11, None, "blank line"),
    ]
    assert counts.rejected_rows == [f"a.tsv:{row.line}: {row.problem}" for row in rows if row.problem]
    assert counts.rejected["blank line"] == 2
    assert (counts.lines, counts.read, counts.used) == (10, 9, 3)


def test_the_rows_of_a_jsonl_come_in_order_the_bad_ones_with_their_reason(tmp_path: Path) -> None:
    lines = {
        '{"text": "좋다", "label": 1}': "",
        "": "blank line",
        "{not json": "not JSON",
        "[1, 2]": "not a JSON object",
        "null": "not a JSON object",
        '{"text": "라벨 없음"}': "no 'label'",
        '{"label": 1}': "no 'text'",
        '{"text": "\\u0000", "label": 1}': "NUL character",
        '{"text": "\\ud83d", "label": 1}': "half a surrogate pair",
        "[" * 100_000: "not JSON",
        '{"text": "너무 큰 수", "label": ' + "9" * 5000 + "}": "not JSON",
        '{"text": 3, "label": null, "other": 1}': "",
    }
    path = tmp_path / "a.jsonl"
    path.write_text("\n".join(lines), encoding="utf-8")
    rows, counts = stream(path)
    assert [(row.line, row.problem) for row in rows] == list(enumerate(lines.values(), 1))
    assert (rows[0].values, rows[-1].values) == (["좋다", 1], [3, None])
    assert counts.rejected_rows[0] == "a.jsonl:2: blank line"
    assert (counts.lines, counts.read) == (12, 12)


def test_all_bad_rows_are_counted_and_few_are_named(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    _, counts = read(tmp_path / "a.tsv", "text\tlabel\n" + "x\n" * 50 + "좋다\t1\n")
    assert len(counts.rejected_rows) == 20
    assert counts.rejected == {"1 fields instead of 2": 50}
    monkeypatch.setattr(rows, "NAMED_REASONS", 3)  # the counts do not grow with the number of reasons
    counts = RowCounts("a.tsv")
    for line in range(10):
        counts.reject(line, f"{line % 5} fields instead of 9")
    named = {f"{count} fields instead of 9": 2 for count in range(3)}
    assert counts.rejected == {**named, "other reasons": 4}
    assert counts.rejected_rows[4] == "a.tsv:4: 4 fields instead of 9"


def test_duplicate_ids_are_counted_and_kept_where_they_are_watched(tmp_path: Path) -> None:
    rows, counts = read(tmp_path / "a.tsv", "id\ttext\tlabel\n7\t가\t0\n8\t나\t1\n7\t다\t0\n")
    assert (len(rows), counts.notes) == (3, {"duplicate ids": 1})
    assert stream(tmp_path / "a.tsv", watch_ids=False)[1].notes == {}
    lines = [{"id": 7, "text": "가", "label": 0}, {"id": 7, "text": "나", "label": 0}]
    lines += [{"text": "다", "label": 0}] * 2
    rows, counts = read(tmp_path / "a.jsonl", "\n".join(map(json.dumps, lines)))
    assert (len(rows), counts.notes) == (4, {"duplicate ids": 1})


# Quotes

UNQUOTED = 'text\tlabel\n"열고\t1\n둘\t0\n셋 닫고"\t0\n"전부"\t1\n'
SPANS = {"rows that span lines": 1}
LONG = "가" * 300_000


@pytest.mark.parametrize(
    ("content", "options", "expected", "rejected", "notes"),
    [
        pytest.param(
            'text\tlabel\n"그는 ""최고""라고\t말했다\r\n둘째 줄\n셋째"\t1\n다음\t0\n', {},
            [(2, ['그는 "최고"라고\t말했다\r\n둘째 줄\n셋째', "1"]), (5, ["다음", "0"])], [], SPANS,
            id="quoted text holds quotes, delimiters and newlines",
        ),
        pytest.param(
            'text\tlabel\n이 "명작" 은\t1\n', {}, [(2, ['이 "명작" 은', "1"])], [], {},
            id="a quote within a field is text",
        ),
        pytest.param(
            'text\tlabel\n"명작" 이다\t1\n좋다\t1\n', {}, [(3, ["좋다", "1"])], ["a.tsv:2: stray quote"], {},
            id="text behind a closing quote",
        ),
        pytest.param(
            'text\tlabel\n"열고\t1\n둘\t0\n닫고"\n넷\t1\n', {}, [(5, ["넷", "1"])],
            ["a.tsv:2: 1 fields instead of 2 in 3 lines"], {}, id="swallowed lines",
        ),
        pytest.param(
            UNQUOTED, {"quoting": "none"},
            [(2, ['"열고', "1"]), (3, ["둘", "0"]), (4, ['셋 닫고"', "0"]), (5, ['"전부"', "1"])], [], {},
            id="written and read without quoting",
        ),
        pytest.param(
            UNQUOTED, {}, [(2, ["열고\t1\n둘\t0\n셋 닫고", "0"]), (5, ["전부", "1"])], [], SPANS,
            id="written without quoting, read with it",
        ),
        pytest.param(
            'text\tlabel\n"열린 따옴표\t0\n' + "문장\t1\n" * 2000, {},
            [(n, ["문장", "1"]) for n in range(3, 2003)], ["a.tsv:2: stray quote"], {},
            id="a quote left open costs its own row only",
        ),
        pytest.param(
            f'text\tlabel\n"{LONG}"\t1\n', {}, [(2, [LONG, "1"])], [], {}, id="a document may be long"
        ),
        pytest.param(
            "text\tlabel\n하나\u2028둘\u0085셋\u000b넷\u001e다섯\t1\n", {},
            [(2, ["하나\u2028둘\u0085셋\u000b넷\u001e다섯", "1"])], [], {},
            id="line separators that are no newline",
        ),
    ],
)  # fmt: skip
def test_quotes(
    tmp_path: Path, content: str, options: dict[str, str], expected: list[tuple[int, list[str]]],
    rejected: list[str], notes: dict[str, int],
) -> None:  # fmt: skip
    rows, counts = read(tmp_path / "a.tsv", content, **options)
    assert (rows, counts.rejected_rows, counts.notes) == (expected, rejected, notes)
    assert counts.lines == content.count("\n") - 1


def test_a_quote_that_may_swallow_rows_or_be_a_long_record_is_refused(tmp_path: Path) -> None:
    with pytest.raises(DataError, match="a quote that opens here closes far below") as refused:
        read(tmp_path / "a.csv", 'text,label\n글,1\n"열고,1\n' + "글,0\n" * 1100 + '닫고",0\n')
    assert refused.value.where == f"{tmp_path / 'a.csv'}:3"
    assert "corpus.quoting=none" in refused.value.fix


def test_a_quote_in_the_header_of_one_line_rows_is_text(tmp_path: Path) -> None:
    path = tmp_path / "a.tsv"
    path.write_text('text\tlabel\t"x\n가\t1\t"y\n', encoding="utf-8")
    rows, counts = stream(path, [*COLUMNS, '"x'], TableFormat("tsv", one_line_rows=True))
    assert (rows, counts.notes) == ([Row(2, ["가", "1", '"y'], "")], {"stray quotes taken as text": 1})


# Round trips and garbage

# A text may hold anything a tokenizer takes: no NUL and no half surrogate pair.
anything = st.text(st.characters(exclude_characters="\0", exclude_categories=["Cs"]), max_size=30)
spiky = st.text(st.sampled_from('가a"\t,\n\r\u2028\u0085 \ufeff'), max_size=12)


@same_folder
@example(rows=[('"', 0), ("\r", 1), ("\n", 0), ("", 1)], kind="csv", line_end="\n", plain=False)
@given(
    rows=st.lists(st.tuples(anything | spiky, st.integers() | st.just('a"b')), min_size=1, max_size=8),
    kind=st.sampled_from(["tsv", "csv", "jsonl"]),
    line_end=st.sampled_from(["\n", "\r\n"]),
    plain=st.booleans(),
)
def test_what_was_written_is_read_back(
    tmp_path: Path, rows: list[tuple[str, int | str]], kind: str, line_end: str, plain: bool
) -> None:
    written = io.StringIO(newline="")
    if kind == "jsonl":
        for row in rows:
            written.write(json.dumps(dict(zip(COLUMNS, row, strict=True)), ensure_ascii=plain) + line_end)
    else:
        # Where "\n" ends lines, csv leaves a bare "\r" unquoted.
        quoting = csv.QUOTE_MINIMAL if plain and line_end == "\r\n" else csv.QUOTE_ALL
        delimiter = {"tsv": "\t", "csv": ","}[kind]
        writer = csv.writer(written, delimiter=delimiter, lineterminator=line_end, quoting=quoting)
        writer.writerows([COLUMNS, *rows])
    read_back, counts = read(tmp_path / f"a.{kind}", written.getvalue())
    expected = rows if kind == "jsonl" else [(text, str(label)) for text, label in rows]
    assert [tuple(values) for _, values in read_back] == expected
    assert counts.rejected == {}


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


GOOD = {"tsv": "좋다\t1", "csv": "좋다,1", "jsonl": '{"text": "가", "label": 1}'}
garbage_line = st.text(st.sampled_from('가a1\t,"{}[]:\r\0\ufeff'), max_size=10)


@same_folder
@given(
    lines=st.lists(garbage_line | st.sampled_from([*GOOD.values()]), min_size=1, max_size=10),
    kind=st.sampled_from([*GOOD]),
    quoting=st.sampled_from(["csv", "none"]),
)
def test_no_garbage_line_is_lost(tmp_path: Path, lines: list[str], kind: str, quoting: str) -> None:
    first = {"tsv": "text\tlabel", "csv": "text,label", "jsonl": GOOD["jsonl"]}[kind]
    rows, counts = read(tmp_path / f"a.{kind}", "\n".join([first, *lines, ""]), quoting=quoting)
    header = int(kind != "jsonl")
    assert counts.lines == len(lines) + 1 - header
    if quoting == "none" or kind == "jsonl":
        named = [int(place.split(":")[1]) for place in counts.rejected_rows]
        assert sorted(named + [number for number, _ in rows]) == list(range(1 + header, 2 + len(lines)))
    elif counts.read < len(lines):  # some lines are inside quotes, and the counts say so
        spans = counts.notes.get("rows that span lines", 0)
        assert spans + sum(" lines" in reason or "NUL" in reason for reason in counts.rejected) > 0


# Streaming


@pytest.mark.parametrize("kind", ["tsv", "jsonl"])
def test_a_file_larger_than_the_memory_used_is_walked(tmp_path: Path, kind: str) -> None:
    path = tmp_path / f"a.{kind}"
    text = "x" * 2000
    line = f"{text}\t1\n" if kind == "tsv" else json.dumps({"text": text, "label": 1}) + "\n"
    path.write_text(("text\tlabel\n" if kind == "tsv" else "") + line * 8000, encoding="utf-8")
    counts = RowCounts(path.name)
    tracemalloc.start()
    try:
        for row in stream_rows(path, COLUMNS, format_of(path), counts):
            assert row.values is not None
            assert row.values[0] == text
        peak = tracemalloc.get_traced_memory()[1]
    finally:
        tracemalloc.stop()
    assert counts.used == 8000
    assert peak < path.stat().st_size / 3


def test_rows_are_given_out_before_the_rest_is_read(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path = tmp_path / "a.tsv"
    path.write_bytes(b"text\tlabel\n" + b"good\t1\n" * 1000 + b"\xff\t1\n")
    monkeypatch.setattr(decoding, "BLOCK", 70)
    rows = stream_rows(path, COLUMNS, format_of(path), RowCounts(path.name))
    assert [next(rows).line for _ in range(980)] == list(range(2, 982))
    with pytest.raises(DataError) as refused:
        list(rows)
    assert refused.value.where == f"{path}:1002"
