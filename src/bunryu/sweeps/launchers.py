"""How a sweep's jobs begin: in slots of this machine, or through any Hydra launcher."""

from __future__ import annotations

import functools
import os
from collections.abc import Iterator
from itertools import islice
from pathlib import Path

from hydra.core.hydra_config import HydraConfig
from hydra.plugins.launcher import Launcher
from omegaconf import DictConfig

from bunryu.config.overrides import quote
from bunryu.keys import value_at
from bunryu.sweeps import job as sweep_job
from bunryu.sweeps.ledger import Ledger
from bunryu.sweeps.pool import Slot, run_in_slots, slots
from bunryu.sweeps.runner import Launch
from bunryu.system.machine import nvidia_cards


def launch_with(launcher: Launcher, config: DictConfig, batch: int) -> Launch:
    """How jobs begin with this launcher; those other than the pool's are given ``batch`` jobs at once."""
    plugin = type(launcher).__module__  # Hydra imports plugins a second time: isinstance would not know them
    if plugin == "hydra_plugins.bunryu.pool_launcher":
        return functools.partial(in_pool, config)
    if plugin.startswith("hydra_plugins.hydra_submitit_launcher."):
        from bunryu.sweeps.slurm import submitted

        return functools.partial(submitted, launcher, batch)
    return functools.partial(with_hydra, launcher, batch)


def in_pool(config: DictConfig, ledger: Ledger, identities: Iterator[str]) -> Iterator[str]:
    """Run jobs in ``n_jobs`` slots of this machine, the next one as soon as one has ended."""
    devices = graphics_cards() if config.accelerator.name in ("gpu", "cuda", "auto") else []
    jobs = map(ledger.job, ledger.identities()) if devices else []  # it may be swept how many they take
    devices_of = (value_at(job.config, "accelerator.devices", 1) for job in jobs)
    each = max([config.accelerator.devices, *devices_of])
    cores = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1
    free = slots(config.n_jobs, cores, devices, each)
    work = functools.partial(_run_in_slot, str(ledger.path))
    for identity, code in run_in_slots(identities, work, free, ledger.log_of):
        sweep_job.record_exit(ledger, identity, code)
        yield identity


def with_hydra(launcher: Launcher, batch: int, ledger: Ledger, identities: Iterator[str]) -> Iterator[str]:
    """Run jobs through a Hydra launcher, ``batch`` at a time; each in a child of the process it begins."""
    number = 0
    while taken := list(islice(identities, batch)):
        # all that Hydra needs to know of a job: its config is in its record already
        jobs = [[quote(f"hydra.job.name={ledger.path.absolute()}/{identity}")] for identity in taken]
        launcher.launch(jobs, initial_job_idx=number)
        number += len(taken)
        yield from taken


def start_job(config: DictConfig) -> None:
    """Run the job that ``with_hydra`` has named in Hydra's node; the function that Hydra launchers call."""
    del config
    folder, _, identity = HydraConfig.get().job.name.rpartition("/")
    sweep_job.run_in_child(folder, identity)


def graphics_cards() -> list[str]:
    """Names for CUDA_VISIBLE_DEVICES, found without initialising CUDA; none without cards."""
    if (visible := os.environ.get("CUDA_VISIBLE_DEVICES")) is not None:
        return [name.strip() for name in visible.split(",") if name.strip() not in ("", "-1")]
    return [str(number) for number in range(nvidia_cards())]


def _run_in_slot(folder: str, identity: str, slot: Slot) -> int:
    return sweep_job.run_job(Ledger(Path(folder)), identity, slot.threads)
