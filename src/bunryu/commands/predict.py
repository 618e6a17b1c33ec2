"""``bunryu predict``: label and probabilities for every row of a file, or every line of standard input."""

from __future__ import annotations

import argparse
import sys
from collections import deque
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import replace
from io import TextIOWrapper
from itertools import chain, islice
from pathlib import Path
from typing import TYPE_CHECKING, NoReturn, TextIO, cast

import numpy as np
from tqdm import tqdm

from bunryu.commands.arguments import Parser, add_model_arguments
from bunryu.commands.table_options import TableOptions, add_reader_arguments, flags_named, table_options
from bunryu.data.decoding import decoded_lines
from bunryu.data.stdin import Source, line_windows
from bunryu.data.table import Row, RowCounts, place, stream_rows
from bunryu.encoding.encoder import Encoded, unknown_tokens_warning
from bunryu.errors import ConfigError, DataError
from bunryu.inference.opening import locate, open_predictor
from bunryu.inference.prediction_writer import FORMATS, PredictionWriter
from bunryu.system.files import replaced

if TYPE_CHECKING:
    from bunryu.inference.predictor import Predictor


WINDOW = 4096  # rows of a file held at once: more leave less padding, fewer need less memory


def main(arguments: Sequence[str]) -> int:
    """Run ``bunryu predict``; returns the exit code."""
    options = _parser().parse_args(arguments)
    opened = locate(options.run)
    pairs = opened.metadata.takes_pairs
    kind = _kind(options)
    with flags_named():
        if options.file is None:
            account, texts = RowCounts("standard input"), ["text", "pair"] if pairs else ["text"]
            windows = line_windows(
                cast(Source, sys.stdin.buffer), options.encoding or "utf-8", pairs, account
            )
        else:
            table = table_options(options.file, options, opened.run, pairs)
            account, texts = RowCounts(options.file.name), table.columns
            # A wrong column or encoding is known before torch is imported.
            found = _file_windows(options.file, table, options.keep, account)
            windows = _checked(found, options.file, table.format.encoding)
        predictor = open_predictor(options.run, options.checkpoint, options.runtime, options.device)
        predictor.check_parity()
        with _output(options.output) as file, _bar(options) as bar:
            writer = PredictionWriter(file, kind, predictor.labels, texts, options.keep)
            unknown = np.zeros(2, dtype=np.int64)
            for rows in windows:
                encoded = _encoded(predictor, rows, pairs)
                unknown += encoded.count_of(predictor.unknown_id)
                writer.write(rows, predictor.bounded_logits(encoded))
                bar.update(len(rows))
    return _report(account, options.strict, unknown_tokens_warning(unknown))


def _parser() -> argparse.ArgumentParser:
    parser = Parser("bunryu predict", description=__doc__.replace("``", ""))
    add_model_arguments(parser)
    kinds = "csv, tsv, txt, jsonl or parquet; left out: lines of standard input"
    parser.add_argument("file", type=Path, nargs="?", help=kinds)
    parser.add_argument("-o", "--output", type=Path, metavar="FILE", help="default: standard output")
    parser.add_argument("--format", choices=FORMATS, help="default: by the output's suffix, else tsv")
    parser.add_argument(
        "--keep", action="append", default=[], metavar="COLUMN", help="write it too; repeatable"
    )
    parser.add_argument("--strict", action="store_true", help="exit with 1 if a row was rejected")
    add_reader_arguments(parser)
    return parser


def _kind(options: argparse.Namespace) -> str:
    """The output's format; also refuses what could not be written in the end."""
    if options.file is None and options.keep:
        raise ConfigError("lines of standard input have no columns", where="--keep")
    output: Path | None = options.output
    if output is None:
        return str(options.format or "tsv")
    if not output.parent.is_dir():
        raise ConfigError("no such folder", where=str(output.parent), fix="make it, or another --output")
    kind = str(options.format or output.suffix.lstrip(".").lower())
    if kind not in FORMATS:
        what = f"predictions are written as {', '.join(FORMATS)}, not '{output.suffix}'"
        raise ConfigError(what, where=f"--output {output}", fix="another suffix, or --format")
    return kind


def _file_windows(
    file: Path, table: TableOptions, keep: Sequence[str], account: RowCounts
) -> Iterator[list[Row]]:
    form = replace(table.format, undecodable_rows=True)
    rows = stream_rows(file, [*table.columns, *keep], form, account)
    texts = len(table.columns)
    while window := list(islice(rows, WINDOW)):
        yield [_texts_only(row, texts, account) for row in window]


def _texts_only(row: Row, texts: int, account: RowCounts) -> Row:
    """The row, rejected if a text is not a string: jsonl and parquet hold other things too."""
    if row.values is None or all(isinstance(text, str) for text in row.values[:texts]):
        return row
    account.used -= 1
    account.reject(row.line, "text is not a string")
    return Row(row.line, None, "text is not a string")


def _checked(windows: Iterator[list[Row]], file: Path, encoding: str | None) -> Iterator[list[Row]]:
    """The same windows; a file of whose first window no row can be used is refused."""
    first = next(windows, [])
    if first and all(row.values is None for row in first):
        if file.suffix.lower() != ".parquet":
            deque(decoded_lines(file, encoding), maxlen=0)  # a wrong encoding has an error of its own
        raise DataError(
            f"none of the first {len(first)} rows can be used",
            where=place(str(file), first[0].line),
            fix=f"the first: {first[0].problem}",
        )
    return chain([first], windows)


def _encoded(predictor: Predictor, rows: Sequence[Row], pairs: bool) -> Encoded:
    usable = [row.values for row in rows if row.values is not None]
    return predictor.encode([v[0] for v in usable], [v[1] for v in usable] if pairs else None)


@contextmanager
def _output(path: Path | None) -> Iterator[TextIO]:
    """Standard output, or a file that takes its name when it is complete."""
    if path is None:
        if isinstance(sys.stdout, TextIOWrapper):  # in a notebook it is something else
            sys.stdout.reconfigure(encoding="utf-8", newline="")
        yield sys.stdout
        return
    with replaced(path) as file:
        yield file


def _bar(options: argparse.Namespace) -> tqdm[NoReturn]:
    """A progress bar, where it disturbs nothing."""
    shown = sys.stderr.isatty() and options.file is not None and (options.output or not sys.stdout.isatty())
    total = _lines(options.file) if shown else None
    return tqdm(total=total, desc="predicting", unit=" rows", disable=not shown)


def _lines(file: Path) -> int | None:
    """How many lines a file has, about as many as rows; None for parquet."""
    if file.suffix.lower() == ".parquet":
        return None
    with open(file, "rb") as opened:
        return sum(block.count(b"\n") for block in iter(lambda: opened.read(1 << 20), b""))


def _report(account: RowCounts, strict: bool, warnings: Sequence[str]) -> int:
    """Print how many rows were predicted and which were rejected; returns the exit code."""
    rejected = account.read - account.used
    print(f"{account.used} of {account.read} rows predicted", file=sys.stderr)
    for line in account.rejected_rows:
        print(f"  rejected {line}", file=sys.stderr)
    if rejected > len(account.rejected_rows):
        print(f"  and {rejected - len(account.rejected_rows)} more", file=sys.stderr)
    for warning in warnings:
        print(f"  warning: {warning}", file=sys.stderr)
    return 1 if rejected and strict else 0
