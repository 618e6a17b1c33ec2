"""One run on several devices: torchrun's launcher starts a process for each, and all execute the run."""

from __future__ import annotations

import logging
import os
import signal
import sys
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import torch
import torch.distributed as dist
from lightning_fabric.plugins.environments.slurm import SLURMEnvironment
from torch.distributed.elastic.multiprocessing.api import SignalException
from torch.distributed.elastic.multiprocessing.errors import ChildFailedError
from torch.distributed.launcher.api import LaunchConfig, elastic_launch

from bunryu import errors
from bunryu.data.corpus import Corpus
from bunryu.errors import BunryuError, BusyError, ConfigError, OutOfMemory, TrainingError
from bunryu.runs.run import Run
from bunryu.system import ranks
from bunryu.system.signals import SIGNALS, Interrupted
from bunryu.training import accelerators, recipe

# What gloo and NCCL say when another process is gone: that one failed, and not this one.
LOST = ("Connection closed by peer", "Connection reset by peer", "remote process exited")
STOPPED = (130, 143, -signal.SIGINT, -signal.SIGTERM)  # exit codes of processes that were asked to stop


def execute(
    run: Run,
    *,
    resume: bool = False,
    despite_changes: bool = False,
    threads: int | None = None,
    callbacks: Sequence[Any] = (),
    corpus: Corpus | None = None,
) -> dict[str, Any]:
    """Execute a run on as many devices as its config says; see ``recipe.execute``.

    Where this starts a process a device, ``callbacks`` and ``corpus`` are left out.
    """
    check(run)
    processes = ranks.processes_for(run.config["accelerator"])
    if processes > 1 and ranks.world_size() == 1:
        flags = ["--resume"] * resume + ["--despite-changes"] * despite_changes
        _launch(run, processes, flags, threads)
        return run.results
    own = Run(run.path, writes=ranks.rank() == 0)
    try:
        results = recipe.execute(
            own, resume=resume, despite_changes=despite_changes,
            threads=threads, callbacks=callbacks, corpus=corpus,
        )  # fmt: skip
    except RuntimeError as error:
        if ranks.world_size() == 1 or not any(words in str(error) for words in LOST):
            raise
        what = "another process of this run is gone, and this one with it"
        raise TrainingError(what, where=str(run.path), fix=f"bunryu resume {run.path}") from error
    if (
        ranks.world_size() > 1 and dist.is_initialized()
    ):  # else its threads may abort the process as it ends, and the run with it
        dist.destroy_process_group()
    return results


def check(run: Run) -> None:
    """Refuse a run whose config asks for devices, or for processes, that are not here."""
    config = run.config
    try:
        accelerators.check(config)
    except ConfigError as error:  # no override can mend it: the config is the run's
        fix = "a machine like the one it was made on; or a run of its own: bunryu train …"
        raise ConfigError(error.what, where=str(run.path / "config.yaml"), fix=fix) from None
    ranks.check(config["accelerator"]["devices"], config["trainer"].get("num_nodes", 1))


def agreed(made: Run | None) -> Run:
    """The run that the first of several processes has ``made``, for all of them."""
    if "RANK" not in os.environ:  # srun's processes have Slurm's variables instead
        slurm = SLURMEnvironment(auto_requeue=False)
        os.environ |= {"MASTER_ADDR": slurm.main_address, "MASTER_PORT": str(slurm.main_port)}
        # what Lightning goes by where it takes no notice of Slurm, as in an allocation of salloc's
        os.environ |= {"LOCAL_RANK": str(slurm.local_rank()), "NODE_RANK": str(slurm.node_rank())}
    backend = "cpu:gloo,cuda:nccl" if torch.cuda.is_available() else "gloo"
    dist.init_process_group(backend, rank=ranks.rank(), world_size=ranks.world_size())
    paths = [None if made is None else str(made.path.absolute())]
    dist.broadcast_object_list(paths, device=torch.device("cpu"))
    assert paths[0] is not None
    return Run(Path(paths[0]), writes=made is not None)


def _launch(run: Run, processes: int, flags: Sequence[str], threads: int | None) -> None:
    """Start processes, one a device, and wait for their end; asked to stop, they leave a checkpoint."""
    before = run.manifest
    start = _launcher(run, processes, threads)
    try:
        with _input_that_ends_with_this_process():
            start("-m", "bunryu", "join", str(run.path), *flags)
    except SignalException as error:
        if run.manifest["status"] == "running":  # they could not say so themselves
            run.end("interrupted", error.sigval.name)
        raise Interrupted(error.sigval) from None
    except ChildFailedError as error:
        raise _failure(run, before, [failure.exitcode for failure in error.failures.values()]) from None


def _launcher(run: Run, processes: int, threads: int | None) -> elastic_launch:
    """torchrun's own, quiet, to be called with the arguments of Python."""
    for name in tuple(logging.root.manager.loggerDict):
        if name.startswith("torch.distributed.elastic"):  # each has a level of its own
            logging.getLogger(name).setLevel(logging.CRITICAL)  # the processes log for themselves
    if threads is not None:
        os.environ["OMP_NUM_THREADS"] = str(threads)
    os.environ.setdefault("OMP_NUM_THREADS", str(max(1, (os.cpu_count() or 1) // processes)))
    # seconds that a step and a checkpoint may take once a signal has asked to stop
    os.environ.setdefault("TORCH_ELASTIC_SHUTDOWN_TIMEOUT", "600")
    config = LaunchConfig(
        min_nodes=1, max_nodes=1, nproc_per_node=processes, max_restarts=0,
        run_id=run.path.name, rdzv_backend="c10d", rdzv_endpoint="localhost:0",
        signals_to_handle=",".join(number.name for number in SIGNALS),
    )  # fmt: skip
    return elastic_launch(config, sys.executable)


def _failure(run: Run, before: Mapping[str, Any], codes: Sequence[int]) -> BaseException:
    """The error that ended the processes: the one their first process recorded, or one made of exit codes.

    One made here is recorded in the run. ``before`` is its manifest when they were started.
    """
    manifest = run.manifest
    reason = str(manifest["exit_reason"] or "") if manifest != before else ""
    kind, _, what = reason.partition(": ")
    blamed = [code for code in codes if code not in STOPPED]
    if kind in signal.Signals.__members__ and not blamed:
        return Interrupted(signal.Signals[kind])
    where = str(run.path / "train.log")
    if any(words in reason for words in LOST):
        kind = reason = ""
    if hasattr(errors, kind):
        error: BunryuError = getattr(errors, kind)(what, where=where)
        return error
    if BusyError.exit_code in blamed:
        return BusyError("another process writes to this run", where=str(run.path))
    if ConfigError.exit_code in blamed:
        return ConfigError("a process refused the run; it says above why", where=str(run.path))
    if OutOfMemory.exit_code in blamed:
        error = OutOfMemory("a process ran out of memory; it says above what helps", where=where)
    else:
        error = TrainingError(_death(blamed, reason), where=where)
    run.end("failed", f"{type(error).__name__}: {error.what}")
    return error


def _death(codes: Sequence[int], reason: str) -> str:
    """How processes died, from their exit codes and what the first one recorded."""
    if -signal.SIGKILL in codes:
        return "a process was killed by the system (signal 9): perhaps the memory ran out"
    if other := [code for code in codes if code != 1]:
        return f"a process died with exit code {other[0]}"
    return reason or "a process died; it says above of what"


@contextmanager
def _input_that_ends_with_this_process() -> Iterator[None]:
    """Give processes started inside a standard input that ends when this process ends, even if killed."""
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
