"""The corpus of a config, its tokenizer, and its encoded splits."""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

from bunryu.config.instantiate import instantiate
from bunryu.data.corpus import SPLITS, Corpus

if TYPE_CHECKING:
    from bunryu.encoding.encoder import Encoded


def read_corpus(config: Mapping[str, Any]) -> Corpus:
    """The corpus as the run will have it.

    Raises:
        BunryuError: for what would stop the run, flaws among it if it is strict.
    """
    corpus: Corpus = instantiate(config["corpus"]).read().limited(config["limit_rows"])
    if config["strict_data"]:
        corpus.refuse_flaws()
    return corpus


def encode(config: Mapping[str, Any], corpus: Corpus) -> tuple[Any, dict[str, Encoded]]:
    """The tokenizer, and every split encoded or from the cache.

    Raises:
        BunryuError: if the tokenizer cannot be had.
    """
    from bunryu.encoding.encoder import Encoder
    from bunryu.system.locations import cache_folder

    cache = cache_folder(config["cache_dir"])
    texts = [part for example in corpus.train for part in (example.text, example.pair) if part is not None]
    tokenizer = instantiate(config["model"]).tokenizer(texts, corpus.cleaner, cache)
    encoder = Encoder(tokenizer, corpus.cleaner, cache, overwrite=False)
    splits = {}
    for name in SPLITS:
        if examples := corpus.split(name):
            pairs = None if examples[0].pair is None else [example.pair or "" for example in examples]
            rows = [example.row for example in examples]
            splits[name], _ = encoder.encode(
                [example.text for example in examples], pairs, corpus.label_ids(name), rows
            )
    return tokenizer, splits
