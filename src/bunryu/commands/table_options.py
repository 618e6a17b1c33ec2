"""How files given after training are read: as the flags say, else as the run read its own corpus."""

from __future__ import annotations

import argparse
import re
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, replace
from pathlib import Path

from bunryu.data.table import TableFormat, format_of
from bunryu.errors import BunryuError, ConfigError
from bunryu.runs.run import Run

NSMC_COLUMNS = ("document", "label")


READER_KEY = re.compile(r"corpus\.(text_column|label_column|pair_column|encoding|quoting|delimiter)(=?)")


@dataclass(frozen=True)
class TableOptions:
    """Columns and format of a file."""

    text_column: str
    label_column: str  # where labels are wanted
    pair_column: str | None  # second texts, for a model that takes pairs
    format: TableFormat

    @property
    def columns(self) -> list[str]:
        """The columns of texts."""
        return [self.text_column] if self.pair_column is None else [self.text_column, self.pair_column]


def add_reader_arguments(parser: argparse.ArgumentParser) -> argparse._ArgumentGroup:
    """The reader options of ``corpus=table``, as flags; returns their group."""
    group = parser.add_argument_group("how the file is read (default: as the run's own corpus)")
    group.add_argument("--text-column", metavar="NAME", help="the documents")
    group.add_argument("--pair-column", metavar="NAME", help="second texts, for a model of pairs")
    group.add_argument("--encoding", metavar="NAME", help="of what is not UTF-8, such as cp949")
    group.add_argument("--delimiter", metavar="CHARACTER", help="of a csv or tsv file, or tab")
    group.add_argument("--quoting", choices=("csv", "none"), help='none: " is an ordinary character')
    return group


def table_options(
    file: Path, options: argparse.Namespace, run: Run | None, takes_pairs: bool
) -> TableOptions:
    """How to read a file: as the flags say, and the run's corpus where they say nothing."""
    if not file.is_file():
        raise ConfigError("no such file", where=str(file), fix="give the path of a file")
    corpus = run.config["corpus"] if run is not None else {"text_column": "text", "label_column": "label"}
    like_nsmc = "text_column" not in corpus
    texts, labels = NSMC_COLUMNS if like_nsmc else (corpus["text_column"], corpus["label_column"])
    pair_column = options.pair_column or (corpus.get("pair_column") if takes_pairs else None)
    if (pair_column is not None) != takes_pairs:
        what = f"the model takes {'pairs of' if takes_pairs else 'single'} texts"
        fix = "--pair-column NAME" if takes_pairs else "leave --pair-column out"
        raise ConfigError(what, where="--pair-column", fix=fix)
    written = {} if file.suffix.lower() == ".parquet" else corpus  # parquet has no encoding or quoting
    encoding, quoting, delimiter = (
        getattr(options, name) or written.get(name) for name in ("encoding", "quoting", "delimiter")
    )
    found = format_of(file, encoding, quoting or "csv", delimiter)
    if like_nsmc and found.kind in ("txt", "tsv") and options.quoting is None:
        found = replace(found, one_line_rows=True)  # as NSMC's own files are read
    labels = getattr(options, "label_column", None) or labels
    return TableOptions(options.text_column or texts, labels, pair_column, found)


@contextmanager
def flags_named(columns: str = "corpus.text_column and corpus.label_column") -> Iterator[None]:
    """Let errors inside name the flag of an option instead of its config key, and these for columns."""

    def flag(found: re.Match[str]) -> str:
        return f"--{found[1].replace('_', '-')}{' ' * bool(found[2])}"

    try:
        yield
    except BunryuError as error:
        error.fix = error.fix.replace("corpus.text_column and corpus.label_column", columns)
        error.where, error.fix = (READER_KEY.sub(flag, text) for text in (error.where, error.fix))
        raise
