"""What a run will take, from what a few of its steps took."""

from __future__ import annotations

import json
import math
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from bunryu.training.build import total_steps
from bunryu.training.early_checks import trainer_of

LAST_CHECKPOINT = "bunryu.training.callbacks.LastCheckpoint"
BEST_CHECKPOINT = "bunryu.training.callbacks.BestCheckpoint"


@dataclass(frozen=True)
class Measured:
    """What jobs of one model, corpus, length and batch size share; times in seconds, sizes in bytes."""

    prepare: float  # a run directory, the corpus read, tokenizer, model and trainer made
    fit: float  # what training takes beside its batches, once
    epoch: float  # the training batches of an epoch
    validation: float  # one pass over validation
    test: float  # one pass over test; 0 without one
    save: float  # one checkpoint written
    write: float  # predictions and ``model/`` written
    batches: int  # training batches of an epoch
    parameters: int  # of the model
    checkpoint: int  # the size of one
    folder: int  # the size of ``model/``
    files: int  # the size of the predictions
    memory: int  # resident at the most
    device_memory: int  # of a GPU, at the most; 0 where the model lies in the machine's own memory


@dataclass(frozen=True)
class Estimate:
    """One job."""

    steps: int
    parts: dict[str, float]  # seconds by what they go into
    memory: int  # bytes
    kept: int  # bytes on the disk in the end
    disk: int  # bytes on the disk at the most while it runs

    @property
    def seconds(self) -> float:
        return sum(self.parts.values())


def shared_by(config: Mapping[str, Any]) -> str:
    """The part of a config that timing depends on; jobs that share it are measured once."""
    model = {key: value for key, value in config["model"].items() if key != "lr"}
    trainer = {key: value for key, value in config["trainer"].items() if key != "max_epochs"}
    names = ("corpus", "limit_rows", "datamodule", "accelerator", "cache_dir", "logger", "task")
    shared = {name: config[name] for name in names}
    return json.dumps([shared, model, trainer, config["optimizer"]["_target_"]], default=str)


def estimate(config: Mapping[str, Any], measured: Measured, restart: float = 0.0) -> Estimate:
    """What one job takes if it does not stop early and every epoch is better than the one before.

    ``measured`` is of a job with the same ``shared_by``; ``restart``, seconds until processes of the job's
    own have started.
    """
    trainer = trainer_of(config)
    steps = total_steps(trainer, measured.batches)
    limit = trainer.limit_train_batches
    in_epoch = min(measured.batches, limit) if isinstance(limit, int) else int(measured.batches * limit)
    passes = steps / max(1, math.ceil(in_epoch / trainer.accumulate_grad_batches))
    epochs = math.ceil(passes)  # the last may be a part of one
    training = passes * in_epoch / measured.batches * measured.epoch + measured.fit
    # a limit that is a number of batches leaves next to nothing
    shares = [trainer.limit_val_batches, trainer.limit_test_batches]
    val_share, test_share = (share if isinstance(share, float) else 0.0 for share in shares)
    validating, testing = measured.validation * val_share, measured.test * test_share
    callbacks = {node["_target_"]: node for node in config["callbacks"].values() if node}
    last = best = bests = 0  # checkpoints written by the one, kept and written by the other
    if LAST_CHECKPOINT in callbacks:  # with 0 minutes between them one a step
        between = 60 * callbacks[LAST_CHECKPOINT]["every_minutes"]
        within = int((training + epochs * validating) / between) if between else steps
        last = epochs + min(within, steps)
    if BEST_CHECKPOINT in callbacks and not config["trainer"]["fast_dev_run"]:
        best, bests = min(callbacks[BEST_CHECKPOINT]["save_top_k"], epochs), epochs
    written = min(last, 2) + best
    kept = {"all": written, "best": min(best, 1), "none": 0}[config["keep_checkpoints"]]
    rest = measured.folder + measured.files
    return Estimate(
        steps=steps,
        parts={
            "start-up": restart,
            "preparing": measured.prepare,
            "training": training,
            "validation": epochs * validating,
            "checkpoints": measured.save * (last + bests),
            # the best checkpoint is read for each split, which takes as long as to write it
            "scoring": validating + testing + measured.save * (2 if measured.test else 1),
            "writing model/": measured.write,
        },
        memory=measured.memory,
        kept=kept * measured.checkpoint + rest,
        disk=(written + 1) * measured.checkpoint + rest,  # one more beside the one it takes the place of
    )
