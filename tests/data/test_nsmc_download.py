"""Whatever a network does, only the published files ever take their place."""

from __future__ import annotations

import errno
import os
import socket
import time
from http.server import BaseHTTPRequestHandler
from pathlib import Path

import pytest

from bunryu.data import nsmc_download
from bunryu.data.corpora import Nsmc
from bunryu.data.nsmc_download import fetch_nsmc, git_blob_id, nsmc_file, published_difference
from bunryu.errors import DownloadError
from helpers.downloading import CONTENT, WRONG, Server, files_in, server

__all__ = ["server"]  # a fixture

BOTH = {f"nsmc/ratings_{split}.txt": content for split, content in CONTENT.items()}
NAMES = {0: "부정", 1: "긍정"}


def with_old_files(root: Path) -> dict[str, bytes]:
    """Write two other files into the corpus's place; returns all files."""
    (root / "nsmc").mkdir()
    for split in CONTENT:
        nsmc_file(root / "nsmc", split).write_bytes(f"old {split}".encode())
    return files_in(root)


def test_missing_files_are_fetched_and_nothing_else(server: Server, tmp_path: Path) -> None:
    fetch_nsmc(tmp_path / "deep" / "er", force=False)
    assert files_in(tmp_path / "deep" / "er") == BOTH
    server.asked.clear()
    with_old_files(tmp_path)
    nsmc_file(tmp_path / "nsmc", "test").unlink()
    fetch_nsmc(tmp_path, force=False)
    assert files_in(tmp_path / "nsmc") == {
        "ratings_train.txt": b"old train",
        "ratings_test.txt": CONTENT["test"],
    }
    assert set(server.asked) == {"/test"}


def test_force_download_replaces_what_is_there(server: Server, tmp_path: Path) -> None:
    with_old_files(tmp_path)
    corpus = Nsmc("nsmc", str(tmp_path), True, "test", 42, NAMES).read()
    assert files_in(tmp_path) == BOTH
    assert [example.text for example in corpus.train] == ["좋다", "나쁘다"]
    assert corpus.warnings == []  # these are the published files, as far as this test goes


def test_present_files_need_no_network(
    server: Server, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "nsmc").mkdir()
    for name, content in BOTH.items():
        (tmp_path / name).write_bytes(content)

    def refuse(*args: object, **options: object) -> None:
        raise AssertionError("the network was touched")

    monkeypatch.setattr(socket, "socket", refuse)
    monkeypatch.setattr(socket, "getaddrinfo", refuse)
    corpus = Nsmc("nsmc", str(tmp_path), False, "test", 42, NAMES).read()
    assert (len(corpus.train), len(corpus.test), corpus.differences) == (2, 2, [])
    assert server.asked == []


@pytest.mark.parametrize("present", [False, True], ids=["nothing there", "old files there"])
@pytest.mark.parametrize("broken", ["train", "test"])
@pytest.mark.parametrize(
    ("answer", "attempts", "why"),
    [
        ("truncated", 4, ": arrived with {short} bytes and checksum"),
        ("web page", 1, "a web page, not the corpus (a login page of the network?)"),
        ("one byte wrong", 4, ": arrived with {size} bytes and checksum"),
        ("empty", 4, "arrived with 0 bytes and checksum e69de29bb2d1; published are {size} and {blob}"),
        ("too long", 4, "the answer is longer than the published file"),
        ("not found", 1, "HTTP Error 404: Not Found"),
        ("unavailable", 4, "HTTP Error 503: Service Unavailable"),
    ],
)
def test_a_wrong_answer_takes_no_files_place(
    server: Server, tmp_path: Path, answer: str, attempts: int, why: str, broken: str, present: bool
) -> None:
    before = with_old_files(tmp_path) if present else {}
    server.answers[f"/{broken}"] = WRONG[answer]
    with pytest.raises(DownloadError) as failed:
        fetch_nsmc(tmp_path, force=present)
    host, published = server.url.removeprefix("http://"), nsmc_download.NSMC[broken]
    assert failed.value.what.startswith(f"NSMC could not be fetched: ratings_{broken}.txt from {host}: ")
    assert (
        why.format(size=published.size, short=published.size - 10, blob=published.blob[:12])
        in failed.value.what
    )
    assert failed.value.what.endswith(" (attempt 4 of 4)") == (attempts == 4)
    assert failed.value.where == str(tmp_path / "nsmc")
    ways_out = (
        "put ratings_train.txt and ratings_test.txt there yourself",
        "corpus.root_dir=",
        "corpus=sample",
    )
    assert all(way in failed.value.fix for way in ways_out)
    assert files_in(tmp_path) == before
    assert server.asked.count(f"/{broken}") == attempts


@pytest.mark.parametrize("way", ["hang", "trickle"])
def test_a_server_that_hangs_or_trickles_is_given_up(
    server: Server, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, way: str
) -> None:
    monkeypatch.setattr(nsmc_download, "SECONDS_WITHOUT_DATA", 0.15)
    monkeypatch.setattr(nsmc_download, "ATTEMPTS", 2)
    before = with_old_files(tmp_path)
    server.answers["/train"] = getattr(server, way)
    with pytest.raises(DownloadError) as failed:
        fetch_nsmc(tmp_path, force=True)
    assert ("timed out" if way == "hang" else "bytes came in") in failed.value.what
    assert failed.value.what.endswith("(attempt 2 of 2)")
    assert files_in(tmp_path) == before


def test_failures_that_pass_are_told_and_waited_out(
    server: Server, tmp_path: Path, caplog: pytest.LogCaptureFixture, monkeypatch: pytest.MonkeyPatch
) -> None:
    pauses: list[float] = []
    monkeypatch.setattr(nsmc_download, "SECONDS_BEFORE_RETRY", 1.0)
    monkeypatch.setattr(time, "sleep", pauses.append)
    server.answers["/train"] = server.failing(3, WRONG["unavailable"])
    server.answers["/test"] = server.failing(1, WRONG["truncated"])
    fetch_nsmc(tmp_path, force=False)
    assert files_in(tmp_path) == BOTH
    drawn = [pause / least for pause, least in zip(pauses, [0.5, 1, 2, 0.5], strict=True)]
    assert all(1 <= part < 2 for part in drawn)
    assert len(set(drawn)) > 1
    host, length = server.url.removeprefix("http://"), len(CONTENT["test"])
    unavailable = f"ratings_train.txt from {host}: HTTP Error 503: Service Unavailable"
    short = f"arrived with {length - 10} bytes and checksum"
    told = [record.getMessage().partition("; attempt ") for record in caplog.records]
    assert [attempt[:6] for *_, attempt in told] == ["2 of 4", "3 of 4", "4 of 4", "2 of 4"]
    assert [what for what, *_ in told[:3]] == [unavailable] * 3
    assert told[3][0].startswith(f"ratings_test.txt from {host}: {short}")
    # a good file is not fetched again because of the other one
    assert server.asked == [*["/train"] * 4, *["/test"] * 2]


def test_a_redirection_is_followed_and_its_host_named(server: Server, tmp_path: Path) -> None:
    def elsewhere(handler: BaseHTTPRequestHandler, body: bytes) -> None:
        handler.send_response(302)
        handler.send_header("Location", server.url.replace("127.0.0.1", "localhost") + "/login")
        handler.end_headers()

    server.answers |= {"/train": elsewhere, "/login": WRONG["web page"]}
    with pytest.raises(DownloadError, match=r"ratings_train\.txt from localhost:\d+: a web page"):
        fetch_nsmc(tmp_path, force=False)


@pytest.mark.parametrize("stopped", [OSError(errno.ENOSPC, "No space left on device"), KeyboardInterrupt()])
def test_a_full_disk_is_told_at_once_and_neither_it_nor_an_interrupt_leaves_anything(
    server: Server, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, stopped: BaseException
) -> None:
    def stop(answer: object, path: Path, max_bytes: int) -> None:
        path.write_bytes(b"half")
        raise stopped

    monkeypatch.setattr(nsmc_download, "_save", stop)
    full = isinstance(stopped, OSError)
    what = "cannot write there: No space left on device" if full else None
    with pytest.raises(DownloadError if full else KeyboardInterrupt, match=what):
        fetch_nsmc(tmp_path, force=False)
    assert files_in(tmp_path) == {}


def test_what_a_killed_fetch_left_is_removed_after_a_day(server: Server, tmp_path: Path) -> None:
    old, new = tmp_path / "nsmc/.fetching-old", tmp_path / "nsmc/.fetching-new"
    for left in (old, new):
        left.mkdir(parents=True)
        (left / "half").write_bytes(b"half")
    os.utime(old, (time.time() - 25 * 3600,) * 2)
    fetch_nsmc(tmp_path, force=False)
    assert (old.exists(), new.exists()) == (False, True)


@pytest.mark.parametrize("way", ["Connection refused", "name resolution"])
def test_without_a_network_nothing_is_left(
    server: Server, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, way: str
) -> None:
    def no_name(*args: object, **options: object) -> None:
        raise socket.gaierror(-3, "Temporary failure in name resolution")

    server.close()
    if way == "name resolution":
        monkeypatch.setattr(socket, "getaddrinfo", no_name)
    with pytest.raises(DownloadError, match=way):
        fetch_nsmc(tmp_path, force=False)
    assert files_in(tmp_path) == {}


def test_a_place_that_cannot_be_written_is_told(server: Server, tmp_path: Path) -> None:
    (tmp_path / "file").write_bytes(b"")
    with pytest.raises(DownloadError, match="cannot write there: Not a directory"):
        fetch_nsmc(tmp_path / "file", force=False)
    nsmc_file(tmp_path / "nsmc", "test").mkdir(parents=True)
    with pytest.raises(DownloadError, match="cannot write there: Is a directory"):
        fetch_nsmc(tmp_path, force=False)


def test_the_difference_from_the_published_names_checksum_and_rows(server: Server, tmp_path: Path) -> None:
    path, published = nsmc_file(tmp_path, "train"), nsmc_download.NSMC["train"]
    path.write_bytes(CONTENT["train"])
    assert published_difference(tmp_path, "train", 2) == ""
    path.write_bytes(CONTENT["train"] + b"5\tmore\t1\n")
    assert published_difference(tmp_path, "train", 2) == (
        f"ratings_train.txt is not the published file: checksum {git_blob_id(path)[:12]} instead of "
        f"{published.blob[:12]}; figures are not comparable with published ones"
    )
    assert "; 3 rows instead of 2; " in published_difference(tmp_path, "train", 3)


def test_the_published_values_are_those_of_the_repository_with_gits_own_ids(tmp_path: Path) -> None:
    (tmp_path / "a").write_bytes(b"hello\n")
    assert git_blob_id(tmp_path / "a") == "ce013625030ba8dba906f756967f9e9ca394464a"  # git hash-object
    assert nsmc_download.NSMC == {
        "train": ("ac0dba272895dc1d0b3dd5f11afbeaeb7abe7876", 14_628_807, 150_000),
        "test": ("b6cfcd8cd1557bcd9bf06617b0e429ed73e9a367", 4_893_335, 50_000),
    }
