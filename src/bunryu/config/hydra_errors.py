"""Hydra's errors in our words, with the nearest key or option that exists."""

from __future__ import annotations

import codecs
import os
import re
import shlex
from pathlib import Path

import yaml
from hydra.errors import HydraException
from omegaconf.errors import OmegaConfBaseException

from bunryu.errors import ConfigError, first_line
from bunryu.keys import keys_of, nearest
from bunryu.system.locations import conf_dir
from hydra_plugins.bunryu.config_directory import VARIABLE

# Names that other libraries have for our keys: first the tutorial's own.
OTHER_NAMES = {
    "pretrained_model_name": "model=kcbert_base, or model=pretrained model.name=<name>",
    "downstream_corpus_name": "corpus=nsmc",
    "downstream_corpus_root_dir": "corpus.root_dir=<folder>",
    "downstream_model_dir": "output_root=<folder>",
    "downstream_task_name": "leave it out: documents are classified",
    "downstream_model_checkpoint_fpath": "bunryu import-checkpoint <file>",
    "force_download": "corpus.force_download=true",
    "test_mode": "debug=fast_dev_run",
    **dict.fromkeys(("learning_rate", "lr"), "optimizer.lr=<value>"),
    "cpu_workers": "datamodule.num_workers=<number>",
    "fp16": "accelerator.precision=16-mixed",
    "tpu_cores": "accelerator=tpu accelerator.devices=8",
    "bf16": "accelerator.precision=bf16-mixed",
    "precision": "accelerator.precision=<value>",
    "devices": "accelerator.devices=<number>",
    **dict.fromkeys(("max_len", "max_length"), "max_seq_length=<number>"),
    **dict.fromkeys(("max_epochs", "num_epochs", "num_train_epochs"), "epochs=<number>"),
    **dict.fromkeys(("per_device_train_batch_size", "train_batch_size"), "batch_size=<number>"),
    "gradient_accumulation_steps": "trainer.accumulate_grad_batches=<number>",
    "weight_decay": "optimizer.weight_decay=<value>",
    "warmup_ratio": "scheduler=linear_warmup scheduler.factory.warmup=<share>",
    "output_dir": "output_root=<folder>",
    "model_name_or_path": "model=pretrained model.name=<name or folder>",
}


def explain(error: Exception, folder: Path | None = None) -> ConfigError | None:
    """A Hydra, OmegaConf or YAML error in our words; None for any other error.

    ``folder`` has the user's own config options, if any.
    """
    if isinstance(error, yaml.YAMLError):
        return _not_yaml(error)
    if isinstance(error, UnicodeDecodeError):
        return _not_utf8(error, folder)
    text = "\n".join(filter(None, (str(error), str(error.__cause__ or ""))))
    if found := UNKNOWN_KEY.search(text):
        return _unknown_key(found[1])
    if found := UNKNOWN_OPTION.search(text):
        return _unknown_option(found[1].rsplit("/", 1)[-1], found[2], found[3].split())
    for pattern, *words in MESSAGES:
        if found := re.search(pattern, text):
            what, where, fix = (word.format(*found.groups()) for word in words)
            return ConfigError(what, where=where, fix=fix)
    if isinstance(error, ValueError) and not isinstance(error, HydraException | OmegaConfBaseException):
        return None
    where = str(getattr(error, "full_key", None) or "the command line")
    return ConfigError(first_line(error), where=where, fix="bunryu train --help")


def _unknown_key(key: str) -> ConfigError:
    near = nearest(key, _shipped_keys())
    if near == key:  # Hydra finds no key whose value is null
        return ConfigError(f"'{key}' cannot be taken away", where=f"~{key}", fix=f"{key}=<value>")
    fix = f"did you mean '{near}'?" if near else "bunryu train --cfg job"
    return ConfigError(f"there is no key '{key}'", where=key, fix=OTHER_NAMES.get(key, fix))


def _not_yaml(error: yaml.YAMLError) -> ConfigError:
    mark, problem = getattr(error, "problem_mark", None), getattr(error, "problem", None)
    where = f"{mark.name}:{mark.line + 1}" if mark else "the config files"
    fix = "spaces instead of tabs" if "\\t" in str(problem) else "key: value, each on a line, as in conf/"
    return ConfigError(f"a config file is no YAML: {problem or first_line(error)}", where=where, fix=fix)


def _not_utf8(error: UnicodeDecodeError, folder: Path | None) -> ConfigError | None:
    """The refusal of the first file with the bytes that could not be decoded."""
    own = [Path(each).expanduser() for each in (folder, os.environ.get(VARIABLE)) if each]
    for path in (path for each in own for path in sorted(each.rglob("*.yaml"))):
        content = path.read_bytes()
        if content.startswith(error.object):
            line = error.object[: error.start].count(b"\n") + 1
            name = "UTF-16" if content.startswith((codecs.BOM_UTF16_LE, codecs.BOM_UTF16_BE)) else "CP949"
            fix = f"save it as UTF-8: iconv -f {name} -t UTF-8 {shlex.quote(str(path))}"
            return ConfigError("a config file is not UTF-8", where=f"{path}:{line}", fix=fix)
    return None


def _unknown_option(wrong: str, group: str, options: list[str]) -> ConfigError:
    near = nearest(wrong, options)
    fix = f"{f'did you mean {group}={near}? ' if near else ''}options: {', '.join(options)}"
    return ConfigError(f"'{group}' has no option '{wrong}'", where=group, fix=fix)


# What Hydra and OmegaConf say.
UNKNOWN_KEY = re.compile(
    r"Could not (?:override|append to config\.\s+An item is already at|delete from config\.(?=.*exist)) "
    r"'([^']+)'"
)
UNKNOWN_OPTION = re.compile(
    r"(?:In '[^']+': )?Could not find '([^']+)'\n+Available options in '([^']+)':\n([\s\S]*?)(?:\n\S|\Z)"
)
# What else they say, and what, where and which fix it means, {0} for the first group; the first found counts.
MESSAGES = (
    (r"Ambiguous value for argument '([^=]+)=(.*)'", "{0}={1} could be a sweep, a list or a text", "{0}",
     "-m to sweep over it; a list of values stands in brackets"),
    (r"Could not delete from config\. The value of '([^']+)' is (.*) and not", "{0} is {1}", "~{0}", "~{0}"),
    (r"(?:Could not delete|not supported:) '[+~]*([^'=]+)=",
     "an option of a group is neither added twice nor taken away by its name", "{0}", "{0}=<option>"),
    (r"You must specify '([^']+)'", "'{0}' has no option", "{0}", "{0}=<option>"),
    (r"Error merging override [+~]*([^=]+)=(.*)", "{0} cannot be {1}", "{0}",
     "a value, a list, or a mapping whose keys are texts or numbers; $ and {{ in 'quotes', as \\${{"),
    (r"Config group override", "a group takes the name of one of its options", "the command line",
     "bunryu train --help lists them"),
    (r"(?:Error parsing override '|Lexer\w+: )([^'\n]*)", "'{0}' is no override", "{0}",
     "key=value or group=option, without blanks around ="),
)  # fmt: skip


def _shipped_keys() -> list[str]:
    """Every dotted key of every shipped option, read without composing: this is for a quick answer."""
    keys: list[str] = []
    for path in sorted(conf_dir().rglob("*.yaml")):
        group = path.relative_to(conf_dir()).parent.parts
        if group[:1] in (("hydra",), ("experiment",), ("debug",)):
            continue
        content = yaml.load(path.read_bytes(), getattr(yaml, "CSafeLoader", yaml.SafeLoader))
        for name in reversed(group):
            content = {name: content}
        keys += keys_of(content)
    return keys
