"""Corpora: where documents come from, how they are split, and what became of every row."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Mapping
from dataclasses import asdict, dataclass, field, replace
from pathlib import Path
from typing import Any

from bunryu.download import fetch_nsmc, published_difference
from bunryu.errors import ConfigError, DataError
from bunryu.examples import Example, read_examples
from bunryu.splits import carve, check_share, describe, draw, sort_labels
from bunryu.tables import SPANNING, Account, TableFormat, format_of
from bunryu.text import NOTHING, Cleaner

SPLITS = ("train", "validation", "test")


@dataclass(frozen=True)
class Corpus:
    """What training needs of a corpus: the splits, the labels in id order, and the account of rows."""

    train: list[Example]
    validation: list[Example]
    test: list[Example]
    labels: tuple[str, ...]
    names: tuple[str, ...]
    cleaner: Cleaner
    accounts: dict[str, Account]
    warnings: list[str] = field(default_factory=list)

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
            drawn = sorted(self.split(name), key=lambda example: draw(0, example.row))[:rows]
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
        train_texts = {(example.text, example.pair) for example in self.train}
        return {
            "fingerprint": self.fingerprint(),
            "labels": list(self.names),
            "files": {name: asdict(account) for name, account in self.accounts.items()},
            "splits": {name: describe(self.split(name)) for name in SPLITS},
            "test_documents_in_train": sum((e.text, e.pair) in train_texts for e in self.test),
            "warnings": self.warnings,
        }


@dataclass(frozen=True)
class Sample:
    """The made-up film reviews that come along, in NSMC's file format.

    Args:
        name: how runs on it are named.
        validation: a share of train, or ``test`` to validate on the test split.
        split_seed: draws the validation rows.
        label_names: label in the files -> label shown; its order gives the class ids.
        cleaner: what happens to a text before it is encoded.
    """

    name: str
    validation: float | str
    split_seed: int
    label_names: Mapping[int, str]
    cleaner: Cleaner = NOTHING

    def __post_init__(self) -> None:
        check_share(self.validation, files=False)

    def read(self) -> Corpus:
        """Read both files and carve out validation."""
        folder = Path(__file__).parent / "sample"
        return _read_nsmc(folder, self.label_names, self.validation, self.split_seed, self.cleaner)


@dataclass(frozen=True)
class Nsmc:
    """The Naver sentiment movie corpus: read where it lies, fetched by Korpora where it is missing.

    Args:
        name: how runs on it are named.
        root_dir: Korpora's folder; the files are ``root_dir/nsmc/ratings_{train,test}.txt``.
        force_download: fetch again even if the files are there.
        validation: a share of train, or ``test`` to validate on the test split (the tutorial's way).
        split_seed: draws the validation rows.
        label_names: label in the files -> label shown; its order gives the class ids.
        cleaner: what happens to a text before it is encoded.
    """

    name: str
    root_dir: str
    force_download: bool
    validation: float | str
    split_seed: int
    label_names: Mapping[int, str]
    cleaner: Cleaner = NOTHING

    def __post_init__(self) -> None:
        check_share(self.validation, files=False)

    def read(self) -> Corpus:
        """Read both files, carve out validation, and say how they differ from the published ones."""
        folder = Path(self.root_dir).expanduser() / "nsmc"
        fetch_nsmc(folder.parent, force=self.force_download)
        corpus = _read_nsmc(folder, self.label_names, self.validation, self.split_seed, self.cleaner)
        differences = [
            difference
            for split in ("train", "test")
            if (difference := published_difference(folder, split, corpus.accounts[split].read))
        ]
        return replace(corpus, warnings=corpus.warnings + differences)


@dataclass(frozen=True)
class Table:
    """A user's own csv, tsv, jsonl or parquet files.

    Args:
        name: how runs on it are named.
        train: the file of training rows.
        validation: a file, a share of train, or ``test`` to validate on the test file.
        test: a file, or None.
        text_column: the column of the documents.
        label_column: the column of the labels, text or integers.
        pair_column: the column of a second sentence, or None.
        encoding: None for UTF-8 (or what a byte-order mark says), and for parquet.
        quoting: ``csv``, or ``none`` for a file written without quoting.
        split_seed: draws the validation rows.
        label_names: label in the file -> label shown, its order giving the class ids; None to take the
            labels of train in sorted order.
        cleaner: what happens to a text before it is encoded.
    """

    name: str
    train: str
    validation: float | str
    test: str | None
    text_column: str
    label_column: str
    pair_column: str | None
    encoding: str | None
    quoting: str
    split_seed: int
    label_names: Mapping[Any, str] | None = None
    cleaner: Cleaner = NOTHING

    def __post_init__(self) -> None:
        check_share(self.validation, files=True)
        for key in ("train", "validation", "test"):
            path = getattr(self, key)
            if isinstance(path, str) and path != "test" and not Path(path).expanduser().is_file():
                raise ConfigError("no such file", where=f"corpus.{key}={path}", fix="give the path of a file")
            if isinstance(path, str) and path != "test":
                format_of(Path(path), self.encoding, self.quoting)
        if self.quoting not in ("csv", "none"):
            raise ConfigError(f"'{self.quoting}' is no quoting", where="corpus.quoting", fix="csv or none")
        if self.label_column in (self.text_column, self.pair_column):
            raise ConfigError(
                f"the label column '{self.label_column}' is also a text column", where="corpus.label_column"
            )

    def read(self) -> Corpus:
        """Read the files and carve out validation if it is a share."""
        accounts: dict[str, Account] = {}
        train, accounts["train"] = self._read(self.train)
        test: list[Example] = []
        if self.test is not None:
            test, accounts["test"] = self._read(self.test)
        own = isinstance(self.validation, str) and self.validation != "test"
        if own:
            validation, accounts["validation"] = self._read(str(self.validation))
        else:
            train, validation = carve(train, test, self.validation, self.split_seed)
        names = _names(self.label_names or {})
        labels = tuple(names) or sort_labels(example.label for example in train)
        corpus = Corpus(
            train, validation, test, labels, tuple(names.get(n, n) for n in labels), self.cleaner, accounts
        )
        return _checked(corpus)

    def _read(self, file: str) -> tuple[list[Example], Account]:
        path = Path(file).expanduser()
        columns = [self.text_column, self.label_column]
        columns += [self.pair_column] if self.pair_column is not None else []
        form = format_of(path, self.encoding, self.quoting)
        return read_examples(path, columns, form)


def _read_nsmc(
    folder: Path, label_names: Mapping[int, str], validation: float | str, seed: int, cleaner: Cleaner
) -> Corpus:
    shown = _names(label_names)
    labels = tuple(shown)
    form = TableFormat("tsv", one_line_rows=True)
    files = {name: folder / f"ratings_{name}.txt" for name in ("train", "test")}
    read = {name: read_examples(path, ["document", "label"], form, labels) for name, path in files.items()}
    accounts = {name: account for name, (_, account) in read.items()}
    train, carved = carve(read["train"][0], read["test"][0], validation, seed)
    names = tuple(shown.values())
    return _checked(Corpus(train, carved, read["test"][0], labels, names, cleaner, accounts))


def _names(label_names: Mapping[Any, str]) -> dict[str, str]:
    """Label as text -> name shown; a number and the same as text would be two classes for one label."""
    names = {str(key): str(name) for key, name in label_names.items()}
    if len(names) < len(label_names):
        raise ConfigError(
            f"corpus.label_names names a label twice: {list(label_names)}",
            where="corpus.label_names",
            fix="corpus.label_names={0: …, 1: …}",
        )
    return names


def _checked(corpus: Corpus) -> Corpus:
    """The corpus, with warnings; refused where a label could never be learnt or a class is alone."""
    known = {example.label for example in corpus.train}
    if len(corpus.labels) < 2 or len(known) < 2:
        raise DataError(
            f"train has only the label {sorted(known)}: there is nothing to classify",
            where="corpus.label_column",
            fix="check the label column, or the file of training rows",
        )
    if len(set(corpus.names)) != len(corpus.names):
        raise ConfigError(f"two labels share a name: {list(corpus.names)}", where="corpus.label_names")
    for name in SPLITS:
        strange = sorted({e.label for e in corpus.split(name)} - known.intersection(corpus.labels))
        if strange:
            raise DataError(
                f"labels that {name} has and train or corpus.label_names has not: {strange[:10]}",
                where=f"corpus.{name}",
                fix="mend those rows, add them to train, or name them in corpus.label_names",
            )
    unlearnt = [label for label in corpus.labels if label not in known]
    warnings = [f"train has no row of corpus.label_names' {unlearnt}: never predicted"] if unlearnt else []
    for account in corpus.accounts.values():
        warnings += _warnings(account)
    return replace(corpus, warnings=corpus.warnings + warnings)


def _warnings(account: Account) -> list[str]:
    found = []
    if account.rejected:
        reasons = ", ".join(f"{count} {reason}" for reason, count in account.rejected.items())
        found.append(
            f"{account.file}: {sum(account.rejected.values())} of {account.read} rows rejected ({reasons}); "
            f"first: {account.rejected_rows[0]}"
        )
    if "stray quote" in account.rejected or SPANNING in account.notes:
        found.append(
            f"{account.file}: {account.lines} lines gave {account.read} rows, "
            f"{account.notes.get(SPANNING, 0)} of them over several lines; "
            "if it was written without quoting, set corpus.quoting=none"
        )
    return found
