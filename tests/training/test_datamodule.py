"""Batches in the trainer's hands: every row once, from where an epoch was left."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
import pytorch_lightning as pl
import torch

from bunryu.encoding.batching import NO_LABEL, NO_ROW
from helpers.batches import datamodule


@pytest.mark.parametrize("workers", [0, 2])
@pytest.mark.parametrize("batching", ["bucketed", "random"])
def test_every_row_stands_in_one_batch_of_an_epoch(batching: str, workers: int) -> None:
    data = datamodule(30, batching=batching, num_workers=workers)
    data.trainer = pl.Trainer(logger=False, enable_checkpointing=False, accelerator="cpu")
    batches = list(data.train_dataloader())
    assert len(batches) == data.batches_per_epoch == 8
    assert sorted(len(batch["labels"]) for batch in batches) == [2, 4, 4, 4, 4, 4, 4, 4]
    assert sorted(int(row) for batch in batches for row in batch["index"]) == list(range(30))
    for batch in batches:
        assert torch.equal(batch["labels"], batch["index"] % 2)
        assert batch["input_ids"].shape[1] == int(batch["attention_mask"].sum(dim=1).max()) <= 6


@pytest.mark.parametrize("split", ["train_dataloader", "val_dataloader"])
def test_fixed_shapes_hold_every_row_once(split: str) -> None:
    data = datamodule(30, widths=2, fixed_rows=True)
    data.trainer = pl.Trainer(logger=False, enable_checkpointing=False, accelerator="cpu")
    batches = list(getattr(data, split)())
    assert len(batches) == 8
    assert {batch["input_ids"].shape for batch in batches} == {(4, 3), (4, 6)}
    rows = [int(row) for batch in batches for row in batch["index"]]
    assert sorted(rows) == [NO_ROW, NO_ROW, *range(30)]
    for batch in batches:
        real = batch["index"] != NO_ROW
        assert torch.equal(batch["labels"][real], batch["index"][real] % 2)
        assert set(batch["labels"][~real].tolist()) <= {NO_LABEL}


def test_widths_alone_keep_the_short_batch_short() -> None:
    batches = list(datamodule(30, widths=1).val_dataloader())
    assert sorted({tuple(batch["input_ids"].shape) for batch in batches}) == [(2, 6), (4, 6)]


@pytest.mark.parametrize(
    "options", [{}, {"padding": "max_length"}, {"widths": 2}, {"widths": 2, "fixed_rows": True}]
)
def test_padded_tokens_are_those_of_the_batches(options: dict[str, Any]) -> None:
    data = datamodule(30, **options)
    collate = data.collator(data.train)
    plan = [np.arange(start, min(start + 4, 30)) for start in range(0, 30, 4)]
    assert data.padded_tokens(data.train, plan) == [collate(rows)["input_ids"].numel() for rows in plan]
