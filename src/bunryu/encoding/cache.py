"""The cache of encodings: folders named by a hash of their content, with checksums, read whole."""

from __future__ import annotations

import hashlib
import json
import logging
import os
import tempfile
from collections.abc import Sequence
from io import BytesIO
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from bunryu.errors import DataError
from bunryu.system.files import remove_abandoned, sha256

log = logging.getLogger(__name__)

ARRAYS = ("ids.npy", "offsets.npy")

Ids = npt.NDArray[np.integer[Any]]
Index = npt.NDArray[np.int64]


def hash_texts(texts: Sequence[str]) -> bytes:
    """A hash of every text and of where each ends; part of the names in the cache.

    Raises:
        DataError: if a text holds half a surrogate pair (JSON can), which no tokenizer takes.
    """
    lengths = np.fromiter(map(len, texts), dtype=np.int64, count=len(texts))
    try:
        joined = "".join(texts).encode("utf-8")
    except UnicodeEncodeError as error:
        number = int(np.searchsorted(np.cumsum(lengths), error.start, side="right"))
        what = f"a document holds half a surrogate pair: {texts[number][:40]!a}"
        where = f"document {number + 1} of its split"
        raise DataError(what, where=where, fix="remove it, or write the whole character") from None
    return hashlib.sha256(lengths.tobytes() + joined).digest()


def load_arrays(folder: Path) -> tuple[Ids, Index] | None:
    """The arrays of a folder; None if it is not there or its checksums do not fit."""
    if not os.path.isdir(folder):
        return None
    try:
        sums = json.loads((folder / "checksums.json").read_text("utf-8"))
        # not mapped: a file that is cut off or written over later would end the process or be trained on
        files = {name: (folder / name).read_bytes() for name in ARRAYS}
        if any(hashlib.sha256(content).hexdigest() != sums[name] for name, content in files.items()):
            raise ValueError("its checksums do not fit")
        ids, offsets = (np.load(BytesIO(content), allow_pickle=False) for content in files.values())
        return ids, offsets
    except (OSError, ValueError, KeyError, TypeError) as error:
        log.warning("the cache %s is damaged (%s) and is built again", folder.name, error)
        return None


def store_arrays(folder: Path, ids: Ids, offsets: Index) -> None:
    """Write the arrays to another folder and rename that, so that nobody ever sees a part of them."""
    try:
        folder.parent.mkdir(parents=True, exist_ok=True)
        remove_abandoned(folder.parent, ".building-")
        with tempfile.TemporaryDirectory(prefix=".building-", dir=folder.parent) as staging:
            new = Path(staging, "new")
            new.mkdir()
            for name, array in zip(ARRAYS, (ids, offsets), strict=True):
                np.save(new / name, array)
            sums = {name: sha256(new / name) for name in ARRAYS}
            (new / "checksums.json").write_text(json.dumps(sums), "utf-8")
            if folder.exists():
                os.replace(folder, Path(staging, "old"))
            os.rename(new, folder)
    except OSError as error:
        if not os.path.isdir(folder):  # else another process was faster with the same content
            log.warning("the encoding is not cached: %s", error)
