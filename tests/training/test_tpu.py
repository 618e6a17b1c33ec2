"""The TPU way on torch_xla's own CPU client: the same losses, few graphs, one a step (``make test-tpu``)."""

from __future__ import annotations

import csv
import importlib.util
import statistics
from collections.abc import Callable, Iterator
from itertools import pairwise
from pathlib import Path

import pytest
import torch

from bunryu.runs.run import Run
from bunryu.training import accelerators
from helpers import chips
from helpers.training import NO_DROPOUT, recorded, train_job_in

if importlib.util.find_spec("torch_xla") is None:
    pytest.skip("torch_xla is not installed: make test-tpu makes it an environment", allow_module_level=True)

pytestmark = [pytest.mark.tpu, pytest.mark.filterwarnings("default")]  # torch_xla's are not ours to mend

WIDTHS = 4  # the preset's
IN_32_BITS = "accelerator.autocast=false"
SEEDS = range(1, 11)


@pytest.fixture(autouse=True, scope="module")
def _a_chip() -> Iterator[None]:
    with pytest.MonkeyPatch.context() as patch:
        chips.put_in(1, patch)
        yield


Trained = tuple[Run, list[chips.Step]]
Training = Callable[..., Trained]


@pytest.fixture(scope="module")
def train(tmp_path_factory: pytest.TempPathFactory) -> Training:
    """``train("epochs=1", …)`` trains the default job and returns its run and steps."""

    def run(*overrides: str) -> Trained:
        with chips.watched_steps() as steps:
            return train_job_in(tmp_path_factory.mktemp("outputs"), *overrides), steps

    return run


@pytest.fixture(scope="module")
def shipped(train: Training) -> Trained:
    return train("accelerator=tpu")


def test_the_preset_is_a_grid_of_shapes_and_autocast(shipped: Trained) -> None:
    run, steps = shipped
    assert run.config["accelerator"] == {
        "name": "tpu", "devices": 1, "strategy": "auto", "precision": "32-true", "deterministic": False,
        "widths": WIDTHS, "fixed_rows": True, "autocast": True,
    }  # fmt: skip
    device = run.manifest["device"]
    assert (device["kind"], device["strategy"], device["precision"]) == ("xla", "Chips", "32-true")
    assert {step.shape[0] for step in steps} == {32}  # the last short batch too
    assert {step.shape[1] for step in steps} <= {16, 32, 64, 128}
    assert accelerators.available()["tpu"] == 1
    losses = recorded(run, "train/loss_epoch")
    assert losses == sorted(losses, reverse=True)
    assert losses[-1] < 0.5 * losses[0]


def test_it_becomes_as_accurate_as_on_the_processor(train: Training) -> None:
    # The mean over seeds, with a warm-up: over 480 rows the default job's accuracy moves by 0.027 with the
    # seed on either device (standard deviation), with a warm-up by 0.015, and the mean of ten by 0.005.
    def right(run: Run) -> float:
        rows = []
        for split in ("validation", "test"):
            with open(run.path / f"predictions/{split}.csv", encoding="utf-8", newline="") as file:
                rows += [row["label"] == row["prediction"] for row in csv.DictReader(file)]
        assert len(rows) == 480
        return sum(rows) / len(rows)

    def accuracy(device: str) -> float:
        job = [f"accelerator={device}", "scheduler=linear_warmup"]
        return statistics.fmean(right(train(*job, f"seed={seed}")[0]) for seed in SEEDS)

    assert accuracy("tpu") == pytest.approx(accuracy("cpu"), abs=0.02)


def test_each_shape_is_compiled_once_and_a_step_is_one_execution(shipped: Trained) -> None:
    run, steps = shipped
    widths = {step.shape[1] for step in steps}
    assert len(widths) > 1
    epochs = [[step for step in steps if step.epoch == epoch] for epoch in range(3)]
    assert [len(epoch) for epoch in epochs] == [51, 51, 51]
    # Warm-up is the first epoch: a graph for each width, one for the first step, whose optimizer has no
    # state yet, and one that reads the sums to record.
    first, *later = [epoch[-1].compiled - epoch[0].compiled for epoch in epochs]
    assert first <= len(widths) + 2
    assert later == [0, 0]
    # With evaluation's graph for each width, and small ones that read figures.
    assert steps[-1].compiled <= 2 * WIDTHS + 2 + 10
    records = [step for step in range(153) if (step + 1) % run.config["trainer"]["log_every_n_steps"] == 0]
    for epoch, batches in enumerate(epochs):
        executed = [after.executed - before.executed for before, after in pairwise(batches)]
        reading = [number - 51 * epoch for number in records if 0 <= number - 51 * epoch < 50]
        assert all(1 < executed[number] <= 3 for number in reading)
        assert {count for number, count in enumerate(executed) if number not in reading} == {1}


def test_in_32_bits_without_dropout_the_losses_are_the_processor_s(train: Training) -> None:
    # Over the whole job at a rate at which rounding hardly grows: at the default one two paddings on the
    # same processor part by 0.001 after 72 steps, and by 0.28 later.
    exact = [*NO_DROPOUT, "trainer.log_every_n_steps=1", "model.lr=3e-4"]
    cpu, tpu = train("accelerator=cpu", *exact)[0], train("accelerator=tpu", IN_32_BITS, *exact)[0]
    chips.assert_same_losses(cpu, tpu, 1e-3, "train/loss")
    losses = recorded(cpu, "train/loss")
    assert len(losses) == 153
    assert losses[0] > 0.6
    assert statistics.fmean(losses[-20:]) < 0.2


def test_what_it_leaves_is_scored_on_the_processor(shipped: Trained) -> None:
    run = shipped[0]
    chips.assert_scored_alike(run, accuracy=0.01, loss=0.02)
    for name in ("best", "last"):  # loaded to where it was saved
        state = torch.load(run.path / f"checkpoints/{name}.ckpt", weights_only=True)["state_dict"]
        assert {tensor.device.type for tensor in state.values()} == {"cpu"}
        assert {tensor.dtype for tensor in state.values() if tensor.is_floating_point()} == {torch.float32}
        assert {key.split(".")[0] for key in state} == {"model"}


def test_a_stopped_run_goes_on_where_it_was(train: Training, tmp_path: Path) -> None:
    # With dropout: its random numbers have to be those of the run that was never stopped.
    job = ["accelerator=tpu", "limit_rows=160", "batch_size=16", "epochs=2"]
    whole, _ = train(*job, "checkpoint_every_minutes=0")
    resumed = chips.stopped_and_resumed(tmp_path, *job, batch=14)
    # the same bits are promised on a CPU alone
    chips.assert_same_losses(resumed, whole, 1e-6, "train/loss_epoch", "val/loss")
