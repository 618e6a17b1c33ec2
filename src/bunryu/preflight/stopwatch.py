"""Times batches of every shape while Lightning trains on them and scores them."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np
import pytorch_lightning as pl
import torch

from bunryu.encoding.batching import Batch, Index
from bunryu.encoding.encoder import Encoded
from bunryu.system import machine
from bunryu.training.datamodule import TextDataModule

SHAPES = 7  # that are timed; between them cost is taken as linear in padded tokens
FIRST_ROUND_SECONDS = 10.0  # after which larger shapes are no longer tried: their cost is extrapolated
LEAST_ROUNDS = 2  # after the first, which only warms up


@dataclass
class Rounds:
    """Batches of every shape in turn, the smallest first, until the time is up."""

    shapes: Sequence[Index]  # the rows of a batch of each shape
    collate: Callable[[Index], Batch]  # makes a batch of rows
    seconds: float
    tried: int = 0  # shapes of the first round, which ends early if it takes too long

    def __iter__(self) -> Iterator[Batch]:
        start = time.perf_counter()
        for rows in self.shapes:
            yield self.collate(rows)
            self.tried += 1
            if time.perf_counter() - start > FIRST_ROUND_SECONDS:
                break
        rounds = 0
        while rounds < LEAST_ROUNDS or time.perf_counter() - start < self.seconds:
            yield from map(self.collate, self.shapes[: self.tried])
            rounds += 1


class SplitBatches:
    """A split's batches, as one process has them.

    Args:
        data: makes them.
        split: encoded.
        batches: the rows of each.
    """

    def __init__(self, data: TextDataModule, split: Encoded, batches: Sequence[Index]) -> None:
        self.batches, self.tokens = batches, np.array(data.padded_tokens(split, batches))
        self._collate = data.collator(split)

    def rounds(self, seconds: float) -> Rounds:
        """Batches of ``SHAPES`` sizes."""
        order = np.argsort(self.tokens, kind="stable")
        places = order[np.linspace(0, len(order) - 1, SHAPES).round().astype(int)]
        sizes = {int(self.tokens[place]): self.batches[place] for place in places}
        return Rounds(list(sizes.values()), self._collate, seconds)


@dataclass
class Stopwatch(pl.Callback):
    """Seconds of every batch, from its start to the next one's, and of every optimizer step."""

    trained: list[tuple[int, float]] = field(default_factory=list)  # padded tokens; seconds without the step
    steps: list[float] = field(default_factory=list)
    peaks: dict[int, float] = field(default_factory=dict)  # by tokens, memory's peak after the first batch
    evaluated: list[tuple[int, float]] = field(default_factory=list)
    validation: float = 0.0  # seconds of the last validation
    _batch: tuple[int, float] | None = None  # the tokens of the batch that is running, and when it began
    _step_begun: float = 0.0
    _validation_begun: float = 0.0

    def _next(self, times: list[tuple[int, float]], batch: Batch) -> None:
        at = now()
        if self._batch is not None:
            times.append((self._batch[0], at - self._batch[1]))
        self._batch = batch["input_ids"].numel(), at

    def on_train_batch_start(self, trainer: Any, pl_module: Any, batch: Batch, batch_idx: int) -> None:
        self._next(self.trained, batch)

    def on_before_optimizer_step(self, trainer: Any, pl_module: Any, optimizer: Any) -> None:
        self._step_begun = now()

    def on_train_batch_end(
        self, trainer: Any, pl_module: Any, outputs: Any, batch: Batch, batch_idx: int
    ) -> None:
        if self._step_begun and self._batch is not None:
            self.steps.append(now() - self._step_begun)
            self._batch = self._batch[0], self._batch[1] + self.steps[-1]  # the step counts for itself
            self._step_begun = 0.0
        self.peaks.setdefault(batch["input_ids"].numel(), float(machine.peak_memory()))

    def on_validation_start(self, trainer: Any, pl_module: Any) -> None:
        self._batch, self._validation_begun = None, now()

    def on_validation_batch_start(
        self, trainer: Any, pl_module: Any, batch: Batch, batch_idx: int, dataloader_idx: int = 0
    ) -> None:
        self._next(self.evaluated, batch)

    def on_validation_end(self, trainer: Any, pl_module: Any) -> None:
        self._batch, self.validation = None, now() - self._validation_begun


def now() -> float:
    """Seconds, once the device has done all that it was given."""
    if torch.accelerator.is_available():
        torch.accelerator.synchronize()
    return time.perf_counter()
