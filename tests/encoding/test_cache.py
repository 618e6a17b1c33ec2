"""The cache of encodings: whole or not there, whatever damages it and whoever else builds it."""

from __future__ import annotations

import logging
import os
import random
import signal
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from bunryu.encoding import cache

ARRAYS = np.arange(50_000, dtype=np.uint16), np.array([0, 50_000])


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """Where a cache may be."""
    return tmp_path / "encodings" / "one"


def is_whole(folder: Path) -> bool:
    """Whether there is a cache; what there is must be the arrays."""
    arrays = cache.load_arrays(folder)
    if arrays is not None:
        assert all(np.array_equal(ours, stored) for ours, stored in zip(ARRAYS, arrays, strict=True))
    return arrays is not None


@pytest.mark.parametrize("name", ["ids.npy", "offsets.npy", "checksums.json"])
def test_damage_is_noticed_and_said(folder: Path, name: str, caplog: pytest.LogCaptureFixture) -> None:
    cache.store_arrays(folder, *ARRAYS)
    path = folder / name
    whole = path.read_bytes()
    cut = [whole[:size] for size in random.Random(1).sample(range(len(whole)), 10)]
    zeroed = [half.ljust(len(whole), b"\0") for half in cut]  # as a power cut may leave it: the right length
    flipped = whole[:-3] + bytes([whole[-3] ^ 1]) + whole[-2:]
    for damaged in (each for each in [None, flipped, b"[]", *cut, *zeroed] if each != whole):
        if damaged is None:
            path.unlink()
        else:
            path.write_bytes(damaged)
        caplog.clear()
        assert not is_whole(folder)
        assert [record.levelname for record in caplog.records] == ["WARNING"]
        assert "the cache one is damaged" in caplog.text
        cache.store_arrays(folder, *ARRAYS)
        assert path.read_bytes() == whole
    assert [path.name for path in folder.parent.iterdir()] == ["one"]


def test_what_was_read_stays_when_its_file_is_cut_off_or_written_over(folder: Path) -> None:
    cache.store_arrays(folder, *ARRAYS)
    arrays = cache.load_arrays(folder)
    assert arrays is not None
    for name in cache.ARRAYS:
        for content in (b"\0" * (folder / name).stat().st_size, b""):  # a map of the latter would be a SIGBUS
            with open(folder / name, "r+b") as file:
                file.write(content)
                file.truncate(len(content))
    assert all(np.array_equal(ours, read) for ours, read in zip(ARRAYS, arrays, strict=True))


def test_a_cache_that_cannot_be_written_only_warns(
    folder: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    folder.parent.write_text("in the way")  # root may write anywhere, so no permission bits here
    cache.store_arrays(folder, *ARRAYS)
    assert [record.levelno for record in caplog.records] == [logging.WARNING]
    assert "the encoding is not cached" in caplog.text
    folder.parent.unlink()

    def full(path: Path, array: Any) -> None:
        path.write_bytes(b"half")
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(np, "save", full)
    cache.store_arrays(folder, *ARRAYS)
    assert "No space left on device" in caplog.text
    assert list(folder.parent.iterdir()) == []


def test_what_killed_builders_left_is_removed_after_a_day(folder: Path) -> None:
    for name, hours in {".building-old": 25, ".building-new": 23, "another": 1000}.items():
        (folder.parent / name / "new").mkdir(parents=True)
        (folder.parent / name / "new/ids.npy").write_bytes(b"half")
        os.utime(folder.parent / name, (time.time() - hours * 3600,) * 2)
    cache.store_arrays(folder, *ARRAYS)
    assert {path.name for path in folder.parent.iterdir()} == {".building-new", "another", "one"}


BUILDER = """
import os, signal, sys, time
from pathlib import Path
import numpy as np
from bunryu.encoding import cache

folder, killed_at = Path(sys.argv[1]), sys.argv[2]
ids = np.arange(50_000, dtype=np.uint16)

def die(*given):
    os.kill(os.getpid(), signal.SIGKILL)

def half(path, array):
    path.write_bytes(array.tobytes()[: array.nbytes // 2])
    print("half written", flush=True)
    time.sleep(60)

if killed_at == "ids half written":
    np.save = half
elif killed_at == "checksums":
    cache.sha256 = die
elif killed_at == "rename":
    os.rename = die
print("ready", flush=True)
sys.stdin.readline()
for _ in range(10):
    cache.store_arrays(folder, ids, np.array([0, 50_000]))
    arrays = cache.load_arrays(folder)
    assert arrays is None or (arrays[0].tolist() == ids.tolist() and arrays[1].tolist() == [0, 50_000])
"""


def build(folder: Path, *killed_at: str) -> list[subprocess.Popen[str]]:
    """Processes that build one cache at once, each killed at a point ("" for never)."""
    pipes: dict[str, Any] = {"stdin": subprocess.PIPE, "stdout": subprocess.PIPE, "stderr": subprocess.PIPE}
    command = [sys.executable, "-c", BUILDER, str(folder)]
    children = [subprocess.Popen([*command, point], text=True, **pipes) for point in killed_at]
    for child in children:
        assert child.stdout is not None
        assert child.stdout.readline() == "ready\n"
    for child in children:
        assert child.stdin is not None
        child.stdin.write("go\n")
        child.stdin.flush()
    return children


def test_four_processes_build_one_cache_and_one_is_killed(folder: Path) -> None:
    victim, *others = build(folder, "ids half written", "", "", "")
    assert victim.stdout is not None
    assert victim.stdout.readline() == "half written\n"
    victim.kill()
    victim.communicate(timeout=60)
    for child in others:
        _, errors = child.communicate(timeout=60)
        assert child.returncode == 0, errors
    (left,) = [path for path in folder.parent.iterdir() if path.name != "one"]
    assert left.name.startswith(".building-")
    assert (left / "new/ids.npy").stat().st_size == 50_000  # the half of it, which is in nobody's way
    assert is_whole(folder)


@pytest.mark.parametrize("point", ["checksums", "rename"])
@pytest.mark.parametrize("there", [False, True], ids=["nothing there", "a cache there"])
def test_a_builder_killed_at_any_point_leaves_a_whole_cache_or_none(
    folder: Path, point: str, there: bool
) -> None:
    if there:
        cache.store_arrays(folder, *ARRAYS)
    (child,) = build(folder, point)
    child.communicate(timeout=60)
    assert child.returncode == -signal.SIGKILL
    # between the old one's leaving and the new one's coming there is none, which is no harm
    assert is_whole(folder) == (there and point == "checksums")
    cache.store_arrays(folder, *ARRAYS)
    assert is_whole(folder)
