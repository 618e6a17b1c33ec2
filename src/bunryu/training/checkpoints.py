"""Checkpoints: written so that a crash leaves a whole one, read without running code in them."""

from __future__ import annotations

import logging
import os
import shutil
from collections.abc import Mapping
from pathlib import Path
from typing import Annotated, Any

import torch
from annotated_types import Interval

from bunryu.errors import ModelError
from bunryu.models.weights import load_checkpoint
from bunryu.runs.run import BEST
from bunryu.system.files import disk_errors_at, sha256, synchronise, write_atomically
from bunryu.system.records import check_kind, mapping

log = logging.getLogger(__name__)

LAST, PREVIOUS = "last.ckpt", "previous.ckpt"
SIZE = Annotated[int, Interval(ge=0)]
OWN_PARTS = mapping(bunryu=mapping(steps=SIZE, batches_seen=SIZE), metrics_bytes=SIZE)


def write_checkpoint(checkpoint: Mapping[str, Any], path: Path) -> None:
    """Write a checkpoint with its checksum beside it; the last one becomes the previous one.

    At every moment the folder holds a whole checkpoint whose checksum is known: while the file is replaced,
    the file beside it lists the checksums of the new content and of the old.
    If the disk is full, what was there is untouched.
    """
    path.parent.mkdir(parents=True, exist_ok=True)
    staged = path.with_name(f".{path.name}-new")
    try:
        with disk_errors_at(path), open(staged, "wb") as file:
            torch.save(checkpoint, file)
            file.flush()
            os.fsync(file.fileno())
    except Exception:
        staged.unlink(missing_ok=True)
        raise
    if path.name == LAST and path.exists():
        _write_checksums(path.with_name(PREVIOUS), _checksums(path))
        os.replace(path, path.with_name(PREVIOUS))
    _write_checksums(path, [sha256(staged)])
    os.replace(staged, path)
    synchronise(path.parent)


def link_checkpoint(path: Path, name: Path) -> None:
    """Give a checkpoint a second name in its folder, with its checksum."""
    remove_checkpoint(name)
    _write_checksums(name, _checksums(path))
    try:
        name.hardlink_to(path)
    except OSError:  # a file system without links
        shutil.copyfile(path, name)


def remove_checkpoint(path: Path) -> None:
    path.unlink(missing_ok=True)
    _beside(path).unlink(missing_ok=True)


def newest_checkpoint(folder: Path) -> Path | None:
    """``last.ckpt``, or ``previous.ckpt`` where the last is missing or damaged, or None.

    A damaged one is renamed, with a warning.
    """
    for name in (LAST, PREVIOUS):
        path = folder / name
        if not path.is_file():
            continue
        if sha256(path) in _checksums(path):
            return path
        aside = path.with_name(f"{name}.damaged")
        os.replace(path, aside)
        log.warning("%s is damaged (its checksum does not fit): set aside as %s", name, aside.name)
    return None


def steps_of(path: Path) -> int:
    """Optimizer steps taken when a run's checkpoint was written; ModelError if it is damaged."""
    checkpoint = load_checkpoint(path)
    check_kind(path, checkpoint, OWN_PARTS)
    return int(checkpoint["bunryu"]["steps"])


def read_checkpoint(path: Path) -> dict[str, Any]:
    """A checkpoint, its tensors on the CPU; ModelError if it has a checksum that does not fit."""
    known = _checksums(path)
    if known and sha256(path) not in known:
        raise ModelError("the checkpoint is damaged: its checksum does not fit", where=str(path))
    return dict(load_checkpoint(path, mapped=False))


def keep_checkpoints(folder: Path, which: str) -> None:
    """Remove all checkpoints but ``which``: ``all``, ``best`` or ``none``."""
    for path in sorted(folder.glob("*.ckpt")):
        if which == "none" or (which == "best" and path.name != BEST):
            remove_checkpoint(path)


def _beside(path: Path) -> Path:
    return path.with_name(f"{path.name}.sha256")


def _checksums(path: Path) -> list[str]:
    """The checksums the file may have: one, or two around the moment it was replaced."""
    beside = _beside(path)
    return beside.read_text("ascii").split() if beside.is_file() else []


def _write_checksums(path: Path, checksums: list[str]) -> None:
    """Write the checksums that a file is about to have, and that of the file there now."""
    there = [sha256(path)] if path.exists() else []
    write_atomically(_beside(path), "".join(f"{checksum}\n" for checksum in [*checksums, *there]))
