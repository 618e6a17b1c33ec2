"""Small runs, trained in this process."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

from bunryu.runs.run import Run

# Small enough for a run in about a second, large enough for two epochs with a short last batch.
QUICK = ["limit_rows=72", "batch_size=16", "epochs=2", "trainer.log_every_n_steps=1"]

NO_DROPOUT = [
    "model.architecture.hidden_dropout_prob=0",
    "model.architecture.attention_probs_dropout_prob=0",
]

Train = Callable[..., Run]


def train_in(folder: Path, *overrides: str) -> Run:
    """Run ``bunryu train`` in this process, small, with outputs in ``folder``; the one run it made."""
    return train_job_in(folder, *QUICK, *overrides)


def train_job_in(folder: Path, *overrides: str) -> Run:
    from bunryu import cli

    before = set(folder.glob("*/*"))
    assert cli.run(["train", f"output_root={folder}", *overrides]) == 0
    (made,) = set(folder.glob("*/*")) - before
    return Run(made)


def recorded(run: Run, name: str) -> list[float]:
    """A metric's values, in order."""
    return [value for _, _, key, value in run.metrics if key == name]
