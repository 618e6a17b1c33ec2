"""Kills training at random moments, inside saves too, resumes it, and counts how often the bits are the same.

``python benchmarks/soak.py [--minutes 30]``: each point is one run of a tiny BERT that is killed one to three
times, by a signal that no process can catch, after a random time.
"""

from __future__ import annotations

import os
import random
import signal
import sys
import tempfile
import threading
import time
from collections.abc import Callable
from pathlib import Path

import machine
from setting import CHECKOUT, arguments

sys.path.insert(0, str(CHECKOUT / "tests"))
os.environ["OMP_NUM_THREADS"] = "1"

CONFIGS = (
    [],
    ["scheduler=linear_warmup", "trainer.accumulate_grad_batches=2"],
    ["scheduler=cosine_warmup", "batching=random"],
)


def main() -> None:
    parser = arguments(__doc__)
    parser.add_argument("--minutes", type=float, default=30.0)
    options = parser.parse_args()
    minutes = 0.5 if options.quick else options.minutes
    import killing

    import bunryu.training.recipe  # noqa: F401  every fork needs it

    draw = random.Random(time.time_ns())
    with tempfile.TemporaryDirectory() as folder:
        root = Path(folder)
        seconds, whole = [], []
        for number, overrides in enumerate(CONFIGS):
            start = time.perf_counter()
            assert killing.train(root / f"whole-{number}", *overrides) == 0
            seconds.append(time.perf_counter() - start)
            whole.append(killing.outcome(root / f"whole-{number}"))
        points = kills = same = 0
        until = time.monotonic() + 60 * minutes
        while time.monotonic() < until:
            number, place = points % len(CONFIGS), root / f"point-{points}"
            points += 1
            code = killing.train(place, *CONFIGS[number], before=after(draw.uniform(0, seconds[number])))
            for _ in range(draw.randrange(3)):
                if code == -signal.SIGKILL and list(place.glob("*/*/manifest.json")):
                    kills += 1
                    code = killing.resume(place, before=after(draw.uniform(0, seconds[number])))
            if code == -signal.SIGKILL:
                kills += 1
                begun = list(place.glob("*/*/manifest.json"))  # else it died before there was a run
                code = killing.resume(place) if begun else killing.train(place, *CONFIGS[number])
            identical = code == 0 and killing.outcome(place) == whole[number]
            same += identical
            if not identical:
                print(f"point {points} differs: exit code {code}\n{killing.console(place)[-2000:]}")
    print(
        f"{points} points tried, {kills} kills, {same} identical; {minutes:g} minutes. {machine.describe()}"
    )
    sys.exit(0 if same == points else 1)


def after(seconds: float) -> Callable[[], None]:
    """A trap: kill this process after some time."""

    def set_trap() -> None:
        threading.Timer(seconds, lambda: os.kill(os.getpid(), signal.SIGKILL)).start()

    return set_trap


if __name__ == "__main__":
    main()
