"""Predictions for requests: from a batcher's logits to what a client reads, or why it gets none."""

from __future__ import annotations

import asyncio
from collections.abc import Sequence
from typing import Any

import numpy as np
from fastapi import Request

from bunryu.inference.predictor import Predictor
from bunryu.metrics import softmax
from bunryu.serving.batcher import Batcher, Busy, Logits
from bunryu.serving.errors import HttpError, Log, failure, unexpected


class Answers:
    """Predictions for requests, through a batcher.

    Args:
        predictor: the model.
        batcher: runs it.
        deadline: seconds a request may take.
        log: takes what went wrong.
    """

    def __init__(self, predictor: Predictor, batcher: Batcher, deadline: float, log: Log) -> None:
        self._labels = predictor.labels
        self._batcher = batcher
        self._deadline = deadline
        self._log = log

    async def logits(self, request: Request, texts: Sequence[str], pairs: Sequence[str] | None) -> Logits:
        """Logits of shape (texts, classes).

        Raises:
            Refusal: if there is too much to do, the time is up, the client has gone or the model failed.
        """
        request.state.texts = len(texts)
        try:
            answer = self._batcher.submit(texts, pairs, self._deadline)
        except Busy:
            raise _later("too many texts are waiting") from None
        watch = asyncio.create_task(_gone(request))
        watch.add_done_callback(lambda _: answer.cancel())
        try:
            async with asyncio.timeout(self._deadline):
                return await answer
        except TimeoutError:
            raise _later(f"the answer was not ready within {self._deadline:g} s") from None
        except asyncio.CancelledError:
            if not watch.done():  # the service itself is ended
                raise
            raise HttpError(499, "the client has gone", where="connection", fix="") from None
        except Exception as error:
            self._log(failure(error))
            raise unexpected() from None
        finally:
            watch.cancel()

    def predictions(self, logits: Logits) -> list[dict[str, Any]]:
        """Each row in the form of ``Prediction``."""
        rows = zip(logits.argmax(axis=1).tolist(), softmax(logits).tolist(), strict=True)
        return [
            {
                "label": self._labels[best],
                "probability": row[best],
                "probabilities": dict(zip(self._labels, row, strict=True)),
            }
            for best, row in rows
        ]

    def demo(self, sentence: str, logits: Logits) -> dict[str, str]:
        """The first row in the form of ``Demo``, the one of the tutorial's page."""
        negative, positive = softmax(logits)[0].tolist()
        sign = "positive" if np.argmax(logits[0]) else "negative"
        return {
            "sentence": sentence,
            "prediction": f"{self._labels[sign == 'positive']} ({sign})",
            "positive_data": f"{self._labels[1]} {round(positive, 4)}",
            "negative_data": f"{self._labels[0]} {round(negative, 4)}",
            "positive_width": f"{round(100 * positive, 2)}%",
            "negative_width": f"{round(100 * negative, 2)}%",
        }


def _later(what: str) -> HttpError:
    return HttpError(503, what, where="service", fix="try again later", headers={"Retry-After": "1"})


async def _gone(request: Request) -> None:
    """Return when the client has closed its connection."""
    while (await request.receive())["type"] != "http.disconnect":
        pass
