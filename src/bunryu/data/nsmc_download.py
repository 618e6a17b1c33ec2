"""Fetching NSMC with Korpora, guarded: nothing half fetched or wrong ever takes a corpus file's place."""

from __future__ import annotations

import contextlib
import hashlib
import io
import logging
import os
import secrets
import shutil
import tempfile
import time
from dataclasses import dataclass
from http.client import HTTPConnection, HTTPResponse, HTTPSConnection
from pathlib import Path
from typing import Any
from urllib import error, request
from urllib.parse import urlsplit

from bunryu.errors import DownloadError
from bunryu.system.files import FULL, remove_abandoned, synchronise

log = logging.getLogger(__name__)

SECONDS_WITHOUT_DATA = 30.0  # for a connection, an answer and each part of it
LEAST_SPEED = 2_000  # bytes a second, in every such span: a trickle is no download
ATTEMPTS = 4
SECONDS_BEFORE_RETRY = 1.0  # doubled each time, and drawn from the upper half of it
PASSING = (408, 425, 429, 500, 502, 503, 504)  # answers that may be others a moment later
SPARE = 1 << 16  # bytes of an answer that are no content


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
        remove_abandoned(folder, ".fetching-")
        staging = Path(tempfile.mkdtemp(prefix=".fetching-", dir=folder))
        try:
            for split in missing:
                _fetch(split, staging, folder)
            for split in missing:  # only when all are right: old and new files never stand side by side
                os.replace(nsmc_file(staging, split), nsmc_file(folder, split))
            synchronise(folder)
        finally:
            shutil.rmtree(staging, ignore_errors=True)
            with contextlib.suppress(OSError):
                folder.rmdir()  # only if nothing came
    except OSError as failure:
        raise _failed(f"cannot write there: {failure.strerror}", folder) from None


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


class _NotFetched(Exception):
    """Why an attempt failed; ``final`` if another would fail alike."""

    def __init__(self, why: str, *, final: bool = False) -> None:
        super().__init__(why)
        self.final = final


def _fetch(split: str, staging: Path, folder: Path) -> None:
    """Bring one file into ``staging``, with more attempts if the first fails."""
    path = nsmc_file(staging, split)
    for attempt in range(1, ATTEMPTS + 1):
        guard = _Guard(NSMC[split].size + SPARE)
        try:
            _korpora_fetch(path, guard)
            return _verify(path, split)
        except _NotFetched as failure:
            path.unlink(missing_ok=True)
            what = f"{path.name} from {guard.host}: {failure}"
            if failure.final or attempt == ATTEMPTS:
                tried = f" (attempt {attempt} of {ATTEMPTS})" if attempt > 1 else ""
                raise _failed(f"{what}{tried}", folder) from None
            seconds = SECONDS_BEFORE_RETRY * 2 ** (attempt - 1) * (1 + secrets.randbelow(1000) / 1000) / 2
            log.warning("%s; attempt %d of %d in %.1f s", what, attempt + 1, ATTEMPTS, seconds)
            time.sleep(seconds)


def _korpora_fetch(path: Path, guard: _Guard) -> None:
    from Korpora import korpus_nsmc

    (url,) = (
        published["url"]
        for published in korpus_nsmc.NSMC_FETCH_INFORMATION
        if Path(published["destination"]).name == path.name
    )
    guard.host = urlsplit(url).netloc
    opener = getattr(request, "_opener", None)
    request.install_opener(request.build_opener(guard))  # Korpora itself would wait for ever
    try:
        korpus_nsmc.fetch(url, str(path), "nsmc", True)
    except error.HTTPError as failure:
        failure.close()
        raise _NotFetched(f"{failure}", final=failure.code not in PASSING) from None
    except Exception as failure:  # urllib, http.client, ssl, socket and Korpora's own: all mean "not fetched"
        if getattr(failure, "errno", None) in FULL:
            raise  # ours, not the network's
        if guard.without_length:
            raise _NotFetched("the answer does not say how long it is (a proxy between?)") from None
        raise _NotFetched(f"{type(failure).__name__}: {failure}") from None
    finally:
        request.install_opener(opener)


class _Guard(request.HTTPSHandler, request.HTTPHandler):
    """Opens addresses with a time-out, and stops answers that trickle or do not end.

    Args:
        most: bytes an answer may have.
    """

    def __init__(self, most: int) -> None:
        super().__init__()
        self.most = most
        self.host = ""  # asked last: a redirection may lead elsewhere
        self.without_length = False

    def http_open(self, req: request.Request) -> HTTPResponse:
        """As urllib does it, watched."""
        return self._open(HTTPConnection, req)

    def https_open(self, req: request.Request) -> HTTPResponse:
        """As urllib does it, watched."""
        return self._open(HTTPSConnection, req)

    def _open(self, kind: Any, req: request.Request) -> HTTPResponse:
        def connect(host: str, **options: Any) -> Any:
            connection = kind(host, **options)
            connection.response_class = self._respond
            return connection

        self.host = urlsplit(req.full_url).netloc
        req.timeout = SECONDS_WITHOUT_DATA
        response = self.do_open(connect, req)
        self.without_length = response.status == 200 and response.headers["Content-Length"] is None
        return response

    def _respond(self, *arguments: Any, **options: Any) -> HTTPResponse:
        response = HTTPResponse(*arguments, **options)
        response.fp = io.BufferedReader(_Watched(response.fp.detach(), self.most))
        return response


class _Watched(io.RawIOBase):
    """What a server sends, from the first header on; raises once it is too slow or too much."""

    def __init__(self, source: io.RawIOBase, most: int) -> None:
        self._source = source
        self._left = most
        self._since = time.monotonic()
        self._received = 0

    def readable(self) -> bool:
        """Always."""
        return True

    def readinto(self, buffer: Any) -> int | None:
        """What came, up to the buffer's length."""
        count = self._source.readinto(buffer)
        self._received += count or 0
        self._left -= count or 0
        if self._left < 0:
            raise ConnectionError("the answer is longer than the published file")
        seconds = time.monotonic() - self._since
        if count and seconds > SECONDS_WITHOUT_DATA:
            if self._received < LEAST_SPEED * seconds:
                raise TimeoutError(f"only {self._received:,} bytes came in {seconds:.0f} s")
            self._since, self._received = time.monotonic(), 0
        return count

    def close(self) -> None:
        """Close the connection's side of it."""
        self._source.close()
        super().close()


def _verify(path: Path, split: str) -> None:
    """Refuse what is not the published file; make what is survive a power cut."""
    published = NSMC[split]
    if not path.is_file():
        raise _NotFetched("nothing arrived")
    if git_blob_id(path) == published.blob:
        with open(path, "rb+") as file:
            os.fsync(file.fileno())
        return
    start = path.read_bytes()[:200].lstrip().lower()
    if start.startswith((b"<!doctype", b"<html")):
        raise _NotFetched("a web page, not the corpus (a login page of the network?)", final=True)
    raise _NotFetched(
        f"arrived with {path.stat().st_size:,} bytes and checksum {git_blob_id(path)[:12]}; "
        f"published are {published.size:,} and {published.blob[:12]}"
    )


def _failed(why: str, folder: Path) -> DownloadError:
    return DownloadError(
        f"NSMC could not be fetched: {why}",
        where=str(folder),
        fix="check the network and run again; or put ratings_train.txt and ratings_test.txt there yourself; "
        "or corpus.root_dir=<the folder that holds nsmc/>; or start with corpus=sample",
    )
