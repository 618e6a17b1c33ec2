"""Documents to token ids: encoded once and untruncated into flat arrays, truncated where they are read."""

from __future__ import annotations

import hashlib
import json
import logging
import os
import shutil
import tempfile
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
from tqdm import tqdm

from bunryu.text import Cleaner

log = logging.getLogger(__name__)

VERSION = 1  # of the arrays' layout and of how they are made; part of every cache key
CHUNK = 8192  # documents handed to the tokenizer at once: bounds the memory its results take

Ids = npt.NDArray[np.integer[Any]]


def cache_folder(cache_dir: str | None) -> Path:
    """The folder of all caches: the one given, or bunryu's in the XDG cache directory."""
    if cache_dir is not None:
        return Path(cache_dir).expanduser()
    return Path(os.environ.get("XDG_CACHE_HOME") or "~/.cache").expanduser() / "bunryu"


@dataclass(frozen=True)
class Template:
    """The special tokens a tokenizer puts around one text or a pair, and the token types it gives.

    ``single`` is (before, after); ``pair`` is (before, between, after). ``types`` holds the token type of
    each part in the order before, first text, between, second text, after; a tokenizer that gives no
    token types has ``has_types`` False.
    """

    single: tuple[list[int], list[int]]
    pair: tuple[list[int], list[int], list[int]]
    single_types: tuple[list[int], int, list[int]]
    pair_types: tuple[list[int], int, list[int], int, list[int]]
    has_types: bool

    @classmethod
    def of(cls, tokenizer: Any) -> Template:
        """Read the template off what the tokenizer does with a probe."""
        backend = tokenizer.backend_tokenizer
        probe = next(t for t in ("가", "a", "1", ".") if backend.encode(t, add_special_tokens=False).ids)
        one, two = backend.encode(probe), backend.encode(probe, probe)
        (a0, t0), (_, u0), (a1, t1) = _parts(one, 3)
        (b0, v0), (_, w0), (b1, v1), (_, w1), (b2, v2) = _parts(two, 5)
        return cls(
            (a0, a1),
            (b0, b1, b2),
            (t0, u0[0], t1),
            (v0, w0[0], v1, w1[0], v2),
            "token_type_ids" in tokenizer.model_input_names,
        )


def _parts(encoding: Any, expected: int) -> list[tuple[list[int], list[int]]]:
    """Runs of special and ordinary tokens, in turn, as (ids, types); starts and ends with specials."""
    parts: list[tuple[list[int], list[int]]] = [([], [])]
    special = 1
    for token, kind, mask in zip(
        encoding.ids, encoding.type_ids, encoding.special_tokens_mask, strict=True
    ):
        if mask != special:
            parts.append(([], []))
            special = mask
        parts[-1][0].append(token)
        parts[-1][1].append(kind)
    if len(parts) != expected:
        parts.append(([], []))
    assert len(parts) == expected, "a tokenizer whose special tokens do not surround the text"
    return parts


@dataclass(frozen=True)
class Encoded:
    """A split as flat arrays; row i's first text is ``ids[offsets[i]:offsets[i + 1]]``, untruncated.

    Args:
        ids: token ids of all first texts, without special tokens.
        offsets: shape (rows + 1,).
        pair_ids: the same for second texts; None if the corpus has none.
        pair_offsets: shape (rows + 1,), or None.
        labels: shape (rows,), class ids.
        rows: shape (rows,), each example's row in its file.
        template: the special tokens to put around them.
    """

    ids: Ids
    offsets: npt.NDArray[np.int64]
    pair_ids: Ids | None
    pair_offsets: npt.NDArray[np.int64] | None
    labels: npt.NDArray[np.int64]
    rows: npt.NDArray[np.int64]
    template: Template

    def __len__(self) -> int:
        return len(self.labels)

    def lengths(self, max_length: int) -> npt.NDArray[np.int64]:
        """Tokens of each row after truncation, special tokens counted, shape (rows,)."""
        first, second = self._kept(np.arange(len(self)), max_length)
        parts = self.template.single if self.pair_ids is None else self.template.pair
        return first + second + sum(map(len, parts))

    def truncated(self, max_length: int) -> int:
        """How many rows lose tokens at this length."""
        return int((self.lengths(max_length) < self.lengths(np.iinfo(np.int32).max)).sum())

    def _kept(
        self, index: npt.NDArray[np.int64], max_length: int
    ) -> tuple[npt.NDArray[np.int64], npt.NDArray[np.int64]]:
        first = self.offsets[index + 1] - self.offsets[index]
        if self.pair_offsets is None:
            room = max_length - sum(map(len, self.template.single))
            return np.minimum(first, room), np.zeros_like(first)
        second = self.pair_offsets[index + 1] - self.pair_offsets[index]
        return longest_first(first, second, max_length - sum(map(len, self.template.pair)))

    def batch(
        self, index: npt.NDArray[np.int64], max_length: int, width: int, pad_id: int
    ) -> dict[str, npt.NDArray[np.int64]]:
        """Padded arrays of shape (len(index), width), truncated as the tokenizer itself would.

        Args:
            index: which rows.
            max_length: tokens a row may have, special tokens counted.
            width: columns; at least the longest of the rows.
            pad_id: what fills up.
        """
        first, second = self._kept(index, max_length)
        shape = (len(index), width)
        ids = np.full(shape, pad_id, dtype=np.int64)
        types = np.zeros(shape, dtype=np.int64)
        if self.pair_ids is None or self.pair_offsets is None:
            before, after = self.template.single
            kinds: Sequence[list[int] | int] = self.template.single_types
            pieces: list[tuple[Any, Any, npt.NDArray[np.int64]]] = [(self.ids, self.offsets, first)]
            specials = [before, after]
        else:
            specials = list(self.template.pair)
            kinds = self.template.pair_types
            pieces = [(self.ids, self.offsets, first), (self.pair_ids, self.pair_offsets, second)]
        at = np.zeros(len(index), dtype=np.int64)
        every = np.arange(len(index))
        for turn, tokens in enumerate(specials):
            for token, kind in zip(tokens, kinds[2 * turn], strict=True):  # type: ignore[arg-type]
                ids[every, at] = token
                types[every, at] = kind
                at += 1
            if turn < len(pieces):
                flat, offsets, counts = pieces[turn]
                row = np.repeat(every, counts)
                within = np.arange(len(row)) - np.repeat(np.cumsum(counts) - counts, counts)
                column = np.repeat(at, counts) + within
                ids[row, column] = flat[np.repeat(offsets[index], counts) + within]
                types[row, column] = kinds[2 * turn + 1]
                at += counts
        batch = {"input_ids": ids, "attention_mask": (np.arange(width) < at[:, None]).astype(np.int64)}
        return {**batch, "token_type_ids": types} if self.template.has_types else batch


def longest_first(
    first: npt.NDArray[np.int64], second: npt.NDArray[np.int64], room: int
) -> tuple[npt.NDArray[np.int64], npt.NDArray[np.int64]]:
    """How many tokens of each text of a pair stay when tokens go from the longer one first.

    The arithmetic is that of the ``longest_first`` strategy of Hugging Face's ``tokenizers``.

    Args:
        first: tokens of each first text.
        second: tokens of each second text.
        room: tokens both may have together.
    """
    short, long = np.minimum(first, second), np.maximum(first, second)
    long_kept = np.where(short > room, short, np.maximum(short, room - short))
    halve = short + long_kept > room
    short_kept = np.where(halve, room // 2, short)
    long_kept = np.where(halve, room // 2 + room % 2, long_kept)
    swap = first > second
    kept_first = np.minimum(first, np.where(swap, long_kept, short_kept))
    kept_second = np.minimum(second, np.where(swap, short_kept, long_kept))
    fits = first + second <= room
    return np.where(fits, first, kept_first), np.where(fits, second, kept_second)


class Encoder:
    """A tokenizer and a cleaner, with the cache of what they have encoded.

    Args:
        tokenizer: a transformers tokenizer backed by the Rust library.
        cleaner: applied to every text first.
        cache: folder of caches, each under a key of its content.
        overwrite: encode even if a cache is there.
    """

    def __init__(self, tokenizer: Any, cleaner: Cleaner, cache: Path, *, overwrite: bool) -> None:
        self.tokenizer = tokenizer
        self.template = Template.of(tokenizer)
        self._cleaner = cleaner
        self._cache = cache / "encodings"
        self._overwrite = overwrite
        # A copy: truncation or padding that somebody set must not reach the untruncated arrays.
        self._backend = type(tokenizer.backend_tokenizer).from_str(tokenizer.backend_tokenizer.to_str())
        self._backend.no_truncation()
        self._backend.no_padding()

    def encode(
        self, texts: Sequence[str], pairs: Sequence[str] | None, labels: Sequence[int], rows: Sequence[int]
    ) -> tuple[Encoded, bool]:
        """Encode a split, or map its cache.

        Returns:
            The arrays, and whether they came from the cache.
        """
        ids, offsets, cached = self._flat(texts)
        pair_ids, pair_offsets = None, None
        if pairs is not None:
            pair_ids, pair_offsets, pair_cached = self._flat(pairs)
            cached = cached and pair_cached
        every = (np.asarray(labels, dtype=np.int64), np.asarray(rows, dtype=np.int64))
        return Encoded(ids, offsets, pair_ids, pair_offsets, *every, self.template), cached

    def key(self, texts: Sequence[str]) -> str:
        """The name of these texts' cache: a hash of texts, cleaner, tokenizer and version."""
        digest = hashlib.sha256(f"{VERSION}\0{self._cleaner}\0{self._backend.to_str()}\0".encode())
        digest.update(f"{len(texts)}\0".encode())
        joined = "\x1e".join(texts)
        digest.update(joined.encode("utf-8", "surrogatepass"))
        if joined.count("\x1e") != max(len(texts) - 1, 0):  # a text holds the separator itself
            digest.update(json.dumps([len(text) for text in texts]).encode())
        return digest.hexdigest()[:32]

    def _flat(self, texts: Sequence[str]) -> tuple[Ids, npt.NDArray[np.int64], bool]:
        folder = self._cache / self.key(texts)
        if not self._overwrite and (arrays := _load(folder)) is not None:
            return *arrays, True
        ids, offsets = self._tokenize(texts)
        _store(folder, ids, offsets)
        return ids, offsets, False

    def _tokenize(self, texts: Sequence[str]) -> tuple[Ids, npt.NDArray[np.int64]]:
        small = self._backend.get_vocab_size() <= np.iinfo(np.uint16).max
        parts: list[Ids] = []
        lengths = np.zeros(len(texts) + 1, dtype=np.int64)
        bar = tqdm(total=len(texts), desc="encoding", unit=" rows", disable=None, leave=False)
        for start in range(0, len(texts), CHUNK):
            cleaned = [self._cleaner(text) for text in texts[start : start + CHUNK]]
            encoded = [e.ids for e in self._backend.encode_batch_fast(cleaned, add_special_tokens=False)]
            lengths[start + 1 : start + 1 + len(encoded)] = [len(ids) for ids in encoded]
            flat = np.fromiter((token for ids in encoded for token in ids), dtype=np.int64)
            parts.append(flat.astype(np.uint16 if small else np.int32))
            bar.update(len(cleaned))
        bar.close()
        empty: Ids = np.zeros(0, dtype=np.uint16 if small else np.int32)
        return np.concatenate([empty, *parts]), np.cumsum(lengths)


def _load(folder: Path) -> tuple[Ids, npt.NDArray[np.int64]] | None:
    """Map a cache; None if it is not there or its content is not what its checksums say."""
    try:
        sums = json.loads((folder / "checksums.json").read_text("utf-8"))
        if any(_sha256(folder / name) != sums[name] for name in ("ids.npy", "offsets.npy")):
            log.warning("the cache %s is damaged and is built again", folder.name)
            return None
        return (
            np.load(folder / "ids.npy", mmap_mode="r", allow_pickle=False),
            np.load(folder / "offsets.npy", mmap_mode="r", allow_pickle=False),
        )
    except (OSError, ValueError, KeyError):
        return None


def _store(folder: Path, ids: Ids, offsets: npt.NDArray[np.int64]) -> None:
    """Write a cache beside its place and rename it there, so that no half of it is ever seen."""
    folder.parent.mkdir(parents=True, exist_ok=True)
    staging = Path(tempfile.mkdtemp(prefix=".building-", dir=folder.parent))
    try:
        np.save(staging / "ids.npy", ids)
        np.save(staging / "offsets.npy", offsets)
        sums = {name: _sha256(staging / name) for name in ("ids.npy", "offsets.npy")}
        (staging / "checksums.json").write_text(json.dumps(sums), "utf-8")
        if folder.exists():
            old = Path(tempfile.mkdtemp(prefix=".old-", dir=folder.parent))
            os.replace(folder, old / "cache")
            shutil.rmtree(old)
        os.rename(staging, folder)
    except OSError as error:
        if not folder.exists():  # else another process was faster with the same content
            log.warning("the encoding is not cached: %s", error)
    finally:
        shutil.rmtree(staging, ignore_errors=True)


def _sha256(path: Path) -> str:
    with open(path, "rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()
