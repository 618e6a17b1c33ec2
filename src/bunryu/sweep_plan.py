"""From a sweep's command line to a ledger with all its jobs, checked before the first one begins."""

from __future__ import annotations

import logging
import re
import tempfile
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from hydra.core.config_loader import ConfigLoader
from omegaconf import DictConfig

from bunryu.config import check_targets
from bunryu.errors import BunryuError, ConfigError
from bunryu.grid import Grid
from bunryu.ledger import Ledger, identity_of
from bunryu.pool import Slot, in_slots
from bunryu.preparation import SWEEP_KEYS, Jobs
from bunryu.sweep import name_of, put_aside

log = logging.getLogger(__name__)


def grid_of(
    loader: ConfigLoader, master: DictConfig, arguments: Sequence[str], params: Mapping[str, str]
) -> tuple[Ledger, list[str]]:
    """The ledger of a grid, with a record for each of its jobs.

    Args:
        loader: Hydra's.
        master: the sweep's own config.
        arguments: the command line's overrides.
        params: a preset's.

    Returns:
        The ledger and the grid's jobs by identity, in the grid's order.

    Raises:
        ConfigError: if any job could not work; nothing is left behind then.
    """
    grid = Grid.parse(loader, arguments, params)
    jobs = Jobs(loader, master)
    configs: dict[str, tuple[list[str], dict[str, Any]]] = {}
    for overrides in grid.jobs():
        config = jobs.prepare(overrides)
        configs.setdefault(identity_of(config), (overrides, config))
    path = folder_of(jobs, master, grid)
    known = Ledger(path).identities() if path.is_dir() and not master.fresh else []
    if new := [config for identity, (_, config) in configs.items() if identity not in known]:
        check_all(new)
    ledger = open_ledger(path, master, grid, "grid")
    for identity, (overrides, config) in configs.items():
        ledger.add(identity, own(overrides), config)
    return ledger, list(configs)


def folder_of(jobs: Jobs, master: DictConfig, grid: Grid) -> Path:
    """Where the sweep's ledger lies: the same for the same command, also when a key takes more values."""
    base = jobs.prepare([str(item.input_line) for item in grid.overrides if not item.is_sweep_override()])
    name = master.sweep_name or name_of(base, grid.swept)
    return Path(master.output_root).expanduser() / "sweeps" / re.sub(r"[^\w.-]+", "-", name)


def open_ledger(path: Path, master: DictConfig, grid: Grid, strategy: str) -> Ledger:
    """Make the sweep's folder, or open it again; an earlier one is put aside if the user wants to begin anew.

    Raises:
        BusyError: if the earlier one is at work.
        ConfigError: if there cannot be a folder.
    """
    if master.fresh and path.is_dir():
        put_aside(Ledger(path))
    facts = {"swept": grid.swept, "monitor": master.monitor, "strategy": strategy}
    try:
        return Ledger.create(path, facts)
    except OSError as error:
        raise ConfigError(
            f"cannot make the sweep's folder: {error.strerror}", where=str(path), fix="output_root=<folder>"
        ) from None


def own(overrides: Sequence[str]) -> list[str]:
    """What a job's own command line has of a sweep's."""
    return [item for item in overrides if item.partition("=")[0] not in SWEEP_KEYS]


def check_all(configs: Sequence[Mapping[str, Any]]) -> None:
    """Judge the targets of all configs, where torch is loaded anyway: in the process that jobs come from.

    Raises:
        ConfigError: in the words of the first that is refused.
    """
    with tempfile.TemporaryDirectory() as folder:
        output = Path(folder) / "output"
        ((_, code),) = in_slots([configs], _check, [Slot()], lambda _: output)
        if code:
            raise ConfigError(output.read_text("utf-8").strip())


def _check(configs: Sequence[Mapping[str, Any]], slot: Slot) -> int:
    del slot
    try:
        for config in configs:
            check_targets(config)
    except BunryuError as error:
        print(error, flush=True)
        return error.exit_code
    return 0
