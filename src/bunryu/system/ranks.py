"""Which one of several training processes this is: torchrun and Slurm's srun set it in the environment."""

from __future__ import annotations

import os
from collections.abc import Mapping
from typing import Any

from bunryu.errors import ConfigError


def rank() -> int:
    """This process's number, from 0; the first one writes the run directory."""
    return int(os.environ.get("RANK", os.environ.get("SLURM_PROCID", 0))) if world_size() > 1 else 0


def world_size() -> int:
    """How many processes train together."""
    if "WORLD_SIZE" in os.environ:
        return int(os.environ["WORLD_SIZE"])
    return int(os.environ.get("SLURM_STEP_NUM_TASKS", 1))  # of srun's step; a batch script is no step


def processes_for(accelerator: Mapping[str, Any]) -> int:
    """How many processes train on one machine: one for each device; a TPU's chips are all of one process."""
    return 1 if accelerator["name"] == "tpu" else int(accelerator["devices"])


def check(devices: int, nodes: int = 1) -> None:
    """Refuse a run of other devices, on each of its machines, or nodes than processes were started for."""
    if world_size() == 1:
        if nodes > 1:
            what = f"one process was started, for {nodes} machines"
            fix = "srun, as in docs/accelerators.md, or torchrun on each machine; or no +trainer.num_nodes"
            raise ConfigError(what, where="trainer.num_nodes", fix=fix)
        return
    here = int(os.environ.get("LOCAL_WORLD_SIZE", os.environ.get("SLURM_NTASKS_PER_NODE", 0)))
    if not here:
        what = f"srun started {world_size()} processes without being told how many a machine gets"
        raise ConfigError(what, where="srun", fix=f"--ntasks-per-node={devices}")
    if here == devices and world_size() == devices * nodes:
        return
    what = f"{here} processes were started on this machine for {devices} devices"
    if here == devices:
        what = f"{world_size()} processes were started for {devices} devices on {nodes} machines"
    machines = world_size() // here
    fix = f"accelerator.devices={here}" + f" +trainer.num_nodes={machines}" * (machines > 1)
    raise ConfigError(what, where="accelerator.devices", fix=fix)
