"""``bunryu predict``: every row in gives a row out, in its order."""

from __future__ import annotations

import csv
import gzip
import io
import json
import os
import re
import select
import signal
import sys
import unicodedata
from collections.abc import Callable
from pathlib import Path
from threading import Thread

import numpy as np
import pyarrow as pa
import pyarrow.parquet
import pytest

from bunryu import cli
from bunryu.commands import predict
from bunryu.data.corpora import Sample
from bunryu.inference.opening import open_predictor
from bunryu.metrics import softmax
from bunryu.runs.run import Run
from helpers.killing import at_call, console, die, forked
from helpers.refusing import error_of
from helpers.small_models import PAIRS, write_pair_model

TEXTS = [f"{word} 영화였어요 {'정말 ' * (n % 7)}" for n, word in enumerate(["좋은", "나쁜", "그저 그런"] * 9)]


def rows_of(path: Path) -> list[dict[str, str]]:
    with open(path, encoding="utf-8", newline="") as file:
        return list(csv.DictReader(file))


def shares(row: dict[str, str]) -> list[float]:
    return [float(value) for name, value in row.items() if name.startswith("probability:")]


def table(path: Path, texts: list[str]) -> Path:
    if path.suffix == ".jsonl":
        path.write_text("".join(json.dumps({"document": text}) + "\n" for text in texts), "utf-8")
    elif path.suffix == ".parquet":
        pyarrow.parquet.write_table(pa.table({"document": texts}), path)
    else:
        with open(path, "w", encoding="utf-8", newline="") as file:
            writer = csv.writer(file, delimiter="," if path.suffix == ".csv" else "\t")
            writer.writerows([["document"], *([text] for text in texts)])
    return path


@pytest.mark.cpus
@pytest.mark.parametrize("suffix", ["csv", "tsv", "txt", "jsonl", "parquet"])
def test_every_kind_of_file_gives_the_predictor_s_answers_in_order(
    suffix: str, trained: Run, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(predict, "WINDOW", 10)  # several windows, the last one short
    source, out = table(tmp_path / f"in.{suffix}", TEXTS), tmp_path / "out.csv"
    assert cli.run(["predict", str(trained.path), str(source), "-o", str(out)]) == 0
    rows = rows_of(out)
    assert [row["document"] for row in rows] == TEXTS
    expected = softmax(open_predictor(trained.path).predict(TEXTS))
    # Within 1e-6 and not to the bit: a row's batch has another shape here.
    np.testing.assert_allclose([shares(row) for row in rows], expected, atol=1e-6)
    assert [row["prediction"] for row in rows] == [["부정", "긍정"][i] for i in expected.argmax(axis=1)]


@pytest.mark.cpus
def test_a_run_and_its_model_alone_give_the_probabilities_that_the_run_recorded(
    trained: Run, tmp_path: Path
) -> None:
    recorded = rows_of(trained.path / "predictions/test.csv")
    test = Sample("sample", 0.1, 42, {0: "부정", 1: "긍정"}).read().limited(72).test
    source = table(tmp_path / "in.csv", [example.text for example in test])
    for model, out in ((trained.path, "a.csv"), (trained.path / "model", "b.csv")):
        assert cli.run(["predict", str(model), str(source), "-o", str(tmp_path / out)]) == 0
    assert (tmp_path / "a.csv").read_bytes() == (tmp_path / "b.csv").read_bytes()
    rows = rows_of(tmp_path / "a.csv")
    logits = np.array([[float(row["logit:부정"]), float(row["logit:긍정"])] for row in recorded])
    np.testing.assert_allclose([shares(row) for row in rows], softmax(logits), atol=1e-6)
    assert [row["prediction"] for row in rows] == [row["prediction"] for row in recorded]


def test_a_line_of_standard_input_is_answered_before_the_next_is_written(
    trained: Run, monkeypatch: pytest.MonkeyPatch
) -> None:
    (theirs_in, lines), (replies, theirs_out) = os.pipe(), os.pipe()
    answers: list[str] = []

    def ask() -> None:
        for text in ("좋아요", "", "싫어요"):
            os.write(lines, f"{text}\n".encode())
            if select.select([replies], [], [], 20)[0]:
                answers.append(os.read(replies, 1 << 16).decode())
        os.close(lines)

    asking = Thread(target=ask)
    with open(theirs_in, encoding="utf-8") as stdin, open(theirs_out, "w", encoding="utf-8") as stdout:
        monkeypatch.setattr(sys, "stdin", stdin)
        monkeypatch.setattr(sys, "stdout", stdout)
        asking.start()
        error = error_of(0, "predict", trained.path)
    asking.join()
    os.close(replies)
    assert error.startswith("2 of 3 rows predicted\n  rejected standard input:2: blank line\n")
    assert len(answers) == 3
    rows = csv.DictReader(io.StringIO("".join(answers)), delimiter="\t")
    found = [(row["line"], row["text"], row["error"]) for row in rows]
    assert found == [("1", "좋아요", ""), ("2", "", "blank line"), ("3", "싫어요", "")]


def test_bad_rows_do_not_stop_the_rest_and_strict_tells_by_the_exit_code(
    trained: Run, tmp_path: Path
) -> None:
    source, out = tmp_path / "in.jsonl", tmp_path / "out.csv"
    lines = ['{"document": "가", "n": 1}', "{", '{"document": null, "n": 3}', '{"document": "나", "n": 4}']
    source.write_text("\n".join(lines), "utf-8")
    command = ["predict", trained.path, source, "-o", out, "--keep", "n"]
    assert error_of(1, *command, "--strict").splitlines() == [
        "2 of 4 rows predicted",
        "  rejected in.jsonl:2: not JSON",
        "  rejected in.jsonl:3: text is not a string",
    ]
    assert [(row["line"], row["n"], row["document"], row["error"]) for row in rows_of(out)] == [
        ("1", "1", "가", ""),
        ("2", "", "", "not JSON"),
        ("3", "", "", "text is not a string"),
        ("4", "4", "나", ""),
    ]
    assert error_of(0, *command).startswith("2 of 4 rows predicted")


def test_what_is_kept_costs_no_row(trained: Run, tmp_path: Path) -> None:
    (tmp_path / "in.tsv").write_bytes("document\tk\n좋다\t".encode() + b"a\xb0\n" + "싫다\tb\n".encode() * 9)
    (tmp_path / "in.jsonl").write_text('{"document": "좋다", "k": "\\ud83d\\u0000"}\n', "utf-8")
    for source, k in (("in.tsv", "a?"), ("in.jsonl", "?\0")):
        out = tmp_path / f"{source}.jsonl"
        assert error_of(0, "predict", trained.path, tmp_path / source, "--keep", "k", "-o", out)
        row, *_ = map(json.loads, out.read_text("utf-8").splitlines())
        assert (row["document"], row["k"], row["error"]) == ("좋다", k, None)


def test_undecodable_bytes_cost_their_row_and_a_wrong_encoding_is_named(trained: Run, tmp_path: Path) -> None:
    source, out = tmp_path / "in.tsv", tmp_path / "out.csv"
    command = ["predict", trained.path, source, "-o", out]
    source.write_bytes("document\n좋다\n".encode() + b"\xb0\xa1\n" + "싫다\n".encode() * 9)
    assert error_of(0, *command).startswith("10 of 11 rows predicted")
    rows = [(row["line"], row["document"], row["error"]) for row in rows_of(out)][:3]
    assert rows == [("2", "좋다", ""), ("3", "", "bytes that cannot be decoded"), ("4", "싫다", "")]
    # a row that is ASCII, or a window of them, makes no difference
    source.write_bytes("document\nok\n좋다\n싫다\n".encode("cp949"))
    out.unlink()
    error = error_of(1, *command)
    assert "the file is not utf-8: byte 0xc1 cannot be read" in error
    assert f"where: {source}:3\n  fix:   --encoding cp949, or convert" in error
    assert not out.exists()
    assert error_of(0, *command, "--encoding", "cp949").startswith("3 of 3 rows predicted")
    assert [row["document"] for row in rows_of(out)] == ["ok", "좋다", "싫다"]


def test_a_file_of_another_shape_than_its_name_is_read(trained: Run, tmp_path: Path) -> None:
    source, out = tmp_path / "in.csv.gz", tmp_path / "out.csv"
    source.write_bytes(gzip.compress("sep=;\ndocument;n\n좋다, 참;1\n".encode()))
    assert error_of(0, "predict", trained.path, source, "-o", out) == "1 of 1 rows predicted\n"
    assert [(row["line"], row["document"]) for row in rows_of(out)] == [("3", "좋다, 참")]
    source.write_bytes("document:n\n좋다, 참:1\n".encode())
    assert "--delimiter" in error_of(2, "predict", trained.path, source, "--delimiter", "::")
    error_of(0, "predict", trained.path, source, "-o", out, "--delimiter", ":")
    assert [row["document"] for row in rows_of(out)] == ["좋다, 참"]


def test_a_file_of_which_nothing_can_be_used_is_refused(trained: Run, tmp_path: Path) -> None:
    source = tmp_path / "in.jsonl"
    source.write_text('{"document": 1}\n{"document": null}\n', "utf-8")
    assert error_of(1, "predict", trained.path, source) == (
        "bunryu predict: none of the first 2 rows can be used\n"
        f"  where: {source}:1\n  fix:   the first: text is not a string\n"
    )


@pytest.fixture
def stopped(trained: Run, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Callable[[str, int], str]:
    """``stopped("out.csv", 3)`` predicts in windows of ten until a SIGTERM in the third; what is said."""
    monkeypatch.setattr(predict, "WINDOW", 10)
    source = table(tmp_path / "in.csv", TEXTS)

    def stop(out: str, window: int) -> str:
        with pytest.MonkeyPatch.context() as patch:
            patch.setattr(predict, "_encoded", predict._encoded)  # to be put back
            at_call(predict, "_encoded", window, lambda: os.kill(os.getpid(), signal.SIGTERM))()
            return error_of(143, "predict", trained.path, source, "-o", tmp_path / out)

    return stop


@pytest.mark.parametrize("suffix", ["csv", "jsonl"])
def test_what_was_interrupted_goes_on_to_the_bytes_of_what_was_not(
    suffix: str, stopped: Callable[[str, int], str], trained: Run, tmp_path: Path
) -> None:
    out, partial = tmp_path / f"out.{suffix}", tmp_path / f"out.{suffix}.partial"
    said = stopped(out.name, 3)
    assert said.splitlines()[0] == f"20 rows are in {partial}; the same command with --resume goes on"
    assert not out.exists()
    with partial.open("ab") as file:
        file.write(b'{"line": 22, "pre')  # as a kill or a power cut leaves it
    command = ["predict", trained.path, tmp_path / "in.csv", "-o"]
    assert error_of(0, *command, out, "--resume").startswith("27 of 27 rows predicted\n")
    error_of(0, *command, tmp_path / f"whole.{suffix}")
    assert out.read_bytes() == (tmp_path / f"whole.{suffix}").read_bytes()
    assert {path.name for path in tmp_path.iterdir()} == {"in.csv", out.name, f"whole.{suffix}"}


def test_a_killed_process_loses_what_it_has_done_since_it_last_saved(trained: Run, tmp_path: Path) -> None:
    source = table(tmp_path / "in.csv", TEXTS)

    def work() -> int:
        predict.WINDOW, predict.SECONDS_BETWEEN_SAVES = 10, 0
        at_call(predict, "_encoded", 2, die)()
        return cli.run(["predict", str(trained.path), str(source), "-o", str(tmp_path / "out.csv")])

    assert forked(tmp_path, work) == -signal.SIGKILL
    assert re.fullmatch(r"10 rows, [\d,]+ rows/s\n", console(tmp_path))
    record = json.loads((tmp_path / "out.csv.partial.json").read_text("utf-8"))
    assert (record["rows"], record["bytes"]) == (10, (tmp_path / "out.csv.partial").stat().st_size)


def test_unfinished_rows_are_neither_lost_nor_mixed_with_others(
    stopped: Callable[[str, int], str], trained: Run, tmp_path: Path
) -> None:
    stopped("out.csv", 2)
    partial = tmp_path / "out.csv.partial"
    kept = partial.read_bytes()
    command = ["predict", trained.path, tmp_path / "in.csv", "-o", tmp_path / "out.csv"]
    assert error_of(2, *command) == (
        "bunryu predict: 10 rows are left of predictions that were interrupted\n"
        f"  where: {partial}\n  fix:   --resume with what it was; or start anew: rm {partial}\n"
    )
    for flags, what in {
        ("--quoting", "none"): "quoting None, not none",
        ("--checkpoint", "last"): "run ",
    }.items():
        assert f"the rows before were predicted with {what}" in error_of(2, *command, "--resume", *flags)
    table(tmp_path / "in.csv", [*TEXTS, "하나 더"])
    assert "the rows before were predicted with file " in error_of(2, *command, "--resume")
    assert partial.read_bytes() == kept
    (tmp_path / "out.csv.partial.json").write_text('{"rows": 10, "bytes": "many", "request": {}}', "utf-8")
    assert "out.csv.partial.json is damaged" in error_of(2, *command, "--resume")
    partial.unlink()  # as the errors say
    assert error_of(0, *command).startswith("28 of 28 rows predicted")


def test_an_output_is_never_written_over_what_is_not_an_output(trained: Run, tmp_path: Path) -> None:
    source = table(tmp_path / "in.csv", TEXTS)
    (tmp_path / "link.csv").symlink_to(source)
    (tmp_path / "hard.csv").hardlink_to(source)
    (tmp_path / "notes.csv").write_text("line,note\n1,mine\n", "utf-8")
    predictions = trained.path / "predictions/test.csv"
    for output, what in {
        source: "the output is the input",
        tmp_path / "../" / tmp_path.name / "in.csv": "the output is the input",
        tmp_path / "link.csv": "the output is the input",
        tmp_path / "hard.csv": "the output is the input",
        tmp_path / "notes.csv": "there is something else than predictions",
        predictions: "there is something else than predictions",
    }.items():
        before = output.read_bytes()
        error = error_of(2, "predict", trained.path, source, "-o", output)
        assert error == f"bunryu predict: {what}\n  where: --output {output}\n  fix:   another --output\n"
        assert output.read_bytes() == before


def test_an_earlier_output_is_replaced_only_by_a_complete_one(
    trained: Run, tmp_path: Path, stopped: Callable[[str, int], str]
) -> None:
    (tmp_path / "far").mkdir()
    out, target = tmp_path / "out.csv", tmp_path / "far" / "target.csv"
    out.symlink_to(target)
    target.write_text("")  # as mktemp leaves it
    few = table(tmp_path / "few.csv", TEXTS[:3])
    error_of(0, "predict", trained.path, few, "-o", out)
    before = target.read_bytes()
    stopped("out.csv", 1)  # without a row, there is nothing to go on with
    assert target.read_bytes() == before
    assert [path.name for path in (tmp_path / "far").iterdir()] == ["target.csv"]
    assert error_of(0, "predict", trained.path, tmp_path / "in.csv", "-o", out).startswith("27 of 27")
    assert (out.is_symlink(), len(rows_of(target))) == (True, 27)


def test_columns_named_like_ours_and_columns_a_row_lacks_are_kept(trained: Run, tmp_path: Path) -> None:
    source, out = tmp_path / "in.jsonl", tmp_path / "out.jsonl"
    rows = [{"line": "좋다", "error": "내 메모", "probability:긍정": 9}, {"line": "싫다"}]
    source.write_text("".join(json.dumps(row) + "\n" for row in rows), "utf-8")
    keep = ["--keep", "error", "--keep", "probability:긍정", "--keep", "line"]
    command = ["predict", trained.path, source, "-o", out, "--text-column", "line"]
    said = "2 of 2 rows predicted\n  1 without 'error'\n  1 without 'probability:긍정'\n"
    assert error_of(0, *command, *keep).startswith(said)
    first, second = map(json.loads, out.read_text("utf-8").splitlines())
    theirs = ["input:error", "input:probability:긍정", "input:line"]
    assert [first[name] for name in theirs] == ["내 메모", 9, "좋다"]
    assert (first["line"], first["error"], second["line"], second["input:error"]) == (1, None, 2, None)
    assert 0 < second["probability:긍정"] < 1
    error = error_of(2, *command, "--keep", "eror")
    assert "did you mean 'error'? set --text-column or --keep\n" in error


@pytest.mark.cpus
def test_a_composed_and_a_decomposed_text_are_one_and_unknown_tokens_are_told(
    trained: Run, tmp_path: Path
) -> None:
    apart = [unicodedata.normalize("NFD", text) for text in TEXTS]
    source, out = table(tmp_path / "in.csv", apart), tmp_path / "out.csv"
    assert cli.run(["predict", str(trained.path), str(source), "-o", str(out)]) == 0
    rows = rows_of(out)
    assert [row["document"] for row in rows] == apart  # as they were given
    expected = softmax(open_predictor(trained.path).predict(TEXTS)).astype(np.float32)
    assert [[np.float32(share) for share in shares(row)] for row in rows] == expected.tolist()
    error = error_of(0, "predict", trained.path, table(tmp_path / "in.csv", ["𓀀 𓀁 𓀂"]), "-o", out)
    assert error == "1 of 1 rows predicted\n  warning: 100% of the tokens are unknown to the vocabulary\n"


def test_pairs(tmp_path: Path) -> None:
    model, source, out = write_pair_model(tmp_path / "model"), tmp_path / "pairs.tsv", tmp_path / "out.csv"
    source.write_text("first\tsecond\n" + "".join(f"{a}\t{b or 'h'}\n" for a, b in PAIRS if a), "utf-8")
    command = ["predict", model, source, "-o", out, "--text-column", "first"]
    assert error_of(2, *command) == (
        "bunryu predict: the model takes pairs of texts\n"
        "  where: --pair-column\n  fix:   --pair-column NAME\n"
    )
    assert error_of(0, *command, "--pair-column", "second").startswith("4 of 4 rows predicted")
    rows = rows_of(out)
    assert [row["first"] for row in rows] == [a for a, _ in PAIRS if a]
    expected = open_predictor(model).predict([row["first"] for row in rows], [row["second"] for row in rows])
    np.testing.assert_allclose([shares(row) for row in rows], softmax(expected), atol=1e-6)


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        (["{run}", "nowhere.csv"], "no such file\n  where: nowhere.csv"),
        (
            ["{run}", "{file}", "--text-column", "docment"],
            "did you mean 'document'? set --text-column or --keep, or",
        ),
        (["{run}", "{file}", "--keep", "id"], "no column 'id'"),
        (["{run}", "{file}", "--resume"], "only a file's rows in an output can be gone on with"),
        (["{run}", "{file}", "--format", "jsonl", "--spreadsheet-safe"], "spreadsheets do not open jsonl"),
        (["{run}", "{file}", "--pair-column", "b"], "the model takes single texts"),
        (["{run}", "{file}", "-o", "/no/where.csv"], "no such folder\n  where: /no"),
        (["{run}", "{file}", "-o", "out.xlsx"], "predictions are written as csv, tsv, jsonl, not 'xlsx'"),
        (["{run}", "{file}", "--encoding", "utf-99"], "unknown encoding 'utf-99'"),
        (["{run}", "--keep", "id"], "lines of standard input have no columns"),
        (["{run}", "{file}", "--device", "tpux"], "no device 'tpux'"),
        (["{run}", "{file}", "--checkpoint", "nope"], "one of best.ckpt, last.ckpt, previous.ckpt"),
        (["{run}/nowhere"], "no such directory"),
        ([], "the following arguments are required: run\n  fix:   bunryu predict --help"),
    ],
)
def test_mistakes_are_named_with_their_fix(
    arguments: list[str], said: str, trained: Run, tmp_path: Path
) -> None:
    file = table(tmp_path / "in.csv", TEXTS)
    given = [word.format(run=trained.path, file=file) for word in arguments]
    assert said in error_of(2, "predict", *given)
