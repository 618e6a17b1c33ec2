"""Prediction speed: ``bunryu predict`` against the tutorial's inference function.

The tutorial's function takes one sentence at a time and pads it to 128 tokens. bunryu reads a file and
writes a file; imports are not counted, loading the model is, for bunryu only.
"""

from __future__ import annotations

import contextlib
import io
import json
import statistics
import tempfile
import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import torch
from transformers import AutoTokenizer, BertForSequenceClassification

import machine
from bunryu import cli
from setting import arguments, print_table, reviews
from small import LENGTH, run_of_small, sentences

TARGET = 5.0


@dataclass(frozen=True)
class Size:
    """How much is measured: rounds, rows bunryu predicts a round, sentences the tutorial's function gets."""

    rounds: int = 5
    rows: int = 4000
    padded: int = 150


def main() -> None:
    options = arguments(__doc__).parse_args()
    size = Size(rounds=1, rows=500, padded=20) if options.quick else Size()
    source = reviews(options.corpus_root)
    with tempfile.TemporaryDirectory() as folder:
        root = Path(folder)
        run = run_of_small(source, root, 2000 if options.quick else 20_000)
        texts = sentences(source, size.rows)
        file = root / "reviews.jsonl"
        file.write_text("".join(json.dumps({"document": text}) + "\n" for text in texts), "utf-8")
        tutorial = tutorials_function(run / "model")
        ways: dict[str, Callable[[], float]] = {
            "bunryu": lambda: ours(run, file, size.rows),
            "tutorial": lambda: rate(lambda: [tutorial(text) for text in texts[: size.padded]], size.padded),
        }
        rounds = []
        for number in range(size.rounds):
            names = list(ways) if number % 2 == 0 else list(reversed(ways))
            rounds.append({name: ways[name]() for name in names})
    ratios = [each["bunryu"] / each["tutorial"] for each in rounds]
    print(f"Predicting with `model=small` on {source.name}, rows a second, medians of {len(rounds)} rounds. "
          f"{machine.describe()}\n")  # fmt: skip
    medians = {name: statistics.median(each[name] for each in rounds) for name in ways}
    spread = f"{min(ratios):.2f} to {max(ratios):.2f}"
    print_table(
        ["way", "rows/s", "bunryu / it", "rounds", "target"],
        [
            ["bunryu predict, file to file", f"{medians['bunryu']:.0f}", "1", "", ""],
            [
                f"tutorial's function: one sentence padded to {LENGTH}",
                f"{medians['tutorial']:.0f}",
                f"{statistics.median(ratios):.2f}",
                spread,
                f">= {TARGET:g}",
            ],
        ],
    )


def ours(run: Path, file: Path, rows: int) -> float:
    """Rows a second of the whole verb."""
    with contextlib.redirect_stderr(io.StringIO()):
        return rate(
            lambda: cli.run(["predict", str(run), str(file), "-o", str(file.with_suffix(".csv"))]), rows
        )


def tutorials_function(model_folder: Path) -> Callable[[str], list[float]]:
    """What the tutorial's deployment does with one sentence."""
    tokenizer = AutoTokenizer.from_pretrained(model_folder)
    model = BertForSequenceClassification.from_pretrained(model_folder).eval()

    def infer(sentence: str) -> list[float]:
        inputs = tokenizer(
            [sentence], max_length=LENGTH, padding="max_length", truncation=True, return_tensors="pt"
        )
        with torch.no_grad():
            shares: list[float] = model(**inputs).logits.softmax(dim=1)[0].tolist()
        return shares

    return infer


def rate(work: Callable[[], object], rows: int) -> float:
    start = time.perf_counter()
    work()
    return rows / (time.perf_counter() - start)


if __name__ == "__main__":
    main()
