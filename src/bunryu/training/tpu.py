"""All that uses torch_xla: chips, strategy, loader, random numbers, checkpoints, counters."""

from __future__ import annotations

import os
from collections.abc import Iterator, Sized
from pathlib import Path
from typing import Any

import numpy as np
import torch
from lightning_fabric.plugins import XLACheckpointIO
from lightning_utilities.core.apply_func import apply_to_collection
from pytorch_lightning.accelerators import XLAAccelerator
from pytorch_lightning.strategies.single_xla import SingleDeviceXLAStrategy

from bunryu.errors import ConfigError
from bunryu.training.run_io import AtomicCheckpointIO


def chips() -> int:
    """How many chips torch_xla finds."""
    return int(XLAAccelerator.auto_device_count()) if XLAAccelerator.is_available() else 0


def seed(number: int) -> None:
    """Seed dropout on the chip, which ``torch.manual_seed`` leaves as it is."""
    import torch_xla.core.xla_model as xm

    xm.set_rng_state(number)


class Chips(SingleDeviceXLAStrategy):
    """Lightning's strategy for one XLA device, with XLA's own loader; several chips can be that device.

    Then each batch's rows are spread over the chips, every chip has all weights, and the compiler adds their
    communication: https://docs.pytorch.org/xla/release/r2.9/perf/spmd_basic.html.
    """

    def __init__(self, number: int) -> None:
        self._rows = _spread_over(number) if number > 1 else None
        super().__init__(device=0)

    def process_dataloader(self, dataloader: object) -> object:
        uploads = isinstance(dataloader, DeviceLoader)
        return dataloader if uploads else DeviceLoader(dataloader, self.root_device, self._rows)


def _spread_over(number: int) -> Any:
    """Make one device of all chips; how rows are spread over them."""
    os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "2")  # a deprecation warning for each graph
    from torch_xla import runtime
    from torch_xla.distributed import spmd

    runtime.use_spmd()
    if (found := runtime.global_runtime_device_count()) != number:
        what, fix = f"{number} chips were asked for, torch_xla has {found}", f"accelerator.devices={found}"
        raise ConfigError(what, where="accelerator.devices", fix=fix)
    mesh = spmd.Mesh(np.arange(number), (number,), ("rows",))
    return spmd.ShardingSpec(mesh, ("rows", None))


class DeviceLoader:
    """Uploads batches ahead, their rows spread over the chips; the next batch starts the step's graph."""

    def __init__(self, loader: Any, device: torch.device, rows: Any = None) -> None:
        self._loader, self._device, self._rows = loader, device, rows
        self._uploading: Any = None

    def __len__(self) -> int:
        assert isinstance(self._loader, Sized)
        return len(self._loader)

    def __iter__(self) -> Iterator[Any]:
        from torch_xla.distributed.parallel_loader import ParallelLoader

        if self._uploading is not None:
            self._uploading.close()
        # Begun here and not in XLA's thread: the plan depends on where the trainer stands at this moment.
        self._uploading = ParallelLoader(iter(self._loader), [self._device], input_sharding=self._rows)
        batches: Iterator[Any] = self._uploading.per_device_loader(self._device)
        return batches


class ChipCheckpointIO(AtomicCheckpointIO, XLACheckpointIO):
    """AtomicCheckpointIO for a strategy that takes only an XLACheckpointIO: tensors leave the chip first."""

    def save_checkpoint(
        self, checkpoint: dict[str, Any], path: str | Path, storage_options: Any | None = None
    ) -> None:
        super().save_checkpoint(apply_to_collection(checkpoint, torch.Tensor, torch.Tensor.cpu), path)
