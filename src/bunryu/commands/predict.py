"""``bunryu predict``: label and probabilities for every row of a file, or every line of standard input."""

from __future__ import annotations

import argparse
import hashlib
import sys
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import replace
from importlib.metadata import version
from io import TextIOWrapper
from itertools import chain, islice
from pathlib import Path
from time import monotonic
from typing import TYPE_CHECKING, NoReturn, TextIO, cast

import numpy as np
import numpy.typing as npt
from tqdm import tqdm

from bunryu.commands.arguments import Parser, add_model_arguments
from bunryu.commands.table_options import TableOptions, add_reader_arguments, flags_named, table_options
from bunryu.data.decoding import refuse_undecodable
from bunryu.data.rows import Row, RowCounts, place
from bunryu.data.stdin import Source, line_windows
from bunryu.data.table import stream_rows
from bunryu.errors import BunryuError, ConfigError, DataError
from bunryu.inference.opening import OpenedModel, find_checkpoint, locate, open_predictor
from bunryu.inference.prediction_writer import FORMATS, PredictionWriter, is_predictions
from bunryu.inference.unfinished import Unfinished
from bunryu.system.files import sha256
from bunryu.system.signals import stop_on_signals

if TYPE_CHECKING:
    from bunryu.encoding.encoder import Encoded
    from bunryu.inference.predictor import Predictor


WINDOW = 4096  # rows of a file held at once: more leave less padding, fewer need less memory
SECONDS_BETWEEN_SAVES = 60  # which a killed process loses at most; as often a log is told of progress


def main(arguments: Sequence[str]) -> int:
    options = _parser().parse_args(arguments)
    opened = locate(options.run)
    pairs = opened.metadata.takes_pairs
    kind = _kind(options)
    output = None if options.output is None else Unfinished(options.output, options.resume)
    with flags_named("--text-column or --keep"), stop_on_signals():
        if options.file is None:
            account, texts = RowCounts("standard input"), ["text", "pair"] if pairs else ["text"]
            stdin, encoding = cast(Source, sys.stdin.buffer), options.encoding or "utf-8"
            windows = line_windows(stdin, encoding, pairs, account)
        else:
            table = table_options(options.file, options, opened.run, pairs)
            account, texts = RowCounts(options.file.name), table.columns
            options.keep = [name for name in dict.fromkeys(options.keep) if name not in texts]
            # A wrong column or encoding is known before torch is imported.
            if table.format.kind != "parquet":
                refuse_undecodable(options.file, table.format.encoding)
            windows = _checked(_file_windows(options.file, table, options.keep, account), options.file)
        from bunryu.encoding.encoder import unknown_tokens_warning

        predictor = open_predictor(options.run, options.checkpoint, options.runtime, options.device)
        predictor.check_parity()
        with _opened(output, options, opened, predictor) as file, _bar(options) as bar:
            writer = PredictionWriter(
                file, kind, predictor.labels, texts, options.keep,
                header=not (output and output.rows), spreadsheet_safe=options.spreadsheet_safe,
            )  # fmt: skip
            unknown = _predict(predictor, windows, pairs, writer, output, bar)
    return _report(account, options, unknown_tokens_warning(unknown))


def _parser() -> argparse.ArgumentParser:
    parser = Parser("bunryu predict", description=__doc__.replace("``", ""))
    add_model_arguments(parser)
    kinds = "csv, tsv, txt, jsonl or parquet; left out: lines of standard input"
    parser.add_argument("file", type=Path, nargs="?", help=kinds)
    parser.add_argument("-o", "--output", type=Path, metavar="FILE", help="default: standard output")
    parser.add_argument("--format", choices=FORMATS, help="default: by the output's suffix, else tsv")
    keep = "write it too; repeatable"
    parser.add_argument("--keep", action="append", default=[], metavar="COLUMN", help=keep)
    resume = "go on with what an interrupted call has left beside --output"
    parser.add_argument("--resume", action="store_true", help=resume)
    safe = "an apostrophe before cells that a spreadsheet would take for formulas"
    parser.add_argument("--spreadsheet-safe", action="store_true", help=safe)
    parser.add_argument("--strict", action="store_true", help="exit with 1 if a row was rejected")
    add_reader_arguments(parser)
    return parser


def _kind(options: argparse.Namespace) -> str:
    """The output's format; also refuses what could not be written in the end."""
    if options.file is None and options.keep:
        raise ConfigError("lines of standard input have no columns", where="--keep")
    if options.resume and None in (options.file, options.output):
        raise ConfigError("only a file's rows in an output can be gone on with", where="--resume", fix="-o")
    output: Path | None = options.output
    kind = str(options.format or (output.suffix.lstrip(".").lower() if output else "tsv"))
    if kind not in FORMATS:
        what = f"predictions are written as {', '.join(FORMATS)}, not '{kind}'"
        raise ConfigError(what, where=f"--output {output}", fix="another suffix, or --format")
    if kind == "jsonl" and options.spreadsheet_safe:
        raise ConfigError("spreadsheets do not open jsonl", where="--spreadsheet-safe", fix="leave it out")
    if output is not None:
        _check_output(output, options.file)
        options.output = output.resolve()  # a link stays one
    return kind


def _check_output(output: Path, file: Path | None) -> None:
    """Refuse to write over anything but predictions of earlier."""
    if not output.parent.is_dir():
        raise ConfigError("no such folder", where=str(output.parent), fix="make it, or another --output")
    if not output.exists():
        return
    is_input = file is not None and file.exists() and output.samefile(file)
    if is_input or not output.is_file() or not is_predictions(output):
        what = "the output is the input" if is_input else "there is something else than predictions"
        raise ConfigError(what, where=f"--output {output}", fix="another --output")


def _request(options: argparse.Namespace, opened: OpenedModel, predictor: Predictor) -> dict[str, str]:
    """Everything on which the bytes of an output depend, by name."""
    import torch

    folder = opened.onnx if options.runtime == "onnx" else opened.model
    files = sorted(path for path in folder.iterdir() if path.is_file())
    files += filter(None, [find_checkpoint(opened, options.checkpoint)])
    facts = {
        **vars(options),
        "file": options.file and sha256(options.file)[:12],
        "run": hashlib.sha256("".join(map(sha256, files)).encode()).hexdigest()[:12],
        "device": predictor.device,
        "OMP_NUM_THREADS": torch.get_num_threads(),
        "versions": f"bunryu {version('bunryu')}, torch {torch.__version__}, {WINDOW} rows at once",
    }
    return {name: str(value) for name, value in facts.items() if name not in ("output", "resume", "strict")}


def _file_windows(
    file: Path, table: TableOptions, keep: Sequence[str], account: RowCounts
) -> Iterator[list[Row]]:
    form = replace(table.format, undecodable_rows=True)
    rows = stream_rows(file, table.columns, form, account, kept=keep)
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


def _checked(windows: Iterator[list[Row]], file: Path) -> Iterator[list[Row]]:
    """The same windows; a file of whose first window no row can be used is refused."""
    first = next(windows, [])
    if first and all(row.values is None for row in first):
        what, where = f"none of the first {len(first)} rows can be used", place(str(file), first[0].line)
        raise DataError(what, where=where, fix=f"the first: {first[0].problem}")
    return chain([first], windows)


def _encoded(predictor: Predictor, rows: Sequence[Row], pairs: bool) -> Encoded:
    usable = [row.values for row in rows if row.values is not None]
    return predictor.encode([v[0] for v in usable], [v[1] for v in usable] if pairs else None)


def _predict(
    predictor: Predictor, windows: Iterator[list[Row]], pairs: bool, writer: PredictionWriter,
    output: Unfinished | None, bar: tqdm[NoReturn],
) -> npt.NDArray[np.int64]:  # fmt: skip
    """Write every window's rows, but for those an earlier call has written; how many tokens are unknown."""
    seen, before, begun = 0, output.rows if output else 0, monotonic()
    unknown = np.zeros(2, dtype=np.int64)
    saved = begun
    for rows in windows:
        seen += len(rows)
        bar.update(len(rows))
        if seen <= before:
            continue
        encoded = _encoded(predictor, rows, pairs)
        unknown += encoded.count_of(predictor.unknown_id)
        writer.write(rows, predictor.bounded_logits(encoded))
        if output:
            output.reached(seen)
        if (now := monotonic()) - saved >= SECONDS_BETWEEN_SAVES:
            saved = now
            if output:
                output.save()
            if not sys.stderr.isatty():
                rate = (seen - before) / (now - begun)
                print(f"{seen:,} rows, {rate:,.0f} rows/s", file=sys.stderr, flush=True)
    return unknown


@contextmanager
def _opened(
    output: Unfinished | None, options: argparse.Namespace, opened: OpenedModel, predictor: Predictor
) -> Iterator[TextIO]:
    """Standard output, or the output's file; when that stays unfinished, where it is is said."""
    if output is None:
        if isinstance(sys.stdout, TextIOWrapper):  # in a notebook it is something else
            sys.stdout.reconfigure(encoding="utf-8", errors="replace", newline="")
        yield sys.stdout
        return
    try:
        with output.opened(_request(options, opened, predictor)) as file:
            yield file
    except BaseException as error:
        if output.rows and not isinstance(error, BunryuError):
            next_step = "; the same command with --resume goes on" if options.file else ""
            print(f"{output.rows:,} rows are in {output.partial}{next_step}", file=sys.stderr)
        raise


def _bar(options: argparse.Namespace) -> tqdm[NoReturn]:
    """A progress bar, where it disturbs nothing."""
    shown = sys.stderr.isatty() and options.file is not None and (options.output or not sys.stdout.isatty())
    total = _lines(options.file) if shown else None
    return tqdm(total=total, desc="predicting", unit=" rows", disable=not shown)


def _lines(file: Path) -> int | None:
    """How many lines a file has, about as many as rows; None for what is packed."""
    if file.suffix.lower() in (".parquet", ".gz", ".zip"):
        return None
    with open(file, "rb") as opened:
        return sum(block.count(b"\n") for block in iter(lambda: opened.read(1 << 20), b""))


def _report(account: RowCounts, options: argparse.Namespace, warnings: Sequence[str]) -> int:
    """Print how many rows were predicted and which were rejected; returns the exit code."""
    rejected = account.read - account.used
    print(f"{account.used} of {account.read} rows predicted", file=sys.stderr)
    for line in account.rejected_rows:
        print(f"  rejected {line}", file=sys.stderr)
    if rejected > len(account.rejected_rows):
        print(f"  and {rejected - len(account.rejected_rows)} more", file=sys.stderr)
    for name in options.keep:
        if missing := account.notes.get(f"without '{name}'"):
            print(f"  {missing} without '{name}'", file=sys.stderr)
    for warning in warnings:
        print(f"  warning: {warning}", file=sys.stderr)
    return 1 if rejected and options.strict else 0
