"""Documents to token ids: encoded once and untruncated into flat arrays, truncated where they are read."""

from __future__ import annotations

import hashlib
from collections.abc import Sequence
from dataclasses import dataclass
from itertools import chain, pairwise
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
from tqdm import tqdm

from bunryu.data.cleaner import Cleaner
from bunryu.encoding.cache import Ids, hash_texts, load_arrays, store_arrays

VERSION = 1  # of the arrays' layout and of how they are made; part of every cache key
CHUNK = 8192  # documents handed to the tokenizer at once: bounds the memory its results take


@dataclass(frozen=True)
class Template:
    """The special tokens a tokenizer puts around one text or a pair, and the token types it gives.

    ``single`` is (before, after); ``pair`` is (before, between, after). ``types`` holds the token type of
    each part in the order before, first text, between, second text, after; a tokenizer that gives no
    token types has ``has_types`` False. ``keeps_end``: truncation takes tokens from a text's beginning.
    """

    single: tuple[list[int], list[int]]
    pair: tuple[list[int], list[int], list[int]]
    single_types: tuple[list[int], int, list[int]]
    pair_types: tuple[list[int], int, list[int], int, list[int]]
    has_types: bool
    keeps_end: bool = False

    @classmethod
    def of(cls, tokenizer: Any) -> Template:
        """Read the template off what the tokenizer does with a probe."""
        backend = untruncating(tokenizer)
        probe = next(t for t in ("가", "a", "1", ".") if backend.encode(t, add_special_tokens=False).ids)
        one, two = _parts(backend.encode(probe)), _parts(backend.encode(probe, probe))
        return cls(
            (one[0][0], one[2][0]),
            (two[0][0], two[2][0], two[4][0]),
            (one[0][1], one[1][1][0], one[2][1]),
            (two[0][1], two[1][1][0], two[2][1], two[3][1][0], two[4][1]),
            "token_type_ids" in tokenizer.model_input_names,
            tokenizer.truncation_side == "left",
        )


def untruncating(tokenizer: Any) -> Any:
    """A copy of the Rust tokenizer without the truncation and padding that somebody may have set."""
    backend = type(tokenizer.backend_tokenizer).from_str(tokenizer.backend_tokenizer.to_str())
    backend.no_truncation()
    backend.no_padding()
    return backend


def _parts(encoding: Any) -> list[tuple[list[int], list[int]]]:
    """(ids, types) of what stands before, in and after each text: three parts, or five for a pair."""
    texts = encoding.sequence_ids
    cuts = [0]
    for text in range(encoding.n_sequences):
        start = texts.index(text)
        cuts += [start, start + texts.count(text)]
    cuts.append(len(texts))
    return [(encoding.ids[a:b], encoding.type_ids[a:b]) for a, b in pairwise(cuts)]


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

    def share_of(self, token: int | None) -> float:
        """The share of one token, such as the unknown one, among all that documents were split into."""
        parts = [self.ids] if self.pair_ids is None else [self.ids, self.pair_ids]
        return sum(int((part == token).sum()) for part in parts) / max(sum(map(len, parts)), 1)

    def _kept(
        self, index: npt.NDArray[np.int64], max_length: int
    ) -> tuple[npt.NDArray[np.int64], npt.NDArray[np.int64]]:
        first = self.offsets[index + 1] - self.offsets[index]
        if self.pair_offsets is None:
            return np.minimum(first, _room(max_length, self.template.single)), np.zeros_like(first)
        second = self.pair_offsets[index + 1] - self.pair_offsets[index]
        return longest_first(first, second, _room(max_length, self.template.pair))

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
                begin = offsets[index + 1] - counts if self.template.keeps_end else offsets[index]
                ids[row, column] = flat[np.repeat(begin, counts) + within]
                types[row, column] = kinds[2 * turn + 1]
                at += counts
        batch = {"input_ids": ids, "attention_mask": (np.arange(width) < at[:, None]).astype(np.int64)}
        return {**batch, "token_type_ids": types} if self.template.has_types else batch


def _room(max_length: int, specials: Sequence[Sequence[int]]) -> int:
    room = max_length - sum(map(len, specials))
    assert room >= 0, f"{max_length} tokens do not hold the special tokens"
    return room


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
    short = np.minimum(first, second)
    long_kept = np.where(short > room, short, np.maximum(short, room - short))
    halve = short + long_kept > room
    short_kept = np.where(halve, room // 2, short)
    long_kept = np.where(halve, room // 2 + room % 2, long_kept)
    swap = first > second
    kept_first = np.minimum(first, np.where(swap, long_kept, short_kept))
    kept_second = np.minimum(second, np.where(swap, short_kept, long_kept))
    fits = first + second <= room
    return np.where(fits, first, kept_first), np.where(fits, second, kept_second)


def smallest_dtype(backend: Any) -> type[np.integer[Any]]:
    """The smallest integers that hold every id of a Rust tokenizer."""
    highest = max(backend.get_vocab().values(), default=0)
    return np.uint16 if highest <= np.iinfo(np.uint16).max else np.int32


def tokenize(
    backend: Any, cleaner: Cleaner, texts: Sequence[str], dtype: type[np.integer[Any]]
) -> tuple[Ids, npt.NDArray[np.int64]]:
    """Clean and tokenize texts, untruncated and without special tokens.

    Args:
        backend: what ``untruncating`` gave.
        cleaner: applied to every text first.
        texts: the documents.
        dtype: of the ids.

    Returns:
        The ids of all texts one after another, and offsets of shape (texts + 1,).
    """
    encoded = backend.encode_batch_fast([cleaner(text) for text in texts], add_special_tokens=False)
    ids = [encoding.ids for encoding in encoded]
    offsets = np.zeros(len(ids) + 1, dtype=np.int64)
    np.cumsum(np.fromiter(map(len, ids), dtype=np.int64, count=len(ids)), out=offsets[1:])
    return np.fromiter(chain.from_iterable(ids), dtype=dtype, count=int(offsets[-1])), offsets


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
        self._backend = untruncating(tokenizer)
        self._dtype = smallest_dtype(self._backend)

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
        digest.update(hash_texts(texts))
        return digest.hexdigest()[:32]

    def _flat(self, texts: Sequence[str]) -> tuple[Ids, npt.NDArray[np.int64], bool]:
        folder = self._cache / self.key(texts)
        if not self._overwrite and (arrays := load_arrays(folder)) is not None:
            return *arrays, True
        ids, offsets = self._tokenize(texts)
        store_arrays(folder, ids, offsets)
        return ids, offsets, False

    def _tokenize(self, texts: Sequence[str]) -> tuple[Ids, npt.NDArray[np.int64]]:
        parts: list[Ids] = [np.zeros(0, dtype=self._dtype)]
        offsets = [np.zeros(1, dtype=np.int64)]
        bar = tqdm(total=len(texts), desc="encoding", unit=" rows", disable=None, leave=False)
        for start in range(0, len(texts), CHUNK):
            chunk = texts[start : start + CHUNK]
            ids, within = tokenize(self._backend, self._cleaner, chunk, self._dtype)
            parts.append(ids)
            offsets.append(within[1:] + offsets[-1][-1])
            bar.update(len(chunk))
        bar.close()
        return np.concatenate(parts), np.concatenate(offsets)
