"""This process's age and memory, as far as the system tells."""

from __future__ import annotations

import contextlib
import os
import sys
import time
from pathlib import Path

_STATUS, _CLEAR, _STAT = Path("/proc/self/status"), Path("/proc/self/clear_refs"), Path("/proc/self/stat")
_START = 19  # the field of /proc/<pid>/stat with the start time, counted from behind the command's name


def age() -> float:
    """Seconds since this process was started; 0 where the system does not tell."""
    try:
        fields = _STAT.read_text("ascii").rpartition(")")[2].split()
        return time.clock_gettime(time.CLOCK_BOOTTIME) - int(fields[_START]) / os.sysconf("SC_CLK_TCK")
    except (OSError, AttributeError, ValueError, IndexError):
        return 0.0


def forget_peak() -> None:
    """Let ``peak`` begin anew, where the system can; where not, it goes on from the highest so far."""
    with contextlib.suppress(OSError):
        _CLEAR.write_text("5")


def peak() -> int:
    """Bytes that were resident at the most; 0 where the system does not tell."""
    if _STATUS.is_file():
        for line in _STATUS.read_text("utf-8").splitlines():
            if line.startswith("VmHWM:"):
                return int(line.split()[1]) * 1024
    if sys.platform == "win32":
        return 0
    import resource

    most = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    return most if sys.platform == "darwin" else most * 1024
