"""How validation is drawn from train, and what a split holds."""

from __future__ import annotations

import hashlib
import math
import re
from collections import Counter
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

from bunryu.data.examples import Example
from bunryu.errors import ConfigError

# The kinds of flaws that are counted, as users see them.
EMPTY = "empty documents"
DUPLICATE = "duplicate documents"  # each further row of a document
CONFLICT = "documents with several labels"
OVERLAP = "documents that also stand in train"
KINDS = (EMPTY, DUPLICATE, CONFLICT, OVERLAP)

Document = tuple[str, str | None]  # text and pair

_INTEGER = re.compile(r"-?\d{1,18}")


@dataclass
class SplitStatistics:
    """Rows of a split, rows of each label, and the count and first example of each kind of flaw.

    In ``first``, a duplicate or conflict stands after the earlier row, an overlap before the row of train.
    """

    rows: int
    labels: dict[str, int]
    counts: dict[str, int] = field(default_factory=lambda: dict.fromkeys(KINDS, 0))
    first: dict[str, tuple[Example, ...]] = field(default_factory=dict)

    def add(self, kind: str, *examples: Example) -> None:
        """Count one more of a kind, shown by these examples if it is the first."""
        self.counts[kind] += 1
        self.first.setdefault(kind, examples)

    def figures(self) -> dict[str, Any]:
        """The counts under their names in the manifest."""
        return {
            "rows": self.rows,
            "labels": self.labels,
            "empty_documents": self.counts[EMPTY],
            "duplicate_documents": self.counts[DUPLICATE],
            "conflicting_documents": self.counts[CONFLICT],
        }


def split_validation(
    train: list[Example], test: list[Example], share: float | str, seed: int
) -> tuple[list[Example], list[Example]]:
    """Train and validation: a share of each label's rows becomes validation, or it is test (``"test"``).

    The draw orders rows by a hash of (seed, row), so it depends on no library's random numbers. At least
    one row of each label stays in train.

    Raises:
        ConfigError: if the share leaves nothing to train on or to validate on.
    """
    if share == "test":
        if not test:
            what, fix = "there is no test split to validate on", "corpus.test=<file>, or a share of train"
            raise ConfigError(what, where="corpus.validation=test", fix=fix)
        return train, list(test)
    check_share(share)
    assert isinstance(share, float)
    by_label: dict[str, list[int]] = {}
    for example in train:
        by_label.setdefault(example.label, []).append(example.row)
    chosen: set[int] = set()
    for rows in by_label.values():
        count = min(math.floor(len(rows) * share + 0.5), len(rows) - 1)
        chosen.update(sorted(rows, key=lambda row: row_hash(seed, row))[:count])
    if not chosen:
        largest = max(map(len, by_label.values()))
        smallest = math.ceil(50 / largest) / 100  # takes a row of the largest label, of two at least
        fix = "a file of validation rows, or more rows: one of each label stays in train"
        if largest > 1:
            fix = f"corpus.validation={smallest} or more, or a file of validation rows"
        what = f"{share} of {len(train)} rows leaves none to validate on"
        raise ConfigError(what, where="corpus.validation", fix=fix)
    return [e for e in train if e.row not in chosen], [e for e in train if e.row in chosen]


def check_share(share: float | str) -> None:
    """Raise ConfigError for what is neither ``test`` nor a share of train."""
    if share != "test" and not (isinstance(share, float) and 0 < share < 1):
        fix = "a share between 0 and 1, or 'test'"
        raise ConfigError(f"validation is {share!r}", where="corpus.validation", fix=fix)


def row_hash(seed: int, row: int) -> bytes:
    """A hash to sort rows by: a random order that is the same on every machine."""
    return hashlib.blake2b(f"{seed}:{row}".encode(), digest_size=8).digest()


def sort_labels(labels: Iterable[str]) -> tuple[str, ...]:
    """Distinct labels: by value if all are integers, else by code point."""
    distinct = sorted(set(labels))
    if all(_INTEGER.fullmatch(label) for label in distinct):
        distinct.sort(key=int)  # stable: 1 and 01 keep their order
    return tuple(distinct)


def split_statistics(
    examples: list[Example], train: Mapping[Document, Example]
) -> tuple[SplitStatistics, dict[Document, Example]]:
    """What a split holds, and the first example of each document (``train``: those of train)."""
    found = SplitStatistics(len(examples), dict(sorted(Counter(e.label for e in examples).items())))
    documents: dict[Document, Example] = {}
    conflicting: set[Document] = set()
    for example in examples:
        _, text, label, pair = example
        document = (text, pair)
        if not text or text.isspace() or (pair is not None and not pair.strip()):
            found.add(EMPTY, example)
        earlier = documents.setdefault(document, example)
        if earlier is not example:
            found.add(DUPLICATE, earlier, example)
            if earlier.label != label and document not in conflicting:
                conflicting.add(document)
                found.add(CONFLICT, earlier, example)
        if document in train:
            found.add(OVERLAP, example, train[document])
    return found, documents


def split_flaws(
    splits: Mapping[str, SplitStatistics], labels: Sequence[str], place: Callable[[str, Example], str]
) -> list[str]:
    """What is wrong with splits, each in a line with its counts and the first place (from split, example)."""
    found = []
    if untrained := [label for label in labels if label not in splits["train"].labels]:
        found.append(f"train has no row of the labels {untrained}: never predicted")
    for name, split in splits.items():
        if len(split.labels) == 1:
            found.append(f"{name} has only the label {list(split.labels)}")
    for kind in KINDS:
        counts = {name: split.counts[kind] for name, split in splits.items() if split.counts[kind]}
        if counts:
            first = next(iter(counts))
            owners = (first, "train" if kind == OVERLAP else first)
            places = " and ".join(map(place, owners, splits[first].first[kind]))
            listed = ", ".join(f"{count:,} in {name}" for name, count in counts.items())
            found.append(f"{kind}: {listed}; first: {places}")
    return found
