"""The recipe: how a prepared run directory becomes a trained one."""

from __future__ import annotations

import logging
from collections.abc import Mapping, Sequence
from contextlib import nullcontext
from pathlib import Path
from typing import Any

import pytorch_lightning as pl
import torch
from lightning_fabric.utilities.exceptions import MisconfigurationException

from bunryu.config.instantiate import check_targets
from bunryu.config.record import resolved
from bunryu.data.corpus import Corpus
from bunryu.errors import BusyError, ConfigError, ModelError
from bunryu.keys import value_at
from bunryu.models.folder import write_model_folder
from bunryu.runs.lock import locked
from bunryu.runs.recording import recording
from bunryu.runs.run import BEST, Run
from bunryu.system.signals import StopRequest, stop_on_signals
from bunryu.training.batch_size import memory_errors
from bunryu.training.build import Experiment, build
from bunryu.training.checkpoints import keep_checkpoints, newest_checkpoint, steps_of
from bunryu.training.early_checks import quiet
from bunryu.training.inputs import stage
from bunryu.training.summary import log_and_record_summary

log = logging.getLogger(__name__)

KNOBS = (
    "seed", "model.name", "corpus.name", "max_seq_length", "batch_size", "epochs", "optimizer._target_",
    "optimizer.lr", "optimizer.weight_decay", "scheduler.factory._target_", "scheduler.factory.warmup",
    "model.architecture.hidden_dropout_prob", "accelerator.precision",
)  # fmt: skip


def execute(
    run: Run,
    *,
    resume: bool = False,  # from the newest whole checkpoint, or from the beginning if there is none
    despite_changes: bool = False,  # of the corpus
    threads: int | None = None,  # of PyTorch on the CPU, where another number gives other bits
    callbacks: Sequence[pl.Callback] = (),  # beside the config's
    corpus: Corpus | None = None,  # the config's, if it has been read
) -> dict[str, Any]:
    """Train, choose the checkpoint on validation, score test once, export; return the results.

    Raises BusyError if another process writes to the run, and Interrupted if a signal asked to stop.
    """
    # all of it judged before any of it is made: a run directory comes from anywhere
    config = check_targets(resolved(run.config, str(run.path)))
    with locked(run.path) if run.writes else nullcontext():
        if resume and run.manifest["status"] == "finished":
            raise BusyError("another process has just finished this run", where=str(run.path))
        with recording(run), stop_on_signals() as stop, quiet(), memory_errors(config):
            start = _restart(run) if resume else None
            recorded = run.manifest.get("corpus") if resume and not despite_changes else None
            _set_up_torch(config, threads)
            experiment = build(config, run, stop, start, recorded, callbacks, corpus)
            if run.writes:  # so that a checkpoint can be used even if the run never ends
                _write_model(run, experiment, None)
            log_and_record_summary(run, experiment)
            _fit(experiment, start, stop)
            results = _score_best(run, experiment)
            if run.writes:
                _finish(run, config, experiment, results)
            return results


def _restart(run: Run) -> Path | None:
    """Record that the run goes on; its newest whole checkpoint, or None, with its metrics cut back."""
    manifest = run.manifest
    if manifest.get("threads") and manifest.get("device", {}).get("kind") == "cpu":
        torch.set_num_threads(manifest["threads"])  # another number gives other bits
    run.restart()
    start = newest_checkpoint(run.path / "checkpoints")
    if start is None:
        run.cut_metrics(None)
        log.warning("there is no checkpoint to go on from: training begins anew")
    else:
        log.info("going on from %s, step %d", start.name, steps_of(start))
    return start


def _set_up_torch(config: Mapping[str, Any], threads: int | None) -> None:
    if threads is not None:
        torch.set_num_threads(threads)
    pl.seed_everything(config["seed"], verbose=False)
    if config["accelerator"]["name"] == "gpu":
        torch.set_float32_matmul_precision("high")  # TF32


def _fit(experiment: Experiment, start: Path | None, stop: StopRequest) -> None:
    trainer = experiment.trainer
    try:
        with stage("training"), stop.deferred():
            trainer.fit(experiment.task, datamodule=experiment.datamodule, ckpt_path=start, weights_only=True)
    except MisconfigurationException as error:
        raise ConfigError(f"{error}", where="trainer or callbacks") from error
    except RuntimeError as error:
        if start is None or "loading state_dict" not in str(error):
            raise
        what = f"the checkpoint does not fit the model: {str(error).splitlines()[1].strip()}"
        fix = "the corpus and configuration the run began with, or a new run"
        raise ModelError(what, where=str(start), fix=fix) from error
    if summary := trainer.profiler.summary():  # type: ignore[attr-defined]
        log.info("%s", summary.strip())


def _score_best(run: Run, experiment: Experiment) -> dict[str, Any]:
    """The metrics of the best checkpoint, on validation and on test if there is one."""
    best = run.path / "checkpoints" / BEST
    checkpoint = str(best) if best.is_file() else None  # fast_dev_run keeps none
    splits = ["validation"] if experiment.datamodule.test is None else ["validation", "test"]
    with stage("scoring the best checkpoint"):
        scored = [_score(run, experiment, split, checkpoint) for split in splits]
    return {name: value for metrics in scored for name, value in metrics.items()}


def _score(run: Run, experiment: Experiment, split: str, checkpoint: str | None) -> dict[str, float]:
    """Score a split and write its predictions; its metrics."""
    task, trainer, data = experiment.task, experiment.trainer, experiment.datamodule
    task.scored = None
    if split == "validation":  # validate() names its metrics val/, test() test/
        score, loader, encoded = trainer.validate, data.val_dataloader(), data.validation
    else:
        assert data.test is not None
        score, loader, encoded = trainer.test, data.test_dataloader(), data.test
    score(task, loader, ckpt_path=checkpoint, weights_only=True, verbose=False)
    scored = task.scored
    if scored is None:
        raise ConfigError(f"nothing of {split} was scored", where="trainer", fix="leave its limits alone")
    rows, labels = encoded.rows[scored.index].tolist(), encoded.labels[scored.index].tolist()
    run.write_predictions(split, rows, labels, scored.logits, experiment.corpus.label_names)
    return scored.metrics


def _finish(run: Run, config: Mapping[str, Any], experiment: Experiment, results: dict[str, Any]) -> None:
    """Write model/ and results.json; add to the results where the best checkpoint lies."""
    experiment.task.model.cpu()
    with stage("writing model/"):
        _write_model(run, experiment, results)
    _log_hyperparameters(run, experiment.trainer, results)
    kept = config["keep_checkpoints"] != "none" and (run.path / "checkpoints" / BEST).is_file()
    results["best_checkpoint"] = f"checkpoints/{BEST}" if kept else None
    run.write_results(results)  # from here on nothing of it is trained again
    keep_checkpoints(run.path / "checkpoints", config["keep_checkpoints"])


def _write_model(run: Run, experiment: Experiment, results: Mapping[str, Any] | None) -> None:
    shown, corpus = run.config, experiment.corpus  # the config as recorded: the card is for others to read
    name = Path(shown["model"]["name"])
    model = name.name if name.is_absolute() else str(name)
    write_model_folder(
        run.path / "model", experiment.task.model, experiment.tokenizer, corpus.cleaner,
        shown["max_seq_length"], [(example.text, example.pair) for example in corpus.validation],
        results, {"model": model, "corpus": shown["corpus"]["name"], "run": run.path.name},
    )  # fmt: skip


def _log_hyperparameters(run: Run, trainer: pl.Trainer, results: Mapping[str, Any]) -> None:
    """Fill TensorBoard's HPARAMS tab: main knobs and what was set, as written (no secrets), final metrics."""
    config = run.config
    named = (override.lstrip("+~").partition("=")[0] for override in run.manifest["overrides"])
    found = {key: value_at(config, key) for key in dict.fromkeys((*KNOBS, *named))}
    knobs = {key: value for key, value in found.items() if not isinstance(value, Mapping | None)}
    metrics = {name: value for name, value in results.items() if isinstance(value, float)}
    for logger in trainer.loggers:
        if isinstance(logger, pl.loggers.TensorBoardLogger):
            logger.log_hyperparams(knobs, metrics)
            logger.finalize("success")
