"""``bunryu import-checkpoint``: the tutorial's checkpoint gives the same logits as a model folder."""

from __future__ import annotations

from contextlib import redirect_stdout
from io import StringIO
from pathlib import Path
from typing import Any, NamedTuple

import pytest
import torch
from pytorch_lightning.callbacks import ModelCheckpoint
from transformers import AutoTokenizer, BertConfig, BertForSequenceClassification

from bunryu import cli
from bunryu.inference.opening import open_predictor
from helpers.pickles import Payload
from helpers.refusing import error_of
from helpers.small_models import BERT

SYLLABLES = "영화재미다한번안본"
WORDS = ["[PAD]", "[UNK]", "[CLS]", "[SEP]", "[MASK]", "film", "Film", "e", "é", "."]
WORDS += [*SYLLABLES, *(f"##{syllable}" for syllable in SYLLABLES)]
TEXTS = ["영화재미", "Film é", "안본다", "", "한번다 " * 30]
BERT = {**BERT, "vocab_size": len(WORDS)}


@pytest.fixture(scope="module")
def base(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """What was fine-tuned: config.json and vocab.txt, as KcBERT's folder holds them."""
    folder = tmp_path_factory.mktemp("fine-tuned") / "base"
    folder.mkdir()
    BertConfig(**BERT, architectures=["BertForMaskedLM"]).save_pretrained(folder)
    (folder / "vocab.txt").write_text("\n".join(WORDS), "utf-8")
    return folder


def classifier(classes: int = 2) -> BertForSequenceClassification:
    torch.manual_seed(11)
    return BertForSequenceClassification(BertConfig(**BERT, num_labels=classes)).eval()


def write_checkpoint(path: Path, model: torch.nn.Module, changes: dict[str, Any] | None = None) -> Path:
    """A file such as the tutorial's trainer writes; ``changes`` are of its weights, None deletes."""
    positions = {"bert.embeddings.position_ids": torch.arange(40)[None]}
    weights = {**model.state_dict(), **positions, **(changes or {})}
    state = {f"model.{name}": value for name, value in weights.items() if value is not None}
    hyper_parameters = {"learning_rate": 5e-5, "pretrained_model_name": "beomi/kcbert-base", "fp16": True}
    callbacks = {ModelCheckpoint: {"monitor": "val_loss"}}  # the class itself
    torch.save(
        {"epoch": 1, "callbacks": callbacks, "state_dict": state, "hyper_parameters": hyper_parameters}, path
    )
    return path


def command(file: Path, base: Path | str, output: Path) -> list[str]:
    options = {"--model": base, "--output": output, "--max-seq-length": 16}
    return ["import-checkpoint", str(file), *(str(part) for option in options.items() for part in option)]


class Imported(NamedTuple):
    model: torch.nn.Module
    folder: Path
    said: str


@pytest.fixture(scope="module")
def imported(base: Path, tmp_path_factory: pytest.TempPathFactory) -> Imported:
    """An imported checkpoint, to look at and not to change."""
    place, model = tmp_path_factory.mktemp("imported"), classifier()
    file, folder = write_checkpoint(place / "a.ckpt", model), place / "new" / "imported"
    with redirect_stdout(StringIO()) as said:
        assert cli.run(command(file, base, folder)) == 0
    return Imported(model, folder, said.getvalue())


def by_hand(model: torch.nn.Module, base: Path) -> list[list[float]]:
    """Logits as the tutorial's inference gives them, but for its padding."""
    tokenizer = AutoTokenizer.from_pretrained(base, do_lower_case=False)
    inputs = [tokenizer(text, truncation=True, max_length=16, return_tensors="pt") for text in TEXTS]
    with torch.inference_mode():
        return [model(**one).logits[0].tolist() for one in inputs]


@pytest.mark.cpus
def test_the_same_logits_as_before(imported: Imported, base: Path) -> None:
    predictor = open_predictor(imported.folder, device="cpu")
    expected = by_hand(imported.model, base)
    for text, logits in zip(TEXTS, expected, strict=True):
        assert predictor.predict([text])[0].tolist() == pytest.approx(logits, abs=1e-6, rel=0)
    assert len({tuple(row) for row in expected}) == len(TEXTS)
    assert predictor.check_parity() <= 1e-6
    assert len(predictor.metadata.parity) == 8
    assert (predictor.labels, predictor.metadata.max_seq_length) == (("부정", "긍정"), 16)
    assert not predictor.metadata.takes_pairs


def test_what_is_written_and_said(imported: Imported) -> None:
    folder = imported.folder
    assert imported.said == (
        f"wrote {folder}\n"
        "labels: 0 = 부정, 1 = 긍정 (not told by --labels: assumed)\n"
        f"next: bunryu predict {folder}\n"
    )
    assert sorted(path.name for path in folder.parent.iterdir()) == ["imported"]
    card = (folder / "README.md").read_text("utf-8")
    assert "\n# base\n\nA document classifier imported by bunryu from `a.ckpt`. Labels: 0 = 부정, " in card
    assert "| metric |" not in card
    for path in folder.iterdir():
        assert b"/fine-tuned" not in path.read_bytes(), path.name


def test_case_and_accents_are_kept(imported: Imported) -> None:
    ids = open_predictor(imported.folder, device="cpu").encode(["Film é film e"]).ids.tolist()
    assert [WORDS[index] for index in ids] == ["Film", "é", "film", "e"]
    assert AutoTokenizer.from_pretrained(imported.folder).tokenize("Film é") == ["Film", "é"]


@pytest.mark.parametrize(
    ("more", "labels"),
    [
        (["--labels", "나쁨, 보통 ,좋음"], ("나쁨", "보통", "좋음")),
        ([], ("LABEL_0", "LABEL_1", "LABEL_2")),
    ],
)
def test_labels_are_as_told_or_numbered(
    tmp_path: Path, base: Path, capsys: pytest.CaptureFixture[str], more: list[str], labels: tuple[str, ...]
) -> None:
    (tmp_path / "out").mkdir()  # an empty folder is filled
    file = write_checkpoint(tmp_path / "a.ckpt", classifier(3))
    assert cli.run([*command(file, base, tmp_path / "out"), *more]) == 0
    assert open_predictor(tmp_path / "out", device="cpu").labels == labels
    told = f"labels: 0 = {labels[0]}, 1 = {labels[1]}, 2 = {labels[2]}"
    assert f"{told}{'' if more else ' (not told by --labels: assumed)'}\n" in capsys.readouterr().out


@pytest.mark.parametrize(
    ("changes", "named"),
    [
        ({"classifier.weight": None}, "the weights have no classifier.weight"),
        ({"classifier.weight": torch.tensor(1.0)}, "the weights have no classifier.weight"),
        ({"classifier.bias": None}, "the weights lack classifier.bias"),
        ({"crf.x": torch.ones(1)}, "the weights hold, and the model has not, crf.x"),
        ({"classifier.bias": torch.tensor([0.0, float("nan")])}, "a logit is off by inf"),
        ({"x": Payload(Path("canary"))}, "the checkpoint holds more than tensors, plain values"),
    ],
)
def test_weights_that_do_not_fit_or_run_code_are_named_and_leave_nothing(
    tmp_path: Path, base: Path, monkeypatch: pytest.MonkeyPatch, changes: dict[str, Any], named: str
) -> None:
    monkeypatch.chdir(tmp_path)  # where the payload would leave its file
    file = write_checkpoint(tmp_path / "a.ckpt", classifier(), changes)
    assert named in error_of(1, *command(file, base, tmp_path / "new/out"))
    assert sorted(path.name for path in tmp_path.iterdir()) == ["a.ckpt"]


@pytest.mark.parametrize(
    ("more", "what"),
    [
        (["--labels", "부정,긍정,중립"], "'부정,긍정,중립' are not 2 different labels"),
        (["--labels", "같다,같다"], "are not 2 different labels"),
        (["--labels", "부정,"], "are not 2 different labels"),
        (["--max-seq-length", "41"], "max_seq_length=41 is beyond the model's 40 positions"),
        (["--max-seq-length", "3"], "--max-seq-length is at least 4"),
    ],
)
def test_arguments_that_do_not_fit_are_refused(
    tmp_path: Path, base: Path, more: list[str], what: str
) -> None:
    file = write_checkpoint(tmp_path / "a.ckpt", classifier())
    assert what in error_of(2, *command(file, base, tmp_path / "out"), *more)
    assert not (tmp_path / "out").exists()


def test_what_is_there_is_not_overwritten(tmp_path: Path, base: Path) -> None:
    file = write_checkpoint(tmp_path / "a.ckpt", classifier())
    for output in (base, base / "vocab.txt"):
        assert "there is something already" in error_of(2, *command(file, base, output))
    assert sorted(path.name for path in base.iterdir()) == ["config.json", "vocab.txt"]


def test_a_missing_file_and_a_missing_model(tmp_path: Path, base: Path) -> None:
    error = error_of(1, *command(tmp_path / "none.ckpt", base, tmp_path / "out"))
    assert "the checkpoint cannot be read: No such file or directory" in error
    file = write_checkpoint(tmp_path / "a.ckpt", classifier())
    error = error_of(1, *command(file, "nobody/no-such-model", tmp_path / "out"))
    assert "the tokenizer of 'nobody/no-such-model' is not cached and could not be fetched" in error
    assert "  where: --model\n  fix:   check the network; or --model <a folder with" in error
    assert not (tmp_path / "out").exists()
