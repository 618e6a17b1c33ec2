"""The clock: a few real steps of a run, of every shape that its batches have, in a folder for scratch."""

from __future__ import annotations

import statistics
import time
import warnings
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import pytorch_lightning as pl
import torch
from torch.utils.data import DataLoader

from bunryu.config.record import resolved
from bunryu.encoding.batching import (
    Batch,
    Index,
    evaluation_batches,
    join_short_batches,
    part_of,
    training_batches,
)
from bunryu.encoding.encoder import Encoded
from bunryu.models.folder import write_model_folder
from bunryu.preflight.estimate import Curve, Measured
from bunryu.preflight.stopwatch import Clock, Rounds, Rows, now
from bunryu.runs.run import Run
from bunryu.system import machine, ranks
from bunryu.system.signals import StopRequest
from bunryu.training.batch_size import memory_errors
from bunryu.training.build import Experiment, build
from bunryu.training.checkpoints import LAST, PREVIOUS, remove_checkpoint

SHAPES = 7  # of training batches that are timed; between them cost is taken as linear in padded tokens
TRAINING_SECONDS, EVALUATION_SECONDS = 3.0, 1.0  # that timing goes on for, once every shape had its turns
LOCAL_LOGGER = ".TensorBoardLogger"  # others would start a run of theirs elsewhere
TIMED_CALLBACKS = ("pytorch_lightning.", "bunryu.training.callbacks.EarlyStop")
# What says how many batches are taken, or when to end: not while timing.
LIMITS = ("fast_dev_run", "limit_train_batches", "limit_val_batches", "limit_test_batches", "overfit_batches",
          "max_steps", "max_time", "min_epochs", "min_steps", "num_sanity_val_steps", "profiler",
          "val_check_interval", "check_val_every_n_epoch")  # fmt: skip

Floats = npt.NDArray[np.float64]
Ints = npt.NDArray[np.int64]


def measure(config: Mapping[str, Any], scratch: Path) -> Measured:
    """Train, validate, save and export a little, for the clock's sake.

    Of several processes one is timed alone: what they tell each other is not.

    Args:
        config: plain values.
        scratch: an empty folder; what a run writes is written there.

    Raises:
        BunryuError: for whatever would stop the run while it is built.
        OutOfMemory: if its largest batches do not fit.
    """
    machine.reset_peak_memory()
    threads = _threads_of_one(ranks.processes_for(config["accelerator"]))
    with threads, memory_errors(config), warnings.catch_warnings():
        warnings.simplefilter("ignore")  # advice on loaders and intervals that are not the run's
        return _measure(config, scratch)


@contextmanager
def _threads_of_one(processes: int) -> Iterator[None]:
    """As many threads as one of several processes has."""
    threads = torch.get_num_threads()
    torch.set_num_threads(max(1, threads // processes))
    try:
        yield
    finally:
        torch.set_num_threads(threads)


def _measure(config: Mapping[str, Any], scratch: Path) -> Measured:
    start = time.perf_counter()
    run = Run.create(scratch, "check", _for_timing(config), [], [])
    pl.seed_everything(config["seed"], verbose=False)
    experiment = build(resolved(run.config, str(run.path)), run, StopRequest())
    prepare = time.perf_counter() - start
    timing = _Timing(experiment, run, config)
    return timing.all(prepare)


def _for_timing(config: Mapping[str, Any]) -> dict[str, Any]:
    """The config with one epoch, one process, no limits, and nothing that saves, draws or calls elsewhere."""
    trainer = {key: value for key, value in config["trainer"].items() if key not in LIMITS}
    quiet = {"max_epochs": 1, "num_sanity_val_steps": 0, "enable_progress_bar": False}
    alone = {"devices": 1, "num_nodes": 1, "strategy": "auto"} if processes(config) > 1 else {}
    return {
        **config,
        "trainer": {**trainer, **quiet, **alone},
        "callbacks": _chosen(config["callbacks"], _is_timed),
        "logger": _chosen(config["logger"], lambda target: target.endswith(LOCAL_LOGGER)),
    }


def processes(config: Mapping[str, Any]) -> int:
    """How many processes will train together, on all machines."""
    nodes: int = config["trainer"].get("num_nodes", 1)
    return ranks.processes_for(config["accelerator"]) * nodes


def _is_timed(target: str) -> bool:
    return target.startswith(TIMED_CALLBACKS) and not target.endswith("ProgressBar")


def _chosen(nodes: Mapping[str, Any], which: Callable[[str], bool]) -> dict[str, Any]:
    return {name: node for name, node in nodes.items() if node and which(node["_target_"])}


class _Timing:
    """One experiment, timed part by part."""

    def __init__(self, experiment: Experiment, run: Run, config: Mapping[str, Any]) -> None:
        self._experiment, self._run, self._config = experiment, run, config
        self._length, self._processes = config["datamodule"]["max_seq_length"], processes(config)
        data = experiment.datamodule
        batches = training_batches(
            data.train.lengths(self._length),
            data.batch_size * self._processes,
            config["datamodule"]["batching"],
            config["seed"],
            epoch=0,
        )
        self._train = [
            part_of(rows, 0, self._processes)[0] for rows in join_short_batches(batches, self._processes)
        ]
        self._training_tokens = self._tokens(data.train, self._train)
        self._clock = Clock()
        experiment.trainer.callbacks.insert(0, self._clock)  # type: ignore[attr-defined]

    def all(self, prepare: float) -> Measured:
        """Everything, in the order of the recipe."""
        fit, epoch = self._fit()
        save, checkpoint = self._save()
        scoring, predictions, files = self._score()
        export, folder = self._export()
        data, task, device = self._experiment.datamodule, self._experiment.task, self._experiment.trainer
        cuda = device.strategy.root_device.type == "cuda"
        logged = sum(path.stat().st_size for path in (self._run.path / "tensorboard").glob("*"))
        return Measured(
            prepare=prepare,
            fit=fit,
            batch=float(self._curve.at(self._training_tokens).mean()),
            step=self._step,
            validation=self._pass(data.validation),
            test=self._pass(data.test) if data.test is not None else 0.0,
            epoch=epoch,
            scoring=scoring,
            predictions=predictions,
            save=save,
            export=export,
            batches=len(self._train),
            parameters=sum(parameter.numel() for parameter in task.model.parameters()),
            checkpoint=checkpoint,
            folder=folder,
            files=files,
            logged=logged / max(1, len(self._clock.steps) // self._config["trainer"]["log_every_n_steps"]),
            memory=self._memory(),
            device_memory=torch.cuda.max_memory_allocated() if cuda else 0,
            on_cpu=not cuda,
        )

    def _fit(self) -> tuple[float, float]:
        """Train and validate; what both take beside their batches."""
        rounds = Rounds(self._shapes(self._train, self._training_tokens), TRAINING_SECONDS)
        start = now()
        self._experiment.trainer.fit(
            self._experiment.task,
            self._loader(self._experiment.datamodule.train, rounds),
            self._evaluation(),
            weights_only=True,
        )
        seconds = now() - start
        clock = self._clock
        known = clock.batches[rounds.tried :]  # the first round warms up
        self._curve = Curve.of(known)
        self._step = statistics.fmean(clock.steps[1:] or clock.steps)
        validation, self._evaluation_curve = clock.validation, Curve.of(clock.evaluated)
        trained = sum(self._curve.at(np.array([tokens for tokens, _ in clock.batches])))
        beside = seconds - validation - trained - len(clock.steps) * self._step
        evaluated = sum(value for _, value in clock.evaluated)
        return max(beside, 0.0), max(validation - evaluated, 0.0)

    def _save(self) -> tuple[float, int]:
        """Save twice, as a run that has saved before does; seconds and bytes of the second."""
        path = self._run.path / "checkpoints" / LAST
        seconds = 0.0
        for _ in range(2):
            start = now()
            self._experiment.trainer.save_checkpoint(path)
            seconds = now() - start
        remove_checkpoint(path.with_name(PREVIOUS))
        return seconds, path.stat().st_size

    def _score(self) -> tuple[float, float, int]:
        """Score from the checkpoint: what that takes beside its batches; predictions' seconds and bytes."""
        task, data = self._experiment.task, self._experiment.datamodule
        self._clock.evaluated.clear()
        path = self._run.path / "checkpoints" / LAST
        start = now()
        self._experiment.trainer.validate(
            task, self._evaluation(), ckpt_path=path, weights_only=True, verbose=False
        )
        seconds = now() - start
        evaluated = self._clock.evaluated
        remove_checkpoint(path)
        self._evaluation_curve = Curve.of(evaluated)
        scored = task.scored
        assert scored is not None
        start = now()
        rows, labels = (
            data.validation.rows[scored.index].tolist(),
            data.validation.labels[scored.index].tolist(),
        )
        self._run.write_predictions(
            "validation", rows, labels, scored.logits, self._experiment.corpus.label_names
        )
        written = now() - start
        share = (len(data.validation) + (len(data.test) if data.test is not None else 0)) / len(rows)
        size = (self._run.path / "predictions" / "validation.csv").stat().st_size
        beside = seconds - sum(value for _, value in evaluated)
        return max(beside, 0.0), written * share, int(size * share)

    def _export(self) -> tuple[float, int]:
        """Write ``model/``; seconds and bytes."""
        corpus, folder = self._experiment.corpus, self._run.path / "model"
        start = now()
        write_model_folder(
            folder,
            self._experiment.task.model.cpu(),
            self._experiment.tokenizer,
            corpus.cleaner,
            self._length,
            [(example.text, example.pair) for example in corpus.validation],
            {},
            {"model": "check", "corpus": "check", "run": "check"},
        )
        return now() - start, sum(path.stat().st_size for path in folder.iterdir())

    def _memory(self) -> int:
        """The machine's peak: so far, or what the largest batch would make it if it was not tried."""
        most = Curve.of(self._clock.peaks.items()).at(np.array([self._training_tokens.max()]))
        here = max(machine.peak_memory(), int(most[0]))
        if self._processes == 1:
            return here
        # a copy of the gradients is on its way to the others
        gradients = sum(parameter.nbytes for parameter in self._experiment.task.model.parameters())
        return (here + gradients) * ranks.processes_for(self._config["accelerator"])

    def _shapes(self, batches: Sequence[Index], tokens: Ints) -> list[Index]:
        """A batch of each of some sizes, from the smallest to the largest."""
        order = np.argsort(tokens, kind="stable")
        places = np.linspace(0, len(order) - 1, SHAPES).round().astype(int)
        sizes: dict[int, Index] = {}
        for place in order[places]:
            sizes.setdefault(int(tokens[place]), batches[place])
        return list(sizes.values())

    def _tokens(self, split: Encoded, batches: Sequence[Index]) -> Ints:
        """Padded tokens of each batch."""
        return np.array(self._experiment.datamodule.padded_tokens(split, batches))

    def _plan(self, split: Encoded) -> list[Index]:
        size = self._experiment.datamodule.batch_size
        return evaluation_batches(split.lengths(self._length), size)[:: self._processes]

    def _pass(self, split: Encoded) -> float:
        return float(self._evaluation_curve.at(self._tokens(split, self._plan(split))).sum())

    def _evaluation(self) -> DataLoader[Batch]:
        split = self._experiment.datamodule.validation
        plan = self._plan(split)
        return self._loader(split, Rounds(self._shapes(plan, self._tokens(split, plan)), EVALUATION_SECONDS))

    def _loader(self, split: Encoded, rounds: Rounds) -> DataLoader[Batch]:
        collate = self._experiment.datamodule.collator(split)
        return DataLoader(
            Rows(collate), batch_size=None, sampler=rounds, pin_memory=torch.cuda.is_available()
        )
