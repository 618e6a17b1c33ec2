"""Refused data leave no run, and a run's own corpus is found from any folder and where it has moved."""

from __future__ import annotations

import os
import signal
import time
from pathlib import Path

import pytest
import yaml

from bunryu import cli
from bunryu.runs.lock import locked
from bunryu.runs.run import Run
from helpers.killing import Fork
from helpers.refusing import error_of
from helpers.sweeping import until
from helpers.training import QUICK

TABLE = ["corpus=table", "corpus.validation=0.25", "model.vocabulary_size=100", "epochs=1", "logger=none"]


def train(*overrides: str) -> int:
    return cli.run(["train", *QUICK, *TABLE, *overrides])


def write(path: Path, header: str = "text,label", label: str = "좋음") -> None:
    path.parent.mkdir(exist_ok=True)
    rows = [f"글 {number},{('나쁨', label)[number % 2]}\n" for number in range(24)]
    path.write_text(f"{header}\n" + "".join(rows), "utf-8")


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder in which a run was trained on a file that was named from there."""
    made = tmp_path_factory.mktemp("project")
    write(made / "data" / "t.csv")
    before = os.getcwd()
    os.chdir(made)
    try:
        assert train("corpus.train=data/t.csv", "corpus.test=data/t.csv") == 0
    finally:
        os.chdir(before)
    return made


@pytest.fixture
def run(folder: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Run:
    monkeypatch.chdir(tmp_path)  # not the folder it was trained in
    (path,) = (folder / "outputs").glob("*/*")
    return Run(path)


def test_a_run_s_corpus_is_found_from_another_folder(run: Run, folder: Path) -> None:
    assert run.config["corpus"]["train"] == str(folder / "data" / "t.csv")
    assert run.manifest["config"] == run.config
    assert "corpus.train=data/t.csv" in run.manifest["overrides"]
    assert cli.run(["evaluate", str(run.path)]) == 0


@pytest.mark.parametrize("place", ["elsewhere/data/t.csv", "elsewhere/t.csv"])
def test_a_corpus_that_has_moved_is_found_below_its_root(
    run: Run, folder: Path, place: str, capsys: pytest.CaptureFixture[str]
) -> None:
    (folder / place).parent.mkdir(parents=True, exist_ok=True)
    (folder / "data/t.csv").rename(folder / place)
    root = ["--corpus-root", str(folder / "elsewhere")]
    try:
        for verb in ("evaluate", "reproduce"):
            assert error_of(2, verb, run.path) == (
                f"bunryu {verb}: a file of the run's corpus is not there\n"
                f"  where: corpus.train={folder / 'data/t.csv'}\n"
                "  fix:   --corpus-root <the folder it is in now>\n"
            )
        assert cli.run(["evaluate", str(run.path), *root]) == 0
        assert "the same as the run's results.json" in capsys.readouterr().out
        assert cli.run(["reproduce", str(run.path), "--dry-run", *root]) == 0
        assert "corpus fingerprint" not in capsys.readouterr().out
    finally:
        (folder / place).rename(folder / "data/t.csv")


def test_resume_goes_on_with_a_corpus_that_has_moved_and_records_where(run: Run, folder: Path) -> None:
    config = run.config
    config["corpus"] |= {"train": "/gone/t.csv", "test": "/gone/t.csv"}
    run.replace_config(config)
    run.end("interrupted", "SIGTERM")
    (run.path / "results.json").unlink()  # else nothing but the status was left to do
    assert "--corpus-root" in error_of(2, "resume", run.path)
    assert cli.run(["resume", str(run.path), "--corpus-root", str(folder / "data")]) == 0
    assert run.manifest["status"] == "finished"
    assert run.config["corpus"]["test"] == str(folder / "data/t.csv")
    assert (
        run.manifest["config"] == run.config == yaml.safe_load((run.path / "config.yaml").read_text("utf-8"))
    )


def test_a_run_that_a_process_trains_keeps_its_config(run: Run, folder: Path, tmp_path: Path) -> None:
    run.end("interrupted", "SIGTERM")
    results = (run.path / "results.json").read_bytes()
    (run.path / "results.json").unlink()
    (folder / "new").mkdir()
    write(folder / "new" / "t.csv")
    before = (run.path / "config.yaml").read_bytes()

    def hold() -> int:
        with locked(run.path):
            (tmp_path / "held").touch()
            time.sleep(60)
        return 0

    holder = Fork(tmp_path / "log", hold)
    until((tmp_path / "held").exists)
    try:
        error = error_of(4, "resume", run.path, "--corpus-root", folder / "new")
        assert "the run is held by process" in error
        assert (run.path / "config.yaml").read_bytes() == before
    finally:
        os.kill(holder.pid, signal.SIGKILL)
        holder.code()
        (run.path / "results.json").write_bytes(results)
        run.end("finished")


@pytest.mark.parametrize(
    ("header", "label", "overrides", "code", "said"),
    [
        ("text,label", "나쁨", (), 1, "there is nothing to classify"),
        ("text,label", "좋음", ("strict_data=true", "corpus.test={path}"), 1, "takes no corpus with flaws"),
        ("review;label", "좋음", (), 2, "corpus.delimiter=';'"),
        ("review,label", "좋음", (), 2, "no column 'text'; the file has 'review', 'label'"),
    ],
)
def test_data_that_are_refused_leave_no_run(
    tmp_path: Path, header: str, label: str, overrides: tuple[str, ...], code: int, said: str,
    capsys: pytest.CaptureFixture[str],
) -> None:  # fmt: skip
    write(tmp_path / "t.csv", header, label)
    root = [f"corpus.train={tmp_path / 't.csv'}", f"output_root={tmp_path / 'out'}"]
    assert train(*root, *(override.format(path=tmp_path / "t.csv") for override in overrides)) == code
    assert said in capsys.readouterr().err
    assert not (tmp_path / "out").exists()


def test_a_job_of_a_sweep_whose_data_are_refused_leaves_no_run(tmp_path: Path) -> None:
    write(tmp_path / "t.csv", label="나쁨")
    root = [f"corpus.train={tmp_path / 't.csv'}", f"output_root={tmp_path / 'out'}"]
    assert cli.run(["train", "-m", *QUICK, *TABLE, *root, "seed=1,2"]) != 0
    assert [path.name for path in (tmp_path / "out").iterdir()] == ["sweeps"]
