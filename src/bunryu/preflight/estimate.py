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

Floats = npt.NDArray[np.float64]
Ints = npt.NDArray[np.int64]
LAST_CHECKPOINT, BEST_CHECKPOINT = (
    "bunryu.training.callbacks.LastCheckpoint",
    "bunryu.training.callbacks.BestCheckpoint",
)


@dataclass(frozen=True)
class Curve:
    """A cost by padded tokens: linear between what was measured, and on from the last two beyond it."""

    tokens: tuple[int, ...]
    values: tuple[float, ...]

    @classmethod
    def of(cls, measured: Iterable[tuple[int, float]]) -> Curve:
        """The medians of repeated measurements, by tokens."""
        by_tokens: dict[int, list[float]] = {}
        for tokens, value in measured:
            by_tokens.setdefault(tokens, []).append(value)
        known = sorted(by_tokens)
        return cls(tuple(known), tuple(statistics.median(by_tokens[tokens]) for tokens in known))

    def at(self, tokens: Ints) -> Floats:
        """The cost of each of these."""
        inside: Floats = np.interp(tokens, self.tokens, self.values)
        if len(self.tokens) == 1:
            slope = self.values[-1] / self.tokens[-1]
        else:
            slope = (self.values[-1] - self.values[-2]) / (self.tokens[-1] - self.tokens[-2])
        beyond: Floats = np.maximum(tokens - self.tokens[-1], 0) * max(slope, 0.0)
        return inside + beyond


@dataclass(frozen=True)
class Measured:
    """What jobs of one model, corpus, length and batch size have in common; times in seconds, sizes in bytes.

    Args:
        prepare: a run directory, the corpus read, tokenizer, model and trainer made.
        fit: what training takes beside its batches, once.
        batch: one training batch at the mean, without the optimizer's step.
        step: the optimizer's step.
        validation: one pass over validation.
        test: one pass over test; 0 without one.
        epoch: what the end of an epoch takes beside the pass over validation and checkpoints.
        scoring: what scoring a split takes beside the pass: the checkpoint read, figures.
        predictions: writing those of validation and test.
        save: one checkpoint written.
        export: ``model/`` written.
        batches: training batches of an epoch.
        parameters: of the model.
        checkpoint: the size of one.
        folder: the size of ``model/``.
        files: of predictions.
        logged: a record of metrics.
        memory: resident at the most.
        device_memory: of a GPU, at the most; 0 on anything else.
        on_cpu: whether the model lies in the machine's own memory.
    """

    prepare: float
    fit: float
    batch: float
    step: float
    validation: float
    test: float
    epoch: float
    scoring: float
    predictions: float
    save: float
    export: float
    batches: int
    parameters: int
    checkpoint: int
    folder: int
    files: int
    logged: float
    memory: int
    device_memory: int
    on_cpu: bool


@dataclass(frozen=True)
class Estimate:
    """One job: steps, seconds by what they go into, and bytes.

    ``kept`` is on the disk in the end, ``disk`` at the most while it runs.
    """

    steps: int
    parts: dict[str, float]
    memory: int
    kept: int
    disk: int

    @property
    def seconds(self) -> float:
        """All of them."""
        return sum(self.parts.values())


def shared_by(config: Mapping[str, Any]) -> dict[str, Any]:
    """The part of a config that timing depends on: jobs that have it in common are measured once."""
    model = {key: value for key, value in config["model"].items() if key != "lr"}
    trainer = {key: value for key, value in config["trainer"].items() if key != "max_epochs"}
    names = ("corpus", "limit_rows", "datamodule", "accelerator", "cache_dir", "logger", "task")
    optimizer = config["optimizer"]["_target_"]
    return {name: config[name] for name in names} | {
        "model": model,
        "trainer": trainer,
        "optimizer": optimizer,
    }


def estimate(config: Mapping[str, Any], measured: Measured) -> Estimate:
    """What one job takes.

    Early stopping is taken not to come, and every epoch to be better than the one before.

    Args:
        config: the job's, plain values.
        measured: of the jobs that it has ``shared_by`` in common with.
    """
    trainer = trainer_of(config)
    steps = total_steps(trainer, measured.batches)
    accumulated = trainer.accumulate_grad_batches
    taken = max(1, _taken(measured.batches, trainer.limit_train_batches))
    epochs = math.ceil(steps / math.ceil(taken / accumulated))
    batches = min(steps * accumulated, taken * epochs)
    training = batches * measured.batch + steps * measured.step + measured.fit
    validation = epochs * (measured.validation * _share(trainer.limit_val_batches) + measured.epoch)
    bests = [node for node in _callbacks(config, BEST_CHECKPOINT) if not config["trainer"]["fast_dev_run"]]
    lasts = _callbacks(config, LAST_CHECKPOINT)
    last = sum(epochs + _between(node["every_minutes"], training + validation, steps) for node in lasts)
    splits = 2 if measured.test else 1
    scoring = splits * measured.scoring + measured.predictions
    scoring += measured.validation * _share(trainer.limit_val_batches)
    scoring += measured.test * _share(trainer.limit_test_batches)
    best = sum(min(node["save_top_k"], epochs) for node in bests)
    written = min(last, 2) + best
    kept = {"all": written, "best": min(best, 1), "none": 0}[config["keep_checkpoints"]]
    records = steps / config["trainer"]["log_every_n_steps"] + epochs
    rest = measured.folder + measured.files + int(measured.logged * records)
    return Estimate(
        steps=steps,
        parts={
            "preparing": measured.prepare,
            "training": training,
            "validation": validation,
            "checkpoints": measured.save * (last + epochs * len(bests)),
            "scoring": scoring,
            "writing model/": measured.export,
        },
        memory=measured.memory,
        kept=kept * measured.checkpoint + rest,
        disk=(written + 1) * measured.checkpoint + rest,  # one more beside the one it takes the place of
    )


def _callbacks(config: Mapping[str, Any], target: str) -> list[Mapping[str, Any]]:
    return [node for node in config["callbacks"].values() if node and node["_target_"] == target]


def _between(minutes: float, seconds: float, steps: int) -> int:
    """Checkpoints in the middle of epochs."""
    return min(int(seconds / (60 * minutes)), steps) if minutes else steps


def _taken(batches: int, limit: float) -> int:
    return min(batches, limit) if isinstance(limit, int) else int(batches * limit)


def _share(limit: float) -> float:
    """Of a split; a count of batches is as good as nothing of it."""
    return limit if isinstance(limit, float) else 0.0


def together(seconds: Sequence[float], at_once: int) -> float:
    """How long jobs take of which some run at a time, each beginning as soon as there is room."""
    ends = [0.0] * max(1, at_once)
    for job in seconds:
        ends.sort()
        ends[0] += job
    return max(ends)
