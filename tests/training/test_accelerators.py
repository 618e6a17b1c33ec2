"""Which accelerator and precision ``auto`` comes to, and what is said where something is missing."""

from __future__ import annotations

import copy
import sys
from importlib.machinery import ModuleSpec
from pathlib import Path
from types import ModuleType
from typing import Any

import pytest
import torch

from bunryu import cli
from bunryu.errors import ConfigError
from bunryu.system import machine as machine_
from bunryu.system import ranks
from bunryu.training import accelerators
from bunryu.training import tpu as tpu_module


@pytest.fixture(autouse=True)
def machine(monkeypatch: pytest.MonkeyPatch) -> Any:
    """A machine with nothing but a processor; ``machine(cards=2, …)`` puts something into it."""

    def put(cards: int = 0, bf16: bool = True, tpu: int = 0, mps: bool = False) -> None:
        monkeypatch.setattr(torch.cuda, "is_available", lambda: cards > 0)
        monkeypatch.setattr(torch.cuda, "device_count", lambda: cards)
        # an emulated bfloat16 is there on any card
        monkeypatch.setattr(
            torch.cuda, "is_bf16_supported", lambda including_emulation=True: bf16 or including_emulation
        )
        monkeypatch.setattr(torch.backends.mps, "is_available", lambda: mps)
        module = ModuleType("torch_xla")
        module.__spec__ = ModuleSpec("torch_xla", None)
        monkeypatch.setitem(sys.modules, "torch_xla", module if tpu else None)  # type: ignore[arg-type]
        monkeypatch.setattr(tpu_module, "chips", lambda: tpu)

    put()
    return put


def config(name: str = "auto", precision: str = "auto", devices: int = 1, **trainer: Any) -> dict[str, Any]:
    return {
        "accelerator": {"name": name, "devices": devices, "precision": precision, "strategy": "auto"},
        "trainer": {"accelerator": name, "precision": precision, "devices": devices, "strategy": "auto"}
        | trainer,
        "task": {"autocast": False},
        "seed": 7,
    }


def where_and_fix(caught: pytest.ExceptionInfo[ConfigError]) -> tuple[str, str]:
    return caught.value.where, caught.value.fix


def settled(given: dict[str, Any]) -> tuple[str, str]:
    """Accelerator and precision, the same for bunryu's node and the trainer's."""
    found = accelerators.resolve_auto(given)
    names = found["accelerator"]["name"], found["accelerator"]["precision"]
    assert (found["trainer"]["accelerator"], found["trainer"]["precision"]) == names
    return names


def test_auto_takes_the_fastest_there_is(machine: Any) -> None:
    assert settled(config()) == ("cpu", "32-true")
    machine(mps=True)
    assert settled(config()) == ("mps", "32-true")
    machine(cards=1, mps=True)
    assert settled(config()) == ("gpu", "bf16-mixed")
    machine(cards=1, tpu=1)
    assert settled(config()) == ("tpu", "32-true")
    assert accelerators.resolve_auto(config())["task"] == {"autocast": True}


def test_a_card_without_bfloat16_gets_16_bits_with_scaling(machine: Any) -> None:
    machine(cards=1, bf16=False)  # as a T4
    assert settled(config()) == settled(config("gpu")) == ("gpu", "16-mixed")


def test_the_users_own_precision_of_the_trainer_stays(machine: Any) -> None:
    machine(cards=1)
    found = accelerators.resolve_auto(config() | {"trainer": config(precision="64-true")["trainer"]})
    assert (found["trainer"]["precision"], found["accelerator"]["precision"]) == ("64-true", "bf16-mixed")


@pytest.mark.parametrize(("key", "value"), [("accelerator", "cpu"), ("devices", 2)])
def test_a_trainer_on_another_device_than_the_accelerator_is_refused(
    key: str, value: Any, machine: Any
) -> None:
    machine(cards=4)
    given = config("gpu", "32-true")
    given["trainer"][key] = value
    with pytest.raises(ConfigError, match=f"trainer.{key}={value} beside accelerator") as caught:
        accelerators.resolve_auto(given)
    assert caught.value.where == f"trainer.{key}"


@pytest.mark.parametrize(
    ("name", "precision", "expected"),
    [
        ("auto", 16, ("gpu", "16-mixed")),
        ("auto", "16", ("gpu", "16-mixed")),
        ("auto", 32, ("gpu", "32-true")),
        ("auto", "bf16", ("gpu", "bf16-mixed")),
        ("auto", "32-true", ("gpu", "32-true")),  # the tutorial's experiment
        ("gpu", "16-mixed", ("gpu", "16-mixed")),
        ("cuda", "auto", ("gpu", "bf16-mixed")),
    ],
)
def test_what_was_asked_for_stays_under_its_whole_name(
    name: str, precision: Any, expected: tuple[str, str], machine: Any
) -> None:
    machine(cards=1)
    assert settled(config(name, precision)) == expected
    machine(tpu=1)
    assert settled(config("xla", "32-true")) == ("tpu", "32-true")


@pytest.mark.parametrize(
    ("given", "where", "fix"),
    [
        (config("cpu", "16-mixed"), "precision", "accelerator.precision=bf16-mixed"),
        (config("cpu", "16-true"), "precision", "accelerator.precision=bf16-mixed"),
        (config("tpu", "bf16-mixed"), "precision", "accelerator.precision=32-true, with accelerator.auto"),
        (config("tpu", "32-true", strategy="ddp"), "strategy", "accelerator.strategy=auto"),
        (config("cpu", "32-true", strategy="ddp_spawn"), "strategy", "accelerator.strategy=auto"),
        (config("gpu", "32-true", strategy="ddp_notebook"), "strategy", "accelerator.strategy=auto"),
        (config("cpu", "32-true", devices="two"), "devices", "accelerator.devices=1"),  # type: ignore[arg-type]
        (config("cpu", "32-true", devices=0), "devices", "accelerator.devices=1"),
    ],
)
def test_what_a_device_cannot_do_is_refused(
    given: dict[str, Any], where: str, fix: str, machine: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    machine(cards=1, tpu=1)
    monkeypatch.setattr(machine_, "cpu_has_bf16", lambda: True)
    with pytest.raises(ConfigError) as caught:
        accelerators.resolve_auto(given)
    assert caught.value.where == f"accelerator.{where}"
    assert caught.value.fix.startswith(fix)


def test_what_it_was_given_is_not_changed() -> None:
    given = config()
    before = copy.deepcopy(given)
    found = accelerators.resolve_auto(given)
    assert given == before
    assert found["seed"] == 7


@pytest.mark.parametrize(
    ("name", "fix"),
    [
        ("gpu", "accelerator=cpu"),
        ("tpu", "accelerator=cpu; a TPU needs torch_xla: pip install -c constraints-tpu.txt -e '.[tpu]'"),
        ("mps", "accelerator=cpu"),
    ],
)
def test_what_is_not_there_is_refused_with_what_is(
    name: str, fix: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(torch.version, "cuda", "13.0")
    monkeypatch.setattr(accelerators.os, "cpu_count", lambda: 6)  # type: ignore[attr-defined]
    with pytest.raises(ConfigError) as caught:
        accelerators.resolve_auto(config(name))
    assert caught.value.what.startswith(f"there is no {name} here that PyTorch {torch.__version__} can use")
    assert "a processor with 6 cores (" in caught.value.what
    assert where_and_fix(caught) == ("accelerator", fix)


def test_a_pytorch_without_cuda_is_named(machine: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(torch.version, "cuda", None)
    machine(mps=True)
    with pytest.raises(ConfigError, match="it found Apple's gpu, a processor with") as caught:
        accelerators.resolve_auto(config("gpu"))
    assert caught.value.fix.startswith("accelerator=mps; this PyTorch is built without CUDA: https://")


def test_more_cards_than_there_are(machine: Any) -> None:
    machine(cards=2)
    assert settled(config(devices=2)) == ("gpu", "bf16-mixed")
    with pytest.raises(ConfigError, match="3 gpus were asked for, there are 2") as caught:
        accelerators.resolve_auto(config(devices=3))
    assert where_and_fix(caught) == ("accelerator.devices", "accelerator.devices=2")


def test_one_chip_or_all(machine: Any) -> None:
    machine(tpu=4)
    for chips in (1, 4):
        assert settled(config("tpu", "32-true", chips)) == ("tpu", "32-true")
    for chips, what, fix in (
        (8, "8 chips were asked for, there are 4", "accelerator.devices=4"),
        (2, "2 of 4 chips were asked for: a run trains on one or on all", "accelerator.devices=4, or 1"),
    ):
        with pytest.raises(ConfigError, match=what) as caught:
            accelerators.resolve_auto(config("tpu", "32-true", chips))
        assert where_and_fix(caught) == ("accelerator.devices", fix)


def test_chips_want_no_process_each(machine: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    machine(tpu=4)
    assert ranks.processes_for(accelerators.resolve_auto(config("tpu", "32-true", 4))["accelerator"]) == 1
    assert ranks.processes_for(accelerators.resolve_auto(config("cpu", devices=2))["accelerator"]) == 2
    monkeypatch.setenv("WORLD_SIZE", "4")
    with pytest.raises(ConfigError, match="4 processes were started: one alone has all chips") as caught:
        accelerators.resolve_auto(config("tpu", "32-true", 4))
    assert caught.value.fix.startswith("bunryu train accelerator=tpu accelerator.devices=4, without torchrun")


def test_at_most_four_processes_a_core(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(accelerators.os, "cpu_count", lambda: 2)  # type: ignore[attr-defined]
    assert settled(config(devices=8)) == ("cpu", "32-true")
    with pytest.raises(ConfigError, match="9 processes were asked for, the processor has 2 cores") as caught:
        accelerators.resolve_auto(config(devices=9))
    assert where_and_fix(caught) == (
        "accelerator.devices",
        "accelerator.devices=2 or fewer",
    )


@pytest.mark.parametrize("precision", ["bf16-mixed", "bf16-true"])
def test_bfloat16_on_a_processor_only_where_it_has_it(
    precision: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(machine_, "cpu_has_bf16", lambda: True)
    assert settled(config("cpu", precision)) == ("cpu", precision)
    monkeypatch.setattr(machine_, "cpu_has_bf16", lambda: False)
    with pytest.raises(ConfigError, match="has no bf16 instructions") as caught:
        accelerators.resolve_auto(config("cpu", precision))
    assert where_and_fix(caught) == ("accelerator.precision", "accelerator.precision=32-true")


def test_the_command_says_it_and_leaves_nothing(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert cli.run(["train", "accelerator=gpu", f"output_root={tmp_path / 'out'}"]) == 2
    error = capsys.readouterr().err
    assert "there is no gpu here" in error
    assert "fix:   accelerator=cpu" in error
    assert not (tmp_path / "out").exists()


def test_the_manifest_has_what_auto_came_to(trained: Any) -> None:
    recorded = trained.manifest["config"]
    assert (recorded["accelerator"]["name"], recorded["accelerator"]["precision"]) == ("cpu", "32-true")
    assert (recorded["trainer"]["accelerator"], recorded["trainer"]["precision"]) == ("cpu", "32-true")
    assert trained.manifest["device"]["precision"] == "32-true"


@pytest.mark.parametrize(
    ("overrides", "said"),
    [
        (["accelerator.precision=exact"], "Precision 'exact' is invalid"),
        (["accelerator.strategy=nonsense"], "nonsense"),
        (["+trainer.num_nodes=2"], "one process was started, for 2 machines"),
        (["trainer.devices=2"], "trainer.devices=2 beside accelerator.devices=1"),
    ],
)
def test_what_the_trainer_refuses_leaves_no_directory(
    overrides: list[str], said: str, tmp_path: Path, capfd: pytest.CaptureFixture[str]
) -> None:
    assert cli.run(["train", "accelerator=cpu", f"output_root={tmp_path / 'out'}", *overrides]) == 2
    error = capfd.readouterr().err
    assert said in error
    assert error.count("\n  fix:   ") == 1
    assert not (tmp_path / "out").exists()
