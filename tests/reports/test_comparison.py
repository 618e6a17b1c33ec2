from __future__ import annotations

from pathlib import Path

import pytest

from bunryu.errors import ConfigError
from helpers.comparing import compared, lr_runs, made_run


def test_runs_that_differ_only_in_their_seed_and_where_they_are_kept_are_one_group(tmp_path: Path) -> None:
    lr_runs(tmp_path, {0.1: [0.5, 0.7], 0.2: [0.4, 0.6, 0.65]})
    found = compared(tmp_path)
    assert (str(found.metric), found.keys, found.notes) == ("min val/loss", ["optimizer.lr"], [])
    assert [(group.label, group.scores(found.metric)) for group in found.groups] == [
        ("optimizer.lr=0.2", {1: 0.4, 2: 0.6, 3: 0.65}), ("optimizer.lr=0.1", {1: 0.5, 2: 0.7}),
    ]  # fmt: skip
    assert found.scores == [0.4, 0.5, 0.6, 0.65, 0.7]
    assert found.columns == {"optimizer.lr": [0.2, 0.1, 0.2, 0.2, 0.1]}


def test_the_newest_of_repeated_runs_counts_and_is_noted_with_unlike_corpora(tmp_path: Path) -> None:
    for name, folder, loss in (("2026-01-02", "a", 0.7), ("2026-01-01", "b", 0.1)):
        made_run(tmp_path / folder, name, loss, corpus={"name": "a"}, limit_rows=100)
    made_run(tmp_path, "b", 0.8, corpus={"name": "b"})
    found = compared(tmp_path)
    assert found.scores == [0.7, 0.8]
    assert found.notes == [
        "these runs are of 2 different corpora (a, b): beware of comparing",
        "1 runs repeat another's configuration and seed: the newest of each counts",
        "some runs used only a part of their corpus (limit_rows)",
    ]


def test_the_same_rows_in_another_file_are_one_corpus_and_other_rows_under_one_name_are_not(
    tmp_path: Path,
) -> None:
    for index, (file, rows) in enumerate((("a", "1f"), ("b/a", "1f"), ("a", "2e"))):
        corpus = {"name": "a", "train": file, "cleaner": {}}
        made_run(tmp_path, f"run-{index}", 0.5, seed=index, corpus=corpus, corpus_found={"fingerprint": rows})
    found = compared(tmp_path)
    assert [(group.values, sorted(group.runs)) for group in found.groups] == [
        ({"corpus.fingerprint": "1f"}, [0, 1]), ({"corpus.fingerprint": "2e"}, [2]),
    ]  # fmt: skip
    assert found.notes == ["these runs are of 2 different corpora (a): beware of comparing"]


def test_other_rows_drawn_from_one_file_are_no_other_corpus(tmp_path: Path) -> None:
    for rows in (100, 200):
        made_run(
            tmp_path, f"run-{rows}", 0.5, [f"limit_rows={rows}"], limit_rows=rows,
            corpus_found={"fingerprint": str(rows)},
        )  # fmt: skip
    found = compared(tmp_path)
    assert (found.keys, found.notes) == (
        ["limit_rows"], ["some runs used only a part of their corpus (limit_rows)"],
    )  # fmt: skip


def test_swept_keys_are_those_of_the_command_lines_and_then_the_fewest(tmp_path: Path) -> None:
    overrides = [["model=small", "+extra.a=1"], ["+extra.a=2"], ["extra.a=2"]]
    for index, typed in enumerate(overrides):
        # model.* varies with the group, trainer.max_epochs with epochs, and nobody typed either
        epochs = 1 + index // 2
        made_run(
            tmp_path, f"run-{index}", 0.5, [*typed, "output_root=/x", "hydra.verbosity=1"], epochs=epochs,
            extra={"a": 1 + min(index, 1)}, model={"size": int(not index)}, trainer={"max_epochs": epochs},
        )  # fmt: skip
    found = compared(tmp_path)
    assert found.keys == ["model", "extra.a", "epochs"]
    labels = {"model=small extra.a=1 epochs=1"} | {f"model=(default) extra.a=2 epochs={e}" for e in (1, 2)}
    assert {group.label for group in found.groups} == labels


def test_the_metric_may_be_another_and_must_be_named_where_runs_watched_different_ones(
    tmp_path: Path,
) -> None:
    lr_runs(tmp_path, {0.1: [0.5], 0.2: [0.4]})
    assert str(compared(tmp_path, "val/accuracy").metric) == "max val/accuracy"
    assert compared(tmp_path, "val/accuracy").scores == [0.6, 0.5]
    assert compared(tmp_path, "max val/loss").scores == [0.5, 0.4]
    with pytest.raises(ConfigError, match="no finished run has 'val/los'") as caught:
        compared(tmp_path, "val/los")
    assert caught.value.fix == "one of val/accuracy, val/loss"
    with pytest.raises(ConfigError, match="'lowest val/loss' is no metric"):
        compared(tmp_path, "lowest val/loss")
    for monitor in ("max val/accuracy", "max val/loss"):
        made_run(tmp_path / "others", monitor[-3:], 0.5, monitor=monitor)
    with pytest.raises(ConfigError, match="different metrics: max val/accuracy, max val/loss") as caught:
        compared(tmp_path / "others")
    assert caught.value.fix == "--metric val/accuracy"
    assert str(compared(tmp_path / "others", "val/loss").metric) == "max val/loss"  # as the run watched it


def test_what_has_no_rank_is_listed_with_the_reason(tmp_path: Path) -> None:
    made_run(tmp_path, "good", 0.5)
    made_run(tmp_path, "failed", None, status="failed", cause="TrainingError: the loss is nan")
    made_run(tmp_path, "running", None, status="running", minutes=0)
    made_run(tmp_path, "diverged", float("nan"), seed=4)
    (made_run(tmp_path, "half", None) / "results.json").write_text("{}", "utf-8")
    found = compared(tmp_path)
    assert [run.name for run in found.ranked] == ["good"]
    assert {(entry.name, entry.status, why) for entry, why in found.unranked} == {
        ("failed", "failed", "TrainingError: the loss is nan"), ("running", "running", "running"),
        ("diverged", "finished", "its val/loss is nan"), ("half", "finished", "it has no val/loss"),
    }  # fmt: skip
