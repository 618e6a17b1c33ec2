"""What a config's keys take: the one table of types, ranges and choices."""

from __future__ import annotations

import re
from typing import Any, NamedTuple

from omegaconf import DictConfig, OmegaConf
from omegaconf.errors import OmegaConfBaseException

from bunryu.errors import ConfigError

# What may choose the best checkpoint, and which way is better.
MONITORED = {"val/loss": "min", "val/accuracy": "max", "val/f1_macro": "max"}
MONITORS = tuple(
    f"{node}monitor" for node in ("", "scheduler.", "callbacks.best_checkpoint.", "callbacks.early_stopping.")
)
NODES = ("model", "corpus", "accelerator", "optimizer", "scheduler", "datamodule", "task", "trainer")
GROUPS = (*NODES[:5], "corpus/cleaner", "callbacks", "logger", "experiment", "debug", "sweep", "hydra")
REMOVABLE = ("callbacks.", "logger.", "corpus.label_names.")  # whose parts may be taken away
# Loading options that could run code from a checkpoint, wherever they stand.
FORBIDDEN_KEYS = ("trust_remote_code", "weights_only", "use_safetensors")
COLUMNS = ("corpus.text_column", "corpus.label_column", "corpus.pair_column")
MISSING = "???"  # how OmegaConf writes a value that has to be set


class Key(NamedTuple):
    """What a key takes."""

    type: Any = None  # beside its shipped value's; null where null ships, or where it is named here
    low: float | None = None
    high: float | None = None
    choices: tuple[str, ...] = ()  # the only values, or the words that can stand in place of a number


# A key that is not named here keeps its shipped value's type. Keys of groups too, whatever the option.
KEYS = {
    "seed": Key(int | None, 0, 2**32 - 1),
    "max_seq_length": Key(low=4),
    "batch_size": Key(int | str, 0, choices=("auto",)),
    "epochs": Key(low=1),
    "save_top_k": Key(low=1),
    "checkpoint_every_minutes": Key(low=0),
    "keep_checkpoints": Key(choices=("all", "best", "none")),
    "batching": Key(choices=("bucketed", "random")),
    "padding": Key(choices=("longest", "max_length")),
    "limit_rows": Key(int, 1),
    "cache_dir": Key(str),
    "output_root": Key(str),
    "sweep_name": Key(str),
    "n_jobs": Key(low=1),
    "retry": Key(choices=("failed", "none")),
    "on_failure": Key(choices=("continue", "stop")),
    "budget_hours": Key(float | int, 0),
    "job_timeout_minutes": Key(float | int, 0.01),
    "model.lr": Key(low=0),
    "model.name": Key(str),
    "model.positions": Key(int, 4),
    "model.vocabulary_size": Key(low=100),
    "model.vocabulary_file": Key(str),
    "model.architecture.hidden_size": Key(low=1),
    "model.architecture.num_hidden_layers": Key(low=1),
    "model.architecture.num_attention_heads": Key(low=1),
    "model.architecture.intermediate_size": Key(low=1),
    "model.architecture.hidden_dropout_prob": Key(None, 0, 1),
    "model.architecture.attention_probs_dropout_prob": Key(None, 0, 1),
    "corpus.name": Key(str),
    "corpus.text_column": Key(str),
    "corpus.train": Key(str),
    "corpus.validation": Key(float | str),
    "corpus.test": Key(str),
    "corpus.pair_column": Key(str),
    "corpus.label_column": Key(str | list),  # a list is refused with the reason
    "corpus.encoding": Key(str),
    "corpus.positive": Key(str | int),
    "corpus.delimiter": Key(str),
    "corpus.split_seed": Key(None, 0, 2**32 - 1),
    "corpus.cleaner.allowed": Key(str),
    "corpus.cleaner.max_repeats": Key(low=0),
    "accelerator.devices": Key(low=1),
    "accelerator.precision": Key(str | int),
    "accelerator.widths": Key(int | None, 1),
    "optimizer.lr": Key(low=0),
    "optimizer.weight_decay": Key(low=0),
    "optimizer.eps": Key(low=0),
    "optimizer.momentum": Key(low=0),
    "scheduler.interval": Key(choices=("epoch", "step")),
    "scheduler.factory.warmup": Key(None, 0, 1),
    "scheduler.factory.gamma": Key(low=0),
    "scheduler.factory.factor": Key(low=0),
    "scheduler.factory.total_iters": Key(low=0),
    "scheduler.factory.patience": Key(low=0),
    "callbacks.best_checkpoint.save_top_k": Key(low=1),
    "callbacks.early_stopping.patience": Key(low=0),
    "callbacks.early_stopping.min_delta": Key(low=0),
    "datamodule.batch_size": Key(int | str, 0, choices=("auto",)),
    "datamodule.max_seq_length": Key(low=4),
    "datamodule.num_workers": Key(low=0),
    "datamodule.batching": Key(choices=("bucketed", "random")),
    "datamodule.padding": Key(choices=("longest", "max_length")),
    "trainer.max_epochs": Key(low=1),
    "trainer.precision": Key(str | int),
    "trainer.accumulate_grad_batches": Key(low=1),
    "trainer.gradient_clip_val": Key(float | int | None, 0),
    "trainer.log_every_n_steps": Key(low=1),
    "trainer.num_sanity_val_steps": Key(low=-1),
}


def takes_text(key: str) -> bool:
    """Whether only text can stand at a key, so that a number there is text, too."""
    return key in COLUMNS or KEYS.get(key, Key()).type is str


def forbidden(key: str) -> ConfigError:
    """The refusal of one of the FORBIDDEN_KEYS."""
    return ConfigError("this is never set by a config: it could let a checkpoint run code", where=key)


def container(config: DictConfig) -> dict[Any, Any]:
    """The config as plain values, interpolations resolved; refused if one of them leads nowhere."""
    try:
        resolved = OmegaConf.to_container(config, resolve=True)
    except OmegaConfBaseException as error:
        what = str(error).split("\n")[0]
        fix = "the name of another key: ${seed}; or '\\${' for the characters themselves"
        if unset := re.search(r"Environment variable '([^']+)' not found", what):
            what, fix = f"the environment variable {unset[1]} is not set", f"export {unset[1]}=<its value>"
        elif absent := re.search(r"Interpolation key '([^']+)' not found", what):
            what = f"it takes its value from '{absent[1]}', which does not exist"
            fix = f"{absent[1]}=<value>"
        raise ConfigError(what, where=str(error.full_key or ""), fix=fix) from error
    assert isinstance(resolved, dict)
    return resolved
