"""Callbacks that tie Lightning's loop to a run: checkpoints, early stopping, signals, pruning, progress."""

from __future__ import annotations

import os
import sys
import time
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytorch_lightning as pl
from pytorch_lightning.callbacks import Checkpoint, EarlyStopping, ModelCheckpoint, TQDMProgressBar

from bunryu.errors import ModelError
from bunryu.runs.run import BEST, Run
from bunryu.system.signals import Pruned, StopRequest
from bunryu.training.checkpoints import LAST, link_checkpoint

if TYPE_CHECKING:
    import optuna

PATHS = ("best_model_path", "kth_best_model_path", "last_model_path")  # in ModelCheckpoint's state


class BestCheckpoint(ModelCheckpoint):
    """Keeps the best checkpoints by a monitor such as ``min val/loss``, in the end the first as best.ckpt."""

    def __init__(self, monitor: str, save_top_k: int) -> None:
        mode, metric = monitor.split()
        name = "best" if save_top_k == 1 else "best-{epoch}-{step}"
        super().__init__(
            filename=name, monitor=metric, mode=mode, save_top_k=save_top_k, enable_version_counter=False
        )

    def setup(self, trainer: pl.Trainer, pl_module: pl.LightningModule, stage: str) -> None:
        self.dirpath = str(Path(trainer.default_root_dir) / "checkpoints")
        super().setup(trainer, pl_module, stage)

    def state_dict(self) -> dict[str, Any]:
        """The state with file names for paths, so that a run can be moved."""
        state = super().state_dict()
        return {
            **state,
            "dirpath": "checkpoints",
            "best_k_models": {Path(path).name: score for path, score in state["best_k_models"].items()},
            **{key: Path(state[key]).name for key in PATHS},
        }

    def load_state_dict(self, state_dict: dict[str, Any]) -> None:
        """Take the state; its names are looked up in the folder of the run's checkpoints, nowhere else."""
        folder = str(self.dirpath)
        there = {path.name: str(path) for path in Path(folder).glob("*.ckpt")}
        placed = {key: there.get(str(state_dict[key]), "") for key in PATHS}
        models = state_dict["best_k_models"].items()
        best = {there[name]: score for name, score in models if name in there}
        super().load_state_dict({**state_dict, "dirpath": folder, "best_k_models": best, **placed})

    def on_fit_end(self, trainer: pl.Trainer, pl_module: pl.LightningModule) -> None:
        best = Path(self.best_model_path or Path(str(self.dirpath), BEST))
        if self.best_model_score is not None and not best.is_file():
            raise ModelError("the best checkpoint is gone", where=str(best), fix="train the run anew")
        if trainer.is_global_zero and self.best_model_path and best.name != BEST:
            link_checkpoint(best, best.with_name(BEST))


class LastCheckpoint(Checkpoint):
    """Keeps the state after every epoch, and every few minutes, for the run to go on from.

    Lightning's ``save_last`` skips epochs not among the best.
    """

    def __init__(self, every_minutes: float) -> None:
        self._seconds = 60 * every_minutes  # 0 for every optimizer step

    def on_train_start(self, trainer: pl.Trainer, pl_module: pl.LightningModule) -> None:
        self._saved = time.monotonic()

    def on_train_batch_end(
        self, trainer: pl.Trainer, pl_module: pl.LightningModule, outputs: Any, batch: Any, batch_idx: int
    ) -> None:
        if to_save(trainer, time.monotonic() - self._saved >= self._seconds):
            self._save(trainer)

    def on_train_epoch_end(self, trainer: pl.Trainer, pl_module: pl.LightningModule) -> None:
        self._save(trainer)  # the task's own hook for the end of the epoch has run before

    def _save(self, trainer: pl.Trainer) -> None:
        save_last(trainer)
        self._saved = time.monotonic()


def to_save(trainer: pl.Trainer, wanted: bool) -> bool:
    """Whether a process wants a checkpoint, and a run resumed from one of this moment has the same bits.

    Not between the batches of one optimizer step, whose gradients no checkpoint holds; and not after an
    epoch's last batch: the loop would begin the next epoch without having ended this one.
    """
    done = trainer.fit_loop.epoch_loop.batch_progress.current.ready
    if done % trainer.accumulate_grad_batches or done >= trainer.num_training_batches:
        return False
    if trainer.world_size == 1:
        return wanted
    # they ask each other only at steps that are recorded anyway, so that no other step waits for it
    if trainer.lightning_module.steps % trainer.log_every_n_steps:  # type: ignore[attr-defined]
        return False
    return trainer.strategy.reduce_boolean_decision(wanted, all=False)


def save_last(trainer: pl.Trainer) -> None:
    """Write last.ckpt; TrainingError, and nothing written, if a loss was not finite."""
    trainer.lightning_module.refuse_unless_finite()  # type: ignore[operator]
    trainer.save_checkpoint(Path(trainer.default_root_dir) / "checkpoints" / LAST)


class EarlyStop(EarlyStopping):
    """Stops when a monitor such as ``min val/loss`` has not improved for ``patience`` epochs."""

    def __init__(self, monitor: str, patience: int, min_delta: float) -> None:
        mode, metric = monitor.split()
        super().__init__(monitor=metric, mode=mode, patience=patience, min_delta=min_delta)


class ProgressBar(TQDMProgressBar):
    """A progress bar on a terminal, nothing in a log file; it shows no metric, so no step waits for one."""

    def __init__(self) -> None:
        # a notebook, whose kernel sets that variable, would show each of its states on a line of its own
        shown = sys.stderr.isatty() and "JPY_PARENT_PID" not in os.environ
        super().__init__(refresh_rate=20 if shown else 0)


class Pruning(pl.Callback):
    """Reports a metric after every validation, and stops where the study's pruner says so.

    The trial's study keeps what is reported, so that a resumed trial is judged as before.
    """

    def __init__(self, trial: optuna.trial.Trial, metric: str) -> None:
        self._trial, self._metric = trial, metric

    def on_validation_end(self, trainer: pl.Trainer, pl_module: pl.LightningModule) -> None:
        if trainer.state.fn != "fit" or trainer.sanity_checking:
            return
        self._trial.report(float(trainer.callback_metrics[self._metric]), trainer.current_epoch)
        epoch = trainer.current_epoch + 1
        if epoch != trainer.max_epochs and self._trial.should_prune():
            raise Pruned(f"pruned after epoch {epoch}: other trials did better by then")


class StopAndMetricsCallback(Checkpoint):
    """Ties checkpoints to the run's metrics.csv, and stops training on request.

    A Checkpoint, since Lightning calls those after all other callbacks.
    """

    def __init__(self, run: Run, stop: StopRequest) -> None:
        self._run, self._stop = run, stop

    def on_train_start(self, trainer: pl.Trainer, pl_module: pl.LightningModule) -> None:
        """Take the signals back from Lightning; keep a run stopped that had stopped early."""
        self._stop.install_handlers()
        early = [callback for callback in trainer.callbacks if isinstance(callback, EarlyStopping)]  # type: ignore[attr-defined]
        trainer.should_stop = any(callback.wait_count >= callback.patience for callback in early)

    def on_save_checkpoint(
        self, trainer: pl.Trainer, pl_module: pl.LightningModule, checkpoint: dict[str, Any]
    ) -> None:
        checkpoint["metrics_bytes"] = self._run.metrics_bytes()

    def on_load_checkpoint(
        self, trainer: pl.Trainer, pl_module: pl.LightningModule, checkpoint: dict[str, Any]
    ) -> None:
        """Cut metrics.csv back to what it was when the checkpoint was written."""
        if trainer.state.fn == "fit":
            self._run.cut_metrics(checkpoint["metrics_bytes"])

    def on_train_batch_end(
        self, trainer: pl.Trainer, pl_module: pl.LightningModule, outputs: Any, batch: Any, batch_idx: int
    ) -> None:
        if to_save(trainer, self._stop.received):
            save_last(trainer)
            self._stop.raise_interrupted()

    def on_train_epoch_end(self, trainer: pl.Trainer, pl_module: pl.LightningModule) -> None:
        if trainer.strategy.reduce_boolean_decision(self._stop.received, all=False):
            save_last(trainer)
            self._stop.raise_interrupted()
