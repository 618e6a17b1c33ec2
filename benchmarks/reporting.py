"""``bunryu report`` over 500 runs that nobody trained: its time, its page's size, how often it is wrong."""

from __future__ import annotations

import csv
import itertools
import json
import subprocess
import sys
import tempfile
import time
from datetime import datetime, timedelta
from pathlib import Path

import numpy as np

import machine
from bunryu.reports.significance import LEVEL, estimated_means, p_of_gap
from bunryu.runs.run import SCHEMA
from setting import arguments, print_table

LEARNING_RATES, LENGTHS = (1e-4, 3e-4, 1e-3, 3e-3, 1e-2), (32, 64, 128, 256)
BATCHES, DROPOUTS = (16, 32, 64, 128, 256), (0.1,)
ROWS, EPOCHS, STEPS = 1000, 5, 100  # predicted rows; logged steps of an epoch
SECONDS, MEGABYTES = 5.0, 3.0
COMMAND = "import sys; from bunryu.commands.report import main; sys.exit(main(sys.argv[1:]))"


def main() -> None:
    options = arguments(__doc__).parse_args()
    seeds, rounds, sweeps = (1, 1, 200) if options.quick else (5, 3, 10_000)
    with tempfile.TemporaryDirectory() as folder:
        runs = made_up(Path(folder) / "outputs", seeds)
        took = [report(Path(folder)) for _ in range(rounds)]
        size = (Path(folder) / "report" / "report.html").stat().st_size / 1e6
    print(f"{runs} made-up runs of {EPOCHS * STEPS} logged steps, a process from its start to its end. "
          f"{machine.describe()}\n")  # fmt: skip
    print_table(
        ["bunryu report", "figure", "target"],
        [
            [f"s over {runs} runs, median of {rounds}", f"{sorted(took)[rounds // 2]:.2f}", f"< {SECONDS:g}"],
            ["MB of the page", f"{size:.2f}", f"<= {MEGABYTES:g}"],
        ],
    )
    print(f"Sweeps whose best is called different from the second, % of {sweeps:,}:\n")
    print_table(
        [
            "configurations",
            "seeds",
            "none differs",
            "target",
            "2 tied, rest far",
            "2 tied, rest close",
            "best 1 std better",
            "best 2 std better",
        ],
        [
            [groups, seeds, *wrong_and_right(groups, seeds, sweeps)]
            for groups, seeds in itertools.product((2, 3, 5, 8), (3, 5, 10))
        ],
    )


def report(folder: Path) -> float:
    """Seconds that a report takes, imports and all."""
    start = time.perf_counter()
    subprocess.run(
        [sys.executable, "-c", COMMAND, str(folder / "outputs"), "-o", str(folder / "report")],
        check=True, stdout=subprocess.DEVNULL,
    )  # fmt: skip
    return time.perf_counter() - start


def wrong_and_right(groups: int, seeds: int, sweeps: int) -> list[str]:
    """How often none is called a difference, one is found, and two tied at the top are told apart."""

    def called(best: float, second: float, rest: float) -> str:
        random = np.random.default_rng(groups * 100 + seeds)
        scores = random.normal(size=(sweeps, seeds, groups)) + random.normal(size=(sweeps, seeds, 1))
        scores += np.array([best, second, *[rest] * (groups - 2)])
        p = np.concatenate([gap_p_values(some) for some in np.array_split(scores, max(1, sweeps // 500))])
        return f"{100 * float((p < LEVEL).mean()):.1f}"

    close = -2.5 / seeds**0.5  # where it is hardest to see that the others are no part of the contest
    return [
        called(0, 0, 0), "5 ± 2", called(0, 0, -3), called(0, 0, close), called(1, 0, -3), called(2, 0, -3)
    ]  # fmt: skip


def gap_p_values(scores: np.ndarray) -> np.ndarray:
    """p of the best against the second of each sweep, for scores of shape (sweeps, seeds, groups)."""
    order = np.argsort(-scores.mean(1), axis=1)
    scores = np.take_along_axis(scores, order[:, None, :], axis=2)
    advantage, seeds = scores[:, :, 0] - scores[:, :, 1], scores.shape[1]
    t = advantage.mean(1) / (advantage.std(1, ddof=1) / seeds**0.5)
    return p_of_gap(t, estimated_means(scores), seeds - 1)


def made_up(root: Path, seeds: int) -> int:
    """Write run directories as training would leave them, without models; returns how many."""
    random = np.random.default_rng(7)
    labels = random.integers(0, 2, ROWS)
    grid = itertools.product(LEARNING_RATES, LENGTHS, BATCHES, DROPOUTS, range(1, seeds + 1))
    count = 0
    for count, (lr, length, batch, dropout, seed) in enumerate(grid, 1):
        loss = 0.4 + 0.05 * abs(np.log10(lr / 1e-3)) + 1.6 / length + 0.01 * abs(np.log2(batch / 32))
        loss += 0.02 * (dropout - 0.1) + random.normal() * 0.006
        overrides = [f"optimizer.lr={lr}", f"max_seq_length={length}", f"batch_size={batch}", f"seed={seed}"]
        config = {
            "model": {"_target_": "bunryu.models.sources.FromScratch", "name": "tiny", "dropout": dropout},
            "corpus": {"name": "sample", "label_names": {"0": "부정", "1": "긍정"}},
            "optimizer": {"lr": lr, "weight_decay": 0.01},
            **{f"filler_{index}": index for index in range(60)},  # a config has some hundred keys
            **{"seed": seed, "max_seq_length": length, "batch_size": batch, "monitor": "min val/loss"},
        }
        run = root / "sample-tiny" / f"2026-01-01_00-00-00-{count:06x}"
        run.mkdir(parents=True)
        start = datetime(2026, 1, 1) + timedelta(minutes=count)
        manifest = {
            "schema": SCHEMA, "status": "finished", "overrides": overrides, "seed": seed, "config": config,
            "start": start.isoformat(), "end": (start + timedelta(seconds=50)).isoformat(),
        }  # fmt: skip
        (run / "manifest.json").write_text(json.dumps(manifest, indent=2), "utf-8")
        (run / "config.yaml").write_text(json.dumps(config), "utf-8")
        accuracy = 1 - loss / 3
        results = {
            "val/loss": loss,
            "val/accuracy": accuracy,
            "test/loss": loss + 0.01,
            "test/accuracy": accuracy,
        }
        (run / "results.json").write_text(json.dumps(results), "utf-8")
        write_metrics(run / "metrics.csv", loss, random)
        write_predictions(run / "predictions" / "test.csv", labels, random.random(ROWS) < accuracy)
    return count


def write_metrics(path: Path, loss: float, random: np.random.Generator) -> None:
    with open(path, "w", encoding="utf-8", newline="") as file:
        writer = csv.writer(file, lineterminator="\n")
        writer.writerow(["epoch", "step", "name", "value"])
        for step in range(1, EPOCHS * STEPS + 1):
            value = 0.3 + 0.4 * 0.99**step + 0.02 * random.normal()
            writer.writerow([(step - 1) // STEPS, 20 * step, "train/loss", value])
            if step % STEPS == 0:
                above = 0.3 * 0.4 ** (step // STEPS) + 0.003 * random.normal()
                writer.writerow([(step - 1) // STEPS, 20 * step, "val/loss", loss + above])


def write_predictions(path: Path, labels: np.ndarray, right: np.ndarray) -> None:
    path.parent.mkdir()
    names = ("부정", "긍정")
    lines = ["row,label,prediction,logit:부정,logit:긍정"]
    for row, (label, is_right) in enumerate(zip(labels, right, strict=True)):
        lines.append(f"{row},{names[label]},{names[label if is_right else 1 - label]},0.0,0.0")
    path.write_text("\n".join(lines) + "\n", "utf-8")


if __name__ == "__main__":
    main()
