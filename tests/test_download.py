"""download.py: whatever a network does, only the published files ever take their place."""

from __future__ import annotations

import gc
import hashlib
import socket
import threading
from collections.abc import Callable, Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

import pytest
from Korpora import korpus_nsmc

from bunryu import download
from bunryu.corpora import Nsmc
from bunryu.download import Published, fetch_nsmc, git_blob_id, nsmc_file, published_difference
from bunryu.errors import DownloadError

# Korpora opens each address once more than it reads or closes it.
pytestmark = pytest.mark.filterwarnings("ignore:unclosed:ResourceWarning")

CONTENT = {
    "train": "id\tdocument\tlabel\n1\t좋다\t1\n2\t나쁘다\t0\n".encode(),
    "test": "id\tdocument\tlabel\n3\t최고\t1\n4\t최악\t0\n".encode(),
}
PAGE = b"\n<!DOCTYPE html><title>Sign in to the network</title>"

Answer = Callable[[BaseHTTPRequestHandler, bytes], None]


def send(
    handler: BaseHTTPRequestHandler, body: bytes, *, status: int = 200, length: int | None = None
) -> None:
    handler.send_response(status)
    handler.send_header("Content-Length", str(len(body) if length is None else length))
    handler.end_headers()
    handler.wfile.write(body)


def truncated(handler: BaseHTTPRequestHandler, body: bytes) -> None:
    send(handler, body[:-10], length=len(body))


def web_page(handler: BaseHTTPRequestHandler, body: bytes) -> None:
    send(handler, PAGE)


def one_byte_wrong(handler: BaseHTTPRequestHandler, body: bytes) -> None:
    send(handler, body.replace(b"1", b"0", 1))


def nothing(handler: BaseHTTPRequestHandler, body: bytes) -> None:
    send(handler, b"")


def no_length(handler: BaseHTTPRequestHandler, body: bytes) -> None:
    handler.send_response(200)
    handler.end_headers()
    handler.wfile.write(body)


def not_found(handler: BaseHTTPRequestHandler, body: bytes) -> None:
    send(handler, b"gone", status=404)


class Server:
    """A loopback server; ``answers`` says how each path is served."""

    def __init__(self) -> None:
        self.answers: dict[str, Answer] = {"/train": send, "/test": send}
        self.asked: list[str] = []
        self.released = threading.Event()
        outer = self

        class Handler(BaseHTTPRequestHandler):
            def do_GET(self) -> None:
                outer.asked.append(self.path)
                outer.answers[self.path](self, CONTENT[self.path[1:]])

            def log_message(self, format: str, *args: object) -> None:
                pass

        self._server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
        self._server.daemon_threads = True
        self.url = f"http://127.0.0.1:{self._server.server_port}"
        self._thread = threading.Thread(target=self._server.serve_forever, args=(0.01,))
        self._thread.start()

    def hang(self, handler: BaseHTTPRequestHandler, body: bytes) -> None:
        """Half an answer, then silence."""
        handler.send_response(200)
        handler.send_header("Content-Length", str(len(body)))
        handler.end_headers()
        handler.wfile.write(body[:5])
        handler.wfile.flush()
        self.released.wait(30)

    def close(self) -> None:
        self.released.set()
        self._server.shutdown()
        self._server.server_close()
        self._thread.join()


@pytest.fixture
def server(monkeypatch: pytest.MonkeyPatch) -> Iterator[Server]:
    """A server that Korpora takes for the real one, and its two files for the published ones."""
    server = Server()
    information = [
        {"url": f"{server.url}/{split}", "destination": f"nsmc/ratings_{split}.txt", "method": "download"}
        for split in CONTENT
    ]
    monkeypatch.setattr(korpus_nsmc, "NSMC_FETCH_INFORMATION", information)
    published = {
        split: Published(hashlib.sha1(b"blob %d\0" % len(raw) + raw).hexdigest(), len(raw), 2)
        for split, raw in CONTENT.items()
    }
    monkeypatch.setattr(download, "NSMC", published)
    for name in ("http_proxy", "HTTP_PROXY", "all_proxy", "ALL_PROXY"):
        monkeypatch.delenv(name, raising=False)
    yield server
    server.close()
    gc.collect()  # so that what Korpora left open is closed here, under this file's filter


def files_in(root: Path) -> dict[str, bytes]:
    """Every file below, hidden ones too, and every empty folder."""
    found = {str(path.relative_to(root)): path.read_bytes() for path in root.rglob("*") if path.is_file()}
    return found | {str(path.relative_to(root)): b"" for path in root.rglob(".*")}


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
    pytest.param(truncated, "retrieval incomplete: got only", id="truncated"),
    pytest.param(web_page, "is a web page, not the corpus", id="web page"),
    pytest.param(one_byte_wrong, "and checksum", id="one byte wrong"),
    pytest.param(nothing, "arrived with 0 bytes", id="empty"),
    pytest.param(no_length, "TypeError", id="no length given"),
    pytest.param(not_found, "HTTPError: HTTP Error 404", id="not found"),
]


@pytest.mark.parametrize("present", [False, True], ids=["nothing there", "old files there"])
@pytest.mark.parametrize("broken", ["train", "test"])
@pytest.mark.parametrize(("answer", "why"), WRONG)
def test_a_wrong_answer_takes_no_files_place(
    server: Server, tmp_path: Path, answer: Answer, why: str, broken: str, present: bool
) -> None:
    (tmp_path / "nsmc").mkdir()
    if present:
        for split in CONTENT:
            nsmc_file(tmp_path / "nsmc", split).write_bytes(f"old {split}".encode())
    before = files_in(tmp_path)
    server.answers[f"/{broken}"] = answer
    with pytest.raises(DownloadError) as failed:
        fetch_nsmc(tmp_path, force=present)
    assert failed.value.what.startswith("NSMC could not be fetched: ")
    assert why in failed.value.what
    assert failed.value.where == str(tmp_path / "nsmc")
    assert "corpus.root_dir=" in failed.value.fix
    assert "corpus=sample" in failed.value.fix
    assert files_in(tmp_path) == before


def test_a_wrong_file_is_described_by_both_sizes_and_checksums(server: Server, tmp_path: Path) -> None:
    server.answers["/train"] = one_byte_wrong
    with pytest.raises(DownloadError) as failed:
        fetch_nsmc(tmp_path, force=False)
    size = len(CONTENT["train"])
    assert f"ratings_train.txt arrived with {size} bytes and checksum" in failed.value.what
    assert f"published are {size} and {download.NSMC['train'].blob[:12]}" in failed.value.what


def test_a_server_that_falls_silent_is_given_up(
    server: Server, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(download, "SECONDS_WITHOUT_DATA", 0.2)
    server.answers["/test"] = server.hang
    before = socket.getdefaulttimeout()
    with pytest.raises(DownloadError, match="timed out"):
        fetch_nsmc(tmp_path, force=False)
    assert files_in(tmp_path) == {}
    assert socket.getdefaulttimeout() == before


def test_a_refused_connection_is_told_with_ways_out(server: Server, tmp_path: Path) -> None:
    server.close()
    with pytest.raises(DownloadError, match="Connection refused") as failed:
        fetch_nsmc(tmp_path, force=False)
    assert "put ratings_train.txt and ratings_test.txt there yourself" in failed.value.fix
    assert files_in(tmp_path) == {}


def test_an_interrupt_leaves_no_staging_folder(
    server: Server, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def interrupted(root: str, force: bool) -> None:
        (Path(root) / "half").write_bytes(b"half")
        raise KeyboardInterrupt

    monkeypatch.setattr(korpus_nsmc, "fetch_nsmc", interrupted)
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
    wanted = download.NSMC["train"].blob[:12]
    assert published_difference(folder, "train", 2) == (
        f"ratings_train.txt is not the published file: checksum {got} instead of {wanted}; "
        "figures are not comparable with published ones"
    )
    assert "; 3 rows instead of 2; " in published_difference(folder, "train", 3)


def test_the_blob_id_is_gits(tmp_path: Path) -> None:
    (tmp_path / "a").write_bytes(b"hello\n")
    assert git_blob_id(tmp_path / "a") == "ce013625030ba8dba906f756967f9e9ca394464a"  # git hash-object


def test_the_published_values_are_those_of_the_repository() -> None:
    assert {split: (p.blob, p.size, p.rows) for split, p in download.NSMC.items()} == {
        "train": ("ac0dba272895dc1d0b3dd5f11afbeaeb7abe7876", 14_628_807, 150_000),
        "test": ("b6cfcd8cd1557bcd9bf06617b0e429ed73e9a367", 4_893_335, 50_000),
    }
