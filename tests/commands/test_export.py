"""``bunryu export``: onnxruntime gives PyTorch's logits, or nothing is left behind."""

from __future__ import annotations

import csv
import shutil
import sys
from collections.abc import Callable
from contextlib import redirect_stdout
from io import StringIO
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
    ElectraConfig,
    ElectraForSequenceClassification,
    PreTrainedTokenizerFast,
    RobertaConfig,
    RobertaForSequenceClassification,
)

from bunryu import cli
from bunryu.commands import export
from bunryu.data.cleaner import Cleaner
from bunryu.errors import BunryuError, ConfigError, ModelError
from bunryu.inference import onnx_export
from bunryu.inference.onnx_runtime import OnnxNetwork, load_onnx_predictor
from bunryu.inference.opening import open_predictor
from bunryu.metrics import softmax
from bunryu.models.folder import write_model_folder
from bunryu.models.sources import label_maps
from bunryu.runs.run import Run
from helpers.refusing import edit_json, error_of, refused
from helpers.small_models import SIZES

FILES = ["bunryu.json", "config.json", "model.onnx", "tokenizer.json", "tokenizer_config.json"]
TEXTS = ["영화가 좋다", "", "다시는 안 본다 " * 80, "ㅋㅋ", "배우 연기만 볼 만했다", "좋다 " * 200]
Change = Callable[[Any], Any]


@pytest.fixture(scope="module")
def exported(trained: Run, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A copy of the trained run with its export, to look at and not to change."""
    run = tmp_path_factory.mktemp("exported") / trained.path.parent.name / trained.path.name
    shutil.copytree(trained.path, run)
    with redirect_stdout(StringIO()) as said:
        assert cli.run(["export", str(run), "--format", "onnx"]) == 0
    (run.parent / "said").write_text(said.getvalue(), "utf-8")
    return run


@pytest.fixture
def run(exported: Path, tmp_path: Path) -> Path:
    """A copy of the exported run, to change."""
    return Path(shutil.copytree(exported, tmp_path / "outputs/c-m" / exported.name))


@pytest.fixture
def folder(trained: Run, tmp_path: Path) -> Path:
    """A copy of the trained run's model folder, alone."""
    return Path(shutil.copytree(trained.path / "model", tmp_path / "model"))


@pytest.fixture
def graph_is_there(exported: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Takes the graph that was exported before instead of exporting again."""
    graph = exported / "exports/onnx/model.onnx"
    monkeypatch.setattr(onnx_export, "_write_graph", lambda _model, _example, path: shutil.copy(graph, path))


def contents(folder: Path) -> dict[str, bytes]:
    return {path.name: path.read_bytes() for path in folder.iterdir()}


def test_what_is_written_and_said(exported: Path) -> None:
    folder = exported / "exports/onnx"
    assert sorted(path.name for path in folder.iterdir()) == FILES
    assert [path.name for path in folder.parent.iterdir()] == ["onnx"]
    wrote, within, following = (exported.parent / "said").read_text("utf-8").splitlines()
    assert wrote == f"wrote {folder}"
    assert within.startswith("its logits are within ")
    assert within.endswith(" of PyTorch's, alone and padded, from 1 to 128 tokens")
    assert following == f"next: bunryu predict {exported} --runtime onnx"
    for path in folder.iterdir():  # nothing of this machine
        for trace in (str(exported), "site-packages", "modeling_bert", sys.prefix, "name_or_path"):
            assert trace.encode() not in path.read_bytes(), (path.name, trace)


@pytest.mark.cpus
def test_onnxruntime_gives_pytorchs_logits_and_has_parity_samples_of_its_own(exported: Path) -> None:
    ours = open_predictor(exported, device="cpu")
    theirs = open_predictor(exported, runtime="onnx", device="cpu")
    assert (theirs.runtime, theirs.device) == ("onnx", "cpu")
    assert (theirs.name, theirs.labels) == (ours.name, ours.labels)
    assert (theirs.metadata.cleaner, theirs.metadata.max_seq_length) == (ours.metadata.cleaner, 128)
    expected, encoded = ours.predict(TEXTS), theirs.encode(TEXTS)
    assert len({tuple(row) for row in expected.round(4).tolist()}) > 2
    assert theirs.predict(TEXTS).dtype == np.float32
    for batches in ([np.array([index]) for index in range(6)], [np.arange(6)]):
        np.testing.assert_allclose(theirs.logits(encoded, batches), expected, rtol=0, atol=1e-5)
    assert theirs.check_parity() <= 1e-6
    for sample, original in zip(theirs.metadata.parity, ours.metadata.parity, strict=True):
        assert (sample.text, sample.pair) == (original.text, original.pair)
        assert sample.logits == pytest.approx(original.logits, abs=1e-5, rel=0)


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


def test_predict_takes_the_export(exported: Path, tmp_path: Path) -> None:
    source, out = tmp_path / "in.csv", tmp_path / "out.csv"
    source.write_text("document\n영화가 좋다\n다시는 안 본다\n", "utf-8")
    assert cli.run(["predict", str(exported), str(source), "-o", str(out), "--runtime", "onnx"]) == 0
    rows = list(csv.DictReader(out.read_text("utf-8").splitlines()))
    expected = softmax(open_predictor(exported, runtime="onnx").predict([row["document"] for row in rows]))
    found = [[float(row["probability:부정"]), float(row["probability:긍정"])] for row in rows]
    np.testing.assert_allclose(found, expected, rtol=0, atol=1e-6)


def small(kind: str) -> tuple[Any, Any]:
    """A model of another architecture and its tokenizer, of one layer, with random weights."""
    torch.manual_seed(2)
    words = ["<s>", "<pad>", "</s>", "<unk>", "[CLS]", "[SEP]", "[PAD]", "[UNK]", "[MASK]", *"abcdefgh"]
    ids = {word: index for index, word in enumerate(words)}
    sizes = {**SIZES, "num_hidden_layers": 1, "vocab_size": len(words), **label_maps(["x", "y", "z"])}
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


@pytest.mark.cpus
@pytest.mark.parametrize(
    ("kind", "pairs", "names"),
    [
        ("roberta", False, {"input_ids", "attention_mask"}),  # of 16 bits, and without parity samples
        ("electra", True, {"input_ids", "attention_mask", "token_type_ids"}),
    ],
)
def test_other_architectures_at_their_longest(
    tmp_path: Path, kind: str, pairs: bool, names: set[str]
) -> None:
    texts = ["a b c", "", "a! b2 " * 20, "h g"]
    seconds: Any = ["d", "e f", "c " * 30, ""] if pairs else None
    samples = list(zip(texts, seconds or [None] * 4, strict=True))
    folder, (model, tokenizer) = tmp_path / "mine", small(kind)
    if kind == "roberta":
        model, samples = model.bfloat16(), []
    facts = {"model": kind, "corpus": "c", "run": "r"}
    write_model_folder(folder, model, tokenizer, Cleaner(allowed="a-z "), 24, samples, {}, facts)
    assert cli.run(["export", str(folder)]) == 0
    session = onnxruntime.InferenceSession(str(folder / "exports/onnx/model.onnx"))
    assert {value.name for value in session.get_inputs()} == names
    ours, theirs = open_predictor(folder, device="cpu"), open_predictor(folder, runtime="onnx")
    ours.network.model.float()  # type: ignore[attr-defined]
    expected = ours.predict(texts, seconds)
    assert theirs.encode(texts, seconds).lengths(24).max() == 24
    np.testing.assert_allclose(theirs.predict(texts, seconds), expected, rtol=0, atol=1e-4)
    assert np.ptp(expected, axis=0).max() > 0.01
    assert theirs.metadata.takes_pairs is pairs
    assert len(theirs.metadata.parity) == (len(samples) or 1)
    assert theirs.check_parity() <= 1e-6


@pytest.mark.cpus
def test_another_checkpoint_and_fewer_samples(run: Path, capfd: pytest.CaptureFixture[str]) -> None:
    path = run / "checkpoints/last.ckpt"
    checkpoint = torch.load(path, weights_only=True)
    checkpoint["state_dict"]["model.classifier.bias"] += 3.0
    torch.save(checkpoint, path)
    edit_json(run / "model/bunryu.json", lambda facts: {**facts, "parity": facts["parity"][:2]})
    assert cli.run(["export", str(run), "--format", "onnx", "--checkpoint", "last"]) == 0
    assert capfd.readouterr().err == ""
    last = open_predictor(run, checkpoint="last", device="cpu").predict(TEXTS)
    theirs = open_predictor(run, runtime="onnx")
    np.testing.assert_allclose(theirs.predict(TEXTS), last, rtol=0, atol=1e-5)
    assert np.abs(last - open_predictor(run, device="cpu").predict(TEXTS)).max() > 1
    assert len(theirs.metadata.parity) == 2  # those of the folder, and the former export is replaced
    assert theirs.check_parity() <= 1e-6
    assert sorted(path.name for path in (run / "exports").iterdir()) == ["onnx"]


@pytest.mark.usefixtures("graph_is_there")
@pytest.mark.parametrize("by", [1e-3, float("nan")])
def test_a_graph_with_other_logits_leaves_nothing(
    folder: Path, monkeypatch: pytest.MonkeyPatch, by: float
) -> None:
    before, plain = contents(folder), OnnxNetwork.__call__
    monkeypatch.setattr(OnnxNetwork, "__call__", lambda self, batch: plain(self, batch) + np.float32(by))
    said = f"onnxruntime's logits are not PyTorch's: one is off by {by:.2g}, more than 0.0001"
    assert said in error_of(1, "export", folder)
    assert contents(folder) == before


@pytest.mark.usefixtures("graph_is_there")
def test_a_model_that_is_not_what_was_saved_is_not_exported(folder: Path) -> None:
    samples = [{"text": "좋다", "logits": [9, 9]}]
    edit_json(folder / "bunryu.json", lambda facts: {**facts, "parity": samples})
    assert "the loaded model is not the one that was saved" in error_of(1, "export", folder)
    assert not (folder / "exports").exists()


def test_a_failed_export_leaves_the_former_one(run: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    before = contents(run / "exports/onnx")

    def fail(self: object, input_ids: torch.Tensor, attention_mask: object, token_type_ids: object) -> None:
        raise NotImplementedError("no such operator\nsecond line")

    monkeypatch.setattr(onnx_export._Logits, "forward", fail)
    said = "PyTorch cannot export this architecture: NotImplementedError: no such operator\n"
    assert said in error_of(1, "export", run)
    assert contents(run / "exports/onnx") == before
    assert [path.name for path in (run / "exports").iterdir()] == ["onnx"]


@pytest.mark.parametrize("package", ["onnx", "onnxscript", "onnxruntime"])
def test_a_missing_package_is_named(exported: Path, monkeypatch: pytest.MonkeyPatch, package: str) -> None:
    monkeypatch.setattr(export, "find_spec", lambda name: None if name == package else object())
    error = error_of(2, "export", exported)
    assert f"{package} is not installed" in error
    assert "pip install 'bunryu[onnx]'" in error


def test_the_runtime_missing_at_prediction_is_named(exported: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "onnxruntime", None)
    error = refused(ConfigError, open_predictor, exported, runtime="onnx")
    assert error.what.startswith("onnxruntime cannot be imported: ")
    assert error.fix == "pip install 'bunryu[onnx]'"


@pytest.mark.parametrize("device", ["cuda", "cuda:1", "mps", "cpu:0", "gpu"])
def test_a_device_that_is_not_there_is_refused(exported: Path, device: str) -> None:
    reason = "this onnxruntime has no CUDA" if "cuda" in device else "onnxruntime knows cpu and cuda"
    error = refused(ConfigError, open_predictor, exported, runtime="onnx", device=device)
    assert error.what == f"no device '{device}': {reason}"


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
    error = refused(ConfigError, open_predictor, exported, runtime="onnx", device="cuda:1")
    assert error.what == "no device 'cuda:1': CUDA cannot be used here"
    assert open_predictor(exported, runtime="onnx", device="auto").device == "cpu"
    assert asked == [
        ("CUDAExecutionProvider", {"device_id": 1}),
        ("CUDAExecutionProvider", {"device_id": 0}),
    ]


def lengthen_vocabulary(facts: Any) -> None:
    facts["model"]["vocab"]["새낱말"] = len(facts["model"]["vocab"])


def keys(**facts: Any) -> Change:
    return lambda config: config.update(facts)


@pytest.mark.parametrize(
    ("name", "change", "what"),
    [
        (
            "config.json",
            keys(id2label={"0": "긍정", "1": "부정"}),
            "the export's labels are ['긍정', '부정'], the model's ['부정', '긍정']",
        ),
        ("config.json", keys(id2label=dict(enumerate("abc"))), "config.json has 3 labels, the graph [2]"),
        ("config.json", keys(id2label={"0": "a", "7": "b"}), "config.json is damaged: id2label"),
        ("config.json", lambda config: config.pop("vocab_size") and None, "config.json is damaged: v"),
        ("tokenizer.json", lengthen_vocabulary, "the tokenizer has "),
        (
            "tokenizer_config.json",
            keys(model_input_names=["input_ids", "attention_mask"]),
            "the graph wants token_type_ids, the tokenizer gives ",
        ),
        ("tokenizer.json", lambda facts: [], "the tokenizer cannot be loaded: "),
        ("bunryu.json", keys(schema=99), "bunryu.json was written by a later bunryu"),
        ("bunryu.json", keys(max_seq_length=301), "onnxruntime cannot run the model: "),
        ("bunryu.json", keys(max_seq_length=1), "max_seq_length is 1, special tokens alone take 2"),
    ],
)
def test_files_that_do_not_fit_are_refused(run: Path, name: str, change: Change, what: str) -> None:
    edit_json(run / "exports/onnx" / name, change)
    error = refused(ModelError, open_predictor, run, runtime="onnx")
    assert error.what.startswith(what)
    assert "\n" not in error.what


def test_a_damaged_or_missing_graph_is_refused_quietly(run: Path, capfd: pytest.CaptureFixture[str]) -> None:
    path = run / "exports/onnx/model.onnx"
    content = path.read_bytes()
    for cut in (0, 1, 1000, -1000):
        path.write_bytes(content[:cut])
        error: BunryuError = refused(ModelError, open_predictor, run, runtime="onnx")
        assert error.what.startswith("the graph cannot be loaded: ")
        assert (error.where, error.fix) == (str(path), "export the run anew")
    path.unlink()
    error = refused(ConfigError, open_predictor, run, runtime="onnx")
    assert (error.what, error.where) == ("there is no export", str(path.parent))
    assert capfd.readouterr().err == ""


def test_weights_changed_in_the_graph_are_found_by_parity(run: Path) -> None:
    path = run / "exports/onnx/model.onnx"
    model = onnx.load(path)
    (bias,) = [tensor for tensor in model.graph.initializer if tensor.name.endswith("classifier.bias")]
    moved = onnx.numpy_helper.to_array(bias) + np.float32(1e-3)
    bias.CopyFrom(onnx.numpy_helper.from_array(moved, bias.name))
    onnx.save(model, path)
    predictor = load_onnx_predictor(run / "exports/onnx", "m", "cpu")
    error = refused(ModelError, predictor.check_parity)
    assert error.what.endswith("a logit is off by 0.001, more than 0.0001")


def test_an_export_elsewhere_is_used_by_itself(exported: Path, tmp_path: Path) -> None:
    folder = Path(shutil.copytree(exported / "exports/onnx", tmp_path / "elsewhere"))
    ours, alone = (open_predictor(place, runtime="onnx").predict(TEXTS) for place in (exported, folder))
    assert np.array_equal(ours, alone)
    source = tmp_path / "in.csv"
    source.write_text("text,document\n영화가 좋다,영화가 좋다\n", "utf-8")
    for place, out in ((exported, "ours.csv"), (folder, "alone.csv")):
        command = ["predict", str(place), str(source), "-o", str(tmp_path / out), "--runtime", "onnx"]
        assert cli.run([*command, "--text-column", "text"]) == 0
    assert (tmp_path / "ours.csv").read_bytes() == (tmp_path / "alone.csv").read_bytes()
    shutil.rmtree(folder)
    folder.mkdir()
    (folder / "notes.txt").touch()
    assert "there is something already" in error_of(2, "export", exported, "--output", folder)
    assert [path.name for path in folder.iterdir()] == ["notes.txt"]
