"""Measures what a run takes: a few real steps of it, with batches of every shape, in a scratch folder."""

from __future__ import annotations

import re
import statistics
import warnings
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytorch_lightning as pl
import torch

from bunryu.config.record import resolved
from bunryu.encoding.batching import Index, evaluation_batches, join_short_batches, part_of, training_batches
from bunryu.encoding.encoder import Encoded
from bunryu.models.folder import write_model_folder
from bunryu.preflight.estimate import Curve, Measured
from bunryu.preflight.stopwatch import SplitBatches, Stopwatch, now
from bunryu.runs.run import Run
from bunryu.system import machine, ranks
from bunryu.system.signals import StopRequest
from bunryu.training.batch_size import memory_errors
from bunryu.training.build import Experiment, build
from bunryu.training.checkpoints import LAST, PREVIOUS, remove_checkpoint
from bunryu.training.datamodule import TextDataModule

TRAINING_SECONDS, EVALUATION_SECONDS = 3.0, 1.0  # that timing goes on for, once every shape had its turns
# Lightning's own callbacks but for what draws, and the logger that starts no run of its own elsewhere.
TIMED = re.compile(
    r"pytorch_lightning\.callbacks\.(?!.*ProgressBar).*|bunryu\.training\.callbacks\.EarlyStop.*|.*\.TensorBoardLogger"
)
# What says how many batches are taken, or when to end: not while timing.
LIMITS = ("fast_dev_run", "limit_train_batches", "limit_val_batches", "limit_test_batches", "overfit_batches",
          "max_steps", "max_time", "min_epochs", "min_steps", "num_sanity_val_steps", "profiler",
          "val_check_interval", "check_val_every_n_epoch")  # fmt: skip


def measure(config: Mapping[str, Any], scratch: Path) -> Measured:
    """Train, validate, save and export a little, to time it.

    Of several processes one is timed alone, without what they send each other.

    Args:
        config: plain values.
        scratch: an empty folder; what a run writes is written there.

    Raises:
        BunryuError: for whatever would stop the run while it is built.
        OutOfMemory: if its largest batches do not fit.
    """
    machine.reset_peak_memory()
    with (
        share_of_threads(ranks.processes_for(config["accelerator"])),
        memory_errors(config),
        warnings.catch_warnings(),
    ):
        warnings.simplefilter("ignore")  # advice on loaders and intervals that are not the run's
        return _measure(config, scratch)


@contextmanager
def share_of_threads(processes: int) -> Iterator[None]:
    """PyTorch has as many threads inside as one of several processes would."""
    threads = torch.get_num_threads()
    torch.set_num_threads(max(1, threads // processes))
    try:
        yield
    finally:
        torch.set_num_threads(threads)


def _measure(config: Mapping[str, Any], scratch: Path) -> Measured:
    """What the parts of a run take, in the order of the recipe."""
    start = now()
    run = Run.create(scratch, "check", _for_timing(config), [], [])
    pl.seed_everything(config["seed"], verbose=False)
    experiment = build(resolved(run.config, str(run.path)), run, StopRequest())
    prepare = now() - start
    data, task, trainer = experiment.datamodule, experiment.task, experiment.trainer
    watch = Stopwatch()
    trainer.callbacks.insert(0, watch)  # type: ignore[attr-defined]
    train = SplitBatches(data, data.train, _training_batches(config, data))
    validation = _evaluated(config, data, data.validation)
    test = _evaluated(config, data, data.test) if data.test is not None else None
    batch, evaluated, fit = _fit(experiment, watch, train, validation)
    save, checkpoint = _save(experiment, run)
    predictions, files = _write_predictions(experiment, run)
    export, folder = _export(experiment, run, config["datamodule"]["max_seq_length"])
    on_card = trainer.strategy.root_device.type == "cuda"
    return Measured(
        prepare=prepare,
        fit=fit,
        batch=float(batch.at(train.tokens).mean()),
        step=_mean(watch.steps),
        validation=float(evaluated.at(validation.tokens).sum()),
        test=float(evaluated.at(test.tokens).sum()) if test else 0.0,
        epoch=max(watch.validation - sum(seconds for _, seconds in watch.evaluated), 0.0),
        predictions=predictions,
        save=save,
        export=export,
        batches=len(train.batches),
        parameters=sum(parameter.numel() for parameter in task.model.parameters()),
        checkpoint=checkpoint,
        folder=folder,
        files=files,
        memory=_memory(config, task.model, Curve.of(watch.peaks.items()), int(train.tokens.max())),
        device_memory=torch.cuda.max_memory_allocated() if on_card else 0,
    )


def _for_timing(config: Mapping[str, Any]) -> dict[str, Any]:
    """The config with one epoch, one process, no limits, and nothing that saves, draws or calls elsewhere."""
    trainer = {key: value for key, value in config["trainer"].items() if key not in LIMITS}
    quiet = {"max_epochs": 1, "num_sanity_val_steps": 0, "enable_progress_bar": False}
    alone = {"devices": 1, "num_nodes": 1, "strategy": "auto"} if _processes(config) > 1 else {}
    timed = {
        kind: {
            name: node for name, node in config[kind].items() if node and TIMED.fullmatch(node["_target_"])
        }
        for kind in ("callbacks", "logger")
    }
    return {**config, "trainer": {**trainer, **quiet, **alone}, **timed}


def _processes(config: Mapping[str, Any]) -> int:
    """How many processes will train together, on all machines."""
    nodes: int = config["trainer"].get("num_nodes", 1)
    return ranks.processes_for(config["accelerator"]) * nodes


def _training_batches(config: Mapping[str, Any], data: TextDataModule) -> list[Index]:
    """The first epoch's batches of the first process."""
    processes, node = _processes(config), config["datamodule"]
    rows = data.train.lengths(node["max_seq_length"]), data.batch_size * processes
    batches = training_batches(*rows, node["batching"], config["seed"], epoch=0)
    return [part_of(rows, 0, processes)[0] for rows in join_short_batches(batches, processes)]


def _evaluated(config: Mapping[str, Any], data: TextDataModule, split: Encoded) -> SplitBatches:
    batches = evaluation_batches(split.lengths(config["datamodule"]["max_seq_length"]), data.batch_size)
    return SplitBatches(data, split, batches[:: _processes(config)])


def _fit(
    experiment: Experiment, watch: Stopwatch, train: SplitBatches, validation: SplitBatches
) -> tuple[Curve, Curve, float]:
    """The seconds of a training batch, of a validation batch, and of training beside its batches."""
    rounds, evaluated = train.rounds(TRAINING_SECONDS), validation.rounds(EVALUATION_SECONDS)
    start = now()
    experiment.trainer.fit(experiment.task, rounds, evaluated, weights_only=True)
    seconds = now() - start - watch.validation
    batch = Curve.of(watch.trained[rounds.tried :])  # the first round warms up
    trained = float(batch.at([tokens for tokens, _ in watch.trained]).sum())
    beside = seconds - trained - len(watch.steps) * _mean(watch.steps)
    return batch, Curve.of(watch.evaluated[evaluated.tried :]), max(beside, 0.0)


def _mean(steps: Sequence[float]) -> float:
    return statistics.fmean(steps[1:] or steps)  # the first makes the optimizer's state


def _save(experiment: Experiment, run: Run) -> tuple[float, int]:
    """Save twice, as a run that has saved before does; seconds and bytes of the second."""
    path = run.path / "checkpoints" / LAST
    for _ in range(2):
        start = now()
        experiment.trainer.save_checkpoint(path)
        seconds = now() - start
    size = path.stat().st_size
    for saved in (path, path.with_name(PREVIOUS)):
        remove_checkpoint(saved)
    return seconds, size


def _write_predictions(experiment: Experiment, run: Run) -> tuple[float, int]:
    """Seconds and bytes of the predictions of validation and test, from those of some of validation."""
    data, scored = experiment.datamodule, experiment.task.scored
    assert scored is not None
    rows, labels = (
        data.validation.rows[scored.index].tolist(),
        data.validation.labels[scored.index].tolist(),
    )
    start = now()
    run.write_predictions("validation", rows, labels, scored.logits, experiment.corpus.label_names)
    seconds = now() - start
    share = (len(data.validation) + (len(data.test) if data.test is not None else 0)) / len(rows)
    return seconds * share, int((run.path / "predictions" / "validation.csv").stat().st_size * share)


def _export(experiment: Experiment, run: Run, max_seq_length: int) -> tuple[float, int]:
    """Write ``model/``; seconds and bytes."""
    corpus, folder = experiment.corpus, run.path / "model"
    start = now()
    write_model_folder(
        folder,
        experiment.task.model.cpu(),
        experiment.tokenizer,
        corpus.cleaner,
        max_seq_length,
        [(example.text, example.pair) for example in corpus.validation],
        {},
        {"model": "check", "corpus": "check", "run": "check"},
    )
    return now() - start, sum(path.stat().st_size for path in folder.iterdir())


def _memory(config: Mapping[str, Any], model: torch.nn.Module, peaks: Curve, largest: int) -> int:
    """The machine's peak: so far, or what a batch of the largest size would make it if none was tried."""
    processes = ranks.processes_for(config["accelerator"])
    peak = max(machine.peak_memory(), int(peaks.at([largest])[0]))
    # several processes send each other gradients: each has a second copy of its own
    gradients = sum(parameter.nbytes for parameter in model.parameters()) if _processes(config) > 1 else 0
    return (peak + gradients) * processes
