"""``bunryu check``: what it tells, what it finds, and that it leaves nothing behind."""

from __future__ import annotations

import re
import subprocess
import sys
from pathlib import Path

import pytest
import transformers

from bunryu.commands import check
from bunryu.config import schema
from bunryu.config.compose import as_hydra_reads, composed, composing
from bunryu.errors import ConfigError
from bunryu.preflight import costs, timing
from bunryu.preflight import jobs as inspection
from bunryu.preflight import jobs as jobs_
from bunryu.preflight import problems as preflight
from bunryu.preflight.estimate import Measured
from bunryu.sweeps.plan import command_line
from bunryu.training import inputs

QUICK = ["limit_rows=72", "batch_size=16", "epochs=2", "trainer.log_every_n_steps=1"]


@pytest.fixture(autouse=True)
def _quick(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(timing, "TRAINING_SECONDS", 0.0)
    monkeypatch.setattr(timing, "EVALUATION_SECONDS", 0.0)


def files(folder: Path) -> set[str]:
    return {path.relative_to(folder).parts[0] for path in folder.rglob("*") if path.is_file()}


def test_one_run_is_told_part_by_part_and_leaves_only_the_cache(
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
    assert files(tmp_path / "cache") == {"encodings", "vocabularies"}
    assert sorted(path.name for path in tmp_path.iterdir()) == ["cache"]
    assert sorted(path.name for path in (tmp_path / "cache").iterdir()) == ["encodings", "vocabularies"]


def test_a_run_of_several_processes_has_their_steps(
    tmp_path: Path, capfd: pytest.CaptureFixture[str]
) -> None:
    assert check.main([*QUICK, "accelerator=cpu", "accelerator.devices=2", f"cache_dir={tmp_path}"]) == 0
    out, err = capfd.readouterr()
    assert err == ""
    assert re.search(r"^6 steps$", out, re.M)  # 72 rows in batches of 32, twice
    assert re.search(r"^estimated time .* s, and what a run's processes tell each other$", out, re.M)


def test_a_sweep_measures_each_length_once_and_shows_what_each_cuts(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    lengths: list[int] = []
    measure = timing.measure

    def counting(config: dict[str, int], scratch: Path) -> Measured:
        lengths.append(config["max_seq_length"])
        return measure(config, scratch)

    monkeypatch.setattr(timing, "measure", counting)
    arguments = ["-m", "seed=1,2", "max_seq_length=32,8", f"output_root={tmp_path / 'runs'}"]
    assert check.main([*QUICK, *arguments]) == 0
    out = capsys.readouterr().out
    assert lengths == [8, 32]
    assert "a sweep of 4 jobs over seed, max_seq_length\n" in out
    assert re.search(r"unknown +cut at 8 +cut at 32$", out, re.M)
    (row,) = re.findall(r"^  train +\d+ +\d+ +\d+ +\d+ +[\d.]+% +([\d.]+)% +([\d.]+)%$", out, re.M)
    assert float(row[0]) > float(row[1])
    jobs = re.findall(r"^(\d)  +10 .*(seed=\d max_seq_length=\d+)", out, re.M)
    assert jobs == [
        ("0", "seed=1 max_seq_length=32"),
        ("1", "seed=1 max_seq_length=8"),
        ("2", "seed=2 max_seq_length=32"),
        ("3", "seed=2 max_seq_length=8"),
    ]
    assert not (tmp_path / "runs").exists()


def test_a_preset_makes_a_sweep_and_the_command_line_stands_above_it(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    preset = tmp_path / "sweep" / "mine.yaml"
    preset.parent.mkdir()
    params = "hydra:\n  mode: MULTIRUN\n  sweeper:\n    params:\n      seed: 1,2\n      epochs: 3,4\n"
    preset.write_text(f"# @package _global_\n{params}", "utf-8")
    monkeypatch.setenv("BUNRYU_CONFIG_DIR", str(tmp_path))
    with composing() as loader:
        planned = command_line(loader, ["sweep=mine", "epochs=9"])
    assert planned.swept == ["seed"]
    assert [sorted(job) for job in planned.jobs] == [
        ["epochs=9", "seed=1", "sweep=mine"],
        ["epochs=9", "seed=2", "sweep=mine"],
    ]


def test_a_search_is_its_trials_times_its_costliest_job() -> None:
    search = ["hydra.sweeper.strategy=optuna", "hydra.sweeper.n_trials=5"]
    space = ["optimizer.lr=tag(log, interval(1e-5, 1e-3))", "max_seq_length=32,64", "model=tiny,small"]
    with composing() as loader:
        planned = command_line(loader, as_hydra_reads([*search, *space]))
    assert (planned.count, planned.swept) == (5, ["optimizer.lr", "max_seq_length", "model"])
    assert planned.jobs == [[*search, "optimizer.lr=0.001", "max_seq_length=64", "model=tiny"]]


def test_an_interval_is_no_grid() -> None:
    with composing() as loader, pytest.raises(ConfigError, match=r"optimizer\.lr is an interval") as caught:
        command_line(loader, ["optimizer.lr=interval(1e-5, 1e-3)"])
    assert caught.value.fix == "hydra.sweeper.strategy=optuna, or optimizer.lr=choice(…)"


def test_a_budget_that_is_too_small_is_refused_with_both_figures(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    from omegaconf import OmegaConf

    assert jobs_._settings(OmegaConf.create({})).budget_hours is None
    settings = jobs_._settings(OmegaConf.create({"budget_hours": 2, "n_jobs": 3}))
    assert settings == inspection.Settings(3, 2.0)
    refused = costs.over_budget(3 * 3600.0, 2.0)
    assert refused is not None
    assert refused.what == "the estimate is 3 hours, the budget 2"
    assert costs.over_budget(2 * 3600.0, 2.0) is None
    assert costs.over_budget(1e9, None) is None


@pytest.mark.parametrize(
    ("arguments", "problems"),
    [
        (
            ["optimzer.lr=1", "epochz=2", "model=tinny"],
            ["'model' has no option 'tinny'", "there is no key 'optimzer.lr'", "there is no key 'epochz'"],
        ),
        (
            ["epochs=-2", "monitor=x", "max_seq_length=999", "+typo=1", "batch_size=abc"],
            [
                "epochs=-2 is out of range",
                "nothing logs monitor='x'",
                "max_seq_length=999 is beyond the model's 300 positions",
                "there is no key 'typo'",
                "batch_size='abc' is no number",
            ],
        ),
        (
            ["seed=1,2", "epochs=-1,1"],
            ["epochs=-1 is out of range"],
        ),
        (
            ["corpus=table", "corpus.train=/nowhere.csv", "output_root={file}/x", "cache_dir={file}/y"],
            ["{file} is no folder", "{file} is no folder", "no such file"],
        ),
        (["model=pretrained"], ["'model.name' has to be set"]),
    ],
)
def test_mistakes_are_all_named_before_torch(
    arguments: list[str], problems: list[str], tmp_path: Path
) -> None:
    file = tmp_path / "file"
    file.touch()
    program = (
        "import sys\n"
        "from bunryu.commands.check import main\n"
        "code = main(sys.argv[1:])\n"
        "heavy = {'torch', 'pytorch_lightning', 'transformers', 'tokenizers'}\n"
        "print(code, sorted(heavy & set(sys.modules)))\n"
    )
    given = [argument.format(file=file) for argument in arguments]
    done = subprocess.run([sys.executable, "-c", program, *given], capture_output=True, text=True, check=True)
    assert done.stdout == "2 []\n"
    told = [line.removeprefix("bunryu check: ") for line in done.stderr.splitlines() if line[:2] != "  "]
    assert sorted(told) == sorted(problem.format(file=file) for problem in problems)


def test_a_problem_of_some_jobs_names_them(capsys: pytest.CaptureFixture[str]) -> None:
    assert check.main(["seed=1,2", "epochs=-1,1"]) == 2
    assert capsys.readouterr().err == (
        "bunryu check: epochs=-1 is out of range\n"
        "  where: epochs\n"
        "  fix:   a value at least 1\n"
        "  jobs:  0, 2 of 4\n"
    )


def test_what_torch_and_files_would_refuse_is_listed_together(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("huggingface_hub.constants.HF_HUB_OFFLINE", True)
    arguments = ["accelerator=tpu", "+trainer.max_epoch=3", "model=kcbert_base"]
    assert check.main([*arguments, f"output_root={tmp_path / 'runs'}"]) == 2
    err = capsys.readouterr().err
    assert "pytorch_lightning.Trainer takes no 'max_epoch'" in err
    assert "the weights of 'beomi/kcbert-base' are not cached and cannot be fetched" in err
    assert "or model=tiny, which needs no download" in err
    assert not (tmp_path / "runs").exists()


def test_the_hub_is_asked_for_the_weights_size_alone(monkeypatch: pytest.MonkeyPatch) -> None:
    from huggingface_hub.errors import EntryNotFoundError

    asked: list[str] = []
    served = {"model.safetensors.index.json"}

    def metadata(url: str, timeout: float) -> object:
        asked.append(url.rpartition("/")[2])
        if asked[-1] in served:
            return object()
        raise EntryNotFoundError("404")

    monkeypatch.setattr("huggingface_hub.constants.HF_HUB_OFFLINE", False)
    monkeypatch.setattr("huggingface_hub.get_hf_file_metadata", metadata)
    with composing():
        config = schema.container(composed(["model=pretrained", "model.name=someone/model"])[0])
    assert preflight.weights_problem(config["model"]) is None
    assert asked == ["model.safetensors", "model.safetensors.index.json"]
    served.clear()
    problem = preflight.weights_problem(config["model"])
    assert problem is not None
    assert problem.what.endswith("https://huggingface.co: it has no safetensors weights")
    with monkeypatch.context() as patch:
        patch.setattr("huggingface_hub.try_to_load_from_cache", lambda *_, **__: "/there")
        assert preflight.weights_problem(config["model"]) is None


def test_an_architecture_stands_in_for_weights_that_are_not_here(tmp_path: Path) -> None:
    folder = tmp_path / "model"
    with composing():
        overrides = ["model=pretrained", f"model.name={tmp_path / 'hub'}", "limit_rows=40"]
        config = schema.container(composed(overrides)[0])
    transformers.BertConfig(vocab_size=9, hidden_size=4, num_attention_heads=2).save_pretrained(
        tmp_path / "hub"
    )
    words = ["[PAD]", "[UNK]", "[CLS]", "[SEP]", "[MASK]", "가", "나", "다", "라"]
    (tmp_path / "hub" / "vocab.txt").write_text("\n".join(words), "utf-8")
    corpus = inputs.read_corpus(config)
    _, tokenizer = inputs.tokenizer_of(config, corpus)
    splits = inputs.encode_splits(config, corpus, tokenizer)
    assert {name: len(split) for name, split in splits.items()} == {"train": 40, "validation": 40, "test": 40}
    stand_in = preflight.stand_in(config["model"], tokenizer, folder)
    assert stand_in == {**config["model"], "name": str(folder)}
    assert preflight.is_here(stand_in)
    assert transformers.AutoConfig.from_pretrained(folder).hidden_size == 4
    assert len(transformers.AutoTokenizer.from_pretrained(folder)) == 9


def test_room_that_is_not_there_is_named(tmp_path: Path) -> None:
    root = tmp_path / "runs" / "below"
    assert preflight.room_problems(root, 1, 1, at_once=1, on_cpu=True) == []
    disk, memory = preflight.room_problems(root, 1 << 60, 1 << 50, at_once=2, on_cpu=True)
    assert disk.what.startswith("the runs need 1073741824.00 GiB on disk, ")
    assert memory.what.startswith("the jobs need 2097152.00 GiB of memory, the machine has ")
    assert memory.where == "batch_size and max_seq_length; 2 jobs at a time"
    assert len(preflight.room_problems(root, 1, 1 << 50, at_once=1, on_cpu=False)) == 0


def test_an_accelerator_that_is_not_there_and_a_column_that_is_not_there(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    (tmp_path / "rows.csv").write_text("review,label\ngood,0\nbad,1\n", "utf-8")
    table = ["corpus=table", f"corpus.train={tmp_path / 'rows.csv'}"]
    assert check.main(["accelerator=tpu", *table, f"output_root={tmp_path / 'runs'}"]) == 2
    err = capsys.readouterr().err
    assert "there is no tpu here" in err
    assert "text" in err and "rows.csv" in err and "review" in err


def test_flaws_are_told_and_strict_data_refuses_them(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    lines = [f"good {n},0\nbad {n},1" for n in range(40)]
    (tmp_path / "rows.csv").write_text("text,label\n" + "\n".join([*lines, lines[0], ""]), "utf-8")
    arguments = ["corpus=table", f"corpus.train={tmp_path / 'rows.csv'}", "batch_size=16", "epochs=1"]
    arguments.append(f"output_root={tmp_path / 'runs'}")
    assert check.main(arguments) == 0
    out = capsys.readouterr().out
    assert out.count("  - duplicate documents: ") == 1
    assert check.main([*arguments, "strict_data=true"]) == 2
    assert "strict_data=true takes no corpus with flaws" in capsys.readouterr().err


def test_secrets_are_not_told(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("CHECK_SECRET", "sesame-open")
    assert check.main(["corpus=table", "corpus.train=${oc.env:CHECK_SECRET}.csv"]) == 2
    err = capsys.readouterr().err
    assert "sesame" not in err
    assert "corpus.train=${oc.env:CHECK_SECRET}.csv" in err


def test_durations_read_well() -> None:
    assert [costs.duration(s) for s in (0.04, 59.9, 61.4, 3599.6, 90061)] == [
        "0.0 s", "59.9 s", "0:01:01", "1:00:00", "25:01:01",
    ]  # fmt: skip
