"""What a run shows on the console: its log lines, and the table that ends them."""

from __future__ import annotations

import logging.config
import shlex
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
