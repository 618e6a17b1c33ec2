"""sample/: the made-up reviews are many, balanced, distinct, and neither trivial nor hopeless to classify."""

from __future__ import annotations

import itertools
import math
from collections import Counter, defaultdict
from pathlib import Path

import pytest

import bunryu
from bunryu.data.corpora import Corpus, Sample
from bunryu.data.examples import Example

FOLDER = Path(bunryu.__path__[0]) / "data/sample"


@pytest.fixture(scope="module")
def sample() -> Corpus:
    """All 100% of train in ``train``."""
    return Sample("sample", "test", 42, {0: "부정", 1: "긍정"}).read()


def rows(sample: Corpus, where: str) -> list[Example]:
    return {"train": sample.train, "test": sample.test, "both": sample.train + sample.test}[where]


def bigrams(text: str) -> set[tuple[str, str]]:
    words = text.split()
    return set(itertools.pairwise(words))


def test_there_are_enough_rows_and_all_are_used(sample: Corpus) -> None:
    assert len(sample.train) >= 1_200
    assert len(sample.test) >= 300
    for account in sample.accounts.values():
        assert (account.read, account.rejected, account.notes) == (account.used, {}, {})


@pytest.mark.parametrize("split", ["train", "test"])
def test_labels_are_balanced_within_a_hundredth(sample: Corpus, split: str) -> None:
    counts = Counter(example.label for example in rows(sample, split))
    assert set(counts) == {"0", "1"}
    assert abs(counts["0"] - counts["1"]) <= 0.01 * counts.total()


def test_the_files_are_in_nsmcs_own_format() -> None:
    ids = []
    for split in ("train", "test"):
        raw = (FOLDER / f"ratings_{split}.txt").read_bytes()
        assert raw.startswith(b"id\tdocument\tlabel\n")
        assert raw.endswith(b"\n")
        assert b"\r" not in raw
        fields = [line.split("\t") for line in raw.decode("utf-8").split("\n")[1:-1]]
        assert {len(row) for row in fields} == {3}
        assert {row[2] for row in fields} == {"0", "1"}
        ids += [int(row[0]) for row in fields]
    assert len(set(ids)) == len(ids)


def test_no_two_texts_are_alike(sample: Corpus) -> None:
    texts = [" ".join(example.text.split()) for example in rows(sample, "both")]
    assert [text for text, count in Counter(texts).items() if count > 1] == []
    assert "" not in texts


def test_no_test_row_shares_more_than_half_its_bigrams_with_any_train_row(sample: Corpus) -> None:
    holders: dict[tuple[str, str], list[int]] = defaultdict(list)
    for example in sample.train:
        for bigram in bigrams(example.text):
            holders[bigram].append(example.row)
    too_close = []
    for example in sample.test:
        own = bigrams(example.text)
        shared = Counter(row for bigram in own for row in holders[bigram])
        if shared and max(shared.values()) > len(own) / 2:
            too_close.append(example.text)
    assert too_close == []


@pytest.mark.parametrize("where", ["train", "test", "both"])
def test_no_word_gives_one_label_away(sample: Corpus, where: str) -> None:
    """A word that stands in the rows of one label only stands in at most 3% of them."""
    rows_with: dict[str, Counter[str]] = defaultdict(Counter)
    of_label: Counter[str] = Counter()
    for example in rows(sample, where):
        of_label[example.label] += 1
        for word in set(example.text.split()):
            rows_with[word][example.label] += 1
    telling = {
        word: dict(counts)
        for word, counts in rows_with.items()
        if len(counts) == 1 and all(count > 0.03 * of_label[label] for label, count in counts.items())
    }
    assert telling == {}


def test_naive_bayes_finds_it_neither_trivial_nor_hopeless(sample: Corpus) -> None:
    words: dict[str, Counter[str]] = {"0": Counter(), "1": Counter()}
    for example in sample.train:
        words[example.label].update(example.text.split())
    vocabulary = len(words["0"] | words["1"])

    def score(text: str, label: str) -> float:
        prior = math.log(sum(example.label == label for example in sample.train))
        total = words[label].total() + vocabulary
        return prior + sum(math.log((words[label][word] + 1) / total) for word in text.split())

    right = sum(
        (score(example.text, "1") > score(example.text, "0")) == (example.label == "1")
        for example in sample.test
    )
    assert 0.70 <= right / len(sample.test) <= 0.90
