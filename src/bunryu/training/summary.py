"""What is logged about a run: its first examples and its size before training, its results after."""

from __future__ import annotations

import logging
import shlex
from itertools import zip_longest
from typing import Any

import numpy as np
import torch

from bunryu.encoding.encoder import unknown_tokens_warning
from bunryu.runs.run import Run
from bunryu.training.build import Experiment

log = logging.getLogger(__name__)

EXAMPLES_SHOWN = 5


def log_and_record_summary(run: Run, experiment: Experiment) -> None:
    """Log the first encoded examples and the run's size; record device, threads, size and cut rows."""
    config, length = run.config, run.config["max_seq_length"]
    data, task, trainer = experiment.datamodule, experiment.task, experiment.trainer
    _log_examples(experiment, length)
    splits = {"train": data.train, "validation": data.validation, "test": data.test}
    truncated = {name: int(split.is_cut(length).sum()) for name, split in splits.items() if split is not None}
    parameters = sum(parameter.numel() for parameter in task.model.parameters())
    device, threads = trainer.strategy.root_device, torch.get_num_threads()
    name = torch.cuda.get_device_name(device) if device.type == "cuda" else device.type
    size = f"{parameters:,} parameters, {task.total_steps} steps on {name}, {threads} threads"
    log.info("%s: %s", config["model"]["name"], size)
    unknown = experiment.tokenizer.unk_token_id
    for warning in unknown_tokens_warning(data.train.count_of(unknown), "train's"):
        fix = "+model.tokenizer_factory.do_lower_case=false, without which Hangul can be taken apart"
        log.warning("%s: another vocabulary, or %s", warning, fix)
    log.info("rows cut at %d tokens: %s", length, ", ".join(f"{n} of {s}" for s, n in truncated.items()))
    count = max(trainer.world_size, config["accelerator"]["devices"])  # chips are one to Lightning
    strategy, precision = type(trainer.strategy).__name__, str(trainer.precision)
    known = {"kind": device.type, "name": name, "count": count, "precision": precision, "strategy": strategy}
    run.record(
        device=known, threads=threads, parameters=parameters, total_steps=task.total_steps,
        truncated_rows=truncated, unknown_tokens=round(data.train.share_of(unknown), 6),
    )  # fmt: skip


def _log_examples(experiment: Experiment, length: int) -> None:
    corpus, tokenizer, train = experiment.corpus, experiment.tokenizer, experiment.datamodule.train
    widths = train.lengths(length)
    for index, example in enumerate(corpus.train[:EXAMPLES_SHOWN]):
        row = train.batch(np.array([index]), length, int(widths[index]), tokenizer.pad_token_id)
        ids = row["input_ids"][0].tolist()
        log.info(
            "example %d\n  sentence: %.300s\n  tokens: %.300s\n  label: %.300s\n  ids: %.300s",
            index + 1,
            example.text if example.pair is None else f"{example.text} | {example.pair}",
            " ".join(tokenizer.convert_ids_to_tokens(ids)),
            corpus.label_names[train.labels[index]],
            ids,
        )


def closing_table(run: Run, results: dict[str, Any]) -> str:
    """The table that ends the console's output."""
    config = run.config
    lines = [f"  {name:<14} {value:.4f}" for name, value in results.items() if isinstance(value, float)]
    if config["trainer"].get("fast_dev_run"):
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
