"""Several processes on one run: every row once, one device's figures, one run directory."""

from __future__ import annotations

import csv
import math
import os
import shutil
import socket
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

from bunryu import cli
from bunryu.errors import BunryuError, BusyError, ConfigError, OutOfMemory, TrainingError
from bunryu.runs.run import Run
from bunryu.system.signals import Interrupted
from bunryu.training import distributed
from helpers.batches import datamodule
from helpers.killing import Fork, outcome
from helpers.sweeping import Driver
from helpers.together import (
    ROWS,
    as_srun,
    as_torchrun,
    become,
    runs_in,
    together,
    train,
    trained_alone,
    trained_together,
    witnesses,
)  # fmt: skip

pytestmark = pytest.mark.usefixtures("warm")


@pytest.fixture(autouse=True)
def _package(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    witnesses(tmp_path / "package", monkeypatch)


@pytest.mark.parametrize("size", [2, 3, 5])
@pytest.mark.parametrize("rows", [8, 15, 16, 17, 41])
def test_every_process_scores_as_many_batches_and_together_all_rows(
    size: int, rows: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    scored, trained = [], []
    for rank in range(size):
        become(as_torchrun(rank, size, 1), monkeypatch)
        data = datamodule(rows)
        scored.append([tuple(batch["index"].tolist()) for batch in data.test_dataloader()])
        assert [tuple(batch["index"].tolist()) for batch in data.val_dataloader()] == scored[rank]
        trained.append((data.batches_per_epoch, data.rows_of(1, 0)))
    assert {len(own) for own in scored} == {math.ceil(math.ceil(rows / 4) / size)}
    batches = [batch for own in scored for batch in own]
    assert sorted(row for batch in set(batches) for row in batch) == list(range(rows))
    assert len(batches) - len(set(batches)) < size  # no more twice than there have to be
    assert trained == trained[:1] * size  # as many steps, and the same rows of a batch of all processes
    assert len(trained[0][1]) <= 4 * size + size


def assert_alike(run: Path, other: Path) -> None:
    """The same records within 1e-5, and the same results and predictions of the same rows."""
    records = [[record[:3] for record in Run(path).metrics] for path in (run, other)]
    values = [[record[3] for record in Run(path).metrics] for path in (run, other)]
    assert records[0] == records[1]
    assert values[0] == pytest.approx(values[1], abs=1e-5)
    assert Run(run).results == pytest.approx(Run(other).results, abs=1e-5)
    for split in ("validation", "test"):
        texts = [(path / f"predictions/{split}.csv").read_text("utf-8") for path in (run, other)]
        tables = [list(csv.reader(text.splitlines())) for text in texts]
        assert [row[:3] for row in tables[0]] == [row[:3] for row in tables[1]]
        assert len({row[0] for row in tables[0]}) == len(tables[0]) == ROWS + 1
        logits = [[float(value) for row in table[1:] for value in row[3:]] for table in tables]
        assert logits[0] == pytest.approx(logits[1], abs=1e-4)


@pytest.fixture(scope="module")
def one_device(warm: None, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """One device with twice the batch."""
    return trained_alone(tmp_path_factory.mktemp("one"), "batch_size=32")


@pytest.fixture(scope="module")
def two_processes(warm: None, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The run of two processes that were started from outside."""
    folder = tmp_path_factory.mktemp("two")
    with pytest.MonkeyPatch.context() as monkeypatch:
        witnesses(folder / "package", monkeypatch)
        return trained_together(folder)


@pytest.mark.cpus
def test_two_processes_come_to_what_one_device_comes_to_with_twice_the_batch(
    two_processes: Path, one_device: Path
) -> None:
    assert_alike(two_processes, one_device)
    manifest = Run(two_processes).manifest
    assert (manifest["status"], manifest["device"]["count"]) == ("finished", 2)
    assert manifest["total_steps"] == Run(one_device).manifest["total_steps"] == 8
    logs = [(two_processes.parents[2] / f"{rank}.log").read_text("utf-8") for rank in (0, 1)]
    assert "run directory: " in logs[0]
    assert "INFO" not in logs[1].replace("Initializing distributed", "")


@pytest.mark.parametrize(
    "overrides",
    [["batch_size=9"], pytest.param(["batch_size=9", "batching=random"], marks=pytest.mark.full)],
    ids=" ".join,
)
def test_three_processes_with_unequal_shares(overrides: list[str], tmp_path: Path) -> None:
    one = trained_alone(tmp_path / "one", *overrides, "batch_size=27", "epochs=1")
    assert_alike(trained_together(tmp_path, *overrides, "epochs=1", size=3), one)


def slurm_port() -> int:
    """A free port of those that Lightning makes of a Slurm job's number."""
    for port in range(15000 + os.getpid() % 5000, 25000):
        with socket.socket() as listener:
            if listener.connect_ex(("127.0.0.1", port)):
                return port
    raise AssertionError


@pytest.mark.parametrize("name", ["train", pytest.param("interactive", marks=pytest.mark.full)])
def test_srun_s_processes_find_each_other_and_share_a_run(
    name: str, one_device: Path, tmp_path: Path
) -> None:
    def told(rank: int, size: int, port: int) -> dict[str, str]:
        return {**as_srun(rank, size, port), "SLURM_JOB_NAME": name}  # interactive: in salloc's allocation

    assert_alike(trained_together(tmp_path, told=told, port=slurm_port()), one_device)


@pytest.mark.parametrize(
    ("overrides", "multirun", "said"),
    [
        ([], False, "2 processes were started on this machine for 1 devices"),
        (["seed=1,2", "accelerator.devices=2"], True, "a sweep starts its jobs' processes itself"),
    ],
)
def test_what_several_processes_cannot_do_is_refused_by_all_with_nothing_on_disk(
    overrides: list[str], multirun: bool, said: str, tmp_path: Path
) -> None:
    assert together(tmp_path, train(tmp_path, *overrides, multirun=multirun)) == [2, 2]
    assert all(said in (tmp_path / f"{rank}.log").read_text("utf-8") for rank in (0, 1))
    assert not (tmp_path / "out").exists()


def test_a_run_of_one_device_is_not_resumed_by_two_processes(one_device: Path, tmp_path: Path) -> None:
    shutil.copytree(one_device, run := tmp_path / "sample-tiny" / "run")
    Run(run).end("interrupted", "SIGTERM")
    (run / "results.json").unlink()
    before = {path: path.read_bytes() for path in run.rglob("*") if path.is_file()}
    assert together(tmp_path, ["resume", str(run)]) == [2, 2]
    assert {path: path.read_bytes() for path in run.rglob("*") if path.is_file()} == before


def test_the_plain_command_starts_the_processes(two_processes: Path, tmp_path: Path) -> None:
    trained_alone(tmp_path, "accelerator.devices=2")
    assert outcome(tmp_path / "out") == outcome(two_processes.parents[1])
    assert (tmp_path / "console.log").read_text("utf-8").count("epoch 1/2") == 1
    assert [path.name for path in (tmp_path / "out").iterdir()] == ["sample-tiny"]


@pytest.mark.full
def test_torchrun_starts_the_processes(two_processes: Path, tmp_path: Path) -> None:
    command = [sys.executable, "-m", "torch.distributed.run", "--standalone", "--nproc-per-node", "2"]
    command += ["-m", "bunryu", *train(tmp_path, "accelerator.devices=2")]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    assert outcome(tmp_path / "out") == outcome(two_processes.parents[1])


@pytest.mark.full
def test_the_jobs_of_a_sweep_start_them_too(two_processes: Path, tmp_path: Path) -> None:
    arguments = train(tmp_path, "seed=7,8", "accelerator.devices=2", "n_jobs=2", multirun=True)
    driver = Driver(tmp_path / "console.log", lambda: cli.run(arguments))
    assert driver.code() == 0, driver.log.read_text("utf-8")
    runs = runs_in(tmp_path)
    assert sorted(Run(run).config["seed"] for run in runs) == [7, 8]
    (seventh,) = (run for run in runs if Run(run).config["seed"] == 7)
    assert (seventh / "metrics.csv").read_bytes() == (two_processes / "metrics.csv").read_bytes()
    assert [Run(run).manifest["status"] for run in runs] == ["finished", "finished"]


def test_the_processes_are_told_how_to_go_on(
    trained: Run, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    run = Run(Path(shutil.copytree(trained.path, tmp_path / "run")))
    config = run.path / "config.yaml"
    config.write_text(config.read_text("utf-8").replace("devices: 1", "devices: 2"), "utf-8")
    started: list[Any] = []
    monkeypatch.setattr(distributed, "_launcher", lambda *_: lambda *given: started.append(given))
    distributed.execute(run, resume=True, despite_changes=True)
    distributed.execute(run)
    join = ("-m", "bunryu", "join", str(run.path))
    assert started == [(*join, "--resume", "--despite-changes"), join]


def test_a_process_that_lost_another_says_so_and_not_gloo(
    trained: Run, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def lost(*_: Any, **__: Any) -> None:
        raise RuntimeError("[pair.cc:537] Read error [127.0.0.1]:46215: Connection reset by peer. GLHF!")

    monkeypatch.setattr(distributed.recipe, "execute", lost)
    with pytest.raises(RuntimeError, match="GLHF"):  # of one process it is no death of another
        distributed.execute(trained)
    monkeypatch.setattr(distributed, "check", lambda run: None)
    become(as_torchrun(1, 2, 1), monkeypatch)
    with pytest.raises(TrainingError, match="another process of this run is gone"):
        distributed.execute(trained)


OUT = "OutOfMemory: out\n  fix: less"
STOPPED = {"status": "interrupted", "exit_reason": "SIGTERM"}
GLOO = {"status": "failed", "exit_reason": "RuntimeError: gloo"}
LOST = {"status": "failed", "exit_reason": "TrainingError: RuntimeError: [pair.cc] Connection closed by peer"}
FAILURES: list[tuple[dict[str, str], list[int], BaseException, str]] = [
    ({"status": "failed", "exit_reason": OUT}, [3, 1], OutOfMemory("out\n  fix: less"), ""),
    ({"status": "failed", "exit_reason": "DataError: a: b"}, [1, -15], BunryuError("a: b"), ""),
    (STOPPED, [143, 143], Interrupted(15), ""),
    ({"status": "interrupted", "exit_reason": "SIGINT"}, [130, -15], Interrupted(2), ""),
    # the first one was only stopped because another had died
    (STOPPED, [143, 7], TrainingError("exit code 7"), "exit code 7"),
    (STOPPED, [143, -9], TrainingError("signal 9"), "signal 9"),
    (GLOO, [1, 3], OutOfMemory("ran out of memory"), "OutOfMemory: "),
    (GLOO, [1, 1], TrainingError("RuntimeError: gloo"), "RuntimeError: gloo"),
    (LOST, [1, 1], TrainingError("a process died; it says above of what"), "TrainingError: a process died"),
    (LOST, [1, 3], OutOfMemory("ran out of memory"), "OutOfMemory: "),
    ({}, [-9, 143], TrainingError("killed by the system (signal 9)"), "TrainingError: a process was killed"),
    ({}, [1, -15], TrainingError("it says above"), "TrainingError: a process died"),
]  # fmt: skip


@pytest.mark.parametrize(("facts", "codes", "expected", "recorded"), FAILURES)
def test_a_failure_is_named_by_the_process_that_knows_it(
    facts: dict[str, str], codes: list[int], expected: BaseException, recorded: str, tmp_path: Path
) -> None:
    run = Run.create(tmp_path, "kind", {"seed": 1}, [], [])
    before = run.manifest
    run.record(**facts)
    error = distributed._failure(run, before, codes)
    assert isinstance(error, type(expected))
    assert str(expected) in str(error)
    if recorded:
        assert run.manifest["status"] == "failed"
        assert recorded in run.manifest["exit_reason"]
    else:
        assert run.manifest["exit_reason"] == facts["exit_reason"]


def test_a_run_that_its_processes_never_opened_is_left_as_it_was(tmp_path: Path) -> None:
    run = Run.create(tmp_path, "kind", {"seed": 1}, [], [])
    run.end("interrupted", "SIGTERM")
    before = run.manifest
    for code, kind in ((4, BusyError), (2, ConfigError)):
        assert type(distributed._failure(run, before, [code, -15])) is kind
        assert run.manifest == before


def test_processes_started_meanwhile_read_until_this_one_is_gone(tmp_path: Path) -> None:
    reader = [sys.executable, "-S", "-c", "import os; print(len(os.read(0, 9)), flush=True)"]

    def work() -> int:
        before = os.fstat(0)
        with distributed._input_that_ends_with_this_process():
            child = subprocess.Popen(reader)
            try:
                child.wait(0.2)
            except subprocess.TimeoutExpired:
                print("waits", flush=True)
        assert (os.fstat(0).st_dev, os.fstat(0).st_ino) == (before.st_dev, before.st_ino)
        return child.wait()

    fork = Fork(tmp_path / "log", work)
    assert fork.code() == 0, fork.said()
    assert fork.said() == "waits\n0\n"
