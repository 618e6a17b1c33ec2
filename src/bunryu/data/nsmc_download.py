"""Fetching NSMC with Korpora; a file that is incomplete or wrong never replaces one that is there."""

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
from http.client import HTTPConnection, HTTPResponse, HTTPSConnection
from pathlib import Path
from typing import Any, NamedTuple
from urllib import error, request
from urllib.parse import urlsplit

from bunryu.errors import DownloadError
from bunryu.system.files import FULL, remove_abandoned, synchronise

log = logging.getLogger(__name__)

SECONDS_WITHOUT_DATA = 30.0  # for a connection, an answer and each part of it
MIN_BYTES_PER_SECOND = 2_000  # over each span of SECONDS_WITHOUT_DATA
ATTEMPTS = 4
SECONDS_BEFORE_RETRY = 1.0  # doubled each time; the pause is random, between half of it and all
TEMPORARY_ERRORS = (408, 425, 429, 500, 502, 503, 504)  # HTTP statuses worth another attempt
MAX_HEADER_BYTES = 1 << 16


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


class _NotFetched(Exception):
    """Why an attempt failed; ``final`` if another would fail in the same way."""

    def __init__(self, why: str, *, final: bool = False) -> None:
        super().__init__(why)
        self.final = final


def _fetch(split: str, staging: Path, folder: Path) -> None:
    """Bring one file into ``staging``, with more attempts if the first fails."""
    path = nsmc_file(staging, split)
    for attempt in range(1, ATTEMPTS + 1):
        handler = _LimitedHandler(NSMC[split].size + MAX_HEADER_BYTES)
        try:
            _korpora_fetch(path, handler)
            return _verify(path, NSMC[split])
        except _NotFetched as failure:
            path.unlink(missing_ok=True)
            what = f"{path.name} from {handler.host}: {failure}"
            if failure.final or attempt == ATTEMPTS:
                tried = f" (attempt {attempt} of {ATTEMPTS})" if attempt > 1 else ""
                raise _failed(f"{what}{tried}", folder) from None
            seconds = SECONDS_BEFORE_RETRY * 2 ** (attempt - 1) * (1 + secrets.randbelow(1000) / 1000) / 2
            log.warning("%s; attempt %d of %d in %.1f s", what, attempt + 1, ATTEMPTS, seconds)
            time.sleep(seconds)


def _korpora_fetch(path: Path, handler: _LimitedHandler) -> None:
    from Korpora import korpus_nsmc

    urls = {Path(file["destination"]).name: file["url"] for file in korpus_nsmc.NSMC_FETCH_INFORMATION}
    url = urls[path.name]
    handler.host = urlsplit(url).netloc
    opener = getattr(request, "_opener", None)
    request.install_opener(request.build_opener(handler))  # Korpora itself sets no time-out
    try:
        korpus_nsmc.fetch(url, str(path), "nsmc", True)
    except error.HTTPError as failure:
        failure.close()
        raise _NotFetched(f"{failure}", final=failure.code not in TEMPORARY_ERRORS) from None
    except Exception as failure:  # urllib, http.client, ssl, socket and Korpora's own: all mean "not fetched"
        if getattr(failure, "errno", None) in FULL:
            raise  # of this machine's disk, not of the network
        if handler.without_length:
            raise _NotFetched("the answer does not say how long it is (a proxy between?)") from None
        raise _NotFetched(f"{type(failure).__name__}: {failure}") from None
    finally:
        request.install_opener(opener)


class _LimitedHandler(request.HTTPSHandler, request.HTTPHandler):
    """Opens addresses with a time-out, and stops answers of too few bytes a second or too many in all."""

    def __init__(self, max_bytes: int) -> None:
        super().__init__()
        self.max_bytes = max_bytes
        self.host = ""  # the last one asked: a redirection may lead to another
        self.without_length = False

    def http_open(self, req: request.Request) -> HTTPResponse:
        return self._open(HTTPConnection, req)

    def https_open(self, req: request.Request) -> HTTPResponse:
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
        response.fp = io.BufferedReader(_LimitedStream(response.fp.detach(), self.max_bytes))
        return response


class _LimitedStream(io.RawIOBase):
    """What a server sends, headers included; raises once it is too slow or too much."""

    def __init__(self, source: io.RawIOBase, max_bytes: int) -> None:
        self._source = source
        self._left = max_bytes
        self._since = time.monotonic()
        self._received = 0  # since then

    def readable(self) -> bool:
        return True

    def readinto(self, buffer: Any) -> int | None:
        count = self._source.readinto(buffer)
        self._received += count or 0
        self._left -= count or 0
        if self._left < 0:
            raise ConnectionError("the answer is longer than the published file")
        seconds = time.monotonic() - self._since
        if count and seconds > SECONDS_WITHOUT_DATA:
            if self._received < MIN_BYTES_PER_SECOND * seconds:
                raise TimeoutError(f"only {self._received:,} bytes came in {seconds:.0f} s")
            self._since, self._received = time.monotonic(), 0
        return count

    def close(self) -> None:
        self._source.close()
        super().close()


def _verify(path: Path, published: Published) -> None:
    """Refuse what is not the published file, and write what is to the disk."""
    if not path.is_file():
        raise _NotFetched("nothing arrived")
    content, blob = path.read_bytes(), git_blob_id(path)
    if blob == published.blob:
        with open(path, "rb+") as file:
            os.fsync(file.fileno())
    elif content[:200].lstrip().lower().startswith((b"<!doctype", b"<html")):
        raise _NotFetched("a web page, not the corpus (a login page of the network?)", final=True)
    else:
        wanted = f"{published.size:,} and {published.blob[:12]}"
        raise _NotFetched(
            f"arrived with {len(content):,} bytes and checksum {blob[:12]}; published are {wanted}"
        )


def _failed(why: str, folder: Path) -> DownloadError:
    return DownloadError(
        f"NSMC could not be fetched: {why}",
        where=str(folder),
        fix="check the network and run again; or put ratings_train.txt and ratings_test.txt there yourself; "
        "or corpus.root_dir=<the folder that holds nsmc/>; or start with corpus=sample",
    )
