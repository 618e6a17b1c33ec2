"""``bunryu evaluate``: a run's own split gives its own results back; files are scored by the run's labels."""

from __future__ import annotations

import csv
import json
import shutil
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet
import pytest
import torch

from bunryu import cli
from bunryu.inference.opening import open_predictor
from bunryu.runs.run import Run
from helpers.refusing import error_of
from helpers.training import Train


@pytest.fixture
def run(trained: Run, tmp_path: Path) -> Run:
    """The trained run in another place: a run can be moved."""
    return Run(Path(shutil.copytree(trained.path, tmp_path / "moved" / trained.path.name)))


def evaluate(run: Run, *arguments: str | Path) -> None:
    assert cli.run(["evaluate", str(run.path), *map(str, arguments)]) == 0


def file_of(run: Run, evaluation: str, file: str) -> Path:
    (found,) = (run.path / "evaluations").glob(f"{evaluation}/{file}")
    return found


def report_of(run: Run, name: str) -> Any:
    return json.loads(file_of(run, name, "evaluation.json").read_text("utf-8"))


def table(path: Path) -> list[dict[str, str]]:
    with open(path, encoding="utf-8", newline="") as file:
        return list(csv.DictReader(file))


def predictions(run: Run, name: str) -> list[dict[str, str]]:
    return table(file_of(run, name, "predictions.csv"))


def same_figures(run: Run, name: str, prefix: str) -> bool:
    report = report_of(run, name)
    return all(run.results[f"{prefix}/{key}"] == report[key] for key in ("loss", "accuracy", "f1_macro"))


@pytest.mark.cpus
@pytest.mark.parametrize(("split", "prefix"), [("test", "test"), ("validation", "val")])
def test_a_run_s_own_split_gives_its_results_and_logits_to_the_last_bit(
    split: str, prefix: str, run: Run, capsys: pytest.CaptureFixture[str]
) -> None:
    before = {path: path.read_bytes() for path in run.path.rglob("*") if path.is_file()}
    evaluate(run, "--split", split)
    assert same_figures(run, split, prefix)
    recorded = table(run.path / f"predictions/{split}.csv")
    assert [{key: row[key] for key in recorded[0]} for row in predictions(run, split)] == recorded
    assert "the same as the run's results.json, to the last bit" in capsys.readouterr().out
    folder = run.path / f"evaluations/{split}"
    files = {path.name for path in folder.iterdir()}
    assert files == {"evaluation.html", "evaluation.json", "predictions.csv"}
    assert str(run.path.parent) not in (folder / "evaluation.html").read_text("utf-8")
    assert {path: path.read_bytes() for path in before} == before
    facts = report_of(run, split)["facts"]
    assert (facts["rows"], facts["checkpoint"], facts["batch_size"]) == (len(recorded), "best", 16)
    assert [warning for warning in facts["warnings"] if "vocabulary" not in warning] == []


@pytest.mark.cpus
@pytest.mark.usefixtures("bf16_anywhere")
@pytest.mark.parametrize(
    "overrides",
    [
        "max_seq_length=24 padding=max_length batching=random corpus/cleaner=kcbert corpus.validation=test",
        "accelerator.precision=bf16-mixed save_top_k=2 optimizer=sgd batch_size=7",
        "batch_size=71",  # of 72 rows: one is left, whose products are of a matrix and a vector
    ],
)
def test_so_it_does_for_other_configs(overrides: str, train: Train) -> None:
    run = train("epochs=1", *overrides.split())
    evaluate(run)
    assert same_figures(run, "test", "test")


@pytest.mark.cpus
def test_pairs_give_their_results_too_from_any_file(train: Train, tmp_path: Path) -> None:
    rows = [
        (f"{a} 이야기 " * n, f"{b} 결말", int(a == b)) for a in "가나다라" for b in "가나다라" for n in (1, 9)
    ]
    data, parquet = tmp_path / "pairs.tsv", tmp_path / "pairs.parquet"
    data.write_text("a\tb\tlabel\n" + "".join(f"{a}\t{b}\t{n}\n" for a, b, n in rows), "utf-8")
    columns = dict(zip(("a", "b", "label"), zip(*rows, strict=True), strict=True))
    pyarrow.parquet.write_table(pa.table(columns), parquet)
    run = train(
        "corpus=table", f"corpus.train={data}", f"corpus.test={data}", "corpus.text_column=a",
        "corpus.pair_column=b", "corpus.validation=0.25", "model.vocabulary_size=100", "epochs=1",
        "max_seq_length=16",
    )  # fmt: skip
    evaluate(run)
    assert same_figures(run, "test", "test")
    evaluate(run, "--data", parquet, "--name", "again")
    assert predictions(run, "again") == predictions(run, "test")
    assert [row["pair"] for row in predictions(run, "test")] == [b for _, b, _ in rows]
    assert report_of(run, "test")["facts"]["truncated_rows"] == 16


def test_unknown_tokens_and_cut_rows_are_counted(run: Run, tmp_path: Path) -> None:
    rows = [("영화 " * 199, "1"), ("𓀀 𓀁", "0"), ("영화", "1")]
    data = tmp_path / "d.tsv"
    data.write_text("document\tlabel\n" + "".join(f"{text}\t{label}\n" for text, label in rows), "utf-8")
    evaluate(run, "--data", data)
    film = len(open_predictor(run.path).encode(["영화"]).ids)
    facts = report_of(run, "d.tsv-*")["facts"]
    assert facts["unk_rate"] == 2 / (200 * film + 2)
    assert facts["truncated_rows"] == 1


def test_another_file_s_columns_and_encoding_are_flags(run: Run, tmp_path: Path) -> None:
    data, flags = (
        tmp_path / "d.csv",
        ["--text-column", "본문", "--label-column", "평가", "--encoding", "cp949"],
    )
    data.write_bytes("본문,평가\n좋아요,1\n싫어요,0\n".encode("cp949"))
    evaluate(run, "--data", data, "--name", "x", *flags)
    assert sum(cell["rows"] for cell in report_of(run, "x")["confusion"]) == 2


def test_a_table_s_labels_are_those_of_its_file_and_its_change_is_told(
    train: Train, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    topics = (("밥", "b"), ("길", "a"), ("공", "c"))
    lines = [f"{word} {n},{topic}\n" for n in range(16) for word, topic in topics]
    data = tmp_path / "t.csv"
    data.write_text("body,topic\n" + "".join(lines), "utf-8")
    run = train(
        "corpus=table", f"corpus.train={data}", f"corpus.test={data}", "corpus.text_column=body",
        "corpus.label_column=topic", "corpus.validation=0.25", "model.vocabulary_size=100", "epochs=1",
        "corpus.label_names={c: 운동, a: 여행, b: 음식}",
    )  # fmt: skip
    evaluate(run, "--data", data, "--name", "all")
    counts = {name: figures["support"] for name, figures in report_of(run, "all")["classes"].items()}
    assert counts == {"운동": 16, "여행": 16, "음식": 16}
    assert [row["label"] for row in predictions(run, "all")][:3] == ["음식", "여행", "운동"]

    data.write_text("body,topic\n" + "".join(lines[1:]), "utf-8")
    evaluate(run)
    out = capsys.readouterr().out
    assert "warning: the corpus is no longer what the run was trained on" in out
    assert "not the run's results.json: " in out

    config = run.path / "config.yaml"
    written = config.read_text("utf-8")
    config.write_text(written.replace("c: 운동", "c: 놀이"), "utf-8")
    labels = "the corpus has the labels ['놀이', '여행', '음식'], the run ['운동', '여행', '음식']"
    assert labels in error_of(1, "evaluate", run.path)
    config.write_text(written.replace(f"test: {data}", "test: null"), "utf-8")
    error = error_of(2, "evaluate", run.path)
    assert "the run's corpus has no test split" in error
    assert "--split train or validation, or --data FILE" in error
    config.write_text(written, "utf-8")
    data.unlink()
    assert f"is not there\n  where: corpus.train={data}" in error_of(2, "evaluate", run.path)


@pytest.mark.cpus
def test_another_checkpoint_is_scored_by_its_own_weights(run: Run) -> None:
    last = run.path / "checkpoints/last.ckpt"
    checkpoint = torch.load(last, weights_only=True)
    checkpoint["state_dict"]["model.classifier.bias"] += torch.tensor([0.0, 3.0])
    torch.save(checkpoint, last)
    evaluate(run, "--checkpoint", "last")
    evaluate(run, "--checkpoint", "best.ckpt")
    assert same_figures(run, "test-best", "test")
    row = predictions(run, "test-last")[0]
    logits = open_predictor(run.path, "last").predict([row["text"]])[0]
    np.testing.assert_allclose([float(row["logit:부정"]), float(row["logit:긍정"])], logits, atol=1e-5)
    assert row["logit:긍정"] != predictions(run, "test-best")[0]["logit:긍정"]


def test_cells_of_an_evaluation_are_inert_for_spreadsheets_if_asked(run: Run, tmp_path: Path) -> None:
    (tmp_path / "d.csv").write_text("document,label\n=1+1,1\n-_-,0\n", "utf-8")
    for flags, texts in (["--spreadsheet-safe"], ["'=1+1", "'-_-"]), ([], ["=1+1", "-_-"]):
        evaluate(run, "--data", tmp_path / "d.csv", "--name", "d", *flags)
        assert [row["text"] for row in predictions(run, "d")] == texts


def test_no_evaluation_is_written_over_that_of_something_else(run: Run, tmp_path: Path) -> None:
    evaluate(run)
    own = report_of(run, "test")
    for folder, text in (("a", "좋아요"), ("b", "싫어요")):
        (tmp_path / folder).mkdir()
        data = tmp_path / folder / "test.csv"
        data.write_text(f"document,label\n{text},1\n", "utf-8")
        evaluate(run, "--data", data)
    assert report_of(run, "test") == own
    folders = sorted(path.name for path in (run.path / "evaluations").glob("test.csv-*"))
    assert sorted(predictions(run, name)[0]["text"] for name in folders) == ["싫어요", "좋아요"]
    error = error_of(2, "evaluate", run.path, "--data", data, "--name", "validation")
    assert "'validation' is the name of a split's own evaluation" in error
    theirs = run.path / "evaluations" / folders[0] / "predictions.csv"
    error = error_of(2, "evaluate", run.path, "--data", theirs, "--name", folders[0])
    assert error.startswith("bunryu evaluate: the file would be written over\n")


def test_a_model_folder_alone_scores_a_file(trained: Run, tmp_path: Path) -> None:
    model = Run(Path(shutil.copytree(trained.path / "model", tmp_path / "imported")))
    names, ids = tmp_path / "names.jsonl", tmp_path / "ids.jsonl"
    names.write_text(
        '{"text": "좋아요", "label": "긍\\u200b정"}\n{"text": "싫어요", "label": "부정"}\n'
        '{"text": "싫어요", "label": "0"}\n',
        "utf-8",
    )
    evaluate(model, "--data", names)
    assert [row["label"] for row in predictions(model, "names.jsonl-*")] == ["긍정", "부정"]
    hint = "if labels are class ids, from 0 = 부정 on: --label-ids"
    assert f"1 rows were rejected; {hint}" in report_of(model, "names.jsonl-*")["facts"]["warnings"]
    ids.write_text('{"text": "좋아요", "label": 1}\n{"text": "싫어요", "label": "0"}\n', "utf-8")
    assert hint in error_of(1, "evaluate", model.path, "--data", ids)
    evaluate(model, "--data", ids, "--label-ids")
    assert [row["label"] for row in predictions(model, "ids.jsonl-*")] == ["긍정", "부정"]


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        (["{run}", "--data", "nowhere.csv"], "no such file\n  where: nowhere.csv"),
        (["{run}", "--name", "a/b"], "'a/b' cannot name a folder"),
        (["{run}", "--split", "tset"], "invalid choice: 'tset'"),
        (["{model}"], "a model folder alone has no corpus"),
    ],
)
def test_mistakes_are_named_with_their_fix(arguments: list[str], said: str, run: Run, tmp_path: Path) -> None:
    alone = shutil.copytree(run.path / "model", tmp_path / "alone")
    given = [word.format(run=run.path, model=alone) for word in arguments]
    assert said in error_of(2, "evaluate", *given)
