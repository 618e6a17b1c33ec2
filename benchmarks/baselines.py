"""What simple models reach on the same test rows: what a trained BERT's accuracy is to be seen beside."""

from __future__ import annotations

import math
import time
from collections import Counter
from collections.abc import Iterator, Sequence
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

import machine
from bunryu.data.examples import Example
from setting import arguments, print_table, reviews, sample

LONGEST = 5  # characters in an n-gram
BUCKETS = 1 << 22  # n-grams are hashed into so many features
PASSES = 12
MINIBATCH = 256
RATE = 0.1
PRIME = np.uint64(0x9E3779B97F4A7C15)  # the golden ratio's 64 bits, an odd multiplier that mixes well


def main() -> None:
    options = arguments(__doc__).parse_args()
    rows = [
        [
            "sample",
            "naive Bayes over words",
            *score_words(sample().examples("train"), sample().examples("test")),
        ]
    ]
    source = reviews(options.corpus_root)
    train, test = source.examples("train"), source.examples("test")
    if options.quick:
        train, test = train[:5000], test[:2000]
    rows.append([source.name, "naive Bayes over words", *score_words(train, test)])
    title = f"linear model on hashed character 1-{LONGEST}-grams"
    rows.append([source.name, title, *score_ngrams(train, test)])
    print(f"Baselines, trained on all of train. {machine.describe()}\n")
    print_table(["corpus", "model", "train rows", "test rows", "test accuracy", "s"], rows)


def score_words(train: Sequence[Example], test: Sequence[Example]) -> list[str]:
    """Unigram naive Bayes over words between blanks, add-one smoothed; words not in train are passed over."""
    start = time.perf_counter()
    counts = {label: Counter[str]() for label in sorted({example.label for example in train})}
    for example in train:
        counts[example.label].update(example.text.split())
    priors = Counter(example.label for example in train)
    known = set().union(*counts.values())
    totals = {label: sum(words.values()) + len(known) for label, words in counts.items()}

    def score(words: list[str], label: str) -> float:
        each = (math.log((counts[label][word] + 1) / totals[label]) for word in words if word in known)
        return math.log(priors[label]) + sum(each)

    hits = sum(
        max(counts, key=lambda label: score(words, label)) == example.label
        for example in test
        for words in [example.text.split()]
    )
    return figures(train, test, hits, start)


@dataclass(frozen=True)
class Sparse:
    """Rows of features: row i's are ``columns[starts[i]:starts[i + 1]]`` with their ``values``."""

    starts: npt.NDArray[np.int64]
    columns: npt.NDArray[np.int64]
    values: npt.NDArray[np.float32]

    def scores(self, weights: npt.NDArray[np.float32]) -> npt.NDArray[np.float64]:
        """Each row's weighted sum."""
        sums = np.concatenate([[0.0], np.cumsum(weights[self.columns] * self.values, dtype=np.float64)])
        return sums[self.starts[1:]] - sums[self.starts[:-1]]


def score_ngrams(train: Sequence[Example], test: Sequence[Example]) -> list[str]:
    """TF-IDF of character n-grams, logistic loss, AdaGrad."""
    start = time.perf_counter()
    counted = count_ngrams([example.text for example in train])
    rarity = np.full(BUCKETS, 1 + math.log(1 + len(train)), dtype=np.float32)
    documents = np.bincount(counted.columns, minlength=BUCKETS)
    rarity -= np.log1p(documents).astype(np.float32)
    weights, bias = fit(weighted(counted, rarity), labels_of(train))
    found = weighted(count_ngrams([example.text for example in test]), rarity).scores(weights) + bias > 0
    return figures(train, test, int((found == labels_of(test)).sum()), start)


def labels_of(examples: Sequence[Example]) -> npt.NDArray[np.bool_]:
    return np.array([example.label == "1" for example in examples])


def count_ngrams(texts: Sequence[str]) -> Sparse:
    """How often each hashed n-gram stands in each text."""
    columns, values, counts = [], [], []
    for first in range(0, len(texts), 10_000):  # bounds the memory of the sort
        part = texts[first : first + 10_000]
        keys, times = np.unique(np.concatenate(list(hashed(part))), return_counts=True)
        columns.append(keys % BUCKETS)
        values.append(times.astype(np.float32))
        counts.append(np.bincount(keys // BUCKETS, minlength=len(part)))
    starts = np.concatenate([[0], np.cumsum(np.concatenate(counts))])
    return Sparse(starts, np.concatenate(columns), np.concatenate(values))


def hashed(texts: Sequence[str]) -> Iterator[npt.NDArray[np.int64]]:
    """For each n, every n-gram of every text as ``text number * BUCKETS + bucket``; blanks frame a text."""
    framed = [f" {' '.join(text.split())} " for text in texts]
    letters = np.frombuffer("".join(framed).encode("utf-32-le", "surrogatepass"), dtype=np.uint32)
    owner = np.repeat(np.arange(len(texts)), [len(text) for text in framed])
    rolling = np.zeros(len(letters), dtype=np.uint64)
    for size in range(1, LONGEST + 1):
        # hash of the n-gram at i from that of the (n-1)-gram at i and the letter after it
        rolling = (rolling[: len(letters) - size + 1] + letters[size - 1 :] + np.uint64(size)) * PRIME
        rolling ^= rolling >> np.uint64(29)
        inside = owner[: len(rolling)] == owner[size - 1 :]
        buckets = (rolling >> np.uint64(20)).astype(np.int64) % BUCKETS
        yield (owner[: len(rolling)] * BUCKETS + buckets)[inside]


def weighted(counted: Sparse, rarity: npt.NDArray[np.float32]) -> Sparse:
    """Sublinear TF times IDF, each row of length 1."""
    values = (1 + np.log(counted.values)) * rarity[counted.columns]
    squares = np.concatenate([[0.0], np.cumsum(values * values, dtype=np.float64)])
    lengths = np.sqrt(squares[counted.starts[1:]] - squares[counted.starts[:-1]])
    values /= np.repeat(np.maximum(lengths, 1e-6), np.diff(counted.starts))
    return Sparse(counted.starts, counted.columns, values.astype(np.float32))


def fit(rows: Sparse, labels: npt.NDArray[np.bool_]) -> tuple[npt.NDArray[np.float32], float]:
    """Logistic regression by AdaGrad over minibatches of neighbouring rows, in another order each pass."""
    random = np.random.Generator(np.random.PCG64(7))
    weights = np.zeros(BUCKETS, dtype=np.float32)
    squares = np.full(BUCKETS, 1e-6, dtype=np.float32)
    bias = 0.0
    bounds = [(first, min(first + MINIBATCH, len(labels))) for first in range(0, len(labels), MINIBATCH)]
    for _ in range(PASSES):
        for number in random.permutation(len(bounds)):
            first, last = bounds[number]
            begin, end = rows.starts[first], rows.starts[last]
            part = Sparse(
                rows.starts[first : last + 1] - begin, rows.columns[begin:end], rows.values[begin:end]
            )
            error = 1 / (1 + np.exp(-(part.scores(weights) + bias))) - labels[first:last]
            touched, where = np.unique(part.columns, return_inverse=True)
            slopes = np.bincount(where, part.values * np.repeat(error, np.diff(part.starts))).astype(
                np.float32
            )
            squares[touched] += slopes * slopes
            weights[touched] -= RATE * slopes / np.sqrt(squares[touched])
            bias -= RATE * float(error.mean())
    return weights, bias


def figures(train: Sequence[Example], test: Sequence[Example], hits: int, start: float) -> list[str]:
    seconds = time.perf_counter() - start
    return [f"{len(train):,}", f"{len(test):,}", f"{hits / len(test):.4f}", f"{seconds:.1f}"]


if __name__ == "__main__":
    main()
