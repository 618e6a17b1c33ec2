from __future__ import annotations

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


def test_a_winner_whose_config_is_damaged_is_written_from_its_manifest(tmp_path: Path) -> None:
    run = made_run(tmp_path, "run", 0.5, ["epochs=2", "callbacks=[default,early_stopping]"], epochs=2)
    (run / "config.yaml").write_text("a: [", "utf-8")
    assert yaml.safe_load(experiment_of(collect([run])[0], "best")) == {
        "defaults": [{"override /callbacks": ["default", "early_stopping"]}], "seed": 1, "epochs": 2,
    }  # fmt: skip


def test_what_a_file_cannot_say_is_said_in_a_comment() -> None:
    overrides, config = ["~callbacks.progress_bar", "epochs=2", "sweep_name=x"], {"seed": 4, "epochs": 2}
    text = experiment_of(RunSummary("job 3", "finished", overrides=overrides, config=config), "best")
    assert "# not said here, to be added on the command line: '~callbacks.progress_bar'\n" in text
    assert yaml.safe_load(text) == config
