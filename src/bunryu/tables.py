"""Reading tsv, csv and jsonl files row by row, with an account of every row and its line."""

from __future__ import annotations

import csv
import difflib
import json
import re
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from bunryu.decoding import check_encoding, decode
from bunryu.errors import ConfigError, DataError

DELIMITERS = {"tsv": "\t", "txt": "\t", "csv": ","}
LONGEST_RECORD = 1000  # lines one quoted record may span before its quote counts as stray
NAMED_ROWS = 20  # rejected rows named one by one; the rest is only counted
SPANNING = "rows that span lines"  # the note that may also mean: a file written without quoting

_UNUSABLE = re.compile("[\0\ud800-\udfff]")


@dataclass
class Account:
    """What became of the rows of one file: ``read`` equals ``used`` plus all of ``rejected``.

    ``lines`` counts the file's lines after its header: more lines than rows read are lines inside quotes.
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
        self.rejected[reason] = self.rejected.get(reason, 0) + 1
        if len(self.rejected_rows) < NAMED_ROWS:
            self.rejected_rows.append(f"{self.file}:{line}: {reason}")

    def note(self, what: str) -> None:
        """Count something worth knowing about a row that is used all the same."""
        self.notes[what] = self.notes.get(what, 0) + 1


@dataclass(frozen=True)
class TableFormat:
    """How a file is written.

    Args:
        kind: tsv, txt (tab-separated), csv or jsonl.
        encoding: None for UTF-8, or UTF-16 where a byte-order mark says so.
        quoting: ``csv`` for fields quoted with ``"``, ``none`` to take every character as it stands.
        one_line_rows: no quoted field spans lines; a quote that does not close is text.
    """

    kind: str
    encoding: str | None = None
    quoting: str = "csv"
    one_line_rows: bool = False


def format_of(path: Path, encoding: str | None = None, quoting: str = "csv") -> TableFormat:
    """The format a file's suffix names.

    Raises:
        ConfigError: for any other suffix.
    """
    kind = path.suffix.lstrip(".").lower()
    if kind not in (*DELIMITERS, "jsonl"):
        raise ConfigError(
            f"a table ends in .csv, .tsv, .txt or .jsonl, not '{path.suffix}'",
            where=str(path),
            fix="convert or rename the file",
        )
    check_encoding(encoding or "utf-8")
    return TableFormat(kind, encoding, quoting)


def read_rows(
    path: Path, columns: Sequence[str], form: TableFormat
) -> tuple[list[tuple[int, list[Any]]], Account]:
    """Read the named columns of a file.

    Returns:
        ``(line number, values in the order of columns)`` of each well-formed row, and the account so
        far: its ``used`` counts these rows. A column named ``id`` is watched for duplicates.

    Raises:
        DataError: if the file is missing, empty, not decodable or lacks its header.
        ConfigError: if a column is not in the header, or stands there twice.
    """
    csv.field_size_limit(2**31 - 1)  # a document may be longer than csv's 131,072 characters
    lines = decode(path, form.encoding).split("\n")
    # Not splitlines(): it also splits at U+0085, U+2028 and others that stand inside real reviews.
    if lines[-1] == "":
        lines.pop()
    if not lines:
        raise DataError("the file is empty", where=str(path))
    account = Account(path.name)
    if form.kind == "jsonl":
        found = _json_rows(path, lines, columns, account)
    else:
        found = _delimited_rows(path, lines, columns, form, account)
    rows: list[tuple[int, list[Any]]] = []
    for number, values in found:
        if problem := _unusable(values):
            account.reject(number, problem)
        else:
            rows.append((number, values))
    account.used = len(rows)
    return rows, account


def _unusable(values: Sequence[Any]) -> str:
    """Why no tokenizer could take a value; empty if one can take them all."""
    for value in values:
        if isinstance(value, str) and (found := _UNUSABLE.search(value)):
            return "NUL character" if found[0] == "\0" else "half a surrogate pair"
    return ""


def _json_rows(
    path: Path, lines: list[str], columns: Sequence[str], account: Account
) -> Iterator[tuple[int, list[Any]]]:
    account.lines = len(lines)
    names: set[str] = set()
    ids: set[str] = set()
    for number, line in enumerate(lines, 1):
        account.read += 1
        try:
            row = json.loads(line) if line.strip() else None
        except (ValueError, RecursionError):  # also a number of more digits than Python converts
            account.reject(number, "not JSON")
            continue
        if not line.strip():
            account.reject(number, "blank line")
        elif not isinstance(row, dict):
            account.reject(number, "not a JSON object")
        elif missing := [name for name in columns if name not in row]:
            names.update(row)
            account.reject(number, f"no '{missing[0]}'")
        else:
            _note_duplicate(row.get("id"), ids, account)
            yield number, [row[name] for name in columns]
    for name in columns:
        if account.rejected.get(f"no '{name}'", 0) == sum(account.rejected.values()) == account.read:
            raise _no_column(path, name, sorted(names))


def _delimited_rows(
    path: Path, lines: list[str], columns: Sequence[str], form: TableFormat, account: Account
) -> Iterator[tuple[int, list[str]]]:
    records = _records(lines, form, account)
    _, header, taken, problem = next(records)
    if problem:
        raise DataError(f"the header cannot be read: {problem}", where=f"{path}:1", fix="corpus.quoting=none")
    positions = [_position(path, header, name) for name in columns]
    id_position = header.index("id") if "id" in header else None
    ids: set[str] = set()
    account.lines = len(lines) - taken
    for number, fields, taken, problem in records:
        account.read += 1
        if problem:
            account.reject(number, problem)
        elif fields == [""]:
            account.reject(number, "blank line")
        elif len(fields) != len(header):
            span = f" in {taken} lines" if taken > 1 else ""
            account.reject(number, f"{len(fields)} fields instead of {len(header)}{span}")
        else:
            if taken > 1:
                account.note(SPANNING)
            if id_position is not None:
                _note_duplicate(fields[id_position], ids, account)
            yield number, [fields[position] for position in positions]


def _note_duplicate(row_id: object, ids: set[str], account: Account) -> None:
    if row_id is None:
        return
    if str(row_id) in ids:
        account.note("duplicate ids")
    ids.add(str(row_id))


def _records(
    lines: list[str], form: TableFormat, account: Account
) -> Iterator[tuple[int, list[str], int, str]]:
    """``(line, fields, lines taken, problem)`` of each record; an open quote costs one line, not the rest."""
    delimiter = DELIMITERS[form.kind]
    longest = 1 if form.one_line_rows else LONGEST_RECORD
    index = 0
    while index < len(lines):
        plain = lines[index].removesuffix("\r")
        fields, taken, problem = plain.split(delimiter), 1, ""
        if form.quoting == "csv" and '"' in plain:
            quoted, span = _quoted(lines[index : index + longest], delimiter)
            if span:
                fields, taken = quoted, span
            elif form.one_line_rows:
                account.note("stray quotes taken as text")
            else:
                problem = "stray quote"
        yield index + 1, fields, taken, problem
        index += taken


def _quoted(lines: list[str], delimiter: str) -> tuple[list[str], int]:
    """Fields of the csv record that starts the lines, and how many it takes; 0 if there is none."""
    reader = csv.reader((f"{line}\n" for line in lines), delimiter=delimiter, strict=True)
    try:
        return next(reader), reader.line_num
    except csv.Error:
        return [], 0


def _position(path: Path, header: list[str], name: str) -> int:
    if name not in header:
        raise _no_column(path, name, header)
    if header.count(name) > 1:
        raise ConfigError(
            f"two columns are named '{name}'", where=f"{path}:1", fix="rename one in the file's header"
        )
    return header.index(name)


def _no_column(path: Path, name: str, names: list[str]) -> ConfigError:
    near = difflib.get_close_matches(name, names, 1)
    shown = ", ".join(f"'{column[:40]}'" for column in names[:20])
    meant = f"did you mean '{near[0]}'? " if near else ""
    return ConfigError(
        f"no column '{name}'; the file has {shown}",
        where=f"{path}:1",
        fix=f"{meant}set corpus.text_column and corpus.label_column, or give the file a header line",
    )
