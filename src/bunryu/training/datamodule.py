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
    """Batches of train, validation and test, sliced from flat arrays."""

    def __init__(
        self,
        train: Encoded,
        validation: Encoded,
        test: Encoded | None,
        *,
        pad_id: int,
        seed: int,  # with the epoch, fixes the order of training batches
        batch_size: int,  # rows
        max_seq_length: int,  # tokens of a row, at most
        batching: str,  # bucketed or random
        padding: str,  # longest or max_length
        num_workers: int,  # loader processes; 0 is fastest for a corpus in memory
        widths: int | None = None,  # how many widths batches are padded to; None for any
        fixed_rows: bool = False,  # fill short batches up with rows that count for nothing
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
        return len(self._plan(0))  # the same for every process

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
        processes = ranks.world_size()
        rows = self.batch_size * processes
        batches = training_batches(self._lengths, rows, self._batching, self._seed, epoch)
        return join_short_batches(batches, processes)

    def _evaluation(self, split: Encoded) -> DataLoader[Batch]:
        batches = evaluation_batches(split.lengths(self._max_length), self.batch_size)
        own = batches[ranks.rank() :: ranks.world_size()]
        if len(own) < math.ceil(len(batches) / ranks.world_size()):
            own.append(batches[0])  # as many for every process; what is scored twice counts once
        plan = [(batch, 1.0) for batch in own]
        return self._loader(split, _Plan(len(plan), lambda: plan))

    def _loader(self, split: Encoded, plan: _Plan) -> DataLoader[Batch]:
        return DataLoader(
            _Batches(self.collator(split)),
            batch_size=None,  # the sampler yields whole batches
            sampler=plan,
            num_workers=self._num_workers,
            persistent_workers=self._num_workers > 0,
            pin_memory=torch.cuda.is_available(),
        )
