"""A search's trial tells its study how it fares, and stops if the study sees no hope in it."""

from __future__ import annotations

import optuna
import pytorch_lightning as pl

from bunryu.interruption import Pruned


class Pruning(pl.Callback):
    """Reports the monitored metric after every validation, and obeys the study's pruner.

    Args:
        trial: of a study that keeps what is reported, so that a trial that goes on is judged as before.
        metric: the name of what is reported.
    """

    def __init__(self, trial: optuna.trial.Trial, metric: str) -> None:
        self._trial = trial
        self._metric = metric

    def on_validation_end(self, trainer: pl.Trainer, pl_module: pl.LightningModule) -> None:
        """Report, and stop if told so.

        Raises:
            Pruned: the run can be resumed all the same.
        """
        del pl_module
        if trainer.state.fn != "fit" or trainer.sanity_checking:
            return
        self._trial.report(float(trainer.callback_metrics[self._metric]), trainer.current_epoch)
        epoch = trainer.current_epoch + 1
        if epoch != trainer.max_epochs and self._trial.should_prune():
            raise Pruned(f"pruned after epoch {epoch}: other trials did better by then")
