"""Hydra's own composition of the shipped configs."""

from __future__ import annotations

from typing import Any

from hydra import compose, initialize_config_dir

from bunryu.system.locations import conf_dir


def composed(*overrides: str) -> Any:
    with initialize_config_dir(str(conf_dir()), version_base="1.3"):
        return compose("train", list(overrides))
