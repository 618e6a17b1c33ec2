"""One run on several devices: torchrun's launcher starts a process for each, and all execute the run."""

from __future__ import annotations

import logging
import os
import signal
import sys
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import torch
import torch.distributed as dist
from lightning_fabric.plugins.environments.slurm import SLURMEnvironment
from torch.distributed.elastic.multiprocessing.api import SignalException
from torch.distributed.elastic.multiprocessing.errors import ChildFailedError
from torch.distributed.launcher.api import LaunchConfig, elastic_launch

from bunryu import accelerators, errors, experiment, ranks
from bunryu.errors import TrainingError
from bunryu.interruption import SIGNALS, Interrupted
from bunryu.runs import Run


def execute(
    run: Run,
    *,
    resume: bool = False,
    despite_changes: bool = False,
    threads: int | None = None,
    callbacks: Sequence[Any] = (),
) -> dict[str, Any]:
    """Execute a run on as many devices as its config says; see ``experiment.execute``.

    Args:
        run: a prepared run directory.
        resume: go on from its newest whole checkpoint.
        despite_changes: go on though the corpus is another one.
        threads: of PyTorch on the CPU, if one process trains.
        callbacks: beside the config's, if one process trains.
    """
    accelerators.check(run.config["accelerator"])
    devices = run.config["accelerator"]["devices"]
    if devices == 1 or ranks.size() > 1:
        return experiment.execute(
            Run(run.path, writes=ranks.rank() == 0),
            resume=resume,
            despite_changes=despite_changes,
            threads=threads,
            callbacks=callbacks,
        )
    flags = ["--resume"] * resume + ["--despite-changes"] * despite_changes
    _launch(run, devices, flags)
    return run.results


def agreed(made: Run | None) -> Run:
    """The run directory that the first of several processes made, for all of them.

    Args:
        made: the first process's run; None in the others.
    """
    if "RANK" not in os.environ:  # srun tells its own way
        slurm = SLURMEnvironment(auto_requeue=False)
        os.environ |= {"MASTER_ADDR": slurm.main_address, "MASTER_PORT": str(slurm.main_port)}
    backend = "cpu:gloo,cuda:nccl" if torch.cuda.is_available() else "gloo"
    dist.init_process_group(backend, rank=ranks.rank(), world_size=ranks.size())
    told = [None if made is None else str(made.path.absolute())]
    dist.broadcast_object_list(told, device=torch.device("cpu"))
    assert told[0] is not None
    return Run(Path(told[0]), writes=made is not None)


def _launch(run: Run, devices: int, flags: Sequence[str]) -> None:
    """Start a process a device, and wait until all have ended.

    Raises:
        Interrupted: if this process was asked to stop; those it started stop with a checkpoint.
        BunryuError: if the run failed.
    """
    logging.getLogger("torch.distributed.elastic").setLevel(
        logging.CRITICAL
    )  # the processes speak for themselves
    config = LaunchConfig(
        min_nodes=1,
        max_nodes=1,
        nproc_per_node=devices,
        run_id=run.path.name,
        rdzv_backend="c10d",
        rdzv_endpoint="localhost:0",
        max_restarts=0,
        signals_to_handle=",".join(number.name for number in SIGNALS),
    )
    os.environ.setdefault("OMP_NUM_THREADS", str(max(1, (os.cpu_count() or 1) // devices)))
    start = elastic_launch(config, sys.executable)
    try:
        with _input_that_ends_with_this_process():
            start("-m", "bunryu.cli", "join", str(run.path), *flags)
    except SignalException as error:
        raise Interrupted(error.sigval) from None
    except ChildFailedError:
        raise _failure(run) from None


def _failure(run: Run) -> BaseException:
    """What the first process recorded, as it raised it."""
    kind, _, what = str(run.manifest["exit_reason"] or "").partition(": ")
    if kind in signal.Signals.__members__:
        return Interrupted(signal.Signals[kind])
    known = getattr(errors, kind, TrainingError)
    return known(what or "a process died", where=str(run.path / "train.log"))


@contextmanager
def _input_that_ends_with_this_process() -> Iterator[None]:
    """Give processes started inside a standard input that ends when this one does, however it does."""
    read, write = os.pipe()
    before = os.dup(0)
    os.dup2(read, 0)
    os.close(read)
    try:
        yield
    finally:
        os.dup2(before, 0)
        os.close(before)
        os.close(write)
