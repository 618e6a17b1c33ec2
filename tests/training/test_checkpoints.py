"""Checkpoints are whole or not there at all."""

from __future__ import annotations

import errno
import os
import re
import resource
import stat
from pathlib import Path
from typing import Any

import pytest
import torch

from bunryu.errors import ModelError
from bunryu.system.files import bunryu_error_of, sha256
from bunryu.training.checkpoints import (
    keep_checkpoints,
    link_checkpoint,
    newest_checkpoint,
    read_checkpoint,
    write_checkpoint,
)
from helpers.refusing import refused


def checkpoint(value: float, numbers: int = 1000) -> dict[str, Any]:
    return {"state_dict": {"model.x": torch.full((numbers,), value)}}


def value_in(path: Path) -> float:
    return float(read_checkpoint(path)["state_dict"]["model.x"][0])


def test_what_takes_a_name_is_on_the_disk_before_and_its_name_right_after(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    synchronised: set[tuple[int, int]] = set()  # inode and size
    order: list[str] = []
    fsync, replace = os.fsync, os.replace

    def seen_fsync(descriptor: int) -> None:
        state = os.fstat(descriptor)
        synchronised.add((state.st_ino, state.st_size))
        if stat.S_ISDIR(state.st_mode):
            order.append("folder")
        fsync(descriptor)

    def seen_replace(source: Path, target: Path) -> None:
        state = os.stat(source)
        assert Path(source).parent == Path(target).parent  # across file systems it would be a copy
        assert (state.st_ino, state.st_size) in synchronised, f"{target.name} may be lost in a power cut"
        order.append(target.name)
        replace(source, target)

    monkeypatch.setattr(os, "fsync", seen_fsync)
    monkeypatch.setattr(os, "replace", seen_replace)
    for value in (1.0, 2.0):
        write_checkpoint(checkpoint(value), tmp_path / "last.ckpt")
    assert order[:4] == ["last.ckpt.sha256", "folder", "last.ckpt", "folder"]
    # a checksum's name is on the disk before the checkpoint's follows
    assert order[4:] == ["previous.ckpt.sha256", "folder", "previous.ckpt", *order[:4]]


@pytest.mark.parametrize("name", ["last.ckpt", "best.ckpt"])
def test_at_every_moment_all_that_is_there_fits_its_checksum(
    name: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    moments: list[Path] = []
    replace = os.replace

    def watched(source: Path, target: Path) -> None:
        replace(source, target)
        for path in tmp_path.glob("*.ckpt"):
            assert sha256(path) in path.with_name(f"{path.name}.sha256").read_text("ascii").split()
        moments.append(target)

    monkeypatch.setattr(os, "replace", watched)
    for value in (1.0, 2.0, 3.0):
        write_checkpoint(checkpoint(value), tmp_path / name)
        assert newest_checkpoint(tmp_path) == (tmp_path / name if name == "last.ckpt" else None)
        assert value_in(tmp_path / name) == value
    assert len(moments) == (2 + 4 + 4 if name == "last.ckpt" else 2 + 2 + 2)


@pytest.mark.parametrize("limit", [0, 1, 5000, 100_000])
def test_a_disk_that_fills_up_within_a_checkpoint_is_named_and_the_old_one_kept(
    limit: int, tmp_path: Path
) -> None:
    path = tmp_path / "run/checkpoints/last.ckpt"
    write_checkpoint(checkpoint(1.0), path)
    before = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (limit, before[1]))
    try:
        told = bunryu_error_of(refused(OSError, write_checkpoint, checkpoint(2.0, 100_000), path))
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, before)
    assert told is not None
    words = r"the disk is full \([0-9,]+ bytes are free\): File too large"
    assert re.fullmatch(words, told.what)
    assert told.where == str(path)
    with pytest.raises(AttributeError, match="pickle"):  # what cannot be written is no full disk
        write_checkpoint({"x": lambda: None}, path)
    assert sorted(file.name for file in path.parent.iterdir()) == ["last.ckpt", "last.ckpt.sha256"]
    assert value_in(path) == 1.0


def test_one_changed_bit_is_refused_by_the_checksum(tmp_path: Path) -> None:
    path = tmp_path / "best.ckpt"
    write_checkpoint(checkpoint(1.0), path)
    content = bytearray(path.read_bytes())
    content[len(content) // 2] ^= 1
    path.write_bytes(content)
    with pytest.raises(ModelError) as caught:
        read_checkpoint(path)
    assert caught.value.what == "the checkpoint is damaged: its checksum does not fit"
    assert caught.value.where == str(path)


@pytest.mark.parametrize("links", [True, False])
def test_a_second_name_is_moved_on_and_what_it_named_before_stays(
    links: bool, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def cannot(*_: object) -> None:
        raise OSError(errno.EPERM, "no links here")

    if not links:
        monkeypatch.setattr(Path, "hardlink_to", cannot)
    first, second, best = (tmp_path / name for name in ("best-1.ckpt", "best-2.ckpt", "best.ckpt"))
    write_checkpoint(checkpoint(1.0), first)
    write_checkpoint(checkpoint(2.0), second)
    for path, value in ((first, 1.0), (second, 2.0), (second, 2.0)):
        link_checkpoint(path, best)
        assert value_in(best) == value
    assert (value_in(first), value_in(second)) == (1.0, 2.0)


def test_a_finished_run_keeps_the_checkpoints_it_is_to_keep(tmp_path: Path) -> None:
    for name in ("best.ckpt", "last.ckpt"):
        write_checkpoint(checkpoint(1.0), tmp_path / name)
    for which, kept in (("all", ["best.ckpt", "last.ckpt"]), ("best", ["best.ckpt"]), ("none", [])):
        keep_checkpoints(tmp_path, which)
        there = sorted(path.name for path in tmp_path.iterdir())
        assert there == sorted([*kept, *(f"{name}.sha256" for name in kept)])
