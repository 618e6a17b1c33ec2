"""Which one of several training processes this is, as torchrun or Slurm's srun told it."""

from __future__ import annotations

import os

from bunryu.errors import ConfigError


def rank() -> int:
    """This process's number, from 0; the first one writes the run directory."""
    return int(os.environ.get("RANK", os.environ.get("SLURM_PROCID", 0))) if size() > 1 else 0


def size() -> int:
    """How many processes train together."""
    if "WORLD_SIZE" in os.environ:
        return int(os.environ["WORLD_SIZE"])
    return int(os.environ.get("SLURM_STEP_NUM_TASKS", 1))  # of srun's step; a batch script is no step


def check(devices: int) -> None:
    """Refuse a run that has other devices than processes on this machine.

    Raises:
        ConfigError: naming both.
    """
    here = int(os.environ.get("LOCAL_WORLD_SIZE", os.environ.get("SLURM_NTASKS_PER_NODE", devices)))
    if size() > 1 and here != devices:
        raise ConfigError(
            f"{here} processes were started on this machine for {devices} devices",
            where="accelerator.devices",
            fix=f"accelerator.devices={here}, and trainer.num_nodes=<machines> if there are several",
        )
