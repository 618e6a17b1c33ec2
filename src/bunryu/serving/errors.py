"""The one form of every answer that is not the one asked for, and of the log's lines about failures."""

from __future__ import annotations

import json
import traceback
from collections.abc import Callable, Mapping
from datetime import datetime

from starlette.responses import Response

Log = Callable[[Mapping[str, object]], None]


class HttpError(Exception):
    """An answer other than the one asked for, in the one form that all have.

    Args:
        status: of HTTP.
        what: is wrong, in one line, without the texts that were sent.
        where: in the request.
        fix: what to do.
        headers: to send along.
    """

    def __init__(
        self, status: int, what: str, *, where: str, fix: str, headers: Mapping[str, str] | None = None
    ) -> None:
        super().__init__(status, what)
        self.status = status
        self.error = {"what": what, "where": where, "fix": fix}
        self.headers = headers

    def response(self) -> Response:
        """The answer that says so."""
        body = json.dumps({"error": self.error}, ensure_ascii=False).encode("utf-8", "replace")
        return Response(body, self.status, self.headers, "application/json")


def now() -> str:
    """The time as the log writes it."""
    return datetime.now().astimezone().isoformat(timespec="milliseconds")


def failure(error: Exception) -> dict[str, object]:
    """The log's line for something that should not have happened."""
    trace = [
        f"{frame.filename}:{frame.lineno} {frame.name}" for frame in traceback.extract_tb(error.__traceback__)
    ]
    return {"time": now(), "error": f"{type(error).__name__}: {str(error)[:200]}", "trace": trace}


def unexpected() -> HttpError:
    """What a client is told of something that should not have happened."""
    return HttpError(
        500, "the service failed to answer", where="service", fix="its log says why; try again later"
    )
