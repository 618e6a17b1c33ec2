"""The corpora of ``conf/corpus``: where their files are, how they are read and split."""

from __future__ import annotations

import re
from collections import deque
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from itertools import islice
from pathlib import Path
from typing import Any

from bunryu.data.cleaner import NO_CLEANING, Cleaner
from bunryu.data.corpus import Corpus
from bunryu.data.examples import FileExamples, label_of, read_examples
from bunryu.data.normalisation import name_of
from bunryu.data.nsmc_download import NSMC, fetch_nsmc, nsmc_file, published_difference
from bunryu.data.rows import RowCounts
from bunryu.data.splits import check_share, sort_labels, split_validation
from bunryu.data.table import TableFormat, format_of, stream_rows
from bunryu.errors import ConfigError, DataError

FIRST_ROWS = 100  # of a file, looked at before anything else is done
MOST_FRACTIONS = 20  # labels such as 0.5 that may be classes: ratings by stars have ten
_NUMBER = re.compile(r"[-+]?[0-9]*\.?[0-9]+")


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
    """The Naver sentiment movie corpus; files that are missing are fetched from where Korpora has them.

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
        encoding: of files that are not UTF-8 and have no byte-order mark; None for parquet.
        quoting: ``csv``, or ``none`` for a file written without quoting.
        positive: the name of the label that the service calls positive; None to go by the names.
        label_names: as in ``Sample``; None to take the labels of train in sorted order.
        delimiter: None for what the suffix says or, where that does not fit, the header shows.

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
    positive: str | int | None = None
    label_names: Mapping[Any, str] | None = None
    cleaner: Cleaner = NO_CLEANING
    delimiter: str | None = None

    def __post_init__(self) -> None:
        if not isinstance(self.label_column, str):
            what = f"the labels stand in several columns, {self.label_column}: a row has one label"
            fix = "corpus.label_column=<a column whose values are the classes>"
            raise ConfigError(what, where="corpus.label_column", fix=fix)
        if not isinstance(self.validation, str):
            check_share(self.validation)
        if self.quoting not in ("csv", "none"):
            raise ConfigError(f"'{self.quoting}' is no quoting", where="corpus.quoting", fix="csv or none")
        texts = [name_of(column) for column in (self.text_column, self.pair_column) if column is not None]
        if name_of(self.label_column) in texts:
            what = f"the label column '{self.label_column}' is also a text column"
            raise ConfigError(what, where="corpus.label_column")
        for name, path in self._files.items():
            if not path.is_file():
                where = f"corpus.{name}={getattr(self, name)}"
                raise ConfigError("no such file", where=where, fix="give the path of a file")
            # a wrong column is known from the first rows
            rows = stream_rows(path, self._columns, self._format(path), RowCounts(path.name))
            deque(islice(rows, FIRST_ROWS), maxlen=0)

    def read(self) -> Corpus:
        columns, paths = self._columns, self._files
        files = {name: read_examples(path, columns, self._format(path)) for name, path in paths.items()}
        labels = sort_labels(example.label for example in files["train"].examples)
        if not self.label_names:
            _refuse_no_classes(labels, len(files["train"].examples))
        label_names = _as_text(self.label_names or {label: label for label in labels})
        if self.positive is not None and str(self.positive) not in label_names.values():
            what = f"no label is shown as '{self.positive}': {list(label_names.values())[:10]}"
            raise ConfigError(what, where="corpus.positive", fix="one of them")
        return _corpus(files, self, label_names)

    def _format(self, path: Path) -> TableFormat:
        return format_of(path, self.encoding, self.quoting, self.delimiter)

    @property
    def _columns(self) -> list[str]:
        pair = [] if self.pair_column is None else [self.pair_column]
        return [self.text_column, self.label_column, *pair]

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
    names = {label_of(key) or str(key): str(name) for key, name in label_names.items()}
    if len(names) < len(label_names):
        what = f"corpus.label_names names a label twice: {list(label_names)}"
        raise ConfigError(what, where="corpus.label_names", fix="corpus.label_names={0: …, 1: …}")
    return names


def _refuse_no_classes(labels: Sequence[str], rows: int) -> None:
    """Refuse labels that are scores or texts, going by how many there are and how they are written."""
    numbers = {float(label) for label in labels if _NUMBER.fullmatch(label)}
    scores = any("." in label for label in labels) and all(map(_NUMBER.fullmatch, labels))
    if scores and (len(labels) > MOST_FRACTIONS or len(numbers) < len(labels)):
        what = (
            f"{len(labels)} labels are numbers from {min(numbers):g} to {max(numbers):g}: scores, no classes"
        )
    elif len(labels) > MOST_FRACTIONS and len(labels) > 0.8 * rows:
        what = f"{rows} rows have {len(labels)} different labels: texts or ids, no classes"
    else:
        return
    fix = "corpus.label_column=<a column of classes>; or name every class in corpus.label_names"
    raise DataError(f"{what} (such as {', '.join(labels[:3])})", where="corpus.label_column", fix=fix)


def _refuse_labels(corpus: Corpus) -> None:
    in_train = {example.label for example in corpus.train}
    if len(corpus.labels) < 2 or len(in_train) < 2:
        what = f"train has only the label {sorted(in_train)}: there is nothing to classify"
        fix = "check the label column, or the file of training rows"
        raise DataError(what, where="corpus.label_column", fix=fix)
    if len(set(map(name_of, corpus.label_names))) != len(corpus.label_names):
        raise ConfigError(f"two labels share a name: {list(corpus.label_names)}", where="corpus.label_names")
    known = in_train.intersection(corpus.labels)
    for name in ("train", "test", "validation"):  # test before validation, which may be a copy of it
        if unknown := [example for example in corpus.split(name) if example.label not in known]:
            labels, first = sorted({example.label for example in unknown}), corpus.place(name, unknown[0])
            fix = "mend those rows, add them to train, or name them in corpus.label_names"
            if unused := [label for label in corpus.labels if label not in in_train]:
                fix += f" (no row has {unused[:10]}: YAML reads an unquoted 010 as 8, so quote it, '010')"
            what = f"labels that {name} has and train or corpus.label_names has not: {labels[:10]}"
            raise DataError(f"{what}; first: {first}", where=f"corpus.{name}", fix=fix)
