"""``python chips.py 2 train …``: bunryu on a machine whose processor torch_xla takes for TPU chips."""

from __future__ import annotations

import os
import signal
import sys
from collections.abc import Iterator
from contextlib import contextmanager

import pytest
import torch

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


def recorded(run: Run, name: str) -> list[float]:
    """A metric's values, in order."""
    return [value for _, _, key, value in run.metrics if key == name]


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


if __name__ == "__main__":
    from bunryu import cli

    with pytest.MonkeyPatch.context() as patch:
        put_in(int(sys.argv[1]), patch)
        sys.exit(cli.run(sys.argv[2:]))
