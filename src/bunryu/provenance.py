"""What produced a run: code, versions, machine. Facts for the manifest, gathered without torch."""

from __future__ import annotations

import hashlib
import importlib.metadata
import platform
import subprocess
from pathlib import Path
from typing import Any

PACKAGES = (
    "bunryu",
    "hydra-core",
    "korpora",
    "numpy",
    "omegaconf",
    "pytorch-lightning",
    "safetensors",
    "tensorboard",
    "tokenizers",
    "torch",
    "transformers",
)
LONGEST_DIFF = 1_000_000  # characters


def facts() -> dict[str, Any]:
    """Versions, hash of bunryu's sources, git state and platform."""
    return {
        "python": python(),
        "platform": system(),
        "processor": processor(),
        "versions": versions(),
        "sources": sources_hash(),
        "git": git_state(),
    }


def python() -> str:
    """Python's version."""
    return platform.python_version()


def system() -> str:
    """Operating system and architecture."""
    return f"{platform.system()} {platform.machine()}"


def processor() -> str:
    """The processor's name, where the system tells it."""
    information = Path("/proc/cpuinfo")
    if information.is_file():
        for line in information.read_text("utf-8", "replace").splitlines():
            if line.startswith("model name"):
                return line.partition(":")[2].strip()
    return platform.processor()


def versions() -> dict[str, str | None]:
    """The installed version of each package that matters; None for one that is not there."""
    return {name: _version(name) for name in PACKAGES}


def sources_hash() -> str:
    """A hash of every installed Python file of bunryu, names included."""
    folder = Path(__file__).parent
    digest = hashlib.sha256()
    for path in sorted(folder.rglob("*.py")):
        digest.update(str(path.relative_to(folder)).encode() + b"\0" + path.read_bytes() + b"\0")
    return digest.hexdigest()


def git_state() -> dict[str, Any] | None:
    """Commit and uncommitted diff of the checkout bunryu runs from, or of the working directory's.

    None where neither lies in a git checkout.
    """
    for folder in (Path(__file__).parent, Path.cwd()):
        commit = _git(folder, "rev-parse", "HEAD")
        if commit is not None:
            diff = _git(folder, "diff", "HEAD") or ""
            return {
                "commit": commit.strip(),
                "dirty": bool(diff),
                "diff": diff[:LONGEST_DIFF],
                "diff_cut": len(diff) > LONGEST_DIFF,
            }
    return None


def _git(folder: Path, *arguments: str) -> str | None:
    try:
        done = subprocess.run(
            ["git", "-C", str(folder), *arguments], capture_output=True, timeout=20, check=False
        )
    except (OSError, subprocess.TimeoutExpired):
        return None
    return done.stdout.decode("utf-8", "replace") if done.returncode == 0 else None


def _version(package: str) -> str | None:
    try:
        return importlib.metadata.version(package)
    except importlib.metadata.PackageNotFoundError:
        return None
