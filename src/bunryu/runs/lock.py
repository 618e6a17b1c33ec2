"""One process at a time writes to a run directory."""

from __future__ import annotations

import errno
import json
import logging
import os
import socket
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from bunryu.errors import BusyError
from bunryu.runs.records import now
from bunryu.system.files import disk_errors_at, refuse_links

log = logging.getLogger(__name__)

FILE = ".lock"


@contextmanager
def locked(folder: Path) -> Iterator[None]:
    """Lock a folder to write to it while inside; the system unlocks it however the process ends.

    Raises BusyError, naming the process that has locked it, and ModelError for a link that leads out of it.
    A file system that cannot lock is named in the log, and nothing is locked there.
    """
    refuse_links(folder)
    with open(folder / FILE, "a+", encoding="utf-8") as file:
        try:
            # Not flock: a loader's worker would inherit that, and keep it for a while after a kill.
            import fcntl

            fcntl.lockf(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except ImportError:
            log.warning("this system has no file locks: nothing keeps a second process out of %s", folder)
        except OSError as error:
            if error.errno in (errno.EACCES, errno.EAGAIN):
                raise _busy(folder) from None
            log.warning("the file system of %s cannot lock (%s): nothing keeps a second process out",
                        folder, error.strerror)  # fmt: skip
        holder = json.dumps({"pid": os.getpid(), "host": socket.gethostname(), "since": now()})
        with disk_errors_at(folder / FILE):
            file.truncate(0)
            os.write(file.fileno(), holder.encode())
        yield
        file.truncate(0)


def is_locked(folder: Path) -> bool:
    """Whether another process has locked a folder, as far as its file system says."""
    path = folder / FILE
    if not hasattr(os, "lockf") or not path.is_file() or not os.access(path, os.R_OK):
        return False
    try:
        with open(path, "rb") as file:  # closing it would end a lock of this process: who has one never asks
            os.lockf(file.fileno(), os.F_TEST, 0)
    except OSError as error:
        return error.errno in (errno.EACCES, errno.EAGAIN)
    return False


def _busy(folder: Path) -> BusyError:
    try:
        holder = json.loads((folder / FILE).read_text("utf-8"))
        who = f"process {holder['pid']} on {holder['host']} since {holder['since']}"
    except (OSError, ValueError, KeyError):
        who = "another process"
    return BusyError(f"the run is held by {who}", where=str(folder), fix="wait until it ends")
