"""What every request passes before the service sees it, and every answer on its way out."""

from __future__ import annotations

import asyncio
import re
import secrets
import time
from collections.abc import Sequence
from dataclasses import dataclass
from functools import lru_cache
from ipaddress import ip_address
from urllib.parse import parse_qs

from starlette.types import ASGIApp, Message, Receive, Scope, Send

from bunryu.serving.errors import HttpError, Log, failure, now, unexpected

# Without the token: whether the service lives, and the page, which holds nothing and asks with the token.
OPEN = {"/", "/health"}
# A browser opens a page by its address alone, so there the token may stand in it.
PAGES = {"/docs"}

_HOST = re.compile(r"(\[[0-9a-f:.]+\]|[^:\[\]]+)(:[0-9]{1,5})?")


@dataclass(frozen=True)
class HostPolicy:
    """Which Host headers are answered.

    A page elsewhere can let its own name point at this machine (DNS rebinding), and a browser then takes
    the service for a part of that page. It needs a name for that: addresses and known names are safe.

    Args:
        loopback: whether the service listens on a loopback address only.
        names: others that are allowed; ``*.example.org`` stands for all names below.
    """

    loopback: bool = True
    names: tuple[str, ...] = ()

    def allow(self, host: str) -> bool:
        """Whether a Host header, in lower case, is of ours."""
        match = _HOST.fullmatch(host)
        if match is None:
            return False
        name = match[1]
        try:
            address = ip_address(name.strip("[]"))
        except ValueError:
            return name == "localhost" or any(_is_of(name, pattern) for pattern in self.names)
        return address.is_loopback or not self.loopback


def _is_of(name: str, pattern: str) -> bool:
    return name.endswith(pattern[1:]) if pattern.startswith("*.") else name == pattern


class AccessMiddleware:
    """Lets through what has an allowed Host, the token where one is needed, and a body within bounds.

    Args:
        app: what comes after.
        hosts: the allowed ones.
        token: what a caller must have; None for nothing.
        body_bytes: a body may have at most.
        body_seconds: it may take to arrive.
    """

    def __init__(
        self, app: ASGIApp, *, hosts: HostPolicy, token: str | None, body_bytes: int, body_seconds: float
    ) -> None:
        self._app = app
        self._allow = lru_cache(256)(hosts.allow)
        self._token = token
        self._bytes = body_bytes
        self._seconds = body_seconds

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Pass a request on, or raise a Refusal."""
        if scope["type"] != "http":
            await self._app(scope, receive, send)
            return
        headers = dict(scope["headers"])
        self._check_host([value for name, value in scope["headers"] if name == b"host"])
        if self._token is not None and scope["path"] not in OPEN:
            self._check_token(scope, headers.get(b"authorization", b""))
        if int(headers.get(b"content-length", b"0")) > self._bytes:
            raise self._too_large()
        await self._app(scope, self._bounded(receive), send)

    def _check_host(self, given: list[bytes]) -> None:
        if len(given) != 1 or not self._allow(given[0].decode("latin-1").lower()):
            raise HttpError(
                400,
                "this service does not answer under that Host name",
                where="header Host",
                fix="open it by its address, or start bunryu serve with --allow-host NAME",
            )

    def _check_token(self, scope: Scope, authorization: bytes) -> None:
        scheme, _, given = authorization.partition(b" ")
        if scope["path"] in PAGES and not authorization:
            queried = parse_qs(scope["query_string"].decode("latin-1")).get("token", [""])
            scheme, given = b"bearer", queried[0].encode("utf-8", "replace")
        right = secrets.compare_digest(given.strip(), str(self._token).encode())
        if scheme.lower() != b"bearer" or not right:
            raise HttpError(
                401,
                "the token is missing or wrong",
                where="header Authorization",
                fix="Authorization: Bearer TOKEN, with the token of the address that bunryu serve printed",
                headers={"WWW-Authenticate": "Bearer"},
            )

    def _too_large(self) -> HttpError:
        return HttpError(
            413, f"the body has more than {self._bytes} bytes", where="body", fix="send fewer texts at once"
        )

    def _bounded(self, receive: Receive) -> Receive:
        """``receive`` that gives up on a body which is too long or too slow."""
        until = asyncio.get_running_loop().time() + self._seconds
        size, whole = 0, False

        async def bounded() -> Message:
            nonlocal size, whole
            if whole:  # what comes now is that the client has gone
                return await receive()
            try:
                async with asyncio.timeout_at(until):
                    message = await receive()
            except TimeoutError:
                raise HttpError(
                    408, f"the body did not arrive within {self._seconds:g} s", where="body", fix="try again"
                ) from None
            size += len(message.get("body", b""))
            if size > self._bytes:
                raise self._too_large()
            whole = not message.get("more_body", False)
            return message

        return bounded


class ErrorMiddleware:
    """The outermost: every answer has the security headers, every failure the form of errors, and a line
    of the log.

    Args:
        app: what comes after.
        headers: added to every answer.
        log: takes the access log's lines; they hold no query strings and no texts.
    """

    def __init__(self, app: ASGIApp, *, headers: Sequence[tuple[bytes, bytes]], log: Log) -> None:
        self._app = app
        self._headers = list(headers)
        self._log = log

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Answer a request, come what may."""
        if scope["type"] != "http":
            await self._app(scope, receive, send)
            return
        began = time.perf_counter()
        state = scope.setdefault("state", {})
        status = 0

        async def finish(message: Message) -> None:
            nonlocal status
            if message["type"] == "http.response.start":
                status = message["status"]
                message["headers"] = [*message["headers"], *self._headers]
            await send(message)

        try:
            await self._app(scope, receive, finish)
        except HttpError as refusal:
            await refusal.response()(scope, receive, finish)
        except Exception as error:
            self._log(failure(error))
            if status:
                raise
            await unexpected().response()(scope, receive, finish)
        finally:
            self._log(
                {
                    "time": now(),
                    "client": scope["client"][0] if scope.get("client") else None,
                    "method": scope["method"],
                    "path": scope["path"][:200],
                    "status": status,
                    "ms": round(1000 * (time.perf_counter() - began), 2),
                    "texts": state.get("texts", 0),
                }
            )


def security_headers(policy: str) -> list[tuple[bytes, bytes]]:
    """The headers of every answer.

    Args:
        policy: the Content-Security-Policy.
    """
    return [
        (b"content-security-policy", policy.encode("ascii")),
        (b"x-content-type-options", b"nosniff"),
        (b"referrer-policy", b"no-referrer"),
        (b"cross-origin-resource-policy", b"same-origin"),
        (b"cache-control", b"no-store"),
    ]
