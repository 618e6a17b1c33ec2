"""Reading tsv, csv, jsonl and parquet files row by row, with an account of every row and its place."""

from __future__ import annotations

import difflib
import re
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, NamedTuple

from bunryu.data import parquet
from bunryu.data.decoding import check_encoding, decoded_lines
from bunryu.data.delimited import delimited_records, json_object
from bunryu.errors import ConfigError, DataError

DELIMITERS = {"tsv": "\t", "txt": "\t", "csv": ","}
LONGEST_RECORD = 1000  # lines one quoted record may span before its quote counts as stray
NAMED_ROWS = 20  # rejected rows named one by one; the rest is only counted
NAMED_REASONS = 1000  # reasons and columns told apart, so that no file fills the memory with them
SPANNING = "rows that span lines"  # the note that may also mean: a file written without quoting

_UNUSABLE = re.compile("[\0\ud800-\udfff]")  # among what is not printable


@dataclass
class RowCounts:
    """What became of the rows of one file: ``read`` equals ``used`` plus all of ``rejected``.

    ``lines`` counts the file's lines after its header: more lines than rows read are lines inside quotes.
    A parquet file has rows only: there, each counts as a line.
    """

    file: str
    lines: int = 0
    read: int = 0
    used: int = 0
    rejected: dict[str, int] = field(default_factory=dict)
    rejected_rows: list[str] = field(default_factory=list)
    notes: dict[str, int] = field(default_factory=dict)

    def reject(self, line: int, reason: str) -> None:
        """Count one rejected row and remember where it stands."""
        if len(self.rejected_rows) < NAMED_ROWS:
            self.rejected_rows.append(f"{place(self.file, line)}: {reason}")
        if reason not in self.rejected and len(self.rejected) >= NAMED_REASONS:
            reason = "other reasons"
        self.rejected[reason] = self.rejected.get(reason, 0) + 1

    def note(self, what: str) -> None:
        """Count something worth knowing about a row that is used all the same."""
        self.notes[what] = self.notes.get(what, 0) + 1


@dataclass(frozen=True)
class TableFormat:
    """How a file is written.

    Args:
        kind: tsv, txt (tab-separated), csv, jsonl or parquet.
        encoding: None for UTF-8, or UTF-16 where a byte-order mark says so.
        quoting: ``csv`` for fields quoted with ``"``, ``none`` to take every character as it stands.
        one_line_rows: no quoted field spans lines; a quote that does not close is text.
        undecodable_rows: bytes that cannot be decoded cost their row, not the whole file.
    """

    kind: str
    encoding: str | None = None
    quoting: str = "csv"
    one_line_rows: bool = False
    undecodable_rows: bool = False


_Found = Iterator[tuple[int, list[Any], str]]  # line, values, problem; read but not yet counted


class Row(NamedTuple):
    """One row of a file: its values, or the problem it was rejected for.

    ``line`` counts the file's lines from 1, header included; in a parquet file, its rows.
    """

    line: int
    values: list[Any] | None
    problem: str


def place(file: str, line: int) -> str:
    """Where a row stands, for messages."""
    return f"{file}, row {line}" if file.lower().endswith(".parquet") else f"{file}:{line}"


def format_of(path: Path, encoding: str | None = None, quoting: str = "csv") -> TableFormat:
    """The format a file's suffix names.

    Raises:
        ConfigError: for any other suffix, or for an encoding or quoting of a parquet file.
    """
    kind = path.suffix.lstrip(".").lower()
    if kind not in (*DELIMITERS, "jsonl", "parquet"):
        raise ConfigError(
            f"a table ends in .csv, .tsv, .txt, .jsonl or .parquet, not '{path.suffix}'",
            where=str(path),
            fix="convert or rename the file",
        )
    if kind == "parquet" and (encoding is not None or quoting != "csv"):
        key, value = ("encoding", encoding) if encoding is not None else ("quoting", quoting)
        raise ConfigError(
            f"{path} is a parquet file: it has no {key}",
            where=f"corpus.{key}={value}",
            fix=f"leave corpus.{key} out",
        )
    check_encoding(encoding or "utf-8")
    return TableFormat(kind, encoding, quoting)


def read_rows(
    path: Path, columns: Sequence[str], form: TableFormat
) -> tuple[list[tuple[int, list[Any]]], RowCounts]:
    """Read the named columns of a file.

    Returns:
        ``(line number, values in the order of columns)`` of each well-formed row, and the account so
        far: its ``used`` counts these rows. A column named ``id`` is watched for duplicates.

    Raises:
        DataError, ConfigError: as ``stream_rows``.
    """
    account = RowCounts(path.name)
    rows = stream_rows(path, columns, form, account, watch_ids=True)
    return [(line, values) for line, values, _ in rows if values is not None], account


def stream_rows(
    path: Path, columns: Sequence[str], form: TableFormat, account: RowCounts, *, watch_ids: bool = False
) -> Iterator[Row]:
    """Every row of a file in its order, good or bad, read as it is asked for.

    Args:
        path: the file, of which no more is held than a block, or ``LONGEST_RECORD`` lines where quotes
            are looked for.
        columns: the columns wanted; a row's values come in their order.
        form: how the file is written.
        account: counts each row before it is given out.
        watch_ids: note duplicates in a column named ``id``, at the cost of holding every id.

    Raises:
        DataError: if the file is missing, empty, not decodable or lacks its header.
        ConfigError: if a column is not in the header, or stands there twice. A jsonl file has no
            header: it is refused at its end if no row has the column.
    """
    ids: set[str] | None = set() if watch_ids else None
    if form.kind == "parquet":
        rows = _parquet_rows(path, columns, form, account, ids)
    elif form.kind == "jsonl":
        rows = _json_rows(path, columns, form, account, ids)
    else:
        rows = _delimited_rows(path, columns, form, account, ids)
    for line, found, reason in rows:
        account.read += 1
        problem = reason or unusable(found)
        if problem:
            account.reject(line, problem)
            yield Row(line, None, problem)
        else:
            account.used += 1
            yield Row(line, found, "")


def unusable(values: Sequence[Any]) -> str:
    """Why no tokenizer could take a value; empty if one can take them all."""
    for value in values:
        if isinstance(value, str) and not value.isprintable() and (found := _UNUSABLE.search(value)):
            if found[0] == "\0":
                return "NUL character"
            kept = 0xDC80 <= ord(found[0]) <= 0xDCFF  # by decoded_lines
            return "bytes that cannot be decoded" if kept else "half a surrogate pair"
    return ""


def _parquet_rows(
    path: Path, columns: Sequence[str], form: TableFormat, account: RowCounts, ids: set[str] | None
) -> _Found:
    names = parquet.column_names(path)
    for name in columns:
        _position(path, form, names, name)
    watched = ["id"] if ids is not None and "id" in names else []
    for number, values in enumerate(parquet.read_values(path, [*columns, *watched]), 1):
        account.lines += 1
        if watched:
            _note_duplicate(values.pop(), ids, account)
        yield number, values, ""


def _json_rows(
    path: Path, columns: Sequence[str], form: TableFormat, account: RowCounts, ids: set[str] | None
) -> _Found:
    names: set[str] = set()
    for number, line in enumerate(_lines(path, form), 1):
        account.lines += 1
        row, problem = json_object(line)
        if problem:
            yield number, [], problem
        elif missing := [name for name in columns if name not in row]:
            if len(names) < NAMED_REASONS:
                names.update(row)
            yield number, [], f"no '{missing[0]}'"
        else:
            _note_duplicate(row.get("id"), ids, account)
            yield number, [row[name] for name in columns], ""
    for name in columns:
        if account.rejected.get(f"no '{name}'", 0) == sum(account.rejected.values()) == account.read:
            raise _no_column(path, form, name, sorted(names))


def _delimited_rows(
    path: Path, columns: Sequence[str], form: TableFormat, account: RowCounts, ids: set[str] | None
) -> _Found:
    records = _records(path, form)
    header = _header(path, form, records)
    positions = [_position(path, form, header, name) for name in columns]
    id_position = header.index("id") if "id" in header else None
    for number, fields, taken, problem in records:
        account.lines += taken
        if problem and form.one_line_rows:
            account.note("stray quotes taken as text")
            problem = ""
        if problem:
            yield number, [], problem
        elif fields == [""]:
            yield number, [], "blank line"
        elif len(fields) != len(header):
            span = f" in {taken} lines" if taken > 1 else ""
            yield number, [], f"{len(fields)} fields instead of {len(header)}{span}"
        else:
            if taken > 1:
                account.note(SPANNING)
            if id_position is not None:
                _note_duplicate(fields[id_position], ids, account)
            yield number, [fields[position] for position in positions], ""


def _records(path: Path, form: TableFormat) -> Iterator[tuple[int, list[str], int, str]]:
    longest = 1 if form.one_line_rows else LONGEST_RECORD
    lines = _lines(path, form)
    return delimited_records(lines, DELIMITERS[form.kind], quotes=form.quoting == "csv", longest=longest)


def _header(path: Path, form: TableFormat, records: Iterator[tuple[int, list[str], int, str]]) -> list[str]:
    _, header, _, problem = next(records)
    if problem and not form.one_line_rows:
        raise DataError(f"the header cannot be read: {problem}", where=f"{path}:1", fix="corpus.quoting=none")
    return header


def _lines(path: Path, form: TableFormat) -> Iterator[str]:
    return decoded_lines(path, form.encoding, keep_undecodable=form.undecodable_rows)


def _note_duplicate(row_id: object, ids: set[str] | None, account: RowCounts) -> None:
    if row_id is None or ids is None:
        return
    known = len(ids)
    ids.add(str(row_id))
    if len(ids) == known:
        account.note("duplicate ids")


def _position(path: Path, form: TableFormat, header: list[str], name: str) -> int:
    if header.count(name) == 1:
        return header.index(name)
    if name not in header:
        raise _no_column(path, form, name, header)
    raise ConfigError(
        f"two columns are named '{name}'", where=_top(path, form), fix="rename one in the file's header"
    )


def _no_column(path: Path, form: TableFormat, name: str, names: list[str]) -> ConfigError:
    near = difflib.get_close_matches(name, names, 1)
    shown = ", ".join(f"'{column[:40]}'" for column in names[:20])
    meant = f"did you mean '{near[0]}'? " if near else ""
    header = "" if form.kind == "parquet" else ", or give the file a header line"
    fix = f"{meant}set corpus.text_column and corpus.label_column{header}"
    return ConfigError(f"no column '{name}'; the file has {shown}", where=_top(path, form), fix=fix)


def _top(path: Path, form: TableFormat) -> str:
    return str(path) if form.kind == "parquet" else f"{path}:1"
