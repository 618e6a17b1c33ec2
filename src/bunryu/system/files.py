"""Files and folders: replaced whole, there after a power cut, never through a link; errors of the disk."""

from __future__ import annotations

import errno
import hashlib
import logging
import os
import re
import secrets
import shlex
import shutil
import time
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from itertools import chain
from pathlib import Path
from typing import TextIO

from bunryu.errors import BunryuError, ConfigError, ModelError

log = logging.getLogger(__name__)

SECONDS_UNTIL_ABANDONED = 24 * 3600  # no process takes so long for one cache
FULL = (errno.ENOSPC, errno.EDQUOT, errno.EFBIG)  # what a disk without room says
GONE = (errno.ENOENT, errno.ESTALE)
REFUSED = (errno.EACCES, errno.EPERM, errno.EROFS, errno.EISDIR, errno.ENOTDIR, errno.EEXIST,
           errno.ENAMETOOLONG, errno.EIO)  # fmt: skip
RUST = re.compile(r"\(os error (\d+)\)")  # how safetensors and tokenizers end what the system told them


def refuse_links(folder: Path, part: str = "") -> None:
    """Refuse a folder, or a part of it, in which a link would lead writing out of it, or a pipe stop it."""
    root = folder.resolve()  # which may be reached through a link
    tree = os.walk(root / part)
    entries = (Path(parent, name) for parent, folders, files in tree for name in (*folders, *files))
    for path in chain([root / part], entries):
        target = Path(os.path.realpath(path))
        what = "" if target.is_file() or target.is_dir() or not target.exists() else "neither file nor folder"
        if not target.is_relative_to(root) and path.name != "debug-core.log":  # which wandb links to its own
            what = f"a link to {target}, and nothing is written through it"
        if what:
            fix = f"rm {shlex.quote(str(path))}, or what it leads to in its place"
            raise ModelError(what, where=str(path), fix=fix)


def refuse_occupied(folder: Path) -> None:
    """Refuse to make a folder where there is something already."""
    if folder.exists() and (not folder.is_dir() or any(folder.iterdir())):
        raise ConfigError("there is something already", where=str(folder), fix="--output <a new folder>")


@contextmanager
def disk_errors_at(path: Path) -> Iterator[None]:
    """Raise what the disk refuses inside as an OSError with this path, whoever wrapped it."""
    try:
        yield
    except Exception as error:
        cause = error.__context__ if type(error) is RuntimeError else error  # torch.save hides it there
        found = None if isinstance(error, BunryuError) else RUST.search(str(error))
        number = cause.errno if isinstance(cause, OSError) else int(found[1]) if found else None
        if number is None:
            raise
        place = None if number in FULL else getattr(cause, "filename", None)
        raise OSError(number, os.strerror(number), str(place or path)) from error


def bunryu_error_of(error: BaseException) -> BunryuError | None:
    """An error of the disk as a sentence with the path and what to do, or BunryuError as it is; else None."""
    if not isinstance(error, OSError):
        return error if isinstance(error, BunryuError) else None
    path = os.fsdecode(error.filename or "")
    if error.errno in FULL:
        free = shutil.disk_usage(nearest_existing(Path(path))).free
        what = "the disk is full" + f" ({free:,} bytes are free)" * bool(path)
        fix = "make room; then the same command again, or bunryu resume for a run that had begun"
    elif path and error.errno in GONE:
        what, fix = "it is not there, or not any more", "put it back, and try again"
    elif path and error.errno in REFUSED:
        what, fix = "it cannot be written or read", "another folder: output_root=<folder>, or --output FOLDER"
    else:
        return None
    return BunryuError(f"{what}: {error.strerror}", where=path, fix=fix)


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
        with disk_errors_at(path), open(temporary, "x", encoding="utf-8", newline="") as file:
            yield file
            file.flush()
            os.fsync(file.fileno())
        os.replace(temporary, path)
    except BaseException:
        with suppress(OSError):
            temporary.unlink(missing_ok=True)
        raise
    synchronise(path.parent)


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
    try:
        with disk_errors_at(folder):
            staging.mkdir()
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
