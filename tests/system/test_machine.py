"""Processor and memory, as the system's files say."""

from __future__ import annotations

import os
import subprocess
from pathlib import Path

import pytest

from bunryu.system import machine

FLAGS = {
    "an old x86": ("processor\t: 0\nflags\t\t: fpu sse2 avx2 avx512f\nprocessor\t: 1\n", False),
    "AVX512-BF16": ("flags\t\t: fpu avx512f avx512_bf16\n", True),
    "AMX": ("model name\t: Xeon\nflags\t\t: fpu amx_tile amx_bf16\n", True),
    "ARM": ("Features\t: fp asimd bf16 i8mm\n", True),
    "an old ARM": ("Features\t: fp asimd\n", False),
    "none told": ("processor\t: 0\n", True),
}


@pytest.mark.parametrize(("text", "has_it"), FLAGS.values(), ids=FLAGS)
def test_a_processor_s_flags_say_whether_it_has_bfloat16(
    text: str, has_it: bool, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    file = tmp_path / "cpuinfo"
    monkeypatch.setattr(machine, "open", lambda path, **options: file.open(**options), raising=False)
    assert machine.cpu_has_bf16()  # there is no such file, and it is taken for granted
    file.write_text(text, "utf-8")
    assert machine.cpu_has_bf16() == has_it


GROUPS = {
    "version 2": (
        "0::/a/b\n",
        {
            "a/b/memory.max": "max\n", "a/b/memory.current": "500\n", "a/memory.max": "1000\n",
            "a/memory.current": "700\n", "a/memory.stat": "anon 400\ninactive_file 50\n",
        },
        350,
    ),
    "version 1": (
        "8:cpu:/x\n4:memory:/a\n0::/\n",
        {
            "memory/a/memory.limit_in_bytes": "2000\n", "memory/a/memory.usage_in_bytes": "600\n",
            "memory/a/memory.stat": "inactive_file 1\ntotal_inactive_file 100\n",
            "memory/memory.limit_in_bytes": "9000\n", "memory/memory.usage_in_bytes": "10\n",
        },
        1500,
    ),
    "a container that sees only its own": (
        "0::/../../elsewhere\n",
        {"memory.max": "800\n", "memory.current": "900\n"},
        0,
    ),
    "no limit": ("0::/a\n", {"a/memory.max": "max\n", "a/memory.current": "5\n"}, 5000),
    "no groups": ("", {}, 5000),
}  # fmt: skip


@pytest.mark.parametrize(("membership", "files", "expected"), GROUPS.values(), ids=GROUPS)
def test_a_container_s_limit_counts(
    membership: str, files: dict[str, str], expected: int, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "cgroup").write_text(membership, "utf-8")
    for name, content in files.items():
        (tmp_path / "root" / name).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / "root" / name).write_text(content, "utf-8")
    groups = machine._control_groups(tmp_path / "cgroup", tmp_path / "root")
    monkeypatch.setattr(machine, "_control_groups", lambda: groups)
    monkeypatch.setattr(machine, "_meminfo", lambda: 5000)
    assert machine.available_memory() == expected


def test_the_system_s_free_memory(tmp_path: Path) -> None:
    (tmp_path / "meminfo").write_text("MemTotal: 9 kB\nMemFree: 2 kB\nMemAvailable:       3 kB\n", "utf-8")
    assert machine._meminfo(tmp_path / "meminfo") == 3072
    assert machine._meminfo(tmp_path / "absent") is None


def test_a_process_start_is_its_own_and_one_that_is_over_has_none() -> None:
    child = subprocess.Popen(["sleep", "60"])
    start, own = machine.process_start(child.pid), machine.process_start(os.getpid())
    assert start is not None and own is not None and start >= own
    child.kill()
    os.waitid(os.P_PID, child.pid, os.WEXITED | os.WNOWAIT)  # it is over, and nobody has waited for it
    assert machine.process_start(child.pid) is None
    child.wait()
    assert machine.process_start(child.pid) is None
