"""A WordPiece vocabulary: learnt from documents, the same on every run, or read from a file."""

from __future__ import annotations

import hashlib
import logging
import os
import re
from collections import Counter
from collections.abc import Iterator, Sequence
from pathlib import Path

from tokenizers import Tokenizer, models, normalizers, pre_tokenizers, trainers

from bunryu.data.cleaner import Cleaner
from bunryu.encoding.cache import hash_texts
from bunryu.errors import ConfigError
from bunryu.system.files import remove_abandoned, write_atomically

log = logging.getLogger(__name__)

VERSION = 2  # of the method; part of the name in the cache
SPECIAL = ("[PAD]", "[UNK]", "[CLS]", "[SEP]", "[MASK]")
ALPHABET = 1000  # most frequent characters kept, as in tokenizers' BertWordPieceTokenizer
LONGEST_WORD = 100  # characters; BERT's tokenizers make [UNK] of a longer word, and learning from it is slow
LEARNT_CHARACTERS = 20_000  # of each text: many times what any model reads of it
_LONG_RUN = re.compile("[0-9A-Za-zㄱ-ㅣ가-힣]{102,}")
_SHIFT = 0x100000  # from a character of the basic plane to one of a private-use plane


def learn_wordpiece(texts: Sequence[str], size: int, cleaner: Cleaner, cache: Path) -> list[str]:
    """The vocabulary in id order, at most ``size`` tokens, special ones first; cached.

    ``tokenizers``' own WordPiece trainer numbers the ``##`` characters in the order of a randomly seeded
    hash map, so it gives another vocabulary every time. Here each character that continues a word is
    replaced by one of a private-use plane, and plain byte-pair encoding is trained: its order is fixed.
    """
    identity = f"{VERSION}\0{size}\0{cleaner}\0".encode() + hash_texts(texts)
    path = cache / "vocabularies" / f"{hashlib.sha256(identity).hexdigest()[:32]}.txt"
    if (vocabulary := _load(path)) is None:
        vocabulary = _learn(_count_words(texts, cleaner), size)
        _store(path, vocabulary)
    return vocabulary


def _load(path: Path) -> list[str] | None:
    """A cached vocabulary; None if it is not there or its first line, a checksum, does not fit."""
    if not os.path.isfile(path):
        return None
    try:
        checksum, _, joined = path.read_bytes().partition(b"\n")
        if hashlib.sha256(joined).hexdigest().encode() != checksum:
            raise ValueError("its checksum does not fit")
        return joined.decode("utf-8").split("\n")
    except (OSError, ValueError) as error:
        log.warning("the cache %s is damaged (%s) and is built again", path.name, error)
        return None


def _store(path: Path, vocabulary: Sequence[str]) -> None:
    joined = "\n".join(vocabulary)
    checksum = hashlib.sha256(joined.encode("utf-8")).hexdigest()
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        remove_abandoned(path.parent, ".")
        write_atomically(path, f"{checksum}\n{joined}")
    except OSError as error:
        log.warning("the vocabulary is not cached: %s", error)


def _count_words(texts: Sequence[str], cleaner: Cleaner) -> Counter[str]:
    normalizer = normalizers.BertNormalizer(lowercase=False, strip_accents=False)
    splitter = pre_tokenizers.BertPreTokenizer()
    words: Counter[str] = Counter()
    for text in texts:  # of a longer run of letters the word stays too long
        shortened = _LONG_RUN.sub("x" * (LONGEST_WORD + 1), cleaner(text[:LEARNT_CHARACTERS]))
        pieces = splitter.pre_tokenize_str(normalizer.normalize_str(shortened))
        words.update(word for word, _ in pieces if len(word) <= LONGEST_WORD)
    return words


def _learn(words: Counter[str], size: int) -> list[str]:
    characters: Counter[str] = Counter()
    for character, count in ((c, count) for word, count in words.items() for c in word):
        characters[character] += count
    ranked = sorted(characters, key=lambda c: (-characters[c], c))
    # A character may take two tokens, itself and ##itself: the alphabet alone must not exceed the size.
    most = min(ALPHABET, (size - len(SPECIAL)) // 2)
    alphabet = set([c for c in ranked if ord(c) < 0x10000][:most])

    def shifted() -> Iterator[str]:
        for word, count in words.items():
            if alphabet.issuperset(word):
                yield " ".join([word[0] + "".join(chr(ord(c) + _SHIFT) for c in word[1:])] * count)

    tokenizer = Tokenizer(models.BPE())
    tokenizer.pre_tokenizer = pre_tokenizers.WhitespaceSplit()
    trainer = trainers.BpeTrainer(vocab_size=size - len(SPECIAL), show_progress=False)
    tokenizer.train_from_iterator(shifted(), trainer)
    by_id = sorted(tokenizer.get_vocab().items(), key=lambda item: item[1])
    return [*SPECIAL, *(_shifted_back(token) for token, _ in by_id)]


def _shifted_back(token: str) -> str:
    plain = "".join(chr(ord(c) - _SHIFT) if ord(c) >= _SHIFT else c for c in token)
    return f"##{plain}" if ord(token[0]) >= _SHIFT else plain


def read_vocabulary(path: Path) -> list[str]:
    """The tokens of a vocab.txt; ConfigError if it lacks a special token or holds a token twice."""
    try:
        vocabulary = path.read_text("utf-8").rstrip("\n").split("\n")
    except (OSError, UnicodeDecodeError) as error:
        raise ConfigError(f"cannot read the vocabulary: {error}", where="model.vocabulary_file") from None
    if missing := [token for token in ("[PAD]", "[UNK]", "[CLS]", "[SEP]") if token not in vocabulary]:
        what = f"the vocabulary lacks {', '.join(missing)}"
        raise ConfigError(what, where=str(path), fix="a BERT vocab.txt, one token a line")
    if repeated := [token for token, count in Counter(vocabulary).items() if count > 1]:
        what = f"the vocabulary holds {repeated[0]!r} twice"
        raise ConfigError(what, where=str(path), fix="each token once, one a line")
    return vocabulary
