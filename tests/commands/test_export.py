"""``bunryu export``: onnxruntime gives PyTorch's logits, or nothing is left behind."""

from __future__ import annotations

import csv
import json
import shutil
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import onnxruntime
import pytest
import torch
from tokenizers import Tokenizer, decoders, models, pre_tokenizers, processors
from transformers import (
    BertTokenizer,
    DistilBertConfig,
    DistilBertForSequenceClassification,
    ElectraConfig,
    ElectraForSequenceClassification,
    PreTrainedTokenizerFast,
    RobertaConfig,
    RobertaForSequenceClassification,
)

from bunryu import cli
from bunryu.data.cleaner import NO_CLEANING, Cleaner
from bunryu.errors import BunryuError, ConfigError, ModelError
from bunryu.inference import onnx_export
from bunryu.inference.onnx_runtime import OnnxNetwork, load_onnx_predictor
from bunryu.inference.opening import open_predictor
from bunryu.models.folder import write_model_folder
from bunryu.models.sources import label_maps
from bunryu.runs.run import Run
from bunryu.system.files import replacing

FILES = ["bunryu.json", "config.json", "model.onnx", "tokenizer.json", "tokenizer_config.json"]
TEXTS = ["영화가 좋다", "", "다시는 안 본다 " * 80, "ㅋㅋ", "배우 연기만 볼 만했다", "좋다 " * 200]
Change = Callable[[Any], Any]


@pytest.fixture(scope="module")
def exported(trained: Run, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A copy of the trained run with its export, to look at and not to change."""
    run = tmp_path_factory.mktemp("exported") / trained.path.parent.name / trained.path.name
    shutil.copytree(trained.path, run)
    command = [sys.executable, "-c", "from bunryu.cli import main; main()", "export", str(run)]
    done = subprocess.run([*command, "--format", "onnx"], capture_output=True, text=True, check=False)
    assert (done.returncode, done.stderr) == (0, "")
    (run.parent / "said").write_text(done.stdout, "utf-8")
    return run


@pytest.fixture
def run(exported: Path, tmp_path: Path) -> Path:
    """A copy of the exported run, to change."""
    return Path(shutil.copytree(exported, tmp_path / "outputs/c-m" / exported.name))


def edit(path: Path, change: Change) -> None:
    path.write_text(json.dumps(change(json.loads(path.read_text("utf-8")))), "utf-8")


def test_what_is_written_and_said(exported: Path) -> None:
    folder = exported / "exports/onnx"
    assert sorted(path.name for path in folder.iterdir()) == FILES
    assert [path.name for path in folder.parent.iterdir()] == ["onnx"]
    wrote, within, following = (exported.parent / "said").read_text("utf-8").splitlines()
    assert wrote == f"wrote {folder}"
    assert within.startswith("its logits are within ")
    assert within.endswith(" of PyTorch's, alone and padded, from 1 to 128 tokens")
    assert following == f"next: bunryu predict {exported} --runtime onnx"


@pytest.mark.cpus
def test_onnxruntime_gives_pytorchs_logits(exported: Path) -> None:
    ours = open_predictor(exported, device="cpu")
    theirs = open_predictor(exported, runtime="onnx", device="cpu")
    assert (theirs.runtime, theirs.device, theirs.name) == ("onnx", "cpu", ours.name)
    assert theirs.labels == ours.labels
    expected = ours.predict(TEXTS)
    found = theirs.predict(TEXTS)
    assert found.dtype == np.float32
    np.testing.assert_allclose(found, expected, rtol=0, atol=1e-5)
    for batches in ([np.array([index]) for index in range(6)], [np.arange(6)]):
        encoded = theirs.encode(TEXTS)
        np.testing.assert_allclose(theirs.logits(encoded, batches), expected, rtol=0, atol=1e-5)
    assert len({tuple(row) for row in expected.round(4).tolist()}) > 2


@pytest.mark.cpus
def test_an_export_keeps_parity_samples_of_its_own(exported: Path) -> None:
    theirs = open_predictor(exported, runtime="onnx", device="cpu")
    ours = open_predictor(exported, device="cpu")
    assert theirs.check_parity() <= 1e-6
    for sample, original in zip(theirs.about.parity, ours.about.parity, strict=True):
        assert (sample.text, sample.pair) == (original.text, original.pair)
        assert sample.logits == pytest.approx(theirs.predict([sample.text])[0].tolist(), abs=1e-6, rel=0)
        assert sample.logits == pytest.approx(original.logits, abs=1e-5, rel=0)
    assert (theirs.about.cleaner, theirs.about.max_seq_length) == (ours.about.cleaner, 128)


def test_rows_and_tokens_are_dynamic_and_named(exported: Path) -> None:
    graph = onnx.load(exported / "exports/onnx/model.onnx").graph
    shapes = {
        value.name: [dim.dim_param or dim.dim_value for dim in value.type.tensor_type.shape.dim]
        for value in [*graph.input, *graph.output]
    }
    assert shapes == {
        "input_ids": ["rows", "tokens"],
        "attention_mask": ["rows", "tokens"],
        "token_type_ids": ["rows", "tokens"],
        "logits": ["rows", 2],
    }


def test_nothing_of_the_machine_is_written(exported: Path) -> None:
    for path in (exported / "exports/onnx").iterdir():
        content = path.read_bytes()
        for trace in (str(exported), "site-packages", "modeling_bert", sys.prefix, "name_or_path"):
            assert trace.encode() not in content, (path.name, trace)


def test_predict_takes_the_export(exported: Path, capsys: pytest.CaptureFixture[str]) -> None:
    reviews = exported.parent / "reviews.csv"
    reviews.write_text("text\n영화가 좋다\n다시는 안 본다\n", "utf-8")
    answers = []
    for runtime in ("torch", "onnx"):
        command = ["predict", str(exported), str(reviews), "--text-column", "text", "--device", "cpu"]
        assert cli.run([*command, "--runtime", runtime]) == 0
        answers.append(list(csv.DictReader(capsys.readouterr().out.splitlines(), delimiter="\t")))
    assert [row["text"] for row in answers[1]] == ["영화가 좋다", "다시는 안 본다"]
    for ours, theirs in zip(*answers, strict=True):
        assert theirs["prediction"] == ours["prediction"]
        assert float(theirs["confidence"]) == pytest.approx(float(ours["confidence"]), abs=1e-5, rel=0)


def small(kind: str) -> tuple[Any, Any]:
    """A model of another architecture and its tokenizer, of one layer, with random weights."""
    torch.manual_seed(2)
    words = ["<s>", "<pad>", "</s>", "<unk>", "[CLS]", "[SEP]", "[PAD]", "[UNK]", "[MASK]", *"abcdefgh"]
    ids = {word: index for index, word in enumerate(words)}
    sizes: dict[str, Any] = {
        "vocab_size": len(words),
        "initializer_range": 0.5,
        **label_maps(["x", "y", "z"]),
    }
    if kind == "distilbert":
        config = DistilBertConfig(
            dim=16, n_layers=1, n_heads=2, hidden_dim=20, max_position_embeddings=24,
            pad_token_id=ids["[PAD]"], **sizes,
        )  # fmt: skip
        tokenizer = BertTokenizer(
            vocab=ids, do_lower_case=False, model_input_names=["input_ids", "attention_mask"]
        )
        return DistilBertForSequenceClassification(config), tokenizer
    sizes |= {"hidden_size": 16, "num_hidden_layers": 1, "num_attention_heads": 2, "intermediate_size": 20}
    if kind == "electra":
        config = ElectraConfig(
            embedding_size=8, max_position_embeddings=24, pad_token_id=ids["[PAD]"], **sizes
        )
        return ElectraForSequenceClassification(config), BertTokenizer(vocab=ids, do_lower_case=False)
    backend = Tokenizer(models.WordLevel(ids, unk_token="<unk>"))
    backend.pre_tokenizer = pre_tokenizers.Whitespace()
    backend.decoder = decoders.WordPiece()
    backend.post_processor = processors.RobertaProcessing(("</s>", 2), ("<s>", 0))
    tokenizer = PreTrainedTokenizerFast(
        tokenizer_object=backend, bos_token="<s>", eos_token="</s>", unk_token="<unk>", pad_token="<pad>",
        cls_token="<s>", sep_token="</s>", model_input_names=["input_ids", "attention_mask"],
    )  # fmt: skip
    config = RobertaConfig(max_position_embeddings=26, type_vocab_size=1, pad_token_id=1, **sizes)
    return RobertaForSequenceClassification(config), tokenizer


def write_small(folder: Path, kind: str, samples: list[tuple[str, str | None]], length: int) -> None:
    model, tokenizer = small(kind)
    facts = {"model": kind, "corpus": "c", "run": "r"}
    write_model_folder(folder, model, tokenizer, Cleaner(allowed="a-z "), length, samples, {}, facts)


@pytest.mark.parametrize(
    ("kind", "pairs", "names"),
    [
        ("roberta", False, {"input_ids", "attention_mask"}),
        ("distilbert", False, {"input_ids", "attention_mask"}),
        ("electra", True, {"input_ids", "attention_mask", "token_type_ids"}),
    ],
)
def test_other_architectures_at_their_longest(
    tmp_path: Path, kind: str, pairs: bool, names: set[str]
) -> None:
    texts = ["a b c", "", "a! b2 " * 20, "h g"]
    seconds = ["d", "e f", "c " * 30, ""] if pairs else None
    folder = tmp_path / "mine"
    write_small(folder, kind, list(zip(texts, seconds or [None] * 4, strict=True)), 24)
    assert cli.run(["export", str(folder)]) == 0
    session = onnxruntime.InferenceSession(str(folder / "exports/onnx/model.onnx"))
    assert {value.name for value in session.get_inputs()} == names
    ours, theirs = open_predictor(folder, device="cpu"), open_predictor(folder, runtime="onnx")
    expected = ours.predict(texts, seconds)
    assert theirs.encode(texts, seconds).lengths(24).max() == 24
    np.testing.assert_allclose(theirs.predict(texts, seconds), expected, rtol=0, atol=1e-4)
    assert np.ptp(expected, axis=0).max() > 0.01
    assert theirs.about.takes_pairs is pairs
    assert theirs.check_parity() <= 1e-6


def test_another_checkpoint_and_no_samples(run: Path, capsys: pytest.CaptureFixture[str]) -> None:
    path = run / "checkpoints/last.ckpt"
    checkpoint = torch.load(path, weights_only=True)
    checkpoint["state_dict"]["model.classifier.bias"] += 3.0
    torch.save(checkpoint, path)
    edit(run / "model/bunryu.json", lambda facts: {**facts, "parity": facts["parity"][:2]})
    assert cli.run(["export", str(run), "--format", "onnx", "--checkpoint", "last"]) == 0
    last = open_predictor(run, checkpoint="last", device="cpu").predict(TEXTS)
    theirs = open_predictor(run, runtime="onnx")
    np.testing.assert_allclose(theirs.predict(TEXTS), last, rtol=0, atol=1e-5)
    assert np.abs(last - open_predictor(run, device="cpu").predict(TEXTS)).max() > 1
    assert len(theirs.about.parity) == 2  # those of the folder, and the former export is replaced
    assert theirs.check_parity() <= 1e-6
    assert sorted(path.name for path in (run / "exports").iterdir()) == ["onnx"]


def test_a_model_of_16_bits_without_samples_is_exported_in_32(tmp_path: Path) -> None:
    folder = tmp_path / "mine"
    model, tokenizer = small("distilbert")
    facts = {"model": "m", "corpus": "c", "run": "r"}
    write_model_folder(folder, model.bfloat16(), tokenizer, NO_CLEANING, 16, [], {}, facts)
    assert cli.run(["export", str(folder)]) == 0
    theirs = open_predictor(folder, runtime="onnx")
    assert len(theirs.about.parity) == 1
    ours = open_predictor(folder, device="cpu")
    ours.network.model.float()  # type: ignore[attr-defined]
    np.testing.assert_allclose(theirs.predict(["a b"]), ours.predict(["a b"]), rtol=0, atol=1e-5)


@pytest.mark.parametrize("by", [1e-3, float("nan")])
def test_a_graph_with_other_logits_leaves_nothing(
    trained: Run,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
    by: float,
) -> None:
    folder = Path(shutil.copytree(trained.path / "model", tmp_path / "mine"))
    before = {path.name: path.read_bytes() for path in folder.iterdir()}
    plain = OnnxNetwork.__call__
    monkeypatch.setattr(OnnxNetwork, "__call__", lambda self, batch: plain(self, batch) + np.float32(by))
    assert cli.run(["export", str(folder)]) == 1
    said = capsys.readouterr()
    assert f"onnxruntime's logits are not PyTorch's: one is off by {by:.2g}, more than 0.0001" in said.err
    assert said.out == ""
    assert {path.name: path.read_bytes() for path in folder.iterdir()} == before


def test_a_failed_export_leaves_the_former_one(
    run: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    before = {path.name: path.read_bytes() for path in (run / "exports/onnx").iterdir()}

    def fail(self: object, input_ids: torch.Tensor, attention_mask: object, token_type_ids: object) -> None:
        raise NotImplementedError("no such operator\nsecond line")

    monkeypatch.setattr(onnx_export._Logits, "forward", fail)
    assert cli.run(["export", str(run)]) == 1
    error = capsys.readouterr().err
    assert "PyTorch cannot export this architecture: NotImplementedError: no such operator\n" in error
    assert {path.name: path.read_bytes() for path in (run / "exports/onnx").iterdir()} == before
    assert [path.name for path in (run / "exports").iterdir()] == ["onnx"]


def test_a_model_that_is_not_what_was_saved_is_not_exported(
    trained: Run, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    folder = Path(shutil.copytree(trained.path / "model", tmp_path / "mine"))
    edit(folder / "bunryu.json", lambda facts: {
        **facts, "parity": [{**sample, "logits": [9, 9]} for sample in facts["parity"]]
    })  # fmt: skip
    assert cli.run(["export", str(folder)]) == 1
    assert "the loaded model is not the one that was saved" in capsys.readouterr().err
    assert not (folder / "exports").exists()


@pytest.mark.parametrize("package", ["onnx", "onnxscript", "onnxruntime"])
def test_a_missing_package_is_named(
    exported: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str], package: str
) -> None:
    monkeypatch.setattr(
        "bunryu.commands.export.find_spec", lambda name: None if name == package else object()
    )
    assert cli.run(["export", str(exported)]) == 2
    error = capsys.readouterr().err
    assert f"{package} is not installed" in error
    assert "pip install 'bunryu[onnx]'" in error


def test_the_runtime_missing_at_prediction_is_named(exported: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "onnxruntime", None)
    with pytest.raises(ConfigError) as caught:
        open_predictor(exported, runtime="onnx")
    assert caught.value.what.startswith("onnxruntime cannot be imported: ")
    assert caught.value.fix == "pip install 'bunryu[onnx]'"


def test_another_format_is_refused(exported: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert cli.run(["export", str(exported), "--format", "gguf"]) == 2
    assert "argument --format: invalid choice: 'gguf'" in capsys.readouterr().err


@pytest.mark.parametrize("device", ["cuda", "cuda:1", "mps", "cpu:0", "gpu"])
def test_a_device_that_is_not_there_is_refused(exported: Path, device: str) -> None:
    with pytest.raises(ConfigError) as caught:
        open_predictor(exported, runtime="onnx", device=device)
    reason = "this onnxruntime has no CUDA" if "cuda" in device else "onnxruntime knows cpu and cuda"
    assert caught.value.what == f"no device '{device}': {reason}"


def test_a_provider_that_does_not_start_is_no_device(exported: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def listed() -> list[str]:
        return ["CUDAExecutionProvider", "CPUExecutionProvider"]

    asked: list[Any] = []
    plain = onnxruntime.InferenceSession

    def on_cpu(path: str, options: Any, providers: list[Any]) -> Any:
        asked.append(providers[0])
        return plain(path, options, providers=["CPUExecutionProvider"])

    monkeypatch.setattr(onnxruntime, "get_available_providers", listed)
    monkeypatch.setattr(onnxruntime, "InferenceSession", on_cpu)
    with pytest.raises(ConfigError, match="no device 'cuda:1': CUDA cannot be used here"):
        open_predictor(exported, runtime="onnx", device="cuda:1")
    assert open_predictor(exported, runtime="onnx", device="auto").device == "cpu"
    assert asked == [
        ("CUDAExecutionProvider", {"device_id": 1}),
        ("CUDAExecutionProvider", {"device_id": 0}),
    ]


def lengthen_vocabulary(facts: Any) -> Any:
    facts["model"]["vocab"]["새낱말"] = len(facts["model"]["vocab"])
    return facts


def no_types(config: Any) -> Any:
    return {**config, "model_input_names": ["input_ids", "attention_mask"]}


def labelled(names: dict[str, str]) -> Change:
    return lambda config: {**config, "id2label": names}


def about(**facts: int) -> Change:
    return lambda config: {**config, **facts}


@pytest.mark.parametrize(
    ("name", "change", "what"),
    [
        (
            "config.json",
            labelled({"0": "긍정", "1": "부정"}),
            "the export's labels are ['긍정', '부정'], the model's ['부정', '긍정']",
        ),
        ("config.json", labelled({"0": "하나"}), "config.json has 1 labels, the graph [2]"),
        ("config.json", labelled({"0": "a", "7": "b"}), "its config.json is damaged: '1'"),
        ("config.json", lambda config: [], "the tokenizer cannot be loaded: "),
        ("config.json", lambda config: {"model_type": "bert"}, "its config.json is damaged: 'id2label'"),
        ("tokenizer.json", lengthen_vocabulary, "tokens, the embedding "),
        ("tokenizer_config.json", no_types, "the graph wants token_type_ids, the tokenizer gives "),
        ("bunryu.json", about(schema=99), "bunryu.json was written by a later bunryu"),
        ("bunryu.json", about(max_seq_length=301), "onnxruntime cannot run the model: "),
        ("bunryu.json", about(max_seq_length=1), "max_seq_length is 1, special tokens alone take 2"),
    ],
)
def test_files_that_do_not_fit_are_refused(run: Path, name: str, change: Change, what: str) -> None:
    edit(run / "exports/onnx" / name, change)
    with pytest.raises(ModelError) as caught:
        open_predictor(run, runtime="onnx")
    assert what in caught.value.what
    assert "\n" not in caught.value.what


@pytest.mark.parametrize("cut", [0, 1, 1000, -1000])
def test_a_damaged_graph_is_refused_quietly(run: Path, capfd: pytest.CaptureFixture[str], cut: int) -> None:
    path = run / "exports/onnx/model.onnx"
    path.write_bytes(path.read_bytes()[:cut])
    with pytest.raises(ModelError) as caught:
        open_predictor(run, runtime="onnx")
    assert caught.value.what.startswith("the graph cannot be loaded: ")
    assert (caught.value.where, caught.value.fix) == (str(path), "export the run anew")
    assert capfd.readouterr().err == ""


@pytest.mark.parametrize("name", ["bunryu.json", "config.json", "tokenizer.json", "model.onnx"])
def test_a_missing_file_is_refused(run: Path, name: str) -> None:
    (run / "exports/onnx" / name).unlink()
    with pytest.raises(BunryuError) as caught:
        open_predictor(run, runtime="onnx")
    assert caught.value.where == str(run / "exports/onnx")


def test_weights_changed_in_the_graph_are_found_by_parity(run: Path) -> None:
    path = run / "exports/onnx/model.onnx"
    model = onnx.load(path)
    (bias,) = [tensor for tensor in model.graph.initializer if tensor.name.endswith("classifier.bias")]
    moved = onnx.numpy_helper.to_array(bias) + np.float32(1e-3)
    bias.CopyFrom(onnx.numpy_helper.from_array(moved, bias.name))
    onnx.save(model, path)
    predictor = load_onnx_predictor(run / "exports/onnx", "m", "cpu")
    with pytest.raises(ModelError, match=r"a logit is off by 0\.001, more than 0\.0001"):
        predictor.check_parity()


def test_a_folder_appears_whole_or_not_at_all(tmp_path: Path) -> None:
    target = tmp_path / "new/target"
    with pytest.raises(KeyboardInterrupt), replacing(target) as staging:
        (staging / "part").touch()
        raise KeyboardInterrupt
    assert list(tmp_path.iterdir()) == []
    for content in ("one", "two"):
        with replacing(target) as staging:
            (staging / content).touch()
    assert [path.name for path in target.iterdir()] == ["two"]
    assert [path.name for path in target.parent.iterdir()] == ["target"]
    with pytest.raises(ValueError, match="no"), replacing(target):
        raise ValueError("no")
    assert [path.name for path in target.iterdir()] == ["two"]
    assert target.stat().st_mode & 0o777 == tmp_path.joinpath("new").stat().st_mode & 0o777
