"""The TPU way on torch_xla's own CPU client: the same losses, few graphs, one a step (``make test-tpu``)."""

from __future__ import annotations

import csv
import importlib.util
import json
import signal
import statistics
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from itertools import pairwise
from pathlib import Path

import pytest
import torch

from bunryu import cli
from bunryu.runs.run import Run
from bunryu.training import accelerators
from bunryu.training.task import ClassificationTask
from helpers.chips import asked_to_stop, counted, put_in, recorded

if importlib.util.find_spec("torch_xla") is None:
    pytest.skip("torch_xla is not installed: make test-tpu makes it an environment", allow_module_level=True)

pytestmark = [pytest.mark.tpu, pytest.mark.filterwarnings("default")]  # torch_xla's are not ours to mend

NO_DROPOUT = [
    "model.architecture.hidden_dropout_prob=0.0",
    "model.architecture.attention_probs_dropout_prob=0.0",
]
WIDTHS = 4  # the preset's
SEEDS = range(1, 11)


@dataclass(frozen=True)
class Step:
    """The state when a training batch began: its shape, graphs compiled and executed before it."""

    epoch: int
    shape: tuple[int, int]
    compiled: int
    executed: int


@pytest.fixture(autouse=True, scope="module")
def _a_chip() -> Iterator[None]:
    with pytest.MonkeyPatch.context() as patch:
        put_in(1, patch)
        yield


@pytest.fixture(scope="module")
def train(tmp_path_factory: pytest.TempPathFactory) -> Callable[..., tuple[Run, list[Step]]]:
    """``train("epochs=1", …)`` trains the default job and returns its run and steps."""

    def run(*overrides: str) -> tuple[Run, list[Step]]:
        steps: list[Step] = []
        seeding = ClassificationTask.on_train_batch_start

        def watched(task: ClassificationTask, batch: dict[str, torch.Tensor], batch_idx: int) -> None:
            if task.device.type == "xla":
                steps.append(Step(task.current_epoch, tuple(batch["input_ids"].shape), *counted()))
            seeding(task, batch, batch_idx)

        folder = tmp_path_factory.mktemp("outputs")
        with pytest.MonkeyPatch.context() as patch:
            patch.setattr(ClassificationTask, "on_train_batch_start", watched)
            assert cli.run(["train", f"output_root={folder}", *overrides]) == 0
        (made,) = folder.glob("*/*")
        return Run(made), steps

    return run


def widths_of(steps: list[Step]) -> set[int]:
    return {step.shape[1] for step in steps}


def compiled_in(steps: list[Step]) -> list[int]:
    """Graphs compiled between each two batches of one epoch."""
    return [after.compiled - before.compiled for before, after in pairwise(steps)]


Trained = tuple[Run, list[Step]]
Training = Callable[..., Trained]


@pytest.fixture(scope="module")
def shipped(train: Training) -> Trained:
    """The default job with the preset as it is."""
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
    assert widths_of(steps) <= {16, 32, 64, 128}
    assert len(widths_of(steps)) > 1
    assert accelerators.available()["tpu"] == 1


def test_the_loss_of_the_default_job_falls(shipped: Trained) -> None:
    losses = recorded(shipped[0], "train/loss_epoch")
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
    epochs = [[step for step in steps if step.epoch == epoch] for epoch in range(3)]
    assert [len(epoch) for epoch in epochs] == [51, 51, 51]
    # Warm-up is the first epoch: a graph for each width, one for the first step, whose optimizer has no
    # state yet, and one that reads the sums to record.
    assert sum(compiled_in(epochs[0])) <= len(widths_of(steps)) + 2
    for epoch in epochs[1:]:
        assert sum(compiled_in(epoch)) == 0
    # With evaluation's graph for each width, and small ones that read figures.
    assert steps[-1].compiled <= 2 * WIDTHS + 2 + 10
    records = [step for step in range(153) if (step + 1) % run.config["trainer"]["log_every_n_steps"] == 0]
    for epoch, batches in enumerate(epochs):
        executed = [after.executed - before.executed for before, after in pairwise(batches)]
        reading = [number - 51 * epoch for number in records if 0 <= number - 51 * epoch < 50]
        assert all(1 < executed[number] <= 3 for number in reading)
        assert [count for number, count in enumerate(executed) if number not in reading] == [1] * (
            50 - len(reading)
        )


def test_in_32_bits_without_dropout_the_losses_are_the_processor_s(train: Training) -> None:
    # Over the whole job at a rate at which rounding hardly grows: at the default one two paddings on the
    # same processor part by 0.001 after 72 steps, and by 0.28 later.
    exact = [*NO_DROPOUT, "trainer.log_every_n_steps=1", "model.lr=3e-4"]
    losses = [
        recorded(train("accelerator=cpu", *exact)[0], "train/loss"),
        recorded(train("accelerator=tpu", "accelerator.autocast=false", *exact)[0], "train/loss"),
    ]
    assert [len(values) for values in losses] == [153, 153]
    assert losses[1] == pytest.approx(losses[0], abs=1e-3, rel=0)
    assert losses[0][0] > 0.6
    assert statistics.fmean(losses[0][-20:]) < 0.2


def test_what_it_leaves_is_scored_on_the_processor(
    shipped: Trained, capsys: pytest.CaptureFixture[str]
) -> None:
    run = shipped[0]
    assert cli.run(["evaluate", str(run.path), "--split", "test"]) == 0
    report = json.loads((run.path / "evaluations/test/evaluation.json").read_text("utf-8"))
    assert report["accuracy"] == pytest.approx(run.results["test/accuracy"], abs=0.01)
    assert report["loss"] == pytest.approx(run.results["test/loss"], abs=0.02)
    for name in ("best", "last"):
        checkpoint = torch.load(
            run.path / f"checkpoints/{name}.ckpt", weights_only=True
        )  # where it was saved
        state = checkpoint["state_dict"]
        assert {tensor.device.type for tensor in state.values()} == {"cpu"}
        assert {tensor.dtype for tensor in state.values() if tensor.is_floating_point()} == {torch.float32}
        assert {key.split(".")[0] for key in state} == {"model"}


def test_a_stopped_run_goes_on_where_it_was(train: Training, tmp_path: Path) -> None:
    # With dropout: its random numbers have to be those of the run that was never stopped.
    job = ["accelerator=tpu", "limit_rows=160", "batch_size=16", "epochs=2", "checkpoint_every_minutes=0"]
    whole, _ = train(*job)
    with asked_to_stop(batch=14):
        assert cli.run(["train", f"output_root={tmp_path}", *job]) == 128 + signal.SIGTERM
    (made,) = tmp_path.glob("*/*")
    assert Run(made).manifest["status"] == "interrupted"
    assert cli.run(["resume", str(made)]) == 0
    resumed = Run(made)
    losses = [recorded(run, "train/loss_epoch") for run in (resumed, whole)]
    assert losses[0] == pytest.approx(losses[1], abs=1e-6, rel=0)  # the same bits are promised on a CPU alone
    assert resumed.results["val/loss"] == pytest.approx(whole.results["val/loss"], abs=1e-6, rel=0)
