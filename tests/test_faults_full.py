"""The long kill sweep of ``make test-faults``; test_faults_resuming.py holds a sample of it."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

import pytest

from bunryu.task import ClassificationTask
from killing import BATCHES, SMALL, at_call, console, die, outcome, resume, run_in, train
from test_faults_resuming import CONFIGS, _warm, whole  # noqa: F401

pytestmark = pytest.mark.full

BUNRYU = Path(sys.executable).with_name("bunryu")
POINTS = [("default", batch) for batch in range(1, BATCHES + 1)]
POINTS += [(name, batch) for name in list(CONFIGS)[1:] for batch in (2, 4, 6, 7, 9, 10)]
POINTS += [(name, batch) for name in ("top 2", "constant, sgd") for batch in (3, 6, 10)]
MORE = {
    "top 2": ["save_top_k=2", "monitor=max val/accuracy"],
    "constant, sgd": ["scheduler=constant", "optimizer=sgd", "trainer.gradient_clip_val=null"],
}


@pytest.mark.parametrize(("name", "batch"), POINTS)
def test_killed_at_every_batch(name: str, batch: int, whole: Any, tmp_path: Path) -> None:  # noqa: F811
    overrides = {**CONFIGS, **MORE}[name]
    trap = at_call(ClassificationTask, "training_step", batch, die)
    assert train(tmp_path, *overrides, before=trap) == -signal.SIGKILL
    assert resume(tmp_path) == 0, console(tmp_path)
    assert outcome(tmp_path) == whole(*overrides)


@pytest.mark.parametrize("rows", range(1, 31, 3))
def test_real_processes_killed_from_outside(rows: int, whole: Any, tmp_path: Path) -> None:  # noqa: F811
    command = [BUNRYU, "train", *SMALL, f"output_root={tmp_path}"]
    with subprocess.Popen(command, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL) as process:
        while process.poll() is None:
            found = list(tmp_path.glob("*/*/metrics.csv"))
            if found and found[0].read_text("utf-8").count("\n") > rows:
                break
            time.sleep(0.002)
        process.kill()
    done = subprocess.run(
        [BUNRYU, "resume", run_in(tmp_path)], capture_output=True, text=True, env=os.environ
    )
    assert done.returncode == 0, done.stderr
    assert outcome(tmp_path) == whole()
