"""What Lightning lacks: our monitor's spelling, checkpoints in the run, metrics.csv."""

from __future__ import annotations

import shutil
import sys
from argparse import Namespace
from pathlib import Path
from typing import Any

import pytorch_lightning as pl
from pytorch_lightning.callbacks import EarlyStopping, ModelCheckpoint, TQDMProgressBar
from pytorch_lightning.loggers.logger import Logger
from pytorch_lightning.utilities import rank_zero_only

from bunryu.runs import Run

BEST = "best.ckpt"
PATHS = ("best_model_path", "kth_best_model_path", "last_model_path")  # in ModelCheckpoint's state


class RunCheckpoint(ModelCheckpoint):
    """A checkpoint callback that writes into the run and keeps no path outside it."""

    def setup(self, trainer: pl.Trainer, pl_module: pl.LightningModule, stage: str) -> None:
        """Put checkpoints into the run directory."""
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
        """Take up the state in the folder where the run lies now."""
        folder = str(self.dirpath)
        placed = {key: str(Path(folder) / state_dict[key]) if state_dict[key] else "" for key in PATHS}
        best = {str(Path(folder) / name): score for name, score in state_dict["best_k_models"].items()}
        super().load_state_dict({**state_dict, "dirpath": folder, "best_k_models": best, **placed})


class BestCheckpoint(RunCheckpoint):
    """Keeps the best checkpoints by a monitor such as ``min val/loss``.

    Args:
        monitor: ``min`` or ``max`` and the metric.
        save_top_k: how many of the best to keep; the best of several is also ``best.ckpt`` in the end.
    """

    def __init__(self, monitor: str, save_top_k: int) -> None:
        mode, metric = monitor.split()
        super().__init__(
            filename="best" if save_top_k == 1 else "best-{epoch}-{step}",
            monitor=metric,
            mode=mode,
            save_top_k=save_top_k,
            enable_version_counter=False,
        )

    def on_fit_end(self, trainer: pl.Trainer, pl_module: pl.LightningModule) -> None:
        """Give the best of several its name."""
        del pl_module
        best = Path(self.best_model_path)
        if trainer.is_global_zero and self.best_model_path and best.name != BEST:
            (best.parent / BEST).unlink(missing_ok=True)
            try:
                (best.parent / BEST).hardlink_to(best)
            except OSError:  # a file system without links
                shutil.copyfile(best, best.parent / BEST)


class LastCheckpoint(RunCheckpoint):
    """Keeps the state after every epoch; Lightning's ``save_last`` skips epochs not among the best."""

    def __init__(self) -> None:
        super().__init__(
            filename="last", save_top_k=1, enable_version_counter=False, save_on_train_epoch_end=True
        )


class EarlyStop(EarlyStopping):
    """Stops when the monitor has not improved for some epochs.

    Args:
        monitor: ``min`` or ``max`` and the metric.
        patience: epochs without improvement to wait for.
        min_delta: a smaller change is no improvement.
    """

    def __init__(self, monitor: str, patience: int, min_delta: float) -> None:
        mode, metric = monitor.split()
        super().__init__(monitor=metric, mode=mode, patience=patience, min_delta=min_delta)


class ProgressBar(TQDMProgressBar):
    """A progress bar on a terminal, nothing in a log file; it shows no metric, so no step waits for one."""

    def __init__(self) -> None:
        super().__init__(refresh_rate=20 if sys.stderr.isatty() else 0)


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
