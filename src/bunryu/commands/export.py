"""``bunryu export``: a model for another runtime, checked against PyTorch before it is kept."""

from __future__ import annotations

import argparse
import shlex
from collections.abc import Sequence
from importlib.util import find_spec
from pathlib import Path

from bunryu.commands.arguments import Parser
from bunryu.errors import ConfigError
from bunryu.inference.opening import find_checkpoint, locate, open_predictor
from bunryu.system.files import replacing

PACKAGES = ("onnx", "onnxscript", "onnxruntime")


def main(arguments: Sequence[str]) -> int:
    options = _parse(arguments)
    opened = locate(options.run)
    folder = opened.place("exports", "onnx", options.output)
    find_checkpoint(opened, options.checkpoint)
    if missing := [name for name in PACKAGES if find_spec(name) is None]:
        fix = "pip install 'bunryu[onnx]'"
        raise ConfigError(f"{missing[0]} is not installed", where="--format onnx", fix=fix)
    from bunryu.inference.onnx_export import export_onnx

    predictor = open_predictor(options.run, options.checkpoint, device="cpu")
    predictor.check_parity()
    with replacing(folder) as staging:
        worst = export_onnx(predictor, opened.model, staging)
    print(f"wrote {folder}")
    print(f"its logits are within {worst:.1e} of PyTorch's, alone and padded, from 1 to ", end="")
    print(f"{predictor.metadata.max_seq_length} tokens")
    print(f"next: bunryu predict {shlex.quote(str(options.output or opened.folder))} --runtime onnx")
    return 0


def _parse(arguments: Sequence[str]) -> argparse.Namespace:
    parser = Parser("bunryu export", description=__doc__.replace("``", ""))
    parser.add_argument("run", type=Path, help="a run directory, or a model folder alone")
    parser.add_argument("--format", choices=("onnx",), default="onnx", help="onnx (default)")
    parser.add_argument("--checkpoint", metavar="FILE", help="instead of the best: last.ckpt, or a path")
    parser.add_argument("--output", type=Path, metavar="FOLDER", help="instead of RUN/exports/onnx")
    return parser.parse_args(arguments)
