"""Fetching NSMC, whose addresses Korpora knows; a file that is wrong never replaces one that is there."""

from __future__ import annotations

import contextlib
import hashlib
import logging
import os
import secrets
import shutil
import tempfile
import time
from http.client import HTTPException
from pathlib import Path
from typing import Any, NamedTuple
from urllib import error, request
from urllib.parse import urlsplit

from bunryu.errors import DownloadError
from bunryu.system.files import FULL, remove_abandoned, synchronise

log = logging.getLogger(__name__)

SECONDS_WITHOUT_DATA = 30.0  # for a connection and each part of an answer
MIN_BYTES_PER_SECOND = 2_000  # over each span of SECONDS_WITHOUT_DATA
ATTEMPTS = 4
SECONDS_BEFORE_RETRY = 1.0  # doubled each time; the pause is random, between half of it and all
TEMPORARY_ERRORS = (408, 425, 429, 500, 502, 503, 504)  # HTTP statuses worth another attempt
BLOCK = 1 << 16  # bytes taken at once, at most


class Published(NamedTuple):
    """A published file: git's id of its content, its size in bytes and its rows."""

    blob: str
    size: int
    rows: int


NSMC = {
    "train": Published("ac0dba272895dc1d0b3dd5f11afbeaeb7abe7876", 14_628_807, 150_000),
    "test": Published("b6cfcd8cd1557bcd9bf06617b0e429ed73e9a367", 4_893_335, 50_000),
}


def nsmc_file(folder: Path, split: str) -> Path:
    return folder / f"ratings_{split}.txt"


def fetch_nsmc(root: Path, *, force: bool | None) -> None:
    """Fetch the files that ``root/nsmc`` lacks, or both; with both there, the network is not touched.

    Args:
        force: whether both are fetched anyway; None to fetch nothing.

    Raises:
        DownloadError: if the network fails or the wrong files came; those that were there stay as they were.
    """
    folder = root / "nsmc"
    missing = [split for split in NSMC if force or not nsmc_file(folder, split).is_file()]
    if not missing:
        return
    if force is None:
        what, fix = "NSMC is not there, and nothing is fetched to look at a run", "bunryu check corpus=nsmc"
        raise DownloadError(what, where=str(folder), fix=f"{fix} corpus.root_dir={root}, which fetches it")
    try:
        folder.mkdir(parents=True, exist_ok=True)
        remove_abandoned(folder, ".fetching-")
        staging = Path(tempfile.mkdtemp(prefix=".fetching-", dir=folder))
        try:
            for split in missing:
                _fetch(split, staging, folder)
            for split in missing:  # only when all are right: an old and a new file never stand together
                os.replace(nsmc_file(staging, split), nsmc_file(folder, split))
            synchronise(folder)
        finally:
            shutil.rmtree(staging, ignore_errors=True)
            with contextlib.suppress(OSError):
                folder.rmdir()  # only if it is empty
    except OSError as failure:
        raise _failed(f"cannot write there: {failure.strerror}", folder) from None


def published_difference(folder: Path, split: str, rows: int) -> str:
    """How a file differs from the published one, in a sentence; empty if it does not."""
    path, published = nsmc_file(folder, split), NSMC[split]
    blob = git_blob_id(path)
    if (rows, blob) == (published.rows, published.blob):
        return ""
    wrong = f"checksum {blob[:12]} instead of {published.blob[:12]}"
    if rows != published.rows:
        wrong += f"; {rows:,} rows instead of {published.rows:,}"
    return f"{path.name} is not the published file: {wrong}; figures are not comparable with published ones"


def git_blob_id(path: Path) -> str:
    """The sha1 that git gives a file's content."""
    content = path.read_bytes()
    return hashlib.sha1(b"blob %d\0" % len(content) + content, usedforsecurity=False).hexdigest()


def _fetch(split: str, staging: Path, folder: Path) -> None:
    """Bring one file into ``staging``, with more attempts if the first fails."""
    from Korpora import korpus_nsmc

    path = nsmc_file(staging, split)
    urls = {Path(file["destination"]).name: file["url"] for file in korpus_nsmc.NSMC_FETCH_INFORMATION}
    for attempt in range(1, ATTEMPTS + 1):
        host, why, again = _attempt(urls[path.name], path, NSMC[split])
        if not why:
            return
        what = f"{path.name} from {host}: {why}"
        if not again or attempt == ATTEMPTS:
            tried = f" (attempt {attempt} of {ATTEMPTS})" if attempt > 1 else ""
            raise _failed(f"{what}{tried}", folder)
        seconds = SECONDS_BEFORE_RETRY * 2 ** (attempt - 1) * (1 + secrets.randbelow(1000) / 1000) / 2
        log.warning("%s; attempt %d of %d in %.1f s", what, attempt + 1, ATTEMPTS, seconds)
        time.sleep(seconds)


def _attempt(url: str, path: Path, published: Published) -> tuple[str, str, bool]:
    """The host that answered, why the file did not come (empty if it did), and whether to try again."""
    try:
        with request.urlopen(url, timeout=SECONDS_WITHOUT_DATA) as answer:
            url = answer.url  # a redirection may have led to another host
            _save(answer, path, published.size + BLOCK)
        why, again = _fault(path, published)
    except error.HTTPError as failure:
        failure.close()
        url, why, again = failure.url, str(failure), failure.code in TEMPORARY_ERRORS
    except (OSError, HTTPException, ValueError) as failure:
        if getattr(failure, "errno", None) in FULL:
            raise  # of this machine's disk, not of the network
        why, again = f"{type(failure).__name__}: {failure}", True
    return urlsplit(url).netloc, why, again


def _save(answer: Any, path: Path, max_bytes: int) -> None:
    """Write an answer to the disk; raises once too little comes in a span of time, or too much in all."""
    since, received = time.monotonic(), 0  # bytes since then
    with path.open("wb") as file:
        while block := answer.read1(BLOCK):
            file.write(block)
            received += len(block)
            seconds = time.monotonic() - since
            if file.tell() > max_bytes:
                raise ConnectionError("the answer is longer than the published file")
            if seconds > SECONDS_WITHOUT_DATA:
                if received < MIN_BYTES_PER_SECOND * seconds:
                    raise TimeoutError(f"only {received:,} bytes came in {seconds:.0f} s")
                since, received = time.monotonic(), 0
        file.flush()
        os.fsync(file.fileno())


def _fault(path: Path, published: Published) -> tuple[str, bool]:
    """Why a file is not the published one (empty if it is), and whether it may be the next time."""
    content, blob = path.read_bytes(), git_blob_id(path)
    if blob == published.blob:
        return "", False
    if content[:200].lstrip().lower().startswith((b"<!doctype", b"<html")):
        return "a web page, not the corpus (a login page of the network?)", False
    came, wanted = (
        f"{len(content):,} bytes and checksum {blob[:12]}",
        f"{published.size:,} and {published.blob[:12]}",
    )
    return f"arrived with {came}; published are {wanted}", True


def _failed(why: str, folder: Path) -> DownloadError:
    return DownloadError(
        f"NSMC could not be fetched: {why}",
        where=str(folder),
        fix="check the network and run again; or put ratings_train.txt and ratings_test.txt there yourself; "
        "or corpus.root_dir=<the folder that holds nsmc/>; or start with corpus=sample",
    )
