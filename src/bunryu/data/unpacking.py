"""The bytes of a file, unpacked where it is a gzip file or a zip archive of one file."""

from __future__ import annotations

import gzip
import zlib
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import IO, Any
from zipfile import BadZipFile, ZipFile

from bunryu.errors import DataError

SAVE_AS_CSV = "open it in the spreadsheet program and save it as 'CSV UTF-8'"


def blocks(path: Path, size: int) -> Iterator[bytes]:
    """The bytes of a file block by block, unpacked as they are read; the last block is empty."""
    with _opened(path) as (_, file):
        while block := file.read(size):
            yield block
    yield b""


def unpacked_name(path: Path) -> str:
    """The name of the table in a file: without ``.gz``, and of a zip archive its one file's."""
    if path.suffix.lower() != ".zip":
        return path.stem if path.suffix.lower() == ".gz" else path.name
    with _opened(path) as (name, _):
        return name


@contextmanager
def _opened(path: Path) -> Iterator[tuple[str, IO[bytes]]]:
    """Name and content of the table in a file; what it begins with, not its name, says how it is packed."""
    name = path.name
    try:
        with path.open("rb") as file:
            content: Any = file
            begins = file.read(4)
            file.seek(0)
            if begins == b"PK\3\4":
                archive = ZipFile(file)
                name = _only_file(archive.namelist(), path)
                content = archive.open(name)
            elif begins[:2] == b"\x1f\x8b":
                content = gzip.GzipFile(fileobj=file)
            yield name, content
    except (OSError, EOFError, zlib.error, BadZipFile, RuntimeError) as error:  # the last: it has a password
        reason = getattr(error, "strerror", None) or error
        raise DataError(f"cannot read the file: {reason}", where=str(path)) from None


def _only_file(names: list[str], path: Path) -> str:
    if "[Content_Types].xml" in names:
        raise DataError("this is an Excel workbook", where=str(path), fix=SAVE_AS_CSV)
    found = [name for name in names if not name.endswith("/") and not name.startswith("__MACOSX/")]
    if len(found) != 1:
        what = f"the archive holds {len(found)} files: {', '.join(found[:10])}"
        raise DataError(what, where=str(path), fix="unpack it and give one of them")
    return found[0]
