"""What a run is made from: corpus, tokenizer, encoded splits, classifier; each made by one function."""

from __future__ import annotations

import logging
import time
from collections.abc import Collection, Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Any

from bunryu.config.instantiate import call, instantiate
from bunryu.config.record import check_variables, located, resolved
from bunryu.data.corpus import SPLITS, Corpus
from bunryu.errors import ConfigError
from bunryu.runs.run import Run
from bunryu.system.locations import cache_folder

if TYPE_CHECKING:  # evaluate and reproduce read a corpus before torch is imported
    from bunryu.encoding.encoder import Encoded
    from bunryu.models.sources import ModelSource

log = logging.getLogger(__name__)


def read_corpus(config: Mapping[str, Any], *, fetch: bool = True) -> Corpus:
    """The corpus of a config (``corpus`` and ``limit_rows``, no references to the environment left in).

    Without ``fetch``, files that would be fetched are an error: whose run is looked at may name any folder.
    """
    node = config["corpus"]
    if not fetch and "force_download" in node:
        node = {**node, "force_download": None}
    corpus: Corpus = instantiate(node, "corpus").read().limited(config["limit_rows"])
    return corpus


def corpus_of(run: Run, env: Collection[str], root: Path | None = None, *, fetch: bool = True) -> Corpus:
    """The corpus of a run, which may be anybody's: it gets no variable of the environment but those named.

    Its files are those of its config, or of the same names below ``root``.
    """
    # nothing but these: the rest of the config may name secrets that are not needed here
    used = {key: value for key, value in run.config.items() if key in ("corpus", "limit_rows")}
    check_variables(used, str(run.path), env)
    return read_corpus(resolved(located(run.config, root), str(run.path), *used), fetch=fetch)


def corpus_to_train_on(config: Mapping[str, Any], corpus: Corpus | None = None) -> Corpus:
    """The corpus of a config, unless it has been read; refused with its flaws if ``strict_data`` says so."""
    if corpus is None:
        with stage("reading the corpus"):
            corpus = read_corpus(config)
    if config["strict_data"]:
        corpus.refuse_flaws()
    return corpus


@contextmanager
def stage(name: str) -> Iterator[None]:
    """Log how long a part of the recipe took."""
    start = time.perf_counter()
    yield
    log.info("%s took %.1f s", name, time.perf_counter() - start)


def tokenizer_of(config: Mapping[str, Any], corpus: Corpus) -> tuple[ModelSource, Any]:
    """Where the config's model comes from, and its tokenizer, learnt from train if the model is new."""
    source: ModelSource = instantiate(config["model"], "model")
    texts = [part for example in corpus.train for part in (example.text, example.pair) if part is not None]
    return source, source.tokenizer(texts, corpus.cleaner, cache_folder(config["cache_dir"]))


def encode_splits(config: Mapping[str, Any], corpus: Corpus, tokenizer: Any) -> dict[str, Encoded]:
    """Every split that has rows, encoded or from the cache."""
    from bunryu.encoding.encoder import Encoder

    cache = cache_folder(config["cache_dir"])
    encoder = Encoder(tokenizer, corpus.cleaner, cache, overwrite=config["overwrite_cache"])
    splits = {}
    for name in filter(corpus.split, SPLITS):
        examples, start = corpus.split(name), time.perf_counter()
        splits[name], cached = encoder.encode(
            [example.text for example in examples],
            None if examples[0].pair is None else [example.pair or "" for example in examples],
            corpus.label_ids(name),
            [example.row for example in examples],
        )
        source, seconds = "from the cache" if cached else "encoded", time.perf_counter() - start
        log.info("%s: %d rows %s in %.2f s", name, len(examples), source, seconds)
    return splits


def classifier_of(config: Mapping[str, Any], source: ModelSource, tokenizer: Any, corpus: Corpus) -> Any:
    """The config's model with an output for each label; ConfigError if it cannot be as the config has it."""
    from transformers import PreTrainedModel

    from bunryu.models.folder import own_class
    from bunryu.models.weights import check_length

    model = call(source.classifier, "model", tokenizer, corpus.label_names)
    if not isinstance(model, PreTrainedModel):
        what = f"{type(model).__name__} is no PreTrainedModel of transformers: model/ could not be written"
        raise ConfigError(what, where="model", fix="a class that inherits from BertForSequenceClassification")
    if name := own_class(model):
        log.warning("%s: predict, serve and evaluate need BUNRYU_ALLOWED_TARGETS, too; transformers alone "
                    "does not know the class", name)  # fmt: skip
    check_length(model, config["max_seq_length"])
    return model
