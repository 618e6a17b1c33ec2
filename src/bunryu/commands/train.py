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
from bunryu.system.files import explained
from bunryu.system.locations import conf_dir
from bunryu.system.secrets import mask, secrets_in

log = logging.getLogger(__name__)


def main(arguments: Sequence[str]) -> int:
    codes: list[int] = []
    lines: list[str] = []

    def job(cfg: DictConfig) -> None:
        code, outcome, detail = _attempt(cfg)
        codes.append(code)
        lines.append(f"{outcome:<8}  {' '.join(map(str, _overrides()))}  {detail}")

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
    if len(lines) > 1:
        log.info("%d jobs, %d failed\n  %s", len(lines), len(codes) - codes.count(0), "\n  ".join(lines))
    return next(filter(None, codes), 0)


def _attempt(cfg: DictConfig) -> tuple[int, str, str]:
    """Train one config: exit code, how it ended, and the monitored metric or what failed.

    An error is printed and not raised, so that the other jobs of a multirun go on.
    """
    try:
        results = train(cfg)
    except Exception as caught:
        error = explained(caught) or caught
        hidden = secrets_in(OmegaConf.to_yaml(cfg))
        if isinstance(error, BunryuError):
            code, what, text = error.exit_code, error.what, f"bunryu train: {error}"
        elif hidden:  # a traceback as Python prints it, but for the secrets
            code, what, text = 1, type(error).__name__, "".join(traceback.format_exception(error))
        else:
            raise
        print(mask(text, hidden), file=sys.stderr, flush=True)
        return code, "failed", mask(what, hidden)
    metric = cfg.monitor.split()[1]
    return 0, "finished", f"{metric} {results[metric]:.4f}"


def train(cfg: DictConfig) -> dict[str, Any]:
    """Check one composed config, make its run directory, execute the recipe in it; the results."""
    if cfg.seed is None:
        cfg.seed = secrets.randbelow(2**32)
    choices = HydraConfig.get().runtime.choices
    config = prepared(cfg, shipped_defaults(GlobalHydra.instance().config_loader(), choices))
    check_files([config])
    from bunryu.training import batch_size, early_checks  # torch: once all is checked that needs none

    config = early_checks.settle_and_check(config)
    made = None
    if ranks.rank() == 0:  # of several processes the first one makes the directory and writes the log
        config = batch_size.settle_batch(config)
        made = _new_run(cfg, config)
    else:
        logging.getLogger("bunryu").setLevel(logging.ERROR)
    from bunryu.training import distributed, summary  # Lightning, too: once there is something to train

    run = made if made is not None and ranks.world_size() == 1 else distributed.agreed(made)
    results = distributed.execute(run)
    log.info("%s", summary.closing_table(run, results))
    return results


def _new_run(cfg: DictConfig, config: dict[str, Any]) -> Run:
    argv, root = ["bunryu", "train", *sys.argv[1:]], Path(cfg.output_root).expanduser()
    # named after the recorded config, in which a secret from the environment is not filled in
    run = Run.create(root, kind_of(config), config, argv, _overrides())
    log.info("run directory: %s", run.path)
    log.info("configuration:\n%s", (run.path / "config.yaml").read_text("utf-8").rstrip())
    return run


def _overrides() -> list[str]:
    """Hydra's overrides, unresolved: one may name a secret's environment variable."""
    overrides = OmegaConf.to_container(HydraConfig.get().overrides.task, resolve=False)
    assert isinstance(overrides, list)
    return overrides
