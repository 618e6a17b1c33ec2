"""Preparing 150,000 reviews with a given vocabulary: bunryu against the tutorial's recipe.

Each measurement is a process of its own, so that its peak of memory is its own.
"""

from __future__ import annotations

import json
import pickle
import statistics
import subprocess
import sys
import tempfile
import time
import zipfile
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import machine
from bunryu.system.machine import peak_memory, resident_memory
from setting import SHARED, Reviews, arguments, print_table, reviews

ROWS, LENGTH = 150_000, 128
CACHE = "tutorial.pt"


@dataclass
class Feature:
    """What the tutorial keeps of a document."""

    input_ids: list[int]
    attention_mask: list[int]
    token_type_ids: list[int]
    label: int


class NoGlobals(pickle.Unpickler):
    """An unpickler for plain lists, dicts and numbers, which refuses to import anything."""

    def find_class(self, module: str, name: str) -> Any:
        raise pickle.UnpicklingError(f"{module}.{name} is no plain value")


def main() -> None:
    parser = arguments(__doc__)
    parser.add_argument(
        "--step", nargs=2, metavar=("NAME", "FOLDER"), help="one measurement, in this process"
    )
    options = parser.parse_args()
    if options.step is not None:
        print(json.dumps(step(options.step[0], Path(options.step[1]))))
        return
    rows, rounds = (2000, 1) if options.quick else (ROWS, 3)
    source = reviews(options.corpus_root)
    with tempfile.TemporaryDirectory() as folder:
        root = Path(folder)
        source.copy(root, "train", 0, rows)
        given = own_process("given", root)
        measured: dict[str, list[dict[str, float]]] = {name: [] for name in STEPS}
        for _ in range(rounds):
            for name in STEPS:
                # torch's own reader of untrusted files is Python and slow: once is enough to show it
                if name != "torch.load" or not measured[name]:
                    measured[name].append(own_process(name, root))
    report(source, rows, rounds, given["tokens"], measured)


def own_process(name: str, root: Path) -> dict[str, float]:
    command = [sys.executable, __file__, "--step", name, str(root)]
    finished = subprocess.run(command, stdout=subprocess.PIPE, text=True, check=True)
    figures: dict[str, float] = json.loads(finished.stdout.splitlines()[-1])
    return figures


def step(name: str, root: Path) -> dict[str, float]:
    """Seconds of one step and the memory it added at its peak over what its imports took, in MB."""
    if name == "given":
        return {"tokens": given(root)}
    work = STEPS[name](root)
    before = resident_memory() or peak_memory()
    start = time.perf_counter()
    kept = work()
    seconds = time.perf_counter() - start
    added = (peak_memory() - before) / 2**20
    del kept
    return {"seconds": seconds, "megabytes": added}


def given(root: Path) -> int:
    """Put a vocab.txt (KcBERT's where it lies) and a warm cache into the folder; returns its tokens."""
    from bunryu.data.cleaner import NO_CLEANING
    from bunryu.encoding.vocabulary import learn_wordpiece

    published = SHARED / "models" / "kcbert-base" / "vocab.txt"
    if published.is_file():
        vocabulary = published.read_text("utf-8").rstrip("\n").split("\n")
    else:
        texts = [example.text for example in Reviews("", root).examples("train")]
        vocabulary = learn_wordpiece(texts, 30_000, NO_CLEANING, root / "cache")
    (root / "vocab.txt").write_text("\n".join(vocabulary), "utf-8")
    encode(encoder_of(root, root / "warm"), root)
    return len(vocabulary)


def tokenizer(root: Path) -> Any:
    from transformers import BertTokenizer

    tokens = (root / "vocab.txt").read_text("utf-8").split("\n")
    vocabulary = {token: index for index, token in enumerate(tokens)}
    return BertTokenizer(vocab=vocabulary, do_lower_case=False, strip_accents=False)


def bunryu(root: Path) -> Callable[[], Any]:
    """File to cached arrays, from nothing."""
    encoder = encoder_of(root, Path(tempfile.mkdtemp(dir=root)))
    return lambda: encode(encoder, root)


def encoder_of(root: Path, cache: Path) -> Any:
    from bunryu.data.cleaner import NO_CLEANING
    from bunryu.encoding.encoder import Encoder

    return Encoder(tokenizer(root), NO_CLEANING, cache, overwrite=False)


def encode(encoder: Any, root: Path) -> Any:
    examples = Reviews("", root).examples("train")
    labels, rows = [int(example.label) for example in examples], [example.row for example in examples]
    return encoder.encode([example.text for example in examples], None, labels, rows)


def bunryu_again(root: Path) -> Callable[[], Any]:
    """File to arrays when the cache is there: the file is read and hashed, the cache checked and mapped."""
    encoder = encoder_of(root, root / "warm")
    return lambda: encode(encoder, root)


def bunryu_texts(root: Path) -> Callable[[], Any]:
    """The same with the texts in memory: their content is hashed, the cache checked and mapped."""
    encoder = encoder_of(root, root / "warm")
    texts = [example.text for example in Reviews("", root).examples("train")]
    zeros = [0] * len(texts)
    return lambda: encoder.encode(texts, None, zeros, zeros)


def bunryu_map(root: Path) -> Callable[[], Any]:
    """The cache alone, checked and mapped, which is what the tutorial's own reload does with its file."""
    from bunryu.encoding.cache import load_arrays

    encoder = encoder_of(root, root / "warm")
    folder = root / "warm" / "encodings" / encoder.key([e.text for e in Reviews("", root).examples("train")])
    return lambda: load_arrays(folder)


def tutorial(root: Path) -> Callable[[], Any]:
    """File to a pickled list, as the tutorial's recipe has it: every document padded, an object each."""
    import torch

    tokens = tokenizer(root)

    def work() -> Any:
        with open(root / "ratings_train.txt", encoding="utf-8") as file:
            lines = [line.rstrip("\n").split("\t") for line in file][1:]
        encoded = tokens(
            [document for _, document, _ in lines], max_length=LENGTH, padding="max_length", truncation=True
        )
        features = [
            Feature(
                encoded["input_ids"][index],
                encoded["attention_mask"][index],
                encoded["token_type_ids"][index],
                int(label),
            )
            for index, (_, _, label) in enumerate(lines)
        ]
        # Plain values instead of the objects: nothing that loading would have to import.
        torch.save([vars(feature) for feature in features], root / CACHE)
        return features

    return work


def tutorial_load(root: Path) -> Callable[[], Any]:
    """Its cache through the C unpickler, which is what torch.load took when the tutorial was written."""

    def work() -> Any:
        with zipfile.ZipFile(root / CACHE) as archive:
            member = next(name for name in archive.namelist() if name.endswith("/data.pkl"))
            with archive.open(member) as file:
                return NoGlobals(file).load()

    return work


def torch_load(root: Path) -> Callable[[], Any]:
    """Its cache through torch.load as it is safe to call, whose unpickler is written in Python."""
    import torch

    return lambda: torch.load(root / CACHE, weights_only=True)


STEPS: dict[str, Callable[[Path], Callable[[], Any]]] = {
    "bunryu": bunryu,
    "tutorial": tutorial,
    "map": bunryu_map,
    "texts": bunryu_texts,
    "again": bunryu_again,
    "load": tutorial_load,
    "torch.load": torch_load,
}


def report(
    source: Reviews, rows: int, rounds: int, tokens: float, measured: dict[str, list[dict[str, float]]]
) -> None:
    print(f"Preparing {rows:,} documents of {source.name} with a vocabulary of {tokens:,}, medians of "
          f"{rounds} rounds, each step in a process of its own. {machine.describe()}\n")  # fmt: skip

    def median(name: str, figure: str) -> float:
        return statistics.median(each[figure] for each in measured[name])

    def line(title: str, name: str, against: str, target: str = "") -> list[str]:
        ratios = [
            a["seconds"] / b["seconds"] for a, b in zip(measured[against], measured[name], strict=False)
        ]
        return [title, f"{median(name, 'seconds'):.3f}", f"{statistics.median(ratios):.3g}", target]

    print_table(
        ["from nothing", "s", "times faster", "target", "MB added at the peak"],
        [
            [*line(title, name, "tutorial", target), f"{median(name, 'megabytes'):.0f}"]
            for title, name, target in (
                ("bunryu: read, encode, cache", "bunryu", ">= 6, < 500 MB"),
                ("tutorial's recipe: read, encode padded, objects, torch.save", "tutorial", ""),
            )
        ],
    )
    print_table(
        ["with a cache", "s", "times faster", "target"],
        [
            line("bunryu: cache checked and mapped", "map", "load", ">= 100"),
            line("bunryu: and its key computed from the texts", "texts", "load"),
            line("bunryu: and the corpus file read again", "again", "load"),
            line("tutorial's cache, C unpickler (torch.load at its time)", "load", "load"),
            line("tutorial's cache, torch.load(weights_only=True)", "torch.load", "load"),
        ],
    )


if __name__ == "__main__":
    main()
