"""``bunryu train``: compose a run, check it, train it."""

from __future__ import annotations

import logging
import os
import secrets
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import hydra
from hydra.core.global_hydra import GlobalHydra
from hydra.core.hydra_config import HydraConfig
from hydra.errors import HydraException
from omegaconf import DictConfig, OmegaConf
from omegaconf.errors import OmegaConfBaseException
from yaml import YAMLError

from bunryu.config import hydra_allowlist
from bunryu.config.checks import spelt
from bunryu.config.compose import as_hydra_reads, own_options, shipped_defaults
from bunryu.config.hydra_errors import explain
from bunryu.config.record import check_files, prepared, resolved
from bunryu.errors import ConfigError
from bunryu.keys import value_at
from bunryu.runs.run import Run, kind_of
from bunryu.system import ranks
from bunryu.system.locations import conf_dir

log = logging.getLogger(__name__)


def main(arguments: Sequence[str]) -> int:
    failed: list[Exception] = []

    def job(cfg: DictConfig) -> None:
        try:
            train(cfg)
        except Exception as error:  # raised below: Hydra would print the overrides before it
            failed.append(error)

    sweeps = not {"-m", "--multirun"}.isdisjoint(arguments)
    if sweeps and ranks.world_size() == 1:
        from bunryu.sweeps import pool

        pool.start_forkserver()  # beside Hydra's composing; a mistake ends it again
    os.environ["HYDRA_FULL_ERROR"] = "1"  # Hydra raises instead of printing and exiting with 1
    sys.argv = ["bunryu", *as_hydra_reads(arguments, sweeps)]
    try:
        with hydra_allowlist.checked(as_written="--resolve" in arguments):
            hydra.main(version_base="1.3", config_path=str(conf_dir()), config_name="train")(job)()
    except (HydraException, OmegaConfBaseException, YAMLError, ValueError) as error:
        if (explained := explain(error, own_options(arguments))) is None:
            raise
        raise explained from error
    if failed:
        raise failed[0]
    return 0


def train(cfg: DictConfig) -> dict[str, Any]:
    """Check one composed config, make its run directory, execute the recipe in it; the results."""
    if cfg.job_timeout_minutes is not None:
        fix = "bunryu train -m …, or in its place +trainer.max_time=00:00:30:00"
        raise ConfigError("a sweep's jobs have it, not one run", where="job_timeout_minutes", fix=fix)
    if cfg.seed is None:
        cfg.seed = secrets.randbelow(2**32)
    choices = HydraConfig.get().runtime.choices
    config = prepared(cfg, shipped_defaults(GlobalHydra.instance().config_loader(), choices))
    check_files([config])
    from bunryu.training import batch_size, early_checks, inputs  # torch: once all is checked that needs none

    config = early_checks.settle_and_check(config)
    made = corpus = None
    if ranks.rank() == 0:  # of several processes the first one makes the directory and writes the log
        corpus = inputs.corpus_to_train_on(resolved(config, ""))  # data that are refused leave no directory
        config = batch_size.settle_batch(config, corpus=corpus)
        made = _new_run(cfg, config)
    else:
        logging.getLogger("bunryu").setLevel(logging.ERROR)
    from bunryu.training import distributed, summary  # Lightning, too: once there is something to train

    run = made if made is not None and ranks.world_size() == 1 else distributed.agreed(made)
    results = distributed.execute(run, corpus=corpus)
    log.info("%s", summary.closing_table(run, results))
    return results


def _new_run(cfg: DictConfig, config: dict[str, Any]) -> Run:
    argv, root = ["bunryu", "train", *sys.argv[1:]], Path(cfg.output_root).expanduser()
    # unresolved: one may name a secret's environment variable
    overrides = OmegaConf.to_container(HydraConfig.get().overrides.task, resolve=False)
    assert isinstance(overrides, list)
    # named after the recorded config, in which a secret from the environment is not filled in
    run = Run.create(root, kind_of(config), config, argv, overrides)
    log.info("run directory: %s", run.path)
    whole = (run.path / "config.yaml").read_text("utf-8").rstrip()
    log.info("configuration:\n%s", whole if config["verbose"] else main_choices(config))
    return run


def main_choices(config: dict[str, Any]) -> str:
    """The values of a config that are looked for first, in six lines."""
    lines = {
        "corpus": ("corpus.name", "corpus.validation", "limit_rows"),
        "model": ("model.name", "max_seq_length"),
        "batches": ("batch_size", "batching", "padding"),
        "optimizer": ("optimizer._target_", "optimizer.lr", "scheduler.factory._target_"),
        "training": ("epochs", "seed", "monitor"),
        "accelerator": ("accelerator.name", "accelerator.devices", "accelerator.precision"),
    }
    return "\n".join(
        f"  {title:<12} " + "  ".join(f"{key}={spelt(value_at(config, key))}" for key in keys)
        for title, keys in lines.items()
    )
