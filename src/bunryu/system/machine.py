"""What this machine and this process have: processor, memory, age; the only reader of /proc."""

from __future__ import annotations

import contextlib
import os
import platform
import sys
import time
from pathlib import Path

_STATUS, _CLEAR, _STAT = Path("/proc/self/status"), Path("/proc/self/clear_refs"), Path("/proc/self/stat")
_START = 19  # the field of /proc/<pid>/stat with the start time, counted from behind the command's name


def cpu_has_bf16() -> bool:
    """AMX or AVX512-BF16, or an ARM processor's; taken for granted where the system does not tell."""
    flags = _cpu_flags()
    return not flags or bool(flags & {"amx_bf16", "avx512_bf16", "bf16"})


def _cpu_flags() -> set[str]:
    try:
        with open("/proc/cpuinfo", encoding="utf-8", errors="replace") as file:
            lines = [line for line in file if line.lower().startswith(("flags", "features"))]
    except OSError:
        return set()
    return set(lines[0].partition(":")[2].split()) if lines else set()


def available_memory() -> int | None:
    """Bytes that this process can still have, by the system and by its control groups; None if none tells."""
    free = [_meminfo(), *map(_left_in, _control_groups())]
    return min((value for value in free if value is not None), default=None)


def _meminfo(path: Path = Path("/proc/meminfo")) -> int | None:
    for line in _text(path).splitlines():
        if line.startswith("MemAvailable:"):
            return int(line.split()[1]) * 1024
    return None


def _control_groups(
    membership: Path = Path("/proc/self/cgroup"), root: Path = Path("/sys/fs/cgroup")
) -> list[Path]:
    """Folders of the control groups that this process belongs to; in a container those that it can see."""
    groups = []
    for line in _text(membership).splitlines():
        _, controllers, name = line.split(":", 2)
        if controllers in ("", "memory"):
            top = root / controllers
            here = top / name.lstrip("/")
            groups += [folder for folder in (here, *here.parents) if folder == top or top in folder.parents]
    return groups


def _left_in(group: Path) -> int | None:
    """Bytes below a control group's limit, of version 2 or 1; what is only a file's cache counts as free."""
    for limit, usage in (
        ("memory.max", "memory.current"),
        ("memory.limit_in_bytes", "memory.usage_in_bytes"),
    ):
        most, used = _text(group / limit).strip(), _text(group / usage).strip()
        if most.isdigit() and used.isdigit():
            stat = dict(line.split() for line in _text(group / "memory.stat").splitlines())
            cache = int(stat.get("total_inactive_file", stat.get("inactive_file", 0)))
            return max(0, int(most) - int(used) + cache)
    return None


def _text(path: Path) -> str:
    try:
        return path.read_text("utf-8")
    except OSError:
        return ""


def physical_memory() -> int | None:
    """Bytes of memory, where the system tells."""
    try:
        return os.sysconf("SC_PHYS_PAGES") * os.sysconf("SC_PAGE_SIZE")
    except (AttributeError, ValueError, OSError):
        return None


def processor() -> str:
    """The processor's name, where the system tells it."""
    information = Path("/proc/cpuinfo")
    if information.is_file():
        for line in information.read_text("utf-8", "replace").splitlines():
            if line.startswith("model name"):
                return line.partition(":")[2].strip()
    return platform.processor()


def process_age() -> float:
    """Seconds since this process was started; 0 where the system does not tell."""
    try:
        fields = _STAT.read_text("ascii").rpartition(")")[2].split()
        return time.clock_gettime(time.CLOCK_BOOTTIME) - int(fields[_START]) / os.sysconf("SC_CLK_TCK")
    except (OSError, AttributeError, ValueError, IndexError):
        return 0.0


def reset_peak_memory() -> None:
    """Let ``peak`` begin anew, where the system can; where not, it goes on from the highest so far."""
    with contextlib.suppress(OSError):
        _CLEAR.write_text("5")


def peak_memory() -> int:
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
