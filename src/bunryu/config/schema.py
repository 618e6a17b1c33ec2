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
# What may name files and folders from where the command is given.
FILES = ("corpus.train", "corpus.validation", "corpus.test")
PATHS = (*FILES, "corpus.root_dir", "model.name", "model.vocabulary_file")
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
    **dict.fromkeys((
        "cache_dir", "output_root", "sweep_name", "model.name", "model.vocabulary_file", "corpus.name",
        "corpus.text_column", "corpus.pair_column", "corpus.train", "corpus.test", "corpus.encoding",
        "corpus.delimiter", "corpus.cleaner.allowed",
    ), Key(str)),
    **dict.fromkeys((
        "checkpoint_every_minutes", "model.lr", "corpus.cleaner.max_repeats", "optimizer.lr",
        "optimizer.weight_decay", "optimizer.eps", "optimizer.momentum", "scheduler.factory.gamma",
        "scheduler.factory.factor", "scheduler.factory.total_iters", "scheduler.factory.patience",
        "callbacks.early_stopping.patience", "callbacks.early_stopping.min_delta", "datamodule.num_workers",
    ), Key(low=0)),
    **dict.fromkeys((
        "epochs", "save_top_k", "n_jobs", "accelerator.devices", "callbacks.best_checkpoint.save_top_k",
        "trainer.max_epochs", "trainer.accumulate_grad_batches", "trainer.log_every_n_steps",
        "model.architecture.hidden_size", "model.architecture.num_hidden_layers",
        "model.architecture.num_attention_heads", "model.architecture.intermediate_size",
    ), Key(low=1)),
    **dict.fromkeys((
        "model.architecture.hidden_dropout_prob", "model.architecture.attention_probs_dropout_prob",
        "scheduler.factory.warmup",
    ), Key(low=0, high=1)),
    **dict.fromkeys(("max_seq_length", "datamodule.max_seq_length"), Key(low=4)),
    **dict.fromkeys(("batch_size", "datamodule.batch_size"), Key(int | str, 0, choices=("auto",))),
    **dict.fromkeys(("batching", "datamodule.batching"), Key(choices=("bucketed", "random"))),
    **dict.fromkeys(("padding", "datamodule.padding"), Key(choices=("longest", "max_length"))),
    **dict.fromkeys(("accelerator.precision", "trainer.precision"), Key(str | int)),
    "seed": Key(int | None, 0, 2**32 - 1),
    "keep_checkpoints": Key(choices=("all", "best", "none")),
    "limit_rows": Key(int, 1),
    "retry": Key(choices=("failed", "none")),
    "on_failure": Key(choices=("continue", "stop")),
    "budget_hours": Key(float | int, 0),
    "job_timeout_minutes": Key(float | int, 0.01),
    "model.positions": Key(int, 4),
    "model.vocabulary_size": Key(low=100),
    "corpus.validation": Key(float | str),
    "corpus.label_column": Key(str | list),  # a list is refused with the reason
    "corpus.positive": Key(str | int),
    "corpus.split_seed": Key(low=0, high=2**32 - 1),
    "accelerator.widths": Key(int | None, 1),
    "scheduler.interval": Key(choices=("epoch", "step")),
    "trainer.gradient_clip_val": Key(float | int | None, 0),
    "trainer.num_sanity_val_steps": Key(low=-1),
}  # fmt: skip


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
