"""Measures what a run takes: a few real steps of it in a temporary folder."""

from __future__ import annotations

import re
import warnings
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytorch_lightning as pl
import torch

from bunryu.config.record import resolved
from bunryu.encoding.batching import Index, evaluation_batches, join_short_batches, part_of, training_batches
from bunryu.encoding.encoder import Encoded
from bunryu.models.folder import write_model_folder
from bunryu.preflight.estimate import Measured
from bunryu.preflight.stopwatch import SampledBatches, now
from bunryu.runs.run import Run
from bunryu.system import machine, ranks
from bunryu.system.signals import StopRequest
from bunryu.training.batch_size import memory_errors
from bunryu.training.build import Experiment, build
from bunryu.training.checkpoints import LAST
from bunryu.training.datamodule import TextDataModule

TRAINING_SECONDS, EVALUATION_SECONDS = 3.0, 1.0  # that timing goes on for at least
# Lightning's own callbacks but for what draws, and the logger that starts no run of its own elsewhere.
TIMED = re.compile(
    r"pytorch_lightning\.callbacks\.(?!.*ProgressBar).*|bunryu\.training\.callbacks\.EarlyStop.*|.*\.TensorBoardLogger"
)
# What says how many batches are taken, or when to end: not while timing.
LIMITS = ("fast_dev_run", "limit_train_batches", "limit_val_batches", "limit_test_batches", "overfit_batches",
          "max_steps", "max_time", "min_epochs", "min_steps", "num_sanity_val_steps", "profiler",
          "val_check_interval", "check_val_every_n_epoch")  # fmt: skip


def measure(config: Mapping[str, Any], scratch: Path) -> Measured:
    """Train, validate, save and export a little in a ``scratch`` folder, to time it.

    Of several processes one is timed alone, without what they send each other. Raises BunryuError for
    whatever would stop the run while it is built, OutOfMemory if its largest batches do not fit.
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
    data, model = experiment.datamodule, experiment.task.model
    batches = _training_batches(config, data)
    train = SampledBatches(data, data.train, batches, TRAINING_SECONDS)
    scored = _evaluation_batches(config, data, data.validation)
    validation = SampledBatches(data, data.validation, scored, EVALUATION_SECONDS)
    start = now()
    experiment.trainer.fit(experiment.task, train, validation, weights_only=True)
    fit = now() - start - train.steady - validation.steady
    test = data.padded_tokens(data.test, _evaluation_batches(config, data, data.test)) if data.test else []
    path = run.path / "checkpoints" / LAST
    start = now()
    experiment.trainer.save_checkpoint(path)
    save = now() - start
    # several processes send each other gradients: each has a second copy of its own
    gradients = sum(weights.nbytes for weights in model.parameters()) if _processes(config) > 1 else 0
    on_card = experiment.trainer.strategy.root_device.type == "cuda"
    start = now()
    folder, files = _write_results(experiment, run, config["datamodule"]["max_seq_length"])
    return Measured(
        prepare=prepare,
        fit=max(fit, 0.0),
        epoch=train.token * train.tokens,
        validation=validation.token * validation.tokens,
        test=validation.token * sum(test),
        save=save,
        write=now() - start,
        batches=len(batches),
        parameters=sum(parameter.numel() for parameter in model.parameters()),
        checkpoint=path.stat().st_size,
        folder=folder,
        files=files,
        memory=(machine.peak_memory() + gradients) * ranks.processes_for(config["accelerator"]),
        device_memory=torch.cuda.max_memory_allocated() if on_card else 0,
    )


def _for_timing(config: Mapping[str, Any]) -> dict[str, Any]:
    """The config with one epoch, one process, no limits, and nothing that saves, draws or calls elsewhere."""
    trainer = {key: value for key, value in config["trainer"].items() if key not in LIMITS}
    quiet = {"max_epochs": 1, "num_sanity_val_steps": 0, "enable_progress_bar": False}
    alone = {"devices": 1, "num_nodes": 1, "strategy": "auto"} if _processes(config) > 1 else {}
    nodes = {"callbacks": dict(config["callbacks"]), "logger": dict(config["logger"])}
    for node in nodes.values():
        node |= {key: None for key in node if not (node[key] and TIMED.fullmatch(node[key]["_target_"]))}
    return {**config, "trainer": {**trainer, **quiet, **alone}, **nodes}


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


def _evaluation_batches(config: Mapping[str, Any], data: TextDataModule, split: Encoded) -> list[Index]:
    batches = evaluation_batches(split.lengths(config["datamodule"]["max_seq_length"]), data.batch_size)
    return batches[:: _processes(config)]


def _write_results(experiment: Experiment, run: Run, max_seq_length: int) -> tuple[int, int]:
    """Write predictions and ``model/``; bytes of ``model/``, and of the predictions of a whole run."""
    corpus, data, scored = experiment.corpus, experiment.datamodule, experiment.task.scored
    assert scored is not None
    rows, labels = (
        values[scored.index].tolist() for values in (data.validation.rows, data.validation.labels)
    )
    run.write_predictions("validation", rows, labels, scored.logits, corpus.label_names)
    folder = run.path / "model"
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
    predictions = (run.path / "predictions" / "validation.csv").stat().st_size
    share = (len(corpus.validation) + len(corpus.test)) / len(rows)
    return sum(path.stat().st_size for path in folder.iterdir()), int(predictions * share)
