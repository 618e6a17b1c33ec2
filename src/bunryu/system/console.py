"""How log lines are shown on the console."""

from __future__ import annotations

import logging.config

import yaml

from bunryu.system.locations import conf_dir


def log_to_console() -> None:
    """Log as ``bunryu train`` does, for verbs that go without Hydra."""
    path = conf_dir() / "hydra" / "job_logging" / "bunryu.yaml"
    logging.config.dictConfig(yaml.safe_load(path.read_text("utf-8")))
