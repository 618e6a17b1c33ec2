"""What Lightning writes into a run directory: metrics.csv and checkpoint files."""

from __future__ import annotations

from argparse import Namespace
from pathlib import Path
from typing import Any

from lightning_fabric.plugins import CheckpointIO
from pytorch_lightning.loggers.logger import Logger
from pytorch_lightning.utilities import rank_zero_only

from bunryu.errors import ModelError
from bunryu.runs.run import Run
from bunryu.training.checkpoints import read_checkpoint, remove_checkpoint, write_checkpoint


class AtomicCheckpointIO(CheckpointIO):
    """The trainer's checkpoints: whole, with a checksum, none outside the run; refused if damaged."""

    def __init__(self, run: Path) -> None:
        super().__init__()
        self._run = run.resolve()

    def save_checkpoint(
        self, checkpoint: dict[str, Any], path: str | Path, storage_options: Any | None = None
    ) -> None:
        write_checkpoint(checkpoint, self._within(path))

    def load_checkpoint(
        self, path: str | Path, map_location: Any = None, weights_only: bool | None = None
    ) -> dict[str, Any]:
        return read_checkpoint(Path(path))  # on the CPU; Lightning moves its parts to where they belong

    def remove_checkpoint(self, path: str | Path) -> None:
        remove_checkpoint(self._within(path))

    def _within(self, path: str | Path) -> Path:
        if not Path(path).resolve().is_relative_to(self._run):
            raise ModelError("a checkpoint's path leads out of the run directory", where=str(path))
        return Path(path)


class RunLogger(Logger):
    """Writes what carries its epoch to metrics.csv; Lightning's own callbacks write to the other loggers."""

    name, version = "metrics", ""

    def __init__(self, run: Run) -> None:
        super().__init__()
        self._run = run

    @rank_zero_only
    def log_metrics(self, metrics: dict[str, float], step: int | None = None) -> None:
        if "epoch" in metrics:
            values = {name: value for name, value in metrics.items() if name != "epoch"}
            self._run.log_metrics(int(metrics["epoch"]), step or 0, values)

    def log_hyperparams(self, params: dict[str, Any] | Namespace, *args: Any, **kwargs: Any) -> None:
        """Nothing: config.yaml has them."""
