"""What a run will take, from what a few of its steps took."""

from __future__ import annotations

import math
import statistics
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt

from bunryu.training.build import total_steps
from bunryu.training.early_checks import trainer_of

LAST_CHECKPOINT = "bunryu.training.callbacks.LastCheckpoint"
BEST_CHECKPOINT = "bunryu.training.callbacks.BestCheckpoint"


@dataclass(frozen=True)
class Curve:
    """A cost by padded tokens: linear between what was measured, and on from the last two beyond it."""

    tokens: tuple[int, ...]
    costs: tuple[float, ...]

    @classmethod
    def of(cls, measured: Iterable[tuple[int, float]]) -> Curve:
        """The medians of repeated measurements, by tokens."""
        by_tokens: dict[int, list[float]] = {}
        for tokens, cost in measured:
            by_tokens.setdefault(tokens, []).append(cost)
        known = sorted(by_tokens)
        return cls(tuple(known), tuple(statistics.median(by_tokens[tokens]) for tokens in known))

    def at(self, tokens: Sequence[int] | npt.NDArray[np.int64]) -> npt.NDArray[np.float64]:
        """The cost of each of these."""
        (x, y), (last, cost) = [(0, 0.0), *zip(self.tokens, self.costs, strict=True)][-2:]
        slope = max((cost - y) / (last - x), 0.0)
        beyond: npt.NDArray[np.float64] = np.maximum(np.asarray(tokens) - last, 0) * slope
        return beyond + np.interp(tokens, self.tokens, self.costs)


@dataclass(frozen=True)
class Measured:
    """What jobs of one model, corpus, length and batch size share; times in seconds, sizes in bytes."""

    prepare: float  # a run directory, the corpus read, tokenizer, model and trainer made
    fit: float  # what training takes beside its batches, once
    batch: float  # one training batch at the mean, without the optimizer's step
    step: float  # the optimizer's step
    validation: float  # one pass over validation
    test: float  # one pass over test; 0 without one
    epoch: float  # what scoring takes beside the pass, as at the end of an epoch
    predictions: float  # writing those of validation and test
    save: float  # one checkpoint written
    export: float  # ``model/`` written
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


def shared_by(config: Mapping[str, Any]) -> dict[str, Any]:
    """The part of a config that timing depends on; jobs that share it are measured once."""
    model = {key: value for key, value in config["model"].items() if key != "lr"}
    trainer = {key: value for key, value in config["trainer"].items() if key != "max_epochs"}
    names = ("corpus", "limit_rows", "datamodule", "accelerator", "cache_dir", "logger", "task")
    optimizer = config["optimizer"]["_target_"]
    shared = {name: config[name] for name in names}
    return shared | {"model": model, "trainer": trainer, "optimizer": optimizer}


def estimate(config: Mapping[str, Any], measured: Measured) -> Estimate:
    """What one job takes if it does not stop early and every epoch is better than the one before.

    Args:
        config: the job's, plain values.
        measured: of the jobs with the same ``shared_by``.
    """
    trainer = trainer_of(config)
    steps = total_steps(trainer, measured.batches)
    accumulated = trainer.accumulate_grad_batches
    limit = trainer.limit_train_batches
    in_epoch = min(measured.batches, limit) if isinstance(limit, int) else int(measured.batches * limit)
    in_epoch = max(1, in_epoch)
    epochs = math.ceil(steps / math.ceil(in_epoch / accumulated))
    batches = min(steps * accumulated, in_epoch * epochs)
    training = batches * measured.batch + steps * measured.step + measured.fit
    validating = measured.validation * _share(trainer.limit_val_batches)
    testing = measured.test * _share(trainer.limit_test_batches)
    validation = epochs * (validating + measured.epoch)
    # the best checkpoint is read for each split, which takes as long as to write it
    scoring = (2 if measured.test else 1) * (measured.epoch + measured.save)
    lasts = _callbacks(config, LAST_CHECKPOINT)
    bests = [] if config["trainer"]["fast_dev_run"] else _callbacks(config, BEST_CHECKPOINT)
    last = sum(epochs + _within_epochs(node, training + validation, steps) for node in lasts)
    best = sum(min(node["save_top_k"], epochs) for node in bests)
    written = min(last, 2) + best
    kept = {"all": written, "best": min(best, 1), "none": 0}[config["keep_checkpoints"]]
    rest = measured.folder + measured.files
    return Estimate(
        steps=steps,
        parts={
            "preparing": measured.prepare,
            "training": training,
            "validation": validation,
            "checkpoints": measured.save * (last + epochs * len(bests)),
            "scoring": scoring + measured.predictions + validating + testing,
            "writing model/": measured.export,
        },
        memory=measured.memory,
        kept=kept * measured.checkpoint + rest,
        disk=(written + 1) * measured.checkpoint + rest,  # one more beside the one it takes the place of
    )


def _callbacks(config: Mapping[str, Any], target: str) -> list[Mapping[str, Any]]:
    return [node for node in config["callbacks"].values() if node and node["_target_"] == target]


def _within_epochs(node: Mapping[str, Any], seconds: float, steps: int) -> int:
    """Checkpoints that are not of an epoch's end; with 0 minutes between them one a step."""
    minutes: float = node["every_minutes"]
    return min(int(seconds / (60 * minutes)), steps) if minutes else steps


def _share(limit: float) -> float:
    """The part of a split that a limit leaves; of a number of batches none, which is near enough."""
    return limit if isinstance(limit, float) else 0.0


def together(seconds: Sequence[float], at_once: int) -> float:
    """How long jobs take of which some run at a time, each beginning as soon as there is room."""
    ends = [0.0] * max(1, at_once)
    for job in seconds:
        ends.sort()
        ends[0] += job
    return max(ends)
