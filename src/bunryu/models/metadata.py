"""bunryu.json: what a model folder says beyond transformers' own files."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from bunryu.data.cleaner import Cleaner
from bunryu.errors import ConfigError, ModelError
from bunryu.system.files import write_atomically

SCHEMA = 1
FILE = "bunryu.json"


@dataclass(frozen=True)
class ParitySample:
    """A document and the logits the model gave for it, alone and unpadded, when its folder was written."""

    text: str
    pair: str | None
    logits: tuple[float, ...]


@dataclass(frozen=True)
class ModelMetadata:
    """How texts were prepared for the model, and samples to check a loaded model by."""

    cleaner: Cleaner  # applied to each text before it is tokenized
    max_seq_length: int  # tokens after which texts are cut, special tokens counted
    parity: Sequence[ParitySample]
    network: str | None = None  # the classifier's class by its dotted name; None for one of transformers'
    composed: bool = True  # whether texts are composed (NFC) first; not so in folders of bunryu 1

    @property
    def takes_pairs(self) -> bool:
        """Whether the model was trained on pairs of texts."""
        return any(sample.pair is not None for sample in self.parity)

    def write(self, folder: Path) -> None:
        facts = {"schema": SCHEMA, **asdict(self)}
        write_atomically(folder / FILE, json.dumps(facts, ensure_ascii=False, indent=2) + "\n")

    @classmethod
    def read(cls, folder: Path) -> ModelMetadata:
        """What a folder's bunryu.json says.

        Raises:
            ModelError: if it is not there, damaged, or of a later bunryu.
        """
        path = folder / FILE
        try:
            facts = json.loads(path.read_text("utf-8"))
            if facts["schema"] > SCHEMA:
                raise ModelError(
                    f"{FILE} was written by a later bunryu", where=str(path), fix="use that version"
                )
            samples = [_sample(sample) for sample in facts["parity"]]
            network, composed = facts.get("network"), facts.get("composed") is True
            if not isinstance(network, str | None):
                raise TypeError("network is no name")
            return cls(Cleaner(**facts["cleaner"]), int(facts["max_seq_length"]), samples, network, composed)
        except OSError as error:
            raise ModelError(
                f"no model folder of bunryu: {FILE} cannot be read ({error.strerror})",
                where=str(folder),
                fix="a run directory, its model/, or what bunryu import-checkpoint wrote",
            ) from None
        except (ValueError, KeyError, TypeError, AttributeError, RecursionError, ConfigError) as error:
            raise ModelError(f"{FILE} is damaged: {type(error).__name__}: {error}", where=str(path)) from None


def _sample(facts: Mapping[str, Any]) -> ParitySample:
    text, pair = facts["text"], facts.get("pair")
    if not (isinstance(text, str) and isinstance(pair, str | None)):
        raise TypeError("a parity sample's text is no text")
    return ParitySample(text, pair, tuple(map(float, facts["logits"])))


def read_labels(folder: Path) -> list[str]:
    """The names of the classes in id order, from a model folder's config.json.

    Raises:
        ModelError: if it is damaged.
    """
    try:
        names = json.loads((folder / "config.json").read_text("utf-8"))["id2label"]
        return [str(names[str(index)]) for index in range(len(names))]
    except (OSError, ValueError, KeyError, TypeError, RecursionError) as error:
        raise ModelError(f"its config.json is damaged: {error}", where=str(folder)) from None
