"""An exported classifier, run by onnxruntime."""

from __future__ import annotations

import re
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import torch

from bunryu.errors import ConfigError, ModelError, first_line
from bunryu.inference.predictor import Arrays, Predictor
from bunryu.models.metadata import GRAPH, MODEL_CONFIG, ModelMetadata, read_labels
from bunryu.models.weights import check_vocabulary, load_tokenizer
from bunryu.system.records import read_checked

FATAL = 4  # onnxruntime's level of messages; what it refuses is raised besides


@dataclass(frozen=True)
class OnnxNetwork:
    """A graph, called with padded arrays, that returns logits of shape (rows, classes)."""

    session: Any  # an onnxruntime.InferenceSession
    where: str  # the graph's folder, for messages

    def __call__(self, batch: Arrays) -> npt.NDArray[np.float32]:
        feeds = {graph_input.name: batch[graph_input.name] for graph_input in self.session.get_inputs()}
        try:
            logits = self.session.run(["logits"], feeds)[0]
        except Exception as error:  # onnxruntime's errors have no base class of their own
            what = f"onnxruntime cannot run the model: {first_line(error)}"
            raise ModelError(what, where=self.where, fix="export the run anew") from error
        return np.asarray(logits, np.float32)


def load_onnx_predictor(folder: Path, name: str, device: str) -> Predictor:
    """A predictor of what ``bunryu export --format onnx`` wrote to a folder.

    Raises ConfigError if there is no such export or device, or onnxruntime is not installed; ModelError if
    a file is missing or damaged, or they do not fit together.
    """
    if not (folder / GRAPH).is_file():
        fix = f"bunryu export {folder.parents[1]} --format onnx"
        raise ConfigError("there is no export", where=str(folder), fix=fix)
    metadata = ModelMetadata.read(folder)
    tokenizer = load_tokenizer(folder)
    labels = read_labels(folder)
    session = _open(folder / GRAPH, device)
    classes = [output.shape[-1] for output in session.get_outputs() if output.name == "logits"]
    if classes != [len(labels)]:
        raise _misfit(f"config.json has {len(labels)} labels, the graph {classes or 'no logits'}", folder)
    check_vocabulary(tokenizer, read_checked(folder / "config.json", MODEL_CONFIG)["vocab_size"], str(folder))
    runs_on = "cpu" if session.get_providers()[0] == "CPUExecutionProvider" else _cuda(device)
    predictor = Predictor(
        name, metadata, tokenizer, labels, OnnxNetwork(session, str(folder)), runtime="onnx", device=runs_on
    )
    _check_graph(predictor, session, folder)
    return predictor


def _check_graph(predictor: Predictor, session: Any, folder: Path) -> None:
    """Refuse a graph with other inputs than the tokenizer gives, or too short for max_seq_length."""
    encoded = predictor.encode([""], [""] if predictor.metadata.takes_pairs else None)
    index, limit = np.array([0]), predictor.metadata.max_seq_length
    given = set(encoded.batch(index, limit, limit, 0))
    if unknown := {graph_input.name for graph_input in session.get_inputs()} - given:
        raise _misfit(f"the graph wants {sorted(unknown)[0]}, the tokenizer gives {sorted(given)}", folder)
    predictor.logits(encoded, [index], padding="max_length")


def _open(path: Path, device: str) -> Any:
    try:
        import onnxruntime
    except ImportError as error:
        what, fix = f"onnxruntime cannot be imported: {error}", "pip install 'bunryu[onnx]'"
        raise ConfigError(what, where="--runtime onnx", fix=fix) from None
    onnxruntime.set_default_logger_severity(FATAL)
    providers = _providers(device, onnxruntime.get_available_providers())
    options = onnxruntime.SessionOptions()
    options.log_severity_level = FATAL
    options.intra_op_num_threads = torch.get_num_threads()  # which knows OMP_NUM_THREADS and the CPUs allowed
    try:
        session = onnxruntime.InferenceSession(str(path), options, providers=providers)
    except Exception as error:  # they have no base class of their own
        raise ModelError(
            f"the graph cannot be loaded: {first_line(error)}", where=str(path), fix="export the run anew"
        ) from None
    if device.startswith("cuda") and session.get_providers()[0] == "CPUExecutionProvider":
        raise _no_device(device, "CUDA cannot be used here")
    return session


def _providers(device: str, available: list[str]) -> list[Any]:
    """onnxruntime's names of what may run the graph, the first choice first."""
    if re.fullmatch(r"auto|cpu|cuda(:\d+)?", device) is None:
        raise _no_device(device, "onnxruntime knows cpu and cuda")
    if device.startswith("cuda") and "CUDAExecutionProvider" not in available:
        raise _no_device(device, "this onnxruntime has no CUDA")
    if device == "cpu" or "CUDAExecutionProvider" not in available:
        return ["CPUExecutionProvider"]
    number = int(_cuda(device).partition(":")[2])
    return [("CUDAExecutionProvider", {"device_id": number}), "CPUExecutionProvider"]


def _cuda(device: str) -> str:
    return device if ":" in device else "cuda:0"


def _no_device(device: str, reason: str) -> ConfigError:
    return ConfigError(f"no device '{device}': {reason}", where="--device", fix="auto or cpu")


def _misfit(what: str, folder: Path) -> ModelError:
    return ModelError(what, where=str(folder), fix="export the run anew")
