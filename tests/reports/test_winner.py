from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import pytest
import yaml

from bunryu import cli
from bunryu.reports.entries import RunSummary, collect
from bunryu.reports.winner import experiment_of
from helpers.comparing import made_run

OVERRIDES = [
    "model=small", "corpus/cleaner=kcbert", "experiment=nsmc_small", "debug=limit", "optimizer.lr=5e-4",
    "seed=3", "+trainer.max_time=00:01:00:00", "corpus.label_names={0: 나쁨, 1: '좋음: !'}", "epochs=7",
    "output_root=elsewhere", "scheduler=constant",
]  # fmt: skip


@pytest.mark.parametrize("count", [1, 5, len(OVERRIDES)])
def test_the_winner_composes_to_what_won(
    tmp_path: Path, count: int, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    def composed(*overrides: str) -> dict[str, object]:
        assert cli.run(["train", "--cfg", "job", "--resolve", *overrides]) == 0
        return dict(yaml.safe_load(capsys.readouterr().out))

    before = composed(*OVERRIDES[:count])
    (tmp_path / "config.yaml").write_text(yaml.safe_dump(before, allow_unicode=True), "utf-8")
    winner = RunSummary("run", "finished", path=tmp_path, overrides=OVERRIDES[:count])
    text = experiment_of(winner, "best of 4\nby val/loss")
    assert text.startswith("# @package _global_\n# best of 4 by val/loss\n# run: run\n")
    monkeypatch.setenv("BUNRYU_CONFIG_DIR", str(tmp_path / "mine"))
    (tmp_path / "mine" / "experiment").mkdir(parents=True)
    (tmp_path / "mine" / "experiment" / "winner.yaml").write_text(text, "utf-8")
    assert {**composed("experiment=winner"), "output_root": before["output_root"]} == before


def test_a_damaged_configs_manifest_will_do_and_a_comment_says_what_a_file_cannot(tmp_path: Path) -> None:
    typed = ["epochs=2", "callbacks=[default,early_stopping]", "~callbacks.progress_bar", "sweep_name=x"]
    run = made_run(tmp_path, "run", 0.5, typed, epochs=2)
    (run / "config.yaml").write_text("a: [", "utf-8")
    callbacks = {"override /callbacks": ["default", "early_stopping"]}
    for entry in (collect([run])[0], replace(collect([run])[0], path=None)):
        text = experiment_of(entry, "best")
        assert "# not said here, to be added on the command line: '~callbacks.progress_bar'\n" in text
        assert yaml.safe_load(text) == {"defaults": [callbacks], "seed": 1, "epochs": 2}
