"""Where encodings and vocabularies are kept between runs: named by content, checksummed, mapped."""

from __future__ import annotations

import hashlib
import json
import logging
import os
import tempfile
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from bunryu.errors import DataError
from bunryu.system.files import remove_abandoned, sha256

log = logging.getLogger(__name__)

Ids = npt.NDArray[np.integer[Any]]


def hash_texts(texts: Sequence[str]) -> bytes:
    """A hash of every text and of where each ends; part of the caches' keys.

    Raises:
        DataError: if a text holds half a surrogate pair (JSON can), which no tokenizer takes.
    """
    lengths = np.fromiter(map(len, texts), dtype=np.int64, count=len(texts))
    try:
        joined = "".join(texts).encode("utf-8")
    except UnicodeEncodeError as error:
        number = int(np.searchsorted(np.cumsum(lengths), error.start, side="right"))
        raise DataError(
            f"a document holds half a surrogate pair: {texts[number][:40]!a}",
            where=f"document {number + 1} of its split",
            fix="remove it, or write the whole character",
        ) from None
    return hashlib.sha256(lengths.tobytes() + joined).digest()


def load_arrays(folder: Path) -> tuple[Ids, npt.NDArray[np.int64]] | None:
    """Map a cache; None if it is not there or its content is not what its checksums say."""
    if not os.path.isdir(folder):
        return None
    try:
        sums = json.loads((folder / "checksums.json").read_text("utf-8"))
        if any(sha256(folder / name) != sums[name] for name in ("ids.npy", "offsets.npy")):
            raise ValueError("its checksums do not fit")
        return _map(folder / "ids.npy"), _map(folder / "offsets.npy")
    except (OSError, ValueError, KeyError) as error:
        log.warning("the cache %s is damaged (%s) and is built again", folder.name, error)
        return None


def _map(path: Path) -> Any:
    return np.load(path, mmap_mode="r", allow_pickle=False)


def store_arrays(folder: Path, ids: Ids, offsets: npt.NDArray[np.int64]) -> None:
    """Write a cache beside its place and rename it there, so that no half of it is ever seen."""
    try:
        folder.parent.mkdir(parents=True, exist_ok=True)
        remove_abandoned(folder.parent, ".building-")
        with tempfile.TemporaryDirectory(prefix=".building-", dir=folder.parent) as staging:
            new = Path(staging, "new")
            new.mkdir()
            np.save(new / "ids.npy", ids)
            np.save(new / "offsets.npy", offsets)
            sums = {name: sha256(new / name) for name in ("ids.npy", "offsets.npy")}
            (new / "checksums.json").write_text(json.dumps(sums), "utf-8")
            if folder.exists():
                os.replace(folder, Path(staging, "old"))
            os.rename(new, folder)
    except OSError as error:
        if not os.path.isdir(folder):  # else another process was faster with the same content
            log.warning("the encoding is not cached: %s", error)
