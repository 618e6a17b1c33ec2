"""The one form of every error answer, and of the log's lines about errors."""

from __future__ import annotations

import json
import traceback
from collections.abc import Callable, Mapping
from datetime import datetime

from starlette.responses import Response

Log = Callable[[Mapping[str, object]], None]


class HttpError(Exception):
    """An error answer; raised anywhere below ``ErrorMiddleware``, which sends it.

    ``what`` is one line and repeats none of the texts that were sent; ``where`` is a part of the request.
    """

    def __init__(
        self, status: int, what: str, *, where: str, fix: str, headers: Mapping[str, str] | None = None
    ) -> None:
        super().__init__(status, what)
        self.status = status
        self.error = {"what": what, "where": where, "fix": fix}
        self.headers = headers

    def response(self) -> Response:
        body = json.dumps({"error": self.error}, ensure_ascii=False).encode("utf-8", "replace")
        return Response(body, self.status, self.headers, "application/json")


def timestamp() -> str:
    """The local time now, in ISO 8601 with milliseconds."""
    return datetime.now().astimezone().isoformat(timespec="milliseconds")


def error_record(error: Exception) -> dict[str, object]:
    """The log's line about an unexpected error: its message, and the stack without source lines."""
    stack = traceback.extract_tb(error.__traceback__)
    return {
        "time": timestamp(),
        "error": f"{type(error).__name__}: {str(error)[:200]}",
        "trace": [f"{frame.filename}:{frame.lineno} {frame.name}" for frame in stack],
    }
