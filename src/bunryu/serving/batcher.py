"""Micro-batching: documents of many requests, one inference thread, batches of like length."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from itertools import accumulate, chain, pairwise
from queue import Empty, SimpleQueue

import numpy as np
import numpy.typing as npt

from bunryu.encoding.batching import bounded_batches
from bunryu.inference.predictor import MAX_TOKENS, Predictor

CAPACITY = 2048  # texts that may be waiting
WAIT = 0.002  # seconds that a round waits for company
ROUND = 256  # texts after which a round takes no further request, so that nobody waits for a flood

Logits = npt.NDArray[np.float32]


class Busy(Exception):
    """More texts are waiting than may be, or the batcher is stopping."""


@dataclass(eq=False, slots=True)
class _Request:
    texts: Sequence[str]
    pairs: Sequence[str]
    expires: float
    answer: asyncio.Future[Logits]


class Batcher:
    """Answers requests from one event loop with a predictor that runs in one thread.

    Requests that wait together are encoded together, sorted by length and run in batches of at most
    ``MAX_TOKENS`` tokens. A request that was cancelled, or whose time is up, costs no inference.

    Args:
        predictor: what computes logits.
        inference: an executor of one thread, the one in which the predictor has run before, if it has:
            with two of them OpenMP keeps two teams of threads, and on few cores both become much slower.
        capacity: texts that may be waiting or in work at once; bounds the memory they take.
        wait: seconds that a round waits for company. A request that comes alone after one that was
            alone is not kept waiting: a single client would pay for company it never gets.
    """

    def __init__(
        self,
        predictor: Predictor,
        inference: ThreadPoolExecutor,
        capacity: int = CAPACITY,
        wait: float = WAIT,
    ) -> None:
        self.queued = 0  # texts accepted and not done with; changed by the event loop's thread only
        self._predictor = predictor
        self._capacity = capacity
        self._wait = wait
        self._queue: SimpleQueue[_Request | None] = SimpleQueue()
        self._inference = inference
        self._stopping = False

    def start(self) -> None:
        """Start to work; called in the event loop that will submit."""
        self._loop = asyncio.get_running_loop()
        self._worked = self._inference.submit(self._work)

    async def stop(self) -> None:
        """Take no more requests, answer those accepted, leave the thread."""
        self._stopping = True
        self._queue.put(None)
        await asyncio.wrap_future(self._worked)

    def submit(
        self, texts: Sequence[str], pairs: Sequence[str] | None, seconds: float
    ) -> asyncio.Future[Logits]:
        """Queue documents; called in the event loop.

        Args:
            texts: the documents.
            pairs: their second texts, for a model of pairs.
            seconds: after which they need no answer any more.

        Returns:
            A future of the logits, shape (texts, classes); it raises TimeoutError if the time was up
            before the documents had their turn, and whatever the predictor raised for them.

        Raises:
            Busy: if more texts are waiting than may be.
        """
        if self._stopping or self.queued + len(texts) > self._capacity:
            raise Busy
        self.queued += len(texts)
        request = _Request(texts, pairs or (), time.monotonic() + seconds, self._loop.create_future())
        self._queue.put(request)
        return request.answer

    def _work(self) -> None:
        company = False
        while (first := self._queue.get()) is not None:
            requests, last = self._gather(first, self._wait if company else 0.0)
            company = len(requests) > 1
            self._answer(requests)
            if last:
                return

    def _gather(self, first: _Request, wait: float) -> tuple[list[_Request], bool]:
        """The requests of a round, and whether it is the last."""
        requests, texts = [first], len(first.texts)
        until = time.monotonic() + wait
        while texts < ROUND:
            try:
                request = self._queue.get(timeout=max(0.0, until - time.monotonic()))
            except Empty:
                break
            if request is None:
                return requests, True
            requests.append(request)
            texts += len(request.texts)
        return requests, False

    def _answer(self, requests: list[_Request]) -> None:
        now = time.monotonic()
        live = [request for request in requests if not request.answer.done() and now < request.expires]
        results = iter(self._results(live) if live else [])
        alive = set(map(id, live))
        answers = [next(results) if id(request) in alive else TimeoutError() for request in requests]
        # Once a round: waking the event loop costs more than resolving a future.
        self._loop.call_soon_threadsafe(self._resolve, requests, answers)

    def _resolve(self, requests: list[_Request], answers: list[Logits | Exception]) -> None:
        for request, answer in zip(requests, answers, strict=True):
            self.queued -= len(request.texts)
            if request.answer.done():  # cancelled meanwhile
                continue
            if isinstance(answer, Exception):
                request.answer.set_exception(answer)
            else:
                request.answer.set_result(answer)

    def _results(self, requests: list[_Request]) -> list[Logits | Exception]:
        """Each request's logits, or what went wrong with it; nothing it raises ends the thread."""
        about = self._predictor.about
        texts = [text for request in requests for text in request.texts]
        pairs = list(chain.from_iterable(request.pairs for request in requests)) or None
        try:
            encoded = self._predictor.encode(texts, pairs)
            batches = bounded_batches(encoded.lengths(about.max_seq_length), MAX_TOKENS)
        except Exception as error:
            if len(requests) == 1:
                return [error]
            return [self._results([request])[0] for request in requests]  # the others are not to blame
        logits = np.zeros((len(texts), len(self._predictor.labels)), dtype=np.float32)
        failures: dict[int, Exception] = {}
        for batch in batches:
            try:
                logits[batch] = self._predictor.logits(encoded, [batch])[batch]
            except Exception as error:
                failures |= dict.fromkeys(batch.tolist(), error)
        cuts = pairwise(accumulate((len(request.texts) for request in requests), initial=0))
        return [_part(logits, failures, start, stop) for start, stop in cuts]


def _part(logits: Logits, failures: dict[int, Exception], start: int, stop: int) -> Logits | Exception:
    for row in range(start, stop):
        if row in failures:
            return failures[row]
    part = logits[start:stop]
    return part if np.isfinite(part).all() else ArithmeticError("a logit is not a finite number")
