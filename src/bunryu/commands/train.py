"""``bunryu train``: compose a run, check it, train it."""

from __future__ import annotations

import logging
import os
import secrets
import sys
import traceback
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import hydra
from hydra.core.global_hydra import GlobalHydra
from hydra.core.hydra_config import HydraConfig
from hydra.errors import HydraException
from omegaconf import DictConfig, OmegaConf
from omegaconf.errors import OmegaConfBaseException

from bunryu.config import hydra_allowlist
from bunryu.config.compose import as_hydra_reads, shipped_defaults
from bunryu.config.hydra_errors import explain
from bunryu.config.record import check_files, prepared
from bunryu.errors import BunryuError
from bunryu.runs.run import Run, kind_of
from bunryu.system import ranks
from bunryu.system.locations import conf_dir
from bunryu.system.secrets import mask, secrets_in
from bunryu.training.summary import closing_table

log = logging.getLogger(__name__)


def main(arguments: Sequence[str]) -> int:
    """Run ``bunryu train`` with Hydra's command line; returns the exit code."""
    failures: list[BunryuError] = []
    jobs: list[str] = []

    def job(cfg: DictConfig) -> None:
        swept = " ".join(map(str, _overrides()))
        try:
            results = train(cfg)
            jobs.append(f"finished  {swept}  {cfg.monitor.split()[1]} {results[cfg.monitor.split()[1]]:.4f}")
        except BunryuError as error:  # kept, so that the other jobs of a multirun go on
            secrets_ = secrets_in(OmegaConf.to_yaml(cfg))
            failures.append(error)
            jobs.append(f"failed    {swept}  {mask(error.what, secrets_)}")
            print(f"bunryu train: {mask(str(error), secrets_)}", file=sys.stderr, flush=True)
        except Exception as error:  # no fault of the config's: Python's own words, but for the secrets
            secrets_ = secrets_in(OmegaConf.to_yaml(cfg))
            if not secrets_:
                raise
            print(mask("".join(traceback.format_exception(error)), secrets_), file=sys.stderr, flush=True)
            failures.append(BunryuError(type(error).__name__))
            jobs.append(f"failed    {swept}  {type(error).__name__}")

    if {"-m", "--multirun"}.intersection(arguments) and ranks.world_size() == 1:
        from bunryu.sweeps import pool

        pool.start_forkserver()  # beside Hydra's composing; a mistake ends it again
    os.environ["HYDRA_FULL_ERROR"] = "1"  # Hydra raises instead of printing and exiting with 1
    sys.argv = ["bunryu", *as_hydra_reads(arguments)]
    try:
        with hydra_allowlist.checked():
            hydra.main(version_base="1.3", config_path=str(conf_dir()), config_name="train")(job)()
    except (HydraException, OmegaConfBaseException, ValueError) as error:
        if (explained := explain(error)) is None:
            raise
        raise explained from error
    if len(jobs) > 1:
        log.info("%d jobs, %d failed\n  %s", len(jobs), len(failures), "\n  ".join(jobs))
    return failures[0].exit_code if failures else 0


def train(cfg: DictConfig) -> dict[str, Any]:
    """Check one composed config, make its run directory, execute the recipe in it; return the results."""
    if cfg.seed is None:
        cfg.seed = secrets.randbelow(2**32)
    choices = HydraConfig.get().runtime.choices
    config = prepared(cfg, shipped_defaults(GlobalHydra.instance().config_loader(), choices))
    check_files([config])
    # torch: only once a mistake is not to be found without it
    from bunryu.training import batch_size, early_checks

    config = early_checks.settle_and_check(config)

    # of the recorded config: a name from the environment stays out of the directory's
    argv = ["bunryu", "train", *sys.argv[1:]]
    made = None
    if ranks.rank() == 0:  # of several processes the first one makes it, and speaks
        config = batch_size.settle_batch(config)
        root = Path(cfg.output_root).expanduser()
        made = Run.create(root, kind_of(config), config, argv, _overrides())
        log.info("run directory: %s", made.path)
        log.info("configuration:\n%s", (made.path / "config.yaml").read_text("utf-8").rstrip())
    else:
        logging.getLogger("bunryu").setLevel(logging.ERROR)
    from bunryu.training import distributed  # torch and Lightning: only once there is something to train

    run = made if made is not None and ranks.world_size() == 1 else distributed.agreed(made)
    results = distributed.execute(run)
    log.info("%s", closing_table(run, results))
    return results


def _overrides() -> list[str]:
    """Hydra's overrides, unresolved: one may name a secret's environment variable."""
    overrides = OmegaConf.to_container(HydraConfig.get().overrides.task, resolve=False)
    assert isinstance(overrides, list)
    return overrides
