"""Batches in the trainer's hands: every row once, from where an epoch was left."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest
import pytorch_lightning as pl
import torch

from bunryu import experiment
from bunryu.datamodule import TextDataModule
from bunryu.encoding import Encoded, Template
from bunryu.runs import Run
from conftest import Train

TEMPLATE = Template(([1], [2]), ([1], [2], [2]), ([0], 0, [0]), ([0], 0, [0], 1, [1]), True)


def encoded(rows: int) -> Encoded:
    lengths = np.arange(rows) % 7 + 1
    ids = np.arange(lengths.sum(), dtype=np.uint16) + 3
    every = np.arange(rows)
    return Encoded(ids, np.concatenate([[0], np.cumsum(lengths)]), None, None, every % 2, every, TEMPLATE)


def module(rows: int, **options: Any) -> TextDataModule:
    settings = {
        "batch_size": 4,
        "max_seq_length": 6,
        "batching": "bucketed",
        "padding": "longest",
        "num_workers": 0,
    }
    split = encoded(rows)
    return TextDataModule(split, split, None, pad_id=0, seed=7, **{**settings, **options})


@pytest.mark.parametrize("workers", [0, 2])
@pytest.mark.parametrize("batching", ["bucketed", "random"])
def test_every_row_stands_in_one_batch_of_an_epoch(batching: str, workers: int) -> None:
    data = module(30, batching=batching, num_workers=workers)
    data.trainer = pl.Trainer(logger=False, enable_checkpointing=False, accelerator="cpu")
    batches = list(data.train_dataloader())
    assert len(batches) == data.batches_per_epoch == 8
    assert sorted(len(batch["labels"]) for batch in batches) == [2, 4, 4, 4, 4, 4, 4, 4]
    assert sorted(int(row) for batch in batches for row in batch["index"]) == list(range(30))
    for batch in batches:
        assert torch.equal(batch["labels"], batch["index"] % 2)
        assert batch["input_ids"].shape[1] == int(batch["attention_mask"].sum(dim=1).max()) <= 6


def test_validation_is_the_same_every_time() -> None:
    data = module(30)
    first, second = ([b["index"].tolist() for b in data.val_dataloader()] for _ in range(2))
    assert first == second
    assert sorted(row for batch in first for row in batch) == list(range(30))


class StopAfter(pl.Callback):
    """Saves a checkpoint after some batches and stops, as a kill would."""

    def __init__(self, batches: int, file: Path) -> None:
        self.batches, self.file = batches, file

    def on_train_batch_end(self, trainer: pl.Trainer, task: Any, *_: Any) -> None:
        if task.batches_seen == self.batches:
            trainer.save_checkpoint(self.file)
            raise KeyboardInterrupt


# Lightning does not know that ours goes on where it was left.
@pytest.mark.filterwarnings("ignore:You're resuming from a checkpoint that ended before the epoch")
@pytest.mark.parametrize(
    ("batches", "checkpoint", "resumed_after"),
    [(2, "left.ckpt", 2), (4, "left.ckpt", 4), (7, "left.ckpt", 7), (7, "last.ckpt", 5)],
    ids=["in the first epoch", "before its last batch", "in the second", "at the first's end"],
)
@pytest.mark.parametrize(
    "options", [["batching=random", "scheduler=linear_warmup"], ["trainer.log_every_n_steps=3"]]
)
def test_training_goes_on_from_a_checkpoint_to_the_same_bits(
    train: Train, tmp_path: Path, options: list[str], batches: int, checkpoint: str, resumed_after: int
) -> None:
    whole = train(*options)

    def prepared(name: str) -> experiment.Experiment:
        run = Run.create(tmp_path / name, "again", whole.config, [], [])
        pl.seed_everything(7, verbose=False)
        return experiment.build(experiment.resolved(run), run)

    stopped, resumed = prepared("stopped"), prepared("resumed")
    checkpoints = Path(stopped.trainer.default_root_dir) / "checkpoints"
    checkpoints.mkdir()
    stopped.trainer.callbacks.append(StopAfter(batches, checkpoints / "left.ckpt"))  # type: ignore[attr-defined]
    with pytest.raises(SystemExit):
        stopped.trainer.fit(stopped.task, datamodule=stopped.datamodule)
    resumed.trainer.fit(
        resumed.task, datamodule=resumed.datamodule, ckpt_path=checkpoints / checkpoint, weights_only=True
    )
    assert resumed.task.batches_seen == 10
    recorded, expected = (
        (Path(folder) / "metrics.csv").read_text("utf-8").splitlines()[1:]
        for folder in (resumed.trainer.default_root_dir, whole.path)
    )
    assert recorded == [line for line in expected if int(line.split(",")[1]) > resumed_after]
    last = torch.load(whole.path / "checkpoints/last.ckpt", weights_only=True)["state_dict"]
    for name, tensor in resumed.task.state_dict().items():
        assert torch.equal(tensor, last[name]), name
