"""From a config to everything one run is made of."""

from __future__ import annotations

import logging
import math
import time
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any

import pytorch_lightning as pl
import torch

from bunryu.config.instantiate import call, instantiate
from bunryu.data.corpus import SPLITS, Corpus
from bunryu.encoding.encoder import Encoded, Encoder
from bunryu.errors import ConfigError
from bunryu.models.sources import check_length
from bunryu.runs.run import Run
from bunryu.system.locations import cache_folder
from bunryu.system.signals import StopRequest
from bunryu.training.callbacks import StopAndMetricsCallback
from bunryu.training.checkpoints import steps_of
from bunryu.training.datamodule import TextDataModule
from bunryu.training.run_io import AtomicCheckpointIO, RunLogger
from bunryu.training.summary import log_and_record_summary
from bunryu.training.task import ClassificationTask

log = logging.getLogger(__name__)

WIDTHS = 4  # of batches where each shape is compiled and the config names no number


@dataclass(frozen=True)
class Experiment:
    """Everything one run is made of."""

    corpus: Corpus
    tokenizer: Any
    datamodule: TextDataModule
    task: ClassificationTask
    trainer: pl.Trainer


def build(
    config: Mapping[str, Any],
    run: Run,
    stop: StopRequest,
    start: Path | None = None,
    recorded: Mapping[str, Any] | None = None,
    callbacks: Sequence[pl.Callback] = (),
) -> Experiment:
    """The only place where configs become objects; what can be refused quickly comes first.

    Args:
        config: resolved.
        run: its directory.
        stop: whether somebody asked to stop.
        start: the checkpoint that training will go on from.
        recorded: facts that the corpus has to have still.
        callbacks: beside the config's.
    """
    optimizer = instantiate(config["optimizer"])
    call(optimizer, "optimizer", [torch.nn.Parameter(torch.zeros(1))])
    trainer = _trainer(config, run, stop, start, callbacks)
    with stage("reading the corpus"):
        corpus: Corpus = instantiate(config["corpus"]).read().limited(config["limit_rows"])
        facts = corpus.facts()
        _refuse_another(facts, recorded)
        run.record(corpus=facts)
    if config["strict_data"]:
        corpus.refuse_flaws()
    for warning in corpus.warnings:
        log.warning("%s", warning)
    source = instantiate(config["model"])
    cache = cache_folder(config["cache_dir"])
    with stage("tokenizer"):
        texts = [
            part for example in corpus.train for part in (example.text, example.pair) if part is not None
        ]
        tokenizer = source.tokenizer(texts, corpus.cleaner, cache)
    encoder = Encoder(tokenizer, corpus.cleaner, cache, overwrite=config["overwrite_cache"])
    encoded = {name: _encode(encoder, corpus, name) for name in SPLITS}
    model = call(source.classifier, "model", tokenizer, corpus.label_names)
    check_length(model, config["max_seq_length"])
    datamodule = instantiate(config["datamodule"])(
        *(encoded[name] for name in SPLITS),
        pad_id=tokenizer.pad_token_id,
        seed=config["seed"],
        **_shapes(config),
    )
    steps = total_steps(trainer, datamodule.batches_per_epoch)
    task = instantiate(config["task"])(
        model=model,
        optimizer=optimizer,
        schedule=instantiate(config["scheduler"]),
        total_steps=steps,
        seed=config["seed"],
        log_every=config["trainer"]["log_every_n_steps"],
    )
    experiment = Experiment(corpus, tokenizer, datamodule, task, trainer)
    log_and_record_summary(run, corpus, tokenizer, datamodule, task, trainer)
    return experiment


def total_steps(trainer: pl.Trainer, batches: int) -> int:
    """Optimizer steps of the whole run.

    Counted from the trainer's own limits, since ``estimated_stepping_batches`` would need the loaders.

    Args:
        trainer: with its epochs, steps, limits and accumulation set.
        batches: training batches an epoch.
    """
    limit = trainer.limit_train_batches
    taken = min(batches, limit) if isinstance(limit, int) else int(batches * limit)
    epochs = trainer.max_epochs or 1
    steps = math.ceil(taken / trainer.accumulate_grad_batches) * epochs
    return min(steps, trainer.max_steps) if trainer.max_steps > 0 else steps


def _shapes(config: Mapping[str, Any]) -> dict[str, Any]:
    """The shapes of batches where each one is compiled: decided here and nowhere else."""
    tpu = config["accelerator"]["name"] == "tpu"
    if not (tpu or config.get("compile")):  # a run of an earlier version has no such key
        return {}
    rows, widths = config["datamodule"]["batch_size"], config["datamodule"].get("widths") or WIDTHS
    if tpu:  # one process has all chips
        rows *= config["accelerator"]["devices"]
    log.info("batches of %d rows in %d widths at most: each shape is compiled once", rows, widths)
    return {"batch_size": rows, "widths": widths, "fixed_rows": True}


def _refuse_another(facts: Mapping[str, Any], recorded: Mapping[str, Any] | None) -> None:
    """Refuse to go on with another corpus than the run began with."""
    if recorded is None or recorded["fingerprint"] == facts["fingerprint"]:
        return
    rows = {
        name: (split["rows"], facts["splits"][name]["rows"]) for name, split in recorded["splits"].items()
    }
    changed = ", ".join(f"{name} {before} -> {after} rows" for name, (before, after) in rows.items())
    raise ConfigError(
        f"the corpus is not the one the run began with ({changed})",
        where="fingerprint",
        fix="the files as they were; or --despite-changes, and another result",
    )


def _trainer(
    config: Mapping[str, Any], run: Run, stop: StopRequest, start: Path | None, further: Sequence[pl.Callback]
) -> pl.Trainer:
    save_dir = str(run.path)
    loggers = []
    for name, node in config["logger"].items():
        if node:
            factory = instantiate(node)
            if start is not None and node["_target_"].endswith(".TensorBoardLogger"):
                factory = partial(factory, purge_step=steps_of(start) + 1)  # what was logged after it
            loggers.append(call(factory, f"logger.{name}", save_dir=save_dir))
    callbacks = [instantiate(node) for node in config["callbacks"].values() if node]
    trainer: pl.Trainer = call(
        instantiate(config["trainer"]),
        "trainer or accelerator",
        default_root_dir=save_dir,
        callbacks=[*callbacks, StopAndMetricsCallback(run, stop), *further],
        logger=[RunLogger(run), *loggers],
        **_for(config["accelerator"], config["trainer"]["strategy"]),
    )
    return trainer


def _for(accelerator: Mapping[str, Any], strategy: str) -> dict[str, Any]:
    """The trainer's strategy and plugins: a TPU's are its own."""
    if accelerator["name"] != "tpu":
        return {"strategy": strategy, "plugins": [AtomicCheckpointIO()]}
    from bunryu.training import tpu

    return {
        "devices": 1,  # that Lightning knows of
        "strategy": tpu.Chips(accelerator["devices"]) if strategy == "auto" else strategy,
        "plugins": [tpu.ChipCheckpointIO()],
    }


def _encode(encoder: Encoder, corpus: Corpus, name: str) -> Encoded | None:
    examples = corpus.split(name)
    if not examples:
        return None
    pairs = None if examples[0].pair is None else [example.pair or "" for example in examples]
    start = time.perf_counter()
    encoded, cached = encoder.encode(
        [example.text for example in examples],
        pairs,
        corpus.label_ids(name),
        [example.row for example in examples],
    )
    source = "from the cache" if cached else "encoded"
    log.info("%s: %d rows %s in %.2f s", name, len(encoded), source, time.perf_counter() - start)
    return encoded


@contextmanager
def stage(name: str) -> Iterator[None]:
    """Log how long a part of the recipe took."""
    start = time.perf_counter()
    yield
    log.info("%s took %.1f s", name, time.perf_counter() - start)
