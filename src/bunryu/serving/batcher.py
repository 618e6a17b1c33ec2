"""Micro-batching: texts of many requests, run by one thread in batches of similar length."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from itertools import accumulate, compress, pairwise
from queue import Empty, SimpleQueue
from typing import NamedTuple

import numpy as np
import numpy.typing as npt

from bunryu.encoding.batching import bounded_batches
from bunryu.inference.predictor import MAX_TOKENS, Predictor

MAX_ROUND_TEXTS = 256  # a round with as many takes no further request, so that a flood delays nobody long


class Answer(NamedTuple):
    """What the model gives for a request's documents."""

    logits: npt.NDArray[np.float32]  # of shape (texts, classes)
    is_cut: npt.NDArray[np.bool_]  # of shape (texts,): whether max_seq_length took tokens from it


class Busy(Exception):
    """The queue is full, or the batcher is stopping."""


@dataclass(eq=False, slots=True)
class _Request:
    texts: Sequence[str]
    pairs: Sequence[str]
    expires: float
    answer: asyncio.Future[Answer]


class Batcher:
    """Answers requests from one event loop with a predictor that runs in one thread.

    Requests that wait at the same time make a round: they are encoded together, sorted by length and run
    in batches of at most ``MAX_TOKENS`` tokens. A request that was cancelled or has expired is not run.

    ``inference`` has one thread, the one in which the predictor has run before, if it has: with two of them
    OpenMP keeps two teams of threads, and on few cores both become much slower. ``capacity`` texts may wait
    or be in work at once, which bounds their memory. A round waits ``wait`` seconds for further requests,
    unless the round before it had a single one: a client that is alone would wait for nothing.
    """

    def __init__(
        self, predictor: Predictor, inference: ThreadPoolExecutor, capacity: int, wait: float
    ) -> None:
        self.queued = 0  # texts accepted and not answered; changed by the event loop's thread only
        self._predictor, self._inference = predictor, inference
        self._capacity, self._wait = capacity, wait
        self._queue: SimpleQueue[_Request | None] = SimpleQueue()
        self._stopping = False

    def start(self) -> None:
        """Start to work; called in the event loop that will submit."""
        self._loop = asyncio.get_running_loop()
        self._worked = self._inference.submit(self._work)

    async def stop(self) -> None:
        """Take no more requests, answer those accepted, and leave the thread."""
        self._stopping = True
        self._queue.put(None)
        await asyncio.wrap_future(self._worked)

    def submit(
        self, texts: Sequence[str], pairs: Sequence[str] | None, seconds: float
    ) -> asyncio.Future[Answer]:
        """Queue documents, which expire after some seconds, or raise Busy; called in the event loop.

        The future raises TimeoutError if the documents expired
        before their turn, and whatever the predictor raised for them.
        """
        if self._stopping or self.queued + len(texts) > self._capacity:
            raise Busy
        self.queued += len(texts)
        request = _Request(texts, pairs or (), time.monotonic() + seconds, self._loop.create_future())
        self._queue.put(request)
        return request.answer

    def _work(self) -> None:
        wait, last = 0.0, False
        while not last and (first := self._queue.get()) is not None:
            requests, last = self._gather(first, wait)
            wait = self._wait if len(requests) > 1 else 0.0
            answers = self._answers(requests)
            # Once a round: waking the event loop costs more than resolving a future.
            self._loop.call_soon_threadsafe(self._resolve, requests, answers)

    def _gather(self, first: _Request, wait: float) -> tuple[list[_Request], bool]:
        """The requests of a round, and whether it is the last."""
        requests, texts = [first], len(first.texts)
        until = time.monotonic() + wait
        while texts < MAX_ROUND_TEXTS:
            try:
                request = self._queue.get(timeout=max(0.0, until - time.monotonic()))
            except Empty:
                break
            if request is None:
                return requests, True
            requests.append(request)
            texts += len(request.texts)
        return requests, False

    def _answers(self, requests: list[_Request]) -> list[Answer | Exception]:
        now = time.monotonic()
        wanted = [not request.answer.done() and now < request.expires for request in requests]
        live = list(compress(requests, wanted))
        results = iter(self._results(live) if live else [])
        return [next(results) if is_wanted else TimeoutError() for is_wanted in wanted]

    def _results(self, requests: list[_Request]) -> list[Answer | Exception]:
        """Each request's answer, or what went wrong with it; raises nothing, as that would end the thread."""
        texts = [text for request in requests for text in request.texts]
        pairs = [pair for request in requests for pair in request.pairs] or None
        try:
            encoded = self._predictor.encode(texts, pairs)
            limit = self._predictor.metadata.max_seq_length
            batches, is_cut = bounded_batches(encoded.lengths(limit), MAX_TOKENS), encoded.is_cut(limit)
        except Exception as error:
            if len(requests) == 1:
                return [error]
            return [self._results([request])[0] for request in requests]  # the fault of one of them
        logits = np.zeros((len(texts), len(self._predictor.labels)), dtype=np.float32)
        failures: dict[int, Exception] = {}
        for batch in batches:
            try:
                logits[batch] = self._predictor.logits(encoded, [batch])[batch]
            except Exception as error:
                failures |= dict.fromkeys(batch.tolist(), error)
        bounds = pairwise(accumulate((len(request.texts) for request in requests), initial=0))
        answer = Answer(logits, is_cut)
        return [_part(answer, failures, start, stop) for start, stop in bounds]

    def _resolve(self, requests: list[_Request], answers: list[Answer | Exception]) -> None:
        for request, answer in zip(requests, answers, strict=True):
            self.queued -= len(request.texts)
            if request.answer.done():  # cancelled meanwhile
                continue
            if isinstance(answer, Exception):
                request.answer.set_exception(answer)
            else:
                request.answer.set_result(answer)


def _part(answer: Answer, failures: dict[int, Exception], start: int, stop: int) -> Answer | Exception:
    """The rows of one request, or what went wrong with the first of them that failed."""
    failed = next((failures[row] for row in range(start, stop) if row in failures), None)
    part = Answer(answer.logits[start:stop], answer.is_cut[start:stop])
    if failed is None and not np.isfinite(part.logits).all():
        failed = ArithmeticError("a logit is not a finite number")
    return part if failed is None else failed
