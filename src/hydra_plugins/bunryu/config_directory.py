"""A folder of one's own config options, named once in the environment instead of at every command."""

from __future__ import annotations

import os
from pathlib import Path

from hydra.core.config_search_path import ConfigSearchPath
from hydra.plugins.search_path_plugin import SearchPathPlugin

VARIABLE = "BUNRYU_CONFIG_DIR"


class BunryuConfigDirectory(SearchPathPlugin):
    """Adds the folder that BUNRYU_CONFIG_DIR names, like ``--config-dir`` would."""

    def manipulate_search_path(self, search_path: ConfigSearchPath) -> None:
        """Append the folder if the variable is set."""
        folder = os.environ.get(VARIABLE)
        if folder:
            search_path.append("bunryu", f"file://{Path(folder).expanduser().resolve()}")
