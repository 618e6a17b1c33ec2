"""Jobs through submitit: found again by their ids, closed when the cluster has ended them."""

from __future__ import annotations

import json
import os
import re
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import nullcontext
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest

pytest.importorskip("hydra_plugins.hydra_submitit_launcher")

from bunryu.sweeps import slurm as slurm_jobs
from bunryu.sweeps.attempts import DEAD, write_record
from bunryu.sweeps.ledger import Ledger
from helpers.sweeping import Driver, ledger_in, sweep, until

# A Slurm of shell scripts: it takes arrays of two jobs, whose states are files, and runs none.
SBATCH = """\
#!/bin/sh
cd "$FAKE_SLURM"
id=$((101 + $(ls | grep -c script)))
cp "$1" script.$id
for task in 0 1; do echo PENDING > state.${id}_$task; done
echo "Submitted batch job $id"
"""
SACCT = """\
#!/bin/sh
cd "$FAKE_SLURM"
echo "JobID|State|NodeList"
for file in state.*; do [ -f "$file" ] && echo "${file#state.}|$(cat "$file")|node1"; done
exit 0
"""


@pytest.fixture
def slurm(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """The folder of a made-up Slurm, whose commands are found first."""
    folder = tmp_path / "slurm"
    folder.mkdir()
    for name, text in {"sbatch": SBATCH, "srun": "#!/bin/sh\n", "sacct": SACCT}.items():
        (folder / name).write_text(text, "utf-8")
        (folder / name).chmod(0o755)
    monkeypatch.setenv("PATH", f"{folder}{os.pathsep}{os.environ['PATH']}")
    monkeypatch.setenv("FAKE_SLURM", str(folder))
    slurm_jobs.SlurmJob.watcher.clear()
    return folder


def test_a_driver_that_died_finds_its_slurm_jobs_by_their_ids(
    slurm: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    out = tmp_path / "out"
    arguments = ["seed=2,1", "hydra/launcher=submitit_slurm", "hydra.launcher.timeout_min=7"]

    def noted() -> list[str]:
        sent = out.glob("sweeps/*/jobs/*.submitted.json")
        return sorted(str(json.loads(path.read_text("utf-8"))["id"]) for path in sent)

    def end_them() -> None:
        ledger = ledger_in(out)
        for number, job in zip(("101_0", "101_1"), ledger.jobs(), strict=True):
            finish(ledger, job.identity)
            folder = ledger.path / "cluster" / number
            folder.mkdir(parents=True, exist_ok=True)
            (folder / f"{number}_0_result.pkl").touch()

    driver = Driver(tmp_path / "driver.log", lambda: sweep(out, *arguments))
    until(lambda: len(noted()) == 2)
    assert driver.stop(signal.SIGKILL) == -signal.SIGKILL
    assert noted() == ["101_0", "101_1"]
    assert "#SBATCH --time=7\n" in (slurm / "script.101").read_text("utf-8")
    acts: Iterator[Callable[[], object]] = iter((end_them, lambda: None))
    monkeypatch.setattr(slurm_jobs.time, "sleep", lambda seconds: next(acts)())
    assert sweep(out, *arguments) == 0, (tmp_path / "driver.log").read_text("utf-8")
    waited = re.findall("job (.*) of an earlier start is waited for", capsys.readouterr().out)
    assert waited == ["101_0", "101_1"]
    assert ([path.name for path in slurm.glob("script.*")], noted()) == (["script.101"], ["None", "None"])


def finish(ledger: Ledger, name: str) -> None:
    with ledger.claimed(ledger.job(name)) as attempt:
        attempt.end("finished", metrics={"val/loss": 0.5})


@pytest.fixture
def ledger(tmp_path: Path) -> Ledger:
    made = Ledger.create(tmp_path / "out" / "sweeps" / "s", {"swept": [], "monitor": "min val/loss"})
    made.add({"aaa": ([], {}), "bbb": ([], {})})
    return made


class Cluster:
    """Stands for submitit's executor: jobs have numbers, and end when the test says so."""

    def __init__(self, folder: Path, ledger: Ledger, monkeypatch: pytest.MonkeyPatch) -> None:
        self.folder = folder
        self.submitted: list[str] = []
        self.over: set[str] = set()
        self._ledger, self._monkeypatch = ledger, monkeypatch
        monkeypatch.setattr(slurm_jobs, "_executor", lambda launcher, ledger: self)

    def batch(self) -> Any:
        return nullcontext()

    def submit(self, function: Any, folder: str, name: str) -> Any:
        number = str(1000 + len(self.submitted))
        self.submitted.append(name)
        paths = SimpleNamespace(stderr=f"{number}.err")
        return SimpleNamespace(
            job_id=number, done=lambda: number in self.over, state="NODE_FAIL", paths=paths
        )

    def run(self, names: list[str], *acts: Callable[[], object], kind: str = "slurm") -> list[str]:
        """The jobs as they end; each look at them is followed by an act instead of by a second's sleep."""
        following = iter((*acts, lambda: None))
        self._monkeypatch.setattr(slurm_jobs.time, "sleep", lambda seconds: next(following)())
        launcher: Any = SimpleNamespace(_EXECUTOR=kind, params={})
        return list(slurm_jobs.submitted(launcher, len(names), self._ledger, iter(names)))

    def finish(self, name: str, number: str = "1000") -> None:
        finish(self._ledger, name)
        self.over.add(number)


@pytest.fixture
def cluster(tmp_path: Path, ledger: Ledger, monkeypatch: pytest.MonkeyPatch) -> Cluster:
    return Cluster(tmp_path, ledger, monkeypatch)


def test_jobs_are_yielded_as_they_end_and_have_ids_meanwhile(ledger: Ledger, cluster: Cluster) -> None:
    noted: list[str | None] = []

    def end_bbb() -> None:
        noted.extend(map(ledger.submission, ("aaa", "bbb")))
        cluster.finish("bbb", "1001")

    def end_aaa_before_it_begins() -> None:
        noted.extend(map(ledger.submission, ("aaa", "bbb")))
        cluster.over.add("1000")

    assert cluster.run(["aaa", "bbb"], end_bbb, end_aaa_before_it_begins) == ["bbb", "aaa"]
    assert (noted, ledger.submission("aaa")) == (["1000", "1001", "1000", None], None)
    assert [(job.status, job.attempt) for job in ledger.jobs()] == [("failed", 1), ("finished", 1)]
    assert cluster.submitted == ["aaa", "bbb"]


def test_a_job_whose_node_died_fails_once_its_record_is_old(ledger: Ledger, cluster: Cluster) -> None:
    record = ledger.path / "jobs" / "aaa.1.json"

    def begin_elsewhere_and_die() -> None:
        write_record(record, {"status": "running", "host": "node1", "pid": 1, "run": None})
        cluster.over.add("1000")

    def grow_old() -> None:
        assert ledger.job("aaa").status == "running"
        os.utime(record, times=(time.time() - DEAD - 10,) * 2)

    assert cluster.run(["aaa"], begin_elsewhere_and_die, grow_old) == ["aaa"]
    job = ledger.job("aaa")
    assert (job.status, job.cause) == ("failed", "it ended on the cluster (NODE_FAIL): 1000.err")


def test_a_lost_job_is_sent_again(ledger: Ledger, cluster: Cluster, slurm: Path) -> None:
    (slurm / "state.77_0").write_text("FAILED", "utf-8")
    ledger.note_submission("aaa", "77_0")
    ledger.note_submission("bbb", "77_1")  # the cluster knows nothing of it
    ends = [lambda: cluster.finish("aaa", "1000"), lambda: cluster.finish("bbb", "1001")]
    assert cluster.run(["aaa", "bbb"], *ends) == ["aaa", "bbb"]
    assert cluster.submitted == ["aaa", "bbb"]


def test_a_local_job_of_an_earlier_start_is_over_when_its_process_is(
    ledger: Ledger, cluster: Cluster
) -> None:
    process = subprocess.Popen([sys.executable, "-c", "input()"], stdin=subprocess.PIPE)
    ledger.note_submission("aaa", str(process.pid))

    def end() -> None:
        cluster.finish("aaa")
        process.communicate(b"\n")

    assert cluster.run(["aaa"], end, kind="local") == ["aaa"]
    assert (cluster.submitted, ledger.job("aaa").attempt) == ([], 1)


def test_a_launchers_parameters_reach_the_cluster(ledger: Ledger, slurm: Path) -> None:
    params = {"submitit_folder": "elsewhere", "timeout_min": 30, "mem_gb": 8, "partition": "gpu", "qos": None}
    launcher: Any = SimpleNamespace(_EXECUTOR="slurm", params={**params, "max_num_timeout": 3})
    executor = slurm_jobs._executor(launcher, ledger)
    inner = executor._executor
    assert (executor.folder, inner.max_num_timeout) == (ledger.path / "cluster" / "%j", 3)
    assert [inner.parameters[key] for key in ("time", "mem", "partition")] == [30, "8GB", "gpu"]
