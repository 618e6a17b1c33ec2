"""From texts to logits, with what a model folder holds and nothing else."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping, Sequence
from contextlib import nullcontext
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import torch
from transformers import AutoModelForSequenceClassification, PreTrainedModel

from bunryu.data.normalisation import normalised
from bunryu.encoding.batching import Index, bounded_batches
from bunryu.encoding.cache import Ids
from bunryu.encoding.encoder import Encoded, Template, smallest_dtype, special_tokens, tokenize, untruncating
from bunryu.errors import BunryuError, ConfigError, ModelError, first_line
from bunryu.models.metadata import ModelMetadata, ParitySample, read_labels
from bunryu.models.weights import check_length, check_vocabulary, load_classifier, load_tokenizer

MAX_TOKENS = 2048  # padded tokens a batch: larger ones gain nothing on a CPU
TOLERANCE = 1e-4  # between the logits of a model's parity samples and those of the loaded model
TOLERANCE_16_BIT = 0.1  # the same for weights of 16 bits, which differ from one machine to another

Arrays = Mapping[str, npt.NDArray[np.int64]]
Network = Callable[[Arrays], npt.NDArray[np.float32]]


@dataclass(frozen=True)
class TorchNetwork:
    """A transformers classifier, called with padded arrays, that returns logits of shape (rows, classes)."""

    model: Any  # in evaluation mode, on its device
    autocast: torch.dtype | None = None  # the run's mixed precision; None for that of the weights

    def __call__(self, batch: Arrays) -> npt.NDArray[np.float32]:
        device = self.model.device
        mixed = torch.autocast(device.type, self.autocast) if self.autocast else nullcontext()
        with torch.inference_mode(), mixed:
            inputs = {name: torch.from_numpy(array).to(device) for name, array in batch.items()}
            logits: npt.NDArray[np.float32] = self.model(**inputs).logits.float().cpu().numpy()
        return logits


class Predictor:
    """A classifier with its tokenizer, cleaner and labels: texts in, logits out."""

    def __init__(
        self,
        name: str,  # the run's or folder's, for messages and pages
        metadata: ModelMetadata,
        tokenizer: Any,
        labels: Sequence[str],  # names of the classes in id order
        network: Network,  # from padded arrays to logits of shape (rows, classes)
        *,
        runtime: str,  # what runs the network, ``torch`` or ``onnx``
        device: str,
        tolerance: float = TOLERANCE,  # how far a logit of a parity sample may be off
    ) -> None:
        self.name, self.metadata, self.labels, self.network = name, metadata, tuple(labels), network
        self.runtime, self.device = runtime, device
        self.unknown_id: int | None = tokenizer.unk_token_id
        self._tolerance = tolerance
        self._pad_id = tokenizer.pad_token_id
        self._template = Template.of(tokenizer)
        self._backend = untruncating(tokenizer)
        self._dtype = smallest_dtype(self._backend)
        specials = special_tokens(self._template.pair if metadata.takes_pairs else self._template.single)
        if metadata.max_seq_length < specials:
            raise ModelError(
                f"max_seq_length is {metadata.max_seq_length}, special tokens alone take {specials}",
                where=name,
                fix="bunryu.json as it was written",
            )

    def encode(self, texts: Sequence[str], pairs: Sequence[str] | None = None) -> Encoded:
        """Compose, clean and tokenize documents; their labels are all 0, their rows count from 0."""
        first = self._flat(texts)
        second: tuple[Any, Any] = (None, None) if pairs is None else self._flat(pairs)
        labels = np.zeros(len(texts), dtype=np.int64)
        return Encoded(*first, *second, labels, np.arange(len(texts)), self._template)

    def _flat(self, texts: Sequence[str]) -> tuple[Ids, Index]:
        as_read = list(map(normalised, texts)) if self.metadata.composed else texts
        return tokenize(self._backend, self.metadata.cleaner, as_read, self._dtype)

    def logits(
        self, encoded: Encoded, batches: Iterable[Index], padding: str = "longest"
    ) -> npt.NDArray[np.float32]:
        """Logits of shape (rows, classes), in the order of ``encoded``.

        Every row stands in one of the batches, padded to ``longest`` or ``max_length`` as in training.
        """
        limit = self.metadata.max_seq_length
        lengths = encoded.lengths(limit)
        logits = np.zeros((len(encoded), len(self.labels)), dtype=np.float32)
        for index in batches:
            width = limit if padding == "max_length" else int(lengths[index].max())
            logits[index] = self.network(encoded.batch(index, limit, width, self._pad_id))
        return logits

    def predict(self, texts: Sequence[str], pairs: Sequence[str] | None = None) -> npt.NDArray[np.float32]:
        """Logits of shape (texts, classes), computed in batches of like length."""
        return self.bounded_logits(self.encode(texts, pairs))

    def bounded_logits(self, encoded: Encoded) -> npt.NDArray[np.float32]:
        """Logits of shape (rows, classes), computed in batches of like length."""
        lengths = encoded.lengths(self.metadata.max_seq_length)
        return self.logits(encoded, bounded_batches(lengths, MAX_TOKENS))

    def sample_anew(self) -> list[ParitySample]:
        """The parity samples with the logits this predictor gives for them, one at a time."""
        try:
            return [
                replace(sample, logits=tuple(self.predict([sample.text], pairs)[0].tolist()))
                for sample in self.metadata.parity
                for pairs in [None if sample.pair is None else [sample.pair]]
            ]
        except BunryuError:
            raise
        except Exception as error:  # whatever a damaged tokenizer or config ends in
            raise ModelError(f"the model cannot be run: {first_line(error)}", where=self.name) from error

    def check_parity(self) -> float:
        """How far a logit computed now is from the one saved with the model; ModelError if too far."""
        worst = 0.0
        for kept, found in zip(self.metadata.parity, self.sample_anew(), strict=True):
            saved, now = np.array(kept.logits), np.array(found.logits)
            if saved.shape != now.shape:
                what = f"a parity sample has {len(saved)} logits, the model {len(now)} classes"
                raise ModelError(what, where=self.name, fix="bunryu.json and weights of the same run")
            difference = np.abs(saved - now)
            worst = max(worst, float(difference.max()) if np.isfinite(difference).all() else float("inf"))
        if worst > self._tolerance:
            raise ModelError(
                f"the loaded model is not the one that was saved: a logit is off by {worst:.2g}, "
                f"more than {self._tolerance:g}",
                where=self.name,
                fix="weights, tokenizer or bunryu.json were changed; write the folder anew",
            )
        return worst


def load_predictor(
    folder: Path, name: str, *, checkpoint: Path | None = None, device: str = "auto"
) -> Predictor:
    """A predictor of a model folder, run by PyTorch; nothing is fetched, and no code from it is run.

    Weights are those of a Lightning ``checkpoint``, if one is given. Raises ModelError if something is
    missing, damaged, a pickle, or does not fit together; ConfigError for a device that is not here.
    """
    metadata = ModelMetadata.read(folder)
    tokenizer = load_tokenizer(folder)
    place = _device(device)
    model = load_classifier(folder, _family(metadata, folder), checkpoint)
    labels = read_labels(folder)
    check_vocabulary(tokenizer, model.config.vocab_size, str(folder))
    check_length(model, metadata.max_seq_length)
    wide = next(model.parameters()).dtype == torch.float32
    predictor = Predictor(
        name, metadata, tokenizer, labels, TorchNetwork(model.to(place).eval()),
        runtime="torch", device=str(place), tolerance=TOLERANCE if wide else TOLERANCE_16_BIT,
    )  # fmt: skip
    if checkpoint is not None:  # the folder's logits tell of other weights
        predictor.metadata = replace(metadata, parity=predictor.sample_anew())
    return predictor


def _family(metadata: ModelMetadata, folder: Path) -> Any:
    """The class that a model folder's classifier is of; a user's own only where the user allows it."""
    if metadata.network is None:
        return AutoModelForSequenceClassification
    from bunryu.config.targets import resolve

    found: Any = resolve(metadata.network, str(folder / "bunryu.json"))
    if not (isinstance(found, type) and issubclass(found, PreTrainedModel)):
        raise ModelError(f"{metadata.network} is no classifier", where=str(folder / "bunryu.json"))
    return found


def _device(name: str) -> torch.device:
    try:
        device = torch.device(name if name != "auto" else "cuda" if torch.cuda.is_available() else "cpu")
        torch.zeros(1, device=device)
    except (RuntimeError, AssertionError, NotImplementedError) as error:
        raise ConfigError(
            f"no device '{name}': {first_line(error)}", where="--device", fix="auto, cpu or cuda:0"
        ) from None
    return device
