"""Start-up: what `bunryu train` takes to answer, against a bare Hydra app."""

from __future__ import annotations

import statistics
import subprocess
import sys
import sysconfig
import tempfile
import time
from pathlib import Path

import machine
from setting import arguments, print_table

TARGET = 1.5
APP = """\
import hydra
from omegaconf import DictConfig


@hydra.main(version_base="1.3", config_path="conf", config_name="config")
def main(cfg: DictConfig) -> None:
    pass


main()
"""
CONFIG = {
    "config.yaml": "defaults:\n  - model: tiny\n  - corpus: sample\n  - _self_\n\nepochs: 3\n",
    "model/tiny.yaml": "width: 64\n",
    "model/small.yaml": "width: 256\n",
    "corpus/sample.yaml": "rows: 1800\n",
    "corpus/nsmc.yaml": "rows: 150000\n",
}


def main() -> None:
    options = arguments(__doc__).parse_args()  # --corpus-root is taken and not needed
    with tempfile.TemporaryDirectory() as folder:
        root = Path(folder)
        measured = measure(root, bare_app(root), rounds=2 if options.quick else 15)
    report(measured)


def bare_app(root: Path) -> list[str]:
    """A Hydra app that does nothing, with two groups."""
    for name, content in CONFIG.items():
        path = root / "conf" / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(content, "utf-8")
    (root / "app.py").write_text(APP, "utf-8")
    return [sys.executable, str(root / "app.py")]


def measure(root: Path, bare: list[str], rounds: int) -> dict[str, list[float]]:
    """Seconds of every command in every round; all are run in turn, and once before to warm the disk."""
    ours = [str(Path(sysconfig.get_path("scripts")) / "bunryu"), "train"]
    commands = {
        "bare --help": (bare, ["--help"], 0),
        "--help": (ours, ["--help"], 0),
        "bare --cfg job": (bare, ["--cfg", "job"], 0),
        "--cfg job": (ours, ["--cfg", "job"], 0),
        "epochs=-2": (ours, ["epochs=-2"], 2),
        "optimzer.lr=1": (ours, ["optimzer.lr=1"], 2),
        "bare epochs=-2": (bare, ["epochs=-2"], 0),  # it knows no ranges, and runs its empty job
        "bare optimzer.lr=1": (bare, ["optimzer.lr=1"], 1),
    }
    measured: dict[str, list[float]] = {name: [] for name in commands}
    for number in range(rounds + 1):
        for name, (program, asked, code) in commands.items():
            start = time.perf_counter()
            finished = subprocess.run([*program, *asked], cwd=root, capture_output=True, text=True)
            seconds = time.perf_counter() - start
            if finished.returncode != code:
                raise SystemExit(f"{name} ended with {finished.returncode}:\n{finished.stderr}")
            if number > 0:
                measured[name].append(seconds)
    return measured


def report(measured: dict[str, list[float]]) -> None:
    rounds = len(measured["--help"])
    print(f"Start-up of whole processes, medians of {rounds} rounds in turn. {machine.describe()}\n")
    pairs = [
        ("--help", "bare --help"),
        ("--cfg job", "bare --cfg job"),
        ("epochs=-2", "bare --cfg job"),
        ("optimzer.lr=1", "bare --cfg job"),
        ("epochs=-2", "bare epochs=-2"),
        ("optimzer.lr=1", "bare optimzer.lr=1"),
    ]
    rows = []
    for name, bare in pairs:
        ours, theirs = statistics.median(measured[name]), statistics.median(measured[bare])
        ratio = statistics.median(a / b for a, b in zip(measured[name], measured[bare], strict=True))
        rows.append(
            [f"bunryu train {name}", f"{ours:.2f}", bare, f"{theirs:.2f}", f"{ratio:.2f}", f"<= {TARGET}"]
        )
    print_table(["command", "s", "bare Hydra app", "s", "ratio", "target"], rows)


if __name__ == "__main__":
    main()
