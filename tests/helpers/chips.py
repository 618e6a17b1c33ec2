"""``python chips.py 2 train …``: bunryu on a machine whose processor torch_xla takes for TPU chips."""

from __future__ import annotations

import json
import os
import signal
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

import pytest
import torch

from bunryu import cli
from bunryu.runs.run import Run
from bunryu.training.task import ClassificationTask


def put_in(chips: int, patch: pytest.MonkeyPatch) -> None:
    """Give this machine chips, before torch_xla has looked.

    Args:
        chips: how many; torch_xla makes so many devices of the processor.
        patch: takes back what Lightning is told; torch_xla keeps what it has found.
    """
    os.environ |= {"PJRT_DEVICE": "CPU", "CPU_NUM_DEVICES": str(chips)}

    import lightning_fabric.accelerators
    import pytorch_lightning.accelerators

    for module in (lightning_fabric.accelerators, pytorch_lightning.accelerators):
        patch.setattr(module.XLAAccelerator, "is_available", staticmethod(lambda: True))
        patch.setattr(module.XLAAccelerator, "auto_device_count", staticmethod(lambda: chips))


def counted() -> tuple[int, int]:
    """Graphs compiled and executed, once all are done that were begun."""
    import torch_xla.core.xla_model as xm
    from torch_xla.debug import metrics

    def count(*names: str) -> int:
        found = map(metrics.metric_data, names)
        return sum(int(data[0]) for data in found if data)

    xm.wait_device_ops()
    # with several chips executions are counted under another name
    return count("CompileTime"), count("ExecuteTime", "ExecuteReplicatedTime")


@dataclass(frozen=True)
class Step:
    """When a training batch began: its shape, how it is spread, graphs compiled and executed before it."""

    epoch: int
    shape: tuple[int, int]
    spread: str
    compiled: int
    executed: int


@contextmanager
def watched_steps() -> Iterator[list[Step]]:
    """The training steps taken on chips inside."""
    steps: list[Step] = []
    seeding = ClassificationTask.on_train_batch_start

    def watched(task: ClassificationTask, batch: dict[str, torch.Tensor], batch_idx: int) -> None:
        if task.device.type == "xla":
            import torch_xla

            compiled, executed = counted()
            ids = batch["input_ids"]
            spread = str(torch_xla._XLAC._get_xla_sharding_spec(ids))
            steps.append(Step(task.current_epoch, tuple(ids.shape), spread, compiled, executed))  # type: ignore[arg-type]
        seeding(task, batch, batch_idx)

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(ClassificationTask, "on_train_batch_start", watched)
        yield steps


@contextmanager
def asked_to_stop(batch: int) -> Iterator[None]:
    """SIGTERM comes when a batch begins, counted over the whole run from 0."""
    seeding = ClassificationTask.on_train_batch_start

    def stopping(task: ClassificationTask, inputs: dict[str, torch.Tensor], batch_idx: int) -> None:
        seeding(task, inputs, batch_idx)
        if task.batches_seen == batch:
            signal.raise_signal(signal.SIGTERM)

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(ClassificationTask, "on_train_batch_start", stopping)
        yield


def stopped_and_resumed(folder: Path, *job: str, batch: int) -> Run:
    """A run that stopped when a batch began, and went on to its end."""
    with asked_to_stop(batch):
        code = cli.run(["train", f"output_root={folder}", *job, "checkpoint_every_minutes=0"])
    assert code == 128 + signal.SIGTERM
    (made,) = folder.glob("*/*")
    assert Run(made).manifest["status"] == "interrupted"
    assert cli.run(["resume", str(made)]) == 0
    return Run(made)


def assert_scored_alike(run: Run, accuracy: float, loss: float) -> None:
    """Scored again on the processor a run's test results are the recorded ones, to within so much."""
    assert cli.run(["evaluate", str(run.path), "--split", "test"]) == 0
    report = json.loads((run.path / "evaluations/test/evaluation.json").read_text("utf-8"))
    assert report["accuracy"] == pytest.approx(run.results["test/accuracy"], abs=accuracy)
    assert report["loss"] == pytest.approx(run.results["test/loss"], abs=loss)


def assert_same_losses(run: Run, other: Run, within: float, *names: str) -> None:
    from helpers.training import recorded  # which this file does not find when it is run

    for name in names:
        assert recorded(run, name) == pytest.approx(recorded(other, name), abs=within, rel=0), name


if __name__ == "__main__":
    with pytest.MonkeyPatch.context() as patch:
        put_in(int(sys.argv[1]), patch)
        sys.exit(cli.run(sys.argv[2:]))
