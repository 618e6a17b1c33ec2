"""Reading tsv, csv, jsonl and parquet files row by row; every row is counted, and its line is known."""

from __future__ import annotations

import re
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from itertools import chain
from pathlib import Path
from typing import Any

from bunryu.data import parquet
from bunryu.data.decoding import check_encoding, decoded_lines
from bunryu.data.delimited import DOUBTFUL, LONGEST_RECORD, delimited_records, json_rows
from bunryu.data.normalisation import name_of, spelt_out
from bunryu.data.rows import NAMED_REASONS, SPANNING, Row, RowCounts, unusable
from bunryu.data.unpacking import SAVE_AS_CSV, unpacked_name
from bunryu.errors import ConfigError, DataError
from bunryu.keys import nearest

DELIMITERS = {"tsv": "\t", "txt": "\t", "csv": ","}
KINDS = (*DELIMITERS, "jsonl", "json", "parquet")
LIKELY_DELIMITERS = ",\t;|"  # what may delimit a file whatever its suffix


@dataclass(frozen=True)
class TableFormat:
    """How a file is written.

    Args:
        kind: tsv, txt (tab-separated), csv, jsonl (an array of objects, too) or parquet.
        encoding: None for UTF-8, or what a byte-order mark says.
        quoting: ``csv`` for fields quoted with ``"``, ``none`` to take every character as it stands.
        one_line_rows: no quoted field spans lines; a quote that does not close is text.
        undecodable_rows: reject the rows with bytes that cannot be decoded, instead of the whole file.
        delimiter: None for the kind's own, or the one under which the header has the columns.
    """

    kind: str
    encoding: str | None = None
    quoting: str = "csv"
    one_line_rows: bool = False
    undecodable_rows: bool = False
    delimiter: str | None = None


def format_of(
    path: Path, encoding: str | None = None, quoting: str = "csv", delimiter: str | None = None
) -> TableFormat:
    """The format that a file's suffix names; ConfigError if it names none, or no such one."""
    name = unpacked_name(path)
    kind = Path(name).suffix.lstrip(".").lower()
    if kind not in KINDS or (kind == "parquet" and name != path.name):
        known = ".csv, .tsv, .txt, .jsonl, .json (each also as .gz or .zip) or .parquet"
        what = f"a table is a {known} file, not '{path.suffix}'"
        fix = SAVE_AS_CSV if kind in ("xlsx", "xls", "ods", "numbers") else "convert or rename the file"
        raise ConfigError(what, where=str(path), fix=fix)
    given = {"encoding": encoding, "quoting": None if quoting == "csv" else quoting, "delimiter": delimiter}
    for key, value in given.items():
        if kind == "parquet" and value is not None:
            what = f"{path} is a parquet file: it has no {key}"
            raise ConfigError(what, where=f"corpus.{key}={value}", fix=f"leave corpus.{key} out")
    check_encoding(encoding or "utf-8")
    delimiter = {"tab": "\t", "\\t": "\t"}.get(delimiter or "", delimiter)
    if delimiter is not None and (len(delimiter) != 1 or delimiter in '"\r\n'):
        fix = "corpus.delimiter=';', or tab, or another character"
        raise ConfigError(f"'{delimiter}' is no delimiter", where="corpus.delimiter", fix=fix)
    return TableFormat("jsonl" if kind == "json" else kind, encoding, quoting, delimiter=delimiter)


def stream_rows(
    path: Path, columns: Sequence[str], format: TableFormat, counts: RowCounts, *,
    kept: Sequence[str] = (), watch_ids: bool = False,
) -> Iterator[Row]:  # fmt: skip
    """Every row of a file in its order, good or bad, read as it is asked for.

    Args:
        path: of which no more is held than a block, or a long record to find the end of a quote.
        columns: the columns wanted; a row's values come in their order.
        counts: counts each row before it is given out.
        kept: further columns, whose values follow; they may hold anything, and no row is rejected for them.
        watch_ids: note duplicates in a column named ``id``; holds every id.

    Raises:
        DataError: if the file is missing, empty, not decodable or lacks its header.
        ConfigError: if a column is not in the header, or stands there twice. A jsonl file has no
            header: it is refused at its end if no row has the column.
    """
    ids: set[str] = set()
    if format.kind == "parquet":
        rows = _parquet_rows(path, [*columns, *kept], counts, watch_ids)
    elif format.kind == "jsonl":
        rows = _json_rows(path, columns, kept, format, counts)
    else:
        rows = _delimited_rows(path, [*columns, *kept], format, counts)
    for line, values, problem, row_id in rows:
        counts.read += 1
        if watch_ids and row_id is not None:
            if str(row_id) in ids:
                counts.note("duplicate ids")
            ids.add(str(row_id))
        yield counts.row(line, values, problem or unusable(values[: len(columns)]))


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


def _json_rows(
    path: Path, columns: Sequence[str], kept: Sequence[str], format: TableFormat, counts: RowCounts
) -> _Found:
    columns, wanted = list(map(name_of, columns)), list(map(name_of, (*columns, *kept)))
    lacking, names = set(wanted), set[str]()  # in every row yet, and of the rows that lack one
    for number, row, problem in json_rows(_lines(path, format), path):
        counts.lines += 1
        if not all(name in row for name in wanted):
            row = {name_of(name): value for name, value in row.items()} | row
            names.update(row if len(names) < NAMED_REASONS else ())
        lacking -= row.keys()
        missing = [f"no '{name}'" for name in columns if name not in row]
        if problem or missing:
            yield number, [], problem or missing[0], None
            continue
        for name in wanted[len(columns) :]:
            if name not in row:
                counts.note(f"without '{name}'")
        yield number, [row.get(name) for name in wanted], "", row.get("id")
    for name in filter(lacking.__contains__, wanted) if names else ():
        if name in columns or counts.read <= NAMED_REASONS:  # of a longer file much was predicted
            _position(path, sorted(names), name)  # refuses it


def _delimited_rows(path: Path, columns: Sequence[str], format: TableFormat, counts: RowCounts) -> _Found:
    lines, skipped, delimiter = _delimiter_of(_lines(path, format), columns, format)
    longest = 0 if format.one_line_rows else LONGEST_RECORD
    records = delimited_records(lines, delimiter, quotes=format.quoting == "csv", longest=longest)
    _, header, _, problem = next(records)
    if problem and not format.one_line_rows:
        raise DataError(f"the header cannot be read: {problem}", where=f"{path}:1", fix="corpus.quoting=none")
    positions = [_position(path, header, name) for name in columns]
    names = list(map(name_of, header))
    id_position = header.index("id") if "id" in header else None
    for number, fields, taken, problem in records:
        number += skipped
        counts.lines += taken
        if problem == DOUBTFUL:
            fix = "mend the quote; corpus.quoting=none if quotes mean nothing here"
            raise DataError(problem, where=f"{path}:{number}", fix=fix)
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


def _delimiter_of(
    lines: Iterator[str], columns: Sequence[str], format: TableFormat
) -> tuple[Iterator[str], int, str]:
    """The lines from the header on, how many stood before it, and what delimits them.

    What delimits is as Excel's line ``sep=;`` says, or as asked for, or the kind's own. If the header
    lacks a column that way and has all of them another way, it is that.
    """
    first, skipped, own = next(lines), 0, format.delimiter or DELIMITERS[format.kind]
    if (excel := re.fullmatch("sep=(.)\r?", first)) and (header := next(lines, None)) is not None:
        first, skipped, own = header, 1, excel[1]

    def has_all(delimiter: str) -> bool:
        _, names, _, _ = next(delimited_records(iter([first]), delimiter, quotes=format.quoting == "csv"))
        return {name_of(name) for name in columns} <= {name_of(name) for name in names}

    others = "" if format.delimiter else LIKELY_DELIMITERS
    return chain([first], lines), skipped, next(filter(has_all, (own, *others)), own)


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
    near = nearest(name, names)
    meant = f"did you mean '{near}'? " if near else ""
    is_delimited = unpacked_name(path).lower().endswith(tuple(DELIMITERS))
    header = ", or give the file a header line" if is_delimited else ""
    if len(names) == 1 and (inside := re.search(f"[{LIKELY_DELIMITERS}]", names[0])):
        header += f"; or corpus.delimiter='{inside[0]}'".replace("\t", "tab")
    fix = f"{meant}set corpus.text_column and corpus.label_column{header}"
    raise ConfigError(f"no column '{spelt_out(name)}'; the file has {shown}", where=where, fix=fix)
