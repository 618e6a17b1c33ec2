"""entries.py, comparison.py, importance.py: what is found, what is equal up to the seed, what was swept."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest
from scipy import stats

from bunryu.errors import ConfigError
from bunryu.reports.comparison import Comparison, compare
from bunryu.reports.entries import collect
from bunryu.reports.importance import importance
from bunryu.sweeps.ledger import Ledger
from helpers.comparing import lr_runs, made_run


def compared(root: Path, asked: str | None = None) -> Comparison:
    return compare(collect([root]), asked)


def test_runs_that_differ_in_their_seed_only_are_one_group(tmp_path: Path) -> None:
    lr_runs(tmp_path, {0.1: [0.5, 0.7], 0.2: [0.4, 0.6, 0.65]})
    found = compared(tmp_path)
    assert str(found.metric) == "min val/loss"
    assert found.keys == ["optimizer.lr"]
    assert [(group.label, group.scores(found.metric)) for group in found.groups] == [
        ("optimizer.lr=0.2", {1: 0.4, 2: 0.6, 3: 0.65}),
        ("optimizer.lr=0.1", {1: 0.5, 2: 0.7}),
    ]
    assert found.scores == [0.4, 0.5, 0.6, 0.65, 0.7]
    assert found.columns == {"optimizer.lr": [0.2, 0.1, 0.2, 0.2, 0.1]}


def test_where_a_run_is_kept_makes_no_group(tmp_path: Path) -> None:
    for place in ("a", "b"):
        made_run(
            tmp_path / place, "run", 0.5, seed=1 if place == "a" else 2, cache_dir=place, logger={place: 1}
        )
    found = compared(tmp_path)
    assert len(found.groups) == 1
    assert found.keys == []


def test_the_newest_of_repeated_runs_counts(tmp_path: Path) -> None:
    for name, loss in (("2026-01-02", 0.7), ("2026-01-01", 0.1)):
        made_run(tmp_path, name, loss)
    found = compared(tmp_path)
    assert found.scores == [0.7]
    assert found.notes == ["1 runs repeat another's configuration and seed: the newest of each counts"]


def test_swept_keys_are_those_of_the_command_lines_and_then_the_fewest(tmp_path: Path) -> None:
    overrides = [["model=small", "+extra.a=1"], ["+extra.a=2"], ["extra.a=2"]]
    for index, typed in enumerate(overrides):
        # model.* varies with the group, trainer.max_epochs with epochs, and nobody typed either
        epochs = 1 + index // 2
        made_run(
            tmp_path, f"run-{index}", 0.5, [*typed, "output_root=/x", "hydra.verbosity=1"], seed=1,
            extra={"a": 1 + min(index, 1)}, model={"size": int(not index)}, trainer={"max_epochs": epochs},
            epochs=epochs,
        )  # fmt: skip
    found = compared(tmp_path)
    assert found.keys == ["model", "extra.a", "epochs"]
    assert {group.label for group in found.groups} == {
        "model=small extra.a=1 epochs=1", "model=(default) extra.a=2 epochs=1",
        "model=(default) extra.a=2 epochs=2",
    }  # fmt: skip


def test_the_metric_may_be_another(tmp_path: Path) -> None:
    lr_runs(tmp_path, {0.1: [0.5], 0.2: [0.4]})
    assert str(compared(tmp_path, "val/accuracy").metric) == "max val/accuracy"
    assert compared(tmp_path, "val/accuracy").scores == [0.6, 0.5]
    assert compared(tmp_path, "max val/loss").scores == [0.5, 0.4]
    with pytest.raises(ConfigError, match="no finished run has 'val/los'") as caught:
        compared(tmp_path, "val/los")
    assert caught.value.fix == "one of val/accuracy, val/loss"
    with pytest.raises(ConfigError, match="'lowest val/loss' is no metric"):
        compared(tmp_path, "lowest val/loss")


def test_runs_that_watched_different_metrics_need_one_to_be_named(tmp_path: Path) -> None:
    made_run(tmp_path, "a", 0.5, monitor="max val/accuracy")
    made_run(tmp_path, "b", 0.5, monitor="max val/loss")
    with pytest.raises(ConfigError, match=r"max val/accuracy, max val/loss") as caught:
        compared(tmp_path)
    assert caught.value.fix == "--metric val/accuracy"
    assert str(compared(tmp_path, "val/loss").metric) == "max val/loss"  # as the run watched it


def test_what_did_not_finish_or_is_damaged_is_listed(tmp_path: Path) -> None:
    made_run(tmp_path, "good", 0.5)
    made_run(tmp_path, "failed", None, seed=2, status="failed", cause="TrainingError: the loss is nan")
    made_run(tmp_path, "running", None, seed=3, status="running", minutes=0)
    made_run(tmp_path, "diverged", float("nan"), seed=4)
    (made_run(tmp_path, "broken", 0.1, seed=5) / "manifest.json").write_text('{"schema": 1', "utf-8")
    (made_run(tmp_path, "list", 0.1, seed=6) / "manifest.json").write_text("[]", "utf-8")
    (made_run(tmp_path, "typed", 0.1, seed=9) / "manifest.json").write_text(
        '{"status": "finished", "config": {"seed": []}, "overrides": [1]}', "utf-8"
    )
    (made_run(tmp_path, "results", 0.1, seed=7) / "results.json").write_bytes(b"\xff")
    (made_run(tmp_path, "half", None, seed=8) / "results.json").write_text("{}", "utf-8")
    found = compared(tmp_path)
    assert [run.name for run in found.ranked] == ["good"]
    told = {entry.name: (entry.status, why) for entry, why in found.others}
    assert told["failed"] == ("failed", "TrainingError: the loss is nan")
    assert told["running"] == ("running", "running")
    assert told["diverged"] == ("finished", "its val/loss is nan")
    assert told["half"] == ("finished", "it has no val/loss")
    assert told["broken"][0] == "damaged"
    assert told["broken"][1].startswith("its manifest.json is damaged: JSONDecodeError: ")
    assert told["list"][1].startswith("its manifest.json is damaged: TypeError: ")
    assert told["typed"][1] == "its manifest.json is damaged: TypeError: config is no mapping with a seed"
    assert told["results"][1].startswith("its results.json is damaged: UnicodeDecodeError: ")


def test_a_curve_leaves_out_what_cannot_be_read(tmp_path: Path) -> None:
    run = made_run(tmp_path, "run", 0.5)
    with open(run / "metrics.csv", "a", encoding="utf-8") as file:
        file.write("1,30,val/loss,nan\n1,x,val/loss,1\n2,40,val/loss,0.25\n2,50,val/loss,")
    (entry,) = collect([run])
    assert entry.curve("val/loss") == [(10, 0.6), (20, 0.5), (40, 0.25)]
    (run / "metrics.csv").unlink()
    assert entry.curve("val/loss") == []


def made_sweep(root: Path) -> Path:
    """Four jobs: finished, failed twice before it had a run, waiting, and one with a damaged record."""
    run = made_run(root, "run", 0.5, ["optimizer.lr=0.1"], optimizer={"lr": 0.1})
    sweep = root / "sweeps" / "mine"
    ledger = Ledger.create(sweep, {"monitor": "min val/loss"})
    for name in ("aaaa", "bbbb", "cccc"):
        ledger.add(name, [f"optimizer.lr={name}"], {"monitor": "min val/loss", "optimizer": {"lr": name}})
    (sweep / "jobs" / "dddd.json").write_text("{", "utf-8")
    hour = {"start": "2026-01-01T10:00:00", "end": "2026-01-01T11:00:00"}
    done = {
        "status": "finished",
        "run": f"../../sample-tiny/{run.name}",
        "metrics": {"val/loss": 0.5},
        **hour,
    }
    dead = {"status": "failed", "run": None, "cause": "killed by signal 9", **hour}
    for name, facts in (("aaaa.1", done), ("bbbb.1", dead), ("bbbb.2", dead)):
        (sweep / "jobs" / f"{name}.json").write_text(json.dumps(facts), "utf-8")
    return sweep


def test_a_sweep_tells_of_all_its_jobs(tmp_path: Path) -> None:
    sweep = made_sweep(tmp_path)
    entries = {entry.name: entry for entry in collect([sweep])}
    assert {name: (entry.status, entry.hours) for name, entry in entries.items()} == {
        "run": ("finished", 1.0),
        "mine/job 1": ("failed", 2.0),
        "mine/job 2": ("waiting", None),
        "mine/dddd": ("damaged", None),
    }
    assert entries["run"].overrides == ["optimizer.lr=0.1", "seed=1"]
    assert entries["mine/job 1"].cause == "killed by signal 9"


def test_a_folder_holds_sweeps_and_runs_each_counted_once(tmp_path: Path) -> None:
    sweep = made_sweep(tmp_path)
    made_run(tmp_path, "alone", 0.6)
    names = [entry.name for entry in collect([tmp_path, sweep, tmp_path / "sample-tiny" / "alone"])]
    assert sorted(names) == ["alone", "mine/dddd", "mine/job 1", "mine/job 2", "run"]


@pytest.mark.parametrize(
    ("name", "what"), [("", "neither a run nor a sweep"), ("nowhere", "no such directory")]
)
def test_a_path_without_runs_is_a_mistake(tmp_path: Path, name: str, what: str) -> None:
    with pytest.raises(ConfigError, match=what) as caught:
        collect([tmp_path / name])
    assert caught.value.exit_code == 2
    assert "outputs" in caught.value.fix


def test_importance_is_the_share_of_variance_between_a_keys_values() -> None:
    scores = [1.0, 2.0, 5.0, 6.0]
    found = importance({"small": ["a", "b", "a", "b"], "large": [1, 1, 2, 2], "same": [1] * 4}, scores)
    # total 17; means 1.5 and 5.5 around 3.5: 16; means 3 and 4: 1
    assert [(each.key, each.levels) for each in found] == [("large", 2), ("small", 2)]
    assert [each.share for each in found] == pytest.approx([16 / 17, 1 / 17])
    assert found[0].chance == pytest.approx(1 / 3)


def test_importance_is_what_an_f_test_is_made_of() -> None:
    random = np.random.default_rng(5)
    groups = [random.normal(mean, 1, 20) for mean in (0, 0.5, 2)]
    share = importance({"key": ["a"] * 20 + ["b"] * 20 + ["c"] * 20}, np.concatenate(groups))[0].share
    assert share / 2 / ((1 - share) / 57) == pytest.approx(stats.f_oneway(*groups).statistic, rel=1e-9)


def test_many_numbers_are_cut_into_fifths() -> None:
    values = list(np.linspace(0, 1, 100))
    (found,) = importance({"lr": values}, values)
    assert found.levels == 5
    assert found.share == pytest.approx(0.96, abs=0.005)
    assert importance({"lr": values}, [1.0] * 100) == []
