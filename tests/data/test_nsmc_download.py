"""download.py: whatever a network does, only the published files ever take their place."""

from __future__ import annotations

import errno
import logging
import os
import random
import socket
import time
from http.server import BaseHTTPRequestHandler
from pathlib import Path
from urllib import request

import pytest
from Korpora import korpus_nsmc

from bunryu.data import nsmc_download
from bunryu.data.corpora import Nsmc
from bunryu.data.nsmc_download import fetch_nsmc, git_blob_id, nsmc_file, published_difference
from bunryu.errors import DownloadError
from helpers.downloading import (
    CONTENT,
    Answer,
    Server,
    endless,
    files_in,
    no_length,
    not_found,
    nothing,
    one_byte_wrong,
    server,
    truncated,
    unavailable,
    web_page,
)

__all__ = ["server"]  # a fixture

# Korpora opens each address once more than it reads or closes it.
pytestmark = pytest.mark.filterwarnings("ignore:unclosed:ResourceWarning")

BOTH = {"nsmc/ratings_train.txt": CONTENT["train"], "nsmc/ratings_test.txt": CONTENT["test"]}


def test_missing_files_are_fetched_and_nothing_else_is_left(server: Server, tmp_path: Path) -> None:
    fetch_nsmc(tmp_path / "deep" / "er", force=False)
    assert files_in(tmp_path / "deep" / "er") == BOTH
    assert set(server.asked) == {"/train", "/test"}


def test_one_missing_file_leaves_the_present_one_alone(server: Server, tmp_path: Path) -> None:
    (tmp_path / "nsmc").mkdir()
    own = b"id\tdocument\tlabel\n9\tmine\t1\n"
    nsmc_file(tmp_path / "nsmc", "train").write_bytes(own)
    fetch_nsmc(tmp_path, force=False)
    assert files_in(tmp_path) == {**BOTH, "nsmc/ratings_train.txt": own}
    assert set(server.asked) == {"/test"}


def test_force_download_replaces_what_is_there(server: Server, tmp_path: Path) -> None:
    (tmp_path / "nsmc").mkdir()
    for split in CONTENT:
        nsmc_file(tmp_path / "nsmc", split).write_bytes(b"old")
    corpus = Nsmc("nsmc", str(tmp_path), True, "test", 42, {0: "부정", 1: "긍정"}).read()
    assert files_in(tmp_path) == BOTH
    assert [example.text for example in corpus.train] == ["좋다", "나쁘다"]
    assert corpus.warnings == []  # these are the published files, as far as this test goes


def test_present_files_are_read_with_no_network_at_all(
    server: Server, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    fetch_nsmc(tmp_path, force=False)
    asked = len(server.asked)

    def refuse(*args: object) -> None:
        raise AssertionError("the network was touched")

    for name in ("connect", "connect_ex", "sendto"):
        monkeypatch.setattr(socket.socket, name, refuse)
    monkeypatch.setattr(socket, "getaddrinfo", refuse)
    fetch_nsmc(tmp_path, force=False)
    corpus = Nsmc("nsmc", str(tmp_path), False, "test", 42, {0: "부정", 1: "긍정"}).read()
    assert len(corpus.test) == 2
    assert len(server.asked) == asked


WRONG = [
    pytest.param(truncated, 4, "retrieval incomplete: got only", id="truncated"),
    pytest.param(web_page, 1, "a web page, not the corpus", id="web page"),
    pytest.param(one_byte_wrong, 4, "and checksum", id="one byte wrong"),
    pytest.param(nothing, 4, "arrived with 0 bytes", id="empty"),
    pytest.param(endless, 4, "the answer is longer than the published file", id="too long"),
    pytest.param(no_length, 4, "the answer does not say how long it is", id="no length given"),
    pytest.param(not_found, 1, "HTTP Error 404: Not Found", id="not found"),
    pytest.param(unavailable, 4, "HTTP Error 503: Service Unavailable", id="unavailable"),
]


@pytest.mark.parametrize("present", [False, True], ids=["nothing there", "old files there"])
@pytest.mark.parametrize("broken", ["train", "test"])
@pytest.mark.parametrize(("answer", "attempts", "why"), WRONG)
def test_a_wrong_answer_takes_no_files_place(
    server: Server, tmp_path: Path, answer: Answer, attempts: int, why: str, broken: str, present: bool
) -> None:
    (tmp_path / "nsmc").mkdir()
    if present:
        for split in CONTENT:
            nsmc_file(tmp_path / "nsmc", split).write_bytes(f"old {split}".encode())
    before = files_in(tmp_path)
    server.answers[f"/{broken}"] = answer
    with pytest.raises(DownloadError) as failed:
        fetch_nsmc(tmp_path, force=present)
    host = server.url.removeprefix("http://")
    assert failed.value.what.startswith(f"NSMC could not be fetched: ratings_{broken}.txt from {host}: ")
    assert why in failed.value.what
    assert failed.value.what.endswith(" (attempt 4 of 4)") == (attempts == 4)
    assert failed.value.where == str(tmp_path / "nsmc")
    assert "corpus.root_dir=" in failed.value.fix
    assert "corpus=sample" in failed.value.fix
    assert files_in(tmp_path) == before
    # Korpora opens an address twice, unless the first fails
    each = 1 if answer in (not_found, unavailable, no_length) else 2
    assert server.asked.count(f"/{broken}") == attempts * each


def test_a_wrong_file_is_described_by_both_sizes_and_checksums(server: Server, tmp_path: Path) -> None:
    server.answers["/train"] = one_byte_wrong
    with pytest.raises(DownloadError) as failed:
        fetch_nsmc(tmp_path, force=False)
    size = len(CONTENT["train"])
    assert f": arrived with {size} bytes and checksum" in failed.value.what
    assert f"published are {size} and {nsmc_download.NSMC['train'].blob[:12]}" in failed.value.what


def test_a_server_that_falls_silent_is_given_up(
    server: Server, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(nsmc_download, "SECONDS_WITHOUT_DATA", 0.1)
    server.answers["/test"] = server.hang
    with pytest.raises(DownloadError, match="timed out"):
        fetch_nsmc(tmp_path, force=False)
    assert files_in(tmp_path) == {}


def test_nothing_of_the_process_is_changed_by_a_fetch(server: Server, tmp_path: Path) -> None:
    """Neither time-outs and openers of others, nor the random numbers that a run is seeded with."""
    mine = request.build_opener()
    request.install_opener(mine)
    server.answers["/train"] = server.failing(2, unavailable)
    random.seed(1)
    fetch_nsmc(tmp_path, force=False)
    drawn = random.random()
    random.seed(1)
    assert drawn == random.random()
    assert socket.getdefaulttimeout() is None
    assert request._opener is mine  # type: ignore[attr-defined]
    request.install_opener(None)  # type: ignore[arg-type]


def test_a_failure_that_passes_is_survived_and_told(
    server: Server, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    server.answers["/train"] = server.failing(2, unavailable)
    server.answers["/test"] = server.failing(2, truncated)  # Korpora opens each address twice
    fetch_nsmc(tmp_path, force=False)
    assert files_in(tmp_path) == BOTH
    host = server.url.removeprefix("http://")
    length = len(CONTENT["test"])
    short = f"retrieval incomplete: got only {length - 10} out of {length} bytes"
    told = [record.getMessage().partition("; attempt ") for record in caplog.records]
    assert [(what, attempt[:6]) for what, _, attempt in told] == [
        (f"ratings_train.txt from {host}: HTTP Error 503: Service Unavailable", "2 of 4"),
        (f"ratings_train.txt from {host}: HTTP Error 503: Service Unavailable", "3 of 4"),
        (f"ratings_test.txt from {host}: ContentTooShortError: <urlopen error {short}>", "2 of 4"),
    ]
    # a good file is not fetched again because of the other one
    assert server.asked == [*["/train"] * 4, *["/test"] * 4]


def test_the_pauses_double_and_are_drawn(
    server: Server, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    pauses: list[float] = []
    monkeypatch.setattr(nsmc_download, "SECONDS_BEFORE_RETRY", 1.0)
    monkeypatch.setattr(time, "sleep", pauses.append)
    server.answers["/train"] = unavailable
    for _ in range(5):
        with pytest.raises(DownloadError):
            fetch_nsmc(tmp_path, force=False)
    assert len(pauses) == 15
    assert all(least <= pause < 2 * least for pause, least in zip(pauses, [0.5, 1, 2] * 5, strict=True))
    assert len(set(pauses)) > 5


def test_a_redirection_is_followed_and_its_host_named(server: Server, tmp_path: Path) -> None:
    def elsewhere(handler: BaseHTTPRequestHandler, body: bytes) -> None:
        handler.send_response(302)
        handler.send_header("Location", server.url.replace("127.0.0.1", "localhost") + "/login")
        handler.end_headers()

    server.answers |= {"/train": elsewhere, "/login": web_page}
    with pytest.raises(DownloadError, match=r"ratings_train\.txt from localhost:\d+: a web page"):
        fetch_nsmc(tmp_path, force=False)


def test_a_full_disk_is_told_as_such_and_at_once(
    server: Server, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def full(url: str, path: str, name: str, force: bool) -> None:
        Path(path).write_bytes(b"half")
        raise OSError(errno.ENOSPC, "No space left on device")

    monkeypatch.setattr(korpus_nsmc, "fetch", full)
    with pytest.raises(DownloadError, match="cannot write there: No space left on device"):
        fetch_nsmc(tmp_path, force=False)
    assert files_in(tmp_path) == {}


def test_what_a_killed_fetch_left_is_removed_after_a_day(
    server: Server, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level(logging.INFO, "bunryu")
    old, new = tmp_path / "nsmc/.fetching-old", tmp_path / "nsmc/.fetching-new"
    for left in (old, new):
        left.mkdir(parents=True)
        (left / "half").write_bytes(b"half")
    os.utime(old, (time.time() - 25 * 3600,) * 2)
    fetch_nsmc(tmp_path, force=False)
    assert (old.exists(), new.exists()) == (False, True)
    assert "removed .fetching-old, which a killed process had left" in caplog.text


def test_a_refused_connection_is_told_with_ways_out(server: Server, tmp_path: Path) -> None:
    server.close()
    with pytest.raises(DownloadError, match="Connection refused") as failed:
        fetch_nsmc(tmp_path, force=False)
    assert "put ratings_train.txt and ratings_test.txt there yourself" in failed.value.fix
    assert files_in(tmp_path) == {}


def test_an_interrupt_leaves_no_staging_folder(
    server: Server, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def interrupted(url: str, path: str, name: str, force: bool) -> None:
        Path(path).write_bytes(b"half")
        raise KeyboardInterrupt

    monkeypatch.setattr(korpus_nsmc, "fetch", interrupted)
    with pytest.raises(KeyboardInterrupt):
        fetch_nsmc(tmp_path, force=False)
    assert files_in(tmp_path) == {}


def test_a_place_that_cannot_be_written_is_told(server: Server, tmp_path: Path) -> None:
    (tmp_path / "file").write_bytes(b"")
    with pytest.raises(DownloadError, match="cannot write there: Not a directory"):
        fetch_nsmc(tmp_path / "file", force=False)
    nsmc_file(tmp_path / "nsmc", "test").mkdir(parents=True)
    with pytest.raises(DownloadError, match="cannot write there: Is a directory"):
        fetch_nsmc(tmp_path, force=False)


def test_the_difference_from_the_published_file_names_checksum_and_rows(
    server: Server, tmp_path: Path
) -> None:
    fetch_nsmc(tmp_path, force=False)
    folder = tmp_path / "nsmc"
    assert published_difference(folder, "train", 2) == ""
    nsmc_file(folder, "train").write_bytes(CONTENT["train"] + b"5\tmore\t1\n")
    got = git_blob_id(nsmc_file(folder, "train"))[:12]
    wanted = nsmc_download.NSMC["train"].blob[:12]
    assert published_difference(folder, "train", 2) == (
        f"ratings_train.txt is not the published file: checksum {got} instead of {wanted}; "
        "figures are not comparable with published ones"
    )
    assert "; 3 rows instead of 2; " in published_difference(folder, "train", 3)


def test_the_blob_id_is_gits(tmp_path: Path) -> None:
    (tmp_path / "a").write_bytes(b"hello\n")
    assert git_blob_id(tmp_path / "a") == "ce013625030ba8dba906f756967f9e9ca394464a"  # git hash-object


def test_the_published_values_are_those_of_the_repository() -> None:
    assert {split: (p.blob, p.size, p.rows) for split, p in nsmc_download.NSMC.items()} == {
        "train": ("ac0dba272895dc1d0b3dd5f11afbeaeb7abe7876", 14_628_807, 150_000),
        "test": ("b6cfcd8cd1557bcd9bf06617b0e429ed73e9a367", 4_893_335, 50_000),
    }
