"""The handlers of POST /predict and POST /api."""

from __future__ import annotations

import asyncio
import json
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from fastapi import Request
from fastapi.responses import Response

from bunryu.metrics import softmax
from bunryu.serving.batcher import Batcher, Busy, Logits
from bunryu.serving.errors import HttpError
from bunryu.serving.schemas import RequestSchemas, read_json


@dataclass(frozen=True)
class Handlers:  # the name of a handler is in /openapi.json, and so its docstring would be
    labels: Sequence[str]
    batcher: Batcher
    schemas: RequestSchemas
    deadline: float  # seconds that a request may take once its body has arrived

    async def predict(self, request: Request) -> Response:
        texts, pairs, listed = self.schemas.documents(await read_json(request))
        predictions = self._predictions(await self._logits(request, texts, pairs))
        return _json({"predictions": predictions} if listed else predictions[0])

    async def demo(self, request: Request) -> Response:
        sentence = self.schemas.sentence(await read_json(request))
        logits = await self._logits(request, [sentence], None)
        negative, positive = softmax(logits)[0].tolist()
        best = int(logits[0].argmax())
        return _json(
            {
                "sentence": sentence,
                "prediction": f"{self.labels[best]} ({('negative', 'positive')[best]})",
                "positive_data": f"{self.labels[1]} {round(positive, 4)}",
                "negative_data": f"{self.labels[0]} {round(negative, 4)}",
                "positive_width": f"{round(100 * positive, 2)}%",
                "negative_width": f"{round(100 * negative, 2)}%",
            }
        )

    async def _logits(self, request: Request, texts: Sequence[str], pairs: Sequence[str] | None) -> Logits:
        """Logits of shape (texts, classes); HttpError if there is no room, time or client left."""
        request.state.texts = len(texts)  # for the access log
        try:
            answer = self.batcher.submit(texts, pairs, self.deadline)
        except Busy:
            raise _unavailable("too many texts are waiting") from None
        disconnected = asyncio.create_task(_disconnect(request))
        disconnected.add_done_callback(lambda _: answer.cancel())
        try:
            async with asyncio.timeout(self.deadline):
                return await answer
        except TimeoutError:
            raise _unavailable(f"the answer was not ready within {self.deadline:g} s") from None
        except asyncio.CancelledError:
            if not disconnected.done():  # the service itself is being ended
                raise
            raise HttpError(499, "the client has gone", where="connection", fix="") from None
        finally:
            disconnected.cancel()

    def _predictions(self, logits: Logits) -> list[dict[str, Any]]:
        """A ``schemas.Prediction`` for each row of logits."""
        return [
            {
                "label": self.labels[best],
                "probability": row[best],
                "probabilities": dict(zip(self.labels, row, strict=True)),
            }
            for best, row in zip(logits.argmax(axis=1).tolist(), softmax(logits).tolist(), strict=True)
        ]


def _json(answer: dict[str, Any]) -> Response:
    # Not checked against its schema as FastAPI would: that costs more time than a small model.
    return Response(json.dumps(answer, ensure_ascii=False).encode(), media_type="application/json")


def _unavailable(what: str) -> HttpError:
    return HttpError(503, what, where="service", fix="try again later", headers={"Retry-After": "1"})


async def _disconnect(request: Request) -> None:
    """Return when the client has closed its connection."""
    while (await request.receive())["type"] != "http.disconnect":
        pass
