"""Runs trained by several processes: forks with the environment variables of torchrun and srun."""

from __future__ import annotations

import os
import socket
from collections.abc import Callable
from pathlib import Path

import pytest
import torch

from bunryu import cli
from bunryu.runs.run import Run
from helpers.killing import Fork
from helpers.training import NO_DROPOUT

# Seven batches of 16 rows for one device, four of 32 for two, the last one short; no dropout, whose random
# numbers differ between one device and two.
ROWS = 101
TINY = [
    f"limit_rows={ROWS}",
    "batch_size=16",
    "epochs=2",
    "trainer.log_every_n_steps=1",
    "checkpoint_every_minutes=0",
    "logger=none",
    *NO_DROPOUT,
]

Told = Callable[[int, int, int], dict[str, str]]  # the environment of a rank among so many, with a port

# Callbacks that write down which rows a process was given, that end one of the processes, that take time.
WITNESS = """\
import os
import signal
import time

import pytorch_lightning as pl
import torch


class Witness(pl.Callback):
    def __init__(self, folder: str) -> None:
        self._folder = folder

    def on_train_batch_start(self, trainer, pl_module, batch, batch_idx) -> None:
        rows = " ".join(map(str, batch["index"].tolist()))
        with open(f"{self._folder}/{trainer.global_rank}", "a") as file:
            file.write(f"{trainer.current_epoch} {rows}\\n")


class Harm(pl.Callback):
    def __init__(self, kind: str, rank: int, fuse: str) -> None:
        self._kind, self._rank, self._fuse = kind, rank, fuse

    def on_train_batch_end(self, trainer, pl_module, outputs, batch, batch_idx) -> None:
        if trainer.global_rank != self._rank or trainer.global_step != 3 or not os.path.exists(self._fuse):
            return
        if self._kind == "exit":
            os._exit(7)
        if self._kind == "kill":
            os.kill(os.getpid(), signal.SIGKILL)
        if self._kind == "memory":
            raise torch.OutOfMemoryError("tried to allocate")
        if self._kind == "raise":
            raise ZeroDivisionError("nothing to divide by")


class Slow(pl.Callback):
    def on_train_batch_end(self, trainer, pl_module, outputs, batch, batch_idx) -> None:
        time.sleep(0.1)
"""
SLOW = ["+callbacks.slow._target_=witness.Slow"]


def witnesses(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Make the callbacks above importable, also in processes that are started."""
    folder.mkdir(parents=True, exist_ok=True)
    (folder / "witness.py").write_text(WITNESS, "utf-8")
    monkeypatch.syspath_prepend(str(folder))
    path = os.pathsep.join(filter(None, [str(folder), os.environ.get("PYTHONPATH")]))
    monkeypatch.setenv("PYTHONPATH", path)
    monkeypatch.setenv("BUNRYU_ALLOWED_TARGETS", "witness")


def witnessed(folder: Path) -> list[str]:
    """Overrides for each process to write its rows to a file of its own."""
    folder.mkdir()
    return ["+callbacks.witness._target_=witness.Witness", f"+callbacks.witness.folder={folder}"]


def rows_by_epoch(folder: Path) -> dict[int, list[int]]:
    """The training rows that all processes were given in each epoch, sorted."""
    seen: dict[int, list[int]] = {}
    for path in folder.iterdir():
        for line in path.read_text("ascii").splitlines():
            epoch, *rows = map(int, line.split())
            seen.setdefault(epoch, []).extend(rows)
    return {epoch: sorted(rows) for epoch, rows in seen.items()}


def harm(kind: str, rank: int, fuse: Path) -> list[str]:
    """Overrides that end a process after its third step, as long as there is a file ``fuse``."""
    fuse.touch()
    return [
        "+callbacks.harm._target_=witness.Harm",
        f"+callbacks.harm.kind={kind}",
        f"+callbacks.harm.rank={rank}",
        f"+callbacks.harm.fuse={fuse}",
    ]


STILL_CONNECTED = 98


def free_port() -> int:
    """A port that nobody listens on."""
    with socket.socket() as listener:
        listener.bind(("127.0.0.1", 0))
        port: int = listener.getsockname()[1]
        return port


def as_torchrun(rank: int, size: int, port: int) -> dict[str, str]:
    ranks = dict.fromkeys(("RANK", "LOCAL_RANK"), str(rank))
    sizes = dict.fromkeys(("WORLD_SIZE", "LOCAL_WORLD_SIZE"), str(size))
    meeting = {"GROUP_RANK": "0", "MASTER_ADDR": "127.0.0.1", "MASTER_PORT": str(port)}
    return {**ranks, **sizes, **meeting, "TORCHELASTIC_RUN_ID": "test"}


def as_srun(rank: int, size: int, port: int) -> dict[str, str]:
    """Lightning makes the port of the job's number."""
    ranks = dict.fromkeys(("SLURM_PROCID", "SLURM_LOCALID"), str(rank))
    names = ("SLURM_NTASKS", "SLURM_NTASKS_PER_NODE", "SLURM_STEP_NUM_TASKS")
    nodes = {"SLURM_NNODES": "1", "SLURM_NODELIST": "localhost", "SLURM_NODEID": "0"}
    job = {"SLURM_JOB_ID": str(port - 15000), "SLURM_JOB_NAME": "train"}
    return {**ranks, **dict.fromkeys(names, str(size)), **nodes, **job}


def become(variables: dict[str, str], monkeypatch: pytest.MonkeyPatch) -> None:
    """Make this process one of several, by environment variables as above."""
    for name, value in variables.items():
        monkeypatch.setenv(name, value)


def trained_together(
    folder: Path, *overrides: str, size: int = 2, told: Told = as_torchrun, port: int | None = None
) -> Path:
    """The tiny run of several processes, all of which have to end well; each row was seen once an epoch."""
    rows = folder / "rows"
    arguments = train(folder, f"accelerator.devices={size}", *overrides, *witnessed(rows))
    codes = together(folder, arguments, size, told, port)
    assert codes == [0] * size, (folder / "0.log").read_text("utf-8")
    (run,) = runs_in(folder)
    assert rows_by_epoch(rows) == {epoch: list(range(ROWS)) for epoch in range(Run(run).config["epochs"])}
    return run


def trained_alone(folder: Path, *overrides: str) -> Path:
    fork = alone(folder, *train(folder, *overrides))
    assert fork.code() == 0, fork.said()
    (run,) = runs_in(folder)
    return run


def together(
    folder: Path,
    arguments: list[str],
    size: int = 2,
    told: Told = as_torchrun,
    port: int | None = None,
) -> list[int]:
    """One command line in several processes that know of each other; their exit codes.

    The code is STILL_CONNECTED of one that succeeded and could be aborted by its connections as it ends.
    """
    port = port or free_port()

    def work() -> int:
        code = cli.run(arguments)
        return STILL_CONNECTED if code == 0 and torch.distributed.is_initialized() else code

    forks = [Fork(folder / f"{rank}.log", work, told(rank, size, port)) for rank in range(size)]
    return [fork.code() for fork in forks]


def alone(folder: Path, *arguments: str) -> Fork:
    return Fork(folder / "console.log", lambda: cli.run(list(arguments)))


def train(folder: Path, *overrides: str, multirun: bool = False) -> list[str]:
    """The command line of a tiny run, or a sweep of some, with its output in the folder."""
    return ["train", *["-m"] * multirun, *TINY, f"output_root={folder / 'out'}", *overrides]


def runs_in(folder: Path) -> list[Path]:
    return sorted(path for path in (folder / "out").glob("*/*") if path.parent.name != "sweeps")
