"""Which requests reach a handler, and what every answer and the log get on the way out."""

from __future__ import annotations

import asyncio
from typing import Any

import pytest
from starlette.requests import Request
from starlette.responses import PlainTextResponse

from bunryu.serving.errors import HttpError
from bunryu.serving.middleware import AccessMiddleware, ErrorMiddleware, HostPolicy

LOCAL, OPEN = HostPolicy(), HostPolicy(loopback=False, names=("bound.lan", "*.tunnel.example"))
ADDRESSES = ["localhost", "localhost:8000", "127.0.0.1:8000", "127.8.9.1", "[::1]:8000"]
FOREIGN = ["192.168.0.2", "0.0.0.0:8000", "evil.example", "localhost.evil.example", "127.0.0.1.evil.example"]
MALFORMED = ["localhost@evil.example", "localhost:8000:9", "localhost:x", "::1", "[::1", ""]
ALLOWED = ["192.168.0.2:8000", "[2001:db8::1]", "bound.lan:80", "abc.tunnel.example", "a.b.tunnel.example"]


@pytest.mark.parametrize(
    ("hosts", "allowed", "refused"),
    [
        (LOCAL, ADDRESSES, FOREIGN + MALFORMED),
        (OPEN, ADDRESSES + ALLOWED, [*MALFORMED, "tunnel.example", "eviltunnel.example", "x.bound.lan"]),
    ],
)
def test_hosts(hosts: HostPolicy, allowed: list[str], refused: list[str]) -> None:
    assert [host for host in allowed + refused if hosts.allow(host)] == allowed


async def echo(scope: Any, receive: Any, send: Any) -> None:
    """An application that answers the size of the body, and fails if it is "fail"."""
    body = await Request(scope, receive).body()
    if body == b"fail":
        raise ValueError("a secret" + "!" * 300)
    await PlainTextResponse(str(len(body)))(scope, receive, send)


def status_of(
    *parts: Any, path: str = "/", query: bytes = b"", token: str | None = None, **headers: str
) -> int:
    """The status of a request whose body comes in parts; None is a part that never comes."""
    middleware = AccessMiddleware(echo, hosts=LOCAL, token=token, body_bytes=10, body_seconds=0.05)
    given = {"host": "localhost", **headers}
    raw = [(name.replace("_", "-").encode(), value.encode()) for name, value in given.items()]
    scope = {"type": "http", "method": "POST", "path": path, "query_string": query, "headers": raw}
    messages = list(parts or [b""])

    async def receive() -> Any:
        if (part := messages.pop(0)) is None:
            await asyncio.sleep(60)
        return {"type": "http.request", "body": part, "more_body": bool(messages)}

    statuses: list[int] = []

    async def send(message: Any) -> None:
        statuses.extend([message["status"]] if "status" in message else [])

    try:
        asyncio.run(middleware(scope, receive, send))
    except HttpError as error:
        return error.status
    return statuses[0]


def test_a_doubled_and_a_missing_host_are_refused() -> None:
    middleware = AccessMiddleware(echo, hosts=LOCAL, token=None, body_bytes=10, body_seconds=1.0)
    for hosts in ([], [(b"host", b"localhost"), (b"host", b"evil.example")]):
        scope = {"type": "http", "path": "/", "headers": hosts}
        with pytest.raises(HttpError, match="400"):
            asyncio.run(middleware(scope, None, None))  # type: ignore[arg-type]


def test_a_body_that_is_too_large_or_does_not_arrive_is_not_read_on() -> None:
    assert status_of(b"12345", b"67890") == 200
    assert status_of(b"12345", b"67890", b"1", None) == 413
    for length in ("11", "99999999999999999999"):
        assert status_of(None, content_length=length) == 413
    assert status_of(b"12345", None) == 408


def test_all_but_health_and_the_page_need_the_token() -> None:
    token = "a-token-of-some-length"
    paths = ("/", "/health", "/predict", "/docs", "/nothing")
    assert [status_of(path=path, token=token) for path in paths] == [200, 200, 401, 401, 401]
    right = [f"Bearer {token}", f"bearer  {token} "]
    given = [*right, f"Bearer {token}x", f"Basic {token}", token, "Bearer é"]
    assert [sent for sent in given if status_of(path="/p", token=token, authorization=sent) == 200] == right
    query = f"token={token}".encode()
    assert status_of(path="/predict", query=query, token=token) == 401
    assert status_of(path="/docs", query=query, token=token) == 200
    assert status_of(path="/docs", query=b"token=%ff%ed%a0%80", token=token) == 401


def outside(body: bytes) -> tuple[list[Any], list[Any]]:
    """What a request gets sent through ErrorMiddleware, and the lines of the log."""
    lines: list[Any] = []
    sent: list[Any] = []
    middleware = ErrorMiddleware(echo, headers=[(b"x-safe", b"yes")], log=lines.append)
    scope = {"type": "http", "method": "POST", "path": "/p" * 500, "query_string": b"token=secret"}
    scope |= {"headers": [], "client": ("192.0.2.1", 1234)}

    async def receive() -> Any:
        return {"type": "http.request", "body": body}

    async def send(message: Any) -> None:
        sent.append(message)

    asyncio.run(middleware(scope, receive, send))
    return sent, lines


def test_every_answer_has_the_headers_and_a_line_of_the_log() -> None:
    sent, (line,) = outside(b"12345")
    assert (b"x-safe", b"yes") in sent[0]["headers"]
    assert (type(line.pop("time")), type(line.pop("ms"))) == (str, float)
    request = {"client": "192.0.2.1", "method": "POST", "path": "/p" * 100}
    assert line == {**request, "status": 200, "texts": 0}


def test_what_goes_wrong_is_logged_with_its_place_and_answered_without() -> None:
    sent, (failed, access) = outside(b"fail")
    assert failed["error"] == "ValueError: a secret" + "!" * 192
    assert failed["trace"][-1].endswith(" echo")
    assert access["status"] == 500
    assert (b"x-safe", b"yes") in sent[0]["headers"]
    assert b"secret" not in sent[1]["body"]
    assert b'"what": "the service failed to answer"' in sent[1]["body"]


def test_health_is_told_under_any_name_and_a_doubled_slash_changes_nothing() -> None:
    forged = {"host": "evil.example"}
    assert [status_of(path=path, **forged) for path in ("/health", "//health", "/model")] == [200, 200, 400]
    assert [status_of(path=path, token="x" * 16) for path in ("//", "//health", "//model")] == [200, 200, 401]
