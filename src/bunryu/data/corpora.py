"""Corpora: where documents come from, and how they are split."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from bunryu.data.cleaner import NO_CLEANING, Cleaner
from bunryu.data.corpus import Corpus
from bunryu.data.examples import LocatedExamples, locate_examples
from bunryu.data.nsmc_download import fetch_nsmc, published_difference
from bunryu.data.splits import check_share, sort_labels, split_validation
from bunryu.data.table import RowCounts, TableFormat, format_of
from bunryu.errors import ConfigError, DataError


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
    cleaner: Cleaner = NO_CLEANING

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
    cleaner: Cleaner = NO_CLEANING

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
        return replace(corpus, differences=differences)


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
    cleaner: Cleaner = NO_CLEANING

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
        files = {"train": self._read(self.train)}
        if self.test is not None:
            files["test"] = self._read(self.test)
        train, test = files["train"].examples, files["test"].examples if "test" in files else []
        if isinstance(self.validation, str) and self.validation != "test":
            files["validation"] = self._read(self.validation)
            validation = files["validation"].examples
        else:
            train, validation = split_validation(train, test, self.validation, self.split_seed)
        names = _names(self.label_names or {})
        labels = tuple(names) or sort_labels(example.label for example in train)
        shown = tuple(names.get(label, label) for label in labels)
        return _checked(Corpus(train, validation, test, labels, shown, self.cleaner, *_sources(files)))

    def _read(self, file: str) -> LocatedExamples:
        path = Path(file).expanduser()
        columns = [self.text_column, self.label_column]
        columns += [self.pair_column] if self.pair_column is not None else []
        form = format_of(path, self.encoding, self.quoting)
        return locate_examples(path, columns, form)


def _read_nsmc(
    folder: Path, label_names: Mapping[int, str], validation: float | str, seed: int, cleaner: Cleaner
) -> Corpus:
    shown = _names(label_names)
    labels = tuple(shown)
    form = TableFormat("tsv", one_line_rows=True)
    files = {name: folder / f"ratings_{name}.txt" for name in ("train", "test")}
    read = {name: locate_examples(path, ["document", "label"], form, labels) for name, path in files.items()}
    train, carved = split_validation(read["train"].examples, read["test"].examples, validation, seed)
    names = tuple(shown.values())
    return _checked(Corpus(train, carved, read["test"].examples, labels, names, cleaner, *_sources(read)))


def _sources(files: Mapping[str, LocatedExamples]) -> tuple[dict[str, RowCounts], dict[str, Sequence[int]]]:
    """The accounts and the lines of the files, by name."""
    accounts = {name: file.account for name, file in files.items()}
    return accounts, {name: file.lines for name, file in files.items()}


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
    """The corpus; refused where a label could never be learnt or a class is alone."""
    known = {example.label for example in corpus.train}
    if len(corpus.labels) < 2 or len(known) < 2:
        raise DataError(
            f"train has only the label {sorted(known)}: there is nothing to classify",
            where="corpus.label_column",
            fix="check the label column, or the file of training rows",
        )
    if len(set(corpus.names)) != len(corpus.names):
        raise ConfigError(f"two labels share a name: {list(corpus.names)}", where="corpus.label_names")
    for name in ("train", "test", "validation"):  # test before what may be a copy of it
        learnt = known.intersection(corpus.labels)
        if strange := [example for example in corpus.split(name) if example.label not in learnt]:
            labels = sorted({example.label for example in strange})
            raise DataError(
                f"labels that {name} has and train or corpus.label_names has not: {labels[:10]}; "
                f"first: {corpus.place(name, strange[0])}",
                where=f"corpus.{name}",
                fix="mend those rows, add them to train, or name them in corpus.label_names",
            )
    return corpus
