"""Folders that appear whole or not at all."""

from __future__ import annotations

import secrets
import shutil
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path


@contextmanager
def replacing(folder: Path) -> Iterator[Path]:
    """A new folder to write in, which becomes ``folder`` at the end, or is removed if an error comes first.

    Args:
        folder: what it becomes; a folder that is there is replaced, one it stands in is made.
    """
    folder = folder.resolve()
    parent_is_new = not folder.parent.exists()
    folder.parent.mkdir(parents=True, exist_ok=True)
    staging = folder.with_name(f".{folder.name}-{secrets.token_hex(4)}")
    former = staging.with_name(f"{staging.name}-former")
    staging.mkdir()
    try:
        yield staging
        if folder.exists():
            folder.rename(former)
        staging.rename(folder)
    except BaseException:
        shutil.rmtree(staging, ignore_errors=True)
        if parent_is_new:
            with suppress(OSError):
                folder.parent.rmdir()
        raise
    shutil.rmtree(former, ignore_errors=True)
