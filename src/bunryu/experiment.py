"""The recipe: how a prepared run directory becomes a trained one."""

from __future__ import annotations

import logging
import math
import time
import warnings
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any

import pytorch_lightning as pl
import torch
from lightning_fabric.utilities.exceptions import MisconfigurationException

from bunryu.announcement import announce
from bunryu.cache import cache_folder
from bunryu.callbacks import BEST, RunLogger
from bunryu.config import call, instantiate, resolved
from bunryu.corpora import SPLITS, Corpus
from bunryu.datamodule import TextDataModule
from bunryu.encoding import Encoded, Encoder
from bunryu.errors import ConfigError, OutOfMemory
from bunryu.model import check_length
from bunryu.model_folder import write_model_folder
from bunryu.runs import Run
from bunryu.task import ClassificationTask

log = logging.getLogger(__name__)


@dataclass(frozen=True)
class Experiment:
    """Everything one run is made of."""

    corpus: Corpus
    tokenizer: Any
    datamodule: TextDataModule
    task: ClassificationTask
    trainer: pl.Trainer


def execute(run: Run) -> dict[str, Any]:
    """Train, choose the checkpoint on validation, score test once, export; return the results."""
    config = resolved(run)
    with run.recording(), _quiet(), _memory_errors(config):
        pl.seed_everything(config["seed"], verbose=False)
        experiment = build(config, run)
        datamodule = experiment.datamodule
        with _stage("training"):
            _fit(experiment)
        best = run.path / "checkpoints" / BEST
        checkpoint = str(best) if best.is_file() else None  # fast_dev_run keeps none
        with _stage("scoring the best checkpoint"):
            results: dict[str, Any] = {}
            for split in ("validation", "test"):
                if getattr(datamodule, split) is not None:
                    results |= _score(run, experiment, split, checkpoint)
        results["best_checkpoint"] = f"checkpoints/{BEST}" if checkpoint else None
        run.write_results(results)
        with _stage("writing model/"):
            _export(run, experiment, results)
        _log_hyperparameters(run, experiment.trainer, results)
    return results


def build(config: Mapping[str, Any], run: Run) -> Experiment:
    """The only place where configs become objects; what can be refused quickly comes first."""
    optimizer = instantiate(config["optimizer"])
    call(optimizer, "optimizer", [torch.nn.Parameter(torch.zeros(1))])
    trainer = _trainer(config, run)
    with _stage("reading the corpus"):
        corpus: Corpus = instantiate(config["corpus"]).read().limited(config["limit_rows"])
        run.record(corpus=corpus.facts())
    for warning in corpus.warnings:
        log.warning("%s", warning)
    source = instantiate(config["model"])
    cache = cache_folder(config["cache_dir"])
    with _stage("tokenizer"):
        texts = [
            part for example in corpus.train for part in (example.text, example.pair) if part is not None
        ]
        tokenizer = source.tokenizer(texts, corpus.cleaner, cache)
    encoder = Encoder(tokenizer, corpus.cleaner, cache, overwrite=config["overwrite_cache"])
    encoded = {name: _encode(encoder, corpus, name) for name in SPLITS}
    model = call(source.classifier, "model", tokenizer, corpus.names)
    check_length(model, config["max_seq_length"])
    datamodule = instantiate(config["datamodule"])(
        *(encoded[name] for name in SPLITS), pad_id=tokenizer.pad_token_id, seed=config["seed"]
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
    announce(run, corpus, tokenizer, datamodule, task, trainer)
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


def _trainer(config: Mapping[str, Any], run: Run) -> pl.Trainer:
    save_dir = str(run.path)
    loggers = [
        call(instantiate(node), f"logger.{name}", save_dir=save_dir)
        for name, node in config["logger"].items()
        if node
    ]
    trainer: pl.Trainer = call(
        instantiate(config["trainer"]),
        "trainer or accelerator",
        default_root_dir=save_dir,
        callbacks=[instantiate(node) for node in config["callbacks"].values() if node],
        logger=[RunLogger(run), *loggers],
    )
    return trainer


def _fit(experiment: Experiment) -> None:
    trainer = experiment.trainer
    try:
        trainer.fit(experiment.task, datamodule=experiment.datamodule, weights_only=True)
    except MisconfigurationException as error:
        raise ConfigError(f"{error}", where="trainer or callbacks") from error
    except SystemExit as end:  # Lightning's answer to Ctrl-C
        raise KeyboardInterrupt from end
    if summary := trainer.profiler.summary():  # type: ignore[attr-defined]
        log.info("%s", summary.strip())


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


def _score(run: Run, experiment: Experiment, split: str, checkpoint: str | None) -> dict[str, float]:
    """Score a split, write its predictions and return its metrics."""
    task, trainer, data = experiment.task, experiment.trainer, experiment.datamodule
    # validate() names its metrics val/, test() test/
    score = trainer.validate if split == "validation" else trainer.test
    loader = data.val_dataloader() if split == "validation" else data.test_dataloader()
    task.scored = None
    score(task, loader, ckpt_path=checkpoint, weights_only=True, verbose=False)
    scored = task.scored
    if scored is None:
        raise ConfigError(f"nothing of {split} was scored", where="trainer", fix="leave its limits alone")
    encoded: Encoded = getattr(data, split)
    rows, labels = encoded.rows[scored.index].tolist(), encoded.labels[scored.index].tolist()
    run.write_predictions(split, rows, labels, scored.logits, experiment.corpus.names)
    return scored.metrics


def _export(run: Run, experiment: Experiment, results: Mapping[str, Any]) -> None:
    config = run.config  # as recorded: the card is for others to read
    write_model_folder(
        run.path / "model",
        experiment.task.model.cpu(),
        experiment.tokenizer,
        experiment.corpus.cleaner,
        config["max_seq_length"],
        [(example.text, example.pair) for example in experiment.corpus.validation],
        results,
        {"model": config["model"]["name"], "corpus": config["corpus"]["name"], "run": run.path.name},
    )


def _log_hyperparameters(run: Run, trainer: pl.Trainer, results: Mapping[str, Any]) -> None:
    """Fill TensorBoard's HPARAMS tab: the config as it was written (no secrets) and the final metrics."""
    metrics = {name: value for name, value in results.items() if isinstance(value, float)}
    for logger in trainer.loggers:
        if isinstance(logger, pl.loggers.TensorBoardLogger):
            logger.log_hyperparams(run.config, metrics)
            logger.finalize("success")


@contextmanager
def _stage(name: str) -> Iterator[None]:
    start = time.perf_counter()
    yield
    log.info("%s took %.1f s", name, time.perf_counter() - start)


@contextmanager
def _quiet() -> Iterator[None]:
    """Hide advice of Lightning's that does not fit here, and its chatter below warnings."""
    logging.getLogger("pytorch_lightning").setLevel(logging.WARNING)
    with warnings.catch_warnings():
        for message in (
            r".*does not have many workers.*",
            r".*LeafSpec.*",
            r".*The number of training batches .* is smaller than the logging interval.*",
            r".*exists and is not empty.*",
            r".*dataloader is not resumable.*",  # ours starts where the trainer stands
        ):
            warnings.filterwarnings("ignore", message)
        yield


@contextmanager
def _memory_errors(config: Mapping[str, Any]) -> Iterator[None]:
    try:
        yield
    except (torch.OutOfMemoryError, MemoryError) as error:
        raise OutOfMemory(
            f"out of memory with batch_size={config['batch_size']} and "
            f"max_seq_length={config['max_seq_length']}",
            fix=f"batch_size={max(1, config['batch_size'] // 2)} trainer.accumulate_grad_batches=2, "
            "or a smaller max_seq_length",
        ) from error
