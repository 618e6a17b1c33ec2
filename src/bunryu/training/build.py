"""From a config to everything one run is made of."""

from __future__ import annotations

import logging
import math
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any

import pytorch_lightning as pl

from bunryu.config.instantiate import call, instantiate
from bunryu.data.corpus import SPLITS, Corpus
from bunryu.errors import ConfigError
from bunryu.runs.run import Run
from bunryu.system.signals import StopRequest
from bunryu.training.callbacks import StopAndMetricsCallback
from bunryu.training.checkpoints import steps_of
from bunryu.training.datamodule import TextDataModule
from bunryu.training.early_checks import callbacks_of, optimizer_and_schedule
from bunryu.training.inputs import classifier_of, corpus_to_train_on, encode_splits, stage, tokenizer_of
from bunryu.training.run_io import AtomicCheckpointIO, RunLogger
from bunryu.training.task import ClassificationTask

log = logging.getLogger(__name__)

WIDTHS = 4  # of batches where each shape is compiled and the config names no number


@dataclass(frozen=True)
class Experiment:
    corpus: Corpus
    tokenizer: Any
    datamodule: TextDataModule
    task: ClassificationTask
    trainer: pl.Trainer


def build(
    config: Mapping[str, Any],
    run: Run,
    stop: StopRequest,
    start: Path | None = None,  # the checkpoint that training will go on from
    recorded: Mapping[str, Any] | None = None,  # facts about the corpus that must still be true
    callbacks: Sequence[pl.Callback] = (),  # beside the config's
    corpus: Corpus | None = None,  # the config's, if it has been read
) -> Experiment:
    """The objects of a resolved config, made only here; what can be refused quickly comes first."""
    optimizer, schedule = optimizer_and_schedule(config)
    trainer = _trainer(config, run, stop, start, callbacks)
    corpus = _corpus(config, run, recorded, corpus)
    with stage("tokenizer"):
        source, tokenizer = tokenizer_of(config, corpus)
    datamodule = _datamodule(config, corpus, tokenizer)
    task = instantiate(config["task"])(
        model=classifier_of(config, source, tokenizer, corpus),
        optimizer=optimizer,
        schedule=schedule,
        total_steps=total_steps(trainer, datamodule.batches_per_epoch),
        seed=config["seed"],
        log_every=config["trainer"]["log_every_n_steps"],
    )
    return Experiment(corpus, tokenizer, datamodule, task, trainer)


def _corpus(
    config: Mapping[str, Any], run: Run, recorded: Mapping[str, Any] | None, corpus: Corpus | None
) -> Corpus:
    corpus = corpus_to_train_on(config, corpus)
    facts = corpus.facts()
    if recorded is not None and recorded["fingerprint"] != facts["fingerprint"]:
        raise _other_corpus(recorded["splits"], facts["splits"])
    run.record(corpus=facts)
    for warning in corpus.warnings:
        log.warning("%s", warning)
    return corpus


def _datamodule(config: Mapping[str, Any], corpus: Corpus, tokenizer: Any) -> TextDataModule:
    encoded = encode_splits(config, corpus, tokenizer)
    datamodule: TextDataModule = instantiate(config["datamodule"])(
        *(encoded.get(name) for name in SPLITS),
        pad_id=tokenizer.pad_token_id,
        seed=config["seed"],
        **_fixed_shapes(config),
    )
    return datamodule


def _fixed_shapes(config: Mapping[str, Any]) -> dict[str, Any]:
    """The datamodule's arguments where each shape of a batch is compiled; none elsewhere."""
    tpu = config["accelerator"]["name"] == "tpu"
    if not (tpu or config.get("compile")):
        return {}
    rows, widths = config["datamodule"]["batch_size"], config["datamodule"].get("widths") or WIDTHS
    if tpu:  # one process has all chips
        rows *= config["accelerator"]["devices"]
    log.info("batches of %d rows in %d widths at most: each shape is compiled once", rows, widths)
    return {"batch_size": rows, "widths": widths, "fixed_rows": True}


def _other_corpus(recorded: Mapping[str, Any], splits: Mapping[str, Any]) -> ConfigError:
    changed = [f"{name} {split['rows']} -> {splits[name]['rows']} rows" for name, split in recorded.items()]
    what = f"the corpus is not the one the run began with ({', '.join(changed)})"
    fix = "the files as they were; or --despite-changes, and another result"
    return ConfigError(what, where="fingerprint", fix=fix)


def _trainer(
    config: Mapping[str, Any], run: Run, stop: StopRequest, start: Path | None, further: Sequence[pl.Callback]
) -> pl.Trainer:
    trainer: pl.Trainer = call(
        instantiate(config["trainer"]),
        "trainer or accelerator",
        default_root_dir=str(run.path),
        callbacks=[*callbacks_of(config), StopAndMetricsCallback(run, stop), *further],
        logger=[RunLogger(run), *_loggers(config["logger"], run, start)],
        **_strategy_and_plugins(config["accelerator"], config["trainer"]["strategy"], run.path),
    )
    return trainer


def _loggers(nodes: Mapping[str, Any], run: Run, start: Path | None) -> Iterator[Any]:
    for name, node in nodes.items():
        if node:
            factory = instantiate(node)
            if start is not None and node["_target_"].endswith(".TensorBoardLogger"):
                factory = partial(factory, purge_step=steps_of(start) + 1)  # what was logged after it
            yield call(factory, f"logger.{name}", save_dir=str(run.path))


def _strategy_and_plugins(accelerator: Mapping[str, Any], strategy: str, run: Path) -> dict[str, Any]:
    if accelerator["name"] != "tpu":
        return {"strategy": strategy, "plugins": [AtomicCheckpointIO(run)]}
    from bunryu.training import tpu

    return {
        "devices": 1,  # that Lightning knows of
        "strategy": tpu.Chips(accelerator["devices"]) if strategy == "auto" else strategy,
        "plugins": [tpu.ChipCheckpointIO(run)],
    }


def total_steps(trainer: pl.Trainer, batches: int) -> int:
    """Optimizer steps of the whole run, of so many training batches an epoch.

    Counted from the trainer's own limits, since ``estimated_stepping_batches`` would need the loaders.
    """
    limit = trainer.limit_train_batches
    taken = min(batches, limit) if isinstance(limit, int) else int(batches * limit)
    epochs = trainer.max_epochs or 1
    steps = math.ceil(taken / trainer.accumulate_grad_batches) * epochs
    return min(steps, trainer.max_steps) if trainer.max_steps > 0 else steps
