"""Many requests, one thread: who gets which logits, who waits, who is refused, who is skipped."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Callable, Coroutine
from concurrent.futures import ThreadPoolExecutor
from contextlib import asynccontextmanager
from typing import Any

import numpy as np
import numpy.typing as npt
import pytest

from bunryu.inference.predictor import MAX_TOKENS
from bunryu.serving.batcher import MAX_ROUND_TEXTS, Answer, Batcher, Busy
from helpers.serving import LENGTH, FakePredictor

SECONDS = 30.0


def expected(texts: list[str]) -> npt.NDArray[np.float32]:
    return np.array([[0.0, len(text) / 10] for text in texts], dtype=np.float32)


def in_loop(test: Callable[[], Coroutine[Any, Any, None]]) -> Callable[[], None]:
    def run() -> None:
        asyncio.run(asyncio.wait_for(test(), 60))

    run.__name__ = test.__name__
    return run


@asynccontextmanager
async def occupied(
    pairs: bool = False, capacity: int = 2048, wait: float = 0.002
) -> AsyncIterator[tuple[Batcher, FakePredictor, asyncio.Future[Answer]]]:
    """A batcher whose thread is busy with the text "first" until the predictor's gate opens."""
    predictor: Any = FakePredictor(pairs)
    batcher = Batcher(predictor, ThreadPoolExecutor(1), capacity, wait)
    batcher.start()
    predictor.gate.clear()
    first = batcher.submit(["first"], None, SECONDS)
    await asyncio.to_thread(predictor.reached.wait, SECONDS)
    try:
        yield batcher, predictor, first
    finally:
        predictor.gate.set()
        await batcher.stop()


@in_loop
async def test_what_waits_together_is_sorted_together_and_pairs_stay_with_their_texts() -> None:
    async with occupied(pairs=True) as (batcher, predictor, first):
        others = [batcher.submit(texts, [*"12"[: len(texts)]], SECONDS) for texts in (["ccc", "a"], ["bb"])]
        predictor.gate.set()
        answers = await asyncio.gather(first, *others)
    for answer, texts in zip(answers, (["first"], ["ccc1", "a2"], ["bb1"]), strict=True):
        assert np.array_equal(answer.logits, expected(texts))
    assert predictor.rounds == [["first"], ["ccc1", "a2", "bb1"]]
    assert predictor.batches == [["first"], ["a2", "bb1", "ccc1"]]


@in_loop
async def test_batches_are_bounded_in_tokens_and_rounds_in_texts() -> None:
    rows = MAX_TOKENS // LENGTH
    async with occupied() as (batcher, predictor, first):
        others = [batcher.submit(["x" * LENGTH], None, SECONDS) for _ in range(MAX_ROUND_TEXTS + rows + 1)]
        predictor.gate.set()
        await asyncio.gather(first, *others)
    assert [len(texts) for texts in predictor.rounds] == [1, MAX_ROUND_TEXTS, rows + 1]
    assert {len(batch) for batch in predictor.batches[1:-2]} == {rows}
    assert [len(batch) for batch in predictor.batches[-2:]] == [rows, 1]


@in_loop
async def test_a_round_waits_for_company_once_there_is_some() -> None:
    async with occupied(wait=20.0) as (batcher, predictor, first):
        crowd = [batcher.submit([text], None, SECONDS) for text in "ab"]
        predictor.gate.set()
        full = batcher.submit(["c"] * (MAX_ROUND_TEXTS - 2), None, SECONDS)  # nothing more to wait for
        await asyncio.gather(first, *crowd, full)
        one = batcher.submit(["early"], None, SECONDS)
        await asyncio.sleep(0.1)
        assert len(predictor.rounds) == 2
        await asyncio.gather(one, batcher.submit(["later"] * (MAX_ROUND_TEXTS - 1), None, SECONDS))
    assert [len(texts) for texts in predictor.rounds] == [1, MAX_ROUND_TEXTS, MAX_ROUND_TEXTS]


@in_loop
async def test_a_lone_client_is_not_kept_waiting() -> None:
    async with occupied(wait=1000.0) as (batcher, predictor, first):
        predictor.gate.set()
        await first
        for text in ("a", "bb"):
            assert np.array_equal((await batcher.submit([text], None, SECONDS)).logits, expected([text]))


@in_loop
async def test_a_failing_batch_fails_only_its_requests() -> None:
    rows = MAX_TOKENS // LENGTH
    async with occupied() as (batcher, predictor, first):
        bad = batcher.submit(["poison"], None, SECONDS)
        beside = batcher.submit(["x" * LENGTH] * (rows - 1), None, SECONDS)  # with it fills a batch
        good = batcher.submit(["x" * LENGTH] * 3, None, SECONDS)
        predictor.gate.set()
        for answer in (bad, beside):
            with pytest.raises(RuntimeError, match="the network failed"):
                await answer
        assert np.array_equal((await first).logits, expected(["first"]))
        assert np.array_equal((await good).logits, expected(["x" * LENGTH] * 3))
        assert np.array_equal((await batcher.submit(["next"], None, SECONDS)).logits, expected(["next"]))
    assert batcher.queued == 0


@in_loop
async def test_texts_without_ids_or_finite_logits_fail_alone() -> None:
    for text, error in (("unreadable", ValueError), ("nan", ArithmeticError)):
        async with occupied() as (batcher, predictor, _):
            bad, good = [batcher.submit([sent], None, SECONDS) for sent in (text, "good")]
            predictor.gate.set()
            with pytest.raises(error, match=r"cannot be encoded|not a finite number"):
                await bad
            assert np.array_equal((await good).logits, expected(["good"]))


@in_loop
async def test_cancelled_and_late_requests_cost_no_inference_but_hold_their_place() -> None:
    async with occupied(capacity=4) as (batcher, predictor, first):
        gone = batcher.submit(["gone", "with it"], None, SECONDS)
        late = batcher.submit(["late"], None, 0.0)
        gone.cancel()
        with pytest.raises(Busy):  # cancelled, its texts are still in memory
            batcher.submit(["more"], None, SECONDS)
        assert batcher.queued == 4
        predictor.gate.set()
        with pytest.raises(TimeoutError):
            await late
        await first
        await batcher.submit([*"next"], None, SECONDS)
    assert predictor.batches == [["first"], [*"next"]]
    assert batcher.queued == 0


@in_loop
async def test_stopping_answers_what_was_accepted_and_takes_nothing_more() -> None:
    async with occupied() as (batcher, predictor, first):
        others = [batcher.submit([text], None, SECONDS) for text in ("a", "bb", "ccc")]
        asyncio.get_running_loop().call_later(0.1, predictor.gate.set)
        stop = asyncio.create_task(batcher.stop())
        await asyncio.sleep(0)
        with pytest.raises(Busy):
            batcher.submit(["late"], None, SECONDS)
        await stop
        assert [answer.done() for answer in (first, *others)] == [True] * 4
        assert np.array_equal((await others[2]).logits, expected(["ccc"]))
