"""Fetching NSMC with Korpora, guarded: nothing half fetched or wrong ever takes a corpus file's place."""

from __future__ import annotations

import contextlib
import hashlib
import os
import shutil
import socket
import tempfile
from dataclasses import dataclass
from pathlib import Path

from bunryu.errors import DownloadError

SECONDS_WITHOUT_DATA = 30.0


@dataclass(frozen=True)
class Published:
    """One published file: git's id of its content (sha1 of header and bytes), its size and its rows."""

    blob: str
    size: int
    rows: int


NSMC = {
    "train": Published("ac0dba272895dc1d0b3dd5f11afbeaeb7abe7876", 14_628_807, 150_000),
    "test": Published("b6cfcd8cd1557bcd9bf06617b0e429ed73e9a367", 4_893_335, 50_000),
}


def nsmc_file(folder: Path, split: str) -> Path:
    """The path of ``ratings_train.txt`` or ``ratings_test.txt`` in its folder."""
    return folder / f"ratings_{split}.txt"


def fetch_nsmc(root: Path, *, force: bool) -> None:
    """Fetch the two files into ``root/nsmc`` unless they are there; no network is touched if they are.

    Raises:
        DownloadError: if the network fails or what came is not the published file. What was there
            before stays as it was.
    """
    folder = root / "nsmc"
    missing = [split for split in NSMC if force or not nsmc_file(folder, split).is_file()]
    if not missing:
        return
    try:
        folder.mkdir(parents=True, exist_ok=True)
        staging = Path(tempfile.mkdtemp(prefix=".fetching-", dir=folder))
    except OSError as error:
        raise _failed(f"cannot write there: {error.strerror}", folder) from None
    try:
        _korpora_fetch(staging, folder)
        for split in missing:
            _verify(nsmc_file(staging / "nsmc", split), split, folder)
        for split in missing:  # only when all are right: old and new files never stand side by side
            os.replace(nsmc_file(staging / "nsmc", split), nsmc_file(folder, split))
    except OSError as error:
        raise _failed(f"cannot write there: {error.strerror}", folder) from None
    finally:
        shutil.rmtree(staging, ignore_errors=True)
        with contextlib.suppress(OSError):
            folder.rmdir()  # only if nothing came


def published_difference(folder: Path, split: str, rows: int) -> str:
    """How a file differs from the published one, in a sentence; empty if it does not."""
    path, published = nsmc_file(folder, split), NSMC[split]
    if rows == published.rows and git_blob_id(path) == published.blob:
        return ""
    counts = "" if rows == published.rows else f"; {rows:,} rows instead of {published.rows:,}"
    return (
        f"{path.name} is not the published file: checksum {git_blob_id(path)[:12]} instead of "
        f"{published.blob[:12]}{counts}; figures are not comparable with published ones"
    )


def git_blob_id(path: Path) -> str:
    """The sha1 that git gives a file's content."""
    content = path.read_bytes()
    return hashlib.sha1(b"blob %d\0" % len(content) + content, usedforsecurity=False).hexdigest()


def _korpora_fetch(staging: Path, folder: Path) -> None:
    from Korpora import korpus_nsmc

    before = socket.getdefaulttimeout()
    socket.setdefaulttimeout(SECONDS_WITHOUT_DATA)  # Korpora itself would wait for ever
    try:
        korpus_nsmc.fetch_nsmc(str(staging), True)
    except Exception as error:  # urllib, http.client, ssl, socket and Korpora's own: all mean "not fetched"
        raise _failed(f"{type(error).__name__}: {error}", folder) from None
    finally:
        socket.setdefaulttimeout(before)


def _verify(path: Path, split: str, folder: Path) -> None:
    if not path.is_file():
        raise _failed(f"nothing arrived for {path.name}", folder)
    published = NSMC[split]
    if git_blob_id(path) == published.blob:
        return
    start = path.read_bytes()[:200].lstrip().lower()
    if start.startswith((b"<!doctype", b"<html")):
        raise _failed(f"{path.name} is a web page, not the corpus (a login page of the network?)", folder)
    raise _failed(
        f"{path.name} arrived with {path.stat().st_size:,} bytes and checksum {git_blob_id(path)[:12]}; "
        f"published are {published.size:,} and {published.blob[:12]}",
        folder,
    )


def _failed(why: str, folder: Path) -> DownloadError:
    return DownloadError(
        f"NSMC could not be fetched: {why}",
        where=str(folder),
        fix="check the network and run again; or put ratings_train.txt and ratings_test.txt there yourself; "
        "or corpus.root_dir=<the folder that holds nsmc/>; or start with corpus=sample",
    )
