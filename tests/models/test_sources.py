"""Models: from scratch, pretrained, an architecture alone; and what is refused on the way."""

from __future__ import annotations

import json
import logging
import os
import pickle
import subprocess
import sys
from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import load_file
from transformers import (
    AutoModelForSequenceClassification,
    AutoTokenizer,
    BertConfig,
    BertForSequenceClassification,
)

from bunryu.data.cleaner import NO_CLEANING
from bunryu.errors import ConfigError, DownloadError, ModelError
from bunryu.inference.predictor import load_predictor
from bunryu.models import sources as subject
from bunryu.models.folder import write_model_folder
from bunryu.models.sources import FromScratch, Pretrained
from bunryu.models.weights import load_tokenizer
from helpers.pickles import Payload
from helpers.refusing import edit_json, edit_weights, refused
from helpers.small_models import WORDS, add_code, architecture_folder, pretrained, scratch, weights_folder

LABELS = ["부정", "긍정", "neutral"]
families = pytest.mark.parametrize(
    "family", [BertForSequenceClassification, AutoModelForSequenceClassification]
)


def build(source: Pretrained | FromScratch, labels: list[str] = LABELS) -> Any:
    return source.classifier(source.tokenizer([], NO_CLEANING, Path("/nonexistent/cache")), labels)


# --- from scratch -------------------------------------------------------------------------------


def test_from_scratch_sizes_and_label_maps(tmp_path: Path) -> None:
    source = scratch()
    tokenizer = source.tokenizer(["Café Film café film"] * 4, NO_CLEANING, tmp_path)
    assert tokenizer.tokenize("Café café") == ["Café", "café"]  # it keeps case and accents
    model = source.classifier(tokenizer, LABELS)
    assert model.config.max_position_embeddings == tokenizer.model_max_length == 40
    assert model.config.pad_token_id == tokenizer.pad_token_id == 0
    assert model.config.id2label == {0: "부정", 1: "긍정", 2: "neutral"}
    assert model.config.label2id == {"부정": 0, "긍정": 1, "neutral": 2}
    assert model.bert.embeddings.word_embeddings.weight.shape == (len(tokenizer), 16)
    assert len(model.bert.encoder.layer) == 2
    assert model.classifier.weight.shape == (model.config.num_labels, 16) == (3, 16)
    assert model.training
    assert {parameter.dtype for parameter in model.parameters()} == {torch.float32}


def test_a_given_vocabulary_file(tmp_path: Path) -> None:
    (tmp_path / "vocab.txt").write_text("\n".join(WORDS) + "\n", "utf-8")
    source = scratch(str(tmp_path / "vocab.txt"))
    tokenizer = source.tokenizer(["never read"], NO_CLEANING, tmp_path / "cache")
    assert not (tmp_path / "cache").exists()
    assert tokenizer("영화가 A", add_special_tokens=True)["input_ids"] == [2, 5, 7, 8, 3]
    assert source.classifier(tokenizer, LABELS).config.vocab_size == len(WORDS)


@pytest.mark.parametrize(
    ("content", "message"),
    [
        (b"[PAD]\n\xff\n", "cannot read the vocabulary"),
        (b"[PAD]\n[CLS]\n", "the vocabulary lacks [UNK], [SEP]"),
        ("\n".join([*WORDS, "영화"]).encode(), "the vocabulary holds '영화' twice"),
    ],
)
def test_a_vocabulary_file_that_cannot_work_is_refused(tmp_path: Path, content: bytes, message: str) -> None:
    (tmp_path / "vocab.txt").write_bytes(content)
    source = scratch(str(tmp_path / "vocab.txt"))
    assert message in refused(ConfigError, source.tokenizer, [], NO_CLEANING, tmp_path).what


# --- pretrained weights -------------------------------------------------------------------------


@pytest.mark.cpus
@families
def test_weights_of_a_folder_are_loaded_and_reported(
    tmp_path: Path, family: Any, caplog: pytest.LogCaptureFixture
) -> None:
    folder = weights_folder(tmp_path / "모델 (1)")
    with caplog.at_level(logging.INFO, "bunryu"):
        model = build(pretrained(folder, positions=40, family=family))
    stored, loaded = load_file(folder / "model.safetensors"), model.state_dict()
    encoder = [key for key in stored if key.startswith("bert.")]
    assert len(encoder) == 37  # five of the embeddings, sixteen a layer
    assert all(torch.equal(loaded[key], stored[key]) for key in encoder)
    assert {tensor.data_ptr() % 64 for tensor in loaded.values()} == {0}  # not where the file has them
    assert model.classifier.weight.shape == (3, 16)
    assert model.config.id2label == {0: "부정", 1: "긍정", 2: "neutral"}
    (report,) = [line for line in caplog.messages if line.startswith("weights from")]
    assert "37 loaded, 4 new (bert.pooler.dense.bias, bert.pooler.dense.weight, classifier.bias, " in report
    assert "classifier.weight), 5 unused (cls.predictions.bias, " in report


@families
@pytest.mark.parametrize("alone", [False, True])
def test_it_comes_ready_to_train_in_full_precision_with_the_keys_of_the_architecture(
    tmp_path: Path, family: Any, alone: bool
) -> None:
    folder = weights_folder(tmp_path / "model", torch.float16)
    if alone:
        (folder / "model.safetensors").unlink()
    model = build(pretrained(folder, family=family, hidden_dropout_prob=0.25, attn_implementation="eager"))
    # from_pretrained gives a model in evaluation mode, and Lightning leaves that as it is: no dropout.
    assert all(module.training for module in model.modules())
    assert {parameter.dtype for parameter in model.parameters()} == {torch.float32}
    assert model.config.dtype == torch.float32
    assert model.config.hidden_dropout_prob == model.bert.encoder.layer[0].output.dropout.p == 0.25
    assert model.config._attn_implementation == "eager"
    if not alone:  # and in a precision that is asked for
        assert next(build(pretrained(folder, dtype="bfloat16")).parameters()).dtype == torch.bfloat16


def test_a_head_for_other_labels_is_replaced(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    folder = architecture_folder(tmp_path / "model")
    first = BertForSequenceClassification(BertConfig.from_pretrained(folder, num_labels=5))
    first.save_pretrained(folder)
    with caplog.at_level(logging.INFO, "bunryu"):
        model = build(pretrained(folder))
    assert model.classifier.weight.shape == (3, 16)
    assert model.config.num_labels == 3
    assert torch.equal(model.bert.pooler.dense.weight, first.bert.pooler.dense.weight)
    assert "39 loaded, 2 new (classifier.bias, classifier.weight), 0 unused (none)" in caplog.text


def test_an_encoder_of_other_shapes_or_without_a_layer_is_refused(tmp_path: Path) -> None:
    folder = weights_folder(tmp_path / "model")
    architecture_folder(folder, intermediate_size=24)
    assert refused(ModelError, build, pretrained(folder)).what == (
        "the checkpoint's bert.encoder.layer.0.intermediate.dense.bias has the shape (20,), the model's (24,)"
    )
    architecture_folder(folder)
    edit_weights(folder, lambda weights: [weights.pop(key) for key in list(weights) if "layer.1." in key])
    error = refused(ModelError, build, pretrained(folder))
    assert "16 weights of the encoder are not in the checkpoint" in error.what
    assert "bert.encoder.layer.1.attention.output.LayerNorm.bias" in error.what
    assert error.where == str(folder)


@pytest.mark.parametrize("make", [architecture_folder, weights_folder])
def test_more_tokens_or_positions_than_the_model_has_are_refused(tmp_path: Path, make: Any) -> None:
    folder = make(tmp_path / "model")
    error: Any = refused(ConfigError, build, pretrained(folder, positions=41))
    assert "the model has 40 positions, not 41" in error.what
    assert error.fix == "model.positions=40"
    (folder / "vocab.txt").write_text("\n".join([*WORDS, "more"]), "utf-8")
    error = refused(ModelError, build, pretrained(folder))
    assert error.what == "the tokenizer has 14 tokens, the model's embedding 13"


@pytest.mark.parametrize(
    ("name", "what"),
    [
        ("pytorch_model.bin", "the weights are a pickle, "),
        ("model.safetensors", "the model cannot be loaded: "),
    ],
)
def test_pickles_are_refused_and_not_run(tmp_path: Path, name: str, what: str) -> None:
    folder, canary = architecture_folder(tmp_path / "model"), tmp_path / "canary"
    (folder / name).write_bytes(pickle.dumps(Payload(canary)))
    error = refused(ModelError, build, pretrained(folder))
    assert error.what.startswith(what)
    assert error.where == str(folder)
    assert not canary.exists()


def test_a_tokenizer_without_padding_is_refused_and_the_fix_works(tmp_path: Path) -> None:
    folder = weights_folder(tmp_path / "model")
    AutoTokenizer.from_pretrained(folder).save_pretrained(folder)
    edit_json(folder / "tokenizer_config.json", lambda config: {**config, "pad_token": None})
    error = refused(ModelError, build, pretrained(folder))
    assert error.what == "the tokenizer has no padding token"
    assert refused(ModelError, load_tokenizer, folder).what == error.what
    assert error.fix.startswith("\"+model.tokenizer_factory.pad_token='[UNK]'\"")
    source = pretrained(folder)
    mended = replace(source, tokenizer_factory=partial(source.tokenizer_factory, pad_token="[UNK]"))
    assert mended.tokenizer([], NO_CLEANING, tmp_path).pad_token_id == 1


@pytest.mark.parametrize("types", [1, 2])
@pytest.mark.parametrize("kind", ["scratch", "pretrained"])
def test_pairs_of_a_model_with_few_token_types(tmp_path: Path, kind: str, types: int) -> None:
    source: Any = pretrained(architecture_folder(tmp_path / "source", type_vocab_size=types))
    if kind == "scratch":
        source = replace(scratch(), architecture=partial(scratch().architecture, type_vocab_size=types))
    tokenizer = source.tokenizer(["영화 배우"] * 9, NO_CLEANING, tmp_path)
    model = source.classifier(tokenizer, ["a", "b"])
    pair = [("영화 배우", "배우 영화")]
    write_model_folder(
        tmp_path / "m", model, tokenizer, NO_CLEANING, 12, pair, {}, {"model": "m", "checkpoint": "c"}
    )
    predictor = load_predictor(tmp_path / "m", "m", device="cpu")
    assert predictor.check_parity() < 1e-6
    assert predictor.encode(["영화"], ["배우"]).template.has_types is (types == 2)
    assert ("token_type_ids" in load_tokenizer(tmp_path / "m").model_input_names) is (types == 2)


def test_code_in_a_folder_is_not_run(tmp_path: Path) -> None:
    folder = weights_folder(tmp_path / "model")
    add_code(folder, "config.json", tmp_path / "executed")
    source = pretrained(folder, family=AutoModelForSequenceClassification)
    assert type(build(source)) is BertForSequenceClassification  # the library's own class instead
    edit_json(folder / "config.json", lambda config: {**config, "model_type": "homemade"})
    assert "cannot be loaded" in refused(ModelError, build, source).what
    assert not (tmp_path / "executed").exists()


@pytest.mark.parametrize("name", ["config.json", "vocab.txt"])
def test_a_folder_that_lacks_a_file_is_refused(tmp_path: Path, name: str) -> None:
    folder = weights_folder(tmp_path / "model")
    (folder / name).unlink()
    assert refused(ModelError, build, pretrained(folder)).where == str(folder)


def test_a_home_folder_is_found(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("HOME", str(tmp_path))
    architecture_folder(tmp_path / "mine")
    assert pretrained("~/mine").location == str(tmp_path / "mine")
    assert pretrained("beomi/kcbert-base").location == "beomi/kcbert-base"


# --- an architecture alone ----------------------------------------------------------------------


@families
def test_an_architecture_alone_says_so_loudly(
    tmp_path: Path, family: Any, caplog: pytest.LogCaptureFixture
) -> None:
    folder = architecture_folder(tmp_path / "model")
    weights = []
    for seed in (1, 1, 2):
        torch.manual_seed(seed)
        model = build(pretrained(folder, positions=40, family=family))
        weights.append(model.bert.encoder.layer[0].output.dense.weight)
    assert torch.equal(weights[0], weights[1])
    assert not torch.equal(weights[0], weights[2])
    assert isinstance(model, BertForSequenceClassification)
    assert model.config.id2label == {0: "부정", 1: "긍정", 2: "neutral"}
    assert model.classifier.weight.shape == (3, 16)
    warning = caplog.records[0]
    assert warning.levelno == logging.WARNING
    assert f"NO WEIGHTS in {folder}" in warning.getMessage()
    assert "the weights are RANDOM" in warning.getMessage()


def test_kcberts_own_folder(shared: Path, caplog: pytest.LogCaptureFixture) -> None:
    model = build(pretrained(shared / "models/kcbert-base", 300, num_hidden_layers=1), LABELS[:2])
    assert model.config.vocab_size == 30_000
    assert model.bert.embeddings.position_embeddings.weight.shape == (300, 768)
    assert len(model.bert.encoder.layer) == 1
    assert "NO WEIGHTS" in caplog.text


# --- the Hub ------------------------------------------------------------------------------------


HUB = """
import json, sys, threading
from functools import partial
from http.server import SimpleHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

folder = Path(sys.argv[1])
asked = []

class Hub(SimpleHTTPRequestHandler):
    def do_HEAD(self):
        asked.append(self.path)
        name = self.path.rpartition("/")[2].partition("?")[0]
        file = folder / name
        found = self.path.startswith("/someone/model/resolve/main/") and file.is_file()
        content = file.read_bytes() if found else b""
        self.send_response(200 if found or self.path == "/" else 404)
        self.send_header("Content-Length", str(len(content)))
        self.send_header("X-Repo-Commit", "0" * 40)
        self.send_header("ETag", '"' + name + '"')
        if not found:
            missing = "RepoNotFound" if "/nobody/" in self.path else "EntryNotFound"
            self.send_header("X-Error-Code", missing)
        self.end_headers()
        return content
    def do_GET(self):
        self.wfile.write(self.do_HEAD())
    def log_message(self, *args):
        pass

server = ThreadingHTTPServer(("127.0.0.1", 0), Hub)
threading.Thread(target=server.serve_forever, daemon=True).start()
import os
os.environ["HF_ENDPOINT"] = f"http://127.0.0.1:{server.server_port}"

from transformers import AutoModelForSequenceClassification, AutoTokenizer
from bunryu.errors import DownloadError
from bunryu.models.sources import Pretrained

def load(name):
    source = Pretrained(name, 1e-5, 40, partial(AutoModelForSequenceClassification.from_pretrained),
                        partial(AutoTokenizer.from_pretrained, do_lower_case=False))
    try:
        tokenizer = source.tokenizer([], None, None)
        model = source.classifier(tokenizer, ["no", "yes"])
        answer = {"tokens": len(tokenizer), "sum": model.bert.embeddings.word_embeddings.weight.sum().item()}
    except DownloadError as error:
        answer = {"what": error.what, "where": error.where, "fix": error.fix}
    return {**answer, "asked": len(asked)}

answers = {"served": load("someone/model"), "mistyped": load("nobody/model"), "missing": load("someone/else")}
server.shutdown()
server.server_close()
answers["cached"] = load("someone/model")
answers["offline"] = load("someone/else")
print(json.dumps(answers))
"""


def test_a_hub_that_serves_lacks_and_is_gone(tmp_path: Path) -> None:
    folder = weights_folder(tmp_path / "hub")
    environment = {key: value for key, value in os.environ.items() if not key.startswith("HF_")}
    environment |= {"HF_HOME": str(tmp_path / "cache"), "HF_HUB_DISABLE_XET": "1", "NO_PROXY": "127.0.0.1"}
    done = subprocess.run(
        [sys.executable, "-c", HUB, str(folder)], env=environment, capture_output=True, text=True, check=False
    )
    assert done.returncode == 0, done.stderr
    answers = json.loads(done.stdout.splitlines()[-1])
    total = load_file(folder / "model.safetensors")["bert.embeddings.word_embeddings.weight"].sum().item()
    assert answers["served"]["tokens"] == len(WORDS)
    assert answers["served"]["sum"] == pytest.approx(total)
    for case in ("missing", "offline"):
        assert (
            "the tokenizer of 'someone/else' is not cached and could not be fetched" in answers[case]["what"]
        )
        assert answers[case]["where"] == "model.name"
        for advice in ("check the network", "model.name=<a folder", "model=tiny"):
            assert advice in answers[case]["fix"]
    assert answers["mistyped"]["fix"].startswith("check the name, owner/name as the Hub has it;")
    # Once fetched, it needs no network. That nothing is retried: the next test.
    assert answers["cached"]["sum"] == answers["served"]["sum"]
    assert answers["offline"]["asked"] == answers["missing"]["asked"]


def test_the_hub_is_asked_once_with_a_limit_when_it_does_not_answer(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    asked: list[float] = []

    class Silent:
        def head(self, url: str, timeout: float) -> None:
            asked.append(timeout)
            raise TimeoutError("timed out")

    def factory(name: str, **arguments: Any) -> None:
        assert arguments["local_files_only"] is True
        raise OSError("not cached\nmore lines")

    monkeypatch.setattr(subject, "get_session", Silent)
    source = Pretrained("someone/model", 1e-5, None, factory, factory)
    assert refused(DownloadError, source.tokenizer, [], NO_CLEANING, tmp_path).what == (
        "the tokenizer of 'someone/model' is not cached and could not be fetched "
        "from https://huggingface.co: not cached"
    )
    assert asked == [5.0]
    build(pretrained(weights_folder(tmp_path / "model")))
    assert asked == [5.0]  # not for a folder
