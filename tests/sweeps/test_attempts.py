"""A record is one process's: created exclusively, touched while it lives, told from a dead one's."""

from __future__ import annotations

import os
import time
from pathlib import Path
from typing import Any

import pytest

from bunryu.errors import BusyError
from bunryu.sweeps import attempts
from bunryu.sweeps.attempts import DEAD, Attempt, alive, read_record
from helpers.sweeping import until


@pytest.fixture
def attempt(tmp_path: Path) -> Attempt:
    folder = tmp_path / "sweep" / "jobs"
    folder.mkdir(parents=True)
    begun = Attempt(folder / "abc.1.json")
    begun.begin()
    return begun


def test_only_the_first_to_begin_has_the_record_and_says_in_it_how_it_ended(attempt: Attempt) -> None:
    before = attempt.path.read_bytes()
    with pytest.raises(BusyError, match="another process has this job") as caught:
        Attempt(attempt.path).begin()
    assert caught.value.exit_code == 4
    assert attempt.path.read_bytes() == before
    attempt.end("failed", "the reason", {"val/loss": 0.5})
    facts = read_record(attempt.path)
    assert facts["start"] <= facts["end"]
    kept = [facts[key] for key in ("status", "run", "cause", "metrics", "pid")]
    assert kept == ["failed", None, "the reason", {"val/loss": 0.5}, os.getpid()]
    assert [item.name for item in attempt.path.parent.iterdir()] == ["abc.1.json"]


@pytest.mark.parametrize(
    ("host", "gone", "start", "age", "expected"),
    [
        (None, False, "its own", DEAD + 10, True),  # it was stopped, as on a laptop that slept
        (None, False, "later", 0, False),  # another process has got the number
        (None, True, "its own", 0, False),  # on this machine it is known at once
        (None, False, None, DEAD - 10, True),  # the system does not say when a process was started
        (None, False, None, DEAD + 10, False),
        ("another", True, "its own", 0, True),
        ("another", True, "its own", DEAD - 10, True),
        ("another", True, "its own", DEAD + 10, False),
    ],
)
def test_an_attempt_is_alive_by_its_process_here_and_by_its_records_last_touch_elsewhere(
    host: str | None,
    gone: bool,
    start: str | None,
    age: float,
    expected: bool,
    attempt: Attempt,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    pid = 2**22 + 1 if gone else os.getpid()  # more than there can be
    began = attempt.facts["process_start"]
    known = {"its own": began, "later": began + 1, None: None}[start]
    facts = {"host": host or attempt.facts["host"], "pid": pid, "process_start": known}
    os.utime(attempt.path, times=(time.time() - age,) * 2)
    with monkeypatch.context() as context:
        context.setattr(time, "time", lambda: 4e9)  # this machine's clock is a century ahead of the files'
        assert alive(attempt.path, facts) is expected

    def refused(*arguments: Any, **keywords: Any) -> None:
        raise PermissionError(30, "Read-only file system")

    monkeypatch.setattr(Path, "touch", refused)  # a copy that can only be read
    assert alive(attempt.path, facts) is expected


def test_a_process_that_has_only_created_its_record_and_another_users_are_alive(
    attempt: Attempt, monkeypatch: pytest.MonkeyPatch
) -> None:
    def refused(pid: int, number: int) -> None:
        raise PermissionError

    monkeypatch.setattr(os, "kill", refused)
    monkeypatch.setattr(attempts, "process_start", lambda pid: None)  # as where other users' are hidden
    assert alive(attempt.path, attempt.facts) is True
    attempt.path.write_bytes(b"")
    assert alive(attempt.path, read_record(attempt.path)) is True


def test_a_record_is_touched_meanwhile(attempt: Attempt, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(attempts, "HEARTBEAT", 0.01)
    with attempt.heartbeat():
        os.utime(attempt.path, times=(1.0, 1.0))
        until(lambda: attempt.path.stat().st_mtime > 1.0)
    os.utime(attempt.path, times=(1.0, 1.0))
    time.sleep(0.05)
    assert attempt.path.stat().st_mtime == 1.0  # and not afterwards
