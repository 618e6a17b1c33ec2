"""uvicorn with bounds on what a connection may do before and after a request, and with an orderly end."""

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

MOST = 512  # open connections that are served; those beyond are told so, and beyond MOST_OPEN closed
MOST_OPEN = 768  # below the 1024 files that a process may usually have open
HEAD_SECONDS = 10.0  # a request line and its headers may take to arrive
HEAD_BYTES = 1 << 16
MESSAGE_BYTES = 16 << 20  # of a request that was refused, read and thrown away before we hang up
LINGER = 1.0  # seconds in which the rest of a refused body may still come, and the client read its answer
GRACE = 0.05  # seconds in which a request that is on its way at shutdown may still arrive
DRAIN = 30  # seconds after which a shutdown waits no longer


class Connection(HttpToolsProtocol):
    """uvicorn's connection, which by itself bounds neither headers nor what follows an answer."""

    _bytes = 0  # since the request began
    _in_head = False
    _closing = False
    _waiting: asyncio.TimerHandle | None = None
    _lingering: asyncio.TimerHandle | None = None

    def connection_made(self, transport: asyncio.Transport) -> None:  # type: ignore[override]
        """Count connections, and wait for a request only so long."""
        super().connection_made(transport)
        if len(self.connections) > MOST_OPEN:
            transport.abort()
        elif len(self.connections) > MOST:
            self.app = _full
        self._wait_for_head()

    def connection_lost(self, exc: Exception | None) -> None:
        """Forget the timers."""
        super().connection_lost(exc)
        for timer in (self._waiting, self._lingering):
            if timer is not None:
                timer.cancel()

    def data_received(self, data: bytes) -> None:
        """Read on, within bounds."""
        super().data_received(data)
        self._bytes += len(data)
        if self._in_head and self._bytes > HEAD_BYTES:
            self._refuse(431, f"the headers have more than {HEAD_BYTES} bytes")
        elif self._bytes > MESSAGE_BYTES:
            self.transport.abort()

    def on_message_begin(self) -> None:
        """Start to count."""
        super().on_message_begin()
        self._bytes, self._in_head = 0, True
        self._wait_for_head()

    def on_headers_complete(self) -> None:
        """Start the request."""
        self._in_head = False
        if self._waiting is not None:
            self._waiting.cancel()
            self._waiting = None
        super().on_headers_complete()
        if self._closing:
            self.cycle.keep_alive = False

    def on_message_complete(self) -> None:
        """Stay open for the next request."""
        super().on_message_complete()
        self._bytes = 0
        if self._lingering is not None:
            self._lingering.cancel()
            self._lingering = None

    def on_response_complete(self) -> None:
        """Close soon if a body goes on after its answer; at once, and the client might not read it."""
        super().on_response_complete()
        if self.cycle.response_complete and self.cycle.more_body and not self.transport.is_closing():
            self._lingering = self.loop.call_later(LINGER, self.transport.close)

    def send_400_response(self, msg: str) -> None:
        """Answer what is no HTTP in the form of all errors."""
        self._refuse(400, "this is no HTTP/1.1 request")

    def shutdown(self) -> None:
        """Finish what is here or on its way, then close."""
        self._closing = True
        if self.cycle is None or self.cycle.response_complete:
            self.loop.call_later(GRACE, super().shutdown)
        else:
            super().shutdown()

    def timeout_keep_alive_handler(self) -> None:
        """Close an idle connection, even one whose client does not read."""
        super().timeout_keep_alive_handler()
        self.loop.call_later(HEAD_SECONDS, self.transport.abort)

    def _wait_for_head(self) -> None:
        if self._waiting is None:
            self._waiting = self.loop.call_later(
                HEAD_SECONDS, self._refuse, 408, f"no request arrived within {HEAD_SECONDS:g} s"
            )

    def _refuse(self, status: int, what: str) -> None:
        if self.transport.is_closing():
            return
        response = HttpError(
            status, what, where="request", fix="one HTTP/1.1 request after another"
        ).response()
        lines = [f"HTTP/1.1 {status} ".encode(), b"connection: close"]
        lines += [name + b": " + value for name, value in response.raw_headers]
        self.transport.write(b"\r\n".join(lines) + b"\r\n\r\n" + bytes(response.body))
        self.transport.close()


async def _full(scope: Scope, receive: Receive, send: Send) -> None:
    """What a connection beyond ``MOST`` is told."""
    await HttpError(
        503,
        f"more than {MOST} connections are open",
        where="service",
        fix="try again later",
        headers={"Retry-After": "1", "Connection": "close"},
    ).response()(scope, receive, send)


class Server(uvicorn.Server):
    """uvicorn's server; SIGTERM or the first Ctrl-C ends it in good order, the second Ctrl-C at once.

    Args:
        app: what is served.
        ready: called once it listens.
    """

    def __init__(self, app: ASGIApp, ready: Callable[[], None] = lambda: None) -> None:
        super().__init__(
            uvicorn.Config(
                app,
                http=Connection,
                ws="none",
                lifespan="on",
                log_config=None,
                log_level="error",
                access_log=False,
                proxy_headers=False,
                server_header=False,
                timeout_graceful_shutdown=DRAIN,
            )
        )
        self._ready = ready

    async def startup(self, sockets: Any = None) -> None:
        """Listen, then say so."""
        await super().startup(sockets)
        self._ready()

    @contextmanager
    def capture_signals(self) -> Generator[None, None, None]:
        """Take the signals, and keep them: uvicorn raises them again afterwards, and would exit by them."""
        if threading.current_thread() is threading.main_thread():  # no other can
            for number in (signal.SIGINT, signal.SIGTERM):
                signal.signal(number, self.handle_exit)
        yield

    def handle_exit(self, sig: int, frame: FrameType | None) -> None:
        """Stop; at once if it was asked to before."""
        if self.should_exit and sig == signal.SIGINT:
            os._exit(130)
        self.should_exit = True
