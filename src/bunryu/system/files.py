"""Files and folders that are replaced whole, and that are still there after a crash or a power cut."""

from __future__ import annotations

import errno
import hashlib
import logging
import os
import secrets
import shutil
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import BinaryIO, TextIO

log = logging.getLogger(__name__)

SECONDS_UNTIL_ABANDONED = 24 * 3600  # no process takes so long for one cache
FULL = (errno.ENOSPC, errno.EDQUOT, errno.EFBIG)  # what a disk without room says


def remove_abandoned(folder: Path, prefix: str) -> None:
    """Remove what killed processes left half built in a folder: it was not touched for a day."""
    for left in folder.glob(f"{prefix}*"):
        with suppress(OSError):  # another process may be removing it, too
            if time.time() - left.stat().st_mtime > SECONDS_UNTIL_ABANDONED:
                shutil.rmtree(left) if left.is_dir() else left.unlink()
                log.info("removed %s, which a killed process had left", left.name)


def write_atomically(path: Path, content: str) -> None:
    """Replace a text file: a reader, or a crash, finds the old content or the new, never a part of it."""
    with replaced(path) as file:
        file.write(content)


@contextmanager
def replaced(path: Path) -> Iterator[TextIO]:
    """A text file to write, which takes its name once it is complete and on the disk, or is removed."""
    temporary = path.with_name(f".{path.name}-{secrets.token_hex(4)}")
    try:
        with open(temporary, "x", encoding="utf-8", newline="") as file:
            yield file
            file.flush()
            os.fsync(file.fileno())
        os.replace(temporary, path)
    except BaseException:
        temporary.unlink(missing_ok=True)
        raise
    synchronise(path.parent)


def write_durably(path: Path, write: Callable[[BinaryIO], object]) -> None:
    """Write a file and wait until the disk has it."""
    with open(path, "wb") as file:
        write(file)
        file.flush()
        os.fsync(file.fileno())


def synchronise(folder: Path) -> None:
    """Make renames within a folder survive a power cut, where the system can."""
    if os.name != "posix":
        return
    descriptor = os.open(folder, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    except OSError as error:
        if error.errno not in (errno.EINVAL, errno.ENOTSUP):  # some network file systems
            raise
    finally:
        os.close(descriptor)


def sha256(path: Path) -> str:
    with open(path, "rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def nearest_existing(path: Path) -> Path:
    """The path, or the nearest folder above it that is there."""
    return next(place for place in (path.absolute(), *path.absolute().parents) if place.exists())


@contextmanager
def replacing(folder: Path) -> Iterator[Path]:
    """A new folder to write in, which becomes ``folder`` at the end, or is removed if an error comes."""
    folder = folder.resolve()
    parent_is_new = not folder.parent.exists()
    folder.parent.mkdir(parents=True, exist_ok=True)
    staging = folder.with_name(f".{folder.name}-{secrets.token_hex(4)}")
    former = staging.with_name(f"{staging.name}-former")
    staging.mkdir()
    try:
        yield staging
        if folder.exists():
            folder.rename(former)
        staging.rename(folder)
    except BaseException:
        shutil.rmtree(staging, ignore_errors=True)
        if parent_is_new:
            with suppress(OSError):
                folder.parent.rmdir()
        raise
    shutil.rmtree(former, ignore_errors=True)
