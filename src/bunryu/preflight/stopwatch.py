"""A stopwatch for batches of every shape: how long each takes to train on and to score."""

from __future__ import annotations

import time
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from typing import Any

import pytorch_lightning as pl
import torch
from torch.utils.data import Dataset

from bunryu.encoding.batching import Batch, Index
from bunryu.system import machine

FIRST_ROUND_SECONDS = 10.0  # after which larger shapes are no longer tried: their cost is extrapolated
LEAST_ROUNDS = 2  # after the first, which only warms up


class Rows(Dataset[Batch]):
    """Rows to a batch, as the datamodule makes them."""

    def __init__(self, collate: Any) -> None:
        self._collate = collate

    def __getitem__(self, index: Index) -> Batch:
        batch: Batch = self._collate(index)
        return batch


@dataclass
class Rounds:
    """Batches of every shape in turn, the smallest first, until the time is up.

    ``tried`` counts the shapes of the first round, which ends early if it takes too long.
    """

    batches: Sequence[Index]
    seconds: float
    tried: int = 0

    def __iter__(self) -> Iterator[Index]:
        start = time.perf_counter()
        for batch in self.batches:
            yield batch
            self.tried += 1
            if time.perf_counter() - start > FIRST_ROUND_SECONDS:
                break
        rounds = 0
        while rounds < LEAST_ROUNDS or time.perf_counter() - start < self.seconds:
            yield from self.batches[: self.tried]
            rounds += 1


@dataclass
class Clock(pl.Callback):
    """Seconds of every batch from its start to the next one's, and of every optimizer step."""

    batches: list[tuple[int, float]] = field(default_factory=list)
    steps: list[float] = field(default_factory=list)
    peaks: dict[int, float] = field(default_factory=dict)
    evaluated: list[tuple[int, float]] = field(default_factory=list)
    validation: float = 0.0
    _begun: tuple[int, float] | None = None
    _stepping: float | None = None
    _stepped: float = 0.0
    _validating: float = 0.0

    def on_train_batch_start(self, trainer: Any, pl_module: Any, batch: Batch, batch_idx: int) -> None:
        """The last batch has ended."""
        at = now()
        if self._begun is not None:
            self.batches.append((self._begun[0], at - self._begun[1] - self._stepped))
        self._begun, self._stepped = (batch["input_ids"].numel(), at), 0.0

    def on_before_optimizer_step(self, trainer: Any, pl_module: Any, optimizer: Any) -> None:
        """Gradients are there."""
        self._stepping = now()

    def on_train_batch_end(
        self, trainer: Any, pl_module: Any, outputs: Any, batch: Batch, batch_idx: int
    ) -> None:
        """The weights have moved, if this batch was the one."""
        if self._stepping is not None:
            self._stepped = now() - self._stepping
            self.steps.append(self._stepped)
            self._stepping = None
        if (tokens := batch["input_ids"].numel()) not in self.peaks:
            self.peaks[tokens] = float(machine.peak_memory())

    def on_validation_start(self, trainer: Any, pl_module: Any) -> None:
        """Training stands still."""
        self._begun, self._validating = None, now()

    def on_validation_batch_start(
        self, trainer: Any, pl_module: Any, batch: Batch, batch_idx: int, dataloader_idx: int = 0
    ) -> None:
        """As in training."""
        at = now()
        if self._begun is not None:
            self.evaluated.append((self._begun[0], at - self._begun[1]))
        self._begun = (batch["input_ids"].numel(), at)

    def on_validation_end(self, trainer: Any, pl_module: Any) -> None:
        """It is scored."""
        self._begun, self.validation = None, now() - self._validating


def now() -> float:
    """Seconds, once the device has done what it was given."""
    if torch.accelerator.is_available():
        torch.accelerator.synchronize()
    return time.perf_counter()
