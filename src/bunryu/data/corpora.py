"""The corpora of ``conf/corpus``: where their files are, how they are read and split."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from bunryu.data.cleaner import NO_CLEANING, Cleaner
from bunryu.data.corpus import Corpus
from bunryu.data.examples import FileExamples, read_examples
from bunryu.data.nsmc_download import NSMC, fetch_nsmc, nsmc_file, published_difference
from bunryu.data.splits import check_share, sort_labels, split_validation
from bunryu.data.table import TableFormat, format_of
from bunryu.errors import ConfigError, DataError


@dataclass(frozen=True)
class Sample:
    """The made-up film reviews that come with bunryu, in NSMC's file format.

    Args:
        name: part of the name of a run's folder.
        validation: a share of train, or ``test`` to validate on the test split.
        split_seed: decides which rows of train become validation.
        label_names: label in the files -> label shown; its order gives the class ids.
        cleaner: applied to every text before it is encoded.
    """

    name: str
    validation: float | str
    split_seed: int
    label_names: Mapping[int, str]
    cleaner: Cleaner = NO_CLEANING

    def __post_init__(self) -> None:
        check_share(self.validation)

    def read(self) -> Corpus:
        return _read_nsmc(Path(__file__).parent / "sample", self)


@dataclass(frozen=True)
class Nsmc:
    """The Naver sentiment movie corpus; Korpora fetches the files that are missing.

    Args:
        root_dir: Korpora's folder; the files are ``root_dir/nsmc/ratings_{train,test}.txt``.
        force_download: fetch again even if the files are there; None to fetch nothing.

    The rest is as in ``Sample``.
    """

    name: str
    root_dir: str
    force_download: bool | None
    validation: float | str
    split_seed: int
    label_names: Mapping[int, str]
    cleaner: Cleaner = NO_CLEANING

    def __post_init__(self) -> None:
        check_share(self.validation)

    def read(self) -> Corpus:
        folder = Path(self.root_dir).expanduser() / "nsmc"
        fetch_nsmc(folder.parent, force=self.force_download)
        corpus = _read_nsmc(folder, self)
        differences = [published_difference(folder, name, corpus.row_counts[name].read) for name in NSMC]
        return replace(corpus, differences=[difference for difference in differences if difference])


@dataclass(frozen=True)
class Table:
    """A user's own csv, tsv, jsonl or parquet files.

    Args:
        train: the file of training rows.
        validation: a file, a share of train, or ``test`` to validate on the test file.
        test: a file, or None.
        label_column: the column of the labels, text or integers.
        pair_column: the column of second sentences, or None.
        encoding: None for UTF-8 (or what a byte-order mark says), and for parquet.
        quoting: ``csv``, or ``none`` for a file written without quoting.
        label_names: as in ``Sample``; None to take the labels of train in sorted order.

    The rest is as in ``Sample``.
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
        if not isinstance(self.validation, str):
            check_share(self.validation)
        for name, path in self._files.items():
            if not path.is_file():
                where = f"corpus.{name}={getattr(self, name)}"
                raise ConfigError("no such file", where=where, fix="give the path of a file")
            format_of(path, self.encoding, self.quoting)
        if self.quoting not in ("csv", "none"):
            raise ConfigError(f"'{self.quoting}' is no quoting", where="corpus.quoting", fix="csv or none")
        if self.label_column in (self.text_column, self.pair_column):
            what = f"the label column '{self.label_column}' is also a text column"
            raise ConfigError(what, where="corpus.label_column")

    def read(self) -> Corpus:
        columns = [self.text_column, self.label_column]
        columns += [self.pair_column] if self.pair_column is not None else []
        files = {}
        for name, path in self._files.items():
            files[name] = read_examples(path, columns, format_of(path, self.encoding, self.quoting))
        labels = sort_labels(example.label for example in files["train"].examples)
        return _corpus(files, self, _as_text(self.label_names or {label: label for label in labels}))

    @property
    def _files(self) -> dict[str, Path]:
        validation = None if self.validation == "test" else self.validation
        given = {"train": self.train, "test": self.test, "validation": validation}
        return {name: Path(path).expanduser() for name, path in given.items() if isinstance(path, str)}


def _read_nsmc(folder: Path, config: Sample | Nsmc) -> Corpus:
    label_names = _as_text(config.label_names)
    columns, format = ["document", "label"], TableFormat("tsv", one_line_rows=True)
    files = {name: read_examples(nsmc_file(folder, name), columns, format, [*label_names]) for name in NSMC}
    return _corpus(files, config, label_names)


def _corpus(
    files: Mapping[str, FileExamples], config: Sample | Nsmc | Table, label_names: Mapping[str, str]
) -> Corpus:
    """The corpus of these files, by split; without a file of its own, validation is taken from the others."""
    train, test = files["train"].examples, files["test"].examples if "test" in files else []
    if "validation" in files:
        validation = files["validation"].examples
    else:
        train, validation = split_validation(train, test, config.validation, config.split_seed)
    corpus = Corpus(
        train, validation, test, tuple(label_names), tuple(label_names.values()), config.cleaner,
        {name: file.counts for name, file in files.items()},
        {name: file.lines for name, file in files.items()},
    )  # fmt: skip
    _refuse_labels(corpus)
    return corpus


def _as_text(label_names: Mapping[Any, str]) -> dict[str, str]:
    """Label -> name, both as text; refused if a number and the same number as text are both labels."""
    names = {str(key): str(name) for key, name in label_names.items()}
    if len(names) < len(label_names):
        what = f"corpus.label_names names a label twice: {list(label_names)}"
        raise ConfigError(what, where="corpus.label_names", fix="corpus.label_names={0: …, 1: …}")
    return names


def _refuse_labels(corpus: Corpus) -> None:
    in_train = {example.label for example in corpus.train}
    if len(corpus.labels) < 2 or len(in_train) < 2:
        what = f"train has only the label {sorted(in_train)}: there is nothing to classify"
        fix = "check the label column, or the file of training rows"
        raise DataError(what, where="corpus.label_column", fix=fix)
    if len(set(corpus.label_names)) != len(corpus.label_names):
        raise ConfigError(f"two labels share a name: {list(corpus.label_names)}", where="corpus.label_names")
    known = in_train.intersection(corpus.labels)
    for name in ("train", "test", "validation"):  # test before validation, which may be a copy of it
        if unknown := [example for example in corpus.split(name) if example.label not in known]:
            labels = sorted({example.label for example in unknown})
            raise DataError(
                f"labels that {name} has and train or corpus.label_names has not: {labels[:10]}; "
                f"first: {corpus.place(name, unknown[0])}",
                where=f"corpus.{name}",
                fix="mend those rows, add them to train, or name them in corpus.label_names",
            )
