"""What this machine can train on: ``auto`` made concrete, and a refusal of what is missing."""

from __future__ import annotations

import copy
import importlib.util
import os
import platform
from collections.abc import Iterator, Mapping
from typing import Any

import torch

from bunryu.errors import ConfigError
from bunryu.system import machine, ranks

NAMES = {"cuda": "gpu", "xla": "tpu"}  # Lightning's other names
PRECISIONS = {"16": "16-mixed", "32": "32-true", "64": "64-true", "bf16": "bf16-mixed"}  # its short names
PROCESSES_PER_CORE = 4  # at most; each has a model of its own
DEVICES = {"gpu": "gpus", "tpu": "chips", "mps": "gpus"}

Refusal = tuple[str, str, str]  # what is wrong, the key below accelerator, and how to fix it


def resolve_auto(config: Mapping[str, Any]) -> dict[str, Any]:
    """The config with what ``auto`` comes to on this machine; ConfigError for what is not there."""
    settled = copy.deepcopy(dict(config))
    accelerator, trainer = settled["accelerator"], settled["trainer"]
    before = dict(accelerator)
    name = NAMES.get(before["name"], before["name"])
    accelerator["name"] = next(iter(available())) if name == "auto" else name
    precision = _precision(accelerator["name"]) if before["precision"] == "auto" else before["precision"]
    accelerator["precision"] = precision
    for key, source in (("accelerator", "name"), ("precision", "precision")):
        if trainer[key] == before[source]:  # as the shipped config has it, and not the user's own
            trainer[key] = accelerator[source]
    for node in (accelerator, trainer):
        node["precision"] = PRECISIONS.get(str(node["precision"]), node["precision"])
    if before["name"] == "auto" and accelerator["name"] == "tpu":
        accelerator["autocast"] = settled["task"]["autocast"] = True  # as the tpu preset has it
    check(settled)
    return settled


def check(config: Mapping[str, Any]) -> None:
    """Raise ConfigError for an accelerator, a number of devices or a precision that this machine lacks."""
    accelerator, trainer = config["accelerator"], config["trainer"]
    name, devices, found = str(accelerator["name"]), accelerator["devices"], available()
    if not isinstance(devices, int) or devices < 1:
        what = f"{devices!r} is no number of devices"
        raise ConfigError(what, where="accelerator.devices", fix="accelerator.devices=1")
    for key, own, value in [
        ("accelerator", "accelerator", name),
        ("devices", "accelerator.devices", devices),
    ]:
        if NAMES.get(str(trainer[key]), trainer[key]) != value:
            what, fix = f"trainer.{key}={trainer[key]} beside {own}={value}", f"{own}={trainer[key]}"
            raise ConfigError(what, where=f"trainer.{key}", fix=f"{fix}, which the trainer follows")
    if name not in found:
        what = f"there is no {name} here that PyTorch {torch.__version__} can use; it found "
        fix = "; ".join(filter(None, [f"accelerator={next(iter(found))}", _hint(name)]))
        raise ConfigError(what + _described(found), where="accelerator", fix=fix)
    refusals = [
        *_number_refusals(name, devices, found[name]),
        *_mode_refusals(name, str(trainer["precision"]), str(trainer["strategy"])),
    ]
    for what, key, fix in refusals:
        raise ConfigError(what, where=f"accelerator{key}", fix=fix)


def _number_refusals(name: str, devices: int, found: int) -> Iterator[Refusal]:
    """Of chips one or all are taken, since one process has them all."""
    key, fix = ".devices", f"accelerator.devices={found}"
    if name in DEVICES and devices > found:
        yield f"{devices} {DEVICES[name]} were asked for, there are {found}", key, fix
    if name == "cpu" and devices > PROCESSES_PER_CORE * found:
        what = f"{devices} processes were asked for, the processor has {found} cores"
        yield what, key, f"{fix} or fewer"
    if name == "tpu" and 1 < devices < found:
        what = f"{devices} of {found} chips were asked for: a run trains on one or on all"
        yield what, key, f"{fix}, or 1"
    if name == "tpu" and ranks.world_size() > 1:
        what = f"{ranks.world_size()} processes were started: one alone has all chips of a machine"
        yield what, "", f"bunryu train accelerator=tpu {fix}, without torchrun or srun"


def _mode_refusals(name: str, precision: str, strategy: str) -> Iterator[Refusal]:
    key, fix = ".precision", "accelerator.precision="
    if name == "tpu" and precision not in ("32-true", "bf16-true"):
        better = "32-true, with accelerator.autocast=true for speed"
        yield f"a tpu knows no precision {precision}", key, fix + better
    if name == "cpu" and precision.startswith("16"):
        what = f"precision {precision} is for gpus: a processor is slow with it, or not right"
        yield what, key, fix + ("bf16-mixed" if machine.cpu_has_bf16() else "32-true")
    if name == "cpu" and precision.startswith("bf16") and not machine.cpu_has_bf16():
        what = f"this processor ({machine.processor()}) has no bf16 instructions: "
        yield what + "they would be emulated, very slowly", key, fix + "32-true"
    key, fix = ".strategy", "accelerator.strategy=auto"
    if name == "tpu" and strategy != "auto":
        yield f"strategy {strategy} is not for a tpu, whose chips one process has", key, fix
    if any(word in strategy for word in ("spawn", "fork", "notebook")):
        yield f"strategy {strategy} starts processes that a run cannot be handed to", key, fix


def available() -> dict[str, int]:
    """How many devices of each kind there are, the fastest kind first."""
    found = {}
    if importlib.util.find_spec("torch_xla") is not None:
        from bunryu.training import tpu  # Lightning, which nobody else has to wait for

        if chips := tpu.chips():
            found["tpu"] = chips
    if torch.cuda.is_available():
        found["gpu"] = torch.cuda.device_count()
    if torch.backends.mps.is_available():
        found["mps"] = 1
    return {**found, "cpu": os.cpu_count() or 1}


def _precision(name: str) -> str:
    """16 bits for a gpu, with bfloat16's range where the card itself has it; 32 for anything else."""
    if name != "gpu":
        return "32-true"
    # an emulated bfloat16, which is what older cards offer, is slower than 32 bits
    return "bf16-mixed" if torch.cuda.is_bf16_supported(including_emulation=False) else "16-mixed"


def _described(found: Mapping[str, int]) -> str:
    names = {"cpu": f"a processor with {found['cpu']} cores ({platform.machine()})", "mps": "Apple's gpu"}
    return ", ".join(names.get(kind, f"{number} {kind}") for kind, number in found.items())


def _hint(name: str) -> str:
    if name == "gpu" and torch.version.cuda is None:
        return "this PyTorch is built without CUDA: https://pytorch.org/get-started has one"
    return "a TPU needs torch_xla: pip install -c constraints-tpu.txt -e '.[tpu]'" if name == "tpu" else ""
