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
from omegaconf import OmegaConf
from pytorch_lightning.utilities.exceptions import MisconfigurationException

from bunryu.cache import cache_folder
from bunryu.callbacks import BEST, RunLogger
from bunryu.config import instantiate
from bunryu.corpora import SPLITS, Corpus
from bunryu.datamodule import TextDataModule
from bunryu.encoding import Encoded, Encoder
from bunryu.errors import ConfigError, OutOfMemory
from bunryu.model import check_length
from bunryu.model_folder import write_model_folder
from bunryu.runs import Run
from bunryu.task import ClassificationTask, Scored

log = logging.getLogger(__name__)

EXAMPLES_SHOWN = 5


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
        task, trainer, datamodule = experiment.task, experiment.trainer, experiment.datamodule
        with _stage("training"):
            _fit(experiment)
        best = run.path / "checkpoints" / BEST
        checkpoint = str(best) if best.is_file() else None  # fast_dev_run keeps none
        with _stage("scoring the best checkpoint"):
            results: dict[str, Any] = {}
            loaders = {"validation": datamodule.val_dataloader, "test": datamodule.test_dataloader}
            for split, loader in loaders.items():
                if getattr(datamodule, split) is None:
                    continue
                # validate() names its metrics val/, test() test/; weights are loaded for both
                score = trainer.validate if split == "validation" else trainer.test
                score(task, loader(), ckpt_path=checkpoint, weights_only=True, verbose=False)
                assert task.scored is not None
                results.update(task.scored.metrics)
                _write_predictions(run, split, getattr(datamodule, split), task.scored, experiment.corpus)
        results["best_checkpoint"] = f"checkpoints/{BEST}" if checkpoint else None
        run.write_results(results)
        with _stage("writing model/"):
            _export(run, config, experiment, results)
        _log_hyperparameters(run, trainer, results)
    return results


def resolved(run: Run) -> dict[str, Any]:
    """The run's config with secrets filled in from the environment; never written anywhere."""
    container = OmegaConf.to_container(OmegaConf.create(run.config), resolve=True)
    assert isinstance(container, dict)
    return {str(key): value for key, value in container.items()}


def build(config: Mapping[str, Any], run: Run) -> Experiment:
    """The only place where configs become objects."""
    with _stage("reading the corpus"):
        corpus: Corpus = instantiate(config["corpus"]).read().limited(config["limit_rows"])
        run.record(corpus=corpus.facts())
    for warning in corpus.warnings:
        log.warning("%s", warning)
    source = instantiate(config["model"])
    cache = cache_folder(config["cache_dir"])
    with _stage("tokenizer"):
        tokenizer = source.tokenizer([example.text for example in corpus.train], corpus.cleaner, cache)
    encoder = Encoder(tokenizer, corpus.cleaner, cache, overwrite=config["overwrite_cache"])
    encoded = {name: _encode(encoder, corpus, name) for name in SPLITS}
    model = source.classifier(tokenizer, corpus.names)
    check_length(model, config["max_seq_length"])
    datamodule = instantiate(config["datamodule"])(
        *(encoded[name] for name in SPLITS), pad_id=tokenizer.pad_token_id, seed=config["seed"]
    )
    trainer = _trainer(config, run)
    steps = math.ceil(datamodule.batches_per_epoch / trainer.accumulate_grad_batches) * config["epochs"]
    task = instantiate(config["task"])(
        model=model,
        optimizer=instantiate(config["optimizer"]),
        schedule=instantiate(config["scheduler"]),
        total_steps=steps,
        seed=config["seed"],
        log_every=config["trainer"]["log_every_n_steps"],
    )
    _announce(config, run, Experiment(corpus, tokenizer, datamodule, task, trainer), encoded, steps)
    return Experiment(corpus, tokenizer, datamodule, task, trainer)


def _trainer(config: Mapping[str, Any], run: Run) -> pl.Trainer:
    try:
        loggers = [instantiate(node)(save_dir=str(run.path)) for node in config["logger"].values() if node]
        trainer: pl.Trainer = instantiate(config["trainer"])(
            default_root_dir=str(run.path),
            callbacks=[instantiate(node) for node in config["callbacks"].values() if node],
            logger=[RunLogger(run), *loggers],
        )
    except ModuleNotFoundError as error:  # a logger whose library is not installed
        raise ConfigError(f"{error}", where="logger", fix="install it, or logger=tensorboard") from error
    except MisconfigurationException as error:
        raise ConfigError(
            f"{error}", where="accelerator or trainer", fix="accelerator=auto or cpu"
        ) from error
    return trainer


def _fit(experiment: Experiment) -> None:
    try:
        experiment.trainer.fit(experiment.task, datamodule=experiment.datamodule, weights_only=True)
    except SystemExit as end:  # Lightning's answer to Ctrl-C
        raise KeyboardInterrupt from end


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


def _announce(
    config: Mapping[str, Any],
    run: Run,
    experiment: Experiment,
    encoded: Mapping[str, Encoded | None],
    steps: int,
) -> None:
    """Log and record what is about to be trained."""
    length, train = config["max_seq_length"], encoded["train"]
    assert train is not None
    tokens = experiment.tokenizer
    for index, example in enumerate(experiment.corpus.train[:EXAMPLES_SHOWN]):
        row = train.batch(_one(index), length, int(train.lengths(length)[index]), tokens.pad_token_id)
        ids = row["input_ids"][0].tolist()
        log.info("example %d\n  sentence: %s\n  tokens: %s\n  label: %s\n  ids: %s", index + 1,
                 " | ".join(filter(None, (example.text, example.pair))),
                 " ".join(tokens.convert_ids_to_tokens(ids)),
                 experiment.corpus.names[train.labels[index]], ids)  # fmt: skip
    parameters = sum(parameter.numel() for parameter in experiment.task.model.parameters())
    truncated = {name: split.truncated(length) for name, split in encoded.items() if split is not None}
    device = experiment.trainer.strategy.root_device
    log.info(
        "%s: %s parameters, %d steps on %s, %d threads",
        config["model"]["name"],
        f"{parameters:,}",
        steps,
        device,
        torch.get_num_threads(),
    )
    log.info("rows cut at %d tokens: %s", length, truncated)
    run.record(
        device={"kind": device.type, "name": _device_name(device), "count": experiment.trainer.num_devices},
        threads=torch.get_num_threads(),
        parameters=parameters,
        total_steps=steps,
        truncated_rows=truncated,
    )


def _one(index: int) -> Any:
    import numpy as np

    return np.array([index])


def _device_name(device: torch.device) -> str:
    return torch.cuda.get_device_name(device) if device.type == "cuda" else device.type


def _write_predictions(run: Run, split: str, encoded: Encoded, scored: Scored, corpus: Corpus) -> None:
    rows = encoded.rows[scored.index].tolist()
    labels = encoded.labels[scored.index].tolist()
    run.write_predictions(split, rows, labels, scored.logits, corpus.names)


def _export(run: Run, config: Mapping[str, Any], experiment: Experiment, results: Mapping[str, Any]) -> None:
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
