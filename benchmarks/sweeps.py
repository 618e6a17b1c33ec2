"""Sweeps: two jobs at once against one after another, the pause between jobs, what the ledger costs."""

from __future__ import annotations

import itertools
import logging
import shutil
import statistics
import subprocess
import sysconfig
import tempfile
import time
from collections.abc import Iterator
from contextlib import contextmanager
from datetime import datetime
from pathlib import Path

import machine
from bunryu.sweeps.job import record_exit
from bunryu.sweeps.ledger import JobState, Ledger
from bunryu.sweeps.runner import GridJobs, run
from setting import arguments, print_table

SPEEDUP, PAUSE, OVERHEAD = 1.5, 1.5, 50.0  # times, seconds, milliseconds
JOBS, BOOKED = 8, 20
QUICK = ["limit_rows=72", "batch_size=16", "epochs=1"]


def main() -> None:
    parser = arguments(__doc__)  # --corpus-root is taken and not needed
    parser.add_argument("--model", default="tiny", help="tiny has a target, small has none")
    options = parser.parse_args()
    rounds, overrides = (1, QUICK) if options.quick else (3, [])
    jobs = 4 if options.quick else JOBS
    with tempfile.TemporaryDirectory() as folder:
        root = Path(folder)
        swept = [f"model={options.model}", f"seed={','.join(map(str, range(1, jobs + 1)))}", *overrides]
        measured = measure(root, swept, rounds)
        booked = [book_keeping(root / f"books-{number}") for number in range(3)]
        again = [repeated(root, swept, jobs) for _ in range(3)]
        print(f"{jobs} jobs ({options.model}, sample corpus), {rounds} rounds. {machine.describe()}\n")
        report(measured, booked, again, options.model == "tiny")


def measure(root: Path, swept: list[str], rounds: int) -> dict[int, list[tuple[float, list[JobState]]]]:
    """Seconds of whole commands, and their jobs, for each ``n_jobs``; the order changes every round."""
    bunryu(root, [*swept, "seed=1", "n_jobs=1"])  # fills the caches
    measured: dict[int, list[tuple[float, list[JobState]]]] = {1: [], 2: []}
    for number in range(rounds):
        for n_jobs in (1, 2) if number % 2 else (2, 1):
            seconds = bunryu(root, [*swept, f"n_jobs={n_jobs}"])
            measured[n_jobs].append((seconds, Ledger(root / "outputs/sweeps/bench").jobs()))
    return measured


def bunryu(root: Path, overrides: list[str], fresh: bool = True) -> float:
    """Seconds of ``bunryu train -m``, from the process' start to its end."""
    command = [str(Path(sysconfig.get_path("scripts")) / "bunryu"), "train", "-m", "sweep_name=bench"]
    begun = time.perf_counter()
    done = subprocess.run(
        [*command, f"fresh={fresh}".lower(), *overrides], cwd=root, capture_output=True, text=True
    )
    seconds = time.perf_counter() - begun
    if done.returncode:
        raise SystemExit(f"it ended with {done.returncode}:\n{done.stdout}{done.stderr}")
    return seconds


def pauses(jobs: list[JobState]) -> list[float]:
    """Seconds from each job's end to the training of the one after it, of jobs one after another.

    The end is what the job's process wrote into its record. Training is taken to begin when train.log says
    with how many steps: everything is built by then, and the first step is the next thing to come.
    """
    in_order = sorted(jobs, key=lambda job: str(job.start))
    return [
        (first_step(later) - datetime.fromisoformat(str(earlier.end))).total_seconds()
        for earlier, later in itertools.pairwise(in_order)
    ]


def first_step(job: JobState) -> datetime:
    """When training began, by the run's train.log (the line that tells its steps)."""
    assert job.run is not None
    lines = (job.run / "train.log").read_text("utf-8").splitlines()
    (line,) = (line for line in lines if " steps on " in line)
    return datetime.strptime(line[:23], "%Y-%m-%d %H:%M:%S,%f").astimezone()


def book_keeping(folder: Path) -> float:
    """Milliseconds a job that the driver spends on jobs which do nothing, in a sweep of ``BOOKED``.

    Each is put into the ledger, found to be waiting, claimed, ended, closed and told; the closing table
    is counted too.
    """
    with quiet():
        begun = time.perf_counter()
        ledger = Ledger.create(folder, {"swept": ["seed"], "monitor": "min val/loss", "strategy": "grid"})
        names = [f"{number:012x}" for number in range(BOOKED)]
        config = {f"key_{number}": number for number in range(100)}
        for name in names:
            ledger.add({name: ([f"seed={name}"], config)})

        def launch(ledger: Ledger, identities: Iterator[str]) -> Iterator[str]:
            for name in identities:
                with ledger.claimed(ledger.job(name)) as attempt:
                    attempt.record_run(folder / name)
                    attempt.end("finished", metrics={"val/loss": 0.5})
                record_exit(ledger, name, 0)
                yield name

        run(ledger, GridJobs(ledger, names, retry=True), launch, stop_on_failure=False)
        seconds = time.perf_counter() - begun
    shutil.rmtree(folder)
    return 1000 * seconds / BOOKED


@contextmanager
def quiet() -> Iterator[None]:
    """Without the sweep's lines."""
    logger = logging.getLogger("bunryu.sweeps.runner")
    logger.disabled = True
    try:
        yield
    finally:
        logger.disabled = False


def repeated(root: Path, swept: list[str], jobs: int) -> float:
    """Milliseconds a job of the whole command given again: composed, checked, found finished."""
    seconds = bunryu(root, [*swept, "n_jobs=1"], fresh=False)
    one = bunryu(root, [*swept, "seed=1", "n_jobs=1"], fresh=False)  # the process itself
    return 1000 * (seconds - one) / (jobs - 1)


def report(
    measured: dict[int, list[tuple[float, list[JobState]]]],
    booked: list[float],
    again: list[float],
    has_target: bool,
) -> None:
    one, two = ([seconds for seconds, _ in measured[n_jobs]] for n_jobs in (1, 2))
    ratio = statistics.median(a / b for a, b in zip(one, two, strict=True))
    between = sorted(pause for _, jobs in measured[1] for pause in pauses(jobs))
    rows = [
        ["s, n_jobs=1 with all threads", f"{statistics.median(one):.1f}", ""],
        ["s, n_jobs=2", f"{statistics.median(two):.1f}", ""],
        ["times as fast", f"{ratio:.2f}", f">= {SPEEDUP}" if has_target else ""],
        ["s from a job's end to the next first step", f"{statistics.median(between):.2f}", f"<= {PAUSE}"],
        ["the same, slowest", f"{between[-1]:.2f}", ""],
        [f"ms a job for the ledger of {BOOKED}", f"{statistics.median(booked):.1f}", f"< {OVERHEAD:g}"],
        ["ms a job found finished, composing included", f"{statistics.median(again):.1f}", f"< {OVERHEAD:g}"],
    ]  # fmt: skip
    print_table(["sweep", "figure", "target"], rows)


if __name__ == "__main__":
    main()
