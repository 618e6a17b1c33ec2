"""Corpora: where documents come from, how they are split, and what became of every row."""

from __future__ import annotations

import hashlib
import math
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import asdict, dataclass, field, replace
from pathlib import Path
from typing import Any, NamedTuple

from bunryu.download import fetch_nsmc, published_difference
from bunryu.errors import ConfigError, DataError
from bunryu.tables import Account, TableFormat, format_of, read_rows
from bunryu.text import NOTHING, Cleaner

SPLITS = ("train", "validation", "test")


class Example(NamedTuple):
    """One labelled document; ``row`` is its place in its file, counted from 0 over the rows used."""

    row: int
    text: str
    label: str
    pair: str | None = None


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
        """The same corpus with at most ``rows`` examples a split (None: all)."""
        if rows is None:
            return self
        return replace(self, **{name: self.split(name)[:rows] for name in SPLITS})

    def fingerprint(self) -> str:
        """A hash of every text, pair and label of every split."""
        digest = hashlib.sha256()
        for name in SPLITS:
            for _, text, label, pair in self.split(name):
                digest.update(f"{name}\x1f{label}\x1f{text}\x1f{pair or ''}\x1e".encode("utf-8", "surrogatepass"))
        return digest.hexdigest()

    def facts(self) -> dict[str, Any]:
        """Rows, labels, empty documents, duplicates and overlaps, for the manifest."""
        train_texts = {(example.text, example.pair) for example in self.train}
        return {
            "fingerprint": self.fingerprint(),
            "labels": list(self.names),
            "files": {name: asdict(account) for name, account in self.accounts.items()},
            "splits": {name: _describe(self.split(name)) for name in SPLITS},
            "test_documents_in_train": sum((e.text, e.pair) in train_texts for e in self.test),
            "warnings": self.warnings,
        }


def _describe(examples: list[Example]) -> dict[str, Any]:
    labels: dict[str, int] = {}
    seen: dict[tuple[str, str | None], set[str]] = {}
    for example in examples:
        labels[example.label] = labels.get(example.label, 0) + 1
        seen.setdefault((example.text, example.pair), set()).add(example.label)
    return {
        "rows": len(examples),
        "labels": dict(sorted(labels.items())),
        "empty_documents": sum(not example.text.strip() for example in examples),
        "duplicate_documents": len(examples) - len(seen),
        "conflicting_documents": sum(len(found) > 1 for found in seen.values()),
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
    """A user's own csv, tsv or jsonl files.

    Args:
        name: how runs on it are named.
        train: the file of training rows.
        validation: a file, a share of train, or ``test`` to validate on the test file.
        test: a file, or None.
        text_column: the column of the documents.
        label_column: the column of the labels, text or integers.
        pair_column: the column of a second sentence, or None.
        encoding: None for UTF-8 (or what a byte-order mark says).
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
        for key in ("train", "validation", "test"):
            path = getattr(self, key)
            if isinstance(path, str) and path != "test" and not Path(path).expanduser().is_file():
                raise ConfigError("no such file", where=f"corpus.{key}={path}", fix="give the path of a file")
        if self.quoting not in ("csv", "none"):
            raise ConfigError(f"'{self.quoting}' is no quoting", where="corpus.quoting", fix="csv or none")

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
        names = {str(key): value for key, value in (self.label_names or {}).items()}
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


def read_examples(
    path: Path, columns: Sequence[str], form: TableFormat, allowed: Sequence[str] | None = None
) -> tuple[list[Example], Account]:
    """Examples of a file whose columns are text, label and, as a third, the pair.

    A document may be empty: it is used and counted. A row is rejected if its text is no text, or its
    label is empty, neither text nor integer, or not among ``allowed``.

    Raises:
        DataError: if no row can be used.
    """
    rows, account = read_rows(path, columns, form)
    examples: list[Example] = []
    for line, values in rows:
        text, label = values[0], values[1]
        pair = values[2] if len(values) > 2 else None
        if not isinstance(text, str) or not isinstance(pair, str | None):
            account.reject(line, "text is not a string")
        elif not isinstance(label, str | int) or isinstance(label, bool):
            account.reject(line, "label is neither text nor an integer")
        elif (name := str(label).strip()) == "":
            account.reject(line, "empty label")
        elif allowed is not None and name not in allowed:
            account.reject(line, f"unknown label '{name[:40]}'")
        else:
            examples.append(Example(len(examples), text, name, pair))
    account.used = len(examples)
    if not examples:
        reasons = "; ".join(account.rejected_rows[:3]) or "it has a header only"
        raise DataError("no row of the file can be used", where=str(path), fix=reasons)
    return examples, account


def carve(
    train: list[Example], test: list[Example], share: float | str, seed: int
) -> tuple[list[Example], list[Example]]:
    """Split validation off train, each label by the same share, or take the test rows (``"test"``).

    The draw orders rows by a hash of (seed, row), so it depends on no library's random numbers.

    Raises:
        ConfigError: if the share leaves nothing to train on or to validate on.
    """
    if share == "test":
        if not test:
            raise ConfigError("there is no test split to validate on", where="corpus.validation=test")
        return train, list(test)
    if isinstance(share, str) or not 0 < share < 1:
        raise ConfigError(
            f"validation is {share!r}", where="corpus.validation", fix="a share between 0 and 1, or 'test'"
        )
    by_label: dict[str, list[Example]] = {}
    for example in train:
        by_label.setdefault(example.label, []).append(example)
    chosen: set[int] = set()
    for examples in by_label.values():
        drawn = sorted(examples, key=lambda example: _draw(seed, example.row))
        chosen.update(example.row for example in drawn[: math.floor(len(drawn) * share + 0.5)])
    if not 0 < len(chosen) < len(train):
        raise ConfigError(
            f"{share} of {len(train)} rows leaves {len(train) - len(chosen)} to train on and "
            f"{len(chosen)} to validate on",
            where="corpus.validation",
            fix="another share, or a file of validation rows",
        )
    return [e for e in train if e.row not in chosen], [e for e in train if e.row in chosen]


def _draw(seed: int, row: int) -> bytes:
    return hashlib.blake2b(f"{seed}:{row}".encode(), digest_size=8).digest()


def sort_labels(labels: Iterable[str]) -> tuple[str, ...]:
    """Distinct labels, integers by value, anything else by code point."""
    distinct = set(labels)
    if all(label.removeprefix("-").isdecimal() for label in distinct):
        return tuple(sorted(distinct, key=int))
    return tuple(sorted(distinct))


def _read_nsmc(
    folder: Path, label_names: Mapping[int, str], validation: float | str, seed: int, cleaner: Cleaner
) -> Corpus:
    labels = tuple(str(key) for key in label_names)
    form = TableFormat("tsv", one_line_rows=True)
    files = {name: folder / f"ratings_{name}.txt" for name in ("train", "test")}
    read = {name: read_examples(path, ["document", "label"], form, labels) for name, path in files.items()}
    accounts = {name: account for name, (_, account) in read.items()}
    train, carved = carve(read["train"][0], read["test"][0], validation, seed)
    names = tuple(label_names.values())
    return _checked(Corpus(train, carved, read["test"][0], labels, names, cleaner, accounts))


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
    rejected = [
        f"{account.file}: {sum(account.rejected.values())} of {account.read} rows rejected "
        f"({', '.join(f'{count} {reason}' for reason, count in account.rejected.items())}); "
        f"first: {account.rejected_rows[0]}"
        for account in corpus.accounts.values()
        if account.rejected
    ]
    return replace(corpus, warnings=corpus.warnings + rejected)
