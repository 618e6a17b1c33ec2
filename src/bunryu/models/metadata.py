"""bunryu.json: what a model folder says beyond transformers' own files."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Annotated, NotRequired

from annotated_types import Interval, Len

from bunryu.data.cleaner import Cleaner
from bunryu.errors import ConfigError, ModelError, first_line
from bunryu.system.records import VERSIONED, check_kind, damaged, mapping, read_checked, write_record

SCHEMA = 1
FILE = "bunryu.json"
GRAPH = "model.onnx"  # of an export to ONNX, beside that file
MAX_SEQ_LENGTH = 2**20
MAX_SAMPLES = 64
MAX_SAMPLE_LENGTH = 100_000  # characters

TEXT = Annotated[str, Len(0, MAX_SAMPLE_LENGTH)]
SAMPLE = mapping(text=TEXT, pair=NotRequired[TEXT | None], logits=list[float])
METADATA = mapping(
    cleaner=mapping(
        allowed=NotRequired[str | None], remove_emoji=NotRequired[bool], remove_urls=NotRequired[bool],
        max_repeats=NotRequired[int],
    ),
    max_seq_length=Annotated[int, Interval(gt=0, le=MAX_SEQ_LENGTH)],
    network=NotRequired[str | None],
    composed=NotRequired[bool],
    parity=Annotated[list[SAMPLE], Len(0, MAX_SAMPLES)],  # type: ignore[valid-type]
)  # fmt: skip
MODEL_CONFIG = mapping(id2label=dict[str, str], vocab_size=int)


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
        write_record(folder / FILE, facts)

    @classmethod
    def read(cls, folder: Path) -> ModelMetadata:
        """What a folder's bunryu.json says.

        Raises:
            ModelError: if it is not there, damaged, or of a later bunryu.
        """
        path = folder / FILE
        if not path.is_file():
            fix = "a run directory, its model/, or what bunryu import-checkpoint wrote"
            raise ModelError(f"no model folder of bunryu: it has no {FILE}", where=str(folder), fix=fix)
        facts = read_checked(path, VERSIONED)
        if facts["schema"] > SCHEMA:
            raise ModelError(f"{FILE} was written by a later bunryu", where=str(path), fix="use that version")
        check_kind(path, facts, METADATA)
        samples = [
            ParitySample(sample["text"], sample.get("pair"), tuple(map(float, sample["logits"])))
            for sample in facts["parity"]
        ]
        try:
            return cls(
                Cleaner(**facts["cleaner"]), facts["max_seq_length"], samples,
                facts.get("network"), facts.get("composed", False),
            )  # fmt: skip
        except (TypeError, ConfigError) as error:  # a key or a pattern that no cleaner takes
            raise damaged(path, f"cleaner: {first_line(error)}") from None


def read_labels(folder: Path) -> list[str]:
    """The names of the classes in id order, from a model folder's config.json.

    Raises:
        ModelError: if it is damaged.
    """
    names = read_checked(folder / "config.json", MODEL_CONFIG)["id2label"]
    if names.keys() != {str(index) for index in range(len(names))}:
        raise damaged(folder / "config.json", "id2label does not count from 0")
    return [names[str(index)] for index in range(len(names))]
