"""Parquet files, a batch of rows at a time."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import TYPE_CHECKING, Any

from bunryu.errors import DataError

if TYPE_CHECKING:
    import pyarrow
    from pyarrow.parquet import ParquetFile

BATCH = 1000  # rows turned into Python values at once
READ_AHEAD = 1 << 18  # bytes of a column read at once; pyarrow's own choice is a whole row group


def column_names(path: Path) -> list[str]:
    """The names of a file's columns; DataError if it cannot be read or is no parquet file."""
    with _opened(path) as file:
        return list(file.schema_arrow.names)


def read_values(path: Path, columns: Sequence[str]) -> Iterator[list[Any]]:
    """The values of each row, in the order of ``columns``, each of which the file has.

    Of columns with the same name, the first is taken. A value that Python cannot hold, such as a text
    that is not UTF-8, is None.

    Raises:
        DataError: if the file cannot be read, is no parquet file, or is damaged further on.
    """
    with _opened(path) as file:
        wanted = list(dict.fromkeys(columns))
        for batch in file.iter_batches(batch_size=BATCH, columns=wanted, use_threads=False):
            names = batch.schema.names  # may be more than wanted: of "a" and "a.b", asking for one reads both
            found = (_python_values(batch.column(names.index(name))) for name in columns)
            yield from map(list, zip(*found, strict=True))


def _python_values(column: pyarrow.Array) -> list[Any]:
    def value(scalar: pyarrow.Scalar) -> Any:
        with suppress(ValueError, OverflowError):
            return scalar.as_py()

    try:
        return list(column.to_pylist())
    except (ValueError, OverflowError):  # a text that is not UTF-8, a time beyond Python's
        return [value(scalar) for scalar in column]


@contextmanager
def _opened(path: Path) -> Iterator[ParquetFile]:
    from pyarrow import ArrowException
    from pyarrow.parquet import ParquetFile

    try:
        with path.open("rb") as file:
            yield ParquetFile(file, buffer_size=READ_AHEAD, pre_buffer=False)
    except (ArrowException, OSError, UnicodeDecodeError) as error:
        if isinstance(error, OSError) and error.strerror:
            raise DataError(f"cannot read the file: {error.strerror}", where=str(path)) from None
        reason = str(error).partition("\n")[0].rstrip(".")
        what = f"the file is no parquet file, or it is cut off or damaged: {reason}"
        fix = "write it again, or rename it if it is a .csv, .tsv, .txt or .jsonl file"
        raise DataError(what, where=str(path), fix=fix) from None
