"""Jobs through submitit: found again by their ids, closed when the cluster has ended them."""

from __future__ import annotations

import os
import signal
import stat
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import nullcontext
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest

pytest.importorskip("hydra_plugins.hydra_submitit_launcher")

from bunryu.sweeps import attempts as attempt_records
from bunryu.sweeps import slurm as slurm_jobs
from bunryu.sweeps.attempts import read_record, write_record
from bunryu.sweeps.ledger import Ledger
from helpers.sweeping import Driver, attempts, runs_in, sweep, until

# A Slurm of shell scripts: jobs begin in the background once they may, and their states are files.
SBATCH = """\
#!/bin/sh
cd "$FAKE_SLURM"
id=$(( $(cat last 2>/dev/null || echo 100) + 1 ))
echo $id > last
cp "$1" script.$id
last=$(sed -n 's/^#SBATCH --array=0-\\([0-9]*\\).*/\\1/p' "$1")
for task in $(seq 0 "${last:-0}"); do
    name=$id
    if [ -n "$last" ]; then
        name=${id}_$task
        export SLURM_ARRAY_JOB_ID=$id SLURM_ARRAY_TASK_ID=$task
    fi
    echo PENDING > state.$name
    (
        while [ ! -f go ]; do sleep 0.05; done
        echo RUNNING > state.$name
        export SLURM_JOB_ID=$id SLURM_NTASKS=1 SLURM_JOB_NUM_NODES=1 SLURM_NODEID=0
        export SLURM_PROCID=0 SLURM_LOCALID=0 SLURM_JOB_NODELIST=node1
        cd "$FAKE_FOLDER"
        setsid sh "$FAKE_SLURM/script.$id" && echo COMPLETED > "$FAKE_SLURM/state.$name" \\
            || echo FAILED > "$FAKE_SLURM/state.$name"
    ) > out.$name 2>&1 &
done
echo "Submitted batch job $id"
"""
SRUN = """\
#!/bin/sh
while [ "${1#*/python}" = "$1" ]; do shift; done
exec "$@"
"""
SACCT = """\
#!/bin/sh
cd "$FAKE_SLURM"
echo "JobID|State|NodeList"
for file in state.*; do [ -f "$file" ] && echo "${file#state.}|$(cat "$file")|node1"; done
exit 0
"""
SCANCEL = "#!/bin/sh\nexit 0\n"


@pytest.fixture
def slurm(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """The folder of a made-up Slurm, whose commands are found first."""
    folder = tmp_path / "slurm"
    folder.mkdir()
    scripts = {"sbatch": SBATCH, "srun": SRUN, "sacct": SACCT, "scancel": SCANCEL, "squeue": SCANCEL}
    for name, text in scripts.items():
        (folder / name).write_text(text, "utf-8")
        (folder / name).chmod(0o755 | stat.S_IXUSR)
    monkeypatch.setenv("PATH", f"{folder}{os.pathsep}{os.environ['PATH']}")
    monkeypatch.setenv("FAKE_SLURM", str(folder))
    monkeypatch.setenv("FAKE_FOLDER", str(tmp_path))
    slurm_jobs.SlurmJob.watcher.clear()
    return folder


def sent(slurm: Path) -> list[str]:
    return sorted(path.name for path in slurm.glob("script.*"))


def test_a_driver_that_died_finds_its_slurm_jobs_by_their_ids(
    slurm: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    out = tmp_path / "out"
    arguments = ["seed=1,2", "hydra/launcher=submitit_slurm", "hydra.launcher.timeout_min=7"]

    def noted() -> list[str | None]:
        found = list(out.glob("sweeps/*/jobs/*.submitted.json"))
        return [read_record(path)["id"] for path in found]

    driver = Driver(tmp_path / "driver.log", lambda: sweep(out, *arguments))
    until(lambda: len(noted()) == 2)
    driver.signal(signal.SIGKILL)
    assert driver.code() == -signal.SIGKILL
    assert sorted(map(str, noted())) == ["101_0", "101_1"]
    assert sent(slurm) == ["script.101"]
    assert "#SBATCH --time=7\n" in (slurm / "script.101").read_text("utf-8")
    sleep = time.sleep

    def let_them_begin(seconds: float) -> None:
        (slurm / "go").touch()
        sleep(0.1)

    monkeypatch.setattr(slurm_jobs.time, "sleep", let_them_begin)
    assert sweep(out, *arguments) == 0, (tmp_path / "driver.log").read_text("utf-8")
    printed = capsys.readouterr().out
    for number in ("101_0", "101_1"):
        assert f"job {number} of an earlier start is waited for" in printed
    assert sent(slurm) == ["script.101"]
    assert "2 jobs, 2 finished" in printed
    assert list(attempts(out).values()) == [1, 1]
    assert len(runs_in(out)) == 2
    assert noted() == [None, None]


@pytest.fixture
def ledger(tmp_path: Path) -> Ledger:
    made = Ledger.create(tmp_path / "out" / "sweeps" / "s", {"swept": [], "monitor": "min val/loss"})
    for identity in ("aaa", "bbb"):
        made.add(identity, [], {})
    return made


class Cluster:
    """Stands for submitit's executor: jobs have numbers, and end when the test says so."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.submitted: list[str] = []
        self.over: dict[str, bool] = {}

    def batch(self) -> Any:
        return nullcontext()

    def submit(self, function: Any, folder: str, name: str) -> Any:
        number = str(1000 + len(self.submitted))
        self.submitted.append(name)
        self.over[number] = False
        paths = SimpleNamespace(stderr=f"{number}.err")
        return SimpleNamespace(job_id=number, done=lambda: self.over[number], state="NODE_FAIL", paths=paths)


@pytest.fixture
def cluster(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Cluster:
    made = Cluster(tmp_path)
    monkeypatch.setattr(slurm_jobs, "_executor", lambda launcher, ledger: made)
    return made


def submitted(ledger: Ledger, *names: str, kind: str = "slurm") -> list[str]:
    """What jobs are yielded as they end, through a launcher of this kind."""
    launcher: Any = SimpleNamespace(_EXECUTOR=kind, params={})
    return list(slurm_jobs.submitted(launcher, len(names), ledger, iter(names)))


def asleep(monkeypatch: pytest.MonkeyPatch, *acts: Any) -> None:
    """Each look at the jobs is followed by the next of some acts instead of by a second's sleep."""
    waiting: Iterator[Any] = iter(acts)
    monkeypatch.setattr(slurm_jobs.time, "sleep", lambda seconds: next(waiting)())


def finish(ledger: Ledger, name: str) -> None:
    with ledger.claimed(ledger.job(name)) as attempt:
        attempt.end("finished", metrics={"val/loss": 0.5})


def test_jobs_are_told_as_they_end_and_their_ids_are_noted_meanwhile(
    ledger: Ledger, cluster: Cluster, monkeypatch: pytest.MonkeyPatch
) -> None:
    noted: list[str | None] = []

    def end(name: str, number: str) -> None:
        noted.append(ledger.submission(name))
        finish(ledger, name)
        cluster.over[number] = True

    asleep(monkeypatch, lambda: end("bbb", "1001"), lambda: end("aaa", "1000"), lambda: None)
    assert submitted(ledger, "aaa", "bbb") == ["bbb", "aaa"]
    assert noted == ["1001", "1000"]
    assert [ledger.submission(name) for name in ("aaa", "bbb")] == [None, None]
    assert cluster.submitted == ["aaa", "bbb"]


def test_a_job_that_the_cluster_ended_before_it_began_has_failed(
    ledger: Ledger, cluster: Cluster, monkeypatch: pytest.MonkeyPatch
) -> None:
    asleep(monkeypatch, lambda: cluster.over.update({"1000": True}), lambda: None)
    assert submitted(ledger, "aaa") == ["aaa"]
    assert (ledger.job("aaa").status, ledger.job("aaa").attempt) == ("failed", 1)


def test_a_job_whose_node_died_has_failed_once_nobody_touches_its_record(
    ledger: Ledger, cluster: Cluster, monkeypatch: pytest.MonkeyPatch
) -> None:
    record = ledger.path / "jobs" / "aaa.1.json"

    def begin_elsewhere_and_die() -> None:
        write_record(record, {"status": "running", "host": "node1", "pid": 1, "run": None})
        cluster.over["1000"] = True

    def grow_old() -> None:
        assert ledger.job("aaa").status == "running"
        os.utime(record, times=(time.time() - attempt_records.DEAD - 10,) * 2)

    asleep(monkeypatch, begin_elsewhere_and_die, grow_old, lambda: None)
    assert submitted(ledger, "aaa") == ["aaa"]
    job = ledger.job("aaa")
    assert (job.status, job.cause) == ("failed", "it ended on the cluster (NODE_FAIL): 1000.err")
    assert cluster.submitted == ["aaa"]


@pytest.mark.parametrize(("state", "again"), [("RUNNING", False), ("PENDING", False), (None, True),
                                              ("FAILED", True), ("COMPLETED", True)])  # fmt: skip
def test_what_is_on_the_cluster_is_not_sent_again_what_is_lost_is(
    state: str | None, again: bool, ledger: Ledger, cluster: Cluster, slurm: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:  # fmt: skip
    if state is not None:
        (slurm / "state.77_0").write_text(state, "utf-8")
    ledger.note_submission("aaa", "77_0")

    def end() -> None:
        finish(ledger, "aaa")
        cluster.over["1000"] = True
        (cluster.folder / "77_0_0_result.pkl").touch()

    asleep(monkeypatch, end, lambda: None)
    assert submitted(ledger, "aaa") == ["aaa"]
    assert cluster.submitted == (["aaa"] if again else [])
    assert ledger.submission("aaa") is None


def test_a_local_job_of_an_earlier_start_is_over_when_its_process_is(
    ledger: Ledger, cluster: Cluster, monkeypatch: pytest.MonkeyPatch
) -> None:
    process = subprocess.Popen([sys.executable, "-c", "input()"], stdin=subprocess.PIPE)
    ledger.note_submission("aaa", str(process.pid))

    def end() -> None:
        finish(ledger, "aaa")
        process.communicate(b"\n")

    asleep(monkeypatch, end, lambda: None)
    assert submitted(ledger, "aaa", kind="local") == ["aaa"]
    assert cluster.submitted == []
    assert ledger.job("aaa").attempt == 1


def test_a_launchers_parameters_reach_the_cluster(ledger: Ledger, slurm: Path) -> None:
    params = {
        "submitit_folder": "elsewhere", "timeout_min": 30, "mem_gb": 8, "partition": "gpu", "qos": None,
        "gres": "gpu:1", "max_num_timeout": 3, "additional_parameters": {"mail-type": "END"},
    }  # fmt: skip
    launcher: Any = SimpleNamespace(_EXECUTOR="slurm", params=params)
    executor = slurm_jobs._executor(launcher, ledger)
    assert executor.cluster == "slurm"
    assert executor.folder == ledger.path / "cluster" / "%j"
    inner = executor._executor
    assert inner.max_num_timeout == 3
    kept = {key: inner.parameters[key] for key in ("time", "mem", "partition", "gres")}
    assert kept == {"time": 30, "mem": "8GB", "partition": "gpu", "gres": "gpu:1"}
    assert inner.parameters["additional_parameters"] == {"mail-type": "END"}
