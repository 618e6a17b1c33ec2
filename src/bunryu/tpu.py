"""Everything that knows torch_xla: chips, strategy, loader, random numbers, checkpoints, counters."""

from __future__ import annotations

import importlib.util
from collections.abc import Iterator, Sized
from pathlib import Path
from typing import Any

import torch
from lightning_fabric.plugins import XLACheckpointIO
from lightning_utilities.core.apply_func import apply_to_collection
from pytorch_lightning.accelerators import XLAAccelerator
from pytorch_lightning.strategies.single_xla import SingleDeviceXLAStrategy

from bunryu.run_hooks import CheckpointFiles


def chips() -> int:
    """How many chips torch_xla finds; 0 where it is not installed."""
    if importlib.util.find_spec("torch_xla") is None or not XLAAccelerator.is_available():
        return 0
    return int(XLAAccelerator.auto_device_count())


def seed(number: int) -> None:
    """Seed dropout on the chip, which ``torch.manual_seed`` leaves as it is."""
    import torch_xla.core.xla_model as xm

    xm.set_rng_state(number)


def counts() -> dict[str, int]:
    """Graphs compiled and executed by this process so far."""
    from torch_xla.debug import metrics

    names = {"compiled": "CompileTime", "executed": "ExecuteTime"}
    found = {name: metrics.metric_data(metric) for name, metric in names.items()}
    return {name: int(data[0]) if data else 0 for name, data in found.items()}


class OneChip(SingleDeviceXLAStrategy):
    """Lightning's strategy for one chip, with XLA's own loader."""

    def __init__(self) -> None:
        super().__init__(device=0)

    def process_dataloader(self, dataloader: object) -> object:
        """Batches that are on the chip when they are asked for."""
        return (
            dataloader if isinstance(dataloader, DeviceLoader) else DeviceLoader(dataloader, self.root_device)
        )


class DeviceLoader:
    """Uploads batches ahead, and runs the step's graph when the next one is asked for.

    Args:
        loader: a sized loader of batches on the CPU.
        device: the chip.
    """

    def __init__(self, loader: Any, device: torch.device) -> None:
        self._loader, self._device = loader, device
        self._uploading: Any = None

    def __len__(self) -> int:
        assert isinstance(self._loader, Sized)
        return len(self._loader)

    def __iter__(self) -> Iterator[Any]:
        from torch_xla.distributed.parallel_loader import ParallelLoader

        if self._uploading is not None:
            self._uploading.close()
        # Begun here and not in XLA's thread: the plan depends on where the trainer stands at this moment.
        self._uploading = ParallelLoader(iter(self._loader), [self._device])
        batches: Iterator[Any] = self._uploading.per_device_loader(self._device)
        return batches


class ChipCheckpointFiles(CheckpointFiles, XLACheckpointIO):
    """The run's checkpoint files, for a strategy that takes no other class: tensors leave the chip first."""

    def save_checkpoint(
        self, checkpoint: dict[str, Any], path: str | Path, storage_options: Any | None = None
    ) -> None:
        """Write one that any machine can read."""
        super().save_checkpoint(apply_to_collection(checkpoint, torch.Tensor, torch.Tensor.cpu), path)
