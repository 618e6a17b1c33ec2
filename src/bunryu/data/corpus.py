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
from bunryu.data.splits import OVERLAP, SplitStatistics, row_hash, split_flaws, survey
from bunryu.data.table import RowCounts, place
from bunryu.errors import DataError

SPLITS = ("train", "validation", "test")


@dataclass(frozen=True)
class Corpus:
    """What training needs of a corpus: the splits, the labels in id order, and the account of rows.

    ``lines`` holds, for each file of ``accounts``, the line of each example by its row; ``differences``
    says how files are not the published ones.
    """

    train: list[Example]
    validation: list[Example]
    test: list[Example]
    labels: tuple[str, ...]
    names: tuple[str, ...]
    cleaner: Cleaner
    accounts: dict[str, RowCounts]
    lines: Mapping[str, Sequence[int]] = field(default_factory=dict)
    differences: list[str] = field(default_factory=list)

    def split(self, name: str) -> list[Example]:
        """The examples of ``train``, ``validation`` or ``test``."""
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
        chosen = {}
        for name in SPLITS:
            drawn = sorted(self.split(name), key=lambda example: row_hash(0, example.row))[:rows]
            chosen[name] = sorted(drawn, key=lambda example: example.row)
        return replace(self, train=chosen["train"], validation=chosen["validation"], test=chosen["test"])

    def fingerprint(self) -> str:
        """A hash of every text, pair and label of every split."""
        digest = hashlib.sha256()
        for name in SPLITS:
            for _, text, label, pair in self.split(name):
                digest.update(json.dumps((name, label, text, pair)).encode())  # one string a row, no other's
        return digest.hexdigest()

    def facts(self) -> dict[str, Any]:
        """Rows, labels, empty documents, duplicates and overlaps, for the manifest."""
        return {
            "fingerprint": self.fingerprint(),
            "labels": list(self.names),
            "files": {name: asdict(account) for name, account in self.accounts.items()},
            "splits": {name: found.figures() for name, found in self._surveys.items()},
            "validation_documents_in_train": self._surveys["validation"].counts[OVERLAP],
            "test_documents_in_train": self._surveys["test"].counts[OVERLAP],
            "warnings": self.warnings,
        }

    @property
    def warnings(self) -> list[str]:
        """All there is to say of the corpus: its flaws, and what may be one, each in a line."""
        hints = [hint for account in self.accounts.values() for hint in quoting_hint(account)]
        return self.flaws() + hints

    def flaws(self) -> list[str]:
        """What ``strict_data=true`` refuses, each in a line with its count and the first place."""
        found = [flaw for account in self.accounts.values() for flaw in row_flaws(account)]
        surveys = dict(self._surveys)
        if self.validation == self.test:  # validation=test: said once is enough
            del surveys["validation"]
        return found + self.differences + split_flaws(surveys, self.labels, self.place)

    def refuse_flaws(self) -> None:
        """Refuse a corpus that has any flaw.

        Raises:
            DataError: naming them all.
        """
        if flaws := self.flaws():
            listed = "".join(f"\n  - {flaw}" for flaw in flaws)
            raise DataError(
                f"strict_data=true takes no corpus with flaws; this one has:{listed}",
                where="the files of corpus",
                fix="mend them; or strict_data=false to train on them as they are",
            )

    @cached_property
    def _surveys(self) -> dict[str, SplitStatistics]:
        train, documents = survey(self.train, {})
        others = {name: survey(self.split(name), documents)[0] for name in SPLITS[1:]}
        return {"train": train, **others}

    def place(self, split: str, example: Example) -> str:
        """Where an example of a split stands: file:line where that is known."""
        file = split
        if split == "validation" and file not in self.accounts:
            file = "test" if self.validation == self.test else "train"
        if file not in self.lines:
            return f"row {example.row} of {file}"
        return place(self.accounts[file].file, self.lines[file][example.row])
