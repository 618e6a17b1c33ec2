"""Two TPU chips, on torch_xla's CPU client: together one device (``make test-tpu``).

In a process of its own: torch_xla cannot take back that several chips are one device.
"""

from __future__ import annotations

import importlib.util
import subprocess
import sys
from collections.abc import Iterator
from itertools import pairwise
from pathlib import Path

import pytest

from bunryu.runs.run import Run
from helpers import chips
from helpers.training import NO_DROPOUT, recorded, train_job_in

if importlib.util.find_spec("torch_xla") is None:
    pytest.skip("torch_xla is not installed: make test-tpu makes it an environment", allow_module_level=True)

pytestmark = [pytest.mark.tpu, pytest.mark.filterwarnings("default")]  # torch_xla's are not ours to mend

# 101 rows: four batches of 32 for two chips, the last one short
JOB = ["accelerator=tpu", "limit_rows=101", "epochs=2", "trainer.log_every_n_steps=1", "logger=none"]
EXACT = ["accelerator.autocast=false", *NO_DROPOUT]
TWO = ["accelerator.devices=2", "batch_size=16"]

Trained = tuple[Run, list[chips.Step]]


@pytest.fixture(autouse=True, scope="module")
def _two_chips() -> Iterator[None]:
    with pytest.MonkeyPatch.context() as patch:
        chips.put_in(2, patch)
        yield


@pytest.fixture(scope="module")
def trained(tmp_path_factory: pytest.TempPathFactory) -> Trained:
    """A run on two chips, and its steps."""
    with chips.watched_steps() as steps:
        return train_job_in(tmp_path_factory.mktemp("exact"), *JOB, *TWO, *EXACT), steps


def test_the_rows_of_a_batch_are_spread_over_the_chips(trained: Trained) -> None:
    run, steps = trained
    spreads = {(step.shape[0], step.spread) for step in steps}
    assert spreads == {(32, "{devices=[2,1]0,1}")}  # the rows halved, the width whole
    device = run.manifest["device"]
    assert (device["kind"], device["count"], device["strategy"]) == ("xla", 2, "Chips")
    assert run.config["batch_size"] == 16  # of each chip
    assert run.manifest["total_steps"] == 2 * 4


def test_the_losses_are_those_of_one_chip_with_twice_the_batch(trained: Trained, tmp_path: Path) -> None:
    run = trained[0]
    command = [sys.executable, chips.__file__, "1", "train", f"output_root={tmp_path}", *JOB, *EXACT]
    subprocess.run([*command, "batch_size=32"], check=True, capture_output=True)
    (path,) = tmp_path.glob("*/*")
    one = Run(path)
    assert len(recorded(run, "train/loss")) == 8
    chips.assert_same_losses(run, one, 1e-5, "train/loss", "train/loss_epoch", "val/loss")
    # every row counted once an epoch, the rows that fill a batch up not at all
    assert recorded(run, "train/accuracy_epoch") == recorded(one, "train/accuracy_epoch")
    assert run.results["test/loss"] == pytest.approx(one.results["test/loss"], abs=1e-5, rel=0)


def test_a_step_is_one_execution_and_nothing_is_compiled_later(trained: Trained) -> None:
    assert len(trained[1]) == 8
    second = trained[1][4:]
    assert second[-1].compiled == second[0].compiled
    # with every step recorded: the step, and what reads its figures
    assert all(1 <= after.executed - before.executed <= 3 for before, after in pairwise(second))


def test_a_stopped_run_goes_on_where_it_was(tmp_path: Path) -> None:
    # as the preset is, with dropout: its random numbers have to be those of the run that was never stopped
    whole = train_job_in(tmp_path / "whole", *JOB, *TWO)
    run = chips.stopped_and_resumed(tmp_path / "stopped", *JOB, *TWO, batch=5)
    # the same bits are promised on a CPU alone
    chips.assert_same_losses(run, whole, 1e-6, "train/loss", "val/loss")


def test_what_it_leaves_is_scored_on_the_processor(trained: Trained) -> None:
    chips.assert_scored_alike(trained[0], accuracy=0.0, loss=1e-4)
