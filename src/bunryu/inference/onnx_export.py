"""A classifier written as an ONNX graph, and the graph held against PyTorch."""

from __future__ import annotations

import logging
import shutil
import warnings
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import torch

from bunryu.errors import ModelError
from bunryu.inference.onnx_runtime import load_onnx_predictor
from bunryu.inference.predictor import TOLERANCE, Predictor, TorchNetwork
from bunryu.models.metadata import GRAPH, ParitySample
from bunryu.models.weights import load_tokenizer

# Takes the place of parity samples in a model folder that has none.
SPARE = ParitySample("다시 보고 싶은 영화였다", None, ())


class _Logits(torch.nn.Module):
    """A transformers classifier whose only output is its logits."""

    def __init__(self, model: Any) -> None:
        super().__init__()
        self.model = model

    def forward(
        self,
        input_ids: torch.Tensor,
        attention_mask: torch.Tensor,
        token_type_ids: torch.Tensor | None = None,
    ) -> torch.Tensor:
        types = {} if token_type_ids is None else {"token_type_ids": token_type_ids}
        logits: torch.Tensor = self.model(input_ids=input_ids, attention_mask=attention_mask, **types).logits
        return logits


def export_onnx(predictor: Predictor, source: Path, folder: Path) -> float:
    """Write a graph of any batch and length with its tokenizer; returns how far a logit is from PyTorch's.

    The predictor, of the model folder ``source``, runs on the CPU; weights of 16 bits become 32 bits. Raises
    ModelError if it cannot be exported, or the difference is more than ``TOLERANCE``.
    """
    assert isinstance(predictor.network, TorchNetwork)
    predictor.network.model.float()
    example = _probe(predictor, rows=2, tokens=min(8, predictor.metadata.max_seq_length))
    _write_graph(predictor.network.model, example, folder / GRAPH)
    shutil.copyfile(source / "config.json", folder / "config.json")
    load_tokenizer(source).save_pretrained(folder)
    metadata = replace(predictor.metadata, parity=predictor.metadata.parity or [SPARE])
    metadata.write(folder)
    exported = load_onnx_predictor(folder, predictor.name, "cpu")
    own = exported.sample_anew()
    worst = _largest_difference(predictor, exported)
    if not worst <= TOLERANCE:  # so that NaN is refused too
        raise ModelError(
            f"onnxruntime's logits are not PyTorch's: one is off by {worst:.2g}, more than {TOLERANCE:g}",
            where=predictor.name,
            fix="predict and serve it with --runtime torch",
        )
    replace(metadata, parity=own).write(folder)
    return worst


def _write_graph(model: Any, example: dict[str, npt.NDArray[np.int64]], path: Path) -> None:
    inputs = {name: torch.from_numpy(array) for name, array in example.items()}
    rows, tokens = torch.export.Dim("rows"), torch.export.Dim("tokens")
    logging.getLogger("torch.onnx").setLevel(logging.ERROR)  # it warns of other libraries
    try:
        with warnings.catch_warnings(action="ignore"):
            program = torch.onnx.export(
                _Logits(model).eval(),
                kwargs=inputs,
                input_names=list(inputs),
                output_names=["logits"],
                dynamic_shapes={name: {0: rows, 1: tokens} for name in inputs},
                dynamo=True,
                verbose=False,
            )
    except Exception as error:  # it meets whatever an architecture does
        cause = error.__cause__ or error  # the exporter's own message is about reporting it
        reason = str(cause).strip().split("\n")[0]
        raise ModelError(
            f"PyTorch cannot export this architecture: {type(cause).__name__}: {reason}",
            where=model.config.model_type,
            fix="predict and serve it with --runtime torch",
        ) from error
    assert program is not None
    # Stack traces of the exporter, with this machine's paths.
    for node in program.model.graph.all_nodes():
        node.metadata_props.clear()
    program.save(path)


def _largest_difference(ours: Predictor, exported: Predictor) -> float:
    """Of a logit: over the samples one by one and in one batch, and over the shortest and longest row."""
    samples = exported.metadata.parity
    texts = [sample.text for sample in samples]
    pairs = [sample.pair or "" for sample in samples] if exported.metadata.takes_pairs else None
    rows = np.arange(len(samples))
    differences = [
        exported.logits(exported.encode(texts, pairs), batches)
        - ours.logits(ours.encode(texts, pairs), batches)
        for batches in (list(rows[:, None]), [rows])
    ]
    for tokens in (1, 2, ours.metadata.max_seq_length):
        batch = _probe(ours, rows=1, tokens=tokens)
        differences.append(exported.network(batch) - ours.network(batch))
    return float(np.abs(np.concatenate(differences)).max())


def _probe(predictor: Predictor, rows: int, tokens: int) -> dict[str, npt.NDArray[np.int64]]:
    """A batch of exactly this shape, without padding."""
    encoded = predictor.encode([SPARE.text], [SPARE.text] if predictor.metadata.takes_pairs else None)
    limit = predictor.metadata.max_seq_length
    batch = encoded.batch(np.array([0]), limit, int(encoded.lengths(limit)[0]), 0)
    return {name: np.resize(array, (rows, tokens)) for name, array in batch.items()}
