"""A record is one process's: created exclusively, touched while it lives, told from a dead one's."""

from __future__ import annotations

import json
import os
import subprocess
import sys
import time
from pathlib import Path

import pytest

from bunryu.errors import BusyError, ModelError
from bunryu.sweeps import attempts
from bunryu.sweeps.attempts import Attempt, alive, process_exists, read_record, write_record
from helpers.sweeping import until


@pytest.fixture
def path(tmp_path: Path) -> Path:
    folder = tmp_path / "sweep" / "jobs"
    folder.mkdir(parents=True)
    return folder / "abc.1.json"


@pytest.fixture(scope="module")
def dead_pid() -> int:
    process = subprocess.Popen([sys.executable, "-c", ""])
    process.wait()
    return process.pid


def touched(path: Path, seconds_ago: float) -> None:
    os.utime(path, times=(time.time() - seconds_ago,) * 2)


def test_the_second_to_begin_is_refused_and_the_first_ones_record_stays(path: Path) -> None:
    Attempt(path).begin()
    before = path.read_bytes()
    with pytest.raises(BusyError, match="another process has this job") as caught:
        Attempt(path).begin()
    assert caught.value.exit_code == 4
    assert path.read_bytes() == before
    assert json.loads(before)["pid"] == os.getpid()


def test_a_record_names_the_run_relative_to_the_sweep_and_how_it_ended(path: Path) -> None:
    attempt = Attempt(path)
    attempt.begin()
    attempt.record_run(path.parents[2] / "sample-tiny" / "run")
    attempt.end("failed", "the reason", {"val/loss": 0.5})
    facts = read_record(path)
    assert {key: facts[key] for key in ("status", "run", "cause", "metrics", "pid")} == {
        "status": "failed",
        "run": "../sample-tiny/run",
        "cause": "the reason",
        "metrics": {"val/loss": 0.5},
        "pid": os.getpid(),
    }
    assert facts["start"] <= facts["end"]
    assert [item.name for item in path.parent.iterdir()] == ["abc.1.json"]


def test_a_process_of_this_machine_is_dead_as_soon_as_it_is_gone(path: Path, dead_pid: int) -> None:
    Attempt(path).begin()
    facts = read_record(path)
    assert alive(path, facts) is True
    assert alive(path, {**facts, "pid": dead_pid}) is False


def test_a_process_of_another_machine_is_dead_once_its_record_is_not_touched(
    path: Path, dead_pid: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    Attempt(path).begin()
    facts = {**read_record(path), "host": "another", "pid": dead_pid}
    assert alive(path, facts) is True
    for age, living in ((attempts.DEAD - 10, True), (attempts.DEAD + 10, False)):
        touched(path, age)
        assert alive(path, facts) is living

    def refused(self: Path, *arguments: object, **keywords: object) -> None:
        raise PermissionError(30, "Read-only file system")

    monkeypatch.setattr(Path, "touch", refused)  # a copy that can only be read
    assert alive(path, facts) is False


def test_a_number_that_another_process_got_since_does_not_keep_a_job(path: Path) -> None:
    Attempt(path).begin()  # of this very process, which is there
    touched(path, attempts.DEAD + 10)
    assert alive(path, read_record(path)) is False


def test_the_time_is_the_file_systems(path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    Attempt(path).begin()
    facts = {**read_record(path), "host": "another"}
    monkeypatch.setattr(time, "time", lambda: 4e9)  # this machine's clock is a century ahead
    assert alive(path, facts) is True


def test_a_record_is_touched_while_its_process_works(path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(attempts, "HEARTBEAT", 0.01)
    attempt = Attempt(path)
    attempt.begin()
    with attempt.heartbeat():
        os.utime(path, times=(1.0, 1.0))
        until(lambda: path.stat().st_mtime > 1.0)
    os.utime(path, times=(1.0, 1.0))
    time.sleep(0.05)
    assert path.stat().st_mtime == 1.0  # and not afterwards


def test_a_record_that_is_only_begun_is_empty_and_its_process_lives(path: Path) -> None:
    path.touch()
    assert read_record(path) == {}
    assert alive(path, {}) is True
    touched(path, attempts.DEAD + 10)
    assert alive(path, {}) is False


@pytest.mark.parametrize("content", [b"{", b"[1]", b"\xff\xfe", b"null", b"[" * 100_000, None])
def test_a_damaged_or_missing_record_is_named(path: Path, content: bytes | None) -> None:
    if content is not None:
        path.write_bytes(content)
    said = "there is no such record" if content is None else "the record is damaged"
    with pytest.raises(ModelError, match=said) as caught:
        read_record(path)
    assert caught.value.where == str(path)


def test_a_record_is_replaced_whole(path: Path) -> None:
    write_record(path, {"a": "분류"})
    write_record(path, {"b": 1})
    assert read_record(path) == {"b": 1}
    assert [item.name for item in path.parent.iterdir()] == ["abc.1.json"]


def test_process_numbers(dead_pid: int) -> None:
    assert process_exists(os.getpid()) is True
    assert process_exists(1) is True  # whoever that belongs to
    assert process_exists(dead_pid) is False
