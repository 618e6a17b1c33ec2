"""Documents to token ids: encoded once and untruncated into flat arrays, truncated where they are read."""

from __future__ import annotations

import hashlib
from collections.abc import Sequence
from dataclasses import dataclass
from itertools import chain, groupby
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
from tqdm import tqdm

from bunryu.data.cleaner import Cleaner
from bunryu.encoding.cache import Ids, Index, hash_texts, load_arrays, store_arrays

VERSION = 1  # of the arrays' layout and of how they are made; part of every cache key
CHUNK = 8192  # documents handed to the tokenizer at once: bounds the memory its results take
MANY_UNKNOWN = 0.2  # share of the unknown token that is warned of

Layout = list[tuple[int | None, int]]  # (special token, or None where the next text stands; its token type)


@dataclass(frozen=True)
class Template:
    """The special tokens that a tokenizer puts around one text (``single``) or two (``pair``).

    Args:
        has_types: whether the tokenizer gives token types.
        keeps_end: whether truncation removes a text's first tokens instead of its last.
    """

    single: Layout
    pair: Layout
    has_types: bool
    keeps_end: bool = False

    @classmethod
    def of(cls, tokenizer: Any) -> Template:
        """Read it off what the tokenizer makes of a text of one token or more."""
        backend = untruncating(tokenizer)
        text = next(t for t in ("가", "a", "1", ".") if backend.encode(t, add_special_tokens=False).ids)
        return cls(
            _layout_of(backend.encode(text)),
            _layout_of(backend.encode(text, text)),
            "token_type_ids" in tokenizer.model_input_names,
            tokenizer.truncation_side == "left",
        )


def _layout_of(encoding: Any) -> Layout:
    layout: Layout = []
    tokens = zip(encoding.sequence_ids, encoding.ids, encoding.type_ids, strict=True)
    for text, group in groupby(tokens, key=lambda token: token[0]):
        pieces = [(None if text is not None else token, token_type) for _, token, token_type in group]
        layout += pieces if text is None else pieces[:1]
    return layout


def untruncating(tokenizer: Any) -> Any:
    """A copy of the Rust tokenizer without truncation and padding."""
    backend = type(tokenizer.backend_tokenizer).from_str(tokenizer.backend_tokenizer.to_str())
    backend.no_truncation()
    backend.no_padding()
    return backend


@dataclass(frozen=True)
class Encoded:
    """A split as flat arrays; row i's first text is ``ids[offsets[i]:offsets[i + 1]]``, untruncated.

    ``ids`` has no special tokens; ``offsets`` has shape (rows + 1,). ``pair_ids`` and ``pair_offsets`` are
    the same for second texts, or None. ``labels`` (class ids) and ``rows`` (each example's row in its
    file) have shape (rows,).
    """

    ids: Ids
    offsets: Index
    pair_ids: Ids | None
    pair_offsets: Index | None
    labels: Index
    rows: Index
    template: Template

    def __len__(self) -> int:
        return len(self.labels)

    def lengths(self, max_length: int) -> Index:
        """Tokens of each row after truncation, special tokens counted, shape (rows,)."""
        lengths: Index = np.sum(self._kept(np.arange(len(self)), max_length), axis=0)
        return lengths + special_tokens(self._layout)

    def is_cut(self, max_length: int) -> npt.NDArray[np.bool_]:
        """Whether each row loses tokens at this length, shape (rows,)."""
        return self.lengths(max_length) < self.lengths(np.iinfo(np.int32).max)

    def count_of(self, token: int | None) -> Index:
        """How often one token, such as the unknown one, stands in the texts, and the number of all tokens."""
        found: Index = np.array([[int((ids == token).sum()), len(ids)] for ids, _ in self._texts]).sum(axis=0)
        return found

    def share_of(self, token: int | None) -> float:
        """The share of one token among all tokens of the texts."""
        found, tokens = self.count_of(token).tolist()
        return float(found / max(tokens, 1))

    @property
    def _layout(self) -> Layout:
        return self.template.single if self.pair_ids is None else self.template.pair

    @property
    def _texts(self) -> list[tuple[Ids, Index]]:
        """Ids and offsets of the first texts, and of the second ones if there are any."""
        first = [(self.ids, self.offsets)]
        if self.pair_ids is None or self.pair_offsets is None:
            return first
        return [*first, (self.pair_ids, self.pair_offsets)]

    def _kept(self, index: Index, max_length: int) -> list[Index]:
        """How many tokens truncation leaves of the first, and of the second text of each row."""
        room = max_length - special_tokens(self._layout)
        assert room >= 0, f"{max_length} tokens do not hold the special tokens"
        lengths = [offsets[index + 1] - offsets[index] for _, offsets in self._texts]
        if len(lengths) == 1:
            return [np.minimum(lengths[0], room)]
        return longest_first(lengths[0], lengths[1], room)

    def batch(self, index: Index, max_length: int, width: int, pad_id: int) -> dict[str, Index]:
        """Padded arrays of shape (len(index), width) of these rows, truncated as the tokenizer itself would.

        ``max_length`` counts the special tokens; ``width`` is at least the longest of the rows.
        """
        ids = np.full((len(index), width), pad_id, dtype=np.int64)
        types = np.zeros_like(ids)
        rows = np.arange(len(index))
        filled = np.zeros(len(index), dtype=np.int64)  # columns of each row
        texts = zip(self._texts, self._kept(index, max_length), strict=True)
        for token, token_type in self._layout:
            if token is not None:
                ids[rows, filled] = token
                types[rows, filled] = token_type
                filled += 1
                continue
            (flat, offsets), counts = next(texts)
            begin = offsets[index + 1] - counts if self.template.keeps_end else offsets[index]
            row = np.repeat(rows, counts)
            within = np.arange(len(row)) - np.repeat(np.cumsum(counts) - counts, counts)
            column = np.repeat(filled, counts) + within
            ids[row, column] = flat[np.repeat(begin, counts) + within]
            types[row, column] = token_type
            filled += counts
        batch = {"input_ids": ids, "attention_mask": (np.arange(width) < filled[:, None]).astype(np.int64)}
        return {**batch, "token_type_ids": types} if self.template.has_types else batch


def unknown_tokens_warning(counts: Index, whose: str = "the") -> list[str]:
    """A sentence if many tokens are the unknown one, as ``count_of`` counts them."""
    share = counts[0] / max(counts[1], 1)
    return [f"{share:.0%} of {whose} tokens are unknown to the vocabulary"] if share > MANY_UNKNOWN else []


def special_tokens(layout: Layout) -> int:
    return sum(token is not None for token, _ in layout)


def longest_first(first: Index, second: Index, room: int) -> list[Index]:
    """How many tokens of the first and second texts of pairs stay when the longer one is cut first.

    The arithmetic is that of the ``longest_first`` strategy of Hugging Face's ``tokenizers``: both texts
    together get ``room`` tokens.
    """
    short = np.minimum(first, second)
    long_kept = np.where(short > room, short, np.maximum(short, room - short))
    halve = short + long_kept > room
    short_kept = np.where(halve, room // 2, short)
    long_kept = np.where(halve, room // 2 + room % 2, long_kept)
    first_is_long, fits = first > second, first + second <= room
    return [
        np.where(fits, first, np.minimum(first, np.where(first_is_long, long_kept, short_kept))),
        np.where(fits, second, np.minimum(second, np.where(first_is_long, short_kept, long_kept))),
    ]


def smallest_dtype(backend: Any) -> type[np.integer[Any]]:
    """The smallest integer type that holds every id of a Rust tokenizer."""
    highest = max(backend.get_vocab().values(), default=0)
    return np.uint16 if highest <= np.iinfo(np.uint16).max else np.int32


def tokenize(
    backend: Any, cleaner: Cleaner, texts: Sequence[str], dtype: type[np.integer[Any]]
) -> tuple[Ids, Index]:
    """The ids of all texts one after another, cleaned, untruncated and without special tokens, and offsets.

    ``backend`` is what ``untruncating`` gave; the offsets have shape (texts + 1,).
    """
    encoded = backend.encode_batch_fast([cleaner(text) for text in texts], add_special_tokens=False)
    ids = [encoding.ids for encoding in encoded]
    offsets = np.cumsum([0, *map(len, ids)], dtype=np.int64)
    return np.fromiter(chain.from_iterable(ids), dtype=dtype, count=int(offsets[-1])), offsets


class Encoder:
    """Encodes texts with a tokenizer and a cleaner, once: the result is cached.

    Args:
        tokenizer: a transformers tokenizer backed by the Rust library.
        cache: the cache folder.
        overwrite: encode even if the texts are in the cache.
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
        """A split as arrays, and whether they came from the cache."""
        ids, offsets, cached = self._flat(texts)
        pair_ids, pair_offsets, pair_cached = (None, None, True) if pairs is None else self._flat(pairs)
        integers = (np.asarray(labels, dtype=np.int64), np.asarray(rows, dtype=np.int64))
        encoded = Encoded(ids, offsets, pair_ids, pair_offsets, *integers, self.template)
        return encoded, cached and pair_cached

    def key(self, texts: Sequence[str]) -> str:
        """The name of these texts in the cache: a hash of texts, cleaner, tokenizer and version."""
        digest = hashlib.sha256(f"{VERSION}\0{self._cleaner}\0{self._backend.to_str()}\0".encode())
        digest.update(hash_texts(texts))
        return digest.hexdigest()[:32]

    def _flat(self, texts: Sequence[str]) -> tuple[Ids, Index, bool]:
        folder = self._cache / self.key(texts)
        if not self._overwrite and (arrays := load_arrays(folder)) is not None:
            return *arrays, True
        ids, offsets = self._tokenize(texts)
        store_arrays(folder, ids, offsets)
        return ids, offsets, False

    def _tokenize(self, texts: Sequence[str]) -> tuple[Ids, Index]:
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
