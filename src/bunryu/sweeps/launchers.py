"""How a sweep's jobs begin: in slots of this machine, or through any Hydra launcher."""

from __future__ import annotations

import functools
import os
from collections.abc import Iterator, Sequence
from itertools import islice
from pathlib import Path

from hydra.core.hydra_config import HydraConfig
from hydra.plugins.launcher import Launcher
from omegaconf import DictConfig

from bunryu.config.overrides import quote
from bunryu.sweeps import job as sweep_job
from bunryu.sweeps.ledger import Ledger
from bunryu.sweeps.pool import Slot, run_in_slots, slots
from bunryu.sweeps.runner import Launch


def launch_of(launcher: Launcher, config: DictConfig, batch: int) -> Launch:
    """How jobs begin with this launcher.

    Args:
        launcher: the pool's, or any other of Hydra's.
        config: the sweep's, for ``n_jobs``.
        batch: jobs that other launchers are given at once.
    """
    plugin = type(launcher).__module__  # Hydra loads plugins anew: their classes are known by name only
    if plugin == "hydra_plugins.bunryu.pool_launcher":
        return functools.partial(in_pool, config)
    if plugin.startswith("hydra_plugins.hydra_submitit_launcher."):
        from bunryu.sweeps.slurm import submitted

        return functools.partial(submitted, launcher, batch)
    return functools.partial(through, launcher, batch)


def in_pool(config: DictConfig, ledger: Ledger, identities: Iterator[str]) -> Iterator[str]:
    """Jobs in ``n_jobs`` slots of this machine, the next one as soon as one has ended."""
    devices = graphics_cards() if config.accelerator.name in ("gpu", "cuda", "auto") else []
    jobs = map(ledger.job, ledger.identities()) if devices else []  # it may be swept how many they take
    each = max([config.accelerator.devices, *(job.config["accelerator"]["devices"] for job in jobs)])
    free = slots(config.n_jobs, _cores(), devices, each)
    work = functools.partial(_work, str(ledger.path))
    for identity, code in run_in_slots(identities, work, free, ledger.log_of):
        sweep_job.close(ledger, identity, code)
        yield identity


def through(launcher: Launcher, batch: int, ledger: Ledger, identities: Iterator[str]) -> Iterator[str]:
    """Jobs through a Hydra launcher, so many at a time; each in a child of the process it is given."""
    number = 0
    while taken := list(islice(identities, batch)):
        jobs = [_overrides_of(ledger, identity) for identity in taken]
        launcher.launch(jobs, initial_job_idx=number)
        number += len(taken)
        yield from taken


def launched(config: DictConfig) -> None:
    """What a Hydra launcher is handed: it finds the job by what ``through`` put into Hydra's node."""
    del config
    hydra = HydraConfig.get()
    sweep_job.start(hydra.sweep.dir, hydra.job.name)


def graphics_cards() -> list[str]:
    """Names for CUDA_VISIBLE_DEVICES, found without initialising anything; none without cards."""
    if (visible := os.environ.get("CUDA_VISIBLE_DEVICES")) is not None:
        return [name.strip() for name in visible.split(",") if name.strip() not in ("", "-1")]
    folder = Path("/proc/driver/nvidia/gpus")
    return [str(number) for number, _ in enumerate(folder.iterdir())] if folder.is_dir() else []


def _work(folder: str, identity: str, slot: Slot) -> int:
    return sweep_job.work(Ledger(Path(folder)), identity, slot.threads)


def _cores() -> int:
    return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1


def _overrides_of(ledger: Ledger, identity: str) -> Sequence[str]:
    """What Hydra is told of a job: its config is in its record already."""
    place = quote(f"hydra.sweep.dir={ledger.path.absolute()}")
    return [place, "hydra.sweep.subdir=jobs", f"hydra.job.name='{identity}'"]
