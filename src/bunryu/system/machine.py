"""What this machine and this process have: processor, memory, age; the only reader of /proc and cgroups."""

from __future__ import annotations

import contextlib
import os
import platform
import sys
import time
from pathlib import Path

_STATE, _START = 0, 19  # fields of /proc/<pid>/stat, counted from behind the command's name


def cpu_has_bf16() -> bool:
    """AMX or AVX512-BF16, or an ARM processor's; taken for granted where the system does not say."""
    cpu = _fields("/proc/cpuinfo")
    flags = set(cpu.get("flags", cpu.get("features", "")).split())
    return not flags or bool(flags & {"amx_bf16", "avx512_bf16", "bf16"})


def processor() -> str:
    """The processor's name, where the system says it."""
    return _fields("/proc/cpuinfo").get("model name") or platform.processor()


def nvidia_cards() -> int:
    """How many the driver knows, found without initialising anything."""
    with contextlib.suppress(OSError):
        return len(os.listdir("/proc/driver/nvidia/gpus"))
    return 0


def pid_namespace() -> str:
    """Within which a process number means one process; empty where the system does not say."""
    with contextlib.suppress(OSError):
        return os.readlink("/proc/self/ns/pid")
    return ""


def physical_memory() -> int | None:
    """Bytes of memory, where the system says it."""
    try:
        return os.sysconf("SC_PHYS_PAGES") * os.sysconf("SC_PAGE_SIZE")
    except (AttributeError, ValueError, OSError):
        return None


def available_memory() -> int | None:
    """Bytes that this process can still have, by the system and its control groups; None if neither says."""
    free = [_meminfo(), *map(_left_in, _control_groups())]
    return min((value for value in free if value is not None), default=None)


def _meminfo(path: str | Path = "/proc/meminfo") -> int | None:
    return _bytes_in(path, "memavailable")


def _control_groups(
    membership: str | Path = "/proc/self/cgroup", root: Path = Path("/sys/fs/cgroup")
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


def process_age() -> float:
    """Seconds since this process was started; 0 where the system does not say."""
    if (started := process_start(os.getpid())) is None:
        return 0.0
    return time.clock_gettime(time.CLOCK_BOOTTIME) - started / os.sysconf("SC_CLK_TCK")


def process_start(pid: int) -> int | None:
    """When a process was started, in ticks since the system was; None if it is over or nothing says it."""
    fields = _text(f"/proc/{pid}/stat").rpartition(")")[2].split()
    return int(fields[_START]) if len(fields) > _START and fields[_STATE] not in "ZX" else None


def reset_peak_memory() -> None:
    """Let ``peak_memory`` begin anew, where the system can; else it goes on from the highest so far."""
    with contextlib.suppress(OSError), open("/proc/self/clear_refs", "w") as file:
        file.write("5")


def resident_memory(pid: int | None = None) -> int | None:
    """Bytes of a process, or of this one, that are in memory now; None where the system does not say."""
    return _bytes_in(f"/proc/{pid or 'self'}/status", "vmrss")


def peak_memory() -> int:
    """The most bytes of this process that were in memory at once; 0 where the system does not say."""
    if peak := _bytes_in("/proc/self/status", "vmhwm"):  # getrusage's starts from the parent's on Linux
        return peak
    if sys.platform == "win32":
        return 0
    import resource

    most = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    return most if sys.platform == "darwin" else most * 1024


def _bytes_in(path: str | Path, name: str) -> int | None:
    """A field of so many kB."""
    value = _fields(path).get(name)
    return int(value.split()[0]) * 1024 if value else None


def _fields(path: str | Path) -> dict[str, str]:
    """The ``name: value`` lines of a file, names in lower case; of several with one name the first."""
    lines = [line.partition(":") for line in _text(path).splitlines()]
    return {name.strip().lower(): value.strip() for name, _, value in reversed(lines)}


def _text(path: str | Path) -> str:
    """A file's text; empty where the system has no such file."""
    try:
        with open(path, encoding="utf-8", errors="replace") as file:
            return file.read()
    except OSError:
        return ""
