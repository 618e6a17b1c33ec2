"""Predictions that take their file's name when they are complete, and can be gone on with until then."""

from __future__ import annotations

import json
import os
import shlex
from collections.abc import Iterator, Mapping
from contextlib import contextmanager, suppress
from io import TextIOWrapper
from pathlib import Path
from typing import Any, TextIO

from bunryu.errors import BusyError, ConfigError, DataError
from bunryu.system.files import disk_errors_at, synchronise
from bunryu.system.records import write_record


class Unfinished:
    """Rows in ``<name>.partial``; how many are whole, and what they depend on, in ``<name>.partial.json``.

    Those of an earlier attempt are gone on with if ``resume`` says so, and refused otherwise.
    """

    def __init__(self, path: Path, resume: bool) -> None:
        self.partial, self._record = (path.with_name(f"{path.name}.partial{end}") for end in ("", ".json"))
        self._path, self._resume = path, resume
        self._facts = self._read()  # one value, as a signal may come between two assignments

    @property
    def rows(self) -> int:
        """How many rows are written whole."""
        return int(self._facts["rows"])

    @contextmanager
    def opened(self, request: Mapping[str, Any]) -> Iterator[TextIO]:
        """The file, after the rows that are whole; they stay if anything but the input stops the work.

        Refused if another process writes it, or what the rows depend on, ``request``, was another before.
        """
        with disk_errors_at(self._path), open(self.partial, "a+b") as self._file:
            self._lock()
            found = self._read()  # again: that process may have ended since
            for name, value in request.items():
                if found["rows"] and (before := found["request"].get(name)) != value:
                    raise self._refused(f"the rows before were predicted with {name} {before}, not {value}")
            self._facts = {**found, "request": dict(request)}
            self._file.truncate(found["bytes"])
            with TextIOWrapper(self._file, "utf-8", "replace", newline="") as text:
                try:
                    yield text
                    self.save()
                except BaseException as error:
                    stays = self.rows and not isinstance(error, DataError | ConfigError)
                    with suppress(OSError):  # such as a full disk's: what was saved before holds
                        self.save() if stays else self._remove(self.partial)
                    raise
        os.replace(self.partial, self._path)
        self._remove()
        synchronise(self._path.parent)

    def reached(self, rows: int) -> None:
        """Note that so many rows are written and flushed."""
        self._facts = {**self._facts, "rows": rows, "bytes": os.fstat(self._file.fileno()).st_size}

    def save(self) -> None:
        """Bring the rows onto the disk, and then how many they are."""
        os.fsync(self._file.fileno())
        write_record(self._record, self._facts)

    def _lock(self) -> None:
        try:
            os.lockf(self._file.fileno(), os.F_TLOCK, 0)
        except (BlockingIOError, PermissionError):
            fix = "wait for its end"
            raise BusyError("another process writes it", where=str(self.partial), fix=fix) from None
        except (AttributeError, OSError):  # a system, or a file system, without locks
            pass

    def _remove(self, *files: Path) -> None:
        for file in (*files, self._record):
            file.unlink(missing_ok=True)

    def _read(self) -> dict[str, Any]:
        facts = {"rows": 0, "bytes": 0, "request": {}}
        try:
            if size := self.partial.stat().st_size:
                facts = json.loads(self._record.read_bytes())
                if not (0 <= facts["bytes"] <= size and facts["rows"] >= 0 and dict(facts["request"])):
                    raise ValueError
        except FileNotFoundError:
            pass
        except (ValueError, TypeError, KeyError, RecursionError):
            raise self._refused(f"{self._record.name} is damaged") from None
        if facts["rows"] and not self._resume:
            raise self._refused(f"{facts['rows']:,} rows are left of predictions that were interrupted")
        return facts

    def _refused(self, what: str) -> ConfigError:
        fix = f"--resume with what it was; or start anew: rm {shlex.quote(str(self.partial))}"
        return ConfigError(what, where=str(self.partial), fix=fix)
