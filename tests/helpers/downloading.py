"""A loopback server that is taken for the real one, and the ways it may misbehave."""

from __future__ import annotations

import contextlib
import hashlib
import threading
from collections.abc import Callable, Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

import pytest
from Korpora import korpus_nsmc

from bunryu.data import nsmc_download
from bunryu.data.nsmc_download import Published

CONTENT = {
    "train": "id\tdocument\tlabel\n1\t좋다\t1\n2\t나쁘다\t0\n".encode(),
    "test": "id\tdocument\tlabel\n3\t최고\t1\n4\t최악\t0\n".encode(),
}

Answer = Callable[[BaseHTTPRequestHandler, bytes], None]


def send(
    handler: BaseHTTPRequestHandler, body: bytes, *, status: int = 200, length: int | None = None
) -> None:
    handler.send_response(status)
    handler.send_header("Content-Length", str(len(body) if length is None else length))
    handler.end_headers()
    handler.wfile.write(body)


def _endless(handler: BaseHTTPRequestHandler, body: bytes) -> None:
    with contextlib.suppress(ConnectionError):
        send(handler, b"x" * 10**6)


WRONG: dict[str, Answer] = {
    "truncated": lambda handler, body: send(handler, body[:-10], length=len(body)),
    "web page": lambda handler, _: send(handler, b"\n<!DOCTYPE html><title>Sign in to the network</title>"),
    "one byte wrong": lambda handler, body: send(handler, body.replace(b"1", b"0", 1)),
    "empty": lambda handler, _: send(handler, b""),
    "too long": _endless,
    "not found": lambda handler, _: send(handler, b"gone", status=404),
    "unavailable": lambda handler, _: send(handler, b"later", status=503),
}


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
                outer.answers[self.path](self, CONTENT.get(self.path[1:], b""))

            def log_message(self, format: str, *args: object) -> None:
                pass

        self._server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
        self._server.daemon_threads = True
        self.url = f"http://127.0.0.1:{self._server.server_port}"
        self._thread = threading.Thread(target=self._server.serve_forever, args=(0.01,))
        self._thread.start()

    def hang(self, handler: BaseHTTPRequestHandler, body: bytes) -> None:
        """The beginning of an answer, then silence."""
        send(handler, body[:5], length=len(body))
        self.released.wait(3)

    def trickle(self, handler: BaseHTTPRequestHandler, body: bytes) -> None:
        """The headers, then a byte at a time, never long without one."""
        send(handler, b"", length=10**6)
        with contextlib.suppress(ConnectionError):
            for _ in range(100):  # in the end even one who waits is let go
                if self.released.wait(0.02):
                    break
                handler.wfile.write(b"x")

    def failing(self, times: int, answer: Answer) -> Answer:
        """So many answers of that kind, then right ones."""
        left = iter([answer] * times)
        return lambda handler, body: next(left, send)(handler, body)

    def close(self) -> None:
        self.released.set()
        self._server.shutdown()
        self._server.server_close()
        self._thread.join()


@pytest.fixture
def server(monkeypatch: pytest.MonkeyPatch) -> Iterator[Server]:
    """A server that is taken for the real one, and its two files for the published ones."""
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
    monkeypatch.setattr(nsmc_download, "NSMC", published)
    monkeypatch.setattr(nsmc_download, "SECONDS_BEFORE_RETRY", 0.002)
    for name in ("http_proxy", "HTTP_PROXY", "all_proxy", "ALL_PROXY"):
        monkeypatch.delenv(name, raising=False)
    yield server
    server.close()


def files_in(root: Path) -> dict[str, bytes]:
    """Every file below, hidden ones too, and every empty folder."""
    found = {str(path.relative_to(root)): path.read_bytes() for path in root.rglob("*") if path.is_file()}
    return found | {str(path.relative_to(root)): b"" for path in root.rglob(".*")}
