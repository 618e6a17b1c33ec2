"""Training speed: bunryu against the Hugging Face Trainer, padded to 128 and grouped by length.

All three train `model=small` on the same reviews with batches of 32, equal weights at the start, fused
AdamW with decay on the same weights, a constant rate, clipping at 1.0, fp32, the same threads, and log
nothing. An epoch is timed from its first batch to its last, since the Trainer's grouped batches come the
longest first. Rows an epoch are as many as the Trainer needs to sort 50 batches together, as bunryu does.
"""

from __future__ import annotations

import copy
import logging
import statistics
import sys
import tempfile
import time
import warnings
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import pytorch_lightning as pl
import torch
from transformers import DataCollatorWithPadding, Trainer, TrainerCallback, TrainingArguments
from transformers.trainer_callback import PrinterCallback
from transformers.trainer_pt_utils import get_length_grouped_indices
from transformers.utils import is_accelerate_available

import machine
from bunryu.encoding.batching import training_batches
from bunryu.encoding.encoder import Encoded
from bunryu.training.build import Experiment
from setting import Reviews, arguments, print_table, reviews
from training import BATCH, LENGTH, WARM, Size, experiment, learn_vocabulary

TARGETS = {"padded": 4.8, "grouped": 1.0}


@dataclass(frozen=True)
class Steps:
    """When each batch of a training started and ended, in seconds."""

    starts: list[float]
    ends: list[float]

    def rate(self, rows: int, first: int = 0) -> float:
        """Rows a second from a batch's start to the last one's end."""
        return rows / (self.ends[-1] - self.starts[first])


def main() -> None:
    options = arguments(__doc__).parse_args()
    if not is_accelerate_available():
        sys.exit("the Hugging Face Trainer needs accelerate: pip install -c constraints.txt -e '.[bench]'")
    size = Size(rounds=1, rows=320, padded=5, learnt=2000) if options.quick else Size(4, 6400, 12)
    for name in ("bunryu", "pytorch_lightning", "transformers", "accelerate"):
        logging.getLogger(name).setLevel(logging.ERROR)
    warnings.simplefilter("ignore")
    source = reviews(options.corpus_root)
    with tempfile.TemporaryDirectory() as folder:
        root = Path(folder)
        learn_vocabulary(source, root, size)
        rounds = [measure(source, root, size, number) for number in range(size.rounds)]
    report(source, size, rounds)


def measure(source: Reviews, root: Path, size: Size, number: int) -> dict[str, tuple[float, float]]:
    """Each way's rows a second and tokens computed for each real one; odd rounds go in reverse."""
    corpus_root = root / f"round-{number}"
    source.copy(corpus_root / "nsmc", "train", number * size.rows, size.rows)
    source.copy(corpus_root / "nsmc", "test", 0, BATCH)
    ours = experiment(root, corpus_root)
    lengths = ours.datamodule.train.lengths(LENGTH)
    models = {name: copy.deepcopy(ours.task.model) for name in TARGETS}
    ways: dict[str, Callable[[], float]] = {
        "bunryu": lambda: lightning(ours).rate(size.rows),
        "grouped": lambda: hugging_face(ours, models["grouped"], root).rate(size.rows),
        "padded": lambda: hugging_face(ours, models["padded"], root, steps=size.padded).rate(
            BATCH * (size.padded - WARM), WARM
        ),
    }
    names = list(ways) if number % 2 == 0 else list(reversed(ways))
    rates = {name: ways[name]() for name in names}
    waste = computed(lengths)
    return {name: (rates[name], waste[name]) for name in ways}


class Clock(pl.Callback):
    """Notes when each batch of bunryu's starts and ends."""

    def __init__(self) -> None:
        self.steps = Steps([], [])

    def on_train_batch_start(self, *args: Any) -> None:
        self.steps.starts.append(time.perf_counter())

    def on_train_batch_end(self, *args: Any) -> None:
        self.steps.ends.append(time.perf_counter())


def lightning(ours: Experiment) -> Steps:
    """One epoch of what ``bunryu train`` does, but that it logs nothing."""
    clock = Clock()
    ours.trainer.callbacks.append(clock)
    ours.trainer.loggers = []
    ours.trainer.fit(ours.task, datamodule=ours.datamodule, weights_only=True)
    return clock.steps


class TrainerClock(TrainerCallback):
    """Notes when each batch of the Trainer's starts and ends."""

    def __init__(self) -> None:
        self.steps = Steps([], [])

    def on_step_begin(self, *args: Any, **given: Any) -> None:
        self.steps.starts.append(time.perf_counter())

    def on_step_end(self, *args: Any, **given: Any) -> None:
        self.steps.ends.append(time.perf_counter())


def hugging_face(ours: Experiment, model: Any, root: Path, steps: int = -1) -> Steps:
    """The Trainer on bunryu's rows: one epoch grouped by length, or so many random batches padded."""
    padded = steps > 0
    clock = TrainerClock()
    trainer = Trainer(
        model=model,
        args=TrainingArguments(
            output_dir=str(root / "trainer"),
            use_cpu=True,
            per_device_train_batch_size=BATCH,
            num_train_epochs=1,
            max_steps=steps,
            train_sampling_strategy="random" if padded else "group_by_length",
            optim="adamw_torch_fused",
            learning_rate=5e-4,
            weight_decay=0.01,
            lr_scheduler_type="constant",
            max_grad_norm=1.0,
            seed=7,
            logging_strategy="no",
            save_strategy="no",
            report_to="none",
            disable_tqdm=True,
        ),
        train_dataset=Rows(ours.datamodule.train, ours.tokenizer.pad_token_id),
        data_collator=DataCollatorWithPadding(
            ours.tokenizer, "max_length" if padded else "longest", max_length=LENGTH
        ),
        processing_class=ours.tokenizer,
        callbacks=[clock],
    )
    trainer.remove_callback(PrinterCallback)
    trainer.train()
    return clock.steps


class Rows(torch.utils.data.Dataset[dict[str, Any]]):
    """bunryu's rows, encoded and truncated beforehand, as the Trainer's collator takes them."""

    def __init__(self, train: Encoded, pad_id: int) -> None:
        self._rows = []
        for index, length in enumerate(train.lengths(LENGTH)):
            row = train.batch(np.array([index]), LENGTH, int(length), pad_id)
            lists = {name: array[0].tolist() for name, array in row.items()}
            self._rows.append({**lists, "label": int(train.labels[index])})

    def __len__(self) -> int:
        return len(self._rows)

    def __getitem__(self, index: int) -> dict[str, Any]:
        return self._rows[index]


def computed(lengths: npt.NDArray[np.int64]) -> dict[str, float]:
    """Tokens computed for each real one of an epoch, by way."""
    grouped = np.array(get_length_grouped_indices(lengths.tolist(), BATCH))
    cuts = [grouped[start : start + BATCH] for start in range(0, len(grouped), BATCH)]
    plans = {"bunryu": training_batches(lengths, BATCH, "bucketed", 7, 0), "grouped": cuts}
    waste = {
        name: sum(len(index) * int(lengths[index].max()) for index in plan) / int(lengths.sum())
        for name, plan in plans.items()
    }
    return {**waste, "padded": LENGTH * len(lengths) / int(lengths.sum())}


def report(source: Reviews, size: Size, rounds: list[dict[str, tuple[float, float]]]) -> None:
    print(
        f"Training `model=small` on {source.name}, batch {BATCH}, fp32, no logging, {size.rows} rows an "
        f"epoch, rows a second, medians of {len(rounds)} rounds. {machine.describe()}\n"
    )
    titles = {
        "bunryu": "bunryu (Lightning, bucketed batches)",
        "grouped": "Hugging Face Trainer, group_by_length, padded to the longest",
        "padded": f"Hugging Face Trainer, random batches padded to {LENGTH}",
    }
    rows = []
    for name, title in titles.items():
        speed, waste = (statistics.median(each[name][part] for each in rounds) for part in (0, 1))
        row = [title, f"{speed:.1f}", f"{waste:.2f}"]
        if name in TARGETS:
            ratios = [each["bunryu"][0] / each[name][0] for each in rounds]
            row += [f"{statistics.median(ratios):.3f}", f"{min(ratios):.3f} to {max(ratios):.3f}",
                    f">= {TARGETS[name]}"]  # fmt: skip
        else:
            row += ["1", "", ""]
        rows.append(row)
    print_table(["way", "rows/s", "tokens computed per real one", "bunryu / it", "rounds", "target"], rows)


if __name__ == "__main__":
    main()
