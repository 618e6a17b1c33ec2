"""What a run shows on the console: its log lines, and the table that ends them."""

from __future__ import annotations

import logging.config
import shlex
import warnings
from collections.abc import Iterator
from contextlib import contextmanager
from itertools import zip_longest
from typing import Any

import yaml

from bunryu.explanation import conf_dir
from bunryu.runs import Run


def log_to_console() -> None:
    """Log as ``bunryu train`` does, for verbs that go without Hydra."""
    path = conf_dir() / "hydra" / "job_logging" / "bunryu.yaml"
    logging.config.dictConfig(yaml.safe_load(path.read_text("utf-8")))


def summary(run: Run, results: dict[str, Any]) -> str:
    """The table that ends the console's output."""
    config = run.config
    lines = [f"  {name:<14} {value:.4f}" for name, value in results.items() if isinstance(value, float)]
    if config["trainer"]["fast_dev_run"]:
        lines.append("  note           one batch of everything: these figures mean nothing")
    elif config["limit_rows"] is not None:
        lines.append(f"  note           at most {config['limit_rows']} rows of each split were used")
    lines.append(f"  run            {run.path}")
    lines.append(f"  model          {run.path / 'model'} (a plain transformers folder)")
    commands = [f"bunryu {verb} {shlex.quote(str(run.path))}" for verb in ("evaluate", "serve")]
    if (run.path / "tensorboard").is_dir():
        commands.append(f"tensorboard --logdir {shlex.quote(str(run.path.parent.parent))}")
    lines += [f"  {title:<14} {command}" for title, command in zip_longest(["next"], commands, fillvalue="")]
    return "\n".join(["done", *lines])


@contextmanager
def quiet() -> Iterator[None]:
    """Hide advice of Lightning's that does not fit here, and its chatter below warnings."""
    logging.getLogger("pytorch_lightning").setLevel(logging.WARNING)
    with warnings.catch_warnings():
        for message in (
            r".*does not have many workers.*",
            r".*LeafSpec.*",
            r".*The number of training batches .* is smaller than the logging interval.*",
            r".*exists and is not empty.*",
            r".*dataloader is not resumable.*",  # ours starts where the trainer stands
            r".*sync_dist=True.*",  # every process has the metrics of all rows already
            r".*resuming from a checkpoint that ended before the epoch.*",
        ):
            warnings.filterwarnings("ignore", message)
        yield
