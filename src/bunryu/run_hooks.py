"""What ties a trainer to a run directory: metrics.csv, checkpoint files, and stopping when asked to."""

from __future__ import annotations

from argparse import Namespace
from pathlib import Path
from typing import Any

import pytorch_lightning as pl
from lightning_fabric.plugins import CheckpointIO
from pytorch_lightning.callbacks import Checkpoint, EarlyStopping
from pytorch_lightning.loggers.logger import Logger
from pytorch_lightning.utilities import rank_zero_only

from bunryu.callbacks import agreed, can_go_on_from_here, save_last
from bunryu.checkpoints import read_checkpoint, remove_checkpoint, write_checkpoint
from bunryu.interruption import Stop
from bunryu.runs import Run


class RunState(Checkpoint):
    """Ties checkpoints to the run's metrics.csv, and stops training when somebody asked to.

    Args:
        run: the run.
        stop: whether to stop.
    """

    def __init__(self, run: Run, stop: Stop) -> None:
        self._run, self._stop = run, stop

    def on_train_start(self, trainer: pl.Trainer, pl_module: pl.LightningModule) -> None:
        """Take the signals back from Lightning; keep a run stopped that had stopped early."""
        self._stop.install()
        early = [callback for callback in trainer.callbacks if isinstance(callback, EarlyStopping)]  # type: ignore[attr-defined]
        trainer.should_stop = any(callback.wait_count >= callback.patience for callback in early)

    def on_save_checkpoint(
        self, trainer: pl.Trainer, pl_module: pl.LightningModule, checkpoint: dict[str, Any]
    ) -> None:
        """Note how much of metrics.csv belongs to the checkpoint."""
        checkpoint["metrics_bytes"] = self._run.metrics_bytes()

    def on_load_checkpoint(
        self, trainer: pl.Trainer, pl_module: pl.LightningModule, checkpoint: dict[str, Any]
    ) -> None:
        """Cut metrics.csv back to that."""
        if trainer.state.fn == "fit":
            self._run.cut_metrics(checkpoint["metrics_bytes"])

    def on_train_batch_end(
        self, trainer: pl.Trainer, pl_module: pl.LightningModule, outputs: Any, batch: Any, batch_idx: int
    ) -> None:
        """Stop with a checkpoint, if asked to; else at the epoch's end."""
        if agreed(trainer, self._stop.wanted) and can_go_on_from_here(trainer):
            save_last(trainer)
            self._stop.obey()

    def on_train_epoch_end(self, trainer: pl.Trainer, pl_module: pl.LightningModule) -> None:
        """Stop with a checkpoint, if asked to."""
        if trainer.strategy.reduce_boolean_decision(self._stop.wanted, all=False):
            save_last(trainer)
            self._stop.obey()


class CheckpointFiles(CheckpointIO):
    """Checkpoints of the trainer on disk: whole, synchronised, with a checksum beside."""

    def save_checkpoint(
        self, checkpoint: dict[str, Any], path: str | Path, storage_options: Any | None = None
    ) -> None:
        """Write one."""
        write_checkpoint(checkpoint, Path(path))

    def load_checkpoint(
        self, path: str | Path, map_location: Any = None, weights_only: bool | None = None
    ) -> dict[str, Any]:
        """Read one onto the CPU, if it is whole; Lightning moves its parts to where they belong."""
        return read_checkpoint(Path(path))

    def remove_checkpoint(self, path: str | Path) -> None:
        """Remove one with its checksum."""
        remove_checkpoint(Path(path))


class RunLogger(Logger):
    """Writes every recorded metric to the run's metrics.csv."""

    def __init__(self, run: Run) -> None:
        super().__init__()
        self._run = run

    @property
    def name(self) -> str:
        """The file's name."""
        return "metrics"

    @property
    def version(self) -> str:
        """There is one a run."""
        return ""

    @rank_zero_only
    def log_metrics(self, metrics: dict[str, float], step: int | None = None) -> None:
        """Append one record; it must carry the epoch."""
        epoch = int(metrics["epoch"])
        self._run.log_metrics(epoch, step or 0, {k: v for k, v in metrics.items() if k != "epoch"})

    def log_hyperparams(self, params: dict[str, Any] | Namespace, *args: Any, **kwargs: Any) -> None:
        """Nothing: config.yaml has them."""
