from __future__ import annotations

import json
from pathlib import Path

import pytest

from bunryu.errors import ConfigError
from bunryu.reports.entries import collect
from bunryu.sweeps.ledger import Ledger
from helpers.comparing import made_run


def test_a_curve_leaves_out_what_cannot_be_read(tmp_path: Path) -> None:
    run = made_run(tmp_path, "run", 0.5)
    with open(run / "metrics.csv", "a", encoding="utf-8") as file:
        file.write("1,30,val/loss,nan\n1,x,val/loss,1\n2,40,val/loss,0.25\n2,50,val/loss,")
    (entry,) = collect([run])
    assert entry.curve("val/loss") == [(10, 0.6), (20, 0.5), (40, 0.25)]
    (run / "metrics.csv").unlink()
    assert entry.curve("val/loss") == []


def test_all_jobs_of_sweeps_and_runs_below_a_folder_are_found_once_and_none_is_an_error(
    tmp_path: Path,
) -> None:
    for path, what in ((tmp_path, "neither a run nor a sweep"), (tmp_path / "no", "no such directory")):
        with pytest.raises(ConfigError, match=what):
            collect([path])
    made_run(tmp_path, "run", 0.5, ["optimizer.lr=0.1"], optimizer={"lr": 0.1})
    sweep = tmp_path / "sweeps" / "mine"
    ledger = Ledger.create(sweep, {"monitor": "min val/loss"})
    for name in ("aaaa", "bbbb", "cccc"):
        config = {"monitor": "min val/loss", "optimizer": {"lr": name}}
        ledger.add({name: ([f"optimizer.lr={name}"], config)})
    (sweep / "jobs" / "dddd.json").write_text("{", "utf-8")
    here = {"host": "here", "pid": 1}
    hour = {
        **here,
        "start": "2026-01-01T10:00:00",
        "end": "2026-01-01T11:00:00",
        "metrics": {"val/loss": 0.5},
    }
    done = {"status": "finished", "run": "../../sample-tiny/run", **hour}
    dead = {"status": "failed", "run": None, "cause": "killed by signal 9", **hour}
    for name, facts in (("aaaa.1", done), ("bbbb.1", dead), ("bbbb.2", dead)):
        (sweep / "jobs" / f"{name}.json").write_text(json.dumps(facts), "utf-8")
    entries = {entry.name: entry for entry in collect([sweep])}
    assert {name: (entry.status, entry.hours) for name, entry in entries.items()} == {
        "run": ("finished", 1.0), "mine/job 1": ("failed", 2.0), "mine/job 2": ("waiting", None),
        "mine/dddd": ("damaged", None),
    }  # fmt: skip
    assert str(entries["mine/dddd"].cause).startswith("dddd.json is damaged: EOF while parsing")
    assert entries["run"].overrides == ["optimizer.lr=0.1", "seed=1"]
    assert entries["mine/job 1"].cause == "killed by signal 9"
    *again, other = collect([tmp_path, sweep, made_run(tmp_path, "alone", 0.6) / ".." / "alone"])
    assert ({entry.name: entry for entry in again}, len(again), other.name) == (entries, 4, "alone")


def test_a_damaged_run_says_so_and_one_of_another_version_too(tmp_path: Path) -> None:
    run = made_run(tmp_path, "run", 0.5)
    for file, content, cause in (
        ("results.json", "[]", "results.json is damaged: it: Input should be a valid dictionary; found []"),
        ("manifest.json", '{"schema": 1}', "the run was made by bunryu before 0.1 (run directory schema 1)"),
    ):
        (run / file).write_text(content, "utf-8")
        (entry,) = collect([run])
        assert (entry.status, entry.cause) == ("damaged", cause)
