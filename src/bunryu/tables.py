"""Reading tsv, csv and jsonl files row by row, with an account of every row and its line."""

from __future__ import annotations

import codecs
import csv
import difflib
import json
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from bunryu.errors import ConfigError, DataError

DELIMITERS = {"tsv": "\t", "txt": "\t", "csv": ","}
LONGEST_RECORD = 200  # lines one quoted record may span before its quote counts as stray
NAMED_ROWS = 20  # rejected rows named one by one; the rest is only counted

_BOMS = (
    (codecs.BOM_UTF8, "utf-8-sig"),
    (codecs.BOM_UTF16_LE, "utf-16"),
    (codecs.BOM_UTF16_BE, "utf-16"),
)


@dataclass
class Account:
    """What became of the rows of one file: ``read`` equals ``used`` plus all of ``rejected``."""

    file: str
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
    return TableFormat(kind, encoding, quoting)


def read_rows(
    path: Path, columns: Sequence[str], form: TableFormat
) -> tuple[list[tuple[int, list[Any]]], Account]:
    """Read the named columns of a file.

    Returns:
        ``(line number, values in the order of columns)`` of each well-formed row, and the account so
        far: its ``used`` counts these rows.

    Raises:
        DataError: if the file is missing, empty, not decodable or lacks its header.
        ConfigError: if a column is not in the header.
    """
    csv.field_size_limit(2**31 - 1)  # a document may be longer than csv's 131,072 characters
    lines = _split_lines(_decode(path, form.encoding))
    account = Account(path.name)
    if not lines:
        raise DataError("the file is empty", where=str(path))
    if form.kind == "jsonl":
        rows = list(_json_rows(path, lines, columns, account))
    else:
        rows = list(_delimited_rows(path, lines, columns, form, account))
    account.used = len(rows)
    return rows, account


def _decode(path: Path, encoding: str | None) -> str:
    try:
        raw = path.read_bytes()
    except OSError as error:
        raise DataError(f"cannot read the file: {error.strerror}", where=str(path)) from None
    if encoding is None:
        encoding = next((name for mark, name in _BOMS if raw.startswith(mark)), "utf-8")
    try:
        return raw.decode(encoding)
    except LookupError:
        raise ConfigError(f"unknown encoding '{encoding}'", where="corpus.encoding") from None
    except UnicodeDecodeError as error:
        line = raw.count(b"\n", 0, error.start) + 1
        guess = "cp949" if _decodes(raw, "cp949") else "utf-16" if b"\0" in raw[:200] else "<its encoding>"
        raise DataError(
            f"the file is not {encoding}: byte {raw[error.start]:#04x} cannot be read",
            where=f"{path}:{line}",
            fix=f"corpus.encoding={guess}, or convert the file to UTF-8",
        ) from None


def _decodes(raw: bytes, encoding: str) -> bool:
    try:
        raw.decode(encoding)
    except UnicodeDecodeError:
        return False
    return True


def _split_lines(text: str) -> list[str]:
    # Not splitlines(): it also splits at U+0085, U+2028 and others that stand inside real reviews.
    lines = [line.removesuffix("\r") for line in text.split("\n")]
    return lines[:-1] if lines[-1] == "" else lines


def _json_rows(
    path: Path, lines: list[str], columns: Sequence[str], account: Account
) -> Iterator[tuple[int, list[Any]]]:
    seen: set[str] = set()
    for number, line in enumerate(lines, 1):
        account.read += 1
        try:
            row = json.loads(line) if line.strip() else None
        except (json.JSONDecodeError, RecursionError):
            account.reject(number, "not JSON")
            continue
        if row is None:
            account.reject(number, "blank line")
        elif not isinstance(row, dict):
            account.reject(number, "not a JSON object")
        elif missing := [name for name in columns if name not in row]:
            seen.update(row)
            account.reject(number, f"no '{missing[0]}'")
        else:
            yield number, [row[name] for name in columns]
    for name in columns:
        if account.rejected.get(f"no '{name}'") == account.read:
            raise _no_column(path, name, sorted(seen))


def _delimited_rows(
    path: Path, lines: list[str], columns: Sequence[str], form: TableFormat, account: Account
) -> Iterator[tuple[int, list[str]]]:
    delimiter = DELIMITERS[form.kind]
    records = _records(lines, delimiter, form, account)
    _, header, _ = next(records)
    positions = [_position(path, header, name) for name in columns]
    for number, fields, problem in records:
        account.read += 1
        if problem:
            account.reject(number, problem)
        elif fields == [""]:
            account.reject(number, "blank line")
        elif len(fields) != len(header):
            account.reject(number, f"{len(fields)} fields instead of {len(header)}")
        elif any("\0" in field for field in fields):
            account.reject(number, "NUL character")
        else:
            yield number, [fields[position] for position in positions]


def _records(
    lines: list[str], delimiter: str, form: TableFormat, account: Account
) -> Iterator[tuple[int, list[str], str]]:
    """``(line, fields, problem)`` of each record; a quote that never closes costs one row, not the rest."""
    index = 0
    while index < len(lines):
        line, number = lines[index], index + 1
        if form.quoting == "none" or '"' not in line:
            yield number, line.split(delimiter), ""
            index += 1
            continue
        fields, used = _quoted(lines, index, delimiter, 1 if form.one_line_rows else LONGEST_RECORD)
        if used:
            if used > 1:
                account.note("rows that span lines")
            yield number, fields, ""
            index += used
        elif form.one_line_rows:
            account.note("stray quotes taken as text")
            yield number, line.split(delimiter), ""
            index += 1
        else:
            yield number, [], "stray quote"
            index += 1


def _quoted(lines: list[str], start: int, delimiter: str, longest: int) -> tuple[list[str], int]:
    """Fields of the csv record that starts here and the lines it takes; 0 lines if it is none."""
    for used in range(1, longest + 1):
        if start + used > len(lines):
            break
        if used > 1 and '"' not in lines[start + used - 1]:
            continue  # the quote cannot close on this line
        text = [f"{line}\n" for line in lines[start : start + used - 1]] + [lines[start + used - 1]]
        reader = csv.reader(text, delimiter=delimiter, strict=True)
        try:
            fields = next(reader)
        except csv.Error as error:
            if "unexpected end" in str(error):
                continue
            return [], 0
        return fields, used
    return [], 0


def _position(path: Path, header: list[str], name: str) -> int:
    if name not in header:
        raise _no_column(path, name, header)
    return header.index(name)


def _no_column(path: Path, name: str, header: list[str]) -> ConfigError:
    near = difflib.get_close_matches(name, header, 1)
    shown = ", ".join(f"'{column[:40]}'" for column in header[:20])
    return ConfigError(
        f"no column '{name}' in the header; it has {shown}",
        where=f"{path}:1",
        fix=f"corpus.text_column / corpus.label_column={near[0] if near else '<column>'}, "
        "or give the file a header line",
    )
