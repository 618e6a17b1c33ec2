"""What `bunryu check` estimates beside what `bunryu train` then takes: time, memory and disk of six runs."""

from __future__ import annotations

import os
import re
import statistics
import subprocess
import sys
import sysconfig
import tempfile
import time
from dataclasses import dataclass
from pathlib import Path

import machine
from setting import Reviews, arguments, print_table, reviews

TARGET = 0.20  # how far the estimated time may be from the measured one
TRAIN_ROWS, TEST_ROWS = 4000, 1000
CONFIGURATIONS = {
    "tiny": ["epochs=10"],
    "tiny, batches of 8, 32 tokens": ["batch_size=8", "max_seq_length=32", "epochs=4"],
    "small": ["model=small", "epochs=2"],
    "small, batches of 16, 2 accumulated, 64 tokens": [
        *("model=small", "batch_size=16", "max_seq_length=64", "epochs=2"),
        "trainer.accumulate_grad_batches=2",
    ],
    "small, padded to 64": ["model=small", "padding=max_length", "max_seq_length=64", "epochs=1"],
    "tiny, a sweep of 2 lengths": ["max_seq_length=16,128", "epochs=5"],
}
BYTES = {"MiB": 1 << 20, "GiB": 1 << 30}


@dataclass(frozen=True)
class Taken:
    """Seconds of a whole process and bytes; ``check`` is what the check itself took.

    ``memory`` is of the process, 0 where its children do the work.
    """

    estimated: float
    measured: float
    check: float
    memory: tuple[float, float]
    disk: tuple[float, float]


def main() -> None:
    options = arguments(__doc__).parse_args()
    rows = (400, 100) if options.quick else (TRAIN_ROWS, TEST_ROWS)
    source = reviews(options.corpus_root)
    with tempfile.TemporaryDirectory() as folder:
        source.copy(Path(folder) / "nsmc", "train", 0, rows[0])
        source.copy(Path(folder) / "nsmc", "test", 0, rows[1])
        taken = {name: measure(Path(folder), asked) for name, asked in CONFIGURATIONS.items()}
    report(source, rows, taken)


def measure(root: Path, asked: list[str]) -> Taken:
    """Check, then train; the check leaves the encoding cached, as for a user."""
    outputs = Path(tempfile.mkdtemp(dir=root))
    asked = ["corpus=nsmc", f"corpus.root_dir={root}", f"cache_dir={root / 'cache'}", *asked]
    asked.append(f"output_root={outputs}")
    told, check, _ = timed(["check", *asked])
    sweep = any("," in override for override in asked)
    _, seconds, memory = timed(["train", *(["-m"] if sweep else []), *asked])
    found = re.search(r"^estimated time +(?:([\d.]+) s|(\d+):(\d+):(\d+))", told, re.M)
    assert found is not None, told
    estimated = float(found[1]) if found[1] else sum(int(found[2 + n]) * 60 ** (2 - n) for n in range(3))
    size = sum(path.stat().st_size for path in outputs.rglob("*") if path.is_file())
    return Taken(
        estimated,
        seconds,
        check,
        (bytes_told(told, "memory at most"), 0.0 if sweep else memory),
        (bytes_told(told, "disk in the end"), size),
    )


def timed(command: list[str]) -> tuple[str, float, float]:
    """What a command prints, its seconds, and the bytes it had resident at the most."""
    program = str(Path(sysconfig.get_path("scripts")) / "bunryu")
    start = time.perf_counter()
    with tempfile.TemporaryFile("w+") as output:
        process = subprocess.Popen([program, *command], stdout=output, stderr=subprocess.STDOUT)
        _, status, usage = os.wait4(process.pid, 0)
        seconds = time.perf_counter() - start
        process.returncode = os.waitstatus_to_exitcode(status)
        output.seek(0)
        told = output.read()
    if process.returncode:
        raise SystemExit(f"bunryu {' '.join(command)} ended with {process.returncode}:\n{told[-2000:]}")
    return told, seconds, usage.ru_maxrss * (1 if sys.platform == "darwin" else 1024)


def bytes_told(told: str, what: str) -> float:
    """A size that the check printed."""
    found = re.search(rf"^{what} +([\d.,]+) (MiB|GiB)", told, re.M)
    assert found is not None, told
    return float(found[1].replace(",", "")) * BYTES[found[2]]


def report(source: Reviews, rows: tuple[int, int], taken: dict[str, Taken]) -> None:
    print(
        f"bunryu check beside bunryu train, whole processes, {rows[0]} and {rows[1]} rows of {source.name}. "
        f"{machine.describe()}\n"
    )
    table = [
        [
            name,
            f"{one.estimated:.1f}",
            f"{one.measured:.1f}",
            f"{one.estimated / one.measured:.2f}",
            f"{one.memory[0] / one.memory[1]:.2f}" if one.memory[1] else "",
            f"{one.disk[0] / one.disk[1]:.2f}",
            f"{one.check:.1f}",
        ]
        for name, one in taken.items()
    ]
    heads = ["run", "estimated s", "measured s", "time", "memory", "disk", "check s"]
    print_table(heads, table)
    ratios = [one.estimated / one.measured for one in taken.values()]
    print(
        f"Estimated over measured time: {min(ratios):.2f} to {max(ratios):.2f}, "
        f"median {statistics.median(ratios):.2f}; target {1 - TARGET:.2f} to {1 + TARGET:.2f}."
    )


if __name__ == "__main__":
    main()
