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
from bunryu.serving.batcher import Answer, Batcher, Busy
from bunryu.serving.errors import HttpError
from bunryu.serving.schemas import RequestSchemas, read_json

POSITIVE_NAMES = ("긍정", "positive", "pos", "1")  # labels that say it themselves


@dataclass(frozen=True)
class Handlers:  # the name of a handler is in /openapi.json, and so its docstring would be
    labels: Sequence[str]
    positive: int | None  # the class that /api calls positive
    batcher: Batcher
    schemas: RequestSchemas
    deadline: float  # seconds that a request may take once its body has arrived

    async def predict(self, request: Request) -> Response:
        texts, pairs, listed = self.schemas.documents(await read_json(request))
        predictions = self._predictions(await self._answer(request, texts, pairs))
        return _json({"predictions": predictions} if listed else predictions[0])

    async def demo(self, request: Request) -> Response:
        sentence = self.schemas.sentence(await read_json(request))
        answer = await self._answer(request, [sentence], None)
        probabilities, best = softmax(answer.logits)[0].tolist(), int(answer.logits[0].argmax())
        positive = 1 if self.positive is None else self.positive
        sign = "" if self.positive is None else f" ({'positive' if best == positive else 'negative'})"
        shown = {"sentence": sentence, "prediction": f"{self.labels[best]}{sign}"}
        for side, index in (("positive", positive), ("negative", 1 - positive)):
            shown[f"{side}_data"] = f"{self.labels[index]} {round(probabilities[index], 4)}"
            shown[f"{side}_width"] = f"{round(100 * probabilities[index], 2)}%"
        return _json({**shown, "cut": bool(answer.is_cut[0])})

    async def _answer(self, request: Request, texts: Sequence[str], pairs: Sequence[str] | None) -> Answer:
        """What the model gives; HttpError if there is no room, time or client left."""
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

    def _predictions(self, answer: Answer) -> list[dict[str, Any]]:
        """A ``schemas.Prediction`` for each document."""
        rows, best = softmax(answer.logits).tolist(), answer.logits.argmax(axis=1).tolist()
        return [
            {
                "label": self.labels[first],
                "probability": row[first],
                "probabilities": dict(zip(self.labels, row, strict=True)),
                "cut": cut,
            }
            for first, row, cut in zip(best, rows, answer.is_cut.tolist(), strict=True)
        ]


def positive_class(labels: Sequence[str], named: str | None) -> int | None:
    """The id of the class that is positive: the named one, or the only one of two with such a name."""
    found = [
        index for index, label in enumerate(labels)
        if (label == named if named is not None else label.casefold() in POSITIVE_NAMES)
    ]  # fmt: skip
    return found[0] if len(labels) == 2 and len(found) == 1 else None


def _json(answer: dict[str, Any]) -> Response:
    # Not checked against its schema as FastAPI would: that costs more time than a small model.
    return Response(json.dumps(answer, ensure_ascii=False).encode(), media_type="application/json")


def _unavailable(what: str) -> HttpError:
    return HttpError(503, what, where="service", fix="try again later", headers={"Retry-After": "1"})


async def _disconnect(request: Request) -> None:
    """Return when the client has closed its connection."""
    while (await request.receive())["type"] != "http.disconnect":
        pass
