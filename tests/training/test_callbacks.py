"""The callback reports each validation of training, and stops a trial that its study gives up."""

from __future__ import annotations

from types import SimpleNamespace
from typing import Any

import pytest
import torch

from bunryu.system.signals import Interrupted, Pruned
from bunryu.training.callbacks import Pruning


class Trial:
    """Notes what is reported; gives up at an epoch."""

    def __init__(self, hopeless_at: int | None = None) -> None:
        self.reported: list[tuple[float, int]] = []
        self._hopeless_at = hopeless_at

    def report(self, value: float, step: int) -> None:
        self.reported.append((value, step))

    def should_prune(self) -> bool:
        return self.reported[-1][1] == self._hopeless_at


def trainer(epoch: int, value: float = 0.5, fn: str = "fit", checking: bool = False) -> Any:
    metrics = {} if checking else {"val/loss": torch.tensor(value)}
    return SimpleNamespace(
        state=SimpleNamespace(fn=fn), current_epoch=epoch, max_epochs=3, callback_metrics=metrics,
        sanity_checking=checking,
    )  # fmt: skip


def validated(trial: Trial, *trainers: Any) -> None:
    callback = Pruning(trial, "val/loss")  # type: ignore[arg-type]
    for each in trainers:
        callback.on_validation_end(each, None)  # type: ignore[arg-type]


def test_every_validation_of_training_is_reported() -> None:
    trial = Trial()
    validated(trial, trainer(0, 0.75), trainer(1, 0.5), trainer(2, 0.25), trainer(3, 9.0, "validate"))
    assert trial.reported == [(0.75, 0), (0.5, 1), (0.25, 2)]


def test_a_trial_that_is_given_up_stops_and_says_after_which_epoch() -> None:
    trial = Trial(hopeless_at=1)
    with pytest.raises(Pruned, match="pruned after epoch 2: other trials did better") as caught:
        validated(trial, trainer(0), trainer(1), trainer(2))
    assert trial.reported == [(0.5, 0), (0.5, 1)]
    assert isinstance(caught.value, Interrupted)
    assert caught.value.exit_code == 0


def test_after_the_last_epoch_there_is_nothing_to_spare() -> None:
    trial = Trial(hopeless_at=2)
    validated(trial, trainer(2))
    assert trial.reported == [(0.5, 2)]


def test_lightnings_rehearsal_before_training_is_no_validation() -> None:
    trial = Trial(hopeless_at=0)
    validated(trial, trainer(0, checking=True))
    assert trial.reported == []
