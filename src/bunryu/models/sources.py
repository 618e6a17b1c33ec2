"""Where a classifier comes from: from scratch, from pretrained weights, or an architecture alone."""

from __future__ import annotations

import logging
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Protocol

import torch
from huggingface_hub import constants, get_session
from huggingface_hub.errors import RepositoryNotFoundError
from safetensors import SafetensorError
from transformers import AutoConfig, BertTokenizer

from bunryu.data.cleaner import Cleaner
from bunryu.encoding.vocabulary import learn_wordpiece, read_vocabulary
from bunryu.errors import ConfigError, DownloadError, ModelError, first_line
from bunryu.models.weights import (
    WEIGHTS,
    check_bounds,
    check_tokenizer,
    check_vocabulary,
    fit_token_types,
    in_own_memory,
    positions_of,
    refuse_pickles,
)

log = logging.getLogger(__name__)

PROBE_SECONDS = 5.0


class ModelSource(Protocol):
    """What the recipe needs of a ``model`` group option."""

    def tokenizer(self, texts: Sequence[str], cleaner: Cleaner, cache: Path) -> Any:
        """The tokenizer, learnt from the training texts where it has to be."""

    def classifier(self, tokenizer: Any, labels: Sequence[str]) -> Any:
        """The model with one output for each label."""


def label_maps(labels: Sequence[str]) -> dict[str, Any]:
    """What a transformers config says of labels, and that the model gives its logits by name."""
    return {
        "num_labels": len(labels),
        "id2label": dict(enumerate(labels)),
        "label2id": {label: index for index, label in enumerate(labels)},
        "return_dict": True,
    }


@dataclass(frozen=True)
class FromScratch:
    """A BERT with random weights and a vocabulary learnt from the training split."""

    name: str  # in the names of run directories
    lr: float  # the learning rate that suits it
    positions: int  # tokens of the longest sequence
    vocabulary_size: int  # tokens to learn
    vocabulary_file: str | None  # a vocab.txt to use instead of learning one
    architecture: Callable[..., Any]  # a partial of transformers.BertConfig
    network: Callable[..., Any]  # a partial of transformers.BertForSequenceClassification

    def tokenizer(self, texts: Sequence[str], cleaner: Cleaner, cache: Path) -> Any:
        """A WordPiece tokenizer that keeps case and accents."""
        if self.vocabulary_file is None:
            vocabulary = learn_wordpiece(texts, self.vocabulary_size, cleaner, cache)
        else:
            vocabulary = read_vocabulary(Path(self.vocabulary_file).expanduser())
        ids = {token: index for index, token in enumerate(vocabulary)}
        tokenizer = BertTokenizer(
            vocab=ids, do_lower_case=False, strip_accents=False, model_max_length=self.positions
        )
        return fit_token_types(tokenizer, self.architecture())

    def classifier(self, tokenizer: Any, labels: Sequence[str]) -> Any:
        """The architecture with fresh weights."""
        config = self.architecture(
            vocab_size=len(tokenizer),
            max_position_embeddings=self.positions,
            pad_token_id=tokenizer.pad_token_id,
            **label_maps(labels),
        )
        return self.network(config)


@dataclass(frozen=True)
class Pretrained:
    """A Hub model or a local folder; safetensors only, and no code from it is ever run."""

    name: str  # a Hub name such as beomi/kcbert-base, or a folder
    lr: float  # the learning rate that suits it
    positions: int | None  # tokens of the longest sequence; None to find out when it is loaded
    network: Callable[..., Any]  # a partial of a transformers model's from_pretrained
    tokenizer_factory: Callable[..., Any]  # a partial of transformers.AutoTokenizer.from_pretrained

    @property
    def location(self) -> str:
        """The folder with ``~`` resolved, or the Hub name."""
        folder = Path(self.name).expanduser()
        return str(folder) if folder.is_dir() else self.name

    def tokenizer(self, texts: Sequence[str], cleaner: Cleaner, cache: Path) -> Any:
        """The model's own tokenizer.

        Raises:
            DownloadError: if it is neither a folder nor cached nor to be had from the Hub.
            ModelError: as ``check_tokenizer``.
        """
        del texts, cleaner, cache
        tokenizer = self._load(self.tokenizer_factory, "tokenizer", trust_remote_code=False)
        check_tokenizer(tokenizer, self.name)
        if "token_type_ids" not in tokenizer.model_input_names:
            return tokenizer
        config = self._load(AutoConfig.from_pretrained, "config", trust_remote_code=False)
        return fit_token_types(tokenizer, config)

    def classifier(self, tokenizer: Any, labels: Sequence[str]) -> Any:
        """The encoder with its weights and a fresh classification head; logs what is new and unused.

        A folder with config.json and no weights gives the architecture with random weights, said loudly.

        Raises:
            DownloadError: as for the tokenizer.
            ModelError: if weights are pickles, do not fit, or lack part of the encoder.
        """
        folder = Path(self.location)
        if folder.is_dir() and not any((folder / name).is_file() for name in WEIGHTS):
            refuse_pickles(folder)
            log.warning(
                "NO WEIGHTS in %s: only its architecture and vocabulary are used, the weights are RANDOM. "
                "Accuracy will be far below the pretrained model's.",
                folder,
            )
            return self.architecture(tokenizer, labels)
        model, report = self._load(
            self.network,
            "model",
            output_loading_info=True,
            ignore_mismatched_sizes=True,  # a head for other labels is replaced; the encoder is checked below
            use_safetensors=True,
            trust_remote_code=False,
            **label_maps(labels),
        )
        _report_weights(model, report, self.name)
        self._check(model, tokenizer)
        in_own_memory(model)
        # from_pretrained gives a model with dropout off, and Lightning leaves it so.
        return model.train() if "dtype" in _keywords(self.network) else _in_full_precision(model).train()

    def architecture(self, tokenizer: Any, labels: Sequence[str]) -> Any:
        """What config.json describes, with random weights in 32 bits; raises as ``classifier`` does."""
        arguments = {**_keywords(self.network), **label_maps(labels), "trust_remote_code": False}
        arguments.pop("dtype", None)
        config = self._load(AutoConfig.from_pretrained, "config", **arguments)
        factory: Any = self.network.func  # type: ignore[attr-defined]
        family = factory.__self__
        build = family.from_config if hasattr(family, "from_config") else family
        model = build(config)
        self._check(model, tokenizer)
        return _in_full_precision(model).train()

    def _check(self, model: Any, tokenizer: Any) -> None:
        check_vocabulary(tokenizer, model.config.vocab_size, self.name)
        positions = positions_of(model)
        if self.positions is not None and positions is not None and self.positions > positions:
            what = f"the model has {positions} positions, not {self.positions}"
            raise ConfigError(what, where="model.positions", fix=f"model.positions={positions}")

    def _load(self, factory: Callable[..., Any], what: str, **arguments: Any) -> Any:
        folder = Path(self.location)
        if folder.is_dir():
            check_bounds(folder)
        elif not _hub_answers():
            arguments["local_files_only"] = True
        try:
            return factory(self.location, **arguments)
        except (OSError, ValueError, RuntimeError, SafetensorError) as error:
            reason = first_line(error)
            if folder.is_dir():
                raise ModelError(f"the {what} cannot be loaded: {reason}", where=str(folder)) from error
            what = f"the {what} of '{self.name}' is not cached and could not be fetched"
            what += f" from {constants.ENDPOINT}: {reason}"
            raise DownloadError(what, where="model.name", fix=download_fix(error)) from error


def download_fix(error: BaseException) -> str:
    """What to do about a model that could not be fetched: its name, its files or the network is wrong."""
    first, causes = "check the network", [error]
    while causes[-1].__cause__ is not None:
        causes.append(causes[-1].__cause__)
    if any(isinstance(cause, RepositoryNotFoundError) for cause in causes):
        first = "check the name, owner/name as the Hub has it; HF_TOKEN for a private one"
    elif "safetensors" in str(error):
        first = "+model.network.revision=refs/pr/<number> where a conversion of its weights waits on the Hub"
    folder = "model.name=<a folder with config.json, vocab.txt and model.safetensors>"
    return f"{first}; or {folder}; or model=tiny, which needs no download"


def _hub_answers() -> bool:
    """Whether the Hub can be reached at all: asked first, as its library retries for most of a minute."""
    try:
        get_session().head(constants.ENDPOINT, timeout=PROBE_SECONDS)
    except Exception as error:  # whatever its HTTP library raises, which has changed more than once
        log.info("the Hub does not answer (%s): only what is cached is used", error)
        return False
    return True


def _in_full_precision(model: Any) -> Any:
    """The model in 32 bits; transformers gives it in the precision of its file."""
    model.config.dtype = torch.float32
    return model.float()


def _keywords(partial: Callable[..., Any]) -> dict[str, Any]:
    return dict(getattr(partial, "keywords", {}))


def _report_weights(model: Any, report: dict[str, Any], name: str) -> None:
    """Log which weights are new and which were not used; refuse an encoder that is not all there."""
    prefix = f"{model.base_model_prefix}."
    for key, found, expected in sorted(report["mismatched_keys"]):
        if key.startswith(prefix):
            what = f"the checkpoint's {key} has the shape {tuple(found)}, the model's {tuple(expected)}"
            raise ModelError(what, where=name, fix="a config.json and weights that belong together")
    new = sorted({*report["missing_keys"], *(key for key, *_ in report["mismatched_keys"])})
    unused = sorted(report["unexpected_keys"])
    lacking = [key for key in new if key.startswith(prefix) and ".pooler." not in key]
    if lacking:
        what = f"{len(lacking)} weights of the encoder are not in the checkpoint, such as {lacking[0]}"
        raise ModelError(what, where=name, fix="a checkpoint of the same architecture")
    log.info("weights from %s: %d loaded, %d new (%s), %d unused (%s)",
             name, len(model.state_dict()) - len(new), len(new), ", ".join(new[:6]) or "none",
             len(unused), ", ".join(unused[:6]) or "none")  # fmt: skip
