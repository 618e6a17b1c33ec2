"""The ``model/`` folder: whole, plain transformers, the same logits, nothing of the machine in it."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from safetensors.torch import load_file
from transformers import AutoTokenizer, BertConfig, BertForSequenceClassification

from bunryu.data.cleaner import Cleaner
from bunryu.inference.predictor import load_predictor
from bunryu.metrics import softmax
from bunryu.models.folder import PARITY_SAMPLES, write_model_folder
from helpers.small_models import BERT, architecture_folder, pretrained, scratch, weights_folder

TEXTS = ["영화가 좋다 " * count + "Film é" for count in range(1, 11)]
LABELS = ["부정", "긍정", "중립"]
MAX_LENGTH = 12
CLEANER = Cleaner(allowed="가-힣A-Za-zé ", max_repeats=2)
FILES = {"README.md", "bunryu.json", "config.json", "model.safetensors"}
FILES |= {"tokenizer.json", "tokenizer_config.json"}


def write(folder: Path, source: Any) -> Any:
    """Write a model folder; returns the model."""
    torch.manual_seed(5)
    tokenizer = source.tokenizer(TEXTS, CLEANER, folder.parent / "cache")
    model = source.classifier(tokenizer, LABELS)
    results = {"val/loss": 0.51234, "test/accuracy": 0.875, "best_checkpoint": "checkpoints/best.ckpt"}
    facts = {"model": source.name, "corpus": "reviews", "run": "2026-01-01_00-00-00-abcdef"}
    samples = [(text, None) for text in TEXTS]
    write_model_folder(folder, model, tokenizer, CLEANER, MAX_LENGTH, samples, results, facts)
    return model


@pytest.fixture(scope="module")
def folders(tmp_path_factory: pytest.TempPathFactory) -> dict[str, tuple[Path, Any]]:
    """Written folders, to look at and not to change, and the models they were written from."""
    place = tmp_path_factory.mktemp("written")
    sources = {"scratch": scratch(), "pretrained": pretrained(weights_folder(place / "pretrained-source"))}
    for kind in ("multi_label_classification", "regression"):
        sources[kind] = pretrained(classifier_folder(place / f"{kind}-source", kind))
    return {name: (place / name, write(place / name, source)) for name, source in sources.items()}


def classifier_folder(folder: Path, problem_type: str) -> Path:
    """A classifier saved for another task, as its config says in every way there is."""
    architecture_folder(folder)
    other = {"function_to_apply": "none", "finetuning_task": "mnli", "num_labels": 2, "return_dict": False}
    params = {"text-classification": {"function_to_apply": "sigmoid"}}
    config = BertConfig(**{**BERT, **other, "problem_type": problem_type, "task_specific_params": params})
    BertForSequenceClassification(config).save_pretrained(folder)
    return folder


@pytest.fixture(params=["scratch", "pretrained"])
def written(request: pytest.FixtureRequest, folders: dict[str, tuple[Path, Any]]) -> tuple[Path, Any]:
    return folders[request.param]


def read(folder: Path) -> Any:
    return json.loads((folder / "bunryu.json").read_text("utf-8"))


def test_the_files_and_what_they_hold(written: tuple[Path, Any]) -> None:
    folder, model = written
    assert {path.name for path in folder.iterdir()} == FILES
    config = json.loads((folder / "config.json").read_text("utf-8"))
    assert config["architectures"] == ["BertForSequenceClassification"]
    assert config["id2label"] == {"0": "부정", "1": "긍정", "2": "중립"}
    assert config["label2id"] == {"부정": 0, "긍정": 1, "중립": 2}
    weights = load_file(folder / "model.safetensors")
    assert all(torch.equal(weights[name], value) for name, value in model.state_dict().items())
    metadata = read(folder)
    assert sorted(metadata) == ["cleaner", "composed", "max_seq_length", "network", "parity", "schema"]
    assert (metadata["schema"], metadata["max_seq_length"]) == (1, MAX_LENGTH)
    assert Cleaner(**metadata["cleaner"]) == CLEANER
    assert [sample["text"] for sample in metadata["parity"]] == TEXTS[:PARITY_SAMPLES]
    assert {len(sample["logits"]) for sample in metadata["parity"]} == {3}
    assert len({tuple(sample["logits"]) for sample in metadata["parity"]}) > 2


PLAIN = """
import json, sys
sys.modules["bunryu"] = None
from transformers import AutoModelForSequenceClassification, AutoTokenizer, pipeline

def answer(folder, texts):
    tokenizer = AutoTokenizer.from_pretrained(folder)
    model = AutoModelForSequenceClassification.from_pretrained(folder)
    inputs = [tokenizer(text, truncation=True, return_tensors="pt") for text in texts]
    alone = [model(**one).logits[0].tolist() for one in inputs]
    batch = tokenizer(texts, truncation=True, padding=True, return_tensors="pt")
    classify = pipeline("text-classification", model=folder, truncation=True)
    return {"alone": alone, "together": model(**batch).logits.tolist(),
            "shape": list(batch["input_ids"].shape),
            "dropout": model.config.hidden_dropout_prob,
            "labels": [answer["label"] for answer in classify(texts)],
            "scores": [{answer["label"]: answer["score"] for answer in every}
                       for every in classify(texts, top_k=None)]}

print(json.dumps([answer(folder, texts) for folder, texts in json.loads(sys.argv[1])]))
"""


@pytest.mark.cpus
def test_plain_transformers_gives_the_same_logits(folders: dict[str, tuple[Path, Any]]) -> None:
    parities = [read(folder)["parity"] for folder, _ in folders.values()]
    cleaned = [[CLEANER(sample["text"]) for sample in parity] for parity in parities]
    given = json.dumps(
        [(str(folder), texts) for (folder, _), texts in zip(folders.values(), cleaned, strict=True)]
    )
    command = [sys.executable, "-I", "-c", PLAIN, given]
    environment = {**os.environ, "HF_HUB_OFFLINE": "1"}
    done = subprocess.run(command, env=environment, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    for parity, answer in zip(parities, json.loads(done.stdout.splitlines()[-1]), strict=True):
        expected = np.array([sample["logits"] for sample in parity])
        np.testing.assert_allclose(answer["alone"], expected, rtol=0, atol=1e-6)
        np.testing.assert_allclose(answer["together"], expected, rtol=0, atol=1e-5)
        assert answer["dropout"] == 0.1  # of which the saved logits have nothing
        assert answer["shape"][1] == MAX_LENGTH  # truncation=True alone cuts where training did
        assert answer["labels"] == [LABELS[index] for index in expected.argmax(axis=1)]
        for found, shares in zip(answer["scores"], softmax(expected), strict=True):
            assert found == pytest.approx(dict(zip(LABELS, shares, strict=True)), abs=1e-6, rel=0)


def test_the_tokenizer_comes_back_the_same(written: tuple[Path, Any]) -> None:
    tokenizer = AutoTokenizer.from_pretrained(written[0])
    assert tokenizer.model_max_length == MAX_LENGTH
    assert len(tokenizer("영화가 " * 50, truncation=True)["input_ids"]) == MAX_LENGTH
    assert tokenizer.tokenize("Film") == ["Film"]  # case is kept
    assert "é" in "".join(tokenizer.tokenize("é"))  # and accents


def test_nothing_of_the_machine_is_written(written: tuple[Path, Any]) -> None:
    for path in written[0].iterdir():
        content = path.read_bytes()
        for trace in (str(written[0].parent), str(Path.home()), sys.prefix, "name_or_path", "pytest-of"):
            assert trace.encode() not in content, (path.name, trace)


def test_the_card(written: tuple[Path, Any]) -> None:
    card = (written[0] / "README.md").read_text("utf-8")
    assert card.startswith("---\nlibrary_name: transformers\npipeline_tag: text-classification\n---\n# ")
    title = next(line for line in card.splitlines() if line.startswith("# "))
    assert title in ("# mini on reviews", "# pretrained-source on reviews")
    assert "Labels: 0 = 부정, 1 = 긍정, 2 = 중립." in card
    assert "| val/loss | 0.5123 |\n| test/accuracy | 0.8750 |\n" in card
    assert "best.ckpt" not in card
    assert f"cut after {MAX_LENGTH} tokens" in card


def test_writing_again_replaces_and_a_used_tokenizer_is_saved_without_its_last_truncation(
    tmp_path: Path,
) -> None:
    folder = tmp_path / "model"
    model = write(folder, scratch())
    tokenizer = AutoTokenizer.from_pretrained(folder)
    tokenizer("영화가", truncation=True, max_length=3, padding="max_length")
    facts = {"model": "mini", "corpus": "other", "run": "r"}
    write_model_folder(folder, model, tokenizer, Cleaner(), 8, [(TEXTS[0], None)], {}, facts)
    assert {path.name for path in folder.iterdir()} == FILES
    assert (read(folder)["max_seq_length"], len(read(folder)["parity"])) == (8, 1)
    assert AutoTokenizer.from_pretrained(folder).model_max_length == 8
    saved = json.loads((folder / "tokenizer.json").read_text("utf-8"))
    assert (saved["truncation"], saved["padding"]) == (None, None)


def test_samples_are_cut_so_that_no_text_makes_a_folder_slow_to_load(tmp_path: Path) -> None:
    source = scratch()
    tokenizer = source.tokenizer(TEXTS, CLEANER, tmp_path / "cache")
    model, facts = source.classifier(tokenizer, LABELS), {"model": "m", "checkpoint": "c"}
    apart = "e" + "\u0301\u0323" * 5000  # more marks than are composed until it is cut
    samples = [("영화가 좋다 " * 5000, None), ("é" * 9800 + apart, None)]
    write_model_folder(tmp_path / "m", model, tokenizer, CLEANER, MAX_LENGTH, samples, {}, facts)
    assert [len(sample["text"]) for sample in read(tmp_path / "m")["parity"]] == [10_000, 10_000]
    assert load_predictor(tmp_path / "m", "m", device="cpu").check_parity() < 1e-6
