"""uvicorn with bounds on what a connection may do before and after a request, and an orderly shutdown."""

from __future__ import annotations

import asyncio
import os
import signal
import threading
from collections.abc import Callable, Generator
from contextlib import contextmanager
from types import FrameType
from typing import Any

import uvicorn
from starlette.types import ASGIApp, Receive, Scope, Send
from uvicorn.protocols.http.httptools_impl import HttpToolsProtocol

from bunryu.serving.errors import HttpError

MAX_SERVED_CONNECTIONS = 512  # beyond, the one that waited longest for its request makes room, or else 503
MAX_OPEN_CONNECTIONS = 768  # those beyond are closed
SPARE_FILES = 64  # that the process may have open beside its connections
HEAD_SECONDS = 10.0  # that a request line and its headers may take to arrive
MAX_HEAD_BYTES = 1 << 16
MAX_MESSAGE_BYTES = 16 << 20  # the rest of a refused request is read and dropped, up to as many
LINGER_SECONDS = 1.0  # for the rest of a refused body to arrive and for the client to read its answer
PROBE_SECONDS = (0.0, 0.05)  # after a client's last byte: when to find out whether it still reads
LAST_REQUEST_SECONDS = 0.05  # for a request to arrive that was sent before the shutdown


class Connection(HttpToolsProtocol):
    """uvicorn's connection, which by itself bounds neither headers nor what follows an answer."""

    _bytes = 0  # since the request began
    _in_head = _closing = _ended = False
    _waits_since = 0.0  # when it connected or was last answered
    _head_timer: asyncio.TimerHandle | None = None
    _linger_timer: asyncio.TimerHandle | None = None

    def connection_made(self, transport: asyncio.Transport) -> None:  # type: ignore[override]
        super().connection_made(transport)
        self._waits_since = self.loop.time()
        served, opened = connection_limits()
        if len(self.connections) > served and not self._make_room():
            self.app = _too_many_connections
        if len(self.connections) > opened:
            transport.abort()
        self._wait_for_head()

    def connection_lost(self, exc: Exception | None) -> None:
        super().connection_lost(exc)
        for timer in filter(None, (self._head_timer, self._linger_timer)):
            timer.cancel()

    def eof_received(self) -> bool:  # type: ignore[override]
        """Keep the connection of a client that sends no more and waits for its answers."""
        self._ended = self._is_answering
        for seconds in PROBE_SECONDS * self._ended:
            self.loop.call_later(seconds, self._probe)
        return self._ended

    def _probe(self) -> None:
        """Send a client nothing but that its request has come: if it has gone, the second time fails."""
        if not (self.cycle.response_started or self.pipeline or self.scope["http_version"] != "1.1"):
            self.transport.write(b"HTTP/1.1 100 Continue\r\n\r\n")

    def data_received(self, data: bytes) -> None:
        super().data_received(data)
        self._bytes += len(data)
        if self._in_head and self._bytes > MAX_HEAD_BYTES:
            self._refuse(431, f"the headers have more than {MAX_HEAD_BYTES} bytes")
        elif self._bytes > MAX_MESSAGE_BYTES:
            self.transport.abort()

    def on_message_begin(self) -> None:
        super().on_message_begin()
        self._bytes, self._in_head = 0, True
        self._wait_for_head()

    def on_headers_complete(self) -> None:
        self._in_head = False
        if self._head_timer is not None:
            self._head_timer.cancel()
            self._head_timer = None
        super().on_headers_complete()
        if self._closing:
            self.cycle.keep_alive = False

    def on_message_complete(self) -> None:
        super().on_message_complete()
        self._bytes = 0
        if self._linger_timer is not None:
            self._linger_timer.cancel()

    def on_response_complete(self) -> None:
        super().on_response_complete()
        self._waits_since = self.loop.time()
        if self._ended and self.cycle.response_complete:
            self.transport.close()
        if self.cycle.response_complete and self.cycle.more_body and not self.transport.is_closing():
            # The rest of the body is still coming: closed at once, the client might not read its answer.
            self._linger_timer = self.loop.call_later(LINGER_SECONDS, self.transport.close)

    def send_400_response(self, msg: str) -> None:
        self._refuse(400, "this is no HTTP/1.1 request")

    def shutdown(self) -> None:
        self._closing = True
        if self.cycle is None or self.cycle.response_complete:
            self.loop.call_later(LAST_REQUEST_SECONDS, super().shutdown)
        else:
            super().shutdown()

    def timeout_keep_alive_handler(self) -> None:
        super().timeout_keep_alive_handler()
        self.loop.call_later(HEAD_SECONDS, self.transport.abort)  # if the client does not read

    @property
    def _is_answering(self) -> bool:
        """Whether a whole request has come and its answer has not gone."""
        return self.cycle is not None and not (self.cycle.response_complete or self.cycle.more_body)

    def _make_room(self) -> bool:
        """Close the connection that has waited longest for a request; whether there was one beside this."""
        others = (other for other in self.connections if other is not self and isinstance(other, Connection))
        waiting = [one for one in others if not (one._is_answering or one.transport.is_closing())]
        if waiting:
            min(waiting, key=lambda one: one._waits_since).transport.abort()
        return bool(waiting)

    def _wait_for_head(self) -> None:
        if self._head_timer is None:
            what = f"no request arrived within {HEAD_SECONDS:g} s"
            self._head_timer = self.loop.call_later(HEAD_SECONDS, self._refuse, 408, what)

    def _refuse(self, status: int, what: str) -> None:
        if self.transport.is_closing():
            return
        fix = "one HTTP/1.1 request after another"
        response = HttpError(status, what, where="request", fix=fix).response()
        lines = [f"HTTP/1.1 {status} ".encode(), b"connection: close"]
        lines += [name + b": " + value for name, value in response.raw_headers]
        self.transport.write(b"\r\n".join(lines) + b"\r\n\r\n" + bytes(response.body))
        self.transport.close()


def connection_limits() -> tuple[int, int]:
    """How many connections are served, and how many may be open: fewer where few files may be open."""
    if os.name != "posix":
        return MAX_SERVED_CONNECTIONS, MAX_OPEN_CONNECTIONS
    import resource

    files, _ = resource.getrlimit(resource.RLIMIT_NOFILE)
    opened = MAX_OPEN_CONNECTIONS if files < 0 else min(MAX_OPEN_CONNECTIONS, max(files - SPARE_FILES, 3))
    return min(MAX_SERVED_CONNECTIONS, opened * 2 // 3), opened


async def _too_many_connections(scope: Scope, receive: Receive, send: Send) -> None:
    what = f"more than {connection_limits()[0]} requests are being answered"
    headers = {"Retry-After": "1", "Connection": "close"}
    error = HttpError(503, what, where="service", fix="try again later", headers=headers)
    await error.response()(scope, receive, send)


class Server(uvicorn.Server):
    """uvicorn's server: SIGTERM or the first Ctrl-C lets it finish its requests, a second Ctrl-C does not."""

    def __init__(self, app: ASGIApp, on_listening: Callable[[], None] = lambda: None) -> None:
        config = uvicorn.Config(
            app, http=Connection, ws="none", lifespan="on", log_config=None, log_level="error",
            access_log=False, proxy_headers=False, server_header=False,
            timeout_graceful_shutdown=30,  # seconds for the requests that are being answered
        )  # fmt: skip
        super().__init__(config)
        self._on_listening = on_listening

    async def startup(self, sockets: Any = None) -> None:
        await super().startup(sockets)
        self._on_listening()

    @contextmanager
    def capture_signals(self) -> Generator[None, None, None]:
        """Handle the signals, and unlike uvicorn do not raise them again: that would end the process."""
        if threading.current_thread() is threading.main_thread():  # no other can
            for number in (signal.SIGINT, signal.SIGTERM):
                signal.signal(number, self.handle_exit)
        yield

    def handle_exit(self, sig: int, frame: FrameType | None) -> None:
        if self.should_exit and sig == signal.SIGINT:
            os._exit(130)
        self.should_exit = True
