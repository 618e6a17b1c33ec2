"""Callbacks: what the checkpoint's state holds, and how a trial is reported and stopped."""

from __future__ import annotations

from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
import torch

from bunryu.system.signals import Interrupted, Pruned
from bunryu.training.callbacks import BestCheckpoint, EarlyStop, ProgressBar, Pruning


def test_the_state_of_the_best_checkpoints_is_where_the_run_lies(tmp_path: Path) -> None:
    before, after = BestCheckpoint("min val/loss", 2), BestCheckpoint("min val/loss", 2)
    before.dirpath, after.dirpath = str(tmp_path / "old/checkpoints"), str(tmp_path / "new/checkpoints")
    before.best_model_path = f"{before.dirpath}/best-epoch=1-step=2.ckpt"
    before.best_k_models = {before.best_model_path: torch.tensor(0.5)}
    before.kth_best_model_path = f"{before.dirpath}/best-epoch=0-step=1.ckpt"
    state = before.state_dict()
    assert str(tmp_path) not in str(state)
    (tmp_path / "new/checkpoints").mkdir(parents=True)
    (tmp_path / "new/checkpoints/best-epoch=1-step=2.ckpt").touch()
    after.load_state_dict(state)
    assert after.best_model_path == f"{after.dirpath}/best-epoch=1-step=2.ckpt"
    assert after.best_k_models == {after.best_model_path: torch.tensor(0.5)}
    assert after.last_model_path == after.kth_best_model_path == ""  # none, and one that is not there


def test_the_monitor_is_a_mode_and_a_metric() -> None:
    best, stop = BestCheckpoint("max val/accuracy", 1), EarlyStop("max val/accuracy", 3, 0.0)
    assert (best.monitor, best.mode) == (stop.monitor, stop.mode) == ("val/accuracy", "max")


@pytest.mark.parametrize(("kernel", "rate"), [(None, 20), ("1234", 0)])
def test_the_progress_bar_is_for_terminals_and_not_for_notebooks(
    kernel: str | None, rate: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("sys.stderr.isatty", lambda: True)  # as of a notebook's !command
    monkeypatch.delenv("JPY_PARENT_PID", raising=False)
    if kernel:
        monkeypatch.setenv("JPY_PARENT_PID", kernel)
    assert ProgressBar().refresh_rate == rate


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


def validated(trial: Trial, *trainers: Any) -> list[tuple[float, int]]:
    callback = Pruning(trial, "val/loss")  # type: ignore[arg-type]
    for each in trainers:
        callback.on_validation_end(each, None)  # type: ignore[arg-type]
    return trial.reported


def test_every_validation_of_training_is_reported_but_lightnings_rehearsal_before_it() -> None:
    trainers = [trainer(0, checking=True), trainer(0, 0.75), trainer(1, 0.5), trainer(3, 9.0, "validate")]
    assert validated(Trial(), *trainers) == [(0.75, 0), (0.5, 1)]


def test_a_trial_that_is_given_up_stops_but_not_after_the_last_epoch() -> None:
    trial = Trial(hopeless_at=1)
    with pytest.raises(Pruned, match="pruned after epoch 2: other trials did better") as caught:
        validated(trial, trainer(0), trainer(1), trainer(2))
    assert trial.reported == [(0.5, 0), (0.5, 1)]
    assert isinstance(caught.value, Interrupted)
    assert caught.value.exit_code == 0
    assert validated(Trial(hopeless_at=2), trainer(2)) == [(0.5, 2)]
