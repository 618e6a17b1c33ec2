"""What checks every request before it reaches a handler, and completes every answer on its way out."""

from __future__ import annotations

import asyncio
import re
import secrets
import time
from collections.abc import Sequence
from dataclasses import dataclass
from ipaddress import ip_address
from urllib.parse import parse_qs

from starlette.types import ASGIApp, Message, Receive, Scope, Send

from bunryu.serving.errors import HttpError, Log, error_record, timestamp

# These need no token: /health, and the page, which holds no data and sends the token with what it asks.
HEALTH_PATH = "/health"
OPEN_PATHS = {"/", HEALTH_PATH}
# A browser opens a page by its address alone, so here the token may be in the query.
TOKEN_IN_QUERY_PATHS = {"/docs", "/docs/ko"}

_HOST = re.compile(r"(\[[0-9a-f:.]+\]|[^:\[\]]+)(:[0-9]{1,5})?")


@dataclass(frozen=True)
class HostPolicy:
    """Which Host headers are answered.

    The owner of another web page can let its own name resolve to this machine (DNS rebinding), and a
    browser then takes the service for a part of that page. This needs a name: addresses and known names
    are safe.
    """

    loopback: bool = True  # whether the service listens on a loopback address only
    names: tuple[str, ...] = ()  # others that are allowed; *.example.org stands for all names below

    def allow(self, host: str) -> bool:
        """Whether to answer a Host header, given in lower case."""
        if (match := _HOST.fullmatch(host)) is None:
            return False
        name = match[1]
        try:
            address = ip_address(name.strip("[]"))
        except ValueError:
            below = tuple(pattern[1:] for pattern in self.names if pattern.startswith("*."))
            return name == "localhost" or name in self.names or name.endswith(below)
        return address.is_loopback or not self.loopback


@dataclass(frozen=True)
class AccessMiddleware:
    """Passes on requests with an allowed Host, the token if needed, a body within bounds; else HttpError."""

    app: ASGIApp
    hosts: HostPolicy
    token: str | None  # what a caller must send; None if nothing
    body_bytes: int  # that a body may have
    body_seconds: float  # that it may take to arrive

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] == "http":
            scope["path"] = re.sub("//+", "/", scope["path"])  # an address with a blank part is the same one
            if scope["path"] != HEALTH_PATH:  # whoever watches over the service may have any name for it
                self._check_host([value for name, value in scope["headers"] if name == b"host"])
            headers = dict(scope["headers"])
            if self.token is not None and scope["path"] not in OPEN_PATHS:
                self._check_token(scope, self.token, headers.get(b"authorization", b""))
            self._check_size(int(headers.get(b"content-length", b"0")))
            receive = self._bounded(receive)
        await self.app(scope, receive, send)

    def _check_host(self, given: list[bytes]) -> None:
        if len(given) != 1 or not self.hosts.allow(given[0].decode("latin-1").lower()):
            what = "this service does not answer under that Host name"
            fix = "open it by its address, or start bunryu serve with --allow-host NAME"
            raise HttpError(400, what, where="header Host", fix=fix)

    def _check_token(self, scope: Scope, token: str, authorization: bytes) -> None:
        scheme, _, given = authorization.partition(b" ")
        if scope["path"] in TOKEN_IN_QUERY_PATHS and not authorization:
            queried = parse_qs(scope["query_string"].decode("latin-1")).get("token", [""])
            scheme, given = b"bearer", queried[0].encode("utf-8", "replace")
        if not secrets.compare_digest(given.strip(), token.encode()) or scheme.lower() != b"bearer":
            what, headers = "the token is missing or wrong", {"WWW-Authenticate": "Bearer"}
            fix = "Authorization: Bearer TOKEN, with the token of the address that bunryu serve printed"
            raise HttpError(401, what, where="header Authorization", fix=fix, headers=headers)

    def _check_size(self, size: int) -> None:
        if size > self.body_bytes:
            what = f"the body has more than {self.body_bytes} bytes"
            raise HttpError(413, what, where="body", fix="send fewer texts at once")

    def _bounded(self, receive: Receive) -> Receive:
        """``receive`` that raises HttpError once a body is too long or too slow."""
        until = asyncio.get_running_loop().time() + self.body_seconds
        size, complete = 0, False

        async def bounded() -> Message:
            nonlocal size, complete
            if complete:  # the next message says that the client has gone, at any time
                return await receive()
            try:
                async with asyncio.timeout_at(until):
                    message = await receive()
            except TimeoutError:
                what = f"the body did not arrive within {self.body_seconds:g} s"
                raise HttpError(408, what, where="body", fix="try again") from None
            size += len(message.get("body", b""))
            self._check_size(size)
            complete = not message.get("more_body", False)
            return message

        return bounded


@dataclass(frozen=True)
class ErrorMiddleware:
    """The outermost: gives every answer the security headers, every error its one form, and logs both."""

    app: ASGIApp
    headers: Sequence[tuple[bytes, bytes]]  # added to every answer
    log: Log  # takes a record of each request, without query strings and texts

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] != "http":
            await self.app(scope, receive, send)
            return
        scope.setdefault("state", {})  # where a handler says how many texts there were
        start, status = time.perf_counter(), 0

        async def complete(message: Message) -> None:
            nonlocal status
            if message["type"] == "http.response.start":
                status = message["status"]
                message["headers"] = [*message["headers"], *self.headers]
            await send(message)

        try:
            await self.app(scope, receive, complete)
        except HttpError as error:
            await error.response()(scope, receive, complete)
        except Exception as error:
            self.log(error_record(error))
            if status:  # the answer has begun, so no other can be sent
                raise
            what, fix = "the service failed to answer", "its log says why; try again later"
            await HttpError(500, what, where="service", fix=fix).response()(scope, receive, complete)
        finally:
            self.log(_access_record(scope, status, time.perf_counter() - start))


def _access_record(scope: Scope, status: int, seconds: float) -> dict[str, object]:
    return {
        "time": timestamp(),
        "client": scope["client"][0] if scope.get("client") else None,
        "method": scope["method"],
        "path": scope["path"][:200],
        "status": status,
        "ms": round(1000 * seconds, 2),
        "texts": scope["state"].get("texts", 0),
    }
