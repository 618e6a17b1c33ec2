"""The bytes of a file, unpacked where it is a gzip file or a zip archive of one file."""

from __future__ import annotations

import gzip
import zlib
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import IO
from zipfile import BadZipFile, ZipFile

from bunryu.errors import DataError

SPREADSHEETS = ("xlsx", "xls", "ods", "numbers")
SAVE_AS_CSV = "open it in the spreadsheet program and save it as 'CSV UTF-8'"


def blocks(path: Path, size: int) -> Iterator[bytes]:
    """The bytes of a file block by block, unpacked as they are read; the last block is empty."""
    with _opened(path) as file:
        while block := file.read(size):
            yield block
    yield b""


def unpacked_name(path: Path) -> str:
    """The name of the table in a file: without ``.gz``, and of a zip archive its one file's."""
    name = path.name[:-3] if path.suffix.lower() == ".gz" else path.name
    if not name.lower().endswith(".zip"):
        return name
    with _reading(path), ZipFile(path) as archive:
        return _only_file(archive, path)


@contextmanager
def _opened(path: Path) -> Iterator[IO[bytes]]:
    """The content of a file; what it begins with, and not its name, says how it is packed."""
    with _reading(path), path.open("rb") as file:
        begins = file.read(4)
        file.seek(0)
        if begins == b"PK\3\4":
            with ZipFile(file) as archive, archive.open(_only_file(archive, path)) as member:
                yield member
        elif begins[:2] == b"\x1f\x8b":
            with gzip.open(file) as content:
                yield content
        else:
            yield file


def _only_file(archive: ZipFile, path: Path) -> str:
    names = archive.namelist()
    if "[Content_Types].xml" in names:
        raise DataError("this is an Excel workbook", where=str(path), fix=SAVE_AS_CSV)
    found = [name for name in names if not name.endswith("/") and not name.startswith("__MACOSX/")]
    if len(found) != 1:
        what = f"the archive holds {len(found)} files: {', '.join(found[:10])}"
        raise DataError(what, where=str(path), fix="unpack it and give one of them")
    return found[0]


@contextmanager
def _reading(path: Path) -> Iterator[None]:
    try:
        yield
    except OSError as error:
        raise DataError(f"cannot read the file: {error.strerror or error}", where=str(path)) from None
    except (EOFError, zlib.error, BadZipFile, RuntimeError) as error:  # RuntimeError: it asks for a password
        what = f"the packed file is cut off, damaged or locked: {error}"
        raise DataError(what, where=str(path), fix="pack it again, or unpack it yourself") from None
