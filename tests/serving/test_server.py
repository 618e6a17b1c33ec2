"""Clients that are slow, silent, rude or many, and a server that stops in good order."""

from __future__ import annotations

import asyncio
import http.client
import os
import re
import signal
import socket
import threading
import time
from collections.abc import Iterator
from contextlib import ExitStack, suppress
from typing import Any

import pytest
from starlette.responses import PlainTextResponse

from bunryu.serving.server import Server, connection_limits
from helpers.serving import parsed, raw, running

MODULE = "bunryu.serving.server"


async def hello(scope: Any, receive: Any, send: Any) -> None:
    """An application that answers before it has read anything."""
    if scope["type"] == "lifespan":
        for stage in ("startup", "shutdown"):
            await receive()
            await send({"type": f"lifespan.{stage}.complete"})
    else:
        await PlainTextResponse("hello")(scope, receive, send)


@pytest.fixture
def port() -> Iterator[int]:
    with running(hello) as (port, _):
        yield port


GET = b"GET / HTTP/1.1\r\nhost: localhost\r\n"


@pytest.mark.parametrize("start", [b"", b"GET ", GET, GET + b"\r\n" + GET])
def test_a_silent_client_is_given_up(monkeypatch: pytest.MonkeyPatch, port: int, start: bytes) -> None:
    monkeypatch.setattr(f"{MODULE}.HEAD_SECONDS", 0.1)
    answers = re.split(rb"(?=HTTP/1.1 \d)", raw(port, start))[1:]
    last = parsed(answers[-1])
    assert (last.status, last.what) == (408, "no request arrived within 0.1 s")
    assert [parsed(answer).status for answer in answers[:-1]] == [200] * start.count(b"\r\n\r\n")


@pytest.mark.parametrize(
    ("start", "status", "what"),
    [
        (b"\x16\x03\x01\x02\x00\x01\x00\x01\xfc", 400, "this is no HTTP/1.1 request"),
        (GET + b"bad\r\n\r\n", 400, "this is no HTTP/1.1 request"),
        (GET + b"x-long: " + b"x" * (1 << 16), 431, "the headers have more than 65536 bytes"),
    ],
)
def test_what_is_no_http_is_answered_with_an_error(port: int, start: bytes, status: int, what: str) -> None:
    answer = parsed(raw(port, start))
    assert (answer.status, answer.what) == (status, what)
    assert raw(port, GET + b"connection: close\r\n\r\n").endswith(b"hello")


def test_a_large_body_that_was_refused_may_end_and_its_client_reads_the_answer(port: int) -> None:
    client = http.client.HTTPConnection("127.0.0.1", port, timeout=30)
    for _ in range(2):
        client.request("POST", "/", body=b"x" * (10 << 20))
        assert client.getresponse().read() == b"hello"
    client.close()


def test_a_refused_body_without_an_end_is_cut_off(monkeypatch: pytest.MonkeyPatch, port: int) -> None:
    monkeypatch.setattr(f"{MODULE}.LINGER_SECONDS", 0.1)
    assert raw(port, b"POST / HTTP/1.1\r\nhost: a\r\ntransfer-encoding: chunked\r\n\r\n").endswith(b"hello")


def test_a_refused_body_is_thrown_away_within_bounds(monkeypatch: pytest.MonkeyPatch, port: int) -> None:
    monkeypatch.setattr(f"{MODULE}.LINGER_SECONDS", 60.0)
    monkeypatch.setattr(f"{MODULE}.MAX_MESSAGE_BYTES", 1 << 20)
    with socket.create_connection(("127.0.0.1", port), timeout=30) as connection:
        connection.sendall(b"POST / HTTP/1.1\r\nhost: a\r\ncontent-length: 99999999\r\n\r\n")
        with pytest.raises(ConnectionError):
            for _ in range(1000):
                connection.sendall(b"x" * (1 << 16))


@pytest.fixture
def waiting() -> Iterator[tuple[int, threading.Event]]:
    """A server that answers once its gate is open."""
    gate = threading.Event()

    async def later(scope: Any, receive: Any, send: Any) -> None:
        if scope["type"] == "http" and scope["path"] == "/later":
            await receive()
            while not gate.is_set():
                await asyncio.sleep(0.01)
        await hello(scope, receive, send)

    with running(later) as (port, _):
        yield port, gate
        gate.set()


LATER = b"GET /later HTTP/1.1\r\nhost: localhost\r\nconnection: close\r\n\r\n"


def test_requests_in_work_are_bounded(
    monkeypatch: pytest.MonkeyPatch, waiting: tuple[int, threading.Event]
) -> None:
    port, gate = waiting
    monkeypatch.setattr(f"{MODULE}.MAX_SERVED_CONNECTIONS", 2)
    monkeypatch.setattr(f"{MODULE}.MAX_OPEN_CONNECTIONS", 3)
    with ExitStack() as stack:
        busy = [stack.enter_context(socket.create_connection(("127.0.0.1", port), 30)) for _ in range(2)]
        for connection in busy:
            connection.sendall(LATER)
        time.sleep(0.2)
        full = parsed(raw(port, GET + b"\r\n"))
        assert (full.status, full.what) == (503, "more than 2 requests are being answered")
        assert full.headers["retry-after"] == "1"
        gate.set()
        assert [connection.recv(1 << 16).endswith(b"hello") for connection in busy] == [True, True]


@pytest.mark.parametrize("start", [b"", b"GET ", GET + b"content-length: 9\r\n\r\n{", GET + b"\r\n"])
def test_who_waits_longest_with_no_request_makes_room(
    monkeypatch: pytest.MonkeyPatch, waiting: tuple[int, threading.Event], start: bytes
) -> None:
    port, gate = waiting
    monkeypatch.setattr(f"{MODULE}.MAX_SERVED_CONNECTIONS", 3)
    with ExitStack() as stack:
        busy = stack.enter_context(socket.create_connection(("127.0.0.1", port), 30))
        busy.sendall(LATER)
        idle = []
        for _ in range(20):
            idle.append(stack.enter_context(socket.create_connection(("127.0.0.1", port), 30)))
            idle[-1].sendall(start)
        assert raw(port, GET + b"connection: close\r\n\r\n").endswith(b"hello")
        with suppress(ConnectionError):
            while idle[0].recv(1 << 16):
                pass  # what it was answered before it was closed
        gate.set()
        assert busy.recv(1 << 16).endswith(b"hello")


@pytest.mark.parametrize(
    ("files", "limits"), [(256, (128, 192)), (1024, (512, 768)), (-1, (512, 768)), (10, (2, 3))]
)
def test_fewer_connections_are_served_where_few_files_may_be_open(
    monkeypatch: pytest.MonkeyPatch, files: int, limits: tuple[int, int]
) -> None:
    monkeypatch.setattr("resource.getrlimit", lambda _: (files, files))
    assert connection_limits() == limits


def test_a_client_that_sends_no_more_is_answered(waiting: tuple[int, threading.Event]) -> None:
    port, gate = waiting
    with socket.create_connection(("127.0.0.1", port), 30) as half:
        half.sendall(GET + b"\r\n" + LATER)
        half.shutdown(socket.SHUT_WR)
        time.sleep(0.2)
        gate.set()
        with half.makefile("rb") as answer:
            answers = re.split(rb"(?=HTTP/1.1 \d)", answer.read())[1:]
    assert [parsed(one).body for one in answers if b" 100 " not in one] == [b"hello", b"hello"]


def test_a_request_on_its_way_at_shutdown_is_answered(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(f"{MODULE}.LAST_REQUEST_SECONDS", 20.0)
    with running(hello) as (port, server), socket.create_connection(("127.0.0.1", port), 30) as kept:
        kept.sendall(GET + b"\r\n")
        assert kept.recv(1 << 16).endswith(b"hello")
        server.should_exit = True
        with pytest.raises(ConnectionError):  # no new ones from now on
            while True:
                raw(port, GET + b"connection: close\r\n\r\n")
        time.sleep(0.2)
        kept.sendall(GET + b"\r\n")
        answer = kept.recv(1 << 16)
        assert answer.endswith(b"hello")
        assert b"\r\nconnection: close\r\n" in answer
        assert kept.recv(1) == b""


def test_the_second_interrupt_ends_at_once(monkeypatch: pytest.MonkeyPatch) -> None:
    codes: list[int] = []
    monkeypatch.setattr(os, "_exit", codes.append)
    server = Server(hello)
    for _ in range(2):
        server.handle_exit(signal.SIGTERM, None)
    assert (server.should_exit, codes) == (True, [])
    server.handle_exit(signal.SIGINT, None)
    assert codes == [130]
