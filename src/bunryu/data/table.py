"""Reading tsv, csv, jsonl and parquet files row by row; every row is counted, and its line is known."""

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
from bunryu.data.normalisation import name_of, spelt_out
from bunryu.errors import ConfigError, DataError

DELIMITERS = {"tsv": "\t", "txt": "\t", "csv": ","}
LONGEST_RECORD = 1000  # lines one quoted record may span before its quote counts as stray
NAMED_ROWS = 20  # rejected rows named one by one; the rest is only counted
NAMED_REASONS = 1000  # reasons and columns told apart, so that no file fills the memory with them
SPANNING = "rows that span lines"  # the note that may also mean: a file written without quoting

_UNUSABLE = re.compile("[\0\ud800-\udfff]")  # among what is not printable


class Row(NamedTuple):
    """One row of a file: its values, or the problem it was rejected for.

    ``line`` counts the file's lines from 1, header included; in a parquet file, its rows.
    """

    line: int
    values: list[Any] | None
    problem: str


@dataclass
class RowCounts:
    """What became of the rows of one file: ``read`` equals ``used`` plus all of ``rejected``.

    ``lines`` counts the file's lines after its header: if there are more than rows, some are inside quotes.
    A parquet file has rows only: there, each counts as a line.
    """

    file: str
    lines: int = 0
    read: int = 0
    used: int = 0
    rejected: dict[str, int] = field(default_factory=dict)
    rejected_rows: list[str] = field(default_factory=list)
    notes: dict[str, int] = field(default_factory=dict)

    def row(self, line: int, values: list[Any], problem: str) -> Row:
        """The row, counted as used, or as rejected if there is a problem."""
        if problem:
            self.reject(line, problem)
            return Row(line, None, problem)
        self.used += 1
        return Row(line, values, "")

    def reject(self, line: int, reason: str) -> None:
        """Count one rejected row and remember where it stands."""
        if len(self.rejected_rows) < NAMED_ROWS:
            self.rejected_rows.append(f"{place(self.file, line)}: {reason}")
        if reason not in self.rejected and len(self.rejected) >= NAMED_REASONS:
            reason = "other reasons"
        self.rejected[reason] = self.rejected.get(reason, 0) + 1

    def note(self, what: str) -> None:
        """Count something worth knowing about a row that is used all the same."""
        if what not in self.notes and len(self.notes) >= NAMED_REASONS:
            what = "other notes"
        self.notes[what] = self.notes.get(what, 0) + 1


@dataclass(frozen=True)
class TableFormat:
    """How a file is written.

    Args:
        kind: tsv, txt (tab-separated), csv, jsonl or parquet.
        encoding: None for UTF-8, or UTF-16 where a byte-order mark says so.
        quoting: ``csv`` for fields quoted with ``"``, ``none`` to take every character as it stands.
        one_line_rows: no quoted field spans lines; a quote that does not close is text.
        undecodable_rows: reject the rows with bytes that cannot be decoded, instead of the whole file.
    """

    kind: str
    encoding: str | None = None
    quoting: str = "csv"
    one_line_rows: bool = False
    undecodable_rows: bool = False


def place(file: str, line: int) -> str:
    """Where a row stands, for messages."""
    return f"{file}, row {line}" if file.lower().endswith(".parquet") else f"{file}:{line}"


def format_of(path: Path, encoding: str | None = None, quoting: str = "csv") -> TableFormat:
    """The format that a file's suffix names; ConfigError if it names none, or no such one."""
    kind = path.suffix.lstrip(".").lower()
    if kind not in (*DELIMITERS, "jsonl", "parquet"):
        what = f"a table ends in .csv, .tsv, .txt, .jsonl or .parquet, not '{path.suffix}'"
        raise ConfigError(what, where=str(path), fix="convert or rename the file")
    if kind == "parquet" and (encoding is not None or quoting != "csv"):
        key, value = ("encoding", encoding) if encoding is not None else ("quoting", quoting)
        what = f"{path} is a parquet file: it has no {key}"
        raise ConfigError(what, where=f"corpus.{key}={value}", fix=f"leave corpus.{key} out")
    check_encoding(encoding or "utf-8")
    return TableFormat(kind, encoding, quoting)


def stream_rows(
    path: Path, columns: Sequence[str], format: TableFormat, counts: RowCounts, *, watch_ids: bool = False
) -> Iterator[Row]:
    """Every row of a file in its order, good or bad, read as it is asked for.

    Args:
        path: of which no more is held than a block, or ``LONGEST_RECORD`` lines to find the end of a quote.
        columns: the columns wanted; a row's values come in their order.
        counts: counts each row before it is given out.
        watch_ids: note duplicates in a column named ``id``; holds every id.

    Raises:
        DataError: if the file is missing, empty, not decodable or lacks its header.
        ConfigError: if a column is not in the header, or stands there twice. A jsonl file has no
            header: it is refused at its end if no row has the column.
    """
    ids: set[str] = set()
    if format.kind == "parquet":
        rows = _parquet_rows(path, columns, counts, watch_ids)
    elif format.kind == "jsonl":
        rows = _json_rows(path, columns, format, counts)
    else:
        rows = _delimited_rows(path, columns, format, counts)
    for line, values, problem, row_id in rows:
        counts.read += 1
        if watch_ids and row_id is not None:
            if str(row_id) in ids:
                counts.note("duplicate ids")
            ids.add(str(row_id))
        yield counts.row(line, values, problem or unusable(values))


def unusable(values: Sequence[Any]) -> str:
    """Why a tokenizer could not take a value; empty if it can take them all."""
    for value in values:
        if isinstance(value, str) and not value.isprintable() and (found := _UNUSABLE.search(value)):
            if found[0] == "\0":
                return "NUL character"
            undecodable = 0xDC80 <= ord(found[0]) <= 0xDCFF  # as decoded_lines marks them
            return "bytes that cannot be decoded" if undecodable else "half a surrogate pair"
    return ""


_Found = Iterator[tuple[int, list[Any], str, object]]  # line, values, problem, id; read but not yet counted


def _parquet_rows(path: Path, columns: Sequence[str], counts: RowCounts, watch_ids: bool) -> _Found:
    names = parquet.column_names(path)
    wanted = [names[_position(path, names, name)] for name in columns]
    with_id = watch_ids and "id" in names
    wanted += ["id"] if with_id else []
    for number, values in enumerate(parquet.read_values(path, wanted), 1):
        counts.lines += 1
        row_id = values.pop() if with_id else None
        yield number, values, "", row_id


def _json_rows(path: Path, columns: Sequence[str], format: TableFormat, counts: RowCounts) -> _Found:
    names: set[str] = set()
    columns = [name_of(name) for name in columns]
    for number, line in enumerate(_lines(path, format), 1):
        counts.lines += 1
        row, problem = json_object(line)
        if problem:
            yield number, [], problem, None
            continue
        if not all(name in row for name in columns):
            row = {name_of(name): value for name, value in row.items()} | row
        if missing := [name for name in columns if name not in row]:
            if len(names) < NAMED_REASONS:
                names.update(row)
            yield number, [], f"no '{missing[0]}'", None
        else:
            yield number, [row[name] for name in columns], "", row.get("id")
    for name in columns:
        if counts.rejected.get(f"no '{name}'", 0) == sum(counts.rejected.values()) == counts.read:
            _position(path, sorted(names), name)  # refuses it


def _delimited_rows(path: Path, columns: Sequence[str], format: TableFormat, counts: RowCounts) -> _Found:
    records = delimited_records(
        _lines(path, format), DELIMITERS[format.kind], quotes=format.quoting == "csv",
        longest=1 if format.one_line_rows else LONGEST_RECORD,
    )  # fmt: skip
    _, header, _, problem = next(records)
    if problem and not format.one_line_rows:
        raise DataError(f"the header cannot be read: {problem}", where=f"{path}:1", fix="corpus.quoting=none")
    positions = [_position(path, header, name) for name in columns]
    names = list(map(name_of, header))
    id_position = header.index("id") if "id" in header else None
    for number, fields, taken, problem in records:
        counts.lines += taken
        if problem and format.one_line_rows:
            counts.note("stray quotes taken as text")
            problem = ""
        if problem:
            yield number, [], problem, None
        elif fields == [""]:
            yield number, [], "blank line", None
        elif fields[-1] == header[-1] and header[1:] and list(map(name_of, fields)) == names:
            yield number, [], "the header once more: two files joined?", None
        elif len(fields) != len(header):
            span = f" in {taken} lines" if taken > 1 else ""
            yield number, [], f"{len(fields)} fields instead of {len(header)}{span}", None
        else:
            if taken > 1:
                counts.note(SPANNING)
            row_id = None if id_position is None else fields[id_position]
            yield number, [fields[position] for position in positions], "", row_id


def _lines(path: Path, format: TableFormat) -> Iterator[str]:
    return decoded_lines(path, format.encoding, keep_undecodable=format.undecodable_rows)


def _position(path: Path, names: list[str], name: str) -> int:
    """Where a column stands among those of a file; refused if there is none of that name, or two."""
    found = [index for index, column in enumerate(names) if name_of(column) == name_of(name)]
    if len(found) == 1:
        return found[0]
    is_parquet = path.suffix.lower() == ".parquet"
    where = str(path) if is_parquet else f"{path}:1"
    shown = ", ".join(f"'{spelt_out(names[index][:40])}'" for index in found or range(min(len(names), 20)))
    if found:
        what = f"two columns are named '{name_of(name)}': {shown}"
        raise ConfigError(what, where=where, fix="rename all but one in the file's header")
    near = difflib.get_close_matches(name, names, 1)
    meant = f"did you mean '{near[0]}'? " if near else ""
    header = "" if is_parquet else ", or give the file a header line"
    raise ConfigError(
        f"no column '{spelt_out(name)}'; the file has {shown}",
        where=where,
        fix=f"{meant}set corpus.text_column and corpus.label_column{header}",
    )
