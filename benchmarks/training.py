"""Training speed: bunryu against a bare PyTorch loop and against the tutorial's recipe.

All three train `model=small` on the same reviews with batches of 32, equal weights at the start, fused
AdamW, clipping at 1.0 and the same threads. Each is timed between the starts of two of its batches, so
that neither start-up nor warm-up counts.
"""

from __future__ import annotations

import copy
import logging
import statistics
import tempfile
import time
import warnings
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pytorch_lightning as pl
import torch
from hydra import compose, initialize_config_dir

import machine
from bunryu.commands.train import conf_dir
from bunryu.config.record import resolved, to_recorded
from bunryu.data.cleaner import NO_CLEANING
from bunryu.encoding.batching import Batch, collator, training_batches
from bunryu.encoding.encoder import Encoded, Encoder
from bunryu.encoding.vocabulary import learn_wordpiece
from bunryu.runs.run import Run
from bunryu.system.signals import StopRequest
from bunryu.training.build import Experiment, build
from setting import Reviews, arguments, print_table, reviews

BATCH, LENGTH = 32, 128
WARM = 3  # batches before the clock starts
TARGETS = {"bare": 0.95, "tutorial": 5.7}


@dataclass(frozen=True)
class Size:
    """How much is measured.

    Args:
        rounds: each measures all three ways once, in turn.
        rows: documents a round, one epoch of bunryu's and of the bare loop's batches.
        padded: batches the tutorial's recipe is given a round; all of them cost the same.
        learnt: documents the vocabulary is learnt from, and the padding waste is counted over.
    """

    rounds: int = 5
    rows: int = 1600
    padded: int = 14
    learnt: int = 20_000


def main() -> None:
    parser = arguments(__doc__)
    options = parser.parse_args()
    size = Size(rounds=1, rows=320, padded=6, learnt=2000) if options.quick else Size()
    logging.getLogger("bunryu").setLevel(logging.ERROR)
    logging.getLogger("pytorch_lightning").setLevel(logging.ERROR)
    warnings.simplefilter("ignore")
    source = reviews(options.corpus_root)
    with tempfile.TemporaryDirectory() as folder:
        root = Path(folder)
        learn_vocabulary(source, root, size)
        rounds = [measure(source, root, size, number) for number in range(size.rounds)]
        waste = padding_waste(source, root, size)
    report(source, rounds, waste)


def learn_vocabulary(source: Reviews, root: Path, size: Size) -> None:
    texts = [
        example.text for example in source.copy(root / "learnt", "train", 0, size.learnt).examples("train")
    ]
    vocabulary = learn_wordpiece(
        texts, composed(root, root).model.vocabulary_size, NO_CLEANING, root / "cache"
    )
    (root / "vocab.txt").write_text("\n".join(vocabulary), "utf-8")


def composed(root: Path, corpus_root: Path) -> Any:
    overrides = [
        "model=small",
        "corpus=nsmc",
        "accelerator=cpu",
        "epochs=1",
        "corpus.validation=test",  # so that every row of train is trained on
        "+trainer.limit_val_batches=0",
        f"batch_size={BATCH}",
        f"max_seq_length={LENGTH}",
        f"corpus.root_dir='{corpus_root}'",
        f"cache_dir='{root / 'cache'}'",
        f"model.vocabulary_file='{root / 'vocab.txt'}'",
    ]
    with initialize_config_dir(str(conf_dir()), version_base="1.3"):
        return compose("train", overrides)


def experiment(root: Path, corpus_root: Path) -> Experiment:
    """The shipped run on these rows, built by bunryu itself."""
    config = to_recorded(composed(root, corpus_root))
    run = Run.create(root / "outputs", "benchmark", config, [], [])
    pl.seed_everything(config["seed"], verbose=False)
    return build(resolved(run.config, str(run.path)), run, StopRequest())


def measure(source: Reviews, root: Path, size: Size, number: int) -> dict[str, float]:
    """Rows a second of each way, on this round's own rows; odd rounds take them in reverse."""
    corpus_root = root / f"round-{number}"
    source.copy(corpus_root / "nsmc", "train", number * size.rows, size.rows)
    source.copy(corpus_root / "nsmc", "test", 0, BATCH)
    ours = experiment(root, corpus_root)
    train, pad_id = ours.datamodule.train, ours.tokenizer.pad_token_id
    bare_model, tutorial_model = copy.deepcopy(ours.task.model), copy.deepcopy(ours.task.model)
    ways: dict[str, Callable[[], float]] = {
        "bare": lambda: bare(bare_model, batches(train, pad_id, "bucketed", "longest")),
        "bunryu": lambda: lightning(ours),
        "tutorial": lambda: bare(
            tutorial_model, list(batches(train, pad_id, "random", "max_length"))[: size.padded]
        ),
    }
    names = list(ways) if number % 2 == 0 else list(reversed(ways))
    return {name: ways[name]() for name in names}


def batches(train: Encoded, pad_id: int, batching: str, padding: str) -> Iterator[Batch]:
    """One epoch's batches; the bucketed ones are those that the DataModule gives."""
    collate = collator(train, LENGTH, pad_id, padding)
    return map(collate, training_batches(train.lengths(LENGTH), BATCH, batching, 7, 0))


def bare(model: Any, epoch: Iterable[Batch]) -> float:
    """Rows a second of a plain PyTorch loop."""
    optimizer = torch.optim.AdamW(model.parameters(), lr=5e-4, weight_decay=0.01, fused=True)
    model.train()
    starts = []
    for batch in epoch:
        starts.append(time.perf_counter())
        inputs = {name: tensor for name, tensor in batch.items() if name != "index"}
        optimizer.zero_grad()
        model(**inputs).loss.backward()
        torch.nn.utils.clip_grad_norm_(model.parameters(), 1.0)
        optimizer.step()
    return rate(starts)


class Clock(pl.Callback):
    """Notes when each batch starts."""

    def __init__(self) -> None:
        self.starts: list[float] = []

    def on_train_batch_start(self, *args: Any) -> None:
        self.starts.append(time.perf_counter())


def lightning(ours: Experiment) -> float:
    """Rows a second of what ``bunryu train`` does: its DataModule, Task, loggers, callbacks, Trainer."""
    clock = Clock()
    ours.trainer.callbacks.append(clock)
    ours.trainer.fit(ours.task, datamodule=ours.datamodule, weights_only=True)
    return rate(clock.starts)


def rate(starts: list[float]) -> float:
    """Rows a second from the times at which batches started; all of them but the last are full."""
    return BATCH * (len(starts) - 1 - WARM) / (starts[-1] - starts[WARM])


def padding_waste(source: Reviews, root: Path, size: Size) -> dict[str, float]:
    """Tokens computed for each real token of an epoch, by how batches are made."""
    learnt = Reviews(source.name, root / "learnt").examples("train")
    tokenizer = experiment(root, root / "round-0").tokenizer
    encoder = Encoder(tokenizer, NO_CLEANING, root / "cache", overwrite=False)
    encoded, _ = encoder.encode([e.text for e in learnt], None, [0] * len(learnt), [0] * len(learnt))
    lengths = encoded.lengths(LENGTH)

    def computed(batching: str) -> int:
        plan = training_batches(lengths, BATCH, batching, 7, 0)
        return sum(len(index) * int(lengths[index].max()) for index in plan)

    real = int(lengths.sum())
    return {
        "mean": float(np.mean(lengths)),
        "bucketed": computed("bucketed") / real,
        "random": computed("random") / real,
        "max_length": len(lengths) * LENGTH / real,
    }


def report(source: Reviews, rounds: list[dict[str, float]], waste: dict[str, float]) -> None:
    print(f"Training `model=small` on {source.name}, batch {BATCH}, fp32, rows a second, medians of "
          f"{len(rounds)} rounds. {machine.describe()}\n")  # fmt: skip
    titles = {
        "bunryu": "bunryu (Lightning, loggers, checkpoints)",
        "bare": "bare PyTorch loop, the same batches",
        "tutorial": f"tutorial's recipe: random batches padded to {LENGTH}",
    }
    padding = {"bunryu": "bucketed", "bare": "bucketed", "tutorial": "max_length"}
    rows = []
    for name, title in titles.items():
        speed = statistics.median(each[name] for each in rounds)
        row = [title, f"{speed:.1f}", f"{waste[padding[name]]:.2f}"]
        rows.append(row + (compared(rounds, name) if name in TARGETS else ["1", "", ""]))
    print_table(["way", "rows/s", "tokens computed per real one", "bunryu / it", "rounds", "target"], rows)
    print(f"Documents have {waste['mean']:.1f} tokens on average; random batches padded to their longest "
          f"would compute {waste['random']:.2f} per real one.")  # fmt: skip


def compared(rounds: list[dict[str, float]], name: str) -> list[str]:
    """bunryu's speed over another way's: the median round, the range, the target."""
    ratios = [each["bunryu"] / each[name] for each in rounds]
    return [
        f"{statistics.median(ratios):.3f}",
        f"{min(ratios):.3f} to {max(ratios):.3f}",
        f">= {TARGETS[name]}",
    ]


if __name__ == "__main__":
    main()
