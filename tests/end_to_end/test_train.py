"""From a command line to a run directory: what is in it, and that it is right."""

from __future__ import annotations

import csv
import hashlib
import json
import os
import re
import subprocess
import sys
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
import yaml

from bunryu import cli
from bunryu.config import schema
from bunryu.metrics import scores
from bunryu.runs.run import Run
from bunryu.training import recipe
from helpers.refusing import error_of
from helpers.training import QUICK, Train

FILES = {
    "config.yaml", "manifest.json", "metrics.csv", "results.json", "train.log",
    "predictions/validation.csv", "predictions/test.csv",
    *(f"checkpoints/{name}.ckpt" for name in ("best", "last", "previous")),
    *(f"checkpoints/{name}.ckpt.sha256" for name in ("best", "last", "previous")), ".lock",
    "model/README.md", "model/bunryu.json", "model/config.json", "model/model.safetensors",
    "model/tokenizer.json", "model/tokenizer_config.json",
}  # fmt: skip


def files_of(run: Run) -> set[str]:
    return {str(p.relative_to(run.path)) for p in run.path.rglob("*") if p.is_file()}


def weights_hash(run: Run) -> str:
    return hashlib.sha256((run.path / "model/model.safetensors").read_bytes()).hexdigest()


def metrics_of(run: Run, name: str) -> list[float]:
    return [value for _, _, key, value in run.metrics if key == name]


def weights_only(run: Run, name: str) -> dict[str, Any]:
    """What a checkpoint holds; one that holds code is refused."""
    state: dict[str, Any] = torch.load(run.path / f"checkpoints/{name}.ckpt", weights_only=True)
    return state


def predictions_of(run: Run, split: str) -> list[dict[str, str]]:
    with open(run.path / f"predictions/{split}.csv", encoding="utf-8", newline="") as file:
        return list(csv.DictReader(file))


def test_the_run_has_exactly_the_files_of_the_contract(trained: Run) -> None:
    events = {name for name in files_of(trained) if name.startswith("tensorboard/")}
    assert files_of(trained) - events == FILES
    assert events
    assert not (trained.path.parent.parent / ".hydra").exists()


def test_steps_and_epochs_are_counted(trained: Run) -> None:
    # 72 rows in batches of 16: 5 steps an epoch, the last batch short
    rows = [(epoch, step, name) for epoch, step, name, _ in trained.metrics]
    assert [step for _, step, name in rows if name == "train/loss"] == list(range(1, 11))
    for metric in ("val/loss", "train/loss_epoch"):
        assert [(epoch, step) for epoch, step, name in rows if name == metric] == [(0, 5), (1, 10)]
    assert {name for _, _, name in rows} == {
        "train/loss", "train/accuracy", "lr", "train/loss_epoch", "train/accuracy_epoch",
        "val/loss", "val/accuracy", "val/f1_macro",
    }  # fmt: skip


def test_the_manifest_and_the_config_say_what_was_run(trained: Run) -> None:
    manifest, config = trained.manifest, yaml.safe_load((trained.path / "config.yaml").read_text("utf-8"))
    expected = {"status": "finished", "exit_reason": None, "seed": 7, "total_steps": 10,
                "threads": torch.get_num_threads()}  # fmt: skip
    assert {key: manifest[key] for key in expected} == expected
    assert manifest["overrides"] == [f"output_root={trained.path.parents[1]}", *QUICK]
    assert manifest["versions"]["torch"].startswith(torch.__version__.split("+")[0])
    assert len(manifest["sources"]) == 64
    assert manifest["corpus"]["splits"]["train"]["rows"] == 72
    train = manifest["corpus"]["files"]["train"]
    assert train["read"] == train["used"] + sum(train["rejected"].values()) == 1798
    assert manifest["start"] <= manifest["end"]
    assert config["optimizer"]["lr"] == config["model"]["lr"] == 0.001
    assert config["trainer"]["max_epochs"] == config["epochs"] == 2
    assert "${" not in (trained.path / "config.yaml").read_text("utf-8")


def test_results_are_those_of_the_predictions(trained: Run) -> None:
    results = trained.results
    names = ["부정", "긍정"]
    for split, prefix in (("validation", "val"), ("test", "test")):
        rows = predictions_of(trained, split)
        assert [int(row["row"]) for row in rows] == sorted(int(row["row"]) for row in rows)
        assert len(rows) == 72
        logits = np.array([[float(row[f"logit:{name}"]) for name in names] for row in rows])
        labels = np.array([names.index(row["label"]) for row in rows])
        for name, value in scores(logits, labels).items():
            assert results[f"{prefix}/{name}"] == pytest.approx(value, abs=1e-12)
        assert [names[i] for i in logits.argmax(axis=1)] == [row["prediction"] for row in rows]
    assert results["best_checkpoint"] == "checkpoints/best.ckpt"


def test_the_monitor_names_the_best_checkpoint_and_save_top_k_keeps_more(
    trained: Run, train: Train, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setitem(schema.MONITORED, "val/loss", "max")  # no epoch is the best of both
    for run, best in (
        (trained, min),
        (train("monitor=max val/loss", "save_top_k=2", "trainer.max_epochs=3"), max),
    ):
        losses = metrics_of(run, "val/loss")
        assert run.results["val/loss"] == best(losses)
        states = {name: weights_only(run, name) for name in ("best", "last")}
        epochs = {name: state["epoch"] for name, state in states.items()}
        assert epochs == {"best": losses.index(best(losses)), "last": len(losses) - 1}
        assert states["last"]["bunryu"]["batches_seen"] > 0
    kept = {path.name for path in (run.path / "checkpoints").glob("*.ckpt")}
    assert len(kept) == 5
    assert {"best.ckpt", "last.ckpt", "previous.ckpt"} < kept


def test_the_model_folder_gives_the_logits_of_the_predictions(trained: Run) -> None:
    from transformers import AutoModelForSequenceClassification, AutoTokenizer

    model = AutoModelForSequenceClassification.from_pretrained(trained.path / "model").eval()
    tokenizer = AutoTokenizer.from_pretrained(trained.path / "model")
    assert model.config.id2label == {0: "부정", 1: "긍정"}
    metadata = json.loads((trained.path / "model/bunryu.json").read_text("utf-8"))
    assert metadata["max_seq_length"] == tokenizer.model_max_length == 128
    for sample in metadata["parity"]:
        with torch.inference_mode():
            logits = model(**tokenizer(sample["text"], return_tensors="pt", truncation=True)).logits[0]
        assert torch.allclose(logits, torch.tensor(sample["logits"]), atol=1e-6)


@pytest.mark.cpus
def test_one_seed_gives_the_same_bits_in_another_process_without_the_cache(
    trained: Run, tmp_path: Path
) -> None:
    command = [sys.executable, "-c", "import sys; from bunryu.cli import run; sys.exit(run(sys.argv[1:]))"]
    environment = {**os.environ, "XDG_CACHE_HOME": str(tmp_path / "cache"), "PYTHONHASHSEED": "5"}
    subprocess.run(
        [*command, "train", *QUICK, f"output_root={tmp_path}", "+trainer.benchmark=false"],
        check=True, env=environment, cwd=tmp_path, capture_output=True,
    )  # fmt: skip
    (again,) = (Run(path) for path in tmp_path.glob("sample-tiny/*"))
    assert weights_hash(again) == weights_hash(trained)
    for name in ("metrics.csv", "results.json", "predictions/test.csv"):
        assert (again.path / name).read_bytes() == (trained.path / name).read_bytes(), name


def test_a_drawn_seed_is_recorded_and_gives_other_bits_and_the_same_split(trained: Run, train: Train) -> None:
    other = train("seed=null", "overwrite_cache=true")
    assert "train: 72 rows encoded" in (other.path / "train.log").read_text(
        "utf-8"
    )  # as trained's were before
    assert isinstance(other.manifest["seed"], int)
    assert other.config["seed"] == other.manifest["seed"]
    assert weights_hash(other) != weights_hash(trained)
    rows = [[row["row"] for row in predictions_of(run, "validation")] for run in (trained, other)]
    assert rows[0] == rows[1]


def expected_rates(scheduler: str, steps: int, per_epoch: int, lr: float) -> list[float]:
    if scheduler == "constant":
        return [lr] * steps
    if scheduler == "exponential":
        return [lr * 0.9 ** (step // per_epoch) for step in range(steps)]
    warm = -(-steps // 10)
    rates = [lr * (done + 1) / warm for done in range(warm)]
    left = [
        (steps - done) / (steps - warm) for done in range(warm, steps)
    ]  # parts of the steps after warm-up
    if scheduler == "linear_warmup":
        return rates + [lr * part for part in left]
    return rates + [lr * (1 - np.cos(np.pi * part)) / 2 for part in left]


@pytest.mark.parametrize(
    ("scheduler", "overrides", "steps"),
    [
        ("exponential", ["trainer.max_epochs=3"], 15),
        ("linear_warmup", ["trainer.accumulate_grad_batches=2"], 6),  # 5 batches an epoch: the last has one
        ("cosine_warmup", ["+trainer.max_steps=7"], 7),
        ("constant", ["+trainer.limit_train_batches=2"], 4),
        ("linear_warmup", ["+trainer.limit_train_batches=0.5", "trainer.accumulate_grad_batches=2"], 2),
    ],
)
def test_the_learning_rate_follows_its_schedule_over_the_steps_that_are_taken(
    scheduler: str, overrides: list[str], steps: int, train: Train
) -> None:
    run = train(f"scheduler={scheduler}", "optimizer=sgd", "optimizer.lr=0.01", *overrides)
    assert run.manifest["total_steps"] == max(step for _, step, _, _ in run.metrics) == steps
    rates = {step: value for _, step, name, value in reversed(run.metrics) if name == "lr"}  # a step's first
    assert [rates[step] for step in sorted(rates)] == pytest.approx(
        expected_rates(scheduler, steps, 5, 0.01), rel=1e-6
    )


def test_the_tutorials_batches_and_validation(train: Train) -> None:
    job = ["batching=random", "padding=max_length", "max_seq_length=32", "corpus.validation=test", "epochs=1"]
    run = train(*job)
    validation, test = (predictions_of(run, split) for split in ("validation", "test"))
    assert [row["row"] for row in validation] == [row["row"] for row in test]
    assert run.results["val/accuracy"] == run.results["test/accuracy"]


def test_a_table_with_three_text_labels_and_no_test_split(train: Train, tmp_path: Path) -> None:
    topics = {"음식": "국물이 진한 식당", "여행": "바다로 떠난 여행", "운동": "공원을 달리는 운동"}
    rows = [
        f'{{"body": "{text} {i}", "topic": "{label}"}}' for i in range(20) for label, text in topics.items()
    ]
    table = tmp_path / "topics.jsonl"
    table.write_text("\n".join(rows) + "\n", "utf-8")
    run = train(
        "corpus=table", f"corpus.train={table}", "corpus.text_column=body", "corpus.label_column=topic",
        "corpus.validation=0.2", "epochs=12", "optimizer.lr=3e-3",
    )  # fmt: skip
    results = run.results
    assert [name for name in results if name.startswith("test/")] == []
    assert results["val/accuracy"] == 1.0
    config = json.loads((run.path / "model/config.json").read_text("utf-8"))
    assert list(config["id2label"].values()) == sorted(topics)
    assert "predictions/test.csv" not in files_of(run)


def test_multirun_makes_ordinary_runs_and_encodes_once(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    (tmp_path / "cache").mkdir()
    job = [*QUICK, "epochs=1", "output_root=out", f"cache_dir={tmp_path}/cache", "max_seq_length=8,64"]
    assert cli.run(["train", "-m", *job]) == 0
    assert {path.name for path in tmp_path.iterdir()} == {"out", "cache"}
    assert {path.name for path in (tmp_path / "out").iterdir()} == {"sample-tiny", "sweeps"}
    runs = {run.config["max_seq_length"]: run for run in map(Run, (tmp_path / "out/sample-tiny").iterdir())}
    assert set(runs) == {8, 64}
    once_saved = {name for name in FILES if "previous" not in name}  # one epoch, one save
    assert all(files_of(run) >= once_saved for run in runs.values())
    assert len(list((tmp_path / "cache/encodings").iterdir())) == 3  # train, validation and test
    assert len(list((tmp_path / "cache/vocabularies").iterdir())) == 1
    assert "train: 72 rows from the cache" in (runs[64].path / "train.log").read_text("utf-8")
    assert runs[8].manifest["truncated_rows"]["train"] > 0


def test_outputs_go_to_paths_of_any_spelling(tmp_path: Path) -> None:
    root = tmp_path / "My Drive (1), it's a'b [z] x=y 실험"
    assert cli.run(["train", *QUICK, "epochs=1", "limit_rows=20", f"output_root={root}"]) == 0
    (run,) = map(Run, (root / "sample-tiny").iterdir())
    assert run.config["output_root"] == str(root)
    assert run.manifest["status"] == "finished"


def test_a_run_writes_no_path_of_the_machine(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    assert cli.run(["train", *QUICK, "epochs=1", "limit_rows=20"]) == 0
    (run,) = map(Run, Path("outputs/sample-tiny").iterdir())
    for name in files_of(run):
        assert bytes(tmp_path) not in (run.path / name).read_bytes(), name


@pytest.mark.parametrize("option", ["fast_dev_run", "overfit", "profiler"])
def test_debug_options_run_to_their_end(tmp_path: Path, option: str) -> None:
    job = [f"output_root={tmp_path}", f"debug={option}", "limit_rows=40", "epochs=1"]
    assert cli.run(["train", *job]) == 0
    (run,) = map(Run, (tmp_path / "sample-tiny").iterdir())
    assert run.manifest["status"] == "finished"
    assert ("run_training_epoch" in (run.path / "train.log").read_text("utf-8")) == (option == "profiler")
    best = None if option == "fast_dev_run" else "checkpoints/best.ckpt"
    assert run.results["best_checkpoint"] == best


def test_tensorboard_has_the_scalars_and_the_main_knobs_with_the_final_metrics_as_hparams(
    trained: Run,
) -> None:
    from tensorboard.backend.event_processing.event_accumulator import EventAccumulator
    from tensorboard.plugins.hparams.plugin_data_pb2 import HParamsPluginData

    events = EventAccumulator(str(trained.path / "tensorboard"))
    events.Reload()
    tags = set(events.Tags()["scalars"])
    assert {"train/loss", "lr", "val/loss", "val/accuracy", "test/accuracy"} <= tags
    assert len(events.Scalars("train/loss")) == 10
    assert {"_hparams_/experiment", "_hparams_/session_start_info"} <= set(events.summary_metadata)
    started = events.summary_metadata["_hparams_/session_start_info"].plugin_data.content
    knobs = set(HParamsPluginData.FromString(started).session_start_info.hparams)
    assert {"seed", "model.name", "optimizer.lr", "epochs"} <= knobs
    overrides = {override.partition("=")[0] for override in trained.manifest["overrides"]}
    assert knobs - set(recipe.KNOBS) == overrides - set(recipe.KNOBS) == {
        "limit_rows", "trainer.log_every_n_steps", "output_root"
    }  # fmt: skip


def test_of_long_documents_the_log_shows_the_beginning(train: Train, tmp_path: Path) -> None:
    table = tmp_path / "long.tsv"
    lines = "".join(f"{label} {'영화 ' * 500}{i}\t{label}\n" for i in range(10) for label in ("좋다", "싫다"))
    table.write_text(f"text\tlabel\n{lines}", "utf-8")
    columns = ["corpus.text_column=text", "corpus.label_column=label"]
    run = train("corpus=table", f"corpus.train={table}", "corpus.validation=0.4", "epochs=1", *columns)
    log = (run.path / "train.log").read_text("utf-8")
    shown = re.findall(r"\n  (sentence|tokens|ids): (.*)", log)
    assert [(name, len(text)) for name, text in shown] == 5 * [
        ("sentence", 300),
        ("tokens", 300),
        ("ids", 300),
    ]


def test_the_log_shows_what_the_tutorials_shows(trained: Run) -> None:
    log = (trained.path / "train.log").read_text("utf-8")
    for index in range(1, 6):
        assert f"example {index}\n  sentence: " in log
    for part in ("tokens: [CLS] ", "label: ", "ids: [2, ", "train: 72 rows ", "training took",
                 "parameters, 10 steps on cpu", "epoch 2/2", "val/accuracy"):  # fmt: skip
        assert part in log, part


@pytest.mark.parametrize(
    ("overrides", "where"),
    [
        (["logger=mlflow"], "logger.mlflow"),
        (["model.architecture.num_attention_heads=3"], "model"),
        (["optimizer.eps=-1.0"], "optimizer"),
        pytest.param(
            ["+trainer.limit_val_batches=0"],
            "trainer",
            marks=pytest.mark.filterwarnings("ignore:.*could not find the monitored key"),
        ),
    ],
)
def test_what_a_library_refuses_is_a_configuration_error(
    overrides: list[str], where: str, tmp_path: Path
) -> None:
    said = error_of(2, "train", *QUICK, f"output_root={tmp_path}", *overrides)
    assert f"where: {where}" in said
    assert "Traceback" not in said


@pytest.mark.cpus
@pytest.mark.usefixtures("bf16_anywhere")
def test_lower_precision_trains_with_clipping_and_counts_rightly(train: Train) -> None:
    losses = []
    for precision in ("32-true", "bf16-true"):
        run = train(f"accelerator.precision={precision}", "epochs=1", "optimizer.lr=1e-6", "batch_size=2")
        losses += metrics_of(run, "train/loss_epoch")
        groups = weights_only(run, "last")["optimizer_states"][0]["param_groups"]
        assert [group["fused"] for group in groups] == [True, True]  # one kernel for the step
    assert losses == pytest.approx(losses[:1] * 2, abs=0.03)


@pytest.mark.usefixtures("bf16_anywhere")
def test_a_fused_step_in_bfloat16_clips_as_any_other(train: Train) -> None:
    # plain gradient descent: a step is the rate times the gradient, whose norm clipping has made 0.001
    job = ["accelerator.precision=bf16-mixed", "optimizer=sgd", "optimizer.momentum=0", "scheduler=constant",
           "trainer.gradient_clip_val=1e-3", "+trainer.limit_train_batches=1", "epochs=1"]  # fmt: skip
    one, two = (weights_only(train(*job, f"optimizer.lr={rate}"), "last") for rate in (1.0, 2.0))
    assert one["optimizer_states"][0]["param_groups"][0]["fused"] is True
    apart = [(one["state_dict"][name] - two["state_dict"][name]).norm() for name in one["state_dict"]]
    assert float(torch.stack(apart).norm()) == pytest.approx(1e-3, rel=0.01)


def test_pairs_are_in_the_vocabulary_and_a_missing_one_is_rejected(train: Train, tmp_path: Path) -> None:
    rows = [
        json.dumps({"a": f"질문 {i}", "b": "둘째문장", "y": i % 2}, ensure_ascii=False) for i in range(40)
    ]
    rows[0] = json.dumps({"a": "질문 0", "b": None, "y": 0})
    (tmp_path / "pairs.jsonl").write_text("\n".join(rows), "utf-8")
    run = train(
        "corpus=table", f"corpus.train={tmp_path}/pairs.jsonl", "corpus.text_column=a", "epochs=1",
        "corpus.pair_column=b", "corpus.label_column=y", "corpus.validation=0.2",
    )  # fmt: skip
    log = (run.path / "train.log").read_text("utf-8")
    assert "[UNK]" not in log
    assert "[SEP] 둘째문장 [SEP]" in log
    account = run.manifest["corpus"]["files"]["train"]
    assert (account["read"], account["used"], sum(account["rejected"].values())) == (40, 39, 1)
    parity = json.loads((run.path / "model/bunryu.json").read_text("utf-8"))["parity"][0]
    first = predictions_of(run, "validation")[0]
    assert parity["pair"] == "둘째문장"
    assert parity["logits"][0] == pytest.approx(float(first["logit:0"]), abs=1e-5)


def test_a_vocabulary_that_knows_little_is_named(
    train: Train, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    vocabulary = tmp_path / "vocab.txt"
    vocabulary.write_text("\n".join(["[PAD]", "[UNK]", "[CLS]", "[SEP]", "[MASK]", "너무", "진짜"]), "utf-8")
    run = train(f"model.vocabulary_file={vocabulary}", "epochs=1")
    unknown = run.manifest["unknown_tokens"]
    assert unknown > 0.9
    said = f"{100 * unknown:.0f}% of train's tokens are unknown to the vocabulary: another vocabulary, or "
    assert said in capsys.readouterr().out
    assert said in (run.path / "train.log").read_text("utf-8")
