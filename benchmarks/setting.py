"""What the benchmarks share: their arguments, their reviews, their tables."""

from __future__ import annotations

import argparse
import itertools
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from bunryu.data import corpora
from bunryu.data.examples import Example, read_examples
from bunryu.data.table import TableFormat

CHECKOUT = Path(__file__).resolve().parents[1]
SHARED = CHECKOUT.parent / "shared"
HEADER = "id\tdocument\tlabel"


def arguments(what: str) -> argparse.ArgumentParser:
    """A parser with the options that every benchmark takes."""
    parser = argparse.ArgumentParser(description=what.strip().splitlines()[0])
    parser.add_argument("--corpus-root", type=Path, help="the folder that holds nsmc/ratings_train.txt")
    parser.add_argument("--quick", action="store_true", help="a few rows and rounds, to see that it runs")
    return parser


@dataclass(frozen=True)
class Reviews:
    """A folder with ``ratings_train.txt`` and ``ratings_test.txt`` in NSMC's format."""

    name: str
    folder: Path

    def file(self, split: str) -> Path:
        """The file of ``train`` or ``test``."""
        return self.folder / f"ratings_{split}.txt"

    def examples(self, split: str) -> list[Example]:
        """All rows of a split, as bunryu reads them."""
        format = TableFormat("tsv", one_line_rows=True)
        return read_examples(self.file(split), ["document", "label"], format, ("0", "1")).examples

    def copy(self, folder: Path, split: str, start: int, rows: int) -> Reviews:
        """Rows ``start`` to ``start + rows`` of a split in another folder; past the end they repeat."""
        lines = self.file(split).read_text("utf-8").rstrip("\n").split("\n")[1:]
        chosen = itertools.islice(itertools.cycle(lines), start, start + rows)
        folder.mkdir(parents=True, exist_ok=True)
        copied = Reviews(self.name, folder)
        copied.file(split).write_text("\n".join([HEADER, *chosen]) + "\n", "utf-8")
        return copied


def sample() -> Reviews:
    """The made-up reviews that come with bunryu."""
    return Reviews("sample", Path(corpora.__file__).parent / "sample")


def reviews(root: Path | None) -> Reviews:
    """NSMC under the root given, beside the checkout or in Korpora's folder; else the sample, said so."""
    roots = [root] if root is not None else [SHARED / "corpora", Path("~/Korpora").expanduser()]
    for candidate in roots:
        found = Reviews("NSMC", candidate / "nsmc")
        if found.file("train").is_file() and found.file("test").is_file():
            return found
    print(
        f"No NSMC in {' or '.join(map(str, roots))}: these figures are of the sample (repeated for speed).\n"
    )
    return sample()


def print_table(header: Sequence[str], rows: Sequence[Sequence[object]]) -> None:
    """Print a Markdown table, padded so that it reads well on a terminal too."""
    cells = [[str(cell) for cell in row] for row in (header, *rows)]
    widths = [max(map(len, column)) for column in zip(*cells, strict=True)]
    cells.insert(1, ["-" * width for width in widths])
    for row in cells:
        print("| " + " | ".join(cell.ljust(width) for cell, width in zip(row, widths, strict=True)) + " |")
    print(flush=True)
