"""``bunryu check``: what it shows, what it finds, and that it leaves nothing behind."""

from __future__ import annotations

import re
import subprocess
import sys
from pathlib import Path
from types import SimpleNamespace
from unittest.mock import Mock

import pytest

from bunryu import cli
from bunryu.commands import check
from bunryu.preflight import timing
from bunryu.preflight.estimate import Measured

QUICK = ["limit_rows=72", "batch_size=16", "epochs=2", "trainer.log_every_n_steps=1"]


@pytest.fixture(autouse=True)
def _quick(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(timing, "TRAINING_SECONDS", 0.0)
    monkeypatch.setattr(timing, "EVALUATION_SECONDS", 0.0)


def test_one_run_is_shown_part_by_part_and_leaves_only_the_cache(
    tmp_path: Path, capfd: pytest.CaptureFixture[str]
) -> None:
    code = check.main([*QUICK, f"output_root={tmp_path / 'runs'}", f"cache_dir={tmp_path / 'cache'}"])
    out, err = capfd.readouterr()
    assert (code, err) == (0, "")
    assert re.search(r"^  train +72 +0  \S+ [\d.]+%, \S+ [\d.]+%$", out, re.M)
    assert re.search(r"^  validation +72 +-  ", out, re.M)
    assert re.search(r"^  split +p50 +p90 +p99 +max +unknown +cut at 128$", out, re.M)
    assert re.search(r"^10 steps$", out, re.M)
    assert [line.split("  ")[1] for line in out.splitlines() if line.endswith(" s") and line[:2] == "  "] == [
        "start-up", "preparing", "training", "validation", "checkpoints", "scoring", "writing model/",
    ]  # fmt: skip
    assert re.search(r"^estimated time +\d", out, re.M)
    assert sorted(path.name for path in tmp_path.iterdir()) == ["cache"]
    assert sorted(path.name for path in (tmp_path / "cache").iterdir()) == ["encodings", "vocabularies"]


def test_a_run_of_several_processes_has_their_steps(capfd: pytest.CaptureFixture[str]) -> None:
    assert check.main([*QUICK, "accelerator=cpu", "accelerator.devices=2"]) == 0
    out, err = capfd.readouterr()
    assert err == ""
    assert re.search(r"^6 steps$", out, re.M)  # 72 rows in batches of 32, twice
    assert re.search(r"^estimated time .* s, and what a run's processes tell each other$", out, re.M)


def test_a_sweep_measures_each_length_once_and_shows_what_each_cuts(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    measure = Mock(wraps=timing.measure)
    monkeypatch.setattr(timing, "measure", measure)
    arguments = ["-m", "seed=1,2", "max_seq_length=32,8", f"output_root={tmp_path / 'runs'}"]
    assert check.main([*QUICK, *arguments]) == 0
    out = capsys.readouterr().out
    assert [call.args[0]["max_seq_length"] for call in measure.call_args_list] == [8, 32]
    assert "a sweep of 4 jobs over seed, max_seq_length\n" in out
    assert re.search(r"unknown +cut at 8 +cut at 32$", out, re.M)
    (row,) = re.findall(r"^  train +\d+ +\d+ +\d+ +\d+ +[\d.]+% +([\d.]+)% +([\d.]+)%$", out, re.M)
    assert float(row[0]) > float(row[1])
    jobs = re.findall(r"^(\d)  +10 .*(seed=\d max_seq_length=\d+)", out, re.M)
    values = [(seed, length) for seed in (1, 2) for length in (32, 8)]
    assert jobs == [(str(n), f"seed={seed} max_seq_length={cut}") for n, (seed, cut) in enumerate(values)]
    assert not (tmp_path / "runs").exists()


@pytest.mark.parametrize(
    ("arguments", "problems"),
    [
        (
            ["optimzer.lr=1", "epochz=2", "model=tinny"],
            ["'model' has no option 'tinny'", "there is no key 'optimzer.lr'", "there is no key 'epochz'"],
        ),
        (
            ["epochs=-2", "monitor=x", "max_seq_length=999", "+typo=1", "batch_size=abc"],
            ["epochs=-2 is out of range", "nothing logs monitor='x'", "there is no key 'typo'",
             "max_seq_length=999 is beyond the model's 300 positions", "batch_size='abc' is no number"],
        ),
        (
            ["corpus=table", "corpus.train=/nowhere.csv", "output_root={file}/x", "cache_dir={file}/y"],
            ["{file} is no folder", "{file} is no folder", "no such file"],
        ),
        (
            ["corpus=table", "corpus.train={table}", "corpus.text_column=txet"],
            ["no column 'txet'; the file has 'text', 'label'"],
        ),
        (["model=pretrained"], ["'model.name' has to be set"]),
    ],
)  # fmt: skip
def test_mistakes_are_named_before_torch(arguments: list[str], problems: list[str], tmp_path: Path) -> None:
    file = tmp_path / "file"
    file.touch()
    table = tmp_path / "t.csv"
    table.write_text("text,label\na,b\n", "utf-8")
    program = "import sys; from bunryu.commands.check import main; print(main(sys.argv[1:]), "
    program += "{'torch', 'pytorch_lightning', 'transformers', 'tokenizers'} & set(sys.modules))"
    given = [argument.format(file=file, table=table) for argument in arguments]
    done = subprocess.run([sys.executable, "-c", program, *given], capture_output=True, text=True, check=True)
    assert done.stdout == "2 set()\n"
    named = [line.removeprefix("bunryu check: ") for line in done.stderr.splitlines() if line[:2] != "  "]
    assert sorted(named) == sorted(problem.format(file=file) for problem in problems)


def test_a_problem_of_some_jobs_names_them(capsys: pytest.CaptureFixture[str]) -> None:
    assert check.main(["seed=1,2", "epochs=-1,1"]) == 2
    assert capsys.readouterr().err == (
        "bunryu check: epochs=-1 is out of range\n"
        "  where: epochs\n"
        "  fix:   a value at least 1\n"
        "  jobs:  0, 2 of 4\n"
    )


def test_what_torch_files_and_the_machine_would_refuse_is_listed_together(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("huggingface_hub.constants.HF_HUB_OFFLINE", True)
    (tmp_path / "rows.csv").write_text("text,label\ngood,0\nbad,0\n", "utf-8")
    root = f"output_root={tmp_path / 'runs'}"
    assert check.main(["accelerator=tpu", "+trainer.max_epoch=3", "model=kcbert_base", root]) == 2
    err = capsys.readouterr().err
    assert "pytorch_lightning.Trainer takes no 'max_epoch'" in err
    assert "the weights of 'beomi/kcbert-base' are not cached and cannot be fetched" in err
    assert "or model=tiny, which needs no download" in err
    table = ["corpus=table", f"corpus.train={tmp_path / 'rows.csv'}"]
    assert check.main(["accelerator=tpu", *table, root]) == 2
    err = capsys.readouterr().err
    assert "there is no tpu here" in err
    assert "leaves none to validate on" in err
    assert not (tmp_path / "runs").exists()


@pytest.mark.parametrize("device_memory", [0, 1])
def test_a_budget_disk_and_memory_that_are_too_small_are_refused(
    device_memory: int, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    measured = Measured(*[1.0] * 7, *[1 << 30] * 6, device_memory)
    monkeypatch.setattr(timing, "measure", lambda *_: measured)
    monkeypatch.setattr("bunryu.preflight.problems.physical_memory", lambda: (2 << 30) - 1)
    monkeypatch.setattr("shutil.disk_usage", lambda path: SimpleNamespace(free=1 << 29))
    assert check.main([*QUICK, "seed=1,2", "n_jobs=2", "budget_hours=0.0001"]) == 2
    disk, *memory, budget = capsys.readouterr().err.split("bunryu check: ")[1:]
    assert disk.startswith("the runs need 12.00 GiB on disk, 0.50 GiB are free\n  where: output_root=")
    assert [problem.split("\n  fix")[0] for problem in memory] == [
        "the jobs need 2.00 GiB of memory, the machine has 2.00\n"
        "  where: batch_size and max_seq_length; 2 jobs at a time"
    ] * (not device_memory)
    assert budget.startswith("the estimate is ")


def test_flaws_are_printed_and_strict_data_refuses_them(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    lines = [f"good {n},0\nbad {n},1" for n in range(40)]
    (tmp_path / "rows.csv").write_text("text,label\n" + "\n".join([*lines, lines[0], ""]), "utf-8")
    arguments = ["corpus=table", f"corpus.train={tmp_path / 'rows.csv'}", "batch_size=16", "epochs=1"]
    assert check.main(arguments) == 0
    assert capsys.readouterr().out.count("  - duplicate documents: ") == 1
    assert check.main([*arguments, "strict_data=true", "accelerator=tpu"]) == 2  # so that nothing is timed
    assert "strict_data=true takes no corpus with flaws" in capsys.readouterr().err


def test_secrets_are_masked(capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("CHECK_SECRET", "sesame-open")
    assert cli.run(["check", "corpus=table", "corpus.train=${oc.env:CHECK_SECRET}.csv"]) == 2
    err = capsys.readouterr().err
    assert "sesame" not in err
    assert "corpus.train=${oc.env:CHECK_SECRET}.csv" in err
