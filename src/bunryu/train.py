"""``bunryu train``: compose a run, check it, train it."""

from __future__ import annotations

import logging
import os
import re
import secrets
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import hydra
import yaml
from hydra.core.global_hydra import GlobalHydra
from hydra.core.hydra_config import HydraConfig
from hydra.errors import HydraException
from hydra.types import RunMode
from omegaconf import DictConfig, OmegaConf
from omegaconf.errors import OmegaConfBaseException

from bunryu import checks
from bunryu.config import check_targets, instantiate, plain
from bunryu.errors import BunryuError, ConfigError
from bunryu.runs import Run

log = logging.getLogger(__name__)

# Overlays that set values of other groups; they are not part of what ships as a default.
OVERLAYS = ("experiment", "debug")


def conf_dir() -> Path:
    """The config folder: inside the package when installed as a wheel, else the checkout's."""
    inside = Path(__file__).parent / "conf"
    return inside if inside.is_dir() else Path(__file__).parents[2] / "conf"


def main(arguments: Sequence[str]) -> int:
    """Run ``bunryu train`` with Hydra's command line; returns the exit code."""
    failures: list[BunryuError] = []

    def job(cfg: DictConfig) -> None:
        try:
            train(cfg)
        except BunryuError as error:  # kept, so that the other jobs of a multirun go on
            failures.append(error)
            print(f"bunryu train: {error}", file=sys.stderr, flush=True)

    os.environ["HYDRA_FULL_ERROR"] = "1"  # Hydra raises instead of printing and exiting with 1
    sys.argv = ["bunryu", *(checks.quote(_expand_home(argument)) for argument in arguments)]
    try:
        hydra.main(version_base="1.3", config_path=str(conf_dir()), config_name="train")(job)()
    except (HydraException, OmegaConfBaseException) as error:
        raise explain(error) from error
    return failures[0].exit_code if failures else 0


def train(cfg: DictConfig) -> None:
    """Check one composed config, make its run directory and execute the recipe in it."""
    checks.check_values(cfg)
    checks.check_shape(cfg, shipped_defaults())
    if cfg.seed is None:
        cfg.seed = secrets.randbelow(2**32)
    config = plain(cfg)
    # unresolved: an override may name a secret's environment variable
    overrides = OmegaConf.to_container(HydraConfig.get().overrides.task, resolve=False)
    assert isinstance(overrides, list)
    instantiate(config["corpus"], "corpus")  # a missing file is known before torch is imported
    check_targets(config)

    # of the recorded config: a name from the environment stays out of the directory's
    kind = f"{config['corpus']['name']}-{Path(config['model']['name']).name}"
    run = Run.create(Path(cfg.output_root).expanduser(), kind, config, sys.argv, overrides)
    log.info("run directory: %s", run.path)
    log.info("configuration:\n%s", (run.path / "config.yaml").read_text("utf-8").rstrip())
    from bunryu import experiment  # torch and Lightning: only once there is something to train

    results = experiment.execute(run)
    log.info("%s", summary(run, results))


def _expand_home(argument: str) -> str:
    """``output_root=~/runs`` as the shell would have it if it looked behind the ``=``; Hydra uses it too."""
    key, equals, value = argument.partition("=")
    if key.lstrip("+") == "output_root" and value.startswith("~"):
        return f"{key}{equals}{Path(value).expanduser()}"
    return argument


def shipped_defaults() -> DictConfig:
    """The config with the same option of every group and none of the user's values."""
    choices = HydraConfig.get().runtime.choices
    overrides = [
        f"{group}={choice}"
        for group, choice in choices.items()
        if not group.startswith("hydra/") and group not in OVERLAYS and choice is not None
    ]
    loader = GlobalHydra.instance().config_loader()
    shipped = loader.load_configuration("train", overrides, run_mode=RunMode.RUN)
    return OmegaConf.masked_copy(shipped, [str(key) for key in shipped if key != "hydra"])


def summary(run: Run, results: dict[str, Any]) -> str:
    """The table that ends the console's output."""
    lines = [f"  {name:<14} {value:.4f}" for name, value in results.items() if isinstance(value, float)]
    return "\n".join(
        [
            "done",
            *lines,
            f"  run            {run.path}",
            f"  model          {run.path / 'model'} (a plain transformers folder)",
            f"  next           tensorboard --logdir '{run.path.parent.parent}'",
        ]
    )


def explain(error: Exception) -> ConfigError:
    """A Hydra or OmegaConf error in our words: the key, the nearest valid one, the fix."""
    text = "\n".join(filter(None, (str(error), str(error.__cause__ or ""))))
    if found := re.search(
        r"Could not (?:override|append to config\.\s+An item is already at) '([^']+)'", text
    ):
        key = found[1]
        near = checks.nearest(key, _shipped_keys())
        return ConfigError(
            f"there is no key '{key}'",
            where=key,
            fix=f"did you mean '{near}'?" if near else "bunryu train --cfg job",
        )
    if found := re.search(
        r"(?:In '[^']+': )?Could not find '([^']+)'\n+Available options in '([^']+)':\n([\s\S]*?)(?:\n\S|\Z)",
        text,
    ):
        options = found[3].split()
        wrong = found[1].rsplit("/", 1)[-1]
        near = checks.nearest(wrong, options)
        return ConfigError(
            f"'{found[2]}' has no option '{wrong}'",
            where=found[2],
            fix=(f"did you mean {found[2]}={near}? " if near else "") + f"options: {', '.join(options)}",
        )
    if found := re.search(r"Ambiguous value for argument '([^=]+)=(.*)'", text):
        return ConfigError(
            f"{found[1]}={found[2]} could be a sweep, a list or a text",
            where=found[1],
            fix=f"-m to sweep over it, or {found[1]}=[{found[2]}] for a list",
        )
    first = next((line for line in text.splitlines() if line.strip()), type(error).__name__)
    return ConfigError(first, fix="bunryu train --help")


def _shipped_keys() -> list[str]:
    """Every dotted key of every shipped option, read without composing: this is for a quick answer."""
    keys: list[str] = []
    for path in sorted(conf_dir().rglob("*.yaml")):
        group = path.relative_to(conf_dir()).parent.parts
        if group[:1] in (("hydra",), ("experiment",), ("debug",)):
            continue
        content = yaml.load(path.read_bytes(), getattr(yaml, "CSafeLoader", yaml.SafeLoader))
        nested = content
        for name in reversed(group):
            nested = {name: nested}
        keys += _dotted(nested, "")
    return keys


def _dotted(content: Any, prefix: str) -> list[str]:
    if not isinstance(content, dict):
        return []
    return [
        key
        for name, value in content.items()
        for key in (f"{prefix}{name}", *_dotted(value, f"{prefix}{name}."))
    ]
