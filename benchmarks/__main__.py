"""All benchmarks in turn: ``python benchmarks [--quick] [--corpus-root FOLDER]``."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

SCRIPTS = (
    "startup",
    "preparation",
    "training",
    "hf_trainer",
    "kcbert",
    "roofline",
    "prediction",
    "serving",
    "reporting",
    "sweeps",
    "estimates",
    "baselines",
)


def main() -> int:
    failed = 0
    for name in SCRIPTS:
        print(f"## {name}\n", flush=True)
        failed += (
            subprocess.run([sys.executable, Path(__file__).parent / f"{name}.py", *sys.argv[1:]]).returncode
            != 0
        )
        print(flush=True)
    return 1 if failed else 0


if __name__ == "__main__":
    sys.exit(main())
