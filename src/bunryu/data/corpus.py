"""A corpus as training needs it: its splits, its labels, and what is wrong with it."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, field, replace
from functools import cached_property
from typing import Any

from bunryu.data.cleaner import Cleaner
from bunryu.data.examples import Example, quoting_hint, row_flaws
from bunryu.data.rows import RowCounts, place
from bunryu.data.splits import OVERLAP, SplitStatistics, row_hash, split_flaws, split_statistics
from bunryu.errors import DataError

SPLITS = ("train", "validation", "test")


@dataclass(frozen=True)
class Corpus:
    """Three splits with their labels.

    Args:
        labels: as they stand in the files, in the order of their class ids.
        label_names: as they are shown, in the same order.
        row_counts: what became of the rows of each file; the files are named as the splits.
        lines: for each file, the line of each example by its ``row``.
        differences: how files differ from the published ones, each in a sentence.
    """

    train: list[Example]
    validation: list[Example]
    test: list[Example]
    labels: tuple[str, ...]
    label_names: tuple[str, ...]
    cleaner: Cleaner
    row_counts: dict[str, RowCounts]
    lines: Mapping[str, Sequence[int]] = field(default_factory=dict)
    differences: list[str] = field(default_factory=list)

    def split(self, name: str) -> list[Example]:
        examples: list[Example] = getattr(self, name)
        return examples

    def label_ids(self, name: str) -> list[int]:
        """The class id of each example of a split."""
        ids = {label: index for index, label in enumerate(self.labels)}
        return [ids[example.label] for example in self.split(name)]

    def limited(self, rows: int | None) -> Corpus:
        """The same corpus with at most ``rows`` examples a split, drawn from all of it (None: all)."""
        if rows is None:
            return self

        def drawn(name: str) -> list[Example]:
            return sorted(sorted(self.split(name), key=lambda example: row_hash(0, example.row))[:rows])

        return replace(self, train=drawn("train"), validation=drawn("validation"), test=drawn("test"))

    def fingerprint(self) -> str:
        """A hash of every text, pair and label of every split."""
        digest = hashlib.sha256()
        for name in SPLITS:
            for _, text, label, pair in self.split(name):
                digest.update(json.dumps((name, label, text, pair)).encode())  # JSON: no two rows look alike
        return digest.hexdigest()

    def facts(self) -> dict[str, Any]:
        """Rows, labels, empty documents, duplicates and overlaps, for the manifest."""
        return {
            "fingerprint": self.fingerprint(),
            "labels": list(self.label_names),
            "files": {name: asdict(counts) for name, counts in self.row_counts.items()},
            "splits": {name: found.figures() for name, found in self._statistics.items()},
            "validation_documents_in_train": self._statistics["validation"].counts[OVERLAP],
            "test_documents_in_train": self._statistics["test"].counts[OVERLAP],
            "warnings": self.warnings,
        }

    @property
    def warnings(self) -> list[str]:
        """The flaws, and what may be one."""
        return self.flaws() + [hint for counts in self.row_counts.values() for hint in quoting_hint(counts)]

    def flaws(self) -> list[str]:
        """What ``strict_data=true`` refuses, each in a line with its count and the first place."""
        found = [flaw for counts in self.row_counts.values() for flaw in row_flaws(counts)]
        statistics = dict(self._statistics)
        if self.validation == self.test:  # validation=test: the flaws of both are the same
            del statistics["validation"]
        return found + self.differences + split_flaws(statistics, self.labels, self.place)

    def refuse_flaws(self) -> None:
        if flaws := self.flaws():
            listed = "".join(f"\n  - {flaw}" for flaw in flaws)
            what = f"strict_data=true takes no corpus with flaws; this one has:{listed}"
            fix = "mend them; or strict_data=false to train on them as they are"
            raise DataError(what, where="the files of corpus", fix=fix)

    @cached_property
    def _statistics(self) -> dict[str, SplitStatistics]:
        train, documents = split_statistics(self.train, {})
        others = {name: split_statistics(self.split(name), documents)[0] for name in SPLITS[1:]}
        return {"train": train, **others}

    def place(self, split: str, example: Example) -> str:
        """Where an example of a split stands: file and line, or its row where the line is not known."""
        file = split
        if split == "validation" and file not in self.row_counts:
            file = "test" if self.validation == self.test else "train"
        if file not in self.lines:
            return f"row {example.row} of {file}"
        return place(self.row_counts[file].file, self.lines[file][example.row])
