"""One process's attempt at a sweep's job: a record that only it writes, and touches while it lives."""

from __future__ import annotations

import json
import os
import socket
import tempfile
import threading
import time
from collections.abc import Iterator, Mapping
from contextlib import contextmanager, suppress
from dataclasses import dataclass, field
from pathlib import Path
from typing import Annotated, Any, Literal, NotRequired

from annotated_types import Interval, Predicate

from bunryu.errors import BusyError
from bunryu.runs.records import TIME, now
from bunryu.system.files import disk_errors_at
from bunryu.system.machine import pid_namespace, process_start
from bunryu.system.records import mapping, read_checked, write_record

HEARTBEAT = 10.0  # seconds between two touches
DEAD = 60.0  # seconds without one

RECORD = mapping(
    status=Literal["running", "finished", "failed", "interrupted", "pruned"], host=str,
    run=Annotated[str, Predicate(lambda path: "\0" not in path)] | None,
    pid=Annotated[int, Interval(gt=0, lt=2**31)], process_start=NotRequired[int | None],
    metrics=NotRequired[dict[str, float]],
    start=NotRequired[TIME], end=NotRequired[TIME | None], cause=NotRequired[str | None],
)  # fmt: skip


@dataclass
class Attempt:
    """One process's attempt at a job."""

    path: Path  # of the record, <sweep>/jobs/<identity>.<number>.json
    facts: dict[str, Any] = field(default_factory=dict)

    def begin(self) -> None:
        """Create the record; raises BusyError if another process was quicker."""
        process = {"host": _host(), "pid": os.getpid(), "process_start": process_start(os.getpid())}
        self.facts = {"status": "running", "run": None, **process, "start": now()}
        try:
            with disk_errors_at(self.path), open(self.path, "x", encoding="utf-8") as file:
                json.dump(self.facts, file)
        except FileExistsError:
            raise BusyError("another process has this job", where=str(self.path)) from None
        except OSError:
            self.path.unlink(missing_ok=True)  # empty, it would count as a process that lives
            raise

    def record_run(self, run: Path) -> None:
        """Note the run directory, relative to the sweep's folder, so that both can be moved."""
        self._write(run=os.path.relpath(run.absolute(), self.path.parent.parent.absolute()))

    def end(self, status: str, cause: str | None = None, metrics: Mapping[str, Any] | None = None) -> None:
        self._write(status=status, cause=cause, metrics=dict(metrics or {}), end=now())

    @contextmanager
    def heartbeat(self) -> Iterator[None]:
        """Touch the record every ``HEARTBEAT`` seconds while inside."""
        over = threading.Event()

        def beat() -> None:
            while not over.wait(HEARTBEAT):
                with suppress(OSError):  # the folder is gone: what writes to it will say so
                    os.utime(self.path)

        thread = threading.Thread(target=beat, daemon=True)
        thread.start()
        try:
            yield
        finally:
            over.set()
            thread.join()

    def _write(self, **facts: Any) -> None:
        self.facts |= facts
        write_record(self.path, self.facts)


def alive(path: Path, facts: Mapping[str, Any]) -> bool:
    """Whether the process of a running attempt still exists.

    On this machine its number and start decide, however long it was stopped. Of another machine's process,
    and where the system does not say when one was started, the last touch of its record does.
    """
    if facts.get("host") == _host():
        start, then = process_start(facts["pid"]), facts.get("process_start")
        if start and then:
            return bool(start == then)
        if not process_exists(facts["pid"]):
            return False
    return _file_system_time(path.parent) - path.stat().st_mtime < DEAD


def read_record(path: Path) -> dict[str, Any]:
    """An attempt's record; empty if its writer has only just created it, or its machine went down then.

    Raises ModelError if there is none, or it is damaged.
    """
    return {} if path.is_file() and not path.stat().st_size else dict(read_checked(path, RECORD))


def _host() -> str:
    """This machine, or this container: where a process number means the same process."""
    return f"{socket.gethostname()} {pid_namespace()}".strip()


def process_exists(pid: int) -> bool:
    """Whether this machine has a process of that number, whoever it belongs to."""
    try:
        os.kill(pid, 0)
    except OSError as error:
        return isinstance(error, PermissionError)
    return True


def _file_system_time(folder: Path) -> float:
    """The time that a file touched now gets: machines that share a file system may differ in theirs."""
    try:
        with tempfile.NamedTemporaryFile(dir=folder) as probe:
            return os.fstat(probe.fileno()).st_mtime
    except OSError:  # a copy that can only be read
        return time.time()
