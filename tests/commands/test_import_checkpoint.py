"""``bunryu import-checkpoint``: the tutorial's checkpoint gives the same logits as a model folder."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
import torch
from transformers import AutoTokenizer, BertConfig, BertForSequenceClassification

from bunryu import cli
from bunryu.inference.opening import open_predictor
from helpers.pickles import Payload

SYLLABLES = "영화재미다한번안본"
WORDS = ["[PAD]", "[UNK]", "[CLS]", "[SEP]", "[MASK]", "film", "Film", "e", "é", "."]
WORDS += [*SYLLABLES, *(f"##{syllable}" for syllable in SYLLABLES)]
TEXTS = ["영화재미", "Film é", "안본다", "", "한번다 " * 30]
SIZES: dict[str, Any] = {
    "vocab_size": len(WORDS),
    "hidden_size": 16,
    "num_hidden_layers": 2,
    "num_attention_heads": 2,
    "intermediate_size": 20,
    "max_position_embeddings": 40,
    "initializer_range": 0.5,
}


@pytest.fixture
def base(tmp_path: Path) -> Path:
    """What was fine-tuned: config.json and vocab.txt, as KcBERT's folder holds them."""
    folder = tmp_path / "base"
    folder.mkdir()
    BertConfig(**SIZES, architectures=["BertForMaskedLM"]).save_pretrained(folder)
    (folder / "vocab.txt").write_text("\n".join(WORDS), "utf-8")
    return folder


def classifier(classes: int = 2) -> BertForSequenceClassification:
    torch.manual_seed(11)
    return BertForSequenceClassification(BertConfig(**SIZES, num_labels=classes)).eval()


def write_checkpoint(path: Path, model: torch.nn.Module, **changes: Any) -> Path:
    """A file such as the tutorial's trainer writes; ``changes`` are of its state_dict, None deletes."""
    state: dict[str, Any] = {f"model.{name}": tensor for name, tensor in model.state_dict().items()}
    state["model.bert.embeddings.position_ids"] = torch.arange(40)[None]
    for name, value in changes.items():
        state[name.replace("__", ".")] = value
    kept = {name: value for name, value in state.items() if value is not None}
    hyper_parameters = {"learning_rate": 5e-5, "pretrained_model_name": "beomi/kcbert-base", "fp16": True}
    torch.save({"epoch": 1, "state_dict": kept, "hyper_parameters": hyper_parameters}, path)
    return path


def run(file: Path, base: Path | str, output: Path, *more: str) -> int:
    return cli.run(
        ["import-checkpoint", str(file), "--model", str(base), "--output", str(output),
         "--max-seq-length", "16", *more]
    )  # fmt: skip


def by_hand(model: torch.nn.Module, base: Path) -> list[list[float]]:
    """Logits as the tutorial's inference gives them, but for its padding."""
    tokenizer = AutoTokenizer.from_pretrained(base, do_lower_case=False)
    with torch.inference_mode():
        return [
            model(**tokenizer(text, truncation=True, max_length=16, return_tensors="pt")).logits[0].tolist()
            for text in TEXTS
        ]


@pytest.mark.cpus
def test_the_same_logits_as_before(tmp_path: Path, base: Path, capsys: pytest.CaptureFixture[str]) -> None:
    model, output = classifier(), tmp_path / "new" / "imported"
    assert run(write_checkpoint(tmp_path / "a.ckpt", model), base, output) == 0
    predictor = open_predictor(output, device="cpu")
    expected = by_hand(model, base)
    for text, logits in zip(TEXTS, expected, strict=True):
        assert predictor.predict([text])[0].tolist() == pytest.approx(logits, abs=1e-6, rel=0)
    assert len({tuple(row) for row in expected}) == len(TEXTS)
    assert predictor.check_parity() <= 1e-6
    assert len(predictor.about.parity) == 8
    assert (predictor.labels, predictor.about.max_seq_length) == (("부정", "긍정"), 16)
    assert not predictor.about.takes_pairs
    assert capsys.readouterr().out == (
        f"wrote {output}\n"
        "labels: 0 = 부정, 1 = 긍정 (not told by --labels: assumed)\n"
        f"next: bunryu predict {output}\n"
    )
    assert sorted(path.name for path in output.parent.iterdir()) == ["imported"]


def test_case_and_accents_are_kept(tmp_path: Path, base: Path) -> None:
    assert run(write_checkpoint(tmp_path / "a.ckpt", classifier()), base, tmp_path / "out") == 0
    predictor = open_predictor(tmp_path / "out", device="cpu")
    ids = predictor.encode(["Film é film e"]).ids.tolist()
    assert [WORDS[index] for index in ids] == ["Film", "é", "film", "e"]
    assert AutoTokenizer.from_pretrained(tmp_path / "out").tokenize("Film é") == ["Film", "é"]


def test_kcberts_own_vocabulary_is_cased(tmp_path: Path, shared: Path) -> None:
    base = tmp_path / "kcbert"
    base.mkdir()
    source = shared / "models/kcbert-base"
    (base / "vocab.txt").write_bytes((source / "vocab.txt").read_bytes())
    small = {**SIZES, "vocab_size": 30_000, "num_hidden_layers": 1}
    config = {**json.loads((source / "config.json").read_text("utf-8")), **small}
    (base / "config.json").write_text(json.dumps(config), "utf-8")
    model = BertForSequenceClassification(BertConfig(**small))
    assert run(write_checkpoint(tmp_path / "a.ckpt", model), base, tmp_path / "out") == 0
    predictor = open_predictor(tmp_path / "out", device="cpu")
    lines = (shared / "golden/kcbert_encoding.jsonl").read_text("utf-8").splitlines()
    golden = [json.loads(line) for line in lines]
    for row in golden:
        assert predictor.encode([row["text"]]).ids.tolist() == row["input_ids"][1:-1]
    assert len(golden) == 3
    assert AutoTokenizer.from_pretrained(tmp_path / "out").tokenize("Film") == ["F", "##il", "##m"]


def test_labels_are_as_told(tmp_path: Path, base: Path, capsys: pytest.CaptureFixture[str]) -> None:
    file = write_checkpoint(tmp_path / "a.ckpt", classifier(3))
    assert run(file, base, tmp_path / "out", "--labels", "나쁨, 보통 ,좋음") == 0
    assert open_predictor(tmp_path / "out", device="cpu").labels == ("나쁨", "보통", "좋음")
    assert "labels: 0 = 나쁨, 1 = 보통, 2 = 좋음\n" in capsys.readouterr().out


def test_labels_of_three_classes_are_numbered(tmp_path: Path, base: Path) -> None:
    assert run(write_checkpoint(tmp_path / "a.ckpt", classifier(3)), base, tmp_path / "out") == 0
    assert open_predictor(tmp_path / "out", device="cpu").labels == ("LABEL_0", "LABEL_1", "LABEL_2")


def test_the_card_says_where_it_comes_from(tmp_path: Path, base: Path) -> None:
    assert run(write_checkpoint(tmp_path / "a.ckpt", classifier()), base, tmp_path / "out") == 0
    card = (tmp_path / "out/README.md").read_text("utf-8")
    assert "\n# base\n\nA document classifier imported by bunryu from `a.ckpt`. Labels: 0 = 부정, " in card
    assert "| metric |" not in card
    for path in (tmp_path / "out").iterdir():
        assert str(tmp_path).encode() not in path.read_bytes(), path.name


def test_an_empty_folder_is_filled(tmp_path: Path, base: Path) -> None:
    (tmp_path / "out").mkdir()
    assert run(write_checkpoint(tmp_path / "a.ckpt", classifier()), base, tmp_path / "out") == 0
    assert (tmp_path / "out/model.safetensors").is_file()


@pytest.mark.parametrize(
    ("changes", "named"),
    [
        ({"model__classifier__bias": None}, "the weights lack classifier.bias"),
        ({"model__classifier__weight": None}, "the weights have no classifier.weight"),
        ({"model__bert__pooler__dense__bias": None}, "the weights lack bert.pooler.dense.bias"),
        ({"model__crf__x": torch.ones(1)}, "the weights hold, and the model has not, crf.x"),
        ({"model__classifier__bias": torch.ones(5)}, "classifier.bias has the shape (5,), the model's (2,)"),
        ({"model__classifier__weight": torch.ones(2, 99)}, "classifier.weight has the shape (2, 99)"),
        (
            {"model__bert__embeddings__word_embeddings__weight": torch.ones(7, 16)},
            f"bert.embeddings.word_embeddings.weight has the shape (7, 16), the model's ({len(WORDS)}, 16)",
        ),
    ],
)
def test_weights_that_do_not_fit_are_named_and_leave_nothing(
    tmp_path: Path, base: Path, capsys: pytest.CaptureFixture[str], changes: dict[str, Any], named: str
) -> None:
    file = write_checkpoint(tmp_path / "a.ckpt", classifier(), **changes)
    assert run(file, base, tmp_path / "new/out") == 1
    assert named in capsys.readouterr().err
    assert not (tmp_path / "new").exists()


def test_a_head_without_shape_is_refused(
    tmp_path: Path, base: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    changes = {"model__classifier__weight": torch.tensor(1.0)}
    assert run(write_checkpoint(tmp_path / "a.ckpt", classifier(), **changes), base, tmp_path / "out") == 1
    assert "the weights have no classifier.weight" in capsys.readouterr().err


def test_weights_that_are_no_numbers_leave_nothing(
    tmp_path: Path, base: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    changes = {"model__classifier__bias": torch.tensor([0.0, float("nan")])}
    assert run(write_checkpoint(tmp_path / "a.ckpt", classifier(), **changes), base, tmp_path / "out") == 1
    assert "a logit is off by inf" in capsys.readouterr().err
    assert sorted(path.name for path in tmp_path.iterdir()) == ["a.ckpt", "base"]


@pytest.mark.parametrize(
    ("more", "what"),
    [
        (["--labels", "부정,긍정,중립"], "3 labels for 2 classes"),
        (["--labels", "하나"], "1 labels for 2 classes"),
        (["--labels", "같다,같다"], "a label is empty or stands there twice"),
        (["--labels", "부정,"], "a label is empty or stands there twice"),
        (["--max-seq-length", "41"], "max_seq_length=41 is beyond the model's 40 positions"),
        (["--max-seq-length", "3"], "--max-seq-length is at least 4"),
        (["--max-seq-length", "long"], "invalid int value: 'long'"),
    ],
)
def test_arguments_that_do_not_fit_are_refused(
    tmp_path: Path, base: Path, capsys: pytest.CaptureFixture[str], more: list[str], what: str
) -> None:
    file = write_checkpoint(tmp_path / "a.ckpt", classifier())
    assert run(file, base, tmp_path / "out", *more) == 2
    assert what in capsys.readouterr().err
    assert not (tmp_path / "out").exists()


def test_what_is_there_is_not_overwritten(
    tmp_path: Path, base: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    file = write_checkpoint(tmp_path / "a.ckpt", classifier())
    for output in (base, base / "vocab.txt"):
        assert run(file, base, output) == 2
        assert "there is something already" in capsys.readouterr().err
    assert sorted(path.name for path in base.iterdir()) == ["config.json", "vocab.txt"]


def test_a_payload_is_refused_and_not_run(
    tmp_path: Path, base: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    canary = tmp_path / "canary"
    file = write_checkpoint(tmp_path / "a.ckpt", classifier(), model__x=Payload(canary))
    assert run(file, base, tmp_path / "out") == 1
    assert "more than tensors and plain values" in capsys.readouterr().err
    assert not canary.exists()
    assert not (tmp_path / "out").exists()


def test_a_missing_file_and_a_missing_model(
    tmp_path: Path, base: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert run(tmp_path / "none.ckpt", base, tmp_path / "out") == 1
    assert "the checkpoint cannot be read: No such file or directory" in capsys.readouterr().err
    file = write_checkpoint(tmp_path / "a.ckpt", classifier())
    assert run(file, "nobody/no-such-model", tmp_path / "out") == 1
    error = capsys.readouterr().err
    assert "the tokenizer of 'nobody/no-such-model' is not cached and could not be fetched" in error
    assert "  where: --model\n  fix:   check the network; or --model <a folder with" in error
    (base / "vocab.txt").unlink()
    assert run(file, base, tmp_path / "out") == 1
    assert str(base) in capsys.readouterr().err
    assert not (tmp_path / "out").exists()


def test_neither_lightning_nor_hydra_is_reached(tmp_path: Path, base: Path) -> None:
    program = (
        "import sys\n"
        "from bunryu.cli import run\n"
        "code = run(sys.argv[1:])\n"
        "print(code, sorted({'pytorch_lightning', 'hydra', 'omegaconf'} & set(sys.modules)))\n"
    )
    file = write_checkpoint(tmp_path / "a.ckpt", classifier())
    command = [sys.executable, "-c", program, "import-checkpoint", str(file), "--model", str(base),
               "--max-seq-length", "16", "--output", str(tmp_path / "out")]  # fmt: skip
    done = subprocess.run(command, capture_output=True, text=True, check=True)
    assert done.stdout.splitlines()[-1] == "0 []"
    assert done.stderr == ""
