"""An object whose unpickling can be seen."""

from __future__ import annotations

from pathlib import Path
from typing import Any


class Payload:
    """Unpickling one makes the canary file."""

    def __init__(self, canary: Path) -> None:
        self.canary = canary

    def __reduce__(self) -> tuple[Any, ...]:
        return Path.touch, (self.canary,)
