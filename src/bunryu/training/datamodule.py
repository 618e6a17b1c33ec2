"""Encoded splits to batches for Lightning."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterable, Iterator
from typing import Any

import pytorch_lightning as pl
import torch
from torch.utils.data import DataLoader, Dataset, Sampler

from bunryu.encoding.batching import (
    Batch,
    Index,
    Part,
    collator,
    evaluation_batches,
    join_short_batches,
    padder,
    part_of,
    training_batches,
)
from bunryu.encoding.encoder import Encoded
from bunryu.system import ranks


class _Batches(Dataset[Batch]):
    """Collates a batch from the row indices and the weight that the sampler yields for it."""

    def __init__(self, collate: Callable[[Index], Batch]) -> None:
        self._collate = collate

    def __getitem__(self, part: Part) -> Batch:
        index, weight = part
        batch = self._collate(index)
        return batch if weight == 1.0 else {**batch, "weight": torch.tensor(weight)}


class _Plan(Sampler[Part]):
    """Batches as a function gives them when iteration starts, so that each epoch has its own."""

    def __init__(self, length: int, batches: Callable[[], list[Part]]) -> None:
        self._length, self._batches = length, batches

    def __len__(self) -> int:
        return self._length

    def __iter__(self) -> Iterator[Part]:
        return iter(self._batches())


class TextDataModule(pl.LightningDataModule):
    """Batches of train, validation and test, sliced from flat arrays.

    Args:
        train, validation, test: encoded splits; test may be None.
        pad_id: the padding token.
        seed: with the epoch, fixes the order of training batches.
        batch_size: rows a batch.
        max_seq_length: tokens a row may have.
        batching: ``bucketed`` or ``random``.
        padding: ``longest`` or ``max_length``.
        num_workers: loader processes; 0 is fastest for a corpus in memory.
        widths: how many widths batches are padded to; None for any.
        fixed_rows: whether short batches are filled up to ``batch_size`` rows; added rows count for nothing.
    """

    def __init__(
        self,
        train: Encoded,
        validation: Encoded,
        test: Encoded | None,
        *,
        pad_id: int,
        seed: int,
        batch_size: int,
        max_seq_length: int,
        batching: str,
        padding: str,
        num_workers: int,
        widths: int | None = None,
        fixed_rows: bool = False,
    ) -> None:
        super().__init__()
        self.train, self.validation, self.test = train, validation, test
        self._pad_id, self._seed = pad_id, seed
        self.batch_size, self._max_length = batch_size, max_seq_length
        self._batching, self._padding, self._num_workers = batching, padding, num_workers
        self._widths, self._rows = widths, batch_size if fixed_rows else None
        self._lengths = train.lengths(max_seq_length)

    @property
    def batches_per_epoch(self) -> int:
        """Training batches an epoch, the same for every process."""
        return len(self._plan(0))

    def train_dataloader(self) -> DataLoader[Batch]:
        """Training batches; a resumed epoch's begin where it was left."""
        return self._loader(self.train, _Plan(self.batches_per_epoch, self._rest_of_epoch))

    def val_dataloader(self) -> DataLoader[Batch]:
        return self._evaluation(self.validation)

    def test_dataloader(self) -> DataLoader[Batch]:
        assert self.test is not None, "no test split"
        return self._evaluation(self.test)

    def rows_of(self, epoch: int, batch: int) -> list[int]:
        """The rows of the file, from 0, in a training batch of an epoch; those of all processes."""
        return [int(row) for row in self.train.rows[self._plan(epoch)[batch]]]

    def collator(self, split: Encoded) -> Callable[[Index], Batch]:
        """A function from a split's row indices to a batch, padded as training pads it."""
        return collator(split, self._max_length, self._pad_id, self._padding, self._widths, self._rows)

    def padded_tokens(self, split: Encoded, batches: Iterable[Index]) -> list[int]:
        """Tokens of each batch, counting padding and the rows that fill it up."""
        lengths = split.lengths(self._max_length)
        width_of = padder(self._max_length, self._padding, self._widths)
        return [max(len(rows), self._rows or 0) * width_of(int(lengths[rows].max())) for rows in batches]

    def _rest_of_epoch(self) -> list[Part]:
        assert self.trainer is not None
        loop: Any = self.trainer.fit_loop
        done = loop.epoch_loop.batch_progress.current.ready if loop.restarting else 0
        # Not trainer.current_epoch: in a checkpoint of an epoch's end that is still the old one.
        plan = self._plan(loop.epoch_progress.current.processed)[done:]
        return [part_of(batch, ranks.rank(), ranks.world_size()) for batch in plan]

    def _plan(self, epoch: int) -> list[Index]:
        """An epoch's batches; every process takes a part of each."""
        rows = self.batch_size * ranks.world_size()
        return join_short_batches(
            training_batches(self._lengths, rows, self._batching, self._seed, epoch), ranks.world_size()
        )

    def _evaluation(self, split: Encoded) -> DataLoader[Batch]:
        batches = evaluation_batches(split.lengths(self._max_length), self.batch_size)
        own = batches[ranks.rank() :: ranks.world_size()]
        if len(own) < math.ceil(len(batches) / ranks.world_size()):
            own.append(batches[0])  # as many for every process; what is scored twice counts once
        plan = [(batch, 1.0) for batch in own]
        return self._loader(split, _Plan(len(plan), lambda: plan))

    def _loader(self, split: Encoded, plan: _Plan) -> DataLoader[Batch]:
        options: dict[str, Any] = {"persistent_workers": True} if self._num_workers else {}
        return DataLoader(
            _Batches(self.collator(split)),
            batch_size=None,  # the sampler yields whole batches
            sampler=plan,
            num_workers=self._num_workers,
            pin_memory=torch.cuda.is_available(),
            **options,
        )
